//! Tokens made by the tests, with keys made by the tests.

use std::path::PathBuf;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::policy::config::access::jwt::Keys;

const NOW: Now = Now { date: Duration::from_secs(1_800_000_000), steady: Duration::ZERO };

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

struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    path: PathBuf,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

impl Issuer {
    fn new(name: &str) -> (Self, Jwt) {
        let random = SystemRandom::new();
        let ed =
            Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
        let point = ec.public_key().as_ref();
        let keys = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "secret", "use": "enc", "x": encode(ed.public_key().as_ref())},
            {"kty": "oct", "kid": "shared", "k": encode(b"key")},
        ]});
        let path = std::env::temp_dir().join(format!("toolcell-jwks-{}-{name}", std::process::id()));
        std::fs::write(&path, keys.to_string()).unwrap();
        let rules = Rules {
            issuer: "https://issuer.example".to_owned(),
            audience: "https://tools.example/mcp".to_owned(),
            keys: Keys::File(path.clone()),
            ca: None,
            claim: "sub".to_owned(),
        };
        (Self { ed, ec, path }, Jwt::new(rules, |_| ()).unwrap())
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = match header["alg"].as_str() {
            Some("ES256") => self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "https://tools.example/mcp", "sub": "ci", "exp": 1_800_000_100})
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn identity(jwt: &Jwt, token: &str) -> Result<String, String> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(jwt.identity(token, NOW))
}

#[test]
fn a_token_that_was_issued_for_this_server_names_its_identity() {
    let (issuer, jwt) = Issuer::new("good");
    for header in [
        json!({"alg": "EdDSA", "kid": "ed"}),
        json!({"alg": "ES256", "kid": "ec", "typ": "at+jwt"}),
        json!({"alg": "ES256", "typ": "JWT"}),
    ] {
        assert_eq!(identity(&jwt, &issuer.token(&header, &claims())), Ok("ci".to_owned()), "{header}");
    }
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    for good in [
        with(claims(), "aud", json!(["https://other.example", "https://tools.example/mcp"])),
        // Clocks may differ by half a minute.
        with(claims(), "exp", json!(1_799_999_971)),
        with(claims(), "nbf", json!(1_800_000_030)),
    ] {
        assert!(identity(&jwt, &issuer.token(&header, &good)).is_ok(), "{good}");
    }
}

#[test]
fn every_other_token_is_refused() {
    let (issuer, jwt) = Issuer::new("bad");
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    for bad in [
        with(claims(), "iss", json!("https://issuer.example/")),
        with(claims(), "iss", Value::Null),
        with(claims(), "aud", json!("https://tools.example/mcp/")),
        with(claims(), "aud", json!("https://tools.example")),
        with(claims(), "aud", json!([])),
        with(claims(), "aud", json!(["https://tools.example/mcp", 7])),
        with(claims(), "aud", Value::Null),
        with(claims(), "exp", json!(1_799_999_970)),
        with(claims(), "exp", json!("1800000100")),
        with(claims(), "exp", Value::Null),
        with(claims(), "nbf", json!(1_800_000_031)),
        with(claims(), "nbf", json!("0")),
        with(claims(), "sub", json!(7)),
    ] {
        assert!(identity(&jwt, &issuer.token(&header, &bad)).is_err(), "{bad}");
    }
    for bad in [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "kid": "shared"}),
        json!({"alg": "ES256", "kid": "ed"}),
        json!({"alg": "EdDSA", "kid": "ec"}),
        json!({"alg": "EdDSA", "kid": "secret"}),
        json!({"alg": "EdDSA", "kid": "unknown"}),
        json!({"alg": "EdDSA", "kid": 7}),
        json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"]}),
        json!({"alg": "EdDSA", "kid": "ed", "typ": "secevent+jwt"}),
        json!({"kid": "ed"}),
    ] {
        assert!(identity(&jwt, &issuer.token(&bad, &claims())).is_err(), "{bad}");
    }
    let good = issuer.token(&header, &claims());
    let forged = with(claims(), "sub", json!("root"));
    let (head, _) = good.split_once('.').unwrap();
    let (_, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}.{signature}", encode(forged.to_string().as_bytes()));
    for bad in [forged.as_str(), &format!("{good}A"), &good.replace('.', ".."), "a.b.c", "..", &good[1..]] {
        assert!(identity(&jwt, bad).is_err(), "{bad}");
    }
    let other = Issuer::new("other").0;
    assert!(identity(&jwt, &other.token(&header, &claims())).is_err());
}

#[test]
fn keys_count_as_long_as_they_are_in_the_file() {
    let (issuer, jwt) = Issuer::new("changed");
    let token = issuer.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims());
    assert!(identity(&jwt, &token).is_ok());
    std::fs::write(&issuer.path, r#"{"keys": []}"#).unwrap();
    assert!(identity(&jwt, &token).is_err());
    std::fs::remove_file(&issuer.path).unwrap();
    assert!(identity(&jwt, &token).is_err());
}

#[test]
fn clients_are_told_where_tokens_come_from() {
    let (_issuer, jwt) = Issuer::new("metadata");
    assert_eq!(jwt.metadata_url(), "https://tools.example/.well-known/oauth-protected-resource/mcp");
    assert_eq!(jwt.metadata_path(), "/.well-known/oauth-protected-resource/mcp");
    let document: Value = serde_json::from_slice(&jwt.metadata()).unwrap();
    assert_eq!(document["resource"], "https://tools.example/mcp");
    assert_eq!(document["authorization_servers"], json!(["https://issuer.example"]));
}
