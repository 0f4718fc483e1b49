//! Requests that two programs could read in two ways, and those that they cannot.

use proptest::prelude::*;

use super::*;

fn request(lines: &[&str]) -> Vec<u8> {
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n"].concat()
}

fn judged(lines: &[&str]) -> Result<Head, Fault> {
    let bytes = request(lines);
    match look(&bytes) {
        Seen::Whole(length) if length == bytes.len() => judge(&bytes),
        Seen::Odd(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_read_without_what_is_about_the_connection() {
    let head = judged(&[
        "POST /v1/a%20b?x=1&y=%2f HTTP/1.1",
        "Host: A.example",
        "User-Agent: curl/8",
        "Connection: keep-alive, TE",
        "TE: trailers",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic eA==",
        "Content-Length: 5",
        "Expect: 100-Continue",
        "X-Empty:",
        "accept:\t*/* ",
    ])
    .unwrap();
    let headers = [("user-agent", "curl/8"), ("x-empty", ""), ("accept", "*/*")];
    assert_eq!(head.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(
        (head.method.as_str(), head.path.as_str(), head.query.as_deref()),
        ("POST", "/v1/a%20b", Some("x=1&y=%2f"))
    );
    assert_eq!((head.body, head.close, head.expects), (Framing::Length(5), false, true));
    assert!(names(&head.host, "a.example", 80));
    let chunked =
        judged(&["PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked", "Connection: close"]).unwrap();
    assert_eq!((chunked.body, chunked.close), (Framing::Chunked, true));
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let host = "Host: a.example";
    for (status, lines) in [
        (400, &["GET / HTTP/1.1", host, "Content-Length: 1", "Transfer-Encoding: chunked"][..]),
        (400, &["GET / HTTP/1.1", host, "Transfer-Encoding: chunked", "Content-Length: 1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: 1", "Content-Length: 1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: 1, 1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: +1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: -1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: 0x1"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length:"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length: 99999999999999999999"]),
        (400, &["GET / HTTP/1.1", host, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        (501, &["GET / HTTP/1.1", host, "Transfer-Encoding: gzip, chunked"]),
        (501, &["GET / HTTP/1.1", host, "Transfer-Encoding: chunked, identity"]),
        (501, &["GET / HTTP/1.1", host, "Transfer-Encoding: xchunked"]),
        (400, &["GET / HTTP/1.1", host, "Transfer-Encoding : chunked"]),
        (400, &["GET / HTTP/1.1", host, "Transfer_Encoding: chunked"]),
        (400, &["GET / HTTP/1.1", host, "Content-Length\t: 1"]),
        (400, &["GET / HTTP/1.1", host, "X-A: b", " folded"]),
        (400, &["GET / HTTP/1.1", host, "X-A: b", "\tfolded"]),
        (400, &["GET / HTTP/1.1", " Host: a.example"]),
        (400, &["GET / HTTP/1.1", host, "no colon"]),
        (400, &["GET / HTTP/1.1", host, ": nameless"]),
        (400, &["GET / HTTP/1.1", host, "X-A: b\rX-C: d"]),
        (400, &["GET / HTTP/1.1", host, "X-A: b\nX-C: d"]),
        (400, &["GET / HTTP/1.1\nHost: a.example"]),
        (400, &["GET / HTTP/1.1", host, "X-A: \0"]),
        (400, &["GET / HTTP/1.1", host, "X-A: \u{e9}"]),
        (400, &["GET / HTTP/1.1", host, host]),
        (400, &["GET / HTTP/1.1", "X-A: b"]),
        (400, &["GET http://a.example/ HTTP/1.1", host]),
        (400, &["GET //b.example/ HTTP/1.1", host]),
        (400, &["OPTIONS * HTTP/1.1", host]),
        (405, &["CONNECT b.example:443 HTTP/1.1", host]),
        (400, &["GET / HTTP/1.1", host, "Upgrade: websocket"]),
        (400, &["GET / HTTP/1.1", host, "Connection: Upgrade"]),
        (400, &["GET / HTTP/1.1", host, "Connection: close, authorization"]),
        (400, &["GET / HTTP/1.1", host, "Trailer: X-A"]),
        (417, &["GET / HTTP/1.1", host, "Expect: more"]),
        (400, &["GET / HTTP/1.1", host, "X-HTTP-Method-Override: DELETE"]),
        (400, &["GET / HTTP/1.1", host, "X-Original-URL: /admin"]),
        (400, &["GET / HTTP/1.1", host, "X-Forwarded-Host: b.example"]),
        (400, &["GET / HTTP/1.1", host, "Forwarded: host=b.example"]),
        (400, &["PUT / HTTP/1.1", host, "x-goog-copy-source: other/private"]),
        (400, &["PUT / HTTP/1.1", host, "x-ms-rename-source: /private"]),
        (400, &["MOVE / HTTP/1.1", host, "Destination: /private"]),
        (400, &["ANYTHING-THAT-IS-LONGER-THAN-ANY-METHOD / HTTP/1.1", host]),
        (505, &["GET / HTTP/1.0", host]),
        (505, &["GET / HTTP/2.0", host]),
        (505, &["GET / http/1.1", host]),
        (400, &["get / HTTP/1.1", host]),
        (400, &["GET  / HTTP/1.1", host]),
        (400, &["GET / HTTP/1.1 ", host]),
        (400, &["GET /", host]),
        (400, &["GET /a/../b HTTP/1.1", host]),
        (400, &["GET /%2e%2e/b HTTP/1.1", host]),
        (400, &["GET /a;b HTTP/1.1", host]),
        (400, &["GET /a#b HTTP/1.1", host]),
        (400, &["GET /a?b#c HTTP/1.1", host]),
        (400, &["GET /a?%zz HTTP/1.1", host]),
        (400, &["", "GET / HTTP/1.1", host]),
    ] {
        assert_eq!(judged(lines).map_err(|fault| fault.status), Err(status), "{lines:?}");
    }
    let many = [vec!["GET / HTTP/1.1", host], vec!["X-A: b"; MOST_HEADERS]].concat();
    assert_eq!(judged(&many).unwrap_err().status, 431);
    assert!(matches!(look(&vec![b'a'; MOST]), Seen::Odd(Fault { status: 431, .. })));
    assert!(matches!(look(b"\x16\x03\x01"), Seen::Odd(Fault { status: 400, .. })));
    assert!(matches!(look(b"GET / HTTP/1.1\n"), Seen::Odd(_)) && look(b"GET / HTTP/1.1\r") == Seen::Part);
}

#[test]
fn a_host_is_named_with_its_port_in_the_cell_or_without() {
    for (said, right) in [
        ("a.example", true),
        ("A.Example", true),
        ("a.example:80", true),
        ("a.example:443", false),
        ("a.example:080", false),
        ("a.example:", false),
        ("a.example.", false),
        ("b.example", false),
        ("u@a.example", false),
        ("a.example, b.example", false),
        ("", false),
    ] {
        assert_eq!(names(said, "a.example", 80), right, "{said}");
    }
}

/// All of a body, and what is left behind it.
fn read(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let mut body = Body::new(framing);
    let (mut came, mut data) = (Vec::new(), Vec::new());
    let mut rest = bytes.chunks(step.max(1));
    loop {
        match body.take(&mut came)? {
            Piece::Data(piece) => data.extend(piece),
            Piece::End => {
                rest.for_each(|more| came.extend(more));
                return Ok((data, came));
            }
            Piece::More => match rest.next() {
                Some(more) => came.extend(more),
                None => return Err(bad("cut")),
            },
        }
    }
}

#[test]
fn a_body_ends_where_its_framing_says_however_it_arrives() {
    for step in 1..12 {
        let next = b"GET /".to_vec();
        let length = read(Framing::Length(5), b"helloGET /", step).unwrap();
        assert_eq!(length, (b"hello".to_vec(), next.clone()));
        let chunked = read(Framing::Chunked, b"2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\nGET /", step).unwrap();
        assert_eq!(chunked, (b"hello".to_vec(), next.clone()));
        assert_eq!(read(Framing::Length(0), b"GET /", step).unwrap(), (vec![], next));
        for wrong in [
            "2;a=b\r\nhe\r\n0\r\n\r\n",
            "2\nhe\r\n0\r\n\r\n",
            "2\r\nhe\n0\r\n\r\n",
            "2\r\nhex\r\n0\r\n\r\n",
            "+2\r\nhe\r\n0\r\n\r\n",
            "0x2\r\nhe\r\n0\r\n\r\n",
            " 2\r\nhe\r\n0\r\n\r\n",
            "2 \r\nhe\r\n0\r\n\r\n",
            "\r\n",
            "000000000000000002\r\nhe\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "2\r\nhe\r\n0\r\nX-A: b\r\n\r\n",
            "2\r\nhe\r\n0\r\n\n",
            "2\r\nhe\r\n",
            "g\r\n",
        ] {
            assert!(read(Framing::Chunked, wrong.as_bytes(), step).is_err(), "{wrong:?}");
        }
    }
}

proptest! {
    /// Whatever is let through, written anew and read again, is the same request; and nothing panics.
    #[test]
    fn what_passes_is_read_alike_when_it_is_written_anew(
        target in "/[a-z./%2Ff;?=]{0,12}",
        headers in prop::collection::vec(("[A-Za-z_-]{1,12}|Host|Content-Length|Transfer-Encoding|Connection", "[ -~]{0,12}|chunked|[0-9]{1,3}"), 0..6),
        ends in prop::sample::select(vec!["\r\n", "\n", "\r\n "]),
    ) {
        let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: a.example{ends}").into_bytes();
        for (name, value) in &headers {
            bytes.extend(format!("{name}: {value}{ends}").bytes());
        }
        bytes.extend(b"\r\n");
        if let Seen::Whole(length) = look(&bytes)
            && let Ok(head) = judge(&bytes[..length])
        {
            let query = head.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
            let mut again = vec![format!("{} {}{query} HTTP/1.1", head.method, head.path), format!("Host: {}", head.host)];
            again.extend(head.headers.iter().map(|(name, value)| format!("{name}: {value}")));
            match head.body {
                Framing::Length(0) => {}
                Framing::Length(length) => again.push(format!("Content-Length: {length}")),
                Framing::Chunked => again.push("Transfer-Encoding: chunked".to_owned()),
            }
            let lines: Vec<&str> = again.iter().map(String::as_str).collect();
            prop_assert_eq!(judged(&lines), Ok(Head { close: false, expects: false, ..head }));
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..9) {
        if let Seen::Whole(length) = look(&bytes) {
            let _either = judge(&bytes[..length]).is_ok();
        }
        let _either = read(Framing::Chunked, &bytes, step).is_ok();
    }
}
