//! Who the payload is: ids, groups, capabilities, session, descriptors.
//!
//! Neighbours: `layers` has capabilities alone. Never: runs as anybody else than the tests do.

use std::process::{Command, Stdio};

use super::scene::{Scene, binary, floor, is_root, operations};
use super::{probe, scene};
use crate::table;

#[test]
fn the_payload_is_nobody_of_the_host() {
    let scene = Scene::new();
    let status = scene.exec(&[], &["cat,/proc/self/status".to_owned()]).stdout();
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1000\t1000\t1000\t1000",
    ] {
        assert!(status.contains(&format!("|{line}|")), "{line}: {status}");
    }
    let table = table![
        "ids" => "1000:1000";
        "session" => "own";
        "stat", "/dev/tty" => "ENOENT";
        "syscall", libc::SYS_setuid, "0" => "EINVAL";
        "syscall", libc::SYS_unshare, "0x10000000" => "EPERM";
    ];
    scene.exec(&[], &operations(&table)).answers(&table);
}

#[test]
fn root_outside_is_a_stranger_inside() {
    if !is_root() {
        return scene::skip("only root is somebody else inside");
    }
    let scene = Scene::new();
    let map = scene.exec(&[], &["cat,/proc/self/uid_map".to_owned()]).stdout();
    let numbers: Vec<u32> = map.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert_eq!((numbers[0], numbers[2], numbers.len()), (1000, 1, 3), "{map}");
    assert!(numbers[1] >= 0x7000_0000, "{map}");
}

#[test]
fn supplementary_groups_are_given_up() {
    if !is_root() {
        return scene::skip("only root can be given groups to lose");
    }
    let scene = Scene::new();
    let groups = |program: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--groups", "6,27,999", "--"])
            .args(program)
            .current_dir(scene.path(""))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (program, toolcell) = (probe::program(), binary());
    let (program, toolcell) = (program.to_str().unwrap(), toolcell.to_str().unwrap());
    assert_eq!(groups(&[program, "groups"]), "groups 3\n");
    assert_eq!(groups(&[&[toolcell, "exec"], &floor()[..], &["--", program, "groups"]].concat()), "groups 0\n");
}

#[test]
fn only_three_pipes_are_open() {
    let scene = Scene::new();
    let kept = std::fs::File::open("/").unwrap();
    let log = std::fs::File::create(scene.path("log")).unwrap();
    toolcell::sys::descriptor::duplicate_to(std::os::fd::AsFd::as_fd(&kept), 97, false).unwrap();
    let mut command = scene.command("exec");
    command.args(floor()).arg("--").arg(probe::program()).arg("descriptors");
    let input = std::fs::File::open(scene.file("input", 0o644)).unwrap();
    let output = command.stdin(Stdio::from(input)).stderr(log).output().unwrap();
    drop(toolcell::sys::descriptor::adopt(97));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "descriptors 0=pipe: 1=pipe: 2=pipe:");
    let bare = Command::new(probe::program()).arg("descriptors").stdin(Stdio::null()).output().unwrap();
    assert!(bare.stdout.starts_with(b"descriptors 0=/dev/null"));
}
