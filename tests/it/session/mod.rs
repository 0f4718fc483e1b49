//! A session seen from the client, with a server that behaves in every bad way. Never: looks inside.

mod long;
mod stop;
mod world;

use serde_json::json;
use toolcell::outcome::Status;
use world::{Setup, is_limit, session, text};

#[test]
fn every_call_has_a_process_of_its_own_and_lists_share_one() {
    let book = session(&Setup::default(), |mut client| async move {
        let answer = client.handshake(json!({})).await;
        assert_eq!(answer["result"]["capabilities"], json!({"tools": {}, "logging": {}, "resources": {}}));
        // The client's own handshake started this process, so its announcement passes.
        assert_eq!(client.read().await["method"], "notifications/tools/list_changed");
        let first = client.request(1, "tools/list", json!({})).await;
        let second = client.request(2, "tools/list", json!({"cursor": "c"})).await;
        assert_eq!(first["result"]["pid"], second["result"]["pid"]);
        assert_eq!(second["result"]["lists"], 2);
        let again = client.request(3, "tools/list", json!({})).await;
        assert_eq!((&again["id"], &again["result"]), (&json!(3), &first["result"]));
        let pids = [
            text(&client.legacy(4, "pid").await).to_owned(),
            text(&client.legacy(5, "pid").await).to_owned(),
        ];
        assert_ne!(pids[0], pids[1]);
        assert_ne!(pids[0], first["result"]["pid"].to_string());
        client
    });
    let methods: Vec<String> = book.started.borrow().iter().map(|call| call.method.clone()).collect();
    assert_eq!(methods, ["catalogue", "tools/call", "tools/call"]);
    let finished = book.finished.borrow();
    assert_eq!(finished.len(), 3);
    for (call, finished) in finished.iter() {
        assert_eq!(finished.status, Status::Completed, "{call:?}");
        assert_eq!(finished.violations, [], "{call:?}");
        assert!(finished.usage.bytes_in > 0 && finished.usage.bytes_out > 0);
    }
    assert_eq!(book.started.borrow()[1].who, "tester/9 (uid 0)");
}

#[test]
fn an_answers_bytes_are_not_touched() {
    session(&Setup::default(), |mut client| async move {
        client.start(7, "verbatim", json!({})).await;
        let line = client.raw().await.unwrap();
        assert_eq!(
            line,
            "{ \"result\":{\"content\":[],\"odd\":1.0,\"z\":1e2,\"a\":\"\\u0061\"} ,\"id\":7,\"jsonrpc\":\"2.0\",\"extra\":[]}\n"
        );
        client
    });
}

#[test]
fn a_probe_for_the_modern_era_does_not_spoil_the_legacy_one() {
    session(&Setup::default(), |mut client| async move {
        let meta = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}});
        let answer = client.request(1, "server/discover", meta).await;
        assert_eq!(answer["error"]["message"], "Method not found");
        assert_eq!(client.handshake(json!({})).await["result"]["protocolVersion"], "2025-06-18");
        client.read().await;
        assert_eq!(text(&client.legacy(2, "state").await), r#"{"roots": null, "level": null}"#);
        client
    });
}

#[test]
fn log_level_and_roots_are_there_before_the_call() {
    session(&Setup::default(), |mut client| async move {
        client.handshake(json!({"roots": {"listChanged": true}})).await;
        assert_eq!(client.read().await["method"], "notifications/tools/list_changed");
        let roots = json!([{"uri": "file:///x"}]);
        let asked = client.read().await;
        assert_eq!(asked["method"], "roots/list");
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": roots}});
        client.send(&answer.to_string()).await;
        assert_eq!(
            client.request(1, "logging/setLevel", json!({"level": "debug"})).await["result"],
            json!({})
        );
        let again = client.request(2, "tools/call", json!({"name": "state"})).await;
        assert_eq!(again["method"], "roots/list");
        assert_ne!(again["id"], asked["id"], "two cells' requests have different ids");
        let answer = json!({"jsonrpc": "2.0", "id": again["id"], "result": {"roots": roots}});
        client.send(&answer.to_string()).await;
        let state: serde_json::Value = serde_json::from_str(text(&client.read().await)).unwrap();
        assert_eq!(state, json!({"roots": roots, "level": "debug"}));
        client
    });
}

#[test]
fn a_servers_question_is_mapped_there_and_back() {
    let book = session(&Setup::default(), |mut client| async move {
        client.handshake(json!({"sampling": {}})).await;
        client.read().await;
        let asked = client.legacy(1, "ask-client").await;
        assert_eq!(asked["method"], "sampling/createMessage");
        assert!(asked["id"].is_i64());
        let progress = json!({"progressToken": asked["params"]["_meta"]["progressToken"], "progress": 1});
        assert!(progress["progressToken"].is_i64());
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"x": 1}});
        client.send(&answer.to_string()).await;
        let told = client.read().await;
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(text(&told)).unwrap(),
            json!({"jsonrpc": "2.0", "id": 0, "result": {"x": 1}})
        );
        assert_eq!(text(&client.legacy(2, "ask-nobody").await), "-32601");
        // No modern server may ask at all; this one waits for an answer that cannot come.
        client.start(3, "ask-client", json!({})).await;
        client.hang_up();
        client
    });
    assert_eq!(book.operations("ask-nobody"), ["make a request that is not allowed"]);
    let modern = book.finished.borrow();
    let (_, modern) =
        modern.iter().rev().find(|(call, _)| call.target.as_deref() == Some("ask-client")).unwrap();
    assert_eq!(modern.status, Status::Cancelled);
    assert_eq!(modern.violations[0].operation, "make a request that is not allowed");
}

#[test]
fn what_a_server_may_not_say_is_dropped_and_recorded() {
    let book = session(&Setup::default(), |mut client| async move {
        for (id, tool) in ["wrong-id", "two-answers", "noise", "flood-stderr", "stay"].iter().enumerate() {
            let answer = client.call(id as u64, tool).await;
            assert_eq!((answer["id"].as_u64(), text(&answer)), (Some(id as u64), "ok"), "{tool}");
        }
        client.start(50, "progress", json!({})).await;
        let progress = client.read().await;
        assert_eq!(progress["params"]["progressToken"], "mine");
        assert_eq!(client.read().await["method"], "notifications/message");
        assert_eq!(text(&client.read().await), "ok");
        assert_eq!(client.call(51, "tool-error").await["result"]["isError"], true);
        assert_eq!(client.call(52, "nothing").await["error"]["message"], "unknown tool");
        client
    });
    assert_eq!(book.operations("wrong-id"), ["answer a request that was not made"]);
    assert_eq!(book.operations("two-answers"), ["answer again"]);
    assert_eq!(book.operations("noise"), ["write something that is no message"]);
    assert_eq!(book.end_of("noise").violations[0].count, 2);
    assert_eq!(book.operations("progress"), ["send a notification that is not allowed"]);
    for tool in ["wrong-id", "two-answers", "noise", "flood-stderr", "stay", "progress"] {
        assert_eq!(book.end_of(tool).status, Status::Completed, "{tool}");
    }
    assert!(matches!(book.end_of("tool-error").status, Status::Failed { .. }));
    assert_eq!(book.end_of("nothing").status, Status::Failed { detail: "unknown tool".to_owned() });
}

#[test]
fn each_way_to_fail_has_its_own_text() {
    let setup = Setup { time: std::time::Duration::from_millis(600), output: 1 << 20, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        for (id, (tool, expected)) in [
            ("die", "the server exited with status 3 without an answer\nThe last lines of its stderr:\n  first\n  last words"),
            ("only-noise", "the server exited with status 0 without an answer\nThe server wrote lines that are no JSON-RPC messages (1 times), first: `no answer from me`"),
            ("half-line", "the server exited with status 0 without an answer\nThe server ended inside a line (1 times), first: `{\"jsonrpc\":\"2.0\",\"id\":`"),
            ("close", "the server closed its output without an answer, and was stopped"),
            ("silent", "toolcell stopped this call: it reached the time limit of 600ms, set by `limits.time` of profile `test`\nTo raise it:\n[limits]\ntime = \"2s\""),
            ("flood", "toolcell stopped this call: it reached the output limit of 1MiB (peak "),
        ].iter().enumerate() {
            let answer = client.call(id as u64, tool).await;
            assert_eq!(answer["id"].as_u64(), Some(id as u64));
            assert_eq!((&answer["result"]["isError"], &answer["result"]["resultType"]), (&json!(true), &json!("complete")));
            let told = text(&answer);
            assert!(if *tool == "flood" { told.starts_with(expected) } else { told == *expected }, "{tool}: {told}");
        }
        // What has no place for a tool's error gets one of JSON-RPC.
        let answer = client.request(9, "prompts/get", json!({"name": "die"})).await;
        assert_eq!(answer["error"]["code"], -32603);
        let answer = client.call(10, "forbidden").await;
        assert_eq!(answer["error"]["code"], -32603);
        client
    });
    assert!(is_limit(&book.end_of("silent").status));
    assert!(is_limit(&book.end_of("flood").status));
    assert!(matches!(book.end_of("die").status, Status::Died { .. }));
}

#[test]
fn a_flood_neither_fills_the_memory_nor_outlives_its_time() {
    let setup = Setup { time: std::time::Duration::from_millis(400), output: u64::MAX, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        client.handshake(json!({})).await;
        client.read().await;
        let flooded = std::time::Instant::now();
        for (id, tool) in [(1, "ping-flood"), (2, "newlines")] {
            assert!(text(&client.legacy(id, tool).await).contains("the time limit of 400ms"), "{tool}");
        }
        assert!(flooded.elapsed() < std::time::Duration::from_secs(10));
        client
    });
    // Its pings are read only as fast as it reads the answers, which it never does.
    assert!(book.end_of("ping-flood").usage.bytes_out < 4 << 20);
}

#[test]
fn a_call_without_its_record_is_not_run() {
    let setup = Setup { refuse_records: true, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        let answer = client.call(1, "pid").await;
        assert_eq!(answer["error"]["code"], -32603);
        assert!(answer["error"]["message"].as_str().unwrap().contains("disk full"));
        client
    });
    assert!(book.finished.borrow().is_empty());
}

#[test]
fn a_fresh_process_that_agrees_on_another_version_is_not_used() {
    let lie = std::env::temp_dir().join(format!("toolcell-lie-{}", std::process::id()));
    let setup = Setup { env: vec![("LIE".to_owned(), lie.display().to_string())], ..Setup::default() };
    session(&setup, |mut client| {
        let lie = lie.clone();
        async move {
            client.handshake(json!({})).await;
            client.read().await;
            std::fs::write(&lie, "").unwrap();
            let answer = client.legacy(1, "pid").await;
            std::fs::remove_file(&lie).unwrap();
            assert!(
                text(&answer)
                    .contains("agreed on protocol version `1999-01-01`, the session on `2025-06-18`")
            );
            client
        }
    });
}

#[test]
fn what_is_not_offered_is_refused_and_the_unknown_is_the_servers_to_refuse() {
    session(&Setup::default(), |mut client| async move {
        client.handshake(json!({})).await;
        client.read().await;
        for (id, method) in ["resources/subscribe", "subscriptions/listen", "tasks/get"].iter().enumerate() {
            assert_eq!(client.request(id as u64, method, json!({})).await["error"]["code"], -32601);
        }
        let answer = client.request(7, "no/such", json!({})).await;
        assert_eq!(answer["error"]["message"], "server says: no/such");
        assert_eq!(client.request(8, "ping", json!({})).await["result"], json!({}));
        let answer = client.request(9, "tools/call", json!({"name": "pid", "Name": "die"})).await;
        assert_eq!(answer["error"]["code"], -32602);
        client
    });
}
