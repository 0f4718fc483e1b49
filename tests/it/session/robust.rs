//! Servers and clients that flood, dribble, nest, repeat and hang, and what is left of it: nothing that grows, and an answer for all. Never: looks inside.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::world::{Scratch, Setup, session, text, toolcell};

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn what_a_server_nests_or_dribbles_is_held_by_a_limit_and_recorded() {
    let book = session(&Setup { time: "1s", ..Setup::default() }, |mut client| async move {
        // No message is so deep, so it is none, and the answer behind it counts.
        assert_eq!(text(&client.call(1, "deep").await), "ok");
        assert!(text(&client.call(2, "dribble").await).contains("it reached the time limit of 1s"));
        client
    });
    assert_eq!(book.misdeeds("deep"), ["write something that is no message"]);
    assert_eq!(book.status_of("dribble"), "limit");
}

#[test]
fn gigabytes_of_stderr_are_read_and_forgotten() {
    let setup = Setup { time: "1m", output: "4MiB", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        assert_eq!(text(&client.call(1, "who").await).len(), 16);
        let before = resident(client.supervisor());
        assert_eq!(text(&client.call(2, "flood-stderr-of-gigabytes").await), "ok");
        let grown = resident(client.supervisor()).saturating_sub(before);
        assert!(grown < 8 << 20, "{grown}");
        client
    });
    assert_eq!(book.status_of("flood-stderr-of-gigabytes"), "completed");
    let violations = |tool: &str| book.end_of(tool)["violations"].clone();
    assert_eq!(violations("who"), json!([]));
    // 1.3 GB are 312 times the 4 MiB that may be written to stdout.
    let flood = &violations("flood-stderr-of-gigabytes")[0];
    assert_eq!((&flood["layer"], &flood["operation"]), (&json!("output"), &json!("flood stderr")));
    assert_eq!((&flood["count"], &flood["value"]), (&json!(312), &json!(4 << 20)));
}

#[test]
fn notifications_without_end_wait_for_who_does_not_read_and_end_with_the_output() {
    let setup = Setup { output: "64MiB", time: "1m", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        client.start_call(1, "notify-flood", json!({})).await;
        let first = client.raw().await.unwrap();
        let before = resident(client.supervisor());
        let mut bytes = first.len();
        let told = loop {
            let line = client.raw().await.unwrap();
            bytes += line.len();
            if line.contains("\"id\"") {
                break serde_json::from_str::<Value>(&line).unwrap();
            }
        };
        assert!(text(&told).contains("it reached the output limit of 64MiB"), "{told}");
        assert!(bytes > 32 << 20, "{bytes}");
        let grown = resident(client.supervisor()).saturating_sub(before);
        assert!(grown < 8 << 20, "{grown}");
        client
    });
    assert_eq!(book.status_of("notify-flood"), "limit");
}

#[test]
fn ten_thousand_calls_may_wait_and_what_is_cancelled_is_never_run() {
    let book = session(&Setup::default(), |mut client| async move {
        let cancel = |id: u64| {
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
                .to_string()
        };
        // These two have the places, and do not end by themselves.
        for id in 0..2 {
            client.start_call(id, "silent", json!({})).await;
        }
        for id in 2..10_000 {
            client.start_call(id, "who", json!({})).await;
        }
        let refused = client.call(10_000, "who").await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(10_000), &json!(-32603)));
        for id in 4..9_996 {
            client.send(&cancel(id)).await;
        }
        for id in 0..2 {
            client.send(&cancel(id)).await;
        }
        let mut answered = Vec::new();
        for _ in 0..6 {
            answered.push(client.read().await["id"].as_u64().unwrap());
        }
        answered.sort_unstable();
        assert_eq!(answered, [2, 3, 9_996, 9_997, 9_998, 9_999]);
        client
    });
    assert_eq!(book.started.len(), 8, "no other call was begun");
}

#[test]
fn what_is_no_message_is_answered_and_the_rest_goes_on() {
    session(&Setup::default(), |mut client| async move {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (line, code) in [
            ("nonsense", -32700),
            ("{\"jsonrpc\":\"2.0\",\"id\":1", -32700),
            ("[]", -32600),
            ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32600),
            ("{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}", -32600),
            (deep.as_str(), -32700),
        ] {
            client.send(line).await;
            let answer = client.read().await;
            assert_eq!(answer["error"]["code"], code, "{}: {answer}", &line[..line.len().min(80)]);
        }
        assert_eq!(text(&client.call(1, "who").await).len(), 16);
        client
    });
}

#[test]
fn a_cancellation_that_comes_too_early_too_late_or_twice_changes_nothing_else() {
    session(&Setup::default(), |mut client| async move {
        let cancel = |id: u64| {
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
                .to_string()
        };
        client.send(&cancel(1)).await;
        assert_eq!(client.call(1, "who").await["id"], 1);
        client.send(&cancel(1)).await;
        for id in 2..12 {
            client.start_call(id, "who", json!({})).await;
            client.send(&cancel(id)).await;
            client.send(&cancel(id)).await;
        }
        // An answer that was on its way when its cancellation came is not sent twice; this one comes in any case.
        client.start_call(50, "who", json!({})).await;
        loop {
            let answer = client.read().await;
            if answer["id"] == 50 {
                break;
            }
            assert!((2..12).contains(&answer["id"].as_u64().unwrap()), "{answer}");
        }
        client
    });
}

#[test]
fn a_client_that_sends_and_never_reads_is_left() {
    crate::facts();
    let scratch = Scratch::new();
    // The configuration is written by a session of its own.
    session_of(&scratch);
    let mut child = toolcell(&Setup::default(), &scratch, "run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(scratch.0.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut sent = 0;
    // It ends by the broken pipe.
    while input.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").is_ok() {
        sent += 1;
    }
    assert!(!child.wait().unwrap().success());
    let told = fs::read_to_string(scratch.0.join("stderr")).unwrap();
    assert!(told.contains("the client has left 10000 lines unread"), "{told}");
    assert!(sent >= 10_000, "{sent}");
}

fn session_of(scratch: &Scratch) {
    super::world::session_in(scratch, &Setup::default(), |client| async move { client });
}
