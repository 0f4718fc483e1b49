//! The word of a front: who sent a request, said so that nobody but the front can say it.
//!
//! A front makes a key when it starts a process and hands it over in that process's environment. With each request it
//! names who sent it, and the HMAC of the name under that key, in a member of `_meta` that never leaves the process.
//!
//! Neighbours: [`super::gate`] reads a word, `front` writes it. Never: sees a token.

use super::secret::{fingerprint, is_code};
use crate::policy::tokens::{from_hex, to_hex};

/// What a front that knows `key` writes for a request of `identity`.
#[must_use]
pub fn word(key: &[u8], identity: &str) -> Option<String> {
    Some(format!("{} {identity}", to_hex(&fingerprint(key, identity.as_bytes())?)))
}

/// Of whom a word speaks, if it is the front's.
pub(super) fn read<'w>(key: &[u8], word: &'w str) -> Option<&'w str> {
    let (code, identity) = word.split_once(' ')?;
    is_code(key, identity.as_bytes(), &from_hex(code)?).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_key_has_the_word() {
        let said = word(b"key", "a b").unwrap();
        assert_eq!(read(b"key", &said), Some("a b"));
        assert_eq!(read(b"other", &said), None);
        for wrong in
            ["", " ", "a b", &said.replace("a b", "a c"), &said[1..], &said[..60], &said.replace(' ', "")]
        {
            assert_eq!(read(b"key", wrong), None, "{wrong}");
        }
    }
}
