//! Mistakes in a file that a person wrote: where, what, and what to write instead; all of them at once.
//!
//! Neighbours: `policy::toml_file`, `policy::profile`, `policy::config` and `policy::resolve` make them,
//! commands print them. Never: reads a file, decides what is a mistake.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// The longest part of a line that is quoted.
const EXCERPT: usize = 100;

/// A place in a file, with the line that stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file's path, or what the text is called when it is compiled in.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant, at least one.
    pub width: usize,
    /// The line, free of control characters and cut to what matters.
    pub excerpt: String,
    /// Where in `excerpt` the place is, from 0, in characters.
    pub indent: usize,
}

impl Spot {
    /// The place of a range of bytes in a text; a range outside of it is moved to its end.
    #[must_use]
    pub fn new(file: &str, text: &str, range: &Range<usize>) -> Self {
        let start = floor_boundary(text, range.start);
        let end = floor_boundary(text, range.end.max(start));
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let content = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = text.get(line_start..start).unwrap_or_default().chars().count();
        let meant = text.get(start..end).unwrap_or_default();
        let length = content.chars().count();
        let width = meant.split('\n').next().unwrap_or_default().chars().count();
        let skipped = if length <= EXCERPT { 0 } else { column.saturating_sub(EXCERPT / 2) };
        let excerpt = visible_part(content, skipped, EXCERPT);
        Self {
            file: visible_text(file),
            line: before.as_bytes().iter().filter(|byte| **byte == b'\n').count() + 1,
            column: column + 1,
            width: width.clamp(1, EXCERPT),
            excerpt,
            indent: column - skipped,
        }
    }
}

/// The largest index that is not after `index` and not inside a character.
fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// A character as it may be shown on a terminal: a control or bidirectional character could forge what is read.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// At most `length` characters of a text after `skipped` ones. A place is noted for every value that is read, so the
/// common text, in which nothing is to be replaced, is copied as it is.
fn visible_part(text: &str, skipped: usize, length: usize) -> String {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_control()) {
        let end = skipped.saturating_add(length).min(text.len());
        return text.get(skipped..end).unwrap_or_default().to_owned();
    }
    text.chars().skip(skipped).take(length).map(visible).collect()
}

fn visible_text(text: &str) -> String {
    visible_part(text, 0, usize::MAX)
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub spot: Spot,
    /// A lowercase fragment that says what is wrong.
    pub message: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake whose texts may quote the file.
    #[must_use]
    pub fn new(spot: Spot, message: &str, hint: Option<&str>) -> Self {
        Self { spot, message: visible_text(message), hint: hint.map(visible_text) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spot { file, line, column, width, excerpt, indent } = &self.spot;
        let gutter = line.to_string().len();
        writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        writeln!(f, "  {line} | {excerpt}")?;
        let marks = (*width).min(excerpt.chars().count().saturating_sub(*indent)).max(1);
        write!(f, "  {:gutter$} | {:indent$}{}", "", "", "^".repeat(marks))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {:gutter$} = hint: {hint}", ""),
            None => Ok(()),
        }
    }
}

/// Every mistake of a file and of those it extends, in the order of reading. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `value` when there is no mistake.
    ///
    /// # Errors
    /// The mistakes, when there are any.
    pub fn none_or<T>(value: T, mistakes: Vec<Mistake>) -> Result<T, Self> {
        if mistakes.is_empty() { Ok(value) } else { Err(Self(mistakes)) }
    }

    /// The mistakes, at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "one mistake")?,
            many => write!(f, "{many} mistakes")?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n\n{mistake}"))
    }
}

/// The one of `known` that `word` was most likely meant to be.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    let usual = word.to_lowercase().replace('_', "-");
    let distance = |candidate: &str| {
        let distances = [word, &usual].map(|word| edit_distance(word, candidate, limit));
        distances.into_iter().flatten().min()
    };
    known
        .into_iter()
        .filter_map(|candidate| distance(candidate).map(|d| (d, candidate)))
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b`, if at most `limit`.
fn edit_distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit || a.len() > 64 {
        return None;
    }
    let at = |row: &[usize], i: usize| row.get(i).copied().unwrap_or(usize::MAX / 2);
    let mut two_ago: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best =
                (at(&last, j) + usize::from(ca != cb)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let previous = |i: usize, v: &[char]| i.checked_sub(1).and_then(|i| v.get(i).copied());
            if previous(i, &a) == Some(*cb) && previous(j, &b) == Some(*ca) {
                best = best.min(at(&two_ago, j - 1) + 1);
            }
            row.push(best);
        }
        two_ago = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|distance| *distance <= limit)
}

/// The name accepted by `known` that is one edit away from `word`: for lists that can only be asked.
#[must_use]
pub fn one_edit_away(word: &str, known: &dyn Fn(&str) -> bool) -> Option<String> {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789_";
    let chars: Vec<char> = word.to_lowercase().replace('-', "_").chars().collect();
    if chars.len() > 64 {
        return None;
    }
    let build = |head: usize, middle: &[char], tail: usize| -> String {
        chars.iter().take(head).chain(middle).chain(chars.iter().skip(tail)).collect()
    };
    let same = std::iter::once(build(0, &[], 0));
    let shorter = (0..chars.len()).map(|i| build(i, &[], i + 1));
    let swapped = chars.windows(2).enumerate().filter_map(|(i, pair)| match pair {
        [a, b] => Some(build(i, &[*b, *a], i + 2)),
        _ => None,
    });
    let others = (0..=chars.len())
        .flat_map(|i| LETTERS.chars().flat_map(move |c| [build(i, &[c], i + 1), build(i, &[c], i)]));
    same.chain(shorter).chain(swapped).chain(others).find(|candidate| known(candidate))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_closest_name_is_found_and_a_far_one_is_not() {
        let known = ["memory", "cpu", "tasks", "open-files", "output"];
        assert_eq!(closest("memmory", known), Some("memory"));
        assert_eq!(closest("mem", known), None);
        assert_eq!(closest("open_files", known), Some("open-files"));
        assert_eq!(closest("tsaks", known), Some("tasks"));
        assert_eq!(closest("CPU", known), Some("cpu"));
        assert_eq!(closest("network", known), None);
        assert_eq!(closest("", known), None);
    }

    #[test]
    fn a_name_that_can_only_be_asked_for_is_found() {
        let known = |name: &str| matches!(name, "openat2" | "io_uring_setup" | "ptrace");
        assert_eq!(one_edit_away("opneat2", &known).as_deref(), Some("openat2"));
        assert_eq!(one_edit_away("openat", &known).as_deref(), Some("openat2"));
        assert_eq!(one_edit_away("io-uring-setup", &known).as_deref(), Some("io_uring_setup"));
        assert_eq!(one_edit_away("pttrace", &known).as_deref(), Some("ptrace"));
        assert_eq!(one_edit_away("mount", &known), None);
    }

    #[test]
    fn what_is_quoted_cannot_drive_a_terminal() {
        let text = "name = \"\u{1b}[2J\u{202e}x\"\n";
        let spot = Spot::new("f\n.toml", text, &(7..12));
        let shown = Mistake::new(spot, "`\u{7}` is odd", Some("\r")).to_string();
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        assert!(!shown.contains('\u{202e}'));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("x = \"{}\" oops \"{}\"", "a".repeat(300), "b".repeat(300));
        let at = text.find("oops").unwrap();
        let shown = Mistake::new(Spot::new("f", &text, &(at..at + 4)), "odd", None).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].find("oops"), lines[2].find("^^^^"));
        assert!(lines[1].chars().count() < 120);
    }

    proptest! {
        #[test]
        fn a_place_is_found_in_any_text(text in any::<String>(), start: usize, length in 0_usize..50) {
            let start = start % (text.len() + 3);
            let spot = Spot::new("f", &text, &(start..start + length));
            prop_assert!(spot.line >= 1 && spot.column >= 1 && spot.width >= 1);
            let mistake = Mistake::new(spot, "odd", None);
            prop_assert_eq!(mistake.to_string().lines().count(), 3);
        }

        #[test]
        fn a_distance_is_the_same_both_ways(a in "[a-d]{0,8}", b in "[a-d]{0,8}") {
            prop_assert_eq!(edit_distance(&a, &b, 8), edit_distance(&b, &a, 8));
        }
    }
}
