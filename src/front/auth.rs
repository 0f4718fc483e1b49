//! Who sends a request: what its `Authorization` header shows, before anything is started for it.
//!
//! Neighbours: [`super::endpoint`] asks of every request, [`crate::access::Holders`] knows tokens, [`super::jwt`] reads
//! those of an authorization server. What the identity may is decided behind the front. Never: logs what was shown, or says
//! which part of it was nearly right.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::jwt::Jwt;
use crate::access::{Holders, Now};

/// How requests show who sends them.
#[derive(Debug)]
pub struct Auth {
    /// Who has which token.
    pub holders: Holders,
    /// The tokens of an authorization server, if there is one.
    pub jwt: Option<Jwt>,
}

/// Why nobody is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nothing was shown (401).
    Nothing,
    /// What was shown is no token of this form (400).
    Malformed(&'static str),
    /// It is not known, not for us, or not good now (401).
    Refused(String),
}

impl Auth {
    pub(super) async fn identify(&self, headers: &HeaderMap, now: Now) -> Result<String, Unknown> {
        let token = bearer(headers)?;
        match &self.jwt {
            Some(jwt) if token.bytes().filter(|byte| *byte == b'.').count() == 2 => {
                let name = jwt.identity(token, now).await.map_err(Unknown::Refused)?;
                if self.holders.knows(&name) {
                    Ok(name)
                } else {
                    Err(Unknown::Refused("the token is of nobody who is known here".to_owned()))
                }
            }
            _ => match self.holders.identity(token.as_bytes(), now) {
                Ok(Some(name)) => Ok(name),
                Ok(None) => Err(Unknown::Refused("the token is not known".to_owned())),
                Err(why) => Err(Unknown::Refused(why)),
            },
        }
    }
}

/// The token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Unknown> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = all.next() else { return Err(Unknown::Nothing) };
    if all.next().is_some() {
        return Err(Unknown::Malformed("the header `authorization` is there more than once"));
    }
    let text = first.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Unknown::Refused("the header `authorization` is not of the scheme Bearer".to_owned()));
    }
    let token = token.trim_matches(' ');
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(good) {
        return Err(Unknown::Malformed("the header `authorization` has no token of RFC 6750"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn one_header_with_one_token() {
        let read = |all: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in all {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(read(&["bearer  a.b-c_~+/="]), Ok("a.b-c_~+/=".to_owned()));
        assert_eq!(read(&[]), Err(Unknown::Nothing));
        assert!(matches!(read(&["Basic abc"]), Err(Unknown::Refused(_))));
        for wrong in
            [&["Bearer"][..], &["Bearer "], &["Bearer a b"], &["Bearer a,b"], &["Bearer a", "Bearer a"]]
        {
            assert!(matches!(read(wrong), Err(Unknown::Malformed(_))), "{wrong:?}");
        }
    }
}
