//! What a cell looks like from inside: /dev, /etc, /proc, the network, the host's name.
//!
//! Neighbours: `paths` has what is granted on top. Never: compares with a copy of the host's own files.

use std::fs;
use std::process::Command;

use toolcell::outcome::{Layer, Violation};
use toolcell::sys::landlock;

use super::scene::{Scene, bare_answer, compare, deaf, floor, operations};
use crate::{binary, table};

#[test]
fn the_devices_are_the_harmless_five() {
    let scene = Scene::new();
    assert_eq!(bare_answer("stat,/dev/ptmx"), "ok");
    let table = table![
        "list", "/dev" => "EACCES";
        "read", "/dev/zero" => "ok";
        "read", "/dev/urandom" => "ok";
        "read", "/dev/random" => "ok";
        "write", "/dev/null" => "ok";
        "write", "/dev/full" => "ENOSPC";
        "write", "/dev/urandom" => "EACCES";
        "stat", "/dev/tty" => "ENOENT";
        "stat", "/dev/ptmx" => "ENOENT";
        "stat", "/dev/shm" => "ENOENT";
        "stat", "/dev/fuse" => "ENOENT";
        "stat", "/dev/kmsg" => "ENOENT";
    ];
    scene.exec(&[], &operations(&table)).answers(&table);
}

#[test]
fn etc_is_made_and_not_copied() {
    let scene = Scene::new();
    for made in ["passwd", "group", "hosts", "hostname", "resolv.conf", "nsswitch.conf"] {
        let path = format!("/etc/{made}");
        let inside = scene.exec(&[], &[format!("cat,{path}")]).stdout();
        if let Ok(host) = fs::read_to_string(&path) {
            assert!(host.is_empty() || !inside.contains(&host.replace('\n', "|")), "{path} is the host's");
        }
    }
    let table = table![
        "cat", "/etc/hostname" => "cell|";
        "cat", "/etc/hosts" => "127.0.0.1 localhost|::1 localhost|";
        "read", "/etc/resolv.conf" => "ok";
        "hostname" => "cell";
        "read", "/etc/shadow" => "ENOENT";
        "read", "/etc/machine-id" => "ENOENT";
        "write", "/etc/passwd" => "EACCES";
        "create", "/etc/new" => "EROFS";
    ];
    scene.exec(&[], &operations(&table)).answers(&table);
}

#[test]
fn proc_shows_own_processes_only() {
    let scene = Scene::new();
    let run = scene.exec(&[], &["list,/proc".to_owned()]);
    let listed = run.stdout();
    let names: Vec<&str> = listed.trim().split(' ').skip(1).collect();
    let processes: Vec<&&str> = names.iter().filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(processes.len(), 1, "the payload, and not init: {listed}");
    let others: Vec<_> = names.iter().filter(|name| name.parse::<u32>().is_err()).collect();
    assert_eq!(others, [&"self", &"thread-self"], "process directories only");
    let table = table![
        "read", "/proc/1/environ" => "ENOENT";
        "read", "/proc/1/maps" => "ENOENT";
        "list", "/proc/1/fd" => "ENOENT";
        "read", "/proc/sys/kernel/core_pattern" => "ENOENT";
        "read", "/proc/cmdline" => "ENOENT";
        "read", "/proc/kallsyms" => "ENOENT";
        "read", "/proc/sysrq-trigger" => "ENOENT";
        "write", "/proc/self/uid_map" => "EACCES";
        "stat", "/sys" => "ENOENT";
        "read", "/proc/self/status" => "ok";
    ];
    scene.exec(&[], &operations(&table)).answers(&table);
}

#[test]
fn the_only_interface_that_is_up_is_a_loopback_of_its_own() {
    let scene = Scene::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert_eq!(bare_answer(&format!("tcp,127.0.0.1,{port}")), "ok");
    let table = table![
        "tcp", "127.0.0.1", port => "ECONNREFUSED";
        "tcp", "192.0.2.1", "80" => "ENETUNREACH";
        "tcp", "169.254.169.254", "80" => "ENETUNREACH";
    ];
    let run = scene.exec(&[], &operations(&table));
    run.answers(&table);
    let told: Vec<Violation> = serde_json::from_value(run.report["violations"].clone()).unwrap();
    let told: Vec<_> =
        told.iter().map(|one| (one.layer, one.object.as_str(), one.allow.as_deref())).collect();
    let line = |at: &str| format!("[network]\nallow = [\"{at}\"]");
    let here = format!("127.0.0.1:{port}");
    assert_eq!(
        told,
        [
            (Layer::Network, here.as_str(), Some(line(&here).as_str())),
            (Layer::Network, "192.0.2.1:80", Some(line("192.0.2.1:80").as_str())),
            (Layer::Network, "169.254.169.254:80", Some(line("169.254.169.254:80").as_str())),
        ]
    );
    // From ABI 4 on Landlock refuses by itself what nobody is told of, and before the network namespace has nobody there.
    let mut plan = scene.plan("", &operations(&table));
    deaf(&mut plan);
    let held = table.map(|(tried, alone)| (tried, if landlock::abi() < 4 { alone } else { "EACCES" }));
    compare(&scene.run(&plan).stdout, &held, "told to nobody");
    let devices = scene.exec(&[], &["cat,/proc/self/net/dev".to_owned()]).stdout();
    assert!(devices.contains(" lo:"), "{devices}");
    let routes = scene.exec(&[], &["cat,/proc/self/net/route".to_owned()]).stdout();
    assert_eq!(routes.matches('|').count(), 1, "a heading and no route: {routes}");
}

#[test]
fn the_environment_is_what_was_passed() {
    let scene = Scene::new();
    let run = |options: &[&str]| {
        let mut command = scene.command("exec");
        command.args(floor()).args(options).arg("--").arg(super::probe::program()).arg("environment");
        command.env("TOOLCELL_TEST_SECRET", "s3cret").env("TOOLCELL_TEST_OTHER", "other");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let none = run(&[]);
    assert!(none.contains("HOME=/tmp;") && none.contains("PATH=") && !none.contains("s3cret"), "{none}");
    let passed = run(&["--env", "TOOLCELL_TEST_SECRET", "--env", "FIXED=value=1"]);
    assert!(passed.contains("TOOLCELL_TEST_SECRET=s3cret;") && passed.contains("FIXED=value=1;"), "{passed}");
    assert!(!passed.contains("other"), "{passed}");
}

#[test]
fn no_signal_is_ignored() {
    let [option, value] = floor();
    let ignoring = "trap '' HUP INT TERM USR1; grep SigIgn: /proc/self/status; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", ignoring, "sh"]).arg(binary()).args(["exec", option, value, "--"]);
    let output = command.args(["grep", "SigIgn:", "/proc/self/status"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let masks = said.lines().filter_map(|line| line.strip_prefix("SigIgn:\t"));
    let masks: Vec<u64> = masks.map(|mask| u64::from_str_radix(mask, 16).unwrap()).collect();
    let [outside, inside] = masks[..] else { panic!("{said}{}", String::from_utf8_lossy(&output.stderr)) };
    assert_eq!((outside & 0x4203, inside), (0x4203, 0));
}

/// No file of toolcell's own takes the number of one that its caller left closed, where the cell's output would go into it.
#[test]
fn standard_descriptors_that_were_closed_lead_nowhere() {
    let scene = Scene::new();
    let report = scene.path("closed.json");
    let [option, value] = floor();
    let closing = "exec \"$@\" <&- >&- 2>&-";
    let mut command = Command::new("sh");
    command
        .args(["-c", closing, "sh"])
        .arg(binary())
        .args(["exec", option, value, "--report", &report, "--"]);
    let status = command.args(["sh", "-c", "echo out; echo err >&2; cat; exit 3"]).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(told["usage"]["bytes_out"], 8, "{told}");
}
