//! How many servers are to be started before their calls: as many as the last calls would have needed.
//!
//! A call that comes while the server for it is still starting has come too early; so the most calls that came within the
//! time of one start is how many would have to wait for calls, for all of those to find one. Calls of long ago count no more.
//!
//! Neighbours: [`super`] tells what happens, and asks. Never: looks at a clock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Calls of the last ten minutes count.
const COUNTS: Duration = Duration::from_secs(10 * 60);
/// More need not be remembered than servers may be started.
const REMEMBERED: usize = 4 * super::MOST;

/// What is known of the calls of one grant.
#[derive(Debug, Default)]
pub(super) struct Demand {
    calls: VecDeque<Instant>,
    /// How long the last server took until it could have been called.
    start: Duration,
}

impl Demand {
    /// One more call has come.
    pub(super) fn called(&mut self, now: Instant) {
        if self.calls.len() == REMEMBERED {
            self.calls.pop_front();
        }
        self.calls.push_back(now);
    }

    /// A server was started.
    pub(super) fn started(&mut self, took: Duration) {
        self.start = took;
    }

    /// How many are to be there.
    pub(super) fn wanted(&self, now: Instant) -> usize {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < COUNTS;
        let calls: Vec<Instant> = self.calls.iter().filter(recent).copied().collect();
        let within = |(at, first): (usize, &Instant)| {
            let calls = calls.iter().skip(at);
            calls.take_while(|call| call.saturating_duration_since(*first) <= self.start).count()
        };
        calls.iter().enumerate().map(within).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(calls: &[u64], start: u64) -> (Demand, Instant) {
        let begin = Instant::now();
        let mut demand = Demand::default();
        calls.iter().for_each(|at| demand.called(begin + Duration::from_millis(*at)));
        demand.started(Duration::from_millis(start));
        (demand, begin)
    }

    #[test]
    fn calls_within_the_time_of_a_start_are_as_many_as_are_wanted() {
        let wanted = |calls: &[u64], start, now| {
            let (demand, begin) = of(calls, start);
            demand.wanted(begin + Duration::from_millis(now))
        };
        assert_eq!(wanted(&[], 500, 0), 0);
        assert_eq!(wanted(&[0], 500, 0), 1);
        assert_eq!(wanted(&[0, 501, 1002], 500, 1002), 1);
        assert_eq!(wanted(&[0, 500, 1000], 500, 1000), 2);
        assert_eq!(wanted(&[0, 100, 200, 5000], 500, 5000), 3);
        // A crowd of long ago is forgotten, and so is the last call in the end.
        assert_eq!(wanted(&[0, 1, 2, 300_000], 500, 600_000), 2);
        assert_eq!(wanted(&[0, 1, 2, 300_000], 500, 600_002), 1);
        assert_eq!(wanted(&[0, 1, 2, 300_000], 500, 900_000), 0);
    }

    proptest! {
        #[test]
        fn a_slower_start_wants_no_fewer_and_nothing_wants_more_than_came(
            mut calls in proptest::collection::vec(0..10_000_u64, 0..300),
            start in 0..2000_u64,
        ) {
            calls.sort_unstable();
            let now = calls.last().copied().unwrap_or(0);
            let wanted = |start| {
                let (demand, begin) = of(&calls, start);
                demand.wanted(begin + Duration::from_millis(now))
            };
            prop_assert!(wanted(start) <= wanted(start + 100));
            prop_assert!(wanted(start) <= calls.len().min(REMEMBERED));
            prop_assert_eq!(wanted(start) == 0, calls.is_empty());
        }
    }
}
