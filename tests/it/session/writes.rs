//! Calls whose changes are reviewed: what the host has afterwards, and what the client and the record are told. Never: looks inside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// A directory with two files in which everybody may write.
fn tree(scratch: &Scratch) -> String {
    let data = scratch.0.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["a", "b"] {
        fs::write(data.join(name), "one").unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    data.to_str().unwrap().to_owned()
}

fn setup(data: &str, writes: &str) -> Setup {
    Setup { filesystem: format!("write = [\"{data}\"]\nwrites = \"{writes}\""), ..Setup::default() }
}

async fn leave(client: &mut Client, arguments: Value) -> Value {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    client.request(1, "tools/call", json!({"name": "leave", "arguments": arguments, "_meta": meta})).await
}

fn names(data: &str) -> Vec<String> {
    let entries = fs::read_dir(data).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_call_changed_is_there_when_its_result_is_and_both_tell_of_it() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let within = {
        let data = data.clone();
        move |name: &str| format!("{data}/{name}")
    };
    let expected = json!({
        "verdict": "applied",
        "files": [
            {"kind": "changed", "path": within("a"), "size": 7},
            {"kind": "deleted", "path": within("b"), "size": 0},
            {"kind": "added", "path": within("new"), "size": 4},
        ],
        "left_out": 0,
    });
    let setup = setup(&data, "review");
    let book: Book = session(&setup, |mut client| async move {
        let done = json!([["append", within("a")], ["unlink", within("b")], ["append", within("new")]]);
        let answer = leave(&mut client, json!({"do": done})).await;
        assert_eq!(names(&data), ["a", "new"]);
        assert_eq!(fs::read_to_string(within("a")).unwrap(), "onemore");
        let meta = &answer["result"]["_meta"];
        assert_eq!(
            (text(&answer), &meta["dev.toolcell/changes"], &meta["own"]),
            ("left", &expected, &json!(1))
        );
        // The next call sees it.
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let params = json!({"name": "read", "arguments": {"path": within("new")}, "_meta": meta});
        assert_eq!(text(&client.request(2, "tools/call", params).await), "more");
        client
    });
    let [first, second] = &book.finished[..] else { panic!("{:?}", book.finished) };
    assert_eq!(
        (&first["changes"]["verdict"], &first["status"]["kind"]),
        (&json!("applied"), &json!("completed"))
    );
    assert_eq!(first["changes"]["files"].as_array().unwrap().len(), 3);
    assert_eq!(second["changes"], json!({"verdict": "applied", "files": [], "left_out": 0}));
}

#[test]
fn a_call_that_fails_or_is_not_to_change_anything_changes_nothing() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let change = json!([["append", format!("{data}/new")]]);
    for (writes, arguments) in [
        ("review", json!({"do": change, "fails": true})),
        ("review", json!({"do": change, "long": 2 * 1024 * 1024})),
        ("review", json!({"do": [change[0], ["unlink", format!("{data}/none")]]})),
        ("discard", json!({"do": change})),
        ("discard", json!({"do": change, "long": 2 * 1024 * 1024})),
    ] {
        let long = arguments.get("long").is_some();
        let book = session(&setup(&data, writes), |mut client| async move {
            let answer = leave(&mut client, arguments).await;
            let refused = writes == "review";
            assert_eq!(answer["result"]["isError"].as_bool(), refused.then_some(true), "{answer}");
            assert_eq!(answer["result"]["_meta"]["dev.toolcell/changes"], Value::Null);
            assert!(
                !(long && refused) || text(&answer).contains("cannot wait for the review of its changes")
            );
            client
        });
        assert_eq!(
            (names(&data), &book.finished[0]["changes"]),
            (vec!["a".to_owned(), "b".to_owned()], &Value::Null)
        );
    }
}

#[test]
fn a_result_that_tells_of_changes_that_were_not_made_is_not_passed_on() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let setup = setup(&data, "review");
    let book: Book = session(&setup, |mut client| async move {
        let change =
            json!([["append", format!("{data}/new")], ["symlink", "/etc/passwd", format!("{data}/link")]]);
        let answer = leave(&mut client, json!({"do": change})).await;
        assert_eq!(answer["result"]["isError"], true);
        let told = text(&answer);
        assert!(
            told.contains("this tool succeeded, but nothing of what it changed was done to the host"),
            "{told}"
        );
        assert!(told.contains("which makes no symbolic link"), "{told}");
        assert_eq!(names(&data), ["a", "b"]);
        // A name that is protected comes with the line that leaves it to the tool.
        let answer = leave(&mut client, json!({"do": [["mkdir", format!("{data}/.vscode")]]})).await;
        let line = format!("[filesystem]\nwrite = [{{ path = \"{data}/.vscode\", optional = true }}]");
        assert!(text(&answer).contains(&line), "{answer}");
        assert!(!Path::new(&format!("{data}/.vscode")).exists());
        client
    });
    for record in &book.finished {
        assert_eq!(
            (&record["status"]["kind"], &record["changes"]["verdict"]),
            (&json!("failed"), &json!("refused"))
        );
        assert_eq!(record["violations"][0]["layer"], "review");
    }
}

#[test]
fn what_a_server_writes_until_it_is_ended_is_looked_at_too() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let setup = setup(&data, "review");
    session(&setup, |mut client| async move {
        let late = format!("{data}/late");
        let answer = leave(&mut client, json!({"do": [], "late": late})).await;
        // It may have been ended before it came to it, and never after.
        let told = answer["result"]["_meta"]["dev.toolcell/changes"]["files"].as_array().unwrap().len();
        assert_eq!(told, names(&data).len() - 2);
        client
    });
}

/// The words of a question about changes.
fn is_about(question: &Value, path: &str) -> bool {
    let told = question["message"].as_str().unwrap();
    told.contains("Is this to be done to the files?") && told.contains(&format!("added {path} (4 bytes)"))
}

#[test]
fn a_legacy_client_is_asked_and_the_answer_counts() {
    for (action, done) in [("accept", true), ("decline", false), ("cancel", false)] {
        let scratch = Scratch::outside_of_scratch();
        let data = tree(&scratch);
        let new = format!("{data}/new");
        let book = session(&setup(&data, "ask"), |mut client| async move {
            client.handshake(json!({"elicitation": {}})).await;
            let params = json!({"name": "leave", "arguments": {"do": [["append", new]]}});
            let asked = client.request(1, "tools/call", params).await;
            assert_eq!(asked["method"], "elicitation/create");
            assert!(is_about(&asked["params"], &new), "{asked}");
            assert_eq!(names(&data), ["a", "b"], "nothing is done before the answer");
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": action}});
            client.send(&answer.to_string()).await;
            let answer = client.read().await;
            assert_eq!(answer["id"], 1);
            if done {
                assert_eq!(
                    (text(&answer), names(&data)),
                    ("left", vec!["a".into(), "b".into(), "new".into()])
                );
            } else {
                assert!(text(&answer).contains("a person has not agreed"), "{answer}");
                assert_eq!(names(&data), ["a", "b"]);
            }
            client
        });
        let verdict = if done { "applied" } else { "refused" };
        assert_eq!(book.end_of("leave")["changes"]["verdict"], verdict);
    }
}

#[test]
fn a_modern_client_is_asked_by_its_answer_and_answers_by_repeating_its_request() {
    for (action, done) in [("accept", true), ("decline", false)] {
        let scratch = Scratch::outside_of_scratch();
        let data = tree(&scratch);
        let new = format!("{data}/new");
        let book = session(&setup(&data, "ask"), |mut client| async move {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
            });
            let mut params = json!({"name": "leave", "arguments": {"do": [["append", new]]}, "_meta": meta});
            let asked = client.request(1, "tools/call", params.clone()).await;
            let result = &asked["result"];
            assert_eq!((&asked["id"], &result["resultType"]), (&json!(1), &json!("input_required")));
            let question = &result["inputRequests"]["dev.toolcell/review"];
            assert_eq!(question["method"], "elicitation/create");
            assert!(is_about(&question["params"], &new) && names(&data) == ["a", "b"], "{asked}");
            params["requestState"] = result["requestState"].clone();
            params["inputResponses"] = json!({"dev.toolcell/review": {"action": action}});
            let answer = client.request(2, "tools/call", params).await;
            assert_eq!((&answer["id"], names(&data).len()), (&json!(2), if done { 3 } else { 2 }));
            if done {
                assert_eq!(text(&answer), "left");
                assert_eq!(answer["result"]["_meta"]["dev.toolcell/changes"]["verdict"], "applied");
            } else {
                assert!(text(&answer).contains("a person has not agreed"), "{answer}");
            }
            client
        });
        assert_eq!((book.started.len(), book.finished.len()), (2, 1), "one call of two requests");
    }
}

#[test]
fn where_nobody_can_be_asked_or_nothing_is_to_be_done_nobody_is() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let new = format!("{data}/new");
    session(&setup(&data, "ask"), |mut client| async move {
        let answer = leave(&mut client, json!({"do": [["append", new]]})).await;
        assert!(text(&answer).contains("the client cannot ask a person"), "{answer}");
        assert!(text(&answer).contains("writes = \"review\""), "{answer}");
        assert_eq!(names(&data), ["a", "b"]);
        assert_eq!(text(&leave(&mut client, json!({"do": []})).await), "left");
        client
    });
}
