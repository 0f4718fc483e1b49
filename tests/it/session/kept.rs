//! A server that keeps a state for its client's session, and the subscriptions of one that does not. Never: looks inside.

use serde_json::{Value, json};

use super::world::{Book, Client, Setup, session, text};

fn setup(config: &str) -> Setup {
    Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        config: config.to_owned(),
        ..Setup::default()
    }
}

const SESSION: &str = "state = \"session\"\n";

/// A legacy handshake with a server that announces nothing by itself.
pub(super) async fn handshake(client: &mut Client) -> Value {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {"sampling": {}},
        "clientInfo": {"name": "tester", "version": "9"},
    });
    let answer = client.request(0, "initialize", params).await;
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    answer
}

async fn legacy(client: &mut Client, id: u64, tool: &str, arguments: Value) -> Value {
    client.request(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
}

fn methods(book: &Book) -> Vec<&str> {
    book.started.iter().map(|record| record["call"]["method"].as_str().unwrap()).collect()
}

#[test]
fn calls_of_a_session_share_a_process_and_each_has_its_record() {
    let book = session(&setup(SESSION), |mut client| async move {
        let capabilities = handshake(&mut client).await["result"]["capabilities"].clone();
        assert_eq!(
            (&capabilities["resources"]["subscribe"], &capabilities["tasks"]),
            (&json!(true), &json!({"list": {}}))
        );
        for id in 1..4 {
            assert_eq!(text(&legacy(&mut client, id, "count", json!({})).await), id.to_string());
        }
        let who = text(&legacy(&mut client, 4, "who", json!({})).await).to_owned();
        let list = client.request(5, "tools/list", json!({})).await;
        assert_eq!((&list["result"]["who"], &list["result"]["count"]), (&json!(who), &json!(3)));
        // A list may be another one after a call.
        legacy(&mut client, 6, "count", json!({})).await;
        assert_eq!(client.request(7, "tools/list", json!({})).await["result"]["count"], 4);
        client
    });
    assert_eq!(methods(&book)[..2], ["session", "tools/call"]);
    let calls = book.finished.iter().filter(|record| record["call"]["method"] == "tools/call");
    for record in calls {
        assert_eq!(record["status"]["kind"], "completed");
        assert_eq!(
            (&record["receipt"]["cell"], &record["receipt"]["floor"]),
            (&json!("session"), &json!(crate::cell::floor()))
        );
        assert!(record["usage"]["bytes_in"].as_u64() > Some(0) && record["usage"]["cpu_us"].is_null());
    }
    let cell = book.finished.last().unwrap();
    assert_eq!((&cell["call"]["method"], &cell["call"]["target"]), (&json!("session"), &Value::Null));
    assert!(cell["usage"]["bytes_out"].as_u64() > Some(0));
}

#[test]
fn a_tool_with_the_state_of_a_call_has_a_process_of_its_own() {
    let config = format!("{SESSION}[servers.fixture.tools.who]\nstate = \"call\"\n");
    let book = session(&setup(&config), |mut client| async move {
        handshake(&mut client).await;
        let list = client.request(1, "tools/list", json!({})).await;
        let first = text(&legacy(&mut client, 2, "who", json!({})).await).to_owned();
        let second = text(&legacy(&mut client, 3, "who", json!({})).await).to_owned();
        assert!(first != second && list["result"]["who"] != json!(first));
        client
    });
    assert_eq!(methods(&book), ["session", "tools/call", "tools/call"]);
}

#[test]
fn calls_run_side_by_side_in_it_as_many_as_may() {
    session(&setup(SESSION), |mut client| async move {
        client.start_call(1, "hold", json!({"name": "a"})).await;
        assert_eq!(client.read().await["params"]["data"], "held a");
        // The second place; the third call waits.
        client.start_call(2, "hold", json!({"name": "b"})).await;
        assert_eq!(client.read().await["params"]["data"], "held b");
        client.start_call(3, "let-go", json!({"name": "a"})).await;
        client.start_call(4, "count", json!({})).await;
        // Lists do not wait for a place.
        let meta = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}});
        assert_eq!(client.request(5, "tools/list", meta).await["result"]["count"], 0);
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
        client.send(&cancel.to_string()).await;
        assert_eq!(client.read().await["id"], 3, "a cancelled call gives its place to the next");
        assert_eq!(text(&client.read().await), "1");
        // The cancelled call's late answer is nobody's, and its id is not taken for another's.
        client.start_call(6, "let-go", json!({"name": "b"})).await;
        let mut ids = [client.read().await["id"].clone(), client.read().await["id"].clone()];
        ids.sort_by_key(|id| id.as_u64());
        assert_eq!(ids, [json!(2), json!(6)]);
        client
    });
}

#[test]
fn what_was_refused_stands_in_the_record_of_the_call() {
    let book = session(&setup(SESSION), |mut client| async move {
        let answer = client.call(1, "socket").await;
        assert_eq!(answer["result"]["_meta"]["dev.toolcell/violations"][0]["object"], "AF_UNIX");
        assert_eq!(client.call(2, "count").await["result"].get("_meta"), None);
        assert_eq!(
            client.call(3, "socket").await["result"]["_meta"]["dev.toolcell/violations"][0]["count"],
            1
        );
        client
    });
    let of = |tool: &str| book.end_of(tool)["violations"].as_array().unwrap().len();
    assert_eq!((of("socket"), of("count")), (1, 0));
    let cell = book.finished.iter().find(|record| record["call"]["method"] == "session").unwrap();
    assert_eq!(cell["violations"], json!([]));
}

/// However much a call was refused, the next one's record has a place for each.
#[test]
fn what_one_call_was_refused_hides_nothing_of_the_next() {
    let book = session(&setup(SESSION), |mut client| async move {
        client.call(1, "families").await;
        client.call(2, "socket").await;
        client
    });
    let violations = |tool: &str| book.end_of(tool)["violations"].as_array().unwrap().clone();
    let coverage = |tool: &str| book.end_of(tool)["receipt"]["coverage"]["seccomp"].clone();
    let many = violations("families");
    assert_eq!((many.len(), many[32]["operation"].as_str().unwrap()), (33, "other refused calls"));
    assert_eq!(coverage("families"), "sampled");
    let next = violations("socket");
    assert_eq!((next.len(), &next[0]["object"]), (1, &json!("AF_UNIX")));
    assert_eq!(coverage("socket"), "complete");
}

#[test]
fn a_death_is_told_to_every_open_call_and_the_next_finds_a_new_process() {
    let book = session(&setup(SESSION), |mut client| async move {
        handshake(&mut client).await;
        assert_eq!(text(&legacy(&mut client, 1, "count", json!({})).await), "1");
        let held = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "hold", "arguments": {"name": "a"}}});
        client.send(&held.to_string()).await;
        assert_eq!(client.read().await["params"]["data"], "held a");
        let first = legacy(&mut client, 3, "die", json!({})).await;
        let second = client.read().await;
        let mut ids = [first["id"].as_u64(), second["id"].as_u64()];
        ids.sort_unstable();
        assert_eq!(ids, [Some(2), Some(3)]);
        for answer in [&first, &second] {
            let told = text(answer);
            assert!(told.starts_with("the server exited with status 3 without an answer"), "{told}");
            assert!(told.contains("last words"), "{told}");
            assert_eq!(answer["result"]["isError"], true);
        }
        assert_eq!(text(&legacy(&mut client, 4, "count", json!({})).await), "1", "nothing is repeated");
        client
    });
    assert_eq!(methods(&book).iter().filter(|method| **method == "session").count(), 2);
    assert_eq!((book.status_of("die"), book.status_of("hold")), ("died", "died"));
}

#[test]
fn a_call_that_runs_out_of_time_ends_the_cell() {
    let book = session(&Setup { time: "2s", ..setup(SESSION) }, |mut client| async move {
        client.start_call(1, "hold", json!({"name": "a"})).await;
        assert_eq!(client.read().await["params"]["data"], "held a");
        client.start_call(2, "hold", json!({"name": "b"})).await;
        assert_eq!(client.read().await["params"]["data"], "held b");
        let late = client.read().await;
        assert_eq!(late["id"], 1);
        assert!(
            text(&late).starts_with("toolcell stopped this call: it reached the time limit of 2s"),
            "{late}"
        );
        let along = client.read().await;
        assert!(text(&along).contains("another call in it reached the time limit"), "{along}");
        assert_eq!(text(&client.call(3, "count").await), "1");
        client
    });
    let kinds: Vec<&Value> = book
        .finished
        .iter()
        .filter(|record| record["call"]["target"] == "hold")
        .map(|record| &record["status"]["kind"])
        .collect();
    assert_eq!(kinds, ["limit", "died"]);
}

#[test]
fn each_era_and_each_server_request_has_its_way() {
    session(&setup(SESSION), |mut client| async move {
        handshake(&mut client).await;
        let call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask-client"}});
        client.send(&call.to_string()).await;
        let asked = client.read().await;
        assert_eq!(asked["method"], "sampling/createMessage");
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"model": "m"}});
        client.send(&answer.to_string()).await;
        assert_eq!(text(&client.read().await), r#"{"model": "m"}"#);
        // The server says so because of a call, and nothing else tells the client.
        client
            .send(
                &json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "grow"}})
                    .to_string(),
            )
            .await;
        assert_eq!(client.read().await["method"], "notifications/tools/list_changed");
        assert_eq!(client.read().await["id"], 2);
        client
    });
}

#[test]
fn what_is_written_in_a_session_cannot_be_reviewed() {
    let scratch = super::world::Scratch::new();
    let setup = Setup { filesystem: "writes = \"review\"".to_owned(), ..setup(SESSION) };
    let (status, _, told) = super::world::command(&setup, &scratch, "run", &[]);
    assert_eq!(status, 120, "{told}");
    assert!(told.contains("cannot be reviewed in the cell of a session: profile `test`"), "{told}");
}

#[test]
fn tasks_outlive_their_call() {
    session(&setup(SESSION), |mut client| async move {
        handshake(&mut client).await;
        let params = json!({"name": "task", "task": {"ttl": 60000}});
        assert_eq!(client.request(1, "tools/call", params).await["result"]["task"]["taskId"], "t1");
        assert_eq!(
            client.request(2, "tasks/get", json!({"taskId": "t1"})).await["method"],
            "notifications/tasks/status"
        );
        assert_eq!(client.read().await["result"]["status"], "working");
        client
    });
    session(&setup(""), |mut client| async move {
        assert_eq!(handshake(&mut client).await["result"]["capabilities"].get("tasks"), None);
        let refused = client.request(1, "tools/call", json!({"name": "task", "task": {}})).await;
        let told = refused["error"]["message"].as_str().unwrap();
        assert!(told.ends_with("with `state = \"session\"` in `[servers.fixture]` they share one"), "{told}");
        client
    });
}

#[test]
fn a_long_answer_is_streamed_and_others_go_on() {
    session(&setup(SESSION), |mut client| async move {
        client.start_call(1, "hold", json!({"name": "a"})).await;
        assert_eq!(client.read().await["params"]["data"], "held a");
        client.start_call(2, "long", json!({"size": 3_000_000})).await;
        let long = client.read().await;
        assert_eq!((&long["id"], text(&long).len()), (&json!(2), 3_000_000));
        client.start_call(3, "let-go", json!({"name": "a"})).await;
        let mut ids = [client.read().await["id"].as_u64(), client.read().await["id"].as_u64()];
        ids.sort_unstable();
        assert_eq!(ids, [Some(1), Some(3)]);
        client
    });
}

#[test]
fn what_is_watched_is_told_and_survives_a_death() {
    session(&setup(SESSION), |mut client| async move {
        handshake(&mut client).await;
        assert_eq!(
            client.request(1, "resources/subscribe", json!({"uri": "x:/a"})).await["result"],
            json!({})
        );
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "touch", "arguments": {"uri": "x:/a"}}});
        client.send(&call.to_string()).await;
        assert_eq!(client.read().await["params"]["uri"], "x:/a");
        assert_eq!(client.read().await["id"], 2);
        legacy(&mut client, 3, "die", json!({})).await;
        assert_eq!(text(&legacy(&mut client, 4, "watched", json!({})).await), "['x:/a']");
        client
    });
}

#[test]
fn without_a_session_one_process_watches() {
    let book = session(&setup(""), |mut client| async move {
        assert_eq!(handshake(&mut client).await["result"]["capabilities"]["resources"]["subscribe"], true);
        assert_eq!(
            client.request(1, "resources/subscribe", json!({"uri": "x:/a"})).await["result"],
            json!({})
        );
        assert_eq!(
            text(&legacy(&mut client, 2, "watched", json!({})).await),
            "[]",
            "a call has another process"
        );
        assert_eq!(
            client.request(3, "resources/unsubscribe", json!({"uri": "x:/a"})).await["result"],
            json!({})
        );
        client
    });
    assert_eq!(methods(&book), ["catalogue", "tools/call"]);
}

#[test]
fn who_listens_hears_of_its_subscription_alone_until_it_cancels() {
    let listen = |id: u64| {
        let params = json!({
            "notifications": {"toolsListChanged": true},
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
        });
        json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params}).to_string()
    };
    for config in [SESSION, ""] {
        session(&setup(config), |mut client| async move {
            client.send(&listen(7)).await;
            let told = client.read().await;
            assert_eq!(told["method"], "notifications/subscriptions/acknowledged");
            assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
            if !config.is_empty() {
                client.start_call(8, "touch", json!({"uri": "x:/a"})).await;
                let told = client.read().await;
                assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
                assert_eq!(client.read().await["id"], 8);
                let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
                client.send(&cancel.to_string()).await;
                client.start_call(9, "touch", json!({"uri": "x:/a"})).await;
                assert_eq!(client.read().await["id"], 9);
                client.send(&listen(7)).await;
                let refused = client.read().await["error"]["message"].as_str().unwrap().to_owned();
                assert!(refused.contains("its answer may still come"), "{refused}");
            }
            client
        });
    }
}

#[test]
fn a_server_that_seems_to_have_forgotten_is_told_of() {
    for (config, hinted) in [("", true), (SESSION, false)] {
        session(&setup(config), |mut client| async move {
            let answer = client.call(1, "lost").await;
            let hint = &answer["result"]["_meta"]["dev.toolcell/hint"];
            let told = hint.as_str().unwrap_or_default();
            assert_eq!(told.contains("`state = \"session\"` in `[servers.fixture]`"), hinted, "{answer}");
            client
        });
    }
}
