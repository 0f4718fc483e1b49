//! Calls whose arguments are refused before there is a process. Never: looks inside.

use serde_json::{Value, json};

use super::world::{Book, Setup, session, text};

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
