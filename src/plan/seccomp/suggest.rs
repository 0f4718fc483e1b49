//! Finds the name that somebody may have meant.
//!
//! Neighbours: `mod` asks it about names that are not in the table. Never: accepts a name in place of another.

/// The candidate with the fewest edits, if they are few for a name of this length.
pub(super) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (wrong.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (edits(wrong, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        // Of two as near, the one that begins alike: the first letter is seldom the one mistyped.
        .min_by_key(|(edits, candidate)| (*edits, candidate.chars().next() != wrong.chars().next()))
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and substitutions between two words (Levenshtein), a row of the table at a time.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut beside = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(to.chars()) {
            let cost = diagonal + usize::from(left != right);
            diagonal = *cell;
            beside = cost.min(diagonal + 1).min(beside + 1);
            *cell = beside;
        }
    }
    row.last().copied().unwrap_or_default()
}
