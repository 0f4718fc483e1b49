//! How a front starts, says whether it is well, and ends. Never: looks inside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use super::super::session::world::{Scratch, Setup, assert_closed_up};
use super::http::{Served, Stream, get, modern, request};

#[test]
fn a_signal_ends_it_in_order() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let scratch = Scratch::new();
        let mut served = Served::start(&Setup { time: "60s", ..Setup::default() }, &scratch, &[]);
        assert_closed_up(served.pid());
        let session = served.session(&[]);
        let headers = [("mcp-session-id", session.as_str())];
        let mut listening =
            Stream::open(served.address, &request(served.address, "GET", "/mcp", &headers, ""));
        listening.head();
        let children = served.children();
        assert_eq!(children.len(), 2);
        // A request in work, which the end has to wait for.
        let (headers, body) =
            modern(&json!(1), "tools/call", json!({"name": "huge", "arguments": {"pieces": 100_000}}));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let stream = Stream::open(served.address, &request(served.address, "POST", "/mcp", &headers, &body));
        let log = scratch.0.join("audit.jsonl");
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"target\":\"huge\"") {
            std::thread::yield_now();
        }
        served.signal(signal);
        assert_eq!(stream.whole().status, 200);
        while listening.event().is_some() {}
        assert!(served.ended().success());
        assert!(TcpStream::connect(served.address).is_err());
        assert!(children.into_iter().all(|child| !toolcell::sys::process::exists(child)));
    }
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let scratch = Scratch::new();
    let setup = Setup::default();
    let refused = |options: &[&str]| {
        let (status, said) = Served::of(&setup, &scratch, options).err().expect("it is refused");
        (status.code().unwrap(), said)
    };
    let (code, said) = refused(&["--http", "0.0.0.0:0"]);
    assert!(code == 120 && said.contains("there is no `[auth]`"), "{code} {said}");
    let (code, said) = refused(&["--http", "127.0.0.1:0", "--profile", "none-of-this-name"]);
    assert!(code == 2 && said.contains("--profile"), "{code} {said}");
    let (code, said) = refused(&["--http", "127.0.0.1:0", "--allow-host", "a:80"]);
    assert!(code == 2 && said.contains("without scheme and port"), "{code} {said}");
    let (code, said) = refused(&["--http", "127.0.0.1:0", "--allow-origin", "https://a/"]);
    assert!(code == 2 && said.contains("https://app.example"), "{code} {said}");
    let (code, said) = refused(&["--http", "127.0.0.1:0", "--sessions", "0"]);
    assert!(code == 2 && said.contains("from 1 to 10000"), "{code} {said}");
    let (code, said) = refused(&["--http", "127.0.0.1:0", "--memory", "much"]);
    assert!(code == 1 && said.contains("`much`") && said.contains("does not start"), "{code} {said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = refused(&["--http", &taken.local_addr().unwrap().to_string()]);
    assert!(code == 1 && said.contains("cannot listen on"), "{code} {said}");
}

#[test]
fn off_loopback_there_must_be_tokens_and_tls() {
    let scratch = Scratch::new();
    let auth =
        "[auth]\nmode = \"token\"\n[identities.a]\nroles = [\"r\"]\n[roles.r]\nallow = [\"fixture/*\"]\n";
    let setup = Setup { config: auth.to_owned(), ..Setup::default() };
    let refused = |setup: &Setup, options: &[&str]| {
        let (status, said) = Served::of(setup, &scratch, options).err().expect("it is refused");
        assert_eq!(status.code(), Some(120), "{said}");
        said
    };
    assert!(refused(&setup, &["--http", "0.0.0.0:0"]).contains("there is no TLS"));
    assert!(
        refused(&setup, &["--http", "0.0.0.0:0", "--behind-tls-proxy"]).contains("no name of it is allowed")
    );
    let signed = Setup { config: auth.replace("\"token\"", "\"signed\""), ..Setup::default() };
    assert!(refused(&signed, &["--http", "127.0.0.1:0"]).contains("cannot be served over HTTP"));
    let options = ["--http", "0.0.0.0:0", "--behind-tls-proxy", "--allow-host", "tools.example"];
    let served = Served::of(&setup, &scratch, &options).unwrap_or_else(|(_, said)| panic!("{said}"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    let (headers, body) = modern(&json!(1), "tools/list", json!({}));
    let with = |host: &'static str| {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = headers.chain([("host", host)]).collect();
        super::http::post(address, &all, &body).status
    };
    assert_eq!((with("tools.example"), with("127.0.0.1"), with("0.0.0.0")), (401, 403, 403));
    served.stop(&scratch);
}

#[test]
fn health_is_whether_somebody_answers() {
    let scratch = Scratch::new();
    let served = Served::start(&Setup::default(), &scratch, &[]);
    for path in ["/healthz", "/healthz?x=1"] {
        let reply = get(served.address, path);
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
    // It is answered to whoever asks, by whatever name.
    let asked = request(served.address, "GET", "/healthz", &[("host", "10.0.0.1")], "");
    assert_eq!(super::http::exchange(served.address, &asked).status, 200);
    served.stop(&scratch);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let scratch = Scratch::new();
    let served = Served::start(
        &Setup { output: "64MiB", time: "60s", ..Setup::default() },
        &scratch,
        &["--jobs", "2"],
    );
    let params = json!({"name": "huge", "arguments": {"pieces": 3_000_000}});
    let (headers, body) = modern(&json!(1), "tools/call", params);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let text = request(served.address, "POST", "/mcp", &headers, &body);
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        idle.push(stream);
    }
    for id in 0..3 {
        assert_eq!(served.call(id, "who").status, 200);
    }
    // They are there still, and get all of it.
    let mut first = [0; 12];
    idle[0].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(idle);
    served.stop(&scratch);
}
