//! The process that keeps doors, as the host sees it. Never: ends a process that is not a test's own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use toolcell::sys::descriptor::{self, Interest};
use toolcell::sys::process;

use super::world::{PYTHON, World, echo, host};

/// The processes of this parent that are called so.
fn children(parent: u32, name: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let (head, rest) = stat.rsplit_once(") ").unwrap_or_default();
            head.ends_with(&format!("({name}")) && rest.split(' ').nth(1) == Some(&parent.to_string())
        })
        .collect()
}

/// Its descriptors are its own, its file system is that of resolving names, and with it the doors are shut: nobody else opens them.
#[test]
fn the_porter_is_confined_and_without_it_the_doors_are_shut() {
    let world = World::new();
    let port = host(echo);
    let script = format!(
        "import sys, socket
def attempt():
    try:
        s = socket.create_connection(('127.0.0.1', {port}), timeout=20); s.sendall(b'hello')
        print(s.recv(5) == b'hello', flush=True)
    except OSError as error: print(type(error).__name__, flush=True)
attempt(); sys.stdin.readline(); attempt()"
    );
    let network = format!("allow = [\"localhost:{port}\"]");
    let mut exec = world.command(&network, &[], &[&PYTHON[..], &[script.as_str()]].concat());
    let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "True");
    let [porter] = children(exec.id(), "toolcell-doors")[..] else { panic!("no porter of {}", exec.id()) };
    let status = fs::read_to_string(format!("/proc/{porter}/status")).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    let words = fs::read(format!("/proc/{porter}/cmdline")).unwrap();
    assert_eq!(words, b"toolcell\0keep-doors\0", "an image of its own");
    if let Ok(environment) = fs::read(format!("/proc/{porter}/environ")) {
        assert!(environment.is_empty(), "{environment:?}");
    }
    let pidfd = process::pidfd_open(porter).unwrap();
    process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    // All of its threads, each of which holds its sockets.
    let mut gone = [Interest { fd: Some(pidfd.as_fd()), events: libc::POLLIN, ready: 0 }];
    assert!(descriptor::poll(&mut gone, Some(Duration::from_secs(20))).unwrap());
    exec.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ConnectionRefusedError");
    assert!(exec.wait().unwrap().success());
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(world.0.0.join("report")).unwrap()).unwrap();
    let why = report["receipt"]["reasons"]["network"].as_str().unwrap_or_default();
    assert!(why.contains("did not say all of it"), "{report:#}");
}

/// It ends with its holder, whatever is open.
#[test]
fn nothing_is_left_of_a_porter_when_its_command_ends() {
    let world = World::new();
    let port = host(echo);
    let script = format!(
        "import socket\nall = [socket.create_connection(('127.0.0.1', {port})) for _ in range(5)]\nall[0].sendall(b'x')\nall[0].recv(1)"
    );
    let network = format!("allow = [\"localhost:{port}\"]");
    let mut exec = world.command(&network, &[], &[&PYTHON[..], &[script.as_str()]].concat());
    let exec = exec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = exec.id();
    let done = world.finished(&exec.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{done:#?}");
    assert_eq!(done.connections().len(), 5, "{done:#?}");
    assert!(children(pid, "toolcell-doors").is_empty());
    // Those of other tests' commands, which were killed, end a moment later.
    let until = Instant::now() + Duration::from_secs(10);
    while !children(1, "toolcell-doors").is_empty() {
        assert!(Instant::now() < until);
    }
}
