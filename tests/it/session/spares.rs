//! Servers that are started before their call. Never: waits for time where there is an event.

use std::fs;
use std::os::fd::AsFd as _;
use std::time::Duration;

use serde_json::{Value, json};
use toolcell::host::cgroups;
use toolcell::sys::process;

use super::ahead::{children, launcher, wait_for_end};
use super::world::{Book, Client, Setup, session, session_in, text};

fn setup() -> Setup {
    Setup { options: vec!["--spares".to_owned(), "1".to_owned()], ..Setup::default() }
}

/// The process of the spare's server, once it is stopped.
pub(crate) async fn stopped(client: &Client) -> u32 {
    loop {
        if let Some(server) = all_stopped(client).first() {
            return *server;
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) fn built(book: &Book, method: &str) -> Vec<String> {
    let of = book.finished.iter().filter(|record| record["call"]["method"] == method);
    of.filter_map(|record| Some(record["receipt"]["cell"].as_str()?.to_owned())).collect()
}

#[test]
fn a_call_finds_its_server_started_and_no_other_call_does() {
    for legacy in [true, false] {
        let book = session(&setup(), |mut client| async move {
            if legacy {
                client.handshake(json!({})).await;
            }
            let mut whos = Vec::new();
            for id in 1..4 {
                let answer =
                    if legacy { client.legacy(id, "who").await } else { client.call(id, "who").await };
                whos.push(text(&answer).to_owned());
                stopped(&client).await;
            }
            whos.sort();
            whos.dedup();
            assert_eq!(whos.len(), 3);
            client
        });
        let cells = built(&book, "tools/call");
        assert_eq!(&cells[1..], ["spare", "spare"], "{cells:?}");
        for record in &book.finished {
            let (status, found) = (&record["status"]["kind"], &record["violations"]);
            assert!(found == &json!([]) && (status == "completed" || status == "cancelled"), "{record}");
        }
        // Each process has a record before it is started, and one when it is gone or has been taken.
        assert_eq!(book.started.len(), book.finished.len());
    }
}

#[test]
fn one_that_does_not_fit_any_more_is_ended_and_the_call_has_another() {
    let book = session(&setup(), |mut client| async move {
        client.handshake(json!({})).await;
        client.legacy(1, "who").await;
        let old = stopped(&client).await;
        assert_eq!(
            client.request(2, "logging/setLevel", json!({"level": "debug"})).await["result"],
            json!({})
        );
        let state: Value = serde_json::from_str(text(&client.legacy(3, "state").await)).unwrap();
        assert_eq!(state["level"], "debug");
        wait_for_end(old);
        client
    });
    assert_ne!(book.end_of("state")["receipt"]["cell"], "spare");
    let ends: Vec<&Value> = book
        .finished
        .iter()
        .filter(|record| record["call"]["method"] == "spare")
        .map(|record| &record["status"]["kind"])
        .collect();
    assert!(ends.contains(&&json!("cancelled")), "{ends:?}");
}

/// Signals that wait for a process.
fn pending(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap())
}

#[test]
fn a_call_that_comes_while_it_is_being_stopped_finds_it_going_on() {
    let signal = |pid: u32, signal| {
        // One that is over has no use for it.
        let Ok(pidfd) = process::pidfd_open(pid.cast_signed()) else { return };
        let _gone = process::pidfd_send_signal(pidfd.as_fd(), signal).is_err();
    };
    let of = |number: libc::c_int| 1_u64 << (number - 1);
    let setup = Setup { time: "1m", ..setup() };
    session(&setup, |mut client| async move {
        client.handshake(json!({})).await;
        for id in 1.. {
            client.legacy(id, "who").await;
            let done = |line: &&str| line.contains("\"finished\"") && line.contains("\"tools/call\"");
            while (client.log().lines().filter(done).count() as u64) < id {
                tokio::task::yield_now().await;
            }
            let init = loop {
                let waits = |init: &u32| {
                    fs::read_to_string(format!("/proc/{init}/comm"))
                        .is_ok_and(|name| name != "toolcell-ready\n")
                };
                if let Some(init) = children(launcher(&client))
                    .into_iter()
                    .find(|init| waits(init) && !children(*init).is_empty())
                {
                    break init;
                }
                tokio::task::yield_now().await;
            };
            // What it is told from here on waits.
            signal(init, libc::SIGSTOP);
            let too_late = loop {
                if pending(init) & of(process::PAUSE) != 0 {
                    break false;
                }
                // It was the last call's, which is over.
                let Some(server) = children(init).first().copied() else { break true };
                let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
                if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                    break true;
                }
                tokio::task::yield_now().await;
            };
            if too_late {
                signal(init, libc::SIGCONT);
                continue;
            }
            let call =
                json!({"jsonrpc": "2.0", "id": 1000, "method": "tools/call", "params": {"name": "who"}});
            client.send(&call.to_string()).await;
            while pending(init) & of(process::RESUME) == 0 {
                tokio::task::yield_now().await;
            }
            signal(init, libc::SIGCONT);
            assert_eq!(text(&client.read().await).len(), 16);
            break;
        }
        client
    });
}

#[test]
fn one_that_died_is_recorded_and_the_call_has_another() {
    let book = session(&setup(), |mut client| async move {
        client.handshake(json!({})).await;
        client.legacy(1, "who").await;
        let server = stopped(&client).await;
        let killed =
            std::process::Command::new("kill").args(["-KILL", &server.to_string()]).status().unwrap();
        assert!(killed.success());
        wait_for_end(server);
        assert_eq!(text(&client.legacy(2, "who").await).len(), 16);
        client
    });
    let died = book.finished.iter().filter(|record| record["status"]["kind"] == "died");
    let methods: Vec<&Value> = died.map(|record| &record["call"]["method"]).collect();
    assert_eq!(methods, ["spare"]);
}

/// Waits until a cell is there in which nothing was started.
async fn built_ahead(client: &Client) {
    let waits = |init: u32| {
        fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|name| name == "toolcell-ready\n")
    };
    while !children(launcher(client)).into_iter().any(waits) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn one_that_speaks_out_of_turn_is_ended_then_and_the_next_calls_have_cells_built_ahead() {
    let config = "env = [\"STRAY=1\"]\n".to_owned();
    let book = session(&Setup { config, ..setup() }, |mut client| async move {
        client.handshake(json!({})).await;
        for id in 1..4 {
            assert_eq!(text(&client.legacy(id, "who").await).len(), 16);
            while !client.log().contains("spoke out of turn") {
                tokio::task::yield_now().await;
            }
            built_ahead(&client).await;
        }
        client
    });
    assert_eq!(built(&book, "tools/call")[1..], ["ahead", "ahead"]);
    let spares: Vec<&Value> =
        book.finished.iter().filter(|record| record["call"]["method"] == "spare").collect();
    assert_eq!(spares.len(), 1, "{spares:?}");
    let (status, found) = (&spares[0]["status"]["kind"], &spares[0]["violations"][0]["operation"]);
    assert_eq!((status, found), (&json!("died"), &json!("answer a request that was not made")));
}

/// Others would reach it before its call, and it would have the ports that the call's own server wants.
#[test]
fn in_the_hosts_network_no_server_is_started_ahead() {
    if crate::facts().landlock_abi < 6 {
        return crate::cell::note("Landlock's ABI is below 6");
    }
    let floor = match crate::cell::floor() {
        "full" => "host-network".to_owned(),
        other => format!("host-network-{other}"),
    };
    let options = [setup().options, vec!["--floor".to_owned(), floor]].concat();
    let filesystem = "[network]\nmode = \"host\"\n".to_owned();
    let book = session(&Setup { options, filesystem, ..Setup::default() }, |mut client| async move {
        for id in 1..5 {
            assert_eq!(text(&client.call(id, "who").await).len(), 16);
            built_ahead(&client).await;
        }
        client
    });
    assert_eq!(built(&book, "tools/call")[1..], ["ahead", "ahead", "ahead"]);
    assert!(book.started.iter().all(|record| record["call"]["method"] != "spare"), "{:#?}", book.started);
}

#[test]
fn a_changed_grant_leads_to_another_cell() {
    let scratch = super::world::Scratch::outside_of_scratch();
    let (data, away) = (scratch.0.join("data"), scratch.0.join("away"));
    fs::create_dir(&data).unwrap();
    let options = [setup().options, vec!["--read".to_owned(), data.display().to_string()]].concat();
    session(&Setup { options, ..Setup::default() }, |mut client| async move {
        let arguments = json!({"path": data});
        client.start_call(1, "list", arguments.clone()).await;
        assert_eq!(text(&client.read().await), "");
        stopped(&client).await;
        fs::rename(&data, &away).unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("new"), "").unwrap();
        client.start_call(2, "list", arguments).await;
        assert_eq!(text(&client.read().await), "new");
        client
    });
}

#[test]
fn a_log_in_a_granted_directory_takes_no_started_server_and_no_cell_that_waits() {
    for (spares, cell) in [("1", "spare"), ("0", "ahead")] {
        let scratch = super::world::Scratch::outside_of_scratch();
        let granted = scratch.0.display().to_string();
        let setup = options(&["--spares", spares, "--read", &granted]);
        let book = session_in(&scratch, &setup, |mut client| async move {
            let log = client.audit_path().to_owned();
            for id in 1..4 {
                client.start_call(id, "read", json!({"path": log})).await;
                assert_eq!(text(&client.read().await), "EACCES");
                if cell == "spare" {
                    stopped(&client).await;
                } else {
                    built_ahead(&client).await;
                }
            }
            client
        });
        assert_eq!(built(&book, "tools/call")[1..], [cell; 2]);
    }
}

fn options(all: &[&str]) -> Setup {
    Setup { options: all.iter().map(|option| (*option).to_owned()).collect(), ..Setup::default() }
}

/// The servers that are stopped now.
fn all_stopped(client: &Client) -> Vec<u32> {
    let servers = children(launcher(client)).into_iter().flat_map(children);
    let is_stopped = |server: &u32| {
        let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    servers.filter(is_stopped).collect()
}

#[test]
fn as_many_wait_as_calls_came_within_a_start() {
    session(&options(&["--spares", "3"]), |mut client| async move {
        client.handshake(json!({})).await;
        client.legacy(1, "who").await;
        stopped(&client).await;
        let call =
            |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "who"}});
        for id in [2, 3] {
            client.send(&call(id).to_string()).await;
        }
        let mut whos = [client.read().await, client.read().await].map(|answer| text(&answer).to_owned());
        whos.sort();
        assert_ne!(whos[0], whos[1]);
        while all_stopped(&client).len() < 2 {
            tokio::task::yield_now().await;
        }
        client
    });
}

#[test]
fn who_lists_the_tools_finds_the_first_call_s_server_started() {
    let book = session(&setup(), |mut client| async move {
        client.handshake(json!({})).await;
        client.request(1, "tools/list", json!({})).await;
        stopped(&client).await;
        client.legacy(2, "who").await;
        client
    });
    assert_eq!(built(&book, "tools/call"), ["spare"]);
}

#[test]
fn one_that_holds_more_than_all_may_is_ended() {
    let book = session(&options(&["--spares", "3", "--spares-memory", "1MiB"]), |mut client| async move {
        client.call(1, "who").await;
        while !client.log().contains("\"status\":{\"kind\":\"cancelled\"}") {
            tokio::task::yield_now().await;
        }
        assert_eq!(text(&client.call(2, "who").await).len(), 16);
        client
    });
    let cells = built(&book, "tools/call");
    assert!(!cells.contains(&"spare".to_owned()), "{cells:?}");
}

/// The records of spares: so many began and have not ended.
fn waiting(client: &Client) -> usize {
    let log = client.log();
    let of = |event: &str| {
        let event = format!("\"event\":\"{event}\"");
        log.lines().filter(|line| line.contains(&event) && line.contains("\"method\":\"spare\"")).count()
    };
    of("started") - of("finished")
}

/// Calls at once, each of which would want a server to wait, then one alone; what waits when nothing is on its way any more.
async fn waiting_behind_a_crowd(client: &mut Client, crowd: u64, held: usize) -> usize {
    client.handshake(json!({})).await;
    client.legacy(1, "who").await;
    stopped(client).await;
    let call =
        |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "who"}});
    for id in 0..crowd {
        client.send(&call(10 + id).to_string()).await;
    }
    for _ in 0..crowd {
        assert_eq!(text(&client.read().await).len(), 16);
    }
    for id in [2, 3] {
        client.legacy(id, "who").await;
        let calls = usize::try_from(crowd + id).unwrap();
        let ended = |line: &&str| line.contains("\"event\":\"finished\"") && line.contains("tools/call");
        while client.log().lines().filter(ended).count() < calls || all_stopped(client).len() < held {
            tokio::task::yield_now().await;
        }
    }
    waiting(client)
}

#[test]
fn no_more_wait_than_may() {
    let setup = Setup { jobs: 4, ..options(&["--spares", "2"]) };
    session(&setup, |mut client| async move {
        assert_eq!(waiting_behind_a_crowd(&mut client, 4, 2).await, 2);
        client
    });
}

#[test]
fn those_that_wait_hold_together_no_more_than_all_may() {
    // One has room, as its cgroup counts it or by its limit; two have none.
    let config = format!("env = [\"BALLAST={}\"]\n", 96 << 20);
    let bounds = options(&["--spares", "3", "--spares-memory", "200MiB", "--memory", "160MiB"]);
    let setup = Setup { jobs: 3, config, ..bounds };
    session(&setup, |mut client| async move {
        assert_eq!(waiting_behind_a_crowd(&mut client, 3, 1).await, 1);
        client
    });
}

#[test]
fn the_oldest_makes_room_for_what_is_called_now() {
    let scratch = super::world::Scratch::outside_of_scratch();
    let mut config = String::new();
    for tool in ["state", "verbatim"] {
        let data = scratch.0.join(tool);
        fs::create_dir(&data).unwrap();
        let profile = format!("extends = \"default\"\n[filesystem]\nread = [{data:?}]\n");
        fs::write(data.with_extension("toml"), profile).unwrap();
        config += &format!("[servers.fixture.tools.{tool}]\nprofile = \"{tool}\"\n");
    }
    let setup = Setup { config, ..options(&["--spares", "2"]) };
    let book = session_in(&scratch, &setup, |mut client| async move {
        let mut servers = Vec::new();
        for (id, tool) in [(1, "who"), (2, "state"), (3, "verbatim")] {
            client.call(id, tool).await;
            let new = loop {
                let new = all_stopped(&client).into_iter().find(|server| !servers.contains(server));
                match new {
                    Some(new) => break new,
                    None => tokio::task::yield_now().await,
                }
            };
            servers.push(new);
        }
        wait_for_end(servers[0]);
        let mut left = all_stopped(&client);
        left.sort_unstable();
        servers.remove(0);
        servers.sort_unstable();
        assert_eq!(left, servers);
        client.call(4, "state").await;
        client
    });
    assert_eq!(book.end_of("state")["receipt"]["cell"], "spare");
}

#[test]
fn one_that_no_call_takes_is_ended_after_its_time() {
    let book = session(&options(&["--spares", "1", "--spares-idle", "1s"]), |mut client| async move {
        client.call(1, "who").await;
        while !client.log().contains("\"status\":{\"kind\":\"cancelled\"}") {
            tokio::task::yield_now().await;
        }
        client
    });
    let ended = book.finished.iter().find(|record| record["call"]["method"] == "spare").unwrap();
    assert!(ended["duration_us"].as_u64() >= Some(1_000_000), "{ended}");
}

#[test]
fn a_call_whose_cell_may_not_wait_takes_no_place_from_those_that_may() {
    let scratch = super::world::Scratch::outside_of_scratch();
    let data = scratch.0.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(
        scratch.0.join("writer.toml"),
        format!("extends = \"default\"\n[filesystem]\nwrite = [{data:?}]\n"),
    )
    .unwrap();
    let config = "[servers.fixture.tools.state]\nprofile = \"writer\"\n".to_owned();
    let book = session_in(&scratch, &Setup { config, ..setup() }, |mut client| async move {
        client.call(1, "who").await;
        let waiting = stopped(&client).await;
        client.call(2, "state").await;
        while !client.log().lines().any(|line| line.contains("\"finished\"") && line.contains("\"state\"")) {
            tokio::task::yield_now().await;
        }
        assert_eq!(all_stopped(&client), [waiting]);
        client.call(3, "who").await;
        client
    });
    assert_eq!(book.end_of("who")["receipt"]["cell"], "spare");
}

#[test]
fn one_has_a_small_share_of_the_processors_until_its_call() {
    if crate::cell::needs_cgroup() {
        return;
    }
    let share = |server: u32| {
        let lines = fs::read_to_string(format!("/proc/{server}/cgroup")).unwrap();
        let own = lines.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let places = crate::facts().cgroup.iter().flat_map(cgroups::parents);
        let cells = own.filter_map(|(_, path)| path.rsplit_once('/').map(|(_, name)| name.to_owned()));
        let cells: Vec<String> = cells.filter(|name| name.starts_with("toolcell-")).collect();
        let files =
            places.flat_map(|place| cells.iter().map(move |cell| place.join(cell)).collect::<Vec<_>>());
        let weights = files.flat_map(|cell| ["cpu.weight", "cpu.shares"].map(|name| cell.join(name)));
        weights.into_iter().find_map(|file| fs::read_to_string(file).ok()).unwrap().trim().to_owned()
    };
    session(&setup(), |mut client| async move {
        client.call(1, "who").await;
        let waiting = share(stopped(&client).await);
        assert!(["10", "102"].contains(&waiting.as_str()), "{waiting}");
        client.start_call(2, "silent", json!({})).await;
        let called = loop {
            let servers: Vec<u32> = children(launcher(&client)).into_iter().flat_map(children).collect();
            if let Some(called) = servers.into_iter().find(|server| !all_stopped(&client).contains(server))
                && client.log().contains("silent")
            {
                break called;
            }
            tokio::task::yield_now().await;
        };
        while !["100", "1024"].contains(&share(called).as_str()) {
            tokio::task::yield_now().await;
        }
        client
    });
}

#[test]
fn a_changed_program_leads_to_another_cell() {
    let scratch = super::world::Scratch::outside_of_scratch();
    let server = scratch.0.join("server.py");
    fs::copy(crate::project().join("tests/it/session/server.py"), &server).unwrap();
    let book = session(&Setup { server: Some(server.clone()), ..setup() }, |mut client| async move {
        client.call(1, "who").await;
        let old = stopped(&client).await;
        let text = fs::read_to_string(&server).unwrap();
        fs::write(&server, text + "\n# changed\n").unwrap();
        client.call(2, "who").await;
        wait_for_end(old);
        client.call(3, "ping").await;
        client
    });
    let cells = built(&book, "tools/call");
    assert!(!cells[..2].contains(&"spare".to_owned()), "{cells:?}");
}

#[test]
fn one_that_still_works_behind_its_handshake_is_not_stopped() {
    let config = "env = [\"WORK=1\"]\n".to_owned();
    let book = session(&Setup { config, ..setup() }, |mut client| async move {
        client.handshake(json!({})).await;
        client.legacy(1, "worked").await;
        stopped(&client).await;
        assert_eq!(text(&client.legacy(2, "worked").await), "worked");
        client
    });
    assert_eq!(book.end_of("worked")["receipt"]["cell"], "spare");
}

#[test]
fn none_is_left_when_the_client_is_gone() {
    let book = session(&setup(), |mut client| async move {
        client.call(1, "who").await;
        let server = stopped(&client).await;
        client.hang_up();
        let took = client.exit().await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        wait_for_end(server);
        client
    });
    assert_eq!(book.started.len(), book.finished.len());
}
