//! Base64 (RFC 4648), in its strict form: one text for each value, and no other.
//!
//! Neighbours: [`super::mirror`] reads header values with it, [`super::jwt`] tokens and keys. Never: skips a character.

/// Which alphabet, and whether the end is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `+` and `/`, padded.
    Standard,
    /// `-` and `_`, without padding.
    Url,
}

/// The bytes of a text.
pub(super) fn decode(text: &[u8], form: Form) -> Option<Vec<u8>> {
    let text = match form {
        Form::Url => text,
        Form::Standard if !text.len().is_multiple_of(4) => return None,
        Form::Standard => {
            let padded = text.strip_suffix(b"=").map_or(text, |less| less.strip_suffix(b"=").unwrap_or(less));
            if padded.len() % 4 == 1 || text.len() - padded.len() != (4 - padded.len() % 4) % 4 {
                return None;
            }
            padded
        }
    };
    let value = |byte: u8| match (byte, form) {
        (b'A'..=b'Z', _) => Some(byte - b'A'),
        (b'a'..=b'z', _) => Some(byte - b'a' + 26),
        (b'0'..=b'9', _) => Some(byte - b'0' + 52),
        (b'+', Form::Standard) | (b'-', Form::Url) => Some(62),
        (b'/', Form::Standard) | (b'_', Form::Url) => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0_u32;
        for byte in group {
            bits = bits << 6 | u32::from(value(*byte)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, whole @ ..] = bits.to_be_bytes();
        let (kept, rest) = whole.split_at(group.len() - 1);
        // Bits behind the last byte would give one value a second text.
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_standard() {
        for (text, url, bytes) in [
            ("", "", &b""[..]),
            ("Zg==", "Zg", b"f"),
            ("Zm8=", "Zm8", b"fo"),
            ("Zm9v", "Zm9v", b"foo"),
            ("Zm9vYg==", "Zm9vYg", b"foob"),
            ("Zm9vYmE=", "Zm9vYmE", b"fooba"),
            ("+/+/", "-_-_", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode(text.as_bytes(), Form::Standard).as_deref(), Some(bytes), "{text}");
            assert_eq!(decode(url.as_bytes(), Form::Url).as_deref(), Some(bytes), "{url}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        for text in [
            "Zg", "Zg=", "Zg===", "Z===", "Z", "Zh==", "Zm9=", "Zm9v=", "Zm9v====", "Zm 9v", "Zm9v\n",
            "-_-_", "=", "====",
        ] {
            assert_eq!(decode(text.as_bytes(), Form::Standard), None, "{text}");
        }
        for text in ["Z", "Zg==", "Zh", "+/+/", "Zm9v=", "Zm9vY"] {
            assert_eq!(decode(text.as_bytes(), Form::Url), None, "{text}");
        }
    }
}
