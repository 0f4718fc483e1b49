//! What gets no further than the front, and with which status. Never: a good request, but for comparison.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::session::world::{Scratch, Setup};
use super::http::{Served, exchange, get, modern, request, with_region};

/// A modern request that is good.
fn good() -> (Vec<(&'static str, String)>, String) {
    modern(&json!(1), "tools/call", json!({"name": "who"}))
}

/// Its tools reach the front, and nobody asks them who they are.
#[test]
fn who_answers_whoever_asks_has_no_tool_in_the_hosts_network() {
    let scratch = Scratch::outside_of_scratch();
    let setup = Setup { filesystem: "[network]\nmode = \"host\"\n".to_owned(), ..Setup::default() };
    let (status, said) = Served::of(&setup, &scratch, &["--http", "127.0.0.1:0"]).err().unwrap();
    let told = "has `mode = \"host\"`, and `serve` answers without asking who it is: its tools could call all others";
    assert!(!status.success() && said.contains(told), "{said}");
}

#[test]
fn each_fault_has_its_status() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &["--allow-origin", "https://app.example"]);
    let (headers, body) = good();
    let with = |more: &[(&str, &str)], body: &str| {
        let named = |name: &str| more.iter().any(|(known, _)| *known == name);
        let usual =
            headers.iter().filter(|(name, _)| !named(name)).map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = usual.chain(more.iter().copied()).collect();
        served.post(&all, body)
    };
    assert_eq!(with(&[], &body).status, 200);

    let large = format!("{body}{}", " ".repeat(4 * 1024 * 1024));
    let own = format!("http://{}", served.address);
    type Fault<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let statuses: &[Fault<'_>] = &[
        ("no JSON", &[], "{", 400),
        ("no message", &[], "[]", 400),
        ("twice", &[], r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400),
        ("no UTF-8", &[], "\u{fffd}{", 400),
        (
            "no session",
            &[("mcp-protocol-version", "2025-11-25")],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            400,
        ),
        (
            "an unknown session",
            &[("mcp-protocol-version", ""), ("mcp-session-id", "00")],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            404,
        ),
        ("an answer", &[], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 400),
        ("another host", &[("host", "evil.example")], &body, 403),
        ("another host's origin", &[("origin", "http://evil.example")], &body, 403),
        ("no origin", &[("origin", "null")], &body, 403),
        ("its own origin", &[("origin", &own)], &body, 200),
        ("an allowed origin", &[("origin", "https://app.example")], &body, 200),
        ("another type", &[("content-type", "text/plain")], &body, 415),
        ("no type", &[("content-type", "")], &body, 415),
        ("a type with a parameter", &[("content-type", "application/json; charset=utf-8")], &body, 200),
        ("JSON alone", &[("accept", "application/json")], &body, 406),
        ("events alone", &[("accept", "text/event-stream")], &body, 406),
        ("neither", &[("accept", "")], &body, 406),
        ("anything", &[("accept", "*/*")], &body, 200),
        ("too much", &[], &large, 413),
        ("headers without end", &[("x-more", &"x".repeat(100_000))], &body, 431),
        (
            "who sends, in the body",
            &[],
            &body.replace("\"_meta\":{", "\"_meta\":{\"dev.toolcell/token\":\"x\","),
            400,
        ),
    ];
    for (name, more, body, status) in statuses {
        let reply = with(more, body);
        assert_eq!(reply.status, *status, "{name}: {reply:?}");
        assert_eq!(reply.header("cache-control").is_some(), *status != 431, "{name}: {reply:?}");
    }

    for (name, more, code) in [
        ("another version", ("mcp-protocol-version", "2025-11-25"), -32020),
        ("no version", ("mcp-protocol-version", ""), -32020),
        ("another method", ("mcp-method", "tools/list"), -32020),
        ("no method", ("mcp-method", ""), -32020),
        ("another name", ("mcp-name", "Who"), -32020),
        ("no name", ("mcp-name", ""), -32020),
        ("no Base64", ("mcp-name", "=?base64?d2hv!?="), -32020),
    ] {
        let reply = with(&[more], &body);
        assert_eq!(reply.error(), (400, code), "{name}: {reply:?}");
        assert_eq!(reply.json()["id"], 1, "{name}");
    }
    assert_eq!(with(&[("mcp-name", "=?base64?d2hv?=")], &body).status, 200);
    for missing in ["protocolVersion", "clientCapabilities"] {
        let reply = with(&[], &body.replace(missing, "other"));
        assert_eq!(reply.error(), (400, -32602), "{missing}: {reply:?}");
    }
    served.stop(&scratch);
}

#[test]
fn a_head_or_body_that_does_not_come_is_not_waited_for() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    let begun = Instant::now();
    // Both at once, because each takes as long as it may.
    let (address, (headers, body)) = (served.address, good());
    let late_body = std::thread::spawn(move || {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let whole = request(address, "POST", "/mcp", &headers, &body);
        exchange(address, &whole[..whole.len() - 1])
    });
    let mut head = TcpStream::connect(address).unwrap();
    head.write_all(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n").unwrap();
    head.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut said = String::new();
    head.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    assert!(
        (Duration::from_secs(14)..Duration::from_secs(28)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(late_body.join().unwrap().status, 408);
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    assert_eq!(served.call(1, "who").status, 200);
    served.stop(&scratch);
}

#[test]
fn a_head_has_a_bound_in_bytes_and_in_lines() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    let (headers, body) = good();
    let with = |more: &[(&str, &str)]| {
        let usual = headers.iter().map(|(name, value)| (*name, value.as_str()));
        served.post(&usual.chain(more.iter().copied()).collect::<Vec<_>>(), &body).status
    };
    for (bytes, status) in [(24 * 1024, 200), (40 * 1024, 431)] {
        assert_eq!(with(&[("x-more", &"x".repeat(bytes))]), status, "{bytes}");
    }
    let names: Vec<String> = (0..70).map(|number| format!("x-{number}")).collect();
    let lines = |count: usize| names.iter().take(count).map(|name| (name.as_str(), "1")).collect::<Vec<_>>();
    assert_eq!((with(&lines(40)), with(&lines(70))), (200, 431));
    served.stop(&scratch);
}

#[test]
fn each_place_takes_its_methods() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &["--allow-origin", "https://app.example"]);
    let status = |method: &str, path: &str, headers: &[(&str, &str)]| {
        exchange(served.address, &request(served.address, method, path, headers, "")).status
    };
    for (method, path, expected) in [
        ("PUT", "/mcp", 405),
        ("PATCH", "/mcp", 405),
        // Modern clients have no session, and so no stream by GET.
        ("GET", "/mcp", 405),
        ("DELETE", "/mcp", 405),
        ("POST", "/healthz", 405),
        ("POST", "/", 404),
        ("POST", "/mcp/", 404),
        ("GET", "/.well-known/oauth-protected-resource", 404),
    ] {
        assert_eq!(status(method, path, &[]), expected, "{method} {path}");
    }
    assert_eq!(status("GET", "/mcp", &[("mcp-session-id", "00")]), 404);
    assert_eq!(status("DELETE", "/mcp", &[("mcp-session-id", "00")]), 404);
    assert_eq!(status("GET", "/mcp", &[("mcp-session-id", "00"), ("accept", "application/json")]), 406);
    assert_eq!(get(served.address, "/healthz").status, 200);

    let asked = request(served.address, "OPTIONS", "/mcp", &[("origin", "https://app.example")], "");
    let asked = exchange(served.address, &asked);
    assert_eq!(
        (asked.status, asked.header("access-control-allow-origin")),
        (204, Some("https://app.example"))
    );
    assert_eq!(status("OPTIONS", "/mcp", &[("origin", "https://evil.example")]), 403);

    // What is no HTTP at all, and one without a host.
    assert_eq!(exchange(served.address, "GARBAGE\r\n\r\n").status, 400);
    assert_eq!(exchange(served.address, "GET /mcp HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(
        exchange(served.address, "GET /mcp HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n").status,
        400
    );
    assert_eq!(
        exchange(served.address, "GET http://evil.example/mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").status,
        403
    );
    // A body that is framed in two ways.
    let framed = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc";
    assert_eq!(exchange(served.address, framed).status, 400);
    served.stop(&scratch);
}

#[test]
fn an_argument_that_its_tool_wants_in_a_header_is_there() {
    let scratch = Scratch::new();
    let setup = with_region();
    let served = Served::start(&setup, &scratch, &[]);
    let params = json!({"name": "request", "arguments": {"region": "Hello"}});
    let call = |more: &[(&str, &str)]| served.modern_with(more, &json!(1), "tools/call", params.clone());
    assert_eq!(call(&[("mcp-param-region", "Hello")]).status, 200);
    assert_eq!(call(&[("mcp-param-region", "=?base64?SGVsbG8=?=")]).status, 200);
    for wrong in ["hello", "=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?="] {
        assert_eq!(call(&[("mcp-param-region", wrong)]).error(), (400, -32020), "{wrong}");
    }
    assert_eq!(call(&[]).error(), (400, -32020));
    // What no tool wants is nobody's.
    assert_eq!(call(&[("mcp-param-region", "Hello"), ("mcp-param-other", "x")]).status, 200);
    served.stop(&scratch);
}
