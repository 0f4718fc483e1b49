//! How often an identity may call: buckets, calls at once, calls in the session.
//!
//! Neighbours: `access::gate` has one of these for each identity. Never: reads a clock, or takes something for a call
//! that another limit refuses.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::policy::config::access::{Identity, Rate};
use crate::policy::pattern::Item;

/// A place among the calls that an identity may have at once, given back when it is dropped.
#[derive(Debug)]
pub struct Pass(Rc<Cell<u32>>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reached {
    /// This rate; there is room again after so long.
    Rate(Rate, Duration),
    Concurrent(u32),
    Quota(u32),
}

/// Credit is counted in nanoseconds times calls, so that nothing is rounded: a call costs `per`, and each nanosecond
/// gives `calls`.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    credit: u128,
    at: Duration,
}

impl Bucket {
    fn full(rate: &Rate) -> Self {
        let mut bucket = Self { rate: rate.clone(), credit: 0, at: Duration::ZERO };
        bucket.credit = bucket.most();
        bucket
    }

    const fn cost(&self) -> u128 {
        self.rate.per.as_nanos()
    }

    fn most(&self) -> u128 {
        self.cost().saturating_mul(u128::from(self.rate.burst))
    }

    /// Fills up to now. `None`: there is enough for a call; else how long that takes.
    fn lacks(&mut self, now: Duration) -> Option<Duration> {
        let calls = u128::from(self.rate.calls);
        let since = now.saturating_sub(self.at).as_nanos();
        self.credit = self.credit.saturating_add(since.saturating_mul(calls)).min(self.most());
        self.at = self.at.max(now);
        let lack = self.cost().checked_sub(self.credit).filter(|lack| *lack > 0)?;
        Some(Duration::from_nanos(u64::try_from(lack.div_ceil(calls.max(1))).unwrap_or(u64::MAX)))
    }

    fn take(&mut self) {
        self.credit = self.credit.saturating_sub(self.cost());
    }
}

/// What an identity has used.
#[derive(Debug)]
pub(super) struct Used {
    buckets: Vec<Bucket>,
    concurrent: Option<u32>,
    running: Rc<Cell<u32>>,
    quota: Option<u32>,
    calls: u32,
}

impl Used {
    pub(super) fn nothing(identity: &Identity) -> Self {
        Self {
            buckets: identity.rates.iter().map(Bucket::full).collect(),
            concurrent: identity.concurrent,
            running: Rc::default(),
            quota: identity.quota,
            calls: 0,
        }
    }

    /// Counts a call of these items.
    ///
    /// # Errors
    /// The limit that it would exceed; then nothing is counted.
    pub(super) fn call(&mut self, server: &str, items: &[Item], now: Duration) -> Result<Pass, Reached> {
        if let Some(quota) = self.quota.filter(|quota| self.calls >= *quota) {
            return Err(Reached::Quota(quota));
        }
        if let Some(most) = self.concurrent.filter(|most| self.running.get() >= *most) {
            return Err(Reached::Concurrent(most));
        }
        let about = |bucket: &&mut Bucket| items.iter().any(|item| bucket.rate.tools.covers(server, item));
        for bucket in self.buckets.iter_mut().filter(about) {
            if let Some(wait) = bucket.lacks(now) {
                return Err(Reached::Rate(bucket.rate.clone(), wait));
            }
        }
        self.buckets.iter_mut().filter(about).for_each(Bucket::take);
        self.calls = self.calls.saturating_add(1);
        self.running.set(self.running.get().saturating_add(1));
        Ok(Pass(Rc::clone(&self.running)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::pattern::{Kind, Pattern};

    fn rate(tools: &str, calls: u32, per: u64, burst: u32) -> Rate {
        Rate { tools: Pattern::parse(tools).unwrap(), calls, per: Duration::from_millis(per), burst }
    }

    fn call(used: &mut Used, tool: &str, at: Duration) -> Result<Pass, Reached> {
        used.call("git", &[Item { kind: Kind::Tool, name: tool.to_owned() }], at)
    }

    fn used(rates: Vec<Rate>, concurrent: Option<u32>, quota: Option<u32>) -> Used {
        Used::nothing(&Identity { roles: vec![], rates, concurrent, quota })
    }

    #[test]
    fn a_bucket_is_empty_and_full_again_to_the_nanosecond() {
        let mut used = used(vec![rate("git/a*", 3, 1000, 2)], None, None);
        let start = Duration::from_secs(100);
        assert!(call(&mut used, "a", start).is_ok() && call(&mut used, "ab", start).is_ok());
        let wait = match call(&mut used, "a", start) {
            Err(Reached::Rate(_, wait)) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        assert!(call(&mut used, "b", start).is_ok(), "another tool has no such rate");
        assert!(call(&mut used, "a", start + wait - Duration::from_nanos(1)).is_err());
        assert!(call(&mut used, "a", start + wait).is_ok());
        assert!(call(&mut used, "a", start + wait).is_err());
        // However long nobody calls, no more than the burst is kept; and a clock that goes back gives nothing.
        let later = start + Duration::from_secs(1_000_000);
        assert!(call(&mut used, "a", later).is_ok() && call(&mut used, "a", later).is_ok());
        assert!(call(&mut used, "a", later).is_err() && call(&mut used, "a", start).is_err());
    }

    #[test]
    fn what_one_limit_refuses_costs_nothing_of_the_others() {
        let mut used = used(vec![rate("git/*", 1, 60_000, 2), rate("git/b", 1, 60_000, 1)], None, Some(3));
        assert!(call(&mut used, "b", Duration::ZERO).is_ok());
        assert!(
            matches!(call(&mut used, "b", Duration::ZERO), Err(Reached::Rate(rate, _)) if rate.burst == 1)
        );
        assert!(call(&mut used, "a", Duration::ZERO).is_ok(), "the wider bucket has kept its call");
        assert!(
            matches!(call(&mut used, "a", Duration::ZERO), Err(Reached::Rate(rate, _)) if rate.burst == 2)
        );
        assert!(call(&mut used, "a", Duration::from_secs(60)).is_ok());
        assert_eq!(call(&mut used, "a", Duration::from_secs(600)).unwrap_err(), Reached::Quota(3));
    }

    #[test]
    fn a_place_is_free_again_when_its_call_has_ended() {
        let mut used = used(vec![], Some(2), None);
        let one = call(&mut used, "a", Duration::ZERO).unwrap();
        let _two = call(&mut used, "a", Duration::ZERO).unwrap();
        assert_eq!(call(&mut used, "b", Duration::ZERO).unwrap_err(), Reached::Concurrent(2));
        drop(one);
        assert!(call(&mut used, "b", Duration::ZERO).is_ok());
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_more_than_burst_and_rate(
            calls in 1_u32..5, per in 1_u64..50, burst in 1_u32..5, waits in prop::collection::vec(0_u64..40, 1..60),
        ) {
            let mut used = used(vec![rate("git/*", calls, per, burst)], None, None);
            let mut at = Duration::from_secs(1);
            let mut taken: Vec<Duration> = Vec::new();
            for wait in waits {
                at += Duration::from_millis(wait);
                if call(&mut used, "a", at).is_ok() {
                    taken.push(at);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let given = (to.as_millis() - from.as_millis()) * u128::from(calls) / u128::from(per);
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + given);
                }
            }
        }
    }
}
