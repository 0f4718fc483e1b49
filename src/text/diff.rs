//! Two texts line by line, in the unified form of diff(1).
//!
//! Neighbours: `commands::exec` shows by it what a command changed. Never: reads a file; prints a character that could pass for
//! another.

use super::escape_lines;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Pairs of lines that are compared. Of longer texts all that is not alike at both ends counts as changed.
const PAIRS_MOST: usize = 4_000_000;

/// A line of one text, of the other, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Both(&'t str),
    Old(&'t str),
    New(&'t str),
}

/// What has to be done to `before` to get `after`; empty where nothing has.
#[must_use]
pub fn unified(before: &str, after: &str) -> String {
    let lines = lines(&split(before), &split(after));
    let changed = |line: &Line<'_>| !matches!(line, Line::Both(_));
    let mut text = String::new();
    let mut next = 0;
    while let Some(first) = lines.iter().skip(next).position(changed).map(|at| at + next) {
        let start = first.saturating_sub(CONTEXT).max(next);
        let mut end = first;
        // A change that is near belongs to the same piece.
        while let Some(more) = lines.iter().skip(end).take(2 * CONTEXT + 1).position(changed) {
            end += more + 1;
        }
        let end = (end + CONTEXT).min(lines.len());
        piece(&lines, start, end, &mut text);
        next = end;
    }
    text
}

fn piece(lines: &[Line<'_>], start: usize, end: usize, text: &mut String) {
    let old = |line: &&Line<'_>| !matches!(line, Line::New(_));
    let new = |line: &&Line<'_>| !matches!(line, Line::Old(_));
    let (above, within) = (lines.get(..start).unwrap_or_default(), lines.get(start..end).unwrap_or_default());
    let range = |of: &dyn Fn(&&Line<'_>) -> bool| {
        let (before, count) = (above.iter().filter(of).count(), within.iter().filter(of).count());
        // A range without lines is named by the line before it.
        format!("{},{count}", if count == 0 { before } else { before + 1 })
    };
    text.push_str(&format!("@@ -{} +{} @@\n", range(&old), range(&new)));
    for line in within {
        let (sign, line) = match line {
            Line::Both(line) => (' ', line),
            Line::Old(line) => ('-', line),
            Line::New(line) => ('+', line),
        };
        let (line, ends) = match line.strip_suffix('\n') {
            Some(line) => (line, true),
            None => (*line, false),
        };
        text.push(sign);
        text.push_str(&escape_lines(line, ""));
        text.push('\n');
        if !ends {
            text.push_str("\\ No newline at end of file\n");
        }
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn lines<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<Line<'t>> {
    let alike =
        |pairs: &mut dyn Iterator<Item = (&&'t str, &&'t str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = alike(&mut before.iter().zip(after));
    let (before_rest, after_rest) =
        (before.get(head..).unwrap_or_default(), after.get(head..).unwrap_or_default());
    let tail = alike(&mut before_rest.iter().rev().zip(after_rest.iter().rev()));
    let middle = |rest: &[&'t str]| rest.get(..rest.len() - tail).unwrap_or_default().to_vec();
    let (old, new) = (middle(before_rest), middle(after_rest));
    let both = |lines: &[&'t str]| lines.iter().map(|line| Line::Both(line)).collect::<Vec<_>>();
    let mut all = both(before.get(..head).unwrap_or_default());
    all.extend(changes(&old, &new));
    all.extend(both(before_rest.get(before_rest.len() - tail..).unwrap_or_default()));
    all
}

/// By the longest common subsequence of both.
fn changes<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Line<'t>> {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > PAIRS_MOST {
        let old = old.iter().map(|line| Line::Old(line));
        return old.chain(new.iter().map(|line| Line::New(line))).collect();
    }
    // How many lines are common from each pair of lines on.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let longest = match a == b {
                true => at(&common, i + 1, j + 1) + 1,
                false => at(&common, i + 1, j).max(at(&common, i, j + 1)),
            };
            if let Some(place) = common.get_mut(i * width + j) {
                *place = longest;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                lines.push(Line::Both(a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                lines.push(Line::Old(a));
                i += 1;
            }
            (_, Some(b)) => {
                lines.push(Line::New(b));
                j += 1;
            }
            _ => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_stands_between_three_lines_of_what_stays() {
        let text = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let before = text(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        let after = text(&["1", "2", "3", "4", "five", "6", "7", "8", "9"]);
        assert_eq!(unified(&before, &after), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
        assert_eq!(unified(&before, &before), "");
        assert_eq!(unified("", "a\n"), "@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(unified("a", "a\n"), "@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n");
        assert_eq!(unified("", "\u{1b}[2J\n"), "@@ -0,0 +1,1 @@\n+\\u{1b}[2J\n");
    }

    #[test]
    fn changes_far_apart_are_two_pieces() {
        let lines: Vec<String> = (0..40).map(|number| format!("{number}\n")).collect();
        let mut other = lines.clone();
        (other[3], other[30]) = ("x\n".to_owned(), "y\n".to_owned());
        assert_eq!(unified(&lines.concat(), &other.concat()).matches("@@ -").count(), 2);
        (other[9], other[30]) = ("z\n".to_owned(), lines[30].clone());
        assert_eq!(unified(&lines.concat(), &other.concat()).matches("@@ -").count(), 1);
    }

    proptest! {
        /// What is taken away and what stays is the old text, and what stays and is added the new one.
        #[test]
        fn both_texts_can_be_read_from_the_lines(
            old in prop::collection::vec("[ab]{0,1}\n", 0..30),
            new in prop::collection::vec("[ab]{0,1}\n", 0..30),
        ) {
            let (old, new) = (old.concat(), new.concat());
            let lines = lines(&split(&old), &split(&new));
            let side = |wanted: fn(&Line<'_>) -> Option<String>| lines.iter().filter_map(wanted).collect::<String>();
            let before = side(|line| match line {
                Line::Both(line) | Line::Old(line) => Some((*line).to_owned()),
                Line::New(_) => None,
            });
            let after = side(|line| match line {
                Line::Both(line) | Line::New(line) => Some((*line).to_owned()),
                Line::Old(_) => None,
            });
            prop_assert_eq!((before, after), (old, new));
        }
    }
}
