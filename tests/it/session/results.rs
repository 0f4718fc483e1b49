//! Results that are not what their tool's `outputSchema` says. Never: looks inside.

use serde_json::{Value, json};

use super::world::{Book, Client, Setup, session, text};

/// A server that promises `{"n": an integer}` of `result`, nothing of `result-free`, and what nobody can check of `result-odd`.
fn setup(mode: &str) -> Setup {
    let promised = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let any = json!({"type": "object"});
    let tools = json!([
        {"name": "result", "inputSchema": any, "outputSchema": promised},
        {"name": "result-free", "inputSchema": any},
        {"name": "result-odd", "inputSchema": any, "outputSchema": {"$ref": "https://example.com/schema"}},
    ]);
    let config = if mode.is_empty() { String::new() } else { format!("validate-output = \"{mode}\"\n") };
    Setup {
        validate: true,
        config,
        options: vec!["--env".to_owned(), format!("SCHEMAS={tools}")],
        ..Setup::default()
    }
}

/// What a call of the tool is answered with when the server puts this into its result.
async fn call(client: &mut Client, tool: &str, more: &str, fill: u64) -> Value {
    client.start_call(1, tool, json!({"more": more, "fill": fill})).await;
    client.read().await
}

/// Of each call of a tool, where its record says that the result is wrong.
fn wrong<'b>(book: &'b Book, tool: &str) -> Vec<Vec<&'b str>> {
    let calls = book.finished.iter().filter(|record| record["call"]["target"] == tool);
    let objects = |record: &'b Value| {
        let violations = record["violations"].as_array().unwrap().iter();
        let of_arguments = violations.filter(|violation| violation["layer"] == "arguments");
        of_arguments.map(|violation| violation["object"].as_str().unwrap()).collect()
    };
    calls.map(objects).collect()
}

/// Further members of a result, why they are wrong, and where.
const CASES: [(&str, &str, &str); 8] = [
    (
        r#","structuredContent":{"n":"7"}"#,
        "`/structuredContent/n` must be an integer",
        "/structuredContent/n",
    ),
    (r#","structuredContent":[]"#, "`/structuredContent` must be an object", "/structuredContent"),
    ("", "the result must have the member `structuredContent`", ""),
    (
        r#","structuredContent":{"n":7},"structuredContent":{}"#,
        "`structuredContent` is there more than once",
        "",
    ),
    (r#","StructuredContent":{"n":7}"#, "`structuredContent` is written in other letters", ""),
    (r#","structuredContent":{"n":7,"n":"x"}"#, "`n` is there more than once", "/structuredContent"),
    (r#","structuredContent":{},"isError":true,"isError":false"#, "`isError` is there more than once", ""),
    (r#","structuredContent":{},"isError":1"#, "must have the member `n`", "/structuredContent"),
];

#[test]
fn a_result_that_does_not_fit_is_refused_where_the_configuration_says_so() {
    let book = session(&setup("refuse"), |mut client| async move {
        for (more, why, _) in CASES {
            let answer = call(&mut client, "result", more, 0).await;
            assert_eq!(answer["result"]["isError"], true, "{more}: {answer}");
            assert!(text(&answer).contains(why), "{more}: {answer}");
            let allow = "to let it through:\n[servers.fixture.tools.result]\nvalidate-output = \"warn\"";
            assert!(text(&answer).ends_with(allow), "{answer}");
            assert_eq!(answer["result"]["structuredContent"], Value::Null);
        }
        // Nothing of what is too long to be checked is passed on, whatever stands behind it.
        let long = call(&mut client, "result", r#","isError":true"#, 2 << 20).await;
        assert!(text(&long).contains("cannot be checked: it has more than 1048576 bytes"), "{long}");
        for more in [
            r#","structuredContent":{"n":7.0}"#,
            r#","structuredContent":{"n":"x"},"isError":true"#,
            r#","isError":true"#,
        ] {
            let answer = call(&mut client, "result", more, 300_000).await;
            assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(300_000));
        }
        // What promises nothing is passed on as it is, in pieces where it is long.
        let free = call(&mut client, "result-free", r#","structuredContent":[]"#, 2 << 20).await;
        assert_eq!(free["result"]["structuredContent"], json!([]));
        // What nobody could check is not run.
        let odd = call(&mut client, "result-odd", "", 0).await;
        assert!(
            text(&odd).contains("whose results cannot be checked: of the tool's `outputSchema`, `/$ref`"),
            "{odd}"
        );
        client
    });
    let expected: Vec<Vec<&str>> =
        CASES.iter().map(|(_, _, at)| vec![*at]).chain([vec![""], vec![], vec![], vec![]]).collect();
    assert_eq!(wrong(&book, "result"), expected);
    let first = &book.finished.iter().find(|record| record["call"]["target"] == "result").unwrap();
    assert_eq!(first["status"]["kind"], "failed");
    assert_eq!(first["violations"][0]["operation"], "answer with such a result");
    assert_eq!(book.status_of("result-odd"), "refused");
}

#[test]
fn without_a_word_a_result_that_does_not_fit_goes_on_as_it_is_and_the_record_says_so() {
    let book = session(&setup(""), |mut client| async move {
        for (more, _, _) in CASES {
            client.start_call(1, "result", json!({"more": more})).await;
            let line = client.raw().await.unwrap();
            let sent = format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"\"}}]{more}}}");
            assert!(line.contains(&sent), "{sent}: {line}");
        }
        let long = call(&mut client, "result", r#","structuredContent":{"n":7}"#, 2 << 20).await;
        assert_eq!(long["result"]["structuredContent"]["n"], 7);
        let fits = call(&mut client, "result", r#","structuredContent":{"n":7}"#, 0).await;
        assert_eq!(fits["result"]["structuredContent"]["n"], 7);
        let odd = call(&mut client, "result-odd", "", 0).await;
        assert_eq!(odd["result"]["isError"], Value::Null);
        client
    });
    let expected: Vec<Vec<&str>> =
        CASES.iter().map(|(_, _, at)| vec![*at]).chain([vec![""], vec![]]).collect();
    assert_eq!(wrong(&book, "result"), expected);
    assert_eq!(wrong(&book, "result-odd"), [[""]]);
    assert_eq!(book.status_of("result"), "completed");
    let first = &book.finished.iter().find(|record| record["call"]["target"] == "result").unwrap();
    assert_eq!(first["violations"][0]["operation"], "answer with such a result, passed on");
    assert_eq!(first["violations"][0]["rule"], "`type` of the tool's own `outputSchema`");
}

#[test]
fn a_result_is_not_looked_at_where_the_configuration_says_so() {
    let book = session(&setup("off"), |mut client| async move {
        let answer = call(&mut client, "result", r#","structuredContent":[]"#, 0).await;
        assert_eq!(answer["result"]["structuredContent"], json!([]));
        client
    });
    assert_eq!(wrong(&book, "result"), [Vec::<&str>::new()]);
}

/// Whether or not arguments are checked, and the list has been seen.
#[test]
fn a_call_whose_result_must_fit_waits_for_the_list() {
    let setup = Setup { validate: false, ..setup("refuse") };
    session(&setup, |mut client| async move {
        let answer = call(&mut client, "result", r#","structuredContent":[]"#, 0).await;
        assert!(text(&answer).contains("`/structuredContent` must be an object"), "{answer}");
        let unlisted = call(&mut client, "who", "", 0).await;
        assert!(text(&unlisted).contains("the server does not list the tool"), "{unlisted}");
        client
    });
}
