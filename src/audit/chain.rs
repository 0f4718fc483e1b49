//! What ties each line of the log to the one before it: a number, and a hash of all lines so far.
//!
//! A line ends in `,"number":N,"chain":"HASH"}`, where HASH is the SHA-256 of the hash before it followed by the
//! SHA-256 of the line up to and without `,"chain":…`. Before the first line stand 32 zero bytes.
//!
//! Neighbours: `audit::log` seals lines with it, `audit::verify` recomputes them. Never: does I/O.

use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use crate::policy::tokens::{from_hex, to_hex};

/// Bytes of a SHA-256.
pub type Hash = [u8; 32];

/// What stands between a line's number and its hash.
const BEFORE_HASH: &[u8] = b",\"chain\":\"";
/// What stands before a line's number.
const BEFORE_NUMBER: &[u8] = b",\"number\":";
/// What ends a line.
const AFTER_HASH: &[u8] = b"\"}";
/// Bytes from the end of the number to the end of the line.
const TAIL: usize = BEFORE_HASH.len() + 64 + AFTER_HASH.len();

/// A place in the chain: how many records there are up to it, and the hash of them all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// The number of the last record; the first has 1.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// The place after a line with this digest.
    #[must_use]
    pub fn after(hash: &Hash, number: u64, digest: &Hash) -> Self {
        let mut whole = Sha256::new();
        whole.update(hash);
        whole.update(digest);
        Self { number, hash: whole.finalize().into() }
    }

    /// Adds a number and a hash to a line that is one JSON object and ends in a newline. `None`: it is no such line,
    /// or there are no numbers any more.
    #[must_use]
    pub fn seal(&self, mut line: Vec<u8>) -> Option<(Vec<u8>, Self)> {
        let body = line.strip_suffix(b"}\n").filter(|body| body.starts_with(b"{") && body.len() > 1)?.len();
        let number = self.number.checked_add(1)?;
        line.truncate(body);
        line.extend_from_slice(BEFORE_NUMBER);
        line.extend_from_slice(number.to_string().as_bytes());
        let link = Self::after(&self.hash, number, &digest(&line));
        line.extend_from_slice(BEFORE_HASH);
        line.extend_from_slice(to_hex(&link.hash).as_bytes());
        line.extend_from_slice(AFTER_HASH);
        line.push(b'\n');
        Some((line, link))
    }
}

/// The SHA-256 of bytes.
#[must_use]
pub(super) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// A line that has a number and a hash, whether they are right or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    /// What it says of itself.
    pub link: Link,
    /// The digest of what its hash covers.
    pub digest: Hash,
}

/// Reads the seal of a line without its newline. `None`: it has none, or is not whole.
#[must_use]
pub(super) fn sealed(line: &[u8]) -> Option<Sealed> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
    let hash = tail.strip_prefix(BEFORE_HASH)?.strip_suffix(AFTER_HASH)?;
    let hash = from_hex(std::str::from_utf8(hash).ok()?)?.try_into().ok()?;
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (front, number) = body.split_at_checked(body.len() - digits)?;
    if !front.ends_with(BEFORE_NUMBER) || number.first() == Some(&b'0') {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    // Half of a line may end in what looks like a seal, in the arguments of a call.
    serde_json::from_slice::<IgnoredAny>(line).ok()?;
    Some(Sealed { link: Link { number, hash }, digest: digest(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    #[test]
    fn a_seal_says_number_and_hash_and_can_be_recomputed() {
        let (first, link) = Link::default().seal(line(r#"{"a":1}"#)).unwrap();
        let text = String::from_utf8(first).unwrap();
        // sha256(32 zero bytes + sha256(`{"a":1,"number":1`)), as another program computes it.
        let hash = "50f1bcbb85357f170e149add743663f362d940bfe9507ed09ae4e84f584f92ba";
        assert_eq!(text, format!("{{\"a\":1,\"number\":1,\"chain\":\"{hash}\"}}\n"));
        let read = sealed(text.trim_end().as_bytes()).unwrap();
        assert_eq!(read.link, link);
        assert_eq!(Link::after(&[0; 32], 1, &read.digest), link);
        let (second, link) = link.seal(line(r#"{"a":2}"#)).unwrap();
        assert_eq!(sealed(second.trim_ascii_end()).unwrap().link, link);
        assert_eq!(link.number, 2);
    }

    #[test]
    fn only_whole_objects_can_be_sealed_and_only_whole_lines_have_a_seal() {
        for text in ["1", "[1]", "{}", "\"a\"", ""] {
            assert_eq!(Link::default().seal(line(text)), None, "{text}");
        }
        assert_eq!(Link { number: u64::MAX, hash: [0; 32] }.seal(line(r#"{"a":1}"#)), None);
        let (whole, _) = Link::default().seal(line(r#"{"a":1}"#)).unwrap();
        let whole = whole.trim_ascii_end();
        assert!(sealed(whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(sealed(&whole[..end]), None);
        }
        // In the middle of a line, what a client sent stands.
        let nested = [br#"{"event":"started","parameters":"#.as_slice(), whole].concat();
        assert_eq!(sealed(&nested), None);
        let text = String::from_utf8(whole.to_vec()).unwrap();
        assert_eq!(sealed(text.replace("\"number\":1", "\"number\":01").as_bytes()), None);
    }
}
