//! What a session does when the host has no memory, process or room on disk left for it, and when it has again.
//!
//! Never: waits for time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use toolcell::host::Cgroup;
use toolcell::sys::{identity, process};

use super::ahead::{launcher, ready, wait_for_end};
use super::world::{Scratch, Setup, session, session_in, text};
use crate::cell::{needs_root, note};

fn prlimit(pid: u32, arguments: &[&str]) -> String {
    let output = Command::new("prlimit").arg(format!("--pid={pid}")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Sets a soft limit of a process.
fn limit(pid: u32, name: &str, value: &str) {
    prlimit(pid, &[&format!("--{name}={value}:")]);
}

/// As much as the hard limit gives.
fn lift(pid: u32, name: &str) {
    let hard = prlimit(pid, &[&format!("--{name}"), "--noheadings", "--raw", "--output=HARD"]);
    limit(pid, name, &hard);
}

/// How a launcher's tasks are limited: by the user's limit, which root is above, or by a cgroup, which a cell of cgroup v2
/// is not counted in.
#[derive(Debug)]
enum Tasks {
    User,
    Cgroup(PathBuf),
}

impl Tasks {
    fn find() -> Option<Self> {
        if identity::effective().0 != 0 {
            return Some(Self::User);
        }
        let Ok(Cgroup::V1(hierarchies)) = &crate::facts().cgroup else { return None };
        let (_, parent) = hierarchies.iter().find(|(controller, _)| controller == "pids")?;
        let directory = parent.join(format!("starved-{}", process::pid()));
        fs::create_dir(&directory).unwrap();
        Some(Self::Cgroup(directory))
    }

    fn forbid(&self, launcher: u32) {
        match self {
            Self::User => limit(launcher, "nproc", "0"),
            Self::Cgroup(directory) => {
                fs::write(directory.join("cgroup.procs"), launcher.to_string()).unwrap();
                fs::write(directory.join("pids.max"), "1").unwrap();
            }
        }
    }

    fn allow(&self, launcher: u32) {
        match self {
            Self::User => lift(launcher, "nproc"),
            Self::Cgroup(directory) => {
                let own = directory.parent().unwrap().join("cgroup.procs");
                fs::write(own, launcher.to_string()).unwrap();
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Self::Cgroup(directory) = self {
            fs::remove_dir(directory).unwrap();
        }
    }
}

fn told(answer: &Value) -> String {
    answer["error"]["message"].as_str().unwrap_or_else(|| text(answer)).to_owned()
}

#[test]
fn a_launcher_that_may_start_no_process_says_so_and_goes_on_when_it_may() {
    let Some(tasks) = Tasks::find() else { return note("no limit on tasks that holds for root here") };
    let limited = &tasks;
    let book = session(&Setup::default(), |mut client| async move {
        assert_eq!(text(&client.call(1, "noise").await), "ok");
        let waiting = ready(&client, 1).await;
        let launcher = launcher(&client);
        limited.forbid(launcher);
        process::kill(waiting.cast_signed()).unwrap();
        wait_for_end(waiting);
        let told = told(&client.call(2, "who").await);
        assert!(told.contains("EAGAIN") && told.contains("as many processes as it may"), "{told}");
        limited.allow(launcher);
        assert_eq!(text(&client.call(3, "noise").await), "ok");
        client
    });
    assert_eq!((book.started.len(), book.finished.len()), (3, 3));
    assert_eq!(book.status_of("who"), "refused");
}

#[test]
fn a_launcher_without_memory_says_so_and_goes_on_when_there_is_some() {
    let book = session(&Setup::default(), |mut client| async move {
        assert_eq!(text(&client.call(1, "noise").await), "ok");
        let waiting = ready(&client, 1).await;
        let launcher = launcher(&client);
        limit(launcher, "as", "4096");
        process::kill(waiting.cast_signed()).unwrap();
        wait_for_end(waiting);
        // What it starts has as little.
        let told = told(&client.call(2, "who").await);
        assert!(told.contains("signal") || told.contains("ENOMEM"), "{told}");
        let waiting = ready(&client, 2).await;
        lift(launcher, "as");
        process::kill(waiting.cast_signed()).unwrap();
        wait_for_end(waiting);
        assert_eq!(text(&client.call(3, "noise").await), "ok");
        client
    });
    assert_eq!((book.started.len(), book.finished.len()), (3, 3));
}

#[test]
fn a_supervisor_without_memory_ends_and_takes_everything_along() {
    let book = session(&Setup::default(), |mut client| async move {
        client.start_call(1, "silent", json!({})).await;
        assert_eq!(text(&client.call(2, "noise").await), "ok");
        let (supervisor, launcher) = (client.supervisor(), launcher(&client));
        let inits = super::ahead::children(launcher);
        assert!(!inits.is_empty());
        while !client.log().contains("\"event\":\"finished\"") {
            tokio::task::yield_now().await;
        }
        limit(supervisor, "as", "4096");
        client.start_call(3, "huge-last", json!({"pieces": 4_000_000})).await;
        while client.raw().await.is_some() {}
        inits.iter().chain([&launcher]).for_each(|pid| wait_for_end(*pid));
        // Its output has ended, so it is dead; its exit status is not a session's.
        client.kill();
        client
    });
    // What was said before stays said.
    assert_eq!(book.status_of("noise"), "completed");
    session(&Setup::default(), |mut client| async move {
        assert_eq!(text(&client.call(1, "noise").await), "ok");
        client
    });
}

/// A small file system at a directory, for the calling thread and what it starts.
fn mount_small(directory: &Path) {
    process::unshare(libc::CLONE_NEWNS).unwrap();
    let script = "mount --make-rprivate / && exec mount -t tmpfs -o size=256k none \"$1\"";
    let mounted = Command::new("sh").args(["-c", script, "sh"]).arg(directory).status().unwrap();
    assert!(mounted.success());
}

/// Writes until there is no room.
fn fill(file: &Path) {
    let mut file = File::create(file).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

#[test]
fn a_disk_that_is_full_under_the_log_stops_calls_until_there_is_room() {
    if needs_root("a file system of a given size takes a mount") {
        return;
    }
    let checked = thread::spawn(|| {
        let scratch = Scratch::new();
        mount_small(&scratch.0);
        let full = scratch.0.join("full");
        let book = session_in(&scratch, &Setup::default(), |mut client| async {
            assert_eq!(text(&client.call(1, "noise").await), "ok");
            fill(&full);
            // What is left of the log's last page takes some records.
            let mut answer = Value::Null;
            for id in 2..20 {
                answer = client.call(id, "who").await;
                if answer["error"] != Value::Null {
                    break;
                }
            }
            let told = told(&answer);
            assert!(told.contains("record cannot be written"), "{told}");
            fs::remove_file(&full).unwrap();
            assert_eq!(text(&client.call(20, "noise").await), "ok");
            client
        });
        // A call that ran while its end could not be recorded is the last one before there is room, and then it is.
        let ids = |records: &[Value]| -> BTreeSet<String> {
            records.iter().map(|record| record["call"]["id"].to_string()).collect()
        };
        assert_eq!(ids(&book.started), ids(&book.finished));
        assert_eq!(book.end_of("who")["status"]["kind"], "completed");
        let mut verify = Command::new(crate::binary());
        verify.args(["audit", "verify"]).arg(scratch.0.join("audit.jsonl"));
        let verified = verify.env("XDG_STATE_HOME", scratch.0.join("state")).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
        let unmounted = Command::new("umount").arg(&scratch.0).status().unwrap();
        assert!(unmounted.success());
    });
    checked.join().unwrap();
}
