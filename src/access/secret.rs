//! Hashes of tokens and codes of requests, and their comparison in constant time.
//!
//! A token is 256 random bits, so its hash needs no slow function: what makes a password's hash guessable is that there
//! are few likely passwords. The salt is there so that one token in two files is not seen to be one.
//!
//! Neighbours: `access::gate` compares, `commands::token` makes them. Never: stops early at a difference.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::signed::KEY_PURPOSE;
use crate::policy::tokens::{HASH, SigningKey};

fn keyed(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes a key of any length; the error is one of the interface alone.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

/// HMAC-SHA256 of a token, keyed with a salt.
#[must_use]
pub fn fingerprint(salt: &[u8], token: &[u8]) -> Option<[u8; HASH]> {
    Some(keyed(salt, token)?.finalize().into_bytes().into())
}

/// The key that the holder of a token signs requests with.
#[must_use]
pub fn signing_key(token: &[u8]) -> Option<SigningKey> {
    fingerprint(token, KEY_PURPOSE).map(SigningKey)
}

/// Is `code` the HMAC-SHA256 of the message? The time taken does not depend on where they differ.
pub(super) fn is_code(key: &[u8], message: &[u8], code: &[u8]) -> bool {
    keyed(key, message).is_some_and(|mac| mac.verify_slice(code).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tokens::to_hex;

    /// RFC 4231, cases 1, 2 and 6.
    #[test]
    fn codes_are_those_of_the_standard() {
        let long = [0xaa; 131];
        for (key, message, code) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &long,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            let found = fingerprint(key, message).unwrap();
            assert_eq!(to_hex(&found), code);
            assert!(is_code(key, message, &found));
            assert!(
                !is_code(key, message, &found[..31])
                    && !is_code(key, message, &[])
                    && !is_code(key, b"", &found)
            );
        }
    }
}
