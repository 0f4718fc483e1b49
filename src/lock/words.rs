//! Which characters of a text nobody sees, and how they are shown.
//!
//! Neighbours: `lock::rules` flags them, `lock::file` and `lock::diff` write them visibly. Never: looks at words.

use std::fmt::Write as _;

use crate::text::is_dangerous;

/// Of which kind a character is that is not what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hidden {
    /// C0 but for tab and newline, DEL, C1.
    Control,
    /// Turns the direction in which text is read.
    Bidirectional,
    /// Takes no room, or looks like a blank.
    ZeroWidth,
    /// Unicode's invisible copy of ASCII.
    Tag,
    /// Chooses a glyph where there is nothing to choose.
    Variation,
    /// Means what a font makes of it.
    Private,
}

fn kind(character: char) -> Option<Hidden> {
    Some(match character {
        '\t' | '\n' => return None,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => Hidden::Control,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Hidden::Bidirectional
        }
        '\u{e0000}'..='\u{e007f}' => Hidden::Tag,
        '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{e0100}'..='\u{e01ef}' => {
            Hidden::Variation
        }
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' => Hidden::Private,
        // Fillers of Hangul and Khmer, and the blank of Braille.
        '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        | '\u{34f}' => Hidden::ZeroWidth,
        other if is_dangerous(other) => Hidden::ZeroWidth,
        _ => return None,
    })
}

/// Letters that are joined, or kept from it, by characters without width.
const fn joins(character: char) -> bool {
    matches!(character, '\u{600}'..='\u{8ff}' | '\u{900}'..='\u{dff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{18af}')
}

const fn pictures(character: char) -> bool {
    matches!(character, '\u{a9}' | '\u{ae}' | '\u{203c}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}')
}

const fn ideographs(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The hidden characters of a text, each with its place in characters. What has a use where it stands is none: the joiner
/// inside of an emoji or of an Indic or Arabic word, the flag of a region, the selector of an emoji's or ideograph's form.
pub(super) fn hidden(text: &str) -> Vec<(usize, char, Hidden)> {
    let mut found = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let mut flag = false;
    for (place, character) in chars.iter().copied().enumerate() {
        let before = place.checked_sub(1).and_then(|place| chars.get(place)).copied().unwrap_or('\0');
        let after = chars.get(place + 1).copied().unwrap_or('\0');
        // A black flag, the letters of a region, the end.
        if character == '\u{1f3f4}' {
            let region: Vec<char> = chars.iter().skip(place + 1).take(8).copied().collect();
            let letters = region.iter().take_while(|c| matches!(c, '\u{e0061}'..='\u{e007a}')).count();
            flag = (3..=6).contains(&letters) && region.get(letters) == Some(&'\u{e007f}');
        }
        let Some(kind) = kind(character) else { continue };
        let useful = match kind {
            Hidden::Tag if flag => {
                flag = character != '\u{e007f}';
                true
            }
            Hidden::ZeroWidth if matches!(character, '\u{200c}' | '\u{200d}') => {
                joins(before) && joins(after)
                    || character == '\u{200d}' && pictures(before) && pictures(after)
                    || character == '\u{200d}'
                        && matches!(before, '\u{1f3fb}'..='\u{1f3ff}')
                        && pictures(after)
            }
            Hidden::Variation if character == '\u{fe0f}' || character == '\u{fe0e}' => {
                pictures(before) && before != '\u{fe0f}'
                    || matches!(before, '0'..='9' | '#' | '*') && after == '\u{20e3}'
            }
            Hidden::Variation => ideographs(before) || joins(before),
            Hidden::Control | Hidden::Bidirectional | Hidden::ZeroWidth | Hidden::Tag | Hidden::Private => {
                false
            }
        };
        if !useful {
            found.push((place, character, kind));
        }
    }
    found
}

/// The text without what nobody sees, as a model may read it.
pub(super) fn without_hidden(text: &str) -> String {
    text.chars().filter(|character| kind(*character).is_none()).collect()
}

/// Must this character be written as an escape, so that who reads the file or a diff sees it?
pub(super) fn is_hidden(character: char) -> bool {
    kind(character).is_some()
}

/// A line with escapes for all that nobody would see. Tabs stay.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            character if is_hidden(character) => {
                let _infallible = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out
}
