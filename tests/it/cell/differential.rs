//! The filter as the kernel runs it says what `seccomp::explain` says, call by call.
//!
//! Neighbours: `plan::seccomp`'s own tests run the program in an interpreter. Never: lets a call through that could
//! change more than the cell.

use std::collections::BTreeMap;

use toolcell::plan::seccomp::{self, Verdict};
use toolcell::plan::step::Step;
use toolcell::policy::Syscalls;

use super::scene::{Scene, compare, operations};
use crate::table;

/// Past every number that is known, and into those that are not.
const LAST: u32 = 600;

fn answers(stdout: &str) -> BTreeMap<u32, String> {
    let pairs = stdout.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(number, answer)| Some((number.parse().ok()?, answer.to_owned()))).collect()
}

/// Sweeps all numbers, with the filter and, in the same cell, without it.
fn sweep(scene: &Scene, profile: &str) -> (BTreeMap<u32, String>, BTreeMap<u32, String>) {
    let mut plan = scene.plan(profile, &[format!("sweep,{LAST}")]);
    let with = scene.run(&plan);
    assert!(with.failed.is_none() && with.stdout.ends_with(" ok\n"), "{with:?}");
    plan.steps.retain(|step| !matches!(step, Step::Seccomp { .. } | Step::Verify { .. }));
    let without = scene.run(&plan);
    assert!(without.failed.is_none() && without.stdout.ends_with(" ok\n"), "{without:?}");
    (answers(&with.stdout), answers(&without.stdout))
}

#[test]
fn the_kernel_answers_as_explained() {
    let scene = Scene::new();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let profiles = [
        ("", Syscalls::default()),
        (
            "syscalls.allow = [\"keyctl\", \"unshare\"]\nsyscalls.deny = [\"getcwd\", \"socket\", \"keyctl\"]\n",
            Syscalls { allow: names(&["keyctl", "unshare"]), deny: names(&["getcwd", "socket", "keyctl"]) },
        ),
    ];
    for (profile, changes) in profiles {
        // What Landlock does not hold on this host is refused besides.
        let changes = seccomp::denying(&changes, seccomp::unheld(crate::facts().landlock_abi));
        let (with, without) = sweep(&scene, profile);
        assert!(with.len() > 550 && with.len() == without.len());
        for (number, answer) in &with {
            let explained = seccomp::explain_number(*number, &changes, false).unwrap();
            let name = seccomp::name(*number).unwrap_or("unknown");
            let bare = &without[number];
            match explained.verdict {
                Verdict::Allow => assert_eq!(answer, bare, "{name} ({number}) is allowed"),
                Verdict::Errno(errno) => {
                    assert_eq!(answer, errno, "{name} ({number}) is refused, bare {bare}")
                }
                Verdict::Kill => assert_eq!(answer, "signal 31", "{name} ({number})"),
                Verdict::Conditional(_) => {
                    let refused = ["EPERM", "EAFNOSUPPORT", "EOPNOTSUPP"].contains(&answer.as_str());
                    assert!(refused || answer == bare, "{name} ({number}): {answer}, bare {bare}");
                }
            }
        }
    }
}

#[test]
fn arguments_decide_as_explained() {
    let scene = Scene::new();
    let (inet, inet6, unix) = (libc::AF_INET, libc::AF_INET6, libc::AF_UNIX);
    let (stream, datagram, raw) = (libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let table = table![
        "syscall", libc::SYS_socket, inet, stream, 0 => "ok";
        "syscall", libc::SYS_socket, inet6, datagram | flags, 17 => "ok";
        "syscall", libc::SYS_socket, inet, stream, 262 => "EPROTONOSUPPORT";
        "syscall", libc::SYS_socket, inet, datagram, 1 => "EPROTONOSUPPORT";
        "syscall", libc::SYS_socket, inet, raw, 255 => "ESOCKTNOSUPPORT";
        "syscall", libc::SYS_socket, unix, stream, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_VSOCK, stream, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_ALG, 5, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_PACKET, raw, 0 => "EAFNOSUPPORT";
        // EFAULT is the kernel's own answer: the filter let the call through.
        "syscall", libc::SYS_socketpair, unix, stream, 0, 0 => "EFAULT";
        "syscall", libc::SYS_socketpair, unix, datagram, 0, 0 => "ESOCKTNOSUPPORT";
        "syscall", libc::SYS_sendto, "0xffffffff", 0, 0, "0x20000000" => "EOPNOTSUPP";
        "syscall", libc::SYS_sendto, "0xffffffff", 0, 0, 0 => "EBADF";
        "syscall", libc::SYS_sendmsg, "0xffffffff", 0, "0x20000000" => "EOPNOTSUPP";
        "syscall", libc::SYS_sendmsg, "0xffffffff", 0, 0 => "EBADF";
        "syscall", libc::SYS_clone, "0x10000000", 0 => "EPERM";
        "syscall", libc::SYS_clone, "0x110000000", 0 => "EPERM";
        "syscall", libc::SYS_clone, "0x11", 0 => "ok";
        "syscall", libc::SYS_ioctl, 0, libc::TIOCLINUX => "EPERM";
        "syscall", libc::SYS_ioctl, 0, libc::TCGETS => "ENOTTY";
        "syscall", libc::SYS_prctl, libc::PR_SET_MM => "EPERM";
        "syscall", libc::SYS_prctl, libc::PR_SET_SECCOMP, 2 => "EPERM";
        "syscall", libc::SYS_prctl, libc::PR_SET_PTRACER, 1 => "EPERM";
        "syscall", libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS => "ok";
        "syscall", libc::SYS_personality, "0x0400000" => "EPERM";
        "syscall", libc::SYS_personality, "0xffffffff" => "ok";
        "syscall", libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, 0 => "ok";
        "syscall", libc::SYS_prlimit64, 1, libc::RLIMIT_CORE, "0x100000000", 0 => "EPERM";
        "syscall", libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 10 => "ok";
        "syscall", libc::SYS_setpriority, libc::PRIO_PROCESS, 1, 10 => "EPERM";
        "syscall", libc::SYS_fchmod, "0xffffffff", "04755" => "EPERM";
        "syscall", libc::SYS_fchmod, "0xffffffff", "0755" => "EBADF";
        "syscall", libc::SYS_execveat, "0xffffffff", 0, 0, 0, "0x1000" => "EPERM";
        "syscall", libc::SYS_execveat, "0xffffffff", 0, 0, 0, 0 => "EFAULT";
        "syscall", "0x40000000" => "signal 31";
        "syscall", "0xffffffff" => "ENOSYS";
    ];
    let run = scene.exec(&[], &operations(&table));
    compare(&run.stdout(), &table, &run.stderr());
}
