//! Clients of 2026-07-28: each request stands alone, and all share one child. Never: looks inside.

use serde_json::{Value, json};

use super::super::session::world::{Scratch, Setup, text};
use super::http::{Served, Stream, get, modern, request};

#[test]
fn an_answers_bytes_are_not_touched() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    for (id, written) in [(json!(7), "7"), (json!("a\"b"), "\"a\\\"b\"")] {
        let reply = served.modern(&id, "tools/call", json!({"name": "verbatim"}));
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(
            reply.text(),
            format!(
                "event: message\ndata: {{ \"result\":{{\"content\":[],\"odd\":1.0,\"z\":1e2,\"a\":\"\\u0061\"}} ,\"id\":{written},\"jsonrpc\":\"2.0\",\"extra\":[]}}\n\n"
            )
        );
    }
    // What the server sees is what was sent, but for the progress token, which has to be one of the front's.
    let params = json!({"name": "request", "x": 1.50, "_meta": {"progressToken": "mine", "own": [1e2]}});
    let reply = served.modern(&json!(1), "tools/call", params);
    let seen: Value = serde_json::from_str(text(&reply.json())).unwrap();
    assert_eq!((&seen["x"], &seen["_meta"]["own"]), (&json!(1.5), &json!([100.0])));
    assert!(
        seen["_meta"]["progressToken"].is_i64() && seen["_meta"].as_object().unwrap().len() == 4,
        "{seen}"
    );
    let pretty = "{\n \"jsonrpc\": \"2.0\",\r\n \"id\": 1, \"method\": \"tools/list\", \"params\": {\"_meta\": {\n\
        \"io.modelcontextprotocol/protocolVersion\": \"2026-07-28\", \"io.modelcontextprotocol/clientCapabilities\": {}}}\n}\n";
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    assert_eq!(served.post(&headers, pretty).status, 200);
    served.stop(&scratch);
}

#[test]
fn clients_with_the_same_ids_and_tokens_hear_their_own_alone() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup { jobs: 4, ..Setup::default() }, &scratch, &["--jobs", "4"]);
    let ask = |token: &str| {
        let params = json!({"name": "progress", "_meta": {"progressToken": token}});
        let (headers, body) = modern(&json!(1), "tools/call", params);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Stream::open(served.address, &request(served.address, "POST", "/mcp", &headers, &body))
    };
    let streams: Vec<(Stream, &str)> = ["same", "same", "other"].map(|token| (ask(token), token)).into();
    for (stream, token) in streams {
        let reply = stream.whole();
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        let events = reply.events();
        let methods: Vec<&str> = events.iter().filter_map(|event| event["method"].as_str()).collect();
        // The log message names no request, and comes to the one whose call it is of.
        assert_eq!(methods, ["notifications/progress", "notifications/message"], "{events:?}");
        assert_eq!(events[0]["params"]["progressToken"], token);
        assert_eq!((events.len(), &events[2]["id"]), (3, &json!(1)));
        assert!(!reply.text().contains("dev.toolcell/request"), "{reply:?}");
    }
    served.stop(&scratch);
}

#[test]
fn a_closed_stream_is_a_cancelled_request() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup { time: "60s", ..Setup::default() }, &scratch, &["--jobs", "1"]);
    let params = json!({"name": "silent"});
    let (headers, body) = modern(&json!(1), "tools/call", params);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let stream = Stream::open(served.address, &request(served.address, "POST", "/mcp", &headers, &body));
    let log = scratch.0.join("audit.jsonl");
    let running = || std::fs::read_to_string(&log).unwrap_or_default().contains("\"target\":\"silent\"");
    while !running() {
        std::thread::yield_now();
    }
    drop(stream);
    // There is one place, so this one is answered when the other is over.
    assert_eq!(served.call(2, "who").status, 200);
    let book = served.stop(&scratch);
    assert_eq!(book.status_of("silent"), "cancelled");
}

#[test]
fn codes_of_errors_have_their_statuses() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    let of = |method: &str, params: Value| served.modern(&json!(3), method, params).error();
    assert_eq!(of("unknown/method", json!({})), (404, -32601));
    assert_eq!(of("server/discover", json!({})), (404, -32601));
    assert_eq!(of("subscriptions/listen", json!({})), (404, -32601));
    for removed in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
    {
        assert_eq!(of(removed, json!({})), (404, -32601), "{removed}");
    }
    assert_eq!(of("tools/call", json!({"name": "nothing-of-this-name"})), (400, -32602));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let reply = served.post(&[("mcp-protocol-version", "2026-07-28")], note);
    assert_eq!((reply.status, reply.body.len()), (202, 0));
    served.stop(&scratch);
}

#[test]
fn what_a_child_had_not_answered_is_lost_and_not_sent_again() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup { time: "60s", ..Setup::default() }, &scratch, &[]);
    let [child] = served.children().try_into().unwrap();
    let (headers, body) = modern(&json!("mine"), "tools/call", json!({"name": "silent"}));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let stream = Stream::open(served.address, &request(served.address, "POST", "/mcp", &headers, &body));
    let log = scratch.0.join("audit.jsonl");
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"target\":\"silent\"") {
        std::thread::yield_now();
    }
    toolcell::sys::process::kill(child).unwrap();
    let reply = stream.whole();
    assert_eq!(reply.error(), (503, -32603));
    assert_eq!(reply.json()["id"], "mine");
    // The next request has another child, at the latest when the pause behind a start is over.
    let answered = std::iter::repeat_with(|| served.call(2, "who")).find(|reply| {
        assert!([200, 503].contains(&reply.status), "{reply:?}");
        reply.status == 200 || reply.header("retry-after").is_none()
    });
    assert_eq!(answered.unwrap().status, 200);
    assert_ne!(served.children(), [child]);
    assert_eq!(get(served.address, "/healthz").status, 200);
    let book = served.stop(&scratch);
    let silent = |record: &&Value| record["call"]["target"] == "silent";
    assert_eq!(book.started.iter().filter(silent).count(), 1);
}

#[test]
fn a_long_answer_passes_and_one_that_is_too_long_is_an_error() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup { output: "64MiB", time: "120s", ..Setup::default() }, &scratch, &[]);
    let huge = |name: &str, pieces: u64| {
        served.modern(&json!(9), "tools/call", json!({"name": name, "arguments": {"pieces": pieces}}))
    };
    let reply = huge("huge", 1_000_000);
    assert_eq!((reply.status, reply.json()["id"].clone()), (200, json!(9)));
    assert_eq!(text(&reply.json()).len(), 3_000_000);
    // TypeScript's servers write the id last, and so does this one.
    let reply = huge("huge", 4_300_000);
    assert_eq!(reply.json()["id"], 9);
    assert!(reply.text().contains("longer than toolcell passes on"), "{}", reply.text());
    assert_eq!(served.call(1, "who").status, 200);
    served.stop(&scratch);
}
