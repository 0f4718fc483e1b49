//! Limits that the kernel refuses without counting: known only from the payload's own words, and marked as such.
//!
//! Neighbours: `commands::exec` and `session` hand over the end of stderr and the text of a failed answer.
//! Never: claims more than that the payload said so.

use super::usage::{Seen, hit};
use crate::outcome::{Evidence, Layer, Limit, Violation};
use crate::policy::Policy;

/// What programs print for an errno: its name, and the words of strerror(3).
const WORDS: [(Limit, Layer, &str, &str, &[&str]); 3] = [
    (
        Limit::OpenFiles,
        Layer::Rlimit,
        "open",
        "EMFILE",
        &["EMFILE", "Too many open files", "too many open files"],
    ),
    (Limit::FileSize, Layer::Rlimit, "write", "EFBIG", &["EFBIG", "File too large", "file too large"]),
    (
        Limit::Scratch,
        Layer::Root,
        "write",
        "ENOSPC",
        &["ENOSPC", "No space left on device", "no space left on device"],
    ),
];

/// A violation for each of these limits that the texts speak of and that is not among `known` already.
#[must_use]
pub fn limits<'t>(
    texts: impl IntoIterator<Item = &'t str>,
    policy: &Policy,
    known: &[Violation],
) -> Vec<Violation> {
    let texts: Vec<&str> = texts.into_iter().collect();
    let mut found = Vec::new();
    for (limit, layer, operation, errno, words) in WORDS {
        let count = texts.iter().filter(|text| words.iter().any(|word| text.contains(word))).count();
        if count == 0 || known.iter().any(|violation| violation.limit == Some(limit)) {
            continue;
        }
        let seen =
            Seen { count: u64::try_from(count).unwrap_or(u64::MAX), peak: None, operation, errno, layer };
        found.push(Violation {
            evidence: Evidence::Reported,
            ..hit(policy, limit, policy.limit(limit), &seen)
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_violations_once_and_only_as_reported() {
        let policy = Policy::nothing("p");
        let texts =
            ["Error: EMFILE: too many open files, open '/tmp/x'", "OSError: [Errno 24] Too many open files"];
        let found = limits(texts, &policy, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].limit, found[0].count, found[0].evidence),
            (Some(Limit::OpenFiles), 2, Evidence::Reported)
        );
        assert!(limits(texts, &policy, &found).is_empty());
        assert!(limits(["all is well"], &policy, &[]).is_empty());
    }
}
