//! Whose a token is, for a front that has to know before it starts anything.
//!
//! Neighbours: `front` asks it of each request, and [`super::gate`] decides behind it what the identity may. Never: keeps a
//! token, or tells which one was nearly right.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::known::Known;
use super::now::Now;
use super::secret::is_code;
use crate::policy::config::access::Access;
use crate::policy::tokens::{Secret, Token};

/// Those who may send requests, and what they show for it.
#[derive(Debug)]
pub struct Holders {
    names: BTreeSet<String>,
    known: RefCell<Known>,
}

impl Holders {
    /// Of a configuration and the tokens beside it.
    #[must_use]
    pub fn new(access: &Access, tokens: Vec<Token>) -> Self {
        Self { names: access.identities.keys().cloned().collect(), known: RefCell::new(Known::new(tokens)) }
    }

    /// The same, but tokens count as long as they are in their file, which is read again when it has changed.
    #[must_use]
    pub fn rereading(self, path: PathBuf, read: impl Fn() -> io::Result<String> + 'static) -> Self {
        self.known.borrow_mut().reread(path, read);
        self
    }

    /// Is there an identity of this name?
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Who has this token; nobody, if it is unknown, has expired, or was taken back. It is compared with all of them.
    ///
    /// # Errors
    /// When the file of tokens cannot be read. Then nobody is known.
    pub fn identity(&self, token: &[u8], now: Now) -> Result<Option<String>, String> {
        let mut known = self.known.borrow_mut();
        known
            .refresh(now.date)
            .map_err(|why| format!("toolcell cannot read its tokens, so it knows none: {why}"))?;
        let found = known.tokens.iter().fold(None, |found, known| match &known.secret {
            Secret::Hash { salt, hash } if is_code(salt, token, hash) => Some(known),
            Secret::Hash { .. } | Secret::Signing(_) => found,
        });
        let good = found.filter(|token| now.date.as_secs() < token.expires && self.knows(&token.identity));
        Ok(good.map(|token| token.identity.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::fingerprint;
    use super::*;
    use crate::policy::config::access::Identity;

    #[test]
    fn a_token_is_somebodys_while_it_is_good() {
        let token = |id: &str, identity: &str, text: &[u8], expires| Token {
            id: id.to_owned(),
            identity: identity.to_owned(),
            secret: Secret::Hash {
                salt: vec![1; 16].try_into().unwrap(),
                hash: fingerprint(&[1; 16], text).unwrap(),
            },
            expires,
        };
        let tokens =
            vec![token("a", "ci", b"one", 100), token("b", "gone", b"two", 100), token("c", "ci", b"old", 9)];
        let mut access = Access::default();
        access.identities.insert("ci".to_owned(), Identity::default());
        let holders = Holders::new(&access, tokens);
        let now = Now { date: Duration::from_secs(10), steady: Duration::ZERO };
        let of = |text: &[u8]| holders.identity(text, now).unwrap();
        assert_eq!(of(b"one"), Some("ci".to_owned()));
        assert_eq!((of(b"two"), of(b"old"), of(b""), of(b"on"), of(b"one ")), (None, None, None, None, None));
        assert!(holders.knows("ci") && !holders.knows("gone"));
    }
}
