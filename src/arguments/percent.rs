//! The escapes of a URI (RFC 3986, section 2.1).
//!
//! Neighbours: `document` reads references by it, `host::runtime` the `file:` URLs among a server's arguments, `policy::bounds` those of
//! a client's roots. Never: takes
//! half an escape for itself.

/// The text with every escape undone; `None` when one is none, or the bytes are not UTF-8.
#[must_use]
pub fn decoded(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// The absolute path of a `file:` URL of this host.
#[must_use]
pub fn of_file_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("file://")?;
    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    decoded(rest).filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn an_escape_is_two_hexadecimal_digits() {
        assert_eq!(decoded("a%2Fb%c3%A9+").as_deref(), Some("a/b\u{e9}+"));
        for text in ["%", "%2", "%+f", "%-0", "% f", "%ff", "%zz"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
