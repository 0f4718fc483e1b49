//! Who may call, over HTTP: tokens, those of an authorization server, roles. Never: looks inside.

use std::fs;

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use toolcell::access::fingerprint;
use toolcell::policy::tokens::to_hex;

use super::super::session::world::{Scratch, Setup, text};
use super::http::{Reply, Served, get, legacy_call};

const READER: &str = "token-of-the-reader";
const WRITER: &str = "token-of-the-writer";
const AUDIENCE: &str = "https://tools.example/mcp";

const ROLES: &str = r#"
env = ["TOOLS=who request read"]
[auth]
mode = "token"
JWT
[identities.reader]
roles = ["look"]
[identities.writer]
roles = ["look", "change"]
rates = [{ tools = "fixture/environment", calls = 1, per = "1h" }]
[roles.look]
allow = ["fixture/who", "fixture/request"]
[roles.change]
allow = ["fixture/*"]
"#;

pub(super) fn setup(jwt: &str) -> Setup {
    let entry = |id: &str, identity: &str, token: &str| {
        let salt = [7; 16];
        let hash = to_hex(&fingerprint(&salt, token.as_bytes()).unwrap());
        format!(
            "[[tokens]]\nid = \"{id}\"\nidentity = \"{identity}\"\nsalt = \"{}\"\nhash = \"{hash}\"\nexpires = 2100-01-01T00:00:00Z\n",
            to_hex(&salt)
        )
    };
    let tokens = entry("r", "reader", READER) + &entry("w", "writer", WRITER);
    Setup { config: ROLES.replace("JWT", jwt), tokens, ..Setup::default() }
}

pub(super) fn call(served: &Served, token: &str, tool: &str) -> Reply {
    let header = format!("Bearer {token}");
    served.modern_with(&[("authorization", &header)], &json!(1), "tools/call", json!({"name": tool}))
}

#[test]
fn each_token_is_somebodys_and_each_identity_calls_what_its_roles_allow() {
    let scratch = Scratch::new();
    let served = Served::start(&setup(""), &scratch, &[]);
    let reply = call(&served, READER, "request");
    let seen: Value = serde_json::from_str(text(&reply.json())).unwrap();
    let meta: Vec<&String> = seen["_meta"].as_object().unwrap().keys().collect();
    // Nothing of the token, or of the front's word, comes to the server.
    assert_eq!(
        meta,
        ["io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"]
    );

    let refused = call(&served, READER, "read");
    assert_eq!(refused.error(), (403, 403));
    assert!(
        refused.text().contains("identity `reader`") && refused.text().contains("allow = "),
        "{refused:?}"
    );
    assert_eq!(call(&served, WRITER, "environment").status, 200);
    assert_eq!(call(&served, WRITER, "environment").error(), (429, 429));
    let names = |token: &str| {
        let header = format!("Bearer {token}");
        let list =
            served.modern_with(&[("authorization", &header)], &json!(1), "tools/list", json!({})).json();
        let tools = list["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(READER), names(WRITER)),
        (vec!["who".into(), "request".into()], vec!["who".into(), "request".into(), "read".into()])
    );

    for token in ["unknown", "token-of-the-reade", "token-of-the-reader2"] {
        let reply = call(&served, token, "who");
        assert_eq!(reply.error(), (401, 401));
        assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let nothing = served.call(1, "who");
    assert_eq!((nothing.status, nothing.header("www-authenticate")), (401, Some("Bearer")));
    for wrong in [&["Bearer a b"][..], &["Bearer "], &["Bearer x", "Bearer x"]] {
        let headers: Vec<(&str, &str)> = wrong.iter().map(|value| ("authorization", *value)).collect();
        assert_eq!(
            served.modern_with(&headers, &json!(1), "tools/call", json!({"name": "who"})).status,
            400,
            "{wrong:?}"
        );
    }
    let basic = served.modern_with(
        &[("authorization", "Basic eDp5")],
        &json!(1),
        "tools/call",
        json!({"name": "who"}),
    );
    assert_eq!(basic.status, 401);

    // Who sends a request it does not say twice, and the front's word is the front's.
    for member in ["dev.toolcell/token", "dev.toolcell/front", "dev.toolcell/signature"] {
        let header = format!("Bearer {READER}");
        let params = json!({"name": "who", "_meta": {member: "x"}});
        let reply = served.modern_with(&[("authorization", &header)], &json!(1), "tools/call", params);
        assert_eq!(reply.status, 400, "{member}");
    }
    assert_eq!(get(served.address, "/healthz").status, 200);
    let book = served.stop(&scratch);
    let of =
        |identity: &str| book.finished.iter().filter(|record| record["call"]["identity"] == identity).count();
    assert!(of("reader") > 0 && of("writer") > 0);
}

#[test]
fn nothing_is_started_for_who_shows_no_token() {
    let scratch = Scratch::new();
    let served = Served::start(&setup(""), &scratch, &[]);
    let children = served.children();
    for headers in [&[][..], &[("authorization", "Bearer unknown")]] {
        assert_eq!(served.initialize(headers).error(), (401, 401));
    }
    assert_eq!(served.children(), children);
    let reader = format!("Bearer {READER}");
    let writer = format!("Bearer {WRITER}");
    let session = served.session(&[("authorization", &reader)]);
    assert_eq!(served.children().len(), children.len() + 1);
    let call = |token: &str, id: u64, tool: &str| {
        served.post(&[("authorization", token), ("mcp-session-id", &session)], &legacy_call(id, tool))
    };
    assert_eq!(call(&reader, 1, "who").status, 200);
    assert_eq!(call(&reader, 2, "read").error(), (403, 403));
    // To others the session does not exist.
    assert_eq!(call(&writer, 3, "who").status, 404);
    assert_eq!(served.legacy(&session, 4, "who").status, 401);

    // A token that is taken back is good for nothing at once.
    let tokens = scratch.0.join("tokens.toml");
    let kept = fs::read_to_string(&tokens).unwrap();
    let (_, rest) = kept.split_at(kept.rfind("[[tokens]]").unwrap());
    fs::write(&tokens, rest).unwrap();
    assert_eq!(call(&reader, 5, "who").status, 401);
    served.stop(&scratch);
}

/// Base64 without padding, of the URL's alphabet.
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().chain([0, 0].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// An authorization server's key.
pub(super) struct Issuer(Ed25519KeyPair);

impl Issuer {
    pub(super) fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(super) fn keys(&self) -> String {
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": encode(self.0.public_key().as_ref())}]})
            .to_string()
    }

    pub(super) fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": kid, "typ": "at+jwt"});
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        format!("{signed}.{}", encode(self.0.sign(signed.as_bytes()).as_ref()))
    }
}

pub(super) fn claims(sub: &str) -> Value {
    json!({"iss": "https://issuer.example", "aud": [AUDIENCE], "sub": sub, "exp": 4_000_000_000_u64})
}

#[test]
fn tokens_of_an_authorization_server_name_identities() {
    let scratch = Scratch::new();
    let issuer = Issuer::new();
    let keys = scratch.0.join("jwks.json");
    fs::write(&keys, issuer.keys()).unwrap();
    let jwt = format!(
        "[auth.jwt]\nissuer = \"https://issuer.example\"\naudience = \"{AUDIENCE}\"\njwks = \"{}\"",
        keys.display()
    );
    let served = Served::start(&setup(&jwt), &scratch, &[]);
    assert_eq!(call(&served, &issuer.token("one", &claims("reader")), "who").status, 200);
    assert_eq!(call(&served, &issuer.token("one", &claims("reader")), "read").status, 403);
    assert_eq!(call(&served, &issuer.token("one", &claims("writer")), "environment").status, 200);
    // toolcell's own tokens count beside them.
    assert_eq!(call(&served, READER, "who").status, 200);
    let metadata = "https://tools.example/.well-known/oauth-protected-resource/mcp";
    let mut other = claims("reader");
    other["aud"] = json!("https://other.example");
    let mut past = claims("reader");
    past["exp"] = json!(1_000_000_000);
    for token in [
        issuer.token("one", &claims("nobody")),
        issuer.token("two", &claims("reader")),
        issuer.token("one", &other),
        issuer.token("one", &past),
        Issuer::new().token("one", &claims("reader")),
    ] {
        let reply = call(&served, &token, "who");
        assert_eq!(reply.error(), (401, 401), "{token}");
        let expected = format!("Bearer error=\"invalid_token\", resource_metadata=\"{metadata}\"");
        assert_eq!(reply.header("www-authenticate"), Some(expected.as_str()));
    }
    let nothing = served.call(1, "who");
    let expected = format!("Bearer resource_metadata=\"{metadata}\"");
    assert_eq!((nothing.status, nothing.header("www-authenticate")), (401, Some(expected.as_str())));
    for path in ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"] {
        let document = get(served.address, path);
        assert_eq!((document.status, &document.json()["resource"]), (200, &json!(AUDIENCE)));
        assert_eq!(document.json()["authorization_servers"], json!(["https://issuer.example"]));
    }
    served.stop(&scratch);
}
