//! Signed requests as an attacker and as a client meet them; time, keys and nonces are values.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::*;
use crate::access::secret::{fingerprint, signing_key};
use crate::mcp::envelope::parse;
use crate::policy::tokens::to_hex;
use crate::policy::{Source, config};

const CONFIG: &str = r#"
[servers.git]
command = ["git-server"]
[servers.files]
command = ["files-server"]
[auth]
mode = "signed"
[identities.alice]
roles = ["all"]
[identities.bob]
roles = []
[roles.all]
allow = ["*/*"]
"#;

const NOON: u64 = 1_800_000_000;
const NONCE: &str = "0123456789abcdef";
const PARAMS: &str = r#""name":"git_log","arguments":{"b":[1.50,"\u0061"],"a":null}"#;
const CANONICAL: &str = r#"{"arguments":{"a":null,"b":[1.5,"a"]},"name":"git_log"}"#;

/// A gate with nonces of its own, which are gone with it.
struct World(Gate, PathBuf);

impl World {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("toolcell-signed-{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let owner = fs::metadata(&directory).unwrap().uid();
        let window = Duration::from_secs(300);
        let nonces =
            Nonces::open(&directory.join("nonces"), owner, window, Duration::from_secs(NOON)).unwrap();
        Self(gate("git").remembering(nonces), directory)
    }

    fn ask(&self, line: &str, seconds: u64) -> Result<Admitted, Denied> {
        ask(&self.0, line, seconds)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.1));
    }
}

fn gate(server: &str) -> Gate {
    let source = Source { name: "c".to_owned(), path: Some("/c.toml".into()), text: CONFIG.to_owned() };
    let config = config::parse(&source, &[].into()).unwrap_or_else(|error| panic!("{error}"));
    let entry = |id: &str, identity: &str, secret| Token {
        id: id.to_owned(),
        identity: identity.to_owned(),
        secret,
        expires: NOON + 1000,
    };
    let signs = |id: &str, identity: &str, token: &str| {
        entry(id, identity, Secret::Signing(signing_key(token.as_bytes()).unwrap()))
    };
    let hash = Secret::Hash { salt: [7; 16], hash: fingerprint(&[7; 16], b"token-h").unwrap() };
    let tokens = vec![
        signs("a", "alice", "token-a"),
        signs("b", "bob", "token-b"),
        signs("g", "gone", "token-g"),
        entry("h", "alice", hash),
    ];
    // The token of the environment counts for nothing.
    Gate::new(server, &config.access, tokens, Some(b"token-h")).unwrap()
}

fn ask(gate: &Gate, line: &str, seconds: u64) -> Result<Admitted, Denied> {
    let message = parse(line.as_bytes()).unwrap();
    let crate::mcp::envelope::Kind::Request { method, .. } = &message.kind else { panic!("{line}") };
    let now = Now { date: Duration::from_secs(seconds), steady: Duration::ZERO };
    gate.admit(line.as_bytes(), &message, method, now)
}

fn code(token: &str, text: &str) -> String {
    to_hex(&fingerprint(&signing_key(token.as_bytes()).unwrap().0, text.as_bytes()).unwrap())
}

/// A call that is signed right.
fn call(key: &str, token: &str, nonce: &str) -> String {
    let text = format!(
        r#"{{"key":"{key}","method":"tools/call","nonce":"{nonce}","params":{CANONICAL},"server":"git","timestamp":{NOON}}}"#
    );
    let code = code(token, &text);
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{PARAMS},"_meta":{{"own":1,"dev.toolcell/signature":{{"key":"{key}","timestamp":{NOON},"nonce":"{nonce}","signature":"{code}"}}}}}}}}"#
    )
}

fn why(result: Result<Admitted, Denied>) -> (Reason, String) {
    let denied = result.expect_err("it is let in");
    (denied.reason, denied.why)
}

const UNKNOWN: &str = "its key is not known, or its signature is not that of the key and the request";

/// Computed by Python's `hmac`.
#[test]
fn the_code_is_the_one_that_others_compute() {
    let text = r#"{"key":"k","method":"ping","nonce":"0123456789abcdef","params":{},"server":"s","timestamp":1800000000}"#;
    assert_eq!(code("toolcell_00", text), "006f869593f9f532396bfe67a479e2a27e727b578fd5915dba5d395573664d5d");
}

#[test]
fn what_is_signed_is_let_in_once_and_goes_on_without_its_proof() {
    let world = World::new("once");
    let line = call("a", "token-a", NONCE);
    let admitted = world.ask(&line, NOON).unwrap();
    assert_eq!(&*admitted.identity, "alice");
    assert_eq!(
        String::from_utf8(admitted.line.unwrap()).unwrap(),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{PARAMS},"_meta":{{"own":1}}}}}}"#
        )
    );
    let again =
        (Reason::Unauthenticated, "its nonce was here before: each request needs one of its own".to_owned());
    assert_eq!(why(world.ask(&line, NOON)), again);
    assert_eq!(why(world.ask(&line.replace("\"id\":1", "\"id\":2"), NOON + 300)), again);
    assert!(world.ask(&call("a", "token-a", "fedcba9876543210"), NOON).is_ok());
}

#[test]
fn a_request_that_is_refused_for_its_roles_has_used_its_nonce() {
    let world = World::new("roles");
    let line = call("b", "token-b", NONCE);
    let denied = world.ask(&line, NOON).unwrap_err();
    assert_eq!((denied.reason, denied.identity.as_deref()), (Reason::Forbidden, Some("bob")));
    assert_eq!(why(world.ask(&line, NOON)).0, Reason::Unauthenticated);
}

#[test]
fn whatever_is_changed_the_signature_is_wrong() {
    let world = World::new("changed");
    let line = call("a", "token-a", NONCE);
    for (part, other) in [
        ("tools/call", "prompts/get"),
        ("git_log", "git_push"),
        ("1.50", "1.51"),
        ("\\u0061", "b"),
        ("\"a\":null", "\"a\":false"),
        ("\"a\":null", "\"a\":null,\"c\":1"),
        (",\"a\":null", ""),
        ("\"name\":", "\"cursor\":\"c\",\"name\":"),
        ("\"timestamp\":1800000000", "\"timestamp\":1800000001"),
        ("0123456789abcdef\",\"sig", "0123456789abcdeg\",\"sig"),
        ("\"key\":\"a\"", "\"key\":\"b\""),
        ("\"key\":\"a\"", "\"key\":\"x\""),
        ("\"key\":\"a\"", "\"key\":\"h\""),
    ] {
        assert!(line.contains(part), "{part}");
        let denied = world.ask(&line.replace(part, other), NOON).unwrap_err();
        assert_eq!((denied.reason, &*denied.why), (Reason::Unauthenticated, UNKNOWN), "{part} {other}");
        assert_eq!(denied.identity, None);
    }
    // The same line for another server.
    assert_eq!(why(ask(&gate("files"), &line, NOON)), (Reason::Unauthenticated, UNKNOWN.to_owned()));
    for (key, token) in [("a", "token-b"), ("a", ""), ("g", "token-g"), ("h", "token-h"), ("x", "token-a")] {
        let told = why(world.ask(&call(key, token, NONCE), NOON));
        assert_eq!(told, (Reason::Unauthenticated, UNKNOWN.to_owned()), "{key} {token}");
    }
    // What means the same may be written otherwise, and a wrong signature has taken no nonce.
    let spelled = line.replace("1.50", "15e-1").replace("\\u0061", "a").replace("{\"own\":1", "{ \"own\": 2");
    assert!(spelled != line && world.ask(&spelled, NOON).is_ok());
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_not_looked_at_further() {
    let world = World::new("malformed");
    let line = call("a", "token-a", NONCE);
    for (part, other) in [
        ("\"a\":null", "\"a\":null,\"a\":null"),
        ("\"id\":1", "\"id\":1,\"more\":1"),
        ("1.50", "9007199254740993"),
        ("\"own\":1", "\"dev.toolcell/signature\":{}"),
        ("\"own\":1", "\"dev.Toolcell/signature\":{}"),
        ("\"key\":\"a\"", "\"key\":\"a\",\"key\":\"b\""),
    ] {
        assert!(line.contains(part), "{part}");
        assert_eq!(why(world.ask(&line.replace(part, other), NOON)).0, Reason::Malformed, "{part} {other}");
    }
    assert!(world.ask(&line, NOON).is_ok());
}

#[test]
fn a_signature_is_good_for_the_window_on_both_sides() {
    let world = World::new("window");
    let line = call("a", "token-a", NONCE);
    let apart = |side: &str| {
        let why = format!("its timestamp is 301 seconds {side} toolcell's clock, and `window` is 5m");
        (Reason::Unauthenticated, why)
    };
    assert_eq!(why(world.ask(&line, NOON + 301)), apart("behind"));
    assert_eq!(why(world.ask(&line, NOON - 301)), apart("ahead of"));
    // Who only guesses does not learn what the clock says.
    assert_eq!(why(world.ask(&line.replace("git_log", "git_push"), NOON + 301)).1, UNKNOWN);
    assert!(world.ask(&line, NOON - 300).is_ok());
    assert!(world.ask(&call("a", "token-a", "fedcba9876543210"), NOON + 300).is_ok());
    assert_eq!(why(world.ask(&line, NOON + 1000)).1, "its key `a` has expired");
}

#[test]
fn nothing_else_opens() {
    let world = World::new("else");
    for meta in
        ["", r#","_meta":{"dev.toolcell/token":"token-a"}"#, r#","_meta":{"dev.toolcell/token":"token-h"}"#]
    {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{PARAMS}{meta}}}}}"#);
        let told = "it is not signed: it has no `dev.toolcell/signature` in `_meta`".to_owned();
        assert_eq!(why(world.ask(&line, NOON)), (Reason::Unauthenticated, told), "{meta}");
    }
    assert_eq!(
        why(world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, NOON)).0,
        Reason::Unauthenticated
    );
    // Without a place for nonces nothing goes on.
    let told = why(ask(&gate("git"), &call("a", "token-a", NONCE), NOON)).1;
    assert_eq!(told, "toolcell keeps no nonces here");
}

#[test]
fn under_tokens_an_entry_that_signs_is_none() {
    let text = CONFIG.replace("\"signed\"", "\"token\"");
    let source = Source { name: "c".to_owned(), path: Some("/c.toml".into()), text };
    let access = config::parse(&source, &[].into()).unwrap().access;
    let secret = Secret::Signing(signing_key(b"token-a").unwrap());
    let token = Token { id: "a".to_owned(), identity: "alice".to_owned(), secret, expires: NOON + 1000 };
    let gate = Gate::new("git", &access, vec![token], Some(b"token-a")).unwrap();
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(why(ask(&gate, line, NOON)), (Reason::Unauthenticated, "its token is not known".to_owned()));
    assert_eq!(why(ask(&gate, &call("a", "token-a", NONCE), NOON)).0, Reason::Unauthenticated);
}
