//! What one cell learns of another that lives at the same time, or does to it: what is closed, and what SECURITY.md says
//! remains. What is closed by one layer is tried without it.
//!
//! Neighbours: `layers` has the namespaces alone. Never: waits for time.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::probe;
use super::scene::{Scene, bare_answer, compare, floor, operations};
use crate::table;

/// A probe that has done something, and goes on until it is let go.
struct Holding {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Holding {
    fn start(command: &mut Command, what: &str, path: &str) -> (Self, String) {
        command.arg(format!("hold,{what},{path}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        (Self { child, output }, line.trim_end().to_owned())
    }

    /// What it says at its end.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text.trim_end().rsplit(' ').next().unwrap().to_owned()
    }
}

/// A cell of its own with what the options grant.
fn cell(scene: &Scene, options: &[&str]) -> Command {
    let mut command = scene.command("exec");
    command.args(floor()).args(options).arg("--").arg(probe::program());
    command
}

#[test]
fn locks_and_opens_of_a_shared_file_are_seen_by_the_other_cell() {
    let scene = Scene::new();
    let file = scene.file("data/file", 0o644);
    let data = scene.path("data");
    let program = probe::program();
    let program = program.to_str().unwrap();
    // Also of what may only be read, and of the program that every cell of a server has.
    for (path, options) in [(file.as_str(), ["--read", &data]), (program, ["--read", &data])] {
        for (first, second) in [("flock", "EAGAIN"), ("watch", "ok")] {
            let (holder, held) = Holding::start(&mut cell(&scene, &options), first, path);
            assert_eq!(held, "ok");
            let other = scene.exec(&options, &[format!("flock,{path}")]);
            compare(&other.stdout(), &table!["flock", path => second;], &other.stderr());
            // The watch has been told of the other's open.
            assert_eq!(holder.end(), "ok", "{first} {path}");
        }
    }
}

#[test]
fn a_watch_of_a_file_that_nobody_opens_tells_nothing() {
    let scene = Scene::new();
    let file = scene.file("data/file", 0o644);
    let data = scene.path("data");
    let (holder, held) = Holding::start(&mut cell(&scene, &["--read", &data]), "watch", &file);
    assert_eq!((held.as_str(), holder.end().as_str()), ("ok", "EAGAIN"));
}

#[test]
fn no_cell_has_a_lease_on_a_file() {
    let scene = Scene::new();
    let file = scene.file("data/file", 0o644);
    let data = scene.path("data");
    let lease = format!("lease,{file}");
    assert_eq!(bare_answer(&lease), "ok");
    let within = scene.exec(&["--write", &data], std::slice::from_ref(&lease));
    compare(&within.stdout(), &[(lease.clone(), "EPERM")], &within.stderr());
    let profile = scene.profile(&format!("syscalls.allow = [\"fcntl\"]\nfilesystem.write = [\"{data}\"]\n"));
    let without = scene.exec(&["--profile", &profile], std::slice::from_ref(&lease));
    compare(&without.stdout(), &[(lease, "ok")], &without.stderr());
}

#[test]
fn what_is_shared_by_number_or_name_alone_is_not_there() {
    let scene = Scene::new();
    let key = 0x7061_6972;
    let within = table![
        "syscall", libc::SYS_shmget, key, 4096, 0o1600 => "EPERM";
        "syscall", libc::SYS_semget, key, 1, 0o1600 => "EPERM";
        "syscall", libc::SYS_msgget, key, 0o1600 => "EPERM";
        "syscall", libc::SYS_mq_open, 0, 0, 0, 0 => "EPERM";
        "syscall", libc::SYS_keyctl, 0, -5, 0 => "EPERM";
        "syscall", libc::SYS_add_key, 0, 0, 0, 0, -3 => "EPERM";
        "syscall", libc::SYS_socket, libc::AF_UNIX, 1, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_VSOCK, 1, 0 => "EAFNOSUPPORT";
        "stat", "/dev/shm" => "ENOENT";
        "stat", "/dev/mqueue" => "ENOENT";
        "read", "/proc/stat" => "ENOENT";
        "read", "/proc/loadavg" => "ENOENT";
        "read", "/proc/meminfo" => "ENOENT";
        "read", "/proc/locks" => "ENOENT";
        "read", "/proc/net/unix" => "ENOENT";
        "read", "/proc/sysvipc/shm" => "ENOENT";
        "read", "/proc/interrupts" => "ENOENT";
        "read", "/proc/pressure/cpu" => "ENOENT";
        // Load, free memory and the number of processes of the whole host can be asked for all the same.
        "load" => "ok";
    ];
    for path in ["stat", "loadavg", "meminfo", "locks", "net/unix"] {
        assert_eq!(bare_answer(&format!("read,/proc/{path}")), "ok", "{path}");
    }
    let found = scene.exec(&[], &operations(&within));
    found.answers(&within);
}
