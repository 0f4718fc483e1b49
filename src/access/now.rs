//! The time of a decision, as a value.
//!
//! Neighbours: `session` makes one for each request. Never: is read while a decision is made.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Both times of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since 1970, by the clock that people set: for what has a date.
    pub date: Duration,
    /// Since some moment, by a clock that nobody sets: for rates.
    pub steady: Duration,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Now {
    /// This moment. A clock before 1970 reads as 1970.
    #[must_use]
    pub fn of_clocks() -> Self {
        let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { date, steady: START.elapsed() }
    }
}
