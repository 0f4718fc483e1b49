//! A diff that a person can read: the lines that are gone, the lines that came.
//!
//! Neighbours: `lock::guard` makes one of each difference. Never: lets through a character that a terminal would act on, or grows
//! with what a server lists.

use super::words::visible;

/// Lines of a diff, at most.
const MOST_LINES: usize = 60;
/// Characters of a line.
const MOST_WIDE: usize = 240;
/// Cells of the table that finds the longest common part; beyond it the middle is taken as replaced.
const MOST_CELLS: usize = 1 << 20;

/// `- line` for what is gone, `+ line` for what came, each escaped; so many at most.
#[must_use]
pub fn lines(old: &[String], new: &[String]) -> Vec<String> {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = |list: &[String]| list.get(start..).unwrap_or_default().to_vec();
    let (old, new) = (rest(old), rest(new));
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let middle = |list: &[String]| list.get(..list.len() - end).unwrap_or_default().to_vec();
    let (old, new) = (middle(&old), middle(&new));
    let mut out = Vec::new();
    for (sign, line) in edits(&old, &new) {
        out.push(format!("{sign} {}", shown(&line)));
    }
    let more = out.len().saturating_sub(MOST_LINES);
    if more > 0 {
        out.truncate(MOST_LINES);
        out.push(format!("… {more} more lines"));
    }
    out
}

fn shown(line: &str) -> String {
    let mut chars = line.chars();
    let start: String = chars.by_ref().take(MOST_WIDE).collect();
    let rest = chars.count();
    let more = if rest > 0 { format!("… ({rest} more characters)") } else { String::new() };
    format!("{}{more}", visible(&start))
}

/// What is only in one of both, in order.
fn edits(old: &[String], new: &[String]) -> Vec<(char, String)> {
    let gone = |lines: &[String]| lines.iter().map(|line| ('-', line.clone())).collect::<Vec<_>>();
    let came = |lines: &[String]| lines.iter().map(|line| ('+', line.clone())).collect::<Vec<_>>();
    let width = new.len() + 1;
    if old.len().saturating_add(1).saturating_mul(width) > MOST_CELLS {
        return [gone(old), came(new)].concat();
    }
    // At each place, the length of the longest common part of what follows.
    let mut table = vec![0_u32; (old.len() + 1) * width];
    let at = |table: &[u32], row: usize, column: usize| table.get(row * width + column).copied().unwrap_or(0);
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            let best = if old.get(row) == new.get(column) {
                at(&table, row + 1, column + 1) + 1
            } else {
                at(&table, row + 1, column).max(at(&table, row, column + 1))
            };
            if let Some(cell) = table.get_mut(row * width + column) {
                *cell = best;
            }
        }
    }
    let (mut row, mut column, mut found) = (0, 0, Vec::new());
    while let (Some(gone), Some(came)) = (old.get(row), new.get(column)) {
        if gone == came {
            (row, column) = (row + 1, column + 1);
        } else if at(&table, row + 1, column) >= at(&table, row, column + 1) {
            found.push(('-', gone.clone()));
            row += 1;
        } else {
            found.push(('+', came.clone()));
            column += 1;
        }
    }
    found.extend(gone(old.get(row..).unwrap_or_default()));
    found.extend(came(new.get(column..).unwrap_or_default()));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn diff(old: &str, new: &str) -> Vec<String> {
        let list = |text: &str| text.split_terminator('/').map(str::to_owned).collect::<Vec<_>>();
        lines(&list(old), &list(new))
    }

    #[test]
    fn only_what_changed_is_shown() {
        assert_eq!(diff("a/b/c/d", "a/x/c/d"), ["- b", "+ x"]);
        assert_eq!(diff("a/b", "a/b"), [""; 0]);
        assert_eq!(diff("a/b/c", "b/c/d"), ["- a", "+ d"]);
        assert_eq!(diff("", "a"), ["+ a"]);
        assert_eq!(
            diff("a/\u{1b}[2J\u{202e}\u{e0041}\u{200b}", "a"),
            ["- \\u{1b}[2J\\u{202e}\\u{e0041}\\u{200b}"]
        );
    }

    #[test]
    fn nothing_makes_it_long() {
        let long: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        let found = lines(&long, &["x".repeat(1 << 20)]);
        assert_eq!(found.len(), MOST_LINES + 1);
        assert!(found.iter().all(|line| line.chars().count() < MOST_WIDE + 40));
    }

    /// Can the edits be made in this order, all that is between them kept as it is in both?
    fn leads(old: &[String], new: &[String], edits: &[(char, String)]) -> bool {
        let kept = || match (old, new) {
            ([one, old @ ..], [other, new @ ..]) => one == other && leads(old, new, edits),
            _ => old.is_empty() && new.is_empty() && edits.is_empty(),
        };
        let edited = || match (edits, old, new) {
            ([('-', line), edits @ ..], [gone, old @ ..], new) => line == gone && leads(old, new, edits),
            ([('+', line), edits @ ..], old, [came, new @ ..]) => line == came && leads(old, new, edits),
            _ => false,
        };
        kept() || edited()
    }

    /// The length of the longest selection of one that is a selection of the other, by trying all of them.
    fn most_in_common(one: &[String], other: &[String]) -> usize {
        let selections = (0..1_u32 << one.len()).map(|chosen| {
            one.iter().enumerate().filter(move |(at, _)| chosen >> at & 1 == 1).map(|(_, line)| line)
        });
        let is_in_other = |mut lines: Box<dyn Iterator<Item = &String> + '_>| {
            let mut rest = other.iter();
            lines.all(|line| rest.any(|other| other == line))
        };
        let common = selections.filter(|lines| is_in_other(Box::new(lines.clone())));
        common.map(Iterator::count).max().unwrap_or(0)
    }

    #[test]
    fn what_leads_nowhere_is_seen() {
        let list = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let edit = |sign: char, line: &str| (sign, line.to_owned());
        let (old, new) = (list("abc"), list("axc"));
        assert!(leads(&old, &new, &[edit('-', "b"), edit('+', "x")]));
        assert!(!leads(&old, &new, &[edit('-', "b"), edit('+', "b")]));
        assert!(!leads(&old, &new, &[edit('-', "b")]));
        assert!(!leads(&old, &new, &[edit('-', "c"), edit('+', "x"), edit('-', "b")]));
        assert_eq!((most_in_common(&old, &new), most_in_common(&old, &list("cab"))), (2, 2));
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_to_the_other_and_is_the_shortest(
            old in prop::collection::vec("[abc]", 0..10),
            new in prop::collection::vec("[abc]", 0..10),
        ) {
            let edits = edits(&old, &new);
            prop_assert!(leads(&old, &new, &edits), "{:?}", edits);
            let gone = edits.iter().filter(|(sign, _)| *sign == '-').count();
            prop_assert_eq!(old.len() - gone, most_in_common(&old, &new));
        }
    }
}
