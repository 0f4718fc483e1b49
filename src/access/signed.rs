//! The signature of a request: how it is read, and what it is over.
//!
//! Neighbours: `access::request` finds it, `access::gate` verifies it, `access::canonical` makes the text. Never: says in
//! an error what the right signature would be.

use std::ops::Range;
use std::time::Duration;

use super::canonical::{canonical, quoted};
use super::request::{META, SIGNATURE_MEMBER};
use crate::mcp::envelope::only;
use crate::mcp::object::{self, Member};
use crate::policy::tokens::{HASH, from_hex};

/// What a key is derived for, so that a token signs nothing else.
pub(super) const KEY_PURPOSE: &[u8] = b"toolcell signing key 1";

/// What a request brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// The id of an entry of `tokens.toml`.
    pub(super) key: String,
    /// Whole seconds after 1970.
    pub(super) timestamp: u64,
    /// What no other request of the key has.
    pub(super) nonce: String,
    pub(super) code: [u8; HASH],
}

impl Proof {
    /// Reads the member's value.
    ///
    /// # Errors
    /// It is not written exactly as described.
    pub(super) fn read(line: &[u8], span: &Range<usize>) -> Result<Self, String> {
        if line.get(span.start) != Some(&b'{') {
            return Err(format!("`{SIGNATURE_MEMBER}` is not an object"));
        }
        let members = object::members(line, span.clone());
        let names = ["key", "timestamp", "nonce", "signature"];
        if let Some(other) = members.iter().find(|member| !names.contains(&&*member.name)) {
            return Err(format!("`{SIGNATURE_MEMBER}` has a member `{}`", other.name));
        }
        let value = |name: &str| -> Result<&[u8], String> {
            let member = only(&members, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
            Ok(raw(line, member))
        };
        let text = |name: &str| -> Result<String, String> {
            let text = object::text(value(name)?).ok_or_else(|| format!("`{name}` is not a string"))?;
            Ok(text.into_owned())
        };
        let nonce = text("nonce")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(16..=64).contains(&nonce.len()) || !nonce.bytes().all(plain) {
            return Err("`nonce` is not 16 to 64 letters, digits, `-` and `_`".to_owned());
        }
        let code = from_hex(&text("signature")?).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            key: text("key")?,
            timestamp: seconds(value("timestamp")?)
                .ok_or("`timestamp` is not a whole number of seconds after 1970")?,
            nonce,
            code: code.ok_or("`signature` is not 64 lower-case hexadecimal digits")?,
        })
    }

    /// How far the clocks are apart, if that is more than the window.
    pub(super) fn outside(&self, window: Duration, date: Duration) -> Option<Duration> {
        let apart = Duration::from_secs(self.timestamp).abs_diff(date);
        (apart > window).then_some(apart)
    }
}

fn raw<'l>(line: &'l [u8], member: &Member<'_>) -> &'l [u8] {
    line.get(member.value.clone()).unwrap_or_default()
}

/// Digits only, so that there is one way to write a number.
fn seconds(raw: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|seconds| *seconds < 1 << 53)
}

/// What the signature of a request is over: all of it but its id and `_meta`.
///
/// # Errors
/// It could be read in two ways, or has something beside that would not be signed.
pub(super) fn signed_text(line: &[u8], server: &str, method: &str, proof: &Proof) -> Result<String, String> {
    let envelope = object::members(line, 0..line.len());
    let known = ["jsonrpc", "id", "method", "params"];
    if let Some(other) = envelope.iter().find(|member| !known.contains(&&*member.name)) {
        return Err(format!("`{}` beside `params` would not be signed", other.name));
    }
    let params = match only(&envelope, "params")?.map(|member| raw(line, member)) {
        None => "{}".to_owned(),
        Some(raw) if raw.first() == Some(&b'{') => canonical(raw, META)?,
        Some(_) => return Err("`params` is not an object".to_owned()),
    };
    let Proof { key, timestamp, nonce, .. } = proof;
    let (key, method, nonce, server) = (quoted(key), quoted(method), quoted(nonce), quoted(server));
    Ok(format!(
        r#"{{"key":{key},"method":{method},"nonce":{nonce},"params":{params},"server":{server},"timestamp":{timestamp}}}"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"{"key":"k","timestamp":1800000000,"nonce":"0123456789abcdef","signature":"SIG"}"#;

    fn read(text: &str) -> Result<Proof, String> {
        let text = text.replace("SIG", &"0f".repeat(32));
        Proof::read(text.as_bytes(), &(0..text.len()))
    }

    #[test]
    fn a_proof_is_written_in_one_way() {
        let proof = read(RIGHT).unwrap();
        assert_eq!((&*proof.key, proof.timestamp, &*proof.nonce), ("k", 1_800_000_000, "0123456789abcdef"));
        assert_eq!(proof.code, [15; HASH]);
        for (part, other) in [
            ("\"key\":\"k\",", ""),
            ("\"key\":\"k\",", "\"key\":\"k\",\"key\":\"k\","),
            ("\"key\":\"k\",", "\"key\":\"k\",\"Key\":\"k\","),
            ("\"key\":\"k\",", "\"key\":\"k\",\"more\":1,"),
            ("\"k\"", "7"),
            ("1800000000", "\"1800000000\""),
            ("1800000000", "1800000000.0"),
            ("1800000000", "18e8"),
            ("1800000000", "-1"),
            ("1800000000", "9007199254740992"),
            ("0123456789abcdef", "0123456789abcde"),
            ("0123456789abcdef", "0123456789abcde "),
            ("0123456789abcdef", "0123456789abcde\\n"),
            ("0123456789abcdef", "0123456789abcdé"),
            ("0123456789abcdef", "0123456789abcde!"),
            ("SIG", "SIg"),
            ("SIG", ""),
            ("SIG", "SIG00"),
        ] {
            assert!(RIGHT.contains(part) && read(&RIGHT.replace(part, other)).is_err(), "{part} {other}");
        }
        for length in [64, 65] {
            let text = RIGHT.replace("0123456789abcdef", &"a".repeat(length));
            assert_eq!(read(&text).is_ok(), length == 64);
        }
        for text in ["7", "null", "[]", "\"x\""] {
            assert_eq!(read(text).unwrap_err(), "`dev.toolcell/signature` is not an object");
        }
    }

    #[test]
    fn all_of_a_request_is_signed_but_its_id_and_meta() {
        let proof = read(RIGHT).unwrap();
        let text = |line: &str| signed_text(line.as_bytes(), "s", "tools/call", &proof);
        let around = |params: &str| {
            format!(
                r#"{{"key":"k","method":"tools/call","nonce":"0123456789abcdef","params":{params},"server":"s","timestamp":1800000000}}"#
            )
        };
        assert_eq!(
            text(r#"{"id":1,"params":{"name":"b","_meta":{"x":1},"arguments":{"b":1.0,"a":[]}}}"#).unwrap(),
            around(r#"{"arguments":{"a":[],"b":1},"name":"b"}"#)
        );
        assert_eq!(text(r#"{"id":2}"#).unwrap(), around("{}"));
        for line in [r#"{"params":[]}"#, r#"{"params":null}"#, r#"{"params":{"a":1,"a":2}}"#, r#"{"more":1}"#]
        {
            assert!(text(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_window_has_both_its_edges() {
        let proof = read(RIGHT).unwrap();
        let (window, at) = (Duration::from_secs(300), Duration::from_secs(1_800_000_000));
        let bit = Duration::from_nanos(1);
        for (date, outside) in [
            (at + window, None),
            (at - window, None),
            (at + window + bit, Some(window + bit)),
            (at - window - bit, Some(window + bit)),
        ] {
            assert_eq!(proof.outside(window, date), outside);
        }
    }
}
