//! Who may call what, seen from the client. Never: looks inside.

use serde_json::{Value, json};
use toolcell::access::fingerprint;
use toolcell::policy::tokens::to_hex;

use super::spares::stopped;
use super::world::{Book, Client, Scratch, Setup, session, session_in, text};

const ROLES: &str = r#"
env = ["TOOLS=who request environment ask-once read"]
[auth]
mode = "token"
[identities.reader]
roles = ["look"]
[identities.writer]
roles = ["look", "change"]
concurrent = 1
[roles.look]
allow = ["fixture/who", "fixture/silent", "fixture/request", "fixture/environment", "fixture/ask*"]
[roles.change]
allow = ["fixture/*"]
deny = ["fixture/die"]
"#;

pub(super) const READER: &str = "token-of-the-reader";
const WRITER: &str = "token-of-the-writer";
const EXPIRED: &str = "token-that-has-expired";

fn tokens() -> String {
    let entry = |id: &str, identity: &str, token: &str, year: u32| {
        let salt = [id.len() as u8; 16];
        let hash = to_hex(&fingerprint(&salt, token.as_bytes()).unwrap());
        format!(
            "[[tokens]]\nid = \"{id}\"\nidentity = \"{identity}\"\nsalt = \"{}\"\nhash = \"{hash}\"\nexpires = {year}-01-01T00:00:00Z\n",
            to_hex(&salt)
        )
    };
    entry("r", "reader", READER, 2100)
        + &entry("w1", "writer", WRITER, 2100)
        + &entry("old", "writer", EXPIRED, 2020)
}

pub(super) fn setup() -> Setup {
    Setup { config: ROLES.to_owned(), tokens: tokens(), ..Setup::default() }
}

/// `_meta` of a modern request with a token.
fn meta(token: &str) -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": "mine", "dev.toolcell/token": token})
}

/// `_meta` of a modern request of a client that says its name.
fn named(name: &str) -> Value {
    let info = json!({"name": name, "version": "1"});
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": info})
}

pub(super) async fn call(client: &mut Client, id: u64, token: &str, tool: &str) -> Value {
    client.request(id, "tools/call", json!({"name": tool, "arguments": {}, "_meta": meta(token)})).await
}

fn names(answer: &Value) -> Vec<&str> {
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

fn refusals(book: &Book) -> Vec<&Value> {
    book.finished.iter().filter(|record| record["violations"][0]["layer"] == "access").collect()
}

#[test]
fn each_identity_calls_and_sees_what_its_roles_allow() {
    let book = session(&setup(), |mut client| async move {
        let kept: Value = serde_json::from_str(text(&call(&mut client, 1, READER, "request").await)).unwrap();
        assert_eq!(
            kept["_meta"],
            json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": "mine"}),
            "the server sees no token"
        );
        let refused = call(&mut client, 2, READER, "read").await;
        assert_eq!(
            (&refused["result"]["isError"], &refused["result"]["resultType"]),
            (&json!(true), &json!("complete"))
        );
        assert_eq!(
            text(&refused),
            "toolcell refused identity `reader` to call the tool `read` of server `fixture`: none of its roles (`look`) \
             allows it\nTo allow it:\n[roles.look]\nallow = [\"fixture/read\"]"
        );
        assert!(
            text(&call(&mut client, 3, WRITER, "die").await)
                .contains("`deny = [\"fixture/die\"]` in `[roles.change]`")
        );
        for (id, token) in [(4, EXPIRED), (5, ""), (6, "token-of-the-reader "), (7, "token-of-the")] {
            let answer = call(&mut client, id, token, "who").await;
            assert_eq!(answer["error"]["code"], 401, "{token}: {answer}");
        }
        let answer = client.request(8, "tools/call", json!({"name": "who"})).await;
        assert_eq!(answer["error"]["code"], 401, "{answer}");
        let answer = client.request(9, "custom/run", json!({"_meta": meta(WRITER)})).await;
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
        let answer = client.request(10, "prompts/get", json!({"name": "who", "_meta": meta(WRITER)})).await;
        assert_eq!(answer["error"]["code"], 403, "{answer}");
        let answer = client.request(11, "initialize", json!({"protocolVersion": "2025-06-18"})).await;
        assert_eq!(answer["error"]["code"], 401, "{answer}");
        client
    });
    let who = |record: &&Value| record["call"]["identity"].clone();
    let refused = refusals(&book);
    assert_eq!(refused.len(), 10, "{refused:?}");
    assert_eq!(refused.iter().map(who).filter(|who| who == "reader").count(), 1);
    for record in &refused {
        assert_eq!((&record["status"]["kind"], &record["receipt"]), (&json!("refused"), &Value::Null));
        let started =
            book.started.iter().find(|started| started["call"]["id"] == record["call"]["id"]).unwrap();
        assert_eq!(started["parameters"], Value::Null);
    }
    assert_eq!(refused[0]["violations"][0]["allow"], "[roles.look]\nallow = [\"fixture/read\"]");
    // Only what was allowed had a cell.
    let ran: Vec<&Value> = book.finished.iter().filter(|record| !record["receipt"].is_null()).collect();
    assert_eq!(ran.len(), 1);
    assert_eq!(
        (&ran[0]["call"]["identity"], &ran[0]["call"]["target"]),
        (&json!("reader"), &json!("request"))
    );
    let all = format!("{:?}{:?}", book.started, book.finished);
    assert!([READER, WRITER, EXPIRED].iter().all(|token| !all.contains(token)));
}

#[test]
fn a_kept_list_is_shown_to_each_by_its_roles() {
    session(&setup(), |mut client| async move {
        // Twice: as the server gave it, and from the cache.
        for id in [1, 3] {
            let list = json!({"_meta": meta(READER)});
            let answer = client.request(id, "tools/list", list).await;
            assert_eq!(names(&answer), ["who", "request", "environment", "ask-once"]);
            assert_eq!(answer["result"]["nextCursor"], "c");
            let second =
                client.request(id + 1, "tools/list", json!({"cursor": "c", "_meta": meta(WRITER)})).await;
            assert_eq!(names(&second), ["who", "request", "environment", "ask-once", "read"]);
        }
        client
    });
    let env = vec![("TOOLCELL_TOKEN", READER.to_owned())];
    session(&Setup { env, ..setup() }, |mut client| async move {
        client.handshake(json!({})).await;
        let by_environment = client.request(1, "tools/list", json!({})).await;
        assert_eq!(names(&by_environment), ["who", "request", "environment", "ask-once"]);
        let again = client.request(2, "tools/list", json!({"_meta": {"dev.toolcell/token": WRITER}})).await;
        assert_eq!(names(&again), ["who", "request", "environment", "ask-once", "read"]);
        assert_eq!(by_environment["result"]["lists"], again["result"]["lists"], "one answer of the server");
        let page = client.request(3, "tools/list", json!({"cursor": "c"})).await;
        assert_eq!(names(&page), ["who", "request", "environment", "ask-once"]);
        client
    });
}

#[test]
fn a_token_of_the_environment_is_nowhere_else() {
    let config = ROLES.replace("env = [", "env = [\"TOOLCELL_TOKEN\", \"KEPT\", ");
    let env = vec![("TOOLCELL_TOKEN", WRITER.to_owned()), ("KEPT", "kept".to_owned())];
    let book = session(&Setup { config, env, ..setup() }, |mut client| async move {
        client.handshake(json!({})).await;
        let seen = client.legacy(1, "environment").await;
        assert!(text(&seen).contains("\"KEPT\": \"kept\"") && !text(&seen).contains("TOOLCELL"), "{seen}");
        // Who may not look (an ordinary user) is told nothing either.
        let shown = std::fs::read(format!("/proc/{}/environ", client.supervisor())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&shown).contains(WRITER));
        client
    });
    let ran = book.finished.iter().filter(|record| record["call"]["identity"] == "writer").count();
    assert_eq!(ran, 2, "the catalogue and the call");
}

#[test]
fn a_notification_goes_on_without_the_token() {
    let config = ROLES.replace("concurrent = 1\n", "");
    let env = vec![("TOOLCELL_TOKEN", WRITER.to_owned())];
    let book = session(&Setup { config, env, ..setup() }, |mut client| async move {
        client.start_call(1, "talk-after-cancel", json!({})).await;
        // The answer of another shows that the first has had time to be sent.
        assert_ne!(text(&client.call(2, "who").await), "");
        let meta = json!({"dev.toolcell/token": WRITER, "own": 1});
        let params = json!({"requestId": 1, "reason": "enough", "_meta": meta});
        client
            .send(
                &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string(),
            )
            .await;
        client
    });
    let told = book.end_of("talk-after-cancel")["stderr"].to_string();
    assert!(told.contains("enough") && told.contains("own") && !told.contains(WRITER), "{told}");
}

#[test]
fn calls_at_once_are_counted_and_a_question_frees_its_place() {
    let setup = Setup { env: vec![("TOOLCELL_TOKEN", WRITER.to_owned())], ..setup() };
    session(&setup, |mut client| async move {
        client.start_call(1, "silent", json!({})).await;
        let refused = client.call(2, "who").await;
        assert!(text(&refused).contains("1 of its calls are running, and `concurrent` is 1"), "{refused}");
        client.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
        let after = client.call(3, "who").await;
        assert_eq!(after["result"]["isError"], Value::Null, "{after}");
        client.start_call(900, "ask-once", json!({})).await;
        let question = client.read().await;
        let state = json!({"requestState": question["result"]["requestState"], "inputResponses": {}});
        // Somebody else who knows the state does not get the cell.
        let mut stolen = state.clone();
        stolen["name"] = json!("ask-once");
        stolen["arguments"] = json!({});
        stolen["_meta"] = meta(READER);
        let answer = client.request(901, "tools/call", stolen).await;
        assert_eq!(answer["error"]["message"], "the state is of another process", "{answer}");
        client.start_call_with(902, "ask-once", json!({}), state).await;
        assert_eq!(text(&client.read().await), "thank you");
        client
    });
}

#[test]
fn who_has_many_calls_waiting_keeps_nobody_else_waiting() {
    // By identity, and where there is none, by the name that the client gives itself.
    for (setup, many, one) in
        [(setup(), meta(READER), meta(WRITER)), (Setup::default(), named("many"), named("one"))]
    {
        session(&Setup { jobs: 1, ..setup }, |mut client| async move {
            let call = |id: u64, tool: &str, meta: &Value| {
                let params = json!({"name": tool, "arguments": {}, "_meta": meta});
                json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
            };
            client.send(&call(0, "who", &one)).await;
            client.read().await;
            client.send(&call(1, "silent", &many)).await;
            while !client.log().contains("\"silent\"") {
                tokio::task::yield_now().await;
            }
            for id in 100..120 {
                client.send(&call(id, "who", &many)).await;
            }
            client.send(&call(200, "who", &one)).await;
            let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
            client.send(cancel).await;
            let mut order = Vec::new();
            for _ in 0..21 {
                let answer = client.read().await;
                assert!(!text(&answer).is_empty());
                order.push(answer["id"].as_u64().unwrap());
            }
            let turn = order.iter().position(|id| *id == 200).unwrap();
            assert!(turn < 3, "{order:?}");
            order.remove(turn);
            assert!(order.is_sorted(), "{order:?}");
            client
        });
    }
}

#[test]
fn identities_share_no_process_and_each_has_its_own_records() {
    let options = vec!["--spares".to_owned(), "1".to_owned()];
    let book = session(&Setup { options, ..setup() }, |mut client| async move {
        let mut whos = Vec::new();
        for (id, token) in [READER, WRITER, READER, WRITER].into_iter().enumerate() {
            whos.push(text(&call(&mut client, id as u64, token, "who").await).to_owned());
            stopped(&client).await;
        }
        whos.sort();
        whos.dedup();
        assert_eq!(whos.len(), 4);
        client
    });
    let calls: Vec<&Value> =
        book.finished.iter().filter(|record| record["call"]["method"] == "tools/call").collect();
    let cells: Vec<&Value> = calls.iter().map(|record| &record["receipt"]["cell"]).collect();
    assert_eq!(cells[1..], ["spare"; 3], "{cells:?}");
    let of = |events: &[Value]| {
        let calls = events.iter().filter(|record| record["call"]["method"] == "tools/call");
        calls.map(|record| record["call"]["identity"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for events in [&book.started, &book.finished] {
        assert_eq!(of(events), ["reader", "writer", "reader", "writer"]);
    }
    // What waits has been called by nobody.
    let spares = book.started.iter().filter(|record| record["call"]["method"] == "spare");
    assert!(spares.map(|record| &record["call"]["identity"]).all(Value::is_null));
}

#[test]
fn a_token_that_is_revoked_is_good_for_nothing_in_a_session_that_runs() {
    let scratch = Scratch::new();
    let env = vec![("TOOLCELL_TOKEN", WRITER.to_owned())];
    let config = scratch.0.join("servers.toml");
    session_in(&scratch, &Setup { env, ..setup() }, |mut client| async move {
        let bare = json!({"name": "read", "arguments": {"path": "/nothing"}});
        assert_eq!(text(&client.request(1, "tools/call", bare.clone()).await), "ENOENT");
        let revoked = std::process::Command::new(crate::binary())
            .args(["token", "revoke", "w1", "--config", config.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(revoked.status.success(), "{revoked:?}");
        assert!(String::from_utf8(revoked.stdout).unwrap().contains("in sessions that run too"));
        for (id, params) in [(2, bare.clone()), (3, json!({"name": "read", "_meta": meta(WRITER)}))] {
            assert_eq!(client.request(id, "tools/call", params).await["error"]["code"], 401);
        }
        assert!(!text(&call(&mut client, 4, READER, "who").await).is_empty());
        // A file that says nothing that can be understood lets nobody in.
        let tokens = config.with_file_name("tokens.toml");
        let before = std::fs::read(&tokens).unwrap();
        std::fs::write(&tokens, "[[tokens").unwrap();
        let answer = call(&mut client, 5, READER, "who").await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("cannot read its tokens"), "{answer}");
        std::fs::write(&tokens, before).unwrap();
        assert!(!text(&call(&mut client, 6, READER, "who").await).is_empty());
        client
    });
}
