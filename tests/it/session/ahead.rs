//! Cells that are built before the call that uses them. Never: waits for time where there is an event.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use toolcell::host::cgroups;
use toolcell::sys::descriptor::{self, Interest};
use toolcell::sys::{identity, process};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// The child processes of a process.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn launcher(client: &Client) -> u32 {
    child_named(client, "toolcell-launch")
}

/// The supervisor's child of this name.
pub(super) fn child_named(client: &Client, wanted: &str) -> u32 {
    let is = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == wanted)
    };
    children(client.supervisor()).into_iter().find(is).unwrap()
}

/// Waits until so many calls are recorded, hence gone, and a cell waits for the next; the process id of its init, which is named so.
pub(crate) async fn ready(client: &Client, calls: usize) -> u32 {
    loop {
        let recorded = client.log().matches("\"event\":\"finished\"").count();
        if recorded == calls
            && let [init] = children(launcher(client)).as_slice()
            && fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|name| name == "toolcell-ready\n")
        {
            return *init;
        }
        tokio::task::yield_now().await;
    }
}

#[track_caller]
pub(super) fn wait_for_end(pid: u32) {
    let Ok(pidfd) = process::pidfd_open(pid.cast_signed()) else { return };
    let mut gone = [Interest { fd: Some(pidfd.as_fd()), events: libc::POLLIN, ready: 0 }];
    assert!(descriptor::poll(&mut gone, Some(Duration::from_secs(20))).unwrap(), "process {pid} is left");
}

/// Cells' directories whose name has the process id of their launcher.
fn cgroups_of(launcher: u32) -> usize {
    let parents: Vec<_> = crate::facts().cgroup.iter().flat_map(cgroups::parents).collect();
    let entries = parents.iter().flat_map(|parent| fs::read_dir(parent).unwrap().flatten());
    let name = format!("toolcell-{launcher}-");
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).count()
}

/// When the cell of each call was built, in the order of their ends.
fn built(book: &Book) -> Vec<&str> {
    book.finished.iter().map(|record| record["receipt"]["cell"].as_str().unwrap()).collect()
}

#[test]
fn a_call_finds_its_cell_built_and_no_two_share_one() {
    let book = session(&Setup::default(), |mut client| async move {
        let mut whos = Vec::new();
        let mut inits = Vec::new();
        for id in 1..4 {
            whos.push(text(&client.call(id, "who").await).to_owned());
            inits.push(ready(&client, whos.len()).await);
        }
        for list in [&mut inits.iter().map(u32::to_string).collect(), &mut whos] {
            list.sort();
            list.dedup();
            assert_eq!(list.len(), 3, "{list:?}");
        }
        client
    });
    assert_eq!(built(&book), ["on-demand", "ahead", "ahead"]);
    // What a call used is counted from the call on.
    for record in &book.finished {
        let usage = &record["usage"];
        assert!(usage["wall_us"].as_u64() <= record["duration_us"].as_u64(), "{record}");
    }
}

#[test]
fn refused_calls_are_recorded_whenever_the_cell_was_built() {
    // What is verified takes a socket, so both kinds of cells wait for answers before there is a server.
    let setup = Setup { syscalls: "deny = [\"socket\"]", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        for calls in 1..3 {
            assert_eq!(text(&client.call(calls as u64, "socket").await), "EPERM");
            ready(&client, calls).await;
        }
        client
    });
    assert_eq!(built(&book), ["on-demand", "ahead"]);
    for record in &book.finished {
        // A slow machine may have hit the limit of its CPU as well.
        let all = record["violations"].as_array().unwrap().iter();
        let violations: Vec<&Value> = all.filter(|violation| violation["layer"] == "seccomp").collect();
        let seen: Vec<_> = violations
            .iter()
            .map(|v| (v["operation"].as_str(), v["object"].as_str(), v["count"].as_u64()))
            .collect();
        assert_eq!(seen, [(Some("socket"), Some("AF_UNIX"), Some(1))], "{record}");
        assert!(violations[0]["first_us"].as_u64() < record["duration_us"].as_u64(), "{record}");
        assert_eq!(record["receipt"]["coverage"]["seccomp"], "complete");
    }
}

#[test]
fn the_process_of_a_waiting_cell_has_not_started() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "who").await;
        let init = ready(&client, 1).await;
        assert!(children(init).is_empty(), "a payload runs before its record is written");
        client
    });
}

#[test]
fn calls_at_once_have_cells_of_their_own() {
    let book = session(&Setup { jobs: 3, ..Setup::default() }, |mut client| async move {
        client.call(1, "who").await;
        ready(&client, 1).await;
        for id in 2..5 {
            client.start_call(id, "who", json!({})).await;
        }
        let mut whos = Vec::new();
        for _ in 2..5 {
            whos.push(text(&client.read().await).to_owned());
        }
        whos.sort();
        whos.dedup();
        assert_eq!(whos.len(), 3);
        client
    });
    // One was there; those that came before an end of a call had theirs built.
    assert!(built(&book).contains(&"ahead"), "{:?}", built(&book));
}

#[test]
fn a_directory_that_was_replaced_is_seen_by_the_next_call() {
    let scratch = Scratch::new();
    let (data, away) = (scratch.0.join("data"), scratch.0.join("away"));
    fs::create_dir(&data).unwrap();
    let setup = Setup { options: vec!["--read".to_owned(), data.display().to_string()], ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        let arguments = json!({"path": data});
        client.start_call(1, "list", arguments.clone()).await;
        assert_eq!(text(&client.read().await), "");
        ready(&client, 1).await;
        // What is in a directory is not what it is.
        fs::write(data.join("old"), "").unwrap();
        client.start_call(2, "list", arguments.clone()).await;
        assert_eq!(text(&client.read().await), "old");
        let stale = ready(&client, 2).await;
        fs::rename(&data, &away).unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("new"), "").unwrap();
        client.start_call(3, "list", arguments.clone()).await;
        assert_eq!(text(&client.read().await), "new");
        wait_for_end(stale);
        ready(&client, 3).await;
        client
    });
    assert_eq!(built(&book), ["on-demand", "ahead", "on-demand"]);
}

#[test]
fn a_path_that_came_to_exist_is_seen_by_the_next_call() {
    let scratch = Scratch::new();
    let data = scratch.0.join("data");
    let filesystem = format!("read = [{{ path = \"{}\", optional = true }}]", data.display());
    let book = session(&Setup { filesystem, ..Setup::default() }, |mut client| async move {
        client.call(1, "who").await;
        let stale = ready(&client, 1).await;
        fs::create_dir(&data).unwrap();
        fs::write(data.join("new"), "").unwrap();
        client.start_call(2, "list", json!({"path": data})).await;
        assert_eq!(text(&client.read().await), "new");
        // The plan that nobody will ask for again has no cell any more.
        wait_for_end(stale);
        ready(&client, 2).await;
        client
    });
    assert_eq!(built(&book), ["on-demand", "on-demand"]);
}

#[test]
fn a_cell_that_died_waiting_is_not_used() {
    let book = session(&Setup::default(), |mut client| async move {
        for id in 1..3 {
            assert_eq!(text(&client.call(id, "noise").await), "ok");
            let init = ready(&client, usize::try_from(id).unwrap()).await;
            // The next call does not wait for the supervisor to hear of it.
            process::kill(init.cast_signed()).unwrap();
            wait_for_end(init);
        }
        assert_eq!(text(&client.call(3, "noise").await), "ok");
        client
    });
    assert_eq!(built(&book), ["on-demand"; 3]);
}

#[test]
fn what_needs_a_place_on_the_host_is_built_for_its_call() {
    let scratch = Scratch::new();
    let data = scratch.0.join("data");
    fs::create_dir(&data).unwrap();
    let path = data.display();
    let filesystem = format!("write = [\"{path}\"]\ndeny = [\"{path}/absent\"]");
    let book = session(&Setup { filesystem, ..Setup::default() }, |mut client| async move {
        for id in 1..3 {
            assert_eq!(text(&client.call(id, "noise").await), "ok");
        }
        client
    });
    assert_eq!(built(&book), ["on-demand"; 2]);
}

#[test]
fn a_session_that_ends_takes_its_waiting_cell_along() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "noise").await;
        let init = ready(&client, 1).await;
        let launcher = launcher(&client);
        assert!(cgroups_of(launcher) > 0 || crate::facts().cgroup.is_err());
        client.hang_up();
        let took = client.exit().await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        wait_for_end(init);
        wait_for_end(launcher);
        assert_eq!(cgroups_of(launcher), 0);
        client
    });
}

#[test]
fn a_launcher_that_is_killed_takes_its_waiting_cell_along() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "noise").await;
        let init = ready(&client, 1).await;
        let launcher = launcher(&client);
        process::kill(launcher.cast_signed()).unwrap();
        wait_for_end(init);
        let answer = client.call(2, "noise").await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        client.hang_up();
        client.exit().await;
        assert_eq!(cgroups_of(launcher), 0);
        client
    });
}

#[test]
fn a_supervisor_that_is_killed_takes_its_waiting_cell_along() {
    session(&Setup::default(), |mut client| async move {
        client.call(1, "noise").await;
        let init = ready(&client, 1).await;
        let launcher = launcher(&client);
        client.kill();
        wait_for_end(init);
        wait_for_end(launcher);
        assert_eq!(cgroups_of(launcher), 0);
        client
    });
}

/// A granted directory with a denied file in it.
fn secretive(scratch: &Scratch) -> (Setup, PathBuf) {
    let data = scratch.0.join("data");
    let secret = data.join("secret");
    fs::create_dir(&data).unwrap();
    fs::write(&secret, "content").unwrap();
    let filesystem = format!("read = [\"{}\"]\ndeny = [\"{}\"]", data.display(), secret.display());
    (Setup { filesystem, ..Setup::default() }, secret)
}

#[test]
fn what_is_hidden_stays_hidden_whatever_the_host_does_to_it() {
    let scratch = Scratch::new();
    let (setup, secret) = secretive(&scratch);
    let book = session(&setup, |mut client| async move {
        let other = secret.with_file_name("other");
        for id in 0..5 {
            if id == 2 {
                fs::write(&other, "another content").unwrap();
                fs::rename(&other, &secret).unwrap();
            }
            if id == 3 {
                // The same file again, by another link.
                fs::hard_link(&secret, &other).unwrap();
                fs::remove_file(&secret).unwrap();
                fs::rename(&other, &secret).unwrap();
            }
            client.start_call(id, "read", json!({"path": secret})).await;
            assert_eq!(text(&client.read().await), "EACCES");
            ready(&client, usize::try_from(id).unwrap() + 1).await;
        }
        client
    });
    assert_eq!(built(&book), ["on-demand", "ahead", "on-demand", "on-demand", "ahead"]);
}

#[test]
fn a_cover_that_is_gone_stops_the_call() {
    let scratch = Scratch::new();
    let (setup, secret) = secretive(&scratch);
    if identity::effective().0 != 0 {
        // Only root may enter the mount namespace of a cell.
        return;
    }
    let book = session(&setup, |mut client| async move {
        client.call(1, "who").await;
        let init = ready(&client, 1).await.to_string();
        let umount = "import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 2))";
        let python = ["--mount", "--target", &init, "/usr/bin/python3", "-S", "-E", "-c", umount];
        let done = Command::new("nsenter").args(python).arg(&secret).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        client.start_call(2, "read", json!({"path": secret})).await;
        let answer = client.read().await;
        assert!(
            !answer.to_string().contains("content\"}") && answer.to_string().contains("hide"),
            "{answer}"
        );
        client
    });
    assert_eq!(book.status_of("read"), "died");
}
