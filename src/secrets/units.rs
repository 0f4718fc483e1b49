//! Reads a text one character at a time with layers of escapes taken off: JSON's, and on top of them percent-encoding.
//!
//! Neighbours: [`super::redact`] compares with what a secret is. Never: fails: what is no escape is what it looks like.

/// What one character of a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its bytes in UTF-8,
    pub(super) bytes: [u8; 4],
    /// so many of them.
    pub(super) length: usize,
    /// Where the next one begins.
    pub(super) next: usize,
    /// It was written as an escape of JSON.
    pub(super) escaped: bool,
}

impl Unit {
    const fn of_byte(byte: u8, next: usize, escaped: bool) -> Self {
        Self { bytes: [byte, 0, 0, 0], length: 1, next, escaped }
    }

    fn of_char(character: char, next: usize) -> Self {
        let mut bytes = [0; 4];
        let length = character.encode_utf8(&mut bytes).len();
        Self { bytes, length, next, escaped: true }
    }
}

/// The unit at a place; nothing where the text ends before it does.
pub(super) fn at(data: &[u8], place: usize, depth: u32) -> Option<Unit> {
    let Some(below) = depth.checked_sub(1) else {
        return data.get(place).map(|byte| Unit::of_byte(*byte, place + 1, false));
    };
    let first = at(data, place, below)?;
    if first.bytes.first() != Some(&b'\\') || first.length != 1 {
        return Some(first);
    }
    let second = at(data, first.next, below)?;
    let byte = match second.bytes {
        [b'n', ..] => b'\n',
        [b't', ..] => b'\t',
        [b'r', ..] => b'\r',
        [b'b', ..] => 8,
        [b'f', ..] => 12,
        [same @ (b'"' | b'\\' | b'/'), ..] => same,
        [b'u', ..] => return unicode(data, second.next, below).map(|unit| unit.unwrap_or(first)),
        _ => return Some(first),
    };
    Some(Unit::of_byte(byte, second.next, true))
}

/// Four hexadecimal digits, and where the next unit begins: nothing within `Some` where something else stands there.
fn four(data: &[u8], place: usize, depth: u32) -> Option<Option<(u32, usize)>> {
    let (mut value, mut next) = (0, place);
    for _ in 0..4 {
        let unit = at(data, next, depth)?;
        let [digit, ..] = unit.bytes;
        let Some(digit) = char::from(digit).to_digit(16).filter(|_| unit.length == 1) else {
            return Some(None);
        };
        value = value << 4 | digit;
        next = unit.next;
    }
    Some(Some((value, next)))
}

/// What follows `\u`.
fn unicode(data: &[u8], place: usize, depth: u32) -> Option<Option<Unit>> {
    let Some((high, next)) = four(data, place, depth)? else { return Some(None) };
    if !(0xd800..0xdc00).contains(&high) {
        return Some(Some(Unit::of_char(char::from_u32(high).unwrap_or('\u{fffd}'), next)));
    }
    // A surrogate stands for something with the other one only.
    let lone = Some(Some(Unit::of_char('\u{fffd}', next)));
    let mut after = next;
    for wanted in *b"\\u" {
        let unit = at(data, after, depth)?;
        if unit.bytes.first() != Some(&wanted) {
            return lone;
        }
        after = unit.next;
    }
    match four(data, after, depth)? {
        Some((low @ 0xdc00..0xe000, next)) => {
            let character = char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            Some(Some(Unit::of_char(character.unwrap_or('\u{fffd}'), next)))
        }
        _ => lone,
    }
}

/// The unit at a place, with percent-encoding taken off too.
pub(super) fn percent(data: &[u8], place: usize, depth: u32) -> Option<Unit> {
    let first = at(data, place, depth)?;
    if first.bytes.first() != Some(&b'%') {
        return Some(first);
    }
    let (mut value, mut next, mut escaped) = (0_u8, first.next, first.escaped);
    for _ in 0..2 {
        let unit = at(data, next, depth)?;
        let [digit, ..] = unit.bytes;
        let digit = char::from(digit).to_digit(16).filter(|_| unit.length == 1);
        let Some(digit) = digit.and_then(|digit| u8::try_from(digit).ok()) else { return Some(first) };
        value = value << 4 | digit;
        next = unit.next;
        escaped |= unit.escaped;
    }
    Some(Unit::of_byte(value, next, escaped))
}

/// A character of either alphabet as it is in the usual one.
pub(super) const fn base64_alphabet(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => byte,
    }
}

pub(super) const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, depth: u32) -> (Vec<u8>, usize) {
        let unit = at(text.as_bytes(), 0, depth).unwrap();
        (unit.bytes[..unit.length].to_vec(), unit.next)
    }

    #[test]
    fn layers_of_escapes_are_taken_off() {
        assert_eq!(read(r"\n", 0), (b"\\".to_vec(), 1));
        assert_eq!(read(r"\nx", 1), (b"\n".to_vec(), 2));
        assert_eq!(read(r"\\n", 1), (b"\\".to_vec(), 2));
        assert_eq!(read(r"\\n", 2), (b"\n".to_vec(), 3));
        assert_eq!(read(r"\u0041", 1), (b"A".to_vec(), 6));
        assert_eq!(read(r"\\u00e4", 2), ("ä".as_bytes().to_vec(), 7));
        assert_eq!(read(r"\ud83d\ude00", 1), ("😀".as_bytes().to_vec(), 12));
        assert_eq!(read(r"\ud83dxyz...", 1), ("\u{fffd}".as_bytes().to_vec(), 6));
        assert_eq!(read(r"\q", 1), (b"\\".to_vec(), 1));
        assert_eq!(read(r"\u00g0", 1), (b"\\".to_vec(), 1));
    }

    #[test]
    fn what_is_cut_is_no_unit_yet() {
        for cut in [r"\", r"\u", r"\u00", r"\ud83d", r"\ud83d\", r"\ud83d\ude0"] {
            assert_eq!(at(cut.as_bytes(), 0, 1), None, "{cut}");
        }
        assert_eq!(at(br"\\", 0, 2), None);
        assert_eq!(percent(b"%4", 0, 0), None);
        assert_eq!(percent(b"%4f", 0, 0).unwrap().bytes[0], b'O');
        assert_eq!(percent(b"%zz", 0, 0).unwrap().bytes[0], b'%');
    }
}
