//! What the session's own processes have given up, as anybody sees it. Never: asks them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use super::ahead::{launcher, ready};
use super::world::{Setup, session, text};

/// A number in `/proc/PID/status`.
fn status(pid: &str, name: &str, base: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), base).unwrap()
}

/// `CAP_SYS_MODULE`, `CAP_SYS_RAWIO`, `CAP_SYS_BOOT`, `CAP_SYS_TIME`
const MACHINE: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 25;
/// `CAP_SYS_ADMIN`
const ADMIN: u64 = 1 << 21;

#[test]
fn supervisor_and_launcher_are_confined() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "who").await;
        let init = ready(&client, 1).await;
        let inherited = status("self", "Seccomp_filters", 10);
        for (pid, filters, without) in
            [(client.supervisor(), 1, MACHINE | ADMIN), (launcher(&client), 0, MACHINE), (init, 1, u64::MAX)]
        {
            let pid = pid.to_string();
            assert_eq!(status(&pid, "NoNewPrivs", 10), 1);
            assert_eq!(status(&pid, "Seccomp_filters", 10), inherited + filters);
            // An ordinary user has none to begin with; root shows it.
            assert_eq!(status(&pid, "CapPrm", 16) & without, 0);
            // The files of a process that is not dumpable belong to root.
            assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
        }
        client
    });
}

#[test]
fn the_launcher_reads_for_the_supervisor_what_a_refused_call_was_about() {
    let book = session(&Setup::default(), |mut client| async move {
        assert_eq!(text(&client.call(1, "chroot").await), "EPERM");
        client
    });
    let [violation] = book.end_of("chroot")["violations"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&violation["operation"], &violation["object"]), (&json!("chroot"), &json!("/a/path")));
}
