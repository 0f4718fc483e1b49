//! JSON Web Tokens of an authorization server (RFC 7519, RFC 9068): whether one was issued for this server, by whom, and to whom.
//!
//! What is refused without looking further: an algorithm that is not in the list (`none` and those with a shared key are
//! not), a key that is not for the algorithm, an issuer or audience that is not written exactly as in the configuration, and
//! claims of another type than theirs.
//!
//! Neighbours: [`super::jwks`] has the keys, [`super::auth`] asks. Never: believes a token which key or algorithm it wants
//! beyond picking one, fetches what a token names, or keeps a token.

use serde_json::{Map, Value, json};

use super::base64::{Form, decode};
use super::jwks::{Algorithm, Jwks, Notice, SourceError};
use crate::access::Now;
use crate::policy::config::access::jwt::Jwt as Rules;

/// How far an authorization server's clock may be from ours, in seconds.
const LEEWAY: f64 = 30.0;
/// The longest token.
const LONGEST: usize = 16 * 1024;

/// Reads tokens of one issuer.
#[derive(Debug)]
pub struct Jwt {
    rules: Rules,
    keys: Jwks,
}

impl Jwt {
    /// By the configuration. `notice` tells the operator what no client is told.
    ///
    /// # Errors
    /// The keys, or what proves who has them, cannot be read.
    pub fn new(rules: Rules, notice: impl Fn(&str) + 'static) -> Result<Self, SourceError> {
        let keys = Jwks::new(&rules, Notice(Box::new(notice)))?;
        Ok(Self { rules, keys })
    }

    /// Whose a token is. What is told when it is nobody's helps nobody to make one.
    pub(super) async fn identity(&self, token: &str, now: Now) -> Result<String, String> {
        if token.len() > LONGEST {
            return Err("the token is too long".to_owned());
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [head, claims, signature] = parts.as_slice() else { return Err(NO_TOKEN.to_owned()) };
        let no_token = || NO_TOKEN.to_owned();
        let header = object(head).ok_or_else(no_token)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        let kind = header.get("typ").map(|kind| kind.as_str().unwrap_or_default().to_ascii_lowercase());
        if kind.is_some_and(|kind| !["jwt", "at+jwt", "application/at+jwt"].contains(&kind.as_str())) {
            return Err("the token is of another type".to_owned());
        }
        if header.contains_key("crit") {
            return Err("the token needs what is not known here".to_owned());
        }
        let algorithm = text("alg").and_then(Algorithm::named);
        let algorithm = algorithm.ok_or_else(|| "the token's algorithm is not accepted".to_owned())?;
        let signed = token.get(..head.len() + 1 + claims.len()).unwrap_or_default();
        let signature = decode(signature.as_bytes(), Form::Url).ok_or_else(no_token)?;
        let kid = match header.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or_else(no_token)?),
        };
        let key = self.keys.key(kid, algorithm).await?;
        if !key.verifies(algorithm, signed.as_bytes(), &signature) {
            return Err("the token's signature is not right".to_owned());
        }
        self.claimed(&object(claims).ok_or_else(no_token)?, now.date.as_secs_f64())
    }

    fn claimed(&self, claims: &Map<String, Value>, now: f64) -> Result<String, String> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.rules.issuer.as_str()) {
            return Err("the token is of another issuer".to_owned());
        }
        let ours = |value: &Value| value.as_str() == Some(self.rules.audience.as_str());
        let for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !for_us {
            return Err("the token is for another audience".to_owned());
        }
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("the token's `{name}` is no time")),
        };
        match time("exp")? {
            Some(end) if now < end + LEEWAY => {}
            Some(_) => return Err("the token has expired".to_owned()),
            None => return Err("the token has no end".to_owned()),
        }
        if time("nbf")?.is_some_and(|start| now + LEEWAY < start) {
            return Err("the token is not good yet".to_owned());
        }
        let name = claims.get(&self.rules.claim).and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| format!("the token has no text as `{}`", self.rules.claim))
    }

    /// Where clients find who issues tokens for this server.
    pub(super) fn metadata_url(&self) -> String {
        let (start, path) = self.rules.resource();
        format!("{start}{METADATA}{}", path.trim_end_matches('/'))
    }

    /// The path of that.
    pub(super) fn metadata_path(&self) -> String {
        format!("{METADATA}{}", self.rules.resource().1.trim_end_matches('/'))
    }

    /// What they find there (RFC 9728).
    pub(super) fn metadata(&self) -> Vec<u8> {
        let document = json!({
            "resource": self.rules.audience,
            "authorization_servers": [self.rules.issuer],
            "bearer_methods_supported": ["header"],
        });
        document.to_string().into_bytes()
    }
}

const METADATA: &str = "/.well-known/oauth-protected-resource";
const NO_TOKEN: &str = "it is no token that can be read";

fn object(part: &str) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&decode(part.as_bytes(), Form::Url)?).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
#[path = "jwt/tests.rs"]
mod tests;
