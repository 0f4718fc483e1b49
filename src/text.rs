//! Makes text from outside safe to show and to write down: which characters are dangerous, and their escapes.
//!
//! Neighbours: `diag` and the commands show text with [`escape`]; `audit` shares [`is_dangerous`] for its JSON.
//! Never: decides what is said; does I/O.

pub mod diff;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

/// The characters that can change how the text around them is read: controls (C0, DEL, C1), the line and
/// paragraph separators, and every format character (Unicode category Cf), among them the bidirectional
/// controls, zero-width characters and the invisible tag characters.
#[must_use]
pub const fn is_dangerous(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The text with every dangerous character, newline and tab included, as a visible escape such as `\n` or
/// `\u{1b}`. Meant for a person; it does not escape the backslash and so cannot be undone.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, &[])
}

/// Like [`escape`], but newlines and tabs stay, each new line beginning with `indent`, so that no line of the
/// text can pass for one of ours.
#[must_use]
pub fn escape_lines(text: &str, indent: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            shown.push('\n');
            if !line.is_empty() {
                shown.push_str(indent);
            }
        }
        shown.push_str(&escape_but(line, &['\t']));
    }
    shown
}

/// Bytes as text without loss: a byte that is not part of valid UTF-8 becomes `\xNN`, and a backslash is
/// doubled, so that the bytes can be had back.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (number, part) in chunk.valid().split('\\').enumerate() {
            if number > 0 {
                text.push_str(r"\\");
            }
            text.push_str(part);
        }
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text
}

/// The longest start of the text that is at most `most` bytes long and does not cut a character.
#[must_use]
pub fn start_of(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The text as one word of a shell, which takes it as it is.
#[must_use]
pub fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+,@:".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(in_quotes(text))
}

/// A path as one word of a shell, in quotes so that it is seen where it ends.
#[must_use]
pub fn quoted_path(path: &Path) -> String {
    in_quotes(&path.to_string_lossy())
}

fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn escape_but<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let shown_as_is = |character: char| !is_dangerous(character) || kept.contains(&character);
    if text.chars().all(shown_as_is) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if shown_as_is(character) {
            shown.push(character);
        } else {
            match character {
                '\n' | '\r' | '\t' => push(&mut shown, format_args!("{}", character.escape_default())),
                _ => push(&mut shown, format_args!("{}", character.escape_unicode())),
            }
        }
    }
    Cow::Owned(shown)
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a `String` returns an error only when a `Display` of ours does, and none here can.
    text.write_fmt(arguments).ok();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_text_is_left_as_it_is() {
        let text = "naïve ☂ 漢字 \"quoted\" C:\\x";
        assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn a_shell_takes_a_quoted_text_as_one_word() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        for text in ["", "a b", "it's", "$(x)", "`x`", "~", "a;b\n\"c\\", "''", "*", "#", "é"] {
            let script = format!("set -- {}; printf '%s|%s' $# \"$1\"", quoted(text));
            let told = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(told.stdout).unwrap(), format!("1|{text}"));
        }
    }

    #[test]
    fn dangerous_characters_become_visible() {
        assert_eq!(escape("a\nb\r\t\x1b[31m\x7f\u{9b}"), r"a\nb\r\t\u{1b}[31m\u{7f}\u{9b}");
        assert_eq!(
            escape("\u{202e}\u{2066}\u{2028}\u{200d}\u{e0041}"),
            r"\u{202e}\u{2066}\u{2028}\u{200d}\u{e0041}"
        );
    }

    #[test]
    fn a_later_line_is_indented() {
        assert_eq!(escape_lines("a\nhint: b\r\n\nc\x1b", "    "), "a\n    hint: b\n\n    c\\u{1b}");
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_recoverable() {
        assert_eq!(from_bytes(b"ok \xff\xc3( \\xff"), r"ok \xff\xc3( \\xff");
    }

    proptest! {
        #[test]
        fn nothing_dangerous_is_left(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(is_dangerous));
        }

        #[test]
        fn a_start_is_a_prefix_within_bounds(text in any::<String>(), most in 0_usize..40) {
            let start = start_of(&text, most);
            prop_assert!(start.len() <= most && text.starts_with(start));
        }
    }
}
