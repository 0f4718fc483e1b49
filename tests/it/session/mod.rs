//! A session seen from the client, with a server that behaves in every bad way. Never: looks inside.

mod access;
pub(crate) mod ahead;
mod arguments;
mod bounds;
mod chain;
mod denials;
mod gather;
mod grants;
mod guard;
mod kept;
mod locked;
mod long;
mod model;
mod own;
mod persist;
mod places;
mod results;
mod robust;
mod secrets;
mod signed;
pub(crate) mod spares;
mod stale;
mod starved;
mod stop;
pub(crate) mod world;
mod writes;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use world::{Scratch, Setup, configure, session, text, toolcell};

#[test]
fn every_call_has_a_process_of_its_own_and_lists_share_one() {
    let book = session(&Setup::default(), |mut client| async move {
        let answer = client.handshake(json!({})).await;
        assert_eq!(
            answer["result"]["capabilities"],
            json!({"tools": {}, "logging": {}, "resources": {"subscribe": true}})
        );
        let first = client.request(1, "tools/list", json!({})).await;
        let second = client.request(2, "tools/list", json!({"cursor": "c"})).await;
        assert_eq!(first["result"]["who"], second["result"]["who"]);
        assert_eq!(second["result"]["lists"], 2);
        let again = client.request(3, "tools/list", json!({})).await;
        assert_eq!((&again["id"], &again["result"]), (&json!(3), &first["result"]));
        let whos = [
            text(&client.legacy(4, "who").await).to_owned(),
            text(&client.legacy(5, "who").await).to_owned(),
        ];
        assert_ne!(whos[0], whos[1]);
        assert_ne!(whos[0], first["result"]["who"].to_string());
        client
    });
    let methods: Vec<&Value> = book.started.iter().map(|record| &record["call"]["method"]).collect();
    assert_eq!(methods, ["catalogue", "tools/call", "tools/call"]);
    assert_eq!(book.finished.len(), 3);
    for record in &book.finished {
        assert_eq!((&record["status"], &record["violations"]), (&json!({"kind": "completed"}), &json!([])));
        assert!(
            record["usage"]["bytes_in"].as_u64() > Some(0) && record["usage"]["bytes_out"].as_u64() > Some(0)
        );
        assert_eq!(record["receipt"]["floor"], crate::cell::floor());
    }
    assert!(book.started[1]["call"]["who"].as_str().unwrap().starts_with("tester/9 (uid "));
}

#[test]
fn an_answers_bytes_are_not_touched() {
    session(&Setup::default(), |mut client| async move {
        client.start_call(7, "verbatim", json!({})).await;
        let line = client.raw().await.unwrap();
        assert_eq!(
            line,
            "{ \"result\":{\"content\":[],\"odd\":1.0,\"z\":1e2,\"a\":\"\\u0061\"} ,\"id\":7,\"jsonrpc\":\"2.0\",\"extra\":[]}\n"
        );
        client
    });
}

#[test]
fn a_result_says_what_its_cell_was_refused() {
    session(&Setup::default(), |mut client| async move {
        let violations = |answer: &Value| answer["result"]["_meta"]["dev.toolcell/violations"].clone();
        client.handshake(json!({})).await;
        for answer in [client.legacy(1, "socket").await, client.call(2, "socket").await] {
            let found = violations(&answer);
            assert_eq!(
                (text(&answer), found.as_array().map(Vec::len)),
                ("EAFNOSUPPORT", Some(1)),
                "{answer}"
            );
            assert_eq!((&found[0]["operation"], &found[0]["object"]), (&json!("socket"), &json!("AF_UNIX")));
            assert_eq!((&found[0]["errno"], &found[0]["allow"]), (&json!("EAFNOSUPPORT"), &Value::Null));
            assert_eq!(answer["result"]["content"].as_array().unwrap().len(), 1);
        }
        let answer = client.call(3, "socket-fail").await;
        assert_eq!((&answer["result"]["_meta"]["own"], text(&answer)), (&json!(1), "no socket"));
        assert_eq!(violations(&answer)[0]["count"], 1);
        let told = answer["result"]["content"][1]["text"].as_str().unwrap();
        let refused = "\n`socket` (AF_UNIX) was refused with EAFNOSUPPORT, once, by the system call filter: ";
        assert!(
            told.starts_with(&format!("toolcell refused some of what this tool tried:{refused}")),
            "{told}"
        );
        assert!(told.ends_with("; nothing should allow it"), "{told}");
        let answer = client.call(4, "socket-die").await;
        assert!(text(&answer).starts_with("the server exited with status 4 without an answer"), "{answer}");
        assert!(text(&answer).contains(refused), "{answer}");
        assert_eq!(violations(&answer)[0]["object"], "AF_UNIX");
        let answer = client.call(5, "who").await;
        assert_eq!(answer["result"].get("_meta"), None);
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
        assert_eq!(text(&client.legacy(2, "state").await), r#"{"roots": null, "level": null}"#);
        client
    });
}

#[test]
fn log_level_and_roots_are_there_before_the_call() {
    session(&Setup::default(), |mut client| async move {
        client.handshake(json!({"roots": {"listChanged": true}})).await;
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
        let state: Value = serde_json::from_str(text(&client.read().await)).unwrap();
        assert_eq!(state, json!({"roots": roots, "level": "debug"}));
        client
    });
}

#[test]
fn a_server_that_is_slow_to_ask_for_the_roots_has_them_before_the_call() {
    session(&Setup::default(), |mut client| async move {
        client.handshake(json!({"roots": {"slow": true}})).await;
        let mut asked = client.read().await;
        for cell in ["the catalogue's", "the call's"] {
            assert_eq!(asked["method"], "roots/list", "{cell}");
            let roots = json!([{"uri": "file:///x"}]);
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": roots}});
            client.send(&answer.to_string()).await;
            if cell == "the catalogue's" {
                asked = client.request(1, "tools/call", json!({"name": "state"})).await;
            }
        }
        assert_eq!(text(&client.read().await), r#"{"roots": [{"uri": "file:///x"}], "level": null}"#);
        client
    });
}

#[test]
fn a_servers_question_is_mapped_there_and_back() {
    let book = session(&Setup::default(), |mut client| async move {
        client.handshake(json!({"sampling": {}})).await;
        let asked = client.legacy(1, "ask-client").await;
        assert_eq!(asked["method"], "sampling/createMessage");
        assert!(asked["id"].is_i64());
        let progress = json!({"progressToken": asked["params"]["_meta"]["progressToken"], "progress": 1});
        assert!(progress["progressToken"].is_i64());
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"x": 1}});
        client.send(&answer.to_string()).await;
        let told = client.read().await;
        assert_eq!(
            serde_json::from_str::<Value>(text(&told)).unwrap(),
            json!({"jsonrpc": "2.0", "id": 0, "result": {"x": 1}})
        );
        assert_eq!(text(&client.legacy(2, "ask-nobody").await), "-32601");
        // No modern server may ask at all; this one waits for an answer that cannot come.
        client.start_call(3, "ask-and-say-so", json!({})).await;
        assert_eq!(client.read().await["method"], "notifications/progress");
        client.hang_up();
        client
    });
    assert_eq!(book.misdeeds("ask-nobody"), ["make a request that is not allowed"]);
    assert_eq!(book.status_of("ask-and-say-so"), "cancelled");
    assert_eq!(book.misdeeds("ask-and-say-so"), ["make a request that is not allowed"]);
}

#[test]
fn what_came_together_goes_together_in_front_of_the_answer() {
    let (scratch, setup) = (Scratch::new(), Setup::default());
    crate::facts();
    configure(&setup, &scratch);
    // Each read of it gets what one write has put in.
    let (mut ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let mut command = toolcell(&setup, &scratch, "run");
    let mut child = command.stdin(Stdio::piped()).stdout(OwnedFd::from(theirs)).spawn().unwrap();
    // The supervisor alone holds the other end, so that a read ends when it does.
    drop(command);
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": "mine"});
    let params = json!({"name": "burst", "arguments": {}, "_meta": meta});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    writeln!(child.stdin.as_mut().unwrap(), "{call}").unwrap();
    let mut room = vec![0; 1 << 16];
    let mut packet = || {
        let count = ours.read(&mut room).unwrap();
        let lines = room[..count].strip_suffix(b"\n").expect("whole lines").split(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect::<Vec<Value>>()
    };
    let steps: Vec<Option<u64>> = packet().iter().map(|step| step["params"]["progress"].as_u64()).collect();
    assert_eq!(steps, (0..20).map(Some).collect::<Vec<_>>());
    assert_eq!(packet().iter().map(text).collect::<Vec<_>>(), ["ok"]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_a_server_may_not_say_is_dropped_and_recorded() {
    let book = session(&Setup::default(), |mut client| async move {
        for (id, tool) in ["wrong-id", "two-answers", "noise", "flood-stderr", "stay"].iter().enumerate() {
            let answer = client.call(id as u64, tool).await;
            assert_eq!((answer["id"].as_u64(), text(&answer)), (Some(id as u64), "ok"), "{tool}");
        }
        client.start_call(50, "progress", json!({})).await;
        let progress = client.read().await;
        assert_eq!(progress["params"]["progressToken"], "mine");
        assert_eq!(client.read().await["method"], "notifications/message");
        assert_eq!(text(&client.read().await), "ok");
        assert_eq!(client.call(51, "tool-error").await["result"]["isError"], true);
        assert_eq!(client.call(52, "nothing").await["error"]["message"], "unknown tool");
        client
    });
    assert_eq!(book.misdeeds("wrong-id"), ["answer a request that was not made"]);
    assert_eq!(book.misdeeds("two-answers"), ["answer again"]);
    assert_eq!(book.misdeeds("noise"), ["write something that is no message"]);
    assert_eq!(book.end_of("noise")["violations"][0]["count"], 2);
    assert_eq!(book.misdeeds("progress"), ["send a notification that is not allowed"]);
    for tool in ["wrong-id", "two-answers", "noise", "flood-stderr", "stay", "progress"] {
        assert_eq!(book.status_of(tool), "completed", "{tool}");
    }
    assert_eq!(book.status_of("tool-error"), "failed");
    assert_eq!(book.end_of("nothing")["status"], json!({"kind": "failed", "detail": "unknown tool"}));
}

#[test]
fn each_way_to_fail_has_its_own_text() {
    let setup = Setup { output: "1MiB", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        for (id, (tool, expected)) in [
            ("die", "the server exited with status 3 without an answer\nThe last lines of its stderr:\n  first\n  last words"),
            ("only-noise", "the server exited with status 0 without an answer\nThe server wrote lines that are no JSON-RPC messages (1 times), first: `no answer from me`"),
            ("half-line", "the server exited with status 0 without an answer\nThe server ended inside a line (1 times), first: `{\"jsonrpc\":\"2.0\",\"id\":`"),
            ("close", "the server closed its output without an answer, and was stopped"),
            ("flood", "toolcell stopped this call: it reached the output limit of 1MiB (peak "),
        ].iter().enumerate() {
            let answer = client.call(id as u64, tool).await;
            assert_eq!(answer["id"].as_u64(), Some(id as u64));
            assert_eq!((&answer["result"]["isError"], &answer["result"]["resultType"]), (&json!(true), &json!("complete")));
            let told = text(&answer);
            let ended = *tool == "flood";
            assert!(if ended { told.starts_with(expected) } else { told == *expected }, "{tool}: {told}");
            let limit = &answer["result"]["_meta"]["dev.toolcell/violations"][0]["limit"];
            assert_eq!(limit.is_string(), ended, "{answer}");
        }
        // What has no place for a tool's error gets one of JSON-RPC.
        let answer = client.request(9, "prompts/get", json!({"name": "die"})).await;
        assert_eq!(answer["error"]["code"], -32603);
        client
    });
    assert_eq!(book.end_of("flood")["status"], json!({"kind": "limit", "limit": "output"}));
    assert_eq!(book.status_of("die"), "died");
}

#[test]
fn a_call_that_is_out_of_time_is_told_so() {
    let book = session(&Setup { time: "600ms", ..Setup::default() }, |mut client| async move {
        let answer = client.call(1, "silent").await;
        let told = "toolcell stopped this call: it reached the time limit of 600ms, set by `limits.time` of profile `";
        assert!(text(&answer).starts_with(told), "{answer}");
        assert_eq!(answer["result"]["_meta"]["dev.toolcell/violations"][0]["limit"], "time", "{answer}");
        client
    });
    assert_eq!(book.end_of("silent")["status"], json!({"kind": "limit", "limit": "time"}));
}

#[test]
fn a_flood_neither_fills_the_memory_nor_outlives_its_time() {
    let setup = Setup { time: "400ms", output: "1GiB", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        client.handshake(json!({})).await;
        let flooded = Instant::now();
        for (id, tool) in [(1, "ping-flood"), (2, "newlines")] {
            assert!(text(&client.legacy(id, tool).await).contains("the time limit of 400ms"), "{tool}");
        }
        assert!(flooded.elapsed() < Duration::from_secs(10));
        client
    });
    // Its pings are read only as fast as it reads the answers, which it never does.
    assert!(book.end_of("ping-flood")["usage"]["bytes_out"].as_u64() < Some(4 << 20));
}

#[test]
fn a_call_without_its_record_is_not_run() {
    let book = session(&Setup::default(), |mut client| async move {
        assert_eq!(text(&client.call(1, "noise").await), "ok");
        // While somebody else holds the log, nothing can be written to it.
        let log = client.audit();
        log.lock().unwrap();
        let answer = client.call(2, "who").await;
        assert_eq!(answer["error"]["code"], -32603);
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("record cannot be written"),
            "{answer}"
        );
        drop(log);
        client
    });
    assert!(book.started.iter().all(|record| record["call"]["target"] == "noise"));
}

#[test]
fn a_fresh_process_that_agrees_on_another_version_is_not_used() {
    let scratch = Scratch::new();
    let (directory, lie) = (scratch.0.display().to_string(), scratch.0.join("lie"));
    let options = vec!["--read".to_owned(), directory, "--env".to_owned(), format!("LIE={}", lie.display())];
    session(&Setup { options, ..Setup::default() }, |mut client| async move {
        client.handshake(json!({})).await;
        std::fs::write(&lie, "").unwrap();
        let answer = client.legacy(1, "who").await;
        assert!(
            text(&answer).contains("agreed on protocol version `1999-01-01`, the session on `2025-06-18`")
        );
        client
    });
}

#[test]
fn what_is_not_offered_is_refused_and_the_unknown_is_the_servers_to_refuse() {
    session(&Setup::default(), |mut client| async move {
        client.handshake(json!({})).await;
        for (id, method) in ["tasks/get", "tasks/list"].iter().enumerate() {
            assert_eq!(client.request(id as u64, method, json!({})).await["error"]["code"], -32601);
        }
        let answer = client.request(7, "no/such", json!({})).await;
        assert_eq!(answer["error"]["message"], "server says: no/such");
        assert_eq!(client.request(8, "ping", json!({})).await["result"], json!({}));
        let answer = client.request(9, "tools/call", json!({"name": "who", "Name": "die"})).await;
        assert_eq!(answer["error"]["code"], -32602);
        client
    });
}
