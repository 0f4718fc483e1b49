//! What a cell says at its doors: the greeting of a TLS client, a question about a name, a request where TLS ends. A greeting is one thing
//! however it is cut, an answer repeats its question and fits, and a request that passes is read alike when it is written anew.
//!
//! The first byte of an input says of which kind it is. Never: opens a socket.

use toolcell::network::dns::{self, Answer};
use toolcell::network::head::{self, Body, Framing, Head, Piece, Seen as Looked};
use toolcell::network::hello::{self, Seen};
use toolcell::policy::http::{OF_THE_DOOR, check_path};
use toolcell::policy::network::{Denied, Destination, is_name};

/// Reads one of them.
pub fn check(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    match kind % 5 {
        0 => greeting(bytes),
        1 => question(bytes),
        2 => destination(bytes),
        3 => request(bytes),
        _ => chunks(bytes),
    }
}

fn request(bytes: &[u8]) {
    let seen = head::look(bytes);
    // However it was cut, it is one thing. At each place would take seconds for a long one.
    for cut in (0..bytes.len()).step_by(bytes.len() / 128 + 1) {
        if head::look(&bytes[..cut]) == Looked::Part {
            assert_eq!(head::look_on(bytes, cut), seen, "at {cut}");
        }
    }
    let Looked::Whole(length) = seen else { return };
    let Ok(read) = head::judge(&bytes[..length]) else { return };
    assert!(check_path(read.path.as_bytes()).is_ok() && !read.method.is_empty());
    let query = read.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let mut again = format!("{} {}{query} HTTP/1.1\r\nHost: {}\r\n", read.method, read.path, read.host);
    for (name, value) in &read.headers {
        assert!(!OF_THE_DOOR.contains(&name.as_str()), "{name}");
        again.push_str(&format!("{name}: {value}\r\n"));
    }
    match read.body {
        Framing::Length(0) => {}
        Framing::Length(length) => again.push_str(&format!("Content-Length: {length}\r\n")),
        Framing::Chunked => again.push_str("Transfer-Encoding: chunked\r\n"),
    }
    again.push_str("\r\n");
    assert_eq!(head::look(again.as_bytes()), Looked::Whole(again.len()));
    assert_eq!(head::judge(again.as_bytes()), Ok(Head { close: false, expects: false, ..read }));
}

/// A body in chunks ends at the same place, or is refused, in whatever pieces it comes.
fn chunks(bytes: &[u8]) {
    let whole = body(bytes, bytes.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(body(bytes, step), whole, "in pieces of {step}");
    }
    if let Some((data, left)) = whole {
        assert!(data.len() + left < bytes.len(), "without an end");
    }
}

/// What was in it and how much is left behind it; nothing, if it is refused or not whole.
fn body(bytes: &[u8], step: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Body::new(Framing::Chunked);
    let (mut came, mut data, mut taken) = (Vec::new(), Vec::new(), 0);
    loop {
        match body.take(&mut came).ok()? {
            Piece::Data(piece) => data.extend(piece),
            Piece::End => return Some((data, bytes.len() - taken + came.len())),
            Piece::More => {
                let more = bytes.get(taken..).filter(|rest| !rest.is_empty())?;
                let more = &more[..step.min(more.len())];
                came.extend_from_slice(more);
                taken += more.len();
            }
        }
    }
}

fn greeting(bytes: &[u8]) {
    let whole = hello::look(bytes);
    // Read byte by byte, it is decided once, and stays so.
    let mut decided: Option<Seen> = None;
    for end in 0..=bytes.len() {
        let seen = hello::look(&bytes[..end]);
        match &decided {
            None if seen != Seen::Part => decided = Some(seen),
            // What is still missing when all that may be missing is there is too long.
            Some(first @ Seen::Hello(_)) => assert_eq!(&seen, first, "at {end}"),
            _ => {}
        }
    }
    if let Seen::Hello(found) = &whole {
        assert!(bytes.len() >= 9 + 38, "no greeting is so short");
        assert!(found.name.as_ref().is_none_or(|name| !name.is_empty() && name.len() < bytes.len()));
    }
    assert!(bytes.len() < hello::MOST || whole != Seen::Part, "waits without an end");
}

fn question(bytes: &[u8]) {
    let Some(question) = dns::question(bytes) else { return };
    let addresses = ["127.80.0.1".parse().unwrap(), "fd74::1".parse().unwrap()];
    for answer in [Answer::NoName, Answer::Failed, Answer::Addresses(&addresses)] {
        let said = question.answer(answer);
        assert_eq!(said[..2], bytes[..2], "another question's");
        assert!(said.len() <= bytes.len() + 28 && said[2] & 0x80 != 0);
        assert_eq!(dns::question(&said), None, "an answer is no question");
    }
    assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    // A name that could be one is made of the labels that were sent.
    if is_name(&question.name) {
        let labels: Vec<u8> = question
            .name
            .split('.')
            .flat_map(|label| {
                let length = u8::try_from(label.len()).unwrap();
                [vec![length], label.as_bytes().to_vec()].concat()
            })
            .collect();
        assert!(bytes[12..12 + labels.len()].eq_ignore_ascii_case(&labels));
    }
}

fn destination(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(destination) = text.parse::<Destination>() {
        assert_eq!(destination.to_string().parse(), Ok(destination));
    }
    if let Ok(denied) = text.parse::<Denied>() {
        assert_eq!(denied.to_string().parse(), Ok(denied));
    }
}
