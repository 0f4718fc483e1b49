//! One value as one line of JSON in which nothing from outside can begin a line, paint or reorder text.
//!
//! Neighbours: `audit::log` and `audit::file` write what [`to_line`] gives. Never: loses anything; what is
//! dangerous to show stays as a `\uXXXX` escape, which every JSON reader turns back.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::text::is_dangerous;

/// The value as compact JSON with a newline at the end, and no other control or format character in it.
///
/// # Errors
/// When the value cannot be JSON, such as a map whose keys are not text.
pub fn to_line(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = Vec::with_capacity(1024);
    value.serialize(&mut Serializer::with_formatter(&mut line, Safe))?;
    line.push(b'\n');
    Ok(line)
}

struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment, &|character| is_dangerous(character).then_some(Unsafe::Escape))
    }

    /// JSON that was kept as it came. White space between its values may hold newlines; every other dangerous
    /// character can only be inside a string, where an escape means the same.
    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment, &|character| match character {
            '\n' | '\r' | '\t' => Some(Unsafe::Blank),
            _ => is_dangerous(character).then_some(Unsafe::Escape),
        })
    }
}

enum Unsafe {
    Escape,
    Blank,
}

fn write_escaped<W: ?Sized + io::Write>(
    writer: &mut W,
    text: &str,
    judge: &dyn Fn(char) -> Option<Unsafe>,
) -> io::Result<()> {
    // Nearly all text is printable ASCII, of which nothing is dangerous.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return writer.write_all(text.as_bytes());
    }
    let mut rest = text;
    while let Some((at, character, how)) =
        rest.char_indices().find_map(|(at, character)| Some((at, character, judge(character)?)))
    {
        let (before, after) = rest.split_at(at);
        writer.write_all(before.as_bytes())?;
        match how {
            Unsafe::Blank => writer.write_all(b" ")?,
            Unsafe::Escape => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        rest = after.strip_prefix(character).unwrap_or_default();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn line(value: &impl Serialize) -> String {
        String::from_utf8(to_line(value).unwrap()).unwrap()
    }

    #[test]
    fn what_could_break_a_line_or_a_terminal_is_escaped() {
        assert_eq!(
            line(&"a\nb\r\x1b[2J\x7f\u{85}\u{2028}\u{2029}\u{202e}\u{feff}\u{e0041}é"),
            "\"a\\nb\\r\\u001b[2J\\u007f\\u0085\\u2028\\u2029\\u202e\\ufeff\\udb40\\udc41é\"\n"
        );
    }

    #[test]
    fn raw_json_is_held_to_the_same() {
        let raw: Box<RawValue> =
            serde_json::from_str("{\n\t\"a\u{2028}\" :\r\n 1e2, \"b\":\"\x7f\\n\u{202e}\"}").unwrap();
        assert_eq!(line(&raw), "{  \"a\\u2028\" :   1e2, \"b\":\"\\u007f\\n\\u202e\"}\n");
    }
}
