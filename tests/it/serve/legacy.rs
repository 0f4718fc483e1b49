//! Clients before 2026-07-28: sessions, each with a child of its own. Never: looks inside.

use serde_json::json;

use super::super::session::world::{Scratch, Setup, text};
use super::http::{Served, Stream, exchange, legacy_call, request};

#[test]
fn a_session_begins_and_ends() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    let alone = served.children().len();
    let one = served.session(&[]);
    let two = served.session(&[]);
    assert!(one != two && one.len() == 64 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(served.children().len(), alone + 2);
    // Sessions may use the same ids.
    for session in [&one, &two] {
        let reply = served.legacy(session, 1, "who");
        assert_eq!((reply.status, text(&reply.json()).len()), (200, 16), "{reply:?}");
        // As servers of that era answer, also when it is there at once.
        assert_eq!((reply.header("content-type"), reply.events().len()), (Some("text/event-stream"), 1));
    }
    let delete = |session: &str| {
        exchange(
            served.address,
            &request(served.address, "DELETE", "/mcp", &[("mcp-session-id", session)], ""),
        )
    };
    assert_eq!(delete(&one).status, 204);
    assert_eq!((served.legacy(&one, 2, "who").status, delete(&one).status), (404, 404));
    assert_eq!(served.legacy(&two, 2, "who").status, 200);
    // A session is begun by a request that has none.
    assert_eq!(served.initialize(&[("mcp-session-id", two.as_str())]).status, 400);
    served.stop(&scratch);
}

#[test]
fn a_server_asks_its_client_on_the_stream_of_the_call() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    let session = served.session(&[]);
    let headers = [("mcp-session-id", session.as_str())];
    // The announcement of the handshake waits for a stream.
    let mut listening = Stream::open(served.address, &request(served.address, "GET", "/mcp", &headers, ""));
    assert_eq!(listening.head().header("content-type"), Some("text/event-stream"));
    assert_eq!(listening.event().unwrap()["method"], "notifications/tools/list_changed");
    let second = exchange(served.address, &request(served.address, "GET", "/mcp", &headers, ""));
    assert_eq!(second.status, 409);

    let call = request(served.address, "POST", "/mcp", &headers, &legacy_call(5, "ask-client"));
    let mut stream = Stream::open(served.address, &call);
    assert_eq!(stream.head().header("content-type"), Some("text/event-stream"));
    let asked = stream.event().unwrap();
    assert_eq!(asked["method"], "sampling/createMessage");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"said": "hello"}});
    assert_eq!(served.post(&headers, &answer.to_string()).status, 202);
    let answer = stream.event().unwrap();
    assert!(answer["id"] == 5 && text(&answer).contains("hello"), "{answer}");
    assert_eq!(stream.event(), None);

    // The end of the session is the end of its streams.
    exchange(served.address, &request(served.address, "DELETE", "/mcp", &headers, ""));
    assert_eq!(listening.event(), None);
    served.stop(&scratch);
}

#[test]
fn errors_are_answers_and_a_request_goes_on_without_its_client() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup { time: "60s", ..Setup::default() }, &scratch, &[]);
    let session = served.session(&[]);
    let reply = served.legacy(&session, 1, "nothing-of-this-name");
    assert_eq!(reply.error(), (200, -32602));
    let headers = [("mcp-session-id", session.as_str())];
    let call = request(served.address, "POST", "/mcp", &headers, &legacy_call(2, "silent"));
    let stream = Stream::open(served.address, &call);
    let log = scratch.0.join("audit.jsonl");
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"target\":\"silent\"") {
        std::thread::yield_now();
    }
    assert_eq!(served.legacy(&session, 2, "who").status, 400, "its id is taken");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    assert_eq!(served.post(&headers, cancel).status, 202);
    assert_eq!(served.legacy(&session, 3, "who").status, 200);
    // It was cancelled, so there is no answer, and an end of the stream.
    let reply = stream.whole();
    assert_eq!(
        (reply.status, reply.header("content-type"), reply.text()),
        (200, Some("text/event-stream"), "")
    );
    // What the end of a session leaves without an answer gets an error.
    let call = request(served.address, "POST", "/mcp", &headers, &legacy_call(4, "silent"));
    let stream = Stream::open(served.address, &call);
    while std::fs::read_to_string(&log).unwrap().matches("\"target\":\"silent\"").count() < 3 {
        std::thread::yield_now();
    }
    exchange(served.address, &request(served.address, "DELETE", "/mcp", &headers, ""));
    assert_eq!(stream.whole().error(), (200, -32603));
    let book = served.stop(&scratch);
    let first = book.finished.iter().find(|record| record["call"]["target"] == "silent").unwrap();
    assert_eq!(first["status"]["kind"], "cancelled");
}

#[test]
fn sessions_are_bounded_and_end_when_they_are_idle() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &["--sessions", "1", "--session-idle", "1s"]);
    let session = served.session(&[]);
    let more = served.initialize(&[]);
    assert_eq!((more.status, more.header("retry-after").is_some()), (503, true));
    assert_eq!(served.legacy(&session, 1, "who").status, 200);
    // Its place is free when it has been idle.
    let mut place = served.initialize(&[]);
    while place.status != 200 {
        assert_eq!(place.status, 503);
        place = served.initialize(&[]);
    }
    assert_eq!(served.legacy(&session, 2, "who").status, 404);
    served.stop(&scratch);
}
