//! A secret in a text: however the text comes in pieces, the same becomes of it, and the secret is not in it.
//!
//! An input's first bytes say how long the secret is, how large the pieces, and whether the text is JSON; then come the
//! secret and the text, in which 254 stands for the secret and 253 for it in hexadecimal. Never: knows how it is looked for.

use std::sync::Arc;

use toolcell::secrets::SHORTEST;
use toolcell::secrets::redact::{Forms, Stream};

const MARK: &[u8] = b"[redacted:s]";

/// Takes the secret out at once and in pieces, and compares.
pub fn check(data: &[u8]) {
    let [length, size, json, rest @ ..] = data else { return };
    let length = SHORTEST + usize::from(length % 24);
    if rest.len() < length {
        return;
    }
    let (secret, rest) = rest.split_at(length);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = Vec::new();
    for byte in rest {
        match byte {
            254 => text.extend_from_slice(secret),
            253 => text.extend_from_slice(hex.as_bytes()),
            byte => text.push(*byte),
        }
    }
    let forms = Arc::new(Forms::new([("s", secret)]));
    let stream = || if json % 2 == 0 { Stream::of_text(&forms) } else { Stream::of_line(&forms) };
    let (mut whole, mut known) = (Vec::new(), Vec::new());
    stream().push(&text, true, &mut whole, &mut known);
    let (mut out, mut hits, mut pieces) = (Vec::new(), Vec::new(), stream());
    for piece in text.chunks(usize::from(*size) + 1) {
        pieces.push(piece, false, &mut out, &mut hits);
    }
    pieces.push(&[], true, &mut out, &mut hits);
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole));
    assert_eq!(hits, known);
    assert!(!known.is_empty() || whole == text);
    // What stands in its place must not make a new one with its neighbours.
    if !secret.iter().any(|byte| MARK.contains(byte) || *byte == b'"') {
        assert!(!whole.windows(secret.len()).any(|window| window == secret));
    }
}
