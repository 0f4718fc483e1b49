//! What a cell says at its doors: the greeting of a TLS client, and a question about a name. A greeting is one thing however it is
//! cut, and an answer repeats its question and fits.
//!
//! The first byte of an input says of which kind it is. Never: opens a socket.

use toolcell::network::dns::{self, Answer};
use toolcell::network::hello::{self, Seen};
use toolcell::policy::network::{Denied, Destination, is_name};

/// Reads one of them.
pub fn check(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    match kind % 3 {
        0 => greeting(bytes),
        1 => question(bytes),
        _ => destination(bytes),
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
