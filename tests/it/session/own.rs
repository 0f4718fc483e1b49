//! What the session's own processes have given up, as anybody sees it. Never: asks them.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::ahead::{child_named, launcher, ready};
use super::world::{Setup, assert_closed_up, session, text};

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
fn supervisor_launcher_and_guard_are_confined() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "who").await;
        let init = ready(&client, 1).await;
        let inherited = status("self", "Seccomp_filters", 10);
        for (pid, filters, without) in [
            (client.supervisor(), 1, MACHINE | ADMIN),
            (launcher(&client), 1, MACHINE),
            (child_named(&client, "toolcell-guard"), 1, MACHINE | ADMIN),
            (init, 2, u64::MAX),
        ] {
            assert_closed_up(pid);
            let pid = pid.to_string();
            assert_eq!(status(&pid, "Seccomp_filters", 10), inherited + filters);
            // An ordinary user has none to begin with; root shows it.
            assert_eq!(status(&pid, "CapPrm", 16) & without, 0);
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

#[test]
fn the_launcher_reads_for_the_supervisor_which_files_a_cell_lacks() {
    // Not in /tmp, of which a cell has one of its own.
    let other = PathBuf::from(format!("/var/tmp/toolcell-session-{}", std::process::id()));
    fs::write(&other, "").unwrap();
    let (setup, asked) = (Setup { observe: "files", ..Setup::default() }, other.clone());
    let book = session(&setup, |mut client| async move {
        // A launcher at work on the next cell answers too late, now and then, and nobody waits for it.
        for calls in 1.. {
            client.start_call(calls, "read", json!({ "path": asked })).await;
            let answer = client.read().await;
            assert_eq!(text(&answer), "ENOENT");
            let told = answer["result"]["_meta"]["dev.toolcell/violations"].as_array();
            if told.is_some_and(|told| told.iter().any(|told| told["object"] == asked.to_str().unwrap())) {
                break;
            }
        }
        client
    });
    fs::remove_file(&other).unwrap();
    let record = book.finished.last().unwrap();
    let all = record["violations"].as_array().unwrap();
    let found = all.iter().find(|found| found["object"] == other.to_str().unwrap()).unwrap();
    let line = format!("[filesystem]\nread = [\"{}\"]", other.display());
    assert_eq!((&found["layer"], &found["errno"]), (&json!("root"), &json!("ENOENT")));
    assert_eq!((&found["allow"], &found["count"]), (&json!(line), &json!(1)));
    assert_eq!(record["receipt"]["coverage"]["root"], "sampled");
}
