//! Calls whose arguments are refused before there is a process. Never: looks inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// A server that lists these tools.
fn listing(tools: &Value) -> Setup {
    let options = vec!["--env".to_owned(), format!("SCHEMAS={tools}")];
    Setup { validate: true, options, ..Setup::default() }
}

fn tool(name: &str, schema: &Value) -> Value {
    json!({"name": name, "inputSchema": schema})
}

async fn call(client: &mut Client, tool: &str, arguments: &Value) -> Value {
    client.start_call(1, tool, arguments.clone()).await;
    client.read().await
}

/// The records of calls that were refused because of their arguments.
fn refused(book: &Book) -> Vec<&Value> {
    book.finished.iter().filter(|record| record["violations"][0]["layer"] == "arguments").collect()
}

#[test]
fn what_readers_could_read_differently_is_refused() {
    let nested = format!("{}1{}", "[".repeat(80), "]".repeat(80));
    let cases = [
        (r#""arguments":{"path":"/a","path":"/etc/passwd"}"#.to_owned(), "`path` is there more than once"),
        (
            r#""arguments":{"a":[{"b":1,"\u0062":2}]}"#.to_owned(),
            "`/a/0` the member `b` is there more than once",
        ),
        (r#""arguments":{"path":"/a\u0000.png"}"#.to_owned(), "`/path` holds a NUL"),
        (r#""arguments":{"path":"\ud800"}"#.to_owned(), "cannot be read"),
        (format!(r#""arguments":{{"deep":{nested}}}"#), "nested deeper than 64 levels"),
        (r#""arguments":{},"arguments":{}"#.to_owned(), "`arguments` is there more than once"),
        (r#""arguments":{},"Arguments":{}"#.to_owned(), "`arguments` is there more than once"),
        (r#""ARGUMENTS":{}"#.to_owned(), "`arguments` is written in other letters"),
        (r#""arguments":{},"x":{"y":1,"y":2}"#.to_owned(), "`/x` the member `y` is there more than once"),
    ];
    let book = session(&Setup::default(), |mut client| {
        let cases = cases.clone();
        async move {
            for (arguments, why) in &cases {
                let line = format!(
                    r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"request",{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
                );
                client.send(&line).await;
                let answer = client.read().await;
                assert_eq!(answer["result"]["isError"], true, "{arguments}: {answer}");
                assert_eq!(answer["result"]["resultType"], "complete");
                assert!(text(&answer).contains(why), "{arguments}: {answer}");
            }
            // A second envelope for a server that compares without case.
            client
                .send(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"who"},"Params":{"name":"die"}}"#)
                .await;
            assert!(text(&client.read().await).contains("`params` is there more than once"));
            client
                .send(r#"{"jsonrpc":"2.0","id":3,"method":"prompts/get","params":{"name":"who","arguments":{"a":"1","a":"2"}}}"#)
                .await;
            assert_eq!(client.read().await["error"]["code"], -32602);
            // In the middle of a text, as it comes from some writers in C.
            client.send("{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"tools/call\",\"params\":{\"name\":\"wh\0o\"}}").await;
            assert_eq!(client.read().await["error"]["code"], -32700);
            client.start_call(5, "request", json!({"path": "/a\\u0000", "list": [{"a": 1}, {"a": 1}]})).await;
            let passed: Value = serde_json::from_str(text(&client.read().await)).unwrap();
            assert_eq!(passed["arguments"]["path"], "/a\\u0000");
            client
        }
    });
    let refused = refused(&book);
    assert_eq!(refused.len(), cases.len() + 2);
    for record in refused {
        assert_eq!(record["status"]["kind"], "refused", "{record}");
        assert_eq!(record["receipt"], Value::Null);
        assert_eq!(record["call"]["profile"], "test");
    }
    let twice = book
        .started
        .iter()
        .find(|record| record["parameters"]["value"]["arguments"]["path"] == "/etc/passwd");
    assert!(twice.is_some(), "the record has the parameters as they came");
}

fn read_schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"path": {"type": "string", "maxLength": 20}, "head": {"type": "number"}},
        "required": ["path"],
        "additionalProperties": false,
    })
}

#[test]
fn a_call_that_comes_before_the_list_waits_for_it_and_is_checked() {
    let setup = listing(&json!([tool("request", &read_schema()), tool("who", &json!({"type": "object"}))]));
    let book = session(&setup, |mut client| async move {
        for (arguments, why) in [
            (
                json!({}),
                "the arguments must have the member `path` (`required` of the tool's own `inputSchema`)",
            ),
            (json!({"path": 7}), "`/path` must be a string, not a number (`type` of"),
            (json!({"path": "/a", "haed": 1}), "`/haed` must not be there; known are `head`, `path`"),
            (
                json!({"path": "/123456789012345678901"}),
                "`/path` must have at most 20 characters, and has 22",
            ),
            (json!([]), "the arguments must be an object"),
        ] {
            let answer = call(&mut client, "request", &arguments).await;
            assert_eq!(answer["result"]["isError"], true, "{arguments}: {answer}");
            assert!(text(&answer).contains(why), "{arguments}: {answer}");
        }
        let fits = call(&mut client, "request", &json!({"path": "/a", "head": 1.0})).await;
        let passed: Value = serde_json::from_str(text(&fits)).unwrap();
        assert_eq!(passed["arguments"], json!({"path": "/a", "head": 1.0}));
        let without = client.call(2, "who").await;
        assert_eq!(text(&without).len(), 16);
        client
    });
    assert_eq!(refused(&book).len(), 5);
    assert_eq!(refused(&book)[2]["violations"][0]["object"], "/haed");
    // One process for the list, and one for each call that was let on.
    let started: Vec<_> = book.finished.iter().filter(|record| record["receipt"] != Value::Null).collect();
    let methods: Vec<_> = started.iter().map(|record| record["call"]["method"].as_str().unwrap()).collect();
    assert_eq!(methods.iter().filter(|method| **method == "catalogue").count(), 1, "{methods:?}");
    assert_eq!(methods.iter().filter(|method| **method == "tools/call").count(), 2, "{methods:?}");
    // The list came first.
    assert_eq!(book.started[0]["call"]["method"], "catalogue");
}

#[test]
fn calls_that_come_together_before_the_list_wait_for_one_walk() {
    let setup = Setup { jobs: 4, ..listing(&json!([tool("who", &json!({"type": "object"}))])) };
    let book = session(&setup, |mut client| async move {
        for id in 1..=4 {
            client.start_call(id, "who", json!({})).await;
        }
        for _ in 1..=4 {
            assert_eq!(text(&client.read().await).len(), 16);
        }
        // None has waited until the process that lists was ended because nobody asked it.
        let log = client.log();
        let mut records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert!(
            !records.any(|record| record["event"] == "finished" && record["call"]["method"] == "catalogue")
        );
        client
    });
    assert_eq!(book.finished.iter().filter(|record| record["call"]["method"] == "catalogue").count(), 1);
}

#[test]
fn a_legacy_call_is_checked_after_the_handshake() {
    let setup = listing(&json!([tool("request", &read_schema())]));
    let book = session(&setup, |mut client| async move {
        client.handshake(json!({})).await;
        let answer = client.legacy(1, "request").await;
        assert!(text(&answer).contains("must have the member `path`"), "{answer}");
        let fits = json!({"name": "request", "arguments": {"path": "/a"}});
        assert_eq!(client.request(2, "tools/call", fits).await["result"]["odd"], 1.0);
        client
    });
    assert_eq!(refused(&book).len(), 1);
}

#[test]
fn what_cannot_be_checked_is_refused_unless_the_configuration_lets_it_through() {
    let away = json!({"properties": {"a": {"$ref": "https://example.com/schema"}}});
    let setup = listing(&json!([
        tool("who", &away),
        tool("request", &json!({"properties": {"a": {"pattern": "^(?!b)"}}})),
        tool("state", &away),
        tool("list", &json!({})),
        tool("list", &json!({"type": "object"})),
    ]));
    let setup = Setup { config: "[servers.fixture.tools.state]\nvalidate = \"off\"\n".to_owned(), ..setup };
    let book = session(&setup, |mut client| async move {
        for (tool, why) in [
            ("who", "`/properties/a/$ref` in it leads out of the schema, and nothing is fetched"),
            (
                "request",
                "`/properties/a/pattern` in it is a regular expression that cannot be used: it looks ahead",
            ),
            ("list", "the tool is listed twice, with two schemas"),
            ("requets", "are for a tool that the server does not list; did you mean `request`?"),
        ] {
            let answer = call(&mut client, tool, &json!({})).await;
            assert_eq!(answer["result"]["isError"], true, "{answer}");
            let allow = format!("to allow it:\n[servers.fixture.tools.{tool}]\nvalidate = \"off\"");
            assert!(text(&answer).contains(why) && text(&answer).ends_with(&allow), "{answer}");
        }
        assert!(text(&call(&mut client, "state", &json!({})).await).contains("roots"));
        client
    });
    assert_eq!(refused(&book).len(), 4);
    assert!(
        book.started
            .iter()
            .all(|record| record["call"]["target"] != "requets" || record["call"]["profile"] == "test")
    );
}

#[test]
fn a_call_is_not_let_on_when_the_server_does_not_say_what_it_takes() {
    let mut setup = listing(&json!([tool("who", &json!({}))]));
    setup.options.extend(["--env".to_owned(), "DIE=tools/list".to_owned()]);
    let book = session(&setup, |mut client| async move {
        let answer = client.call(1, "who").await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        assert!(text(&answer).contains("cannot be checked: the server exited with status 5"), "{answer}");
        client
    });
    assert!(
        book.started
            .iter()
            .all(|record| record["call"]["method"] == "catalogue" || record["call"]["target"] == "who")
    );
    assert_eq!(book.status_of("who"), "refused");
}

/// `data` with a file and links, beside `database` and a file that is for nobody.
fn tree(scratch: &Scratch) -> String {
    let top = scratch.0.to_str().unwrap().to_owned();
    for directory in ["data", "database"] {
        fs::create_dir(format!("{top}/{directory}")).unwrap();
        fs::write(format!("{top}/{directory}/a"), "one").unwrap();
    }
    fs::write(format!("{top}/secret"), "canary").unwrap();
    symlink("../secret", format!("{top}/data/away")).unwrap();
    for path in ["data", "database"] {
        fs::set_permissions(format!("{top}/{path}"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    top
}

#[test]
fn what_the_configuration_wants_comes_before_the_cell_and_the_cell_behind_it() {
    let scratch = Scratch::new();
    let top = tree(&scratch);
    let config = format!(
        "[servers.fixture.tools.read.arguments]\nrequired = [\"checked\"]\n\
         [servers.fixture.tools.read.arguments.properties.checked]\npath = {{ within = [\"{top}/data\"] }}\n"
    );
    let schema = json!({"properties": {"path": {"type": "string"}}});
    let setup = Setup {
        filesystem: format!("read = [\"{top}/data\"]"),
        config,
        ..listing(&json!([tool("read", &schema)]))
    };
    let book = session(&setup, |mut client| async move {
        let mut read = async |checked: String, path: String| {
            call(&mut client, "read", &json!({"checked": checked, "path": path})).await
        };
        for outside in [
            "../../../etc/passwd",
            "/etc/passwd",
            "database/a",
            "data/../secret",
            "data/away",
            "data/../database/a",
        ] {
            let path =
                if outside.starts_with(['/', '.']) { outside.to_owned() } else { format!("{top}/{outside}") };
            let answer = read(path.clone(), path).await;
            assert_eq!(answer["result"]["isError"], true, "{outside}: {answer}");
            assert!(text(&answer).contains("`/checked` must "), "{outside}: {answer}");
        }
        let allow = read("/etc/passwd".to_owned(), String::new()).await;
        let line = format!(
            "[servers.fixture.tools.read.arguments.properties.checked]\npath = {{ within = [\"{top}/data\", \"/etc\"] }}"
        );
        assert!(text(&allow).contains(&line), "{allow}");
        assert_eq!(text(&read(format!("{top}/data/../data/a"), format!("{top}/data/a")).await), "one");
        // The same where no rule looks: the cell has no such file.
        for path in [format!("{top}/secret"), format!("{top}/data/away"), format!("{top}/database/a")] {
            assert_eq!(text(&read(format!("{top}/data/a"), path).await), "ENOENT");
        }
        // Both have to be met.
        let both = call(&mut client, "read", &json!({"path": 7})).await;
        assert!(
            text(&both).contains(
                "must have the member `checked` (`required` of `[servers.fixture.tools.read.arguments]`)"
            ),
            "{both}"
        );
        assert!(text(&both).contains("`/path` must be a string"), "{both}");
        client
    });
    assert_eq!(refused(&book).len(), 8);
    let ran = book
        .finished
        .iter()
        .filter(|record| record["call"]["target"] == "read" && record["receipt"] != Value::Null);
    assert_eq!(ran.count(), 4);
}
