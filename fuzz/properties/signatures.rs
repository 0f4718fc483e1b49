//! A request before `mode = "signed"`: whatever it is, it is let in only if its signature is that of the key over what it says,
//! as another reader of the line finds it, and only within the window.
//!
//! Never: knows a clock, or keeps a nonce: what is right in all else is refused for that alone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use toolcell::access::{Gate, Now, SIGNATURE_MEMBER, canonical, fingerprint, signing_key};
use toolcell::mcp::envelope::{self, Kind};
use toolcell::policy::config::access::{Access, Identity, Mode, Role};
use toolcell::policy::pattern::Pattern;
use toolcell::policy::tokens::{Secret, Token, from_hex};

const TOKEN: &[u8] = b"toolcell_a token for tests";
const SERVER: &str = "tiny";
/// When the seeds were signed.
const DATE: u64 = 1_800_000_000;
const WINDOW: Duration = Duration::from_secs(300);

fn gate() -> Gate {
    let identity = Identity { roles: vec!["all".to_owned()], ..Identity::default() };
    let role = Role { allow: Pattern::parse("tiny/*").into_iter().collect(), ..Role::default() };
    let access = Access {
        mode: Mode::Signed,
        window: Some(WINDOW),
        jwt: None,
        identities: BTreeMap::from([("alice".to_owned(), identity)]),
        roles: BTreeMap::from([("all".to_owned(), role)]),
    };
    let secret = Secret::Signing(signing_key(TOKEN).unwrap());
    let token = Token { id: "k".to_owned(), identity: "alice".to_owned(), secret, expires: DATE + 1000 };
    Gate::new(SERVER, &access, vec![token], None).unwrap()
}

/// Sends one line to the gate.
pub fn check(data: &[u8]) {
    if is_right(data) == Some(true) {
        assert!(signed(data), "{}", String::from_utf8_lossy(data));
    }
}

/// Whether a line is a request whose signature the gate takes for right. `None`: it is no request.
#[must_use]
pub fn is_right(line: &[u8]) -> Option<bool> {
    let message = envelope::parse(line).ok()?;
    let Kind::Request { method, .. } = &message.kind else { return None };
    let now = Now { date: Duration::from_secs(DATE), steady: Duration::ZERO };
    let denied = gate().admit(line, &message, method, now).unwrap_err();
    assert!(!denied.why.is_empty(), "{denied}");
    Some(denied.why == "toolcell keeps no nonces here")
}

/// The same by values.
fn signed(line: &[u8]) -> bool {
    let Ok(Value::Object(request)) = serde_json::from_slice(line) else { return false };
    let mut params = request.get("params").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    let Some(Value::Object(meta)) = params.shift_remove("_meta") else { return false };
    let Some(Value::Object(mut proof)) = meta.get(SIGNATURE_MEMBER).cloned() else { return false };
    let Some(code) = proof.shift_remove("signature") else { return false };
    let timestamp = proof.get("timestamp").and_then(Value::as_u64).unwrap_or_default();
    if proof.len() != 3
        || proof.get("key") != Some(&json!("k"))
        || timestamp.abs_diff(DATE) > WINDOW.as_secs()
    {
        return false;
    }
    proof.insert("method".to_owned(), request["method"].clone());
    proof.insert("params".to_owned(), Value::Object(params));
    proof.insert("server".to_owned(), json!(SERVER));
    let text = canonical(Value::Object(proof).to_string().as_bytes()).unwrap();
    let right = fingerprint(&signing_key(TOKEN).unwrap().0, text.as_bytes()).unwrap();
    code.as_str().and_then(from_hex).is_some_and(|code| code == right)
}
