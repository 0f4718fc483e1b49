//! How long a call may take, in which attacks that take without end come to theirs.
//!
//! Neighbours: `demo::run` makes it longer by what a harmless call takes, `client` gives it to `toolcell run`. Never: becomes
//! shorter; is as long as a client waits for an answer.

use std::time::Duration;

/// This many times what a harmless call takes.
const TIMES: u32 = 5;
/// What an ordinary machine keeps.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);

/// In whole seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(Duration);

impl Default for Limit {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Limit {
    /// As an option of `toolcell run`.
    pub(super) fn words(self) -> String {
        format!("{}s", self.0.as_secs())
    }

    /// Makes it longer if a harmless call takes this long. False: it is long enough, or as long as it gets.
    pub(super) fn prolong(&mut self, took: Duration) -> bool {
        let limit = Duration::from_secs(took.saturating_mul(TIMES).as_secs().saturating_add(1)).min(LONGEST);
        let longer = limit > self.0;
        self.0 = self.0.max(limit);
        longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_a_slow_machine_and_comes_to_an_end() {
        let mut limit = Limit::default();
        for (took, longer, words) in [
            (399, false, "2s"),
            (400, true, "3s"),
            (10, false, "3s"),
            (2000, true, "11s"),
            (60_000, true, "30s"),
        ] {
            assert_eq!(limit.prolong(Duration::from_millis(took)), longer, "{took}");
            assert_eq!(limit.words(), words);
        }
        assert!(!limit.prolong(Duration::MAX));
    }
}
