//! Alerts that are about to be told: those of one kind are one for a time, and there are no more than so many in it.
//!
//! Neighbours: `guard::process` offers each, `guard::hooks` tells what comes out. Never: reads the clock; loses an alert
//! without a count of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::audit::{Alert, Rule};

/// An alert, and when the request came that it is about, in microseconds after 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) alert: Alert,
    pub(super) attempted: u64,
}

impl Pending {
    /// One more of the same kind: what the last one says, since when the first one was.
    fn merge(held: &mut Option<Self>, next: Self) {
        *held = Some(match held.take() {
            None => next,
            Some(first) => Self {
                attempted: first.attempted,
                alert: Alert {
                    count: first.alert.count.saturating_add(next.alert.count),
                    recorded: first.alert.recorded && next.alert.recorded,
                    attempted: first.alert.attempted,
                    ..next.alert
                },
            },
        });
    }
}

#[derive(Debug)]
struct Kind {
    until: Instant,
    held: Option<Pending>,
}

/// Holds back what is too much.
#[derive(Debug)]
pub(super) struct Bounded {
    every: Duration,
    most: u32,
    kinds: BTreeMap<(Rule, String), Kind>,
    /// The end of the time in which `told` were told.
    until: Option<Instant>,
    told: u32,
    rest: Option<Pending>,
}

impl Bounded {
    pub(super) const fn new(every: Duration, most: u32) -> Self {
        Self { every, most, kinds: BTreeMap::new(), until: None, told: 0, rest: None }
    }

    /// Gives the alert back if it is to be told at once.
    pub(super) fn offer(&mut self, alert: Pending, now: Instant) -> Option<Pending> {
        let key = (alert.alert.rule, alert.alert.tool.clone());
        if let Some(kind) = self.kinds.get_mut(&key).filter(|kind| kind.until > now) {
            Pending::merge(&mut kind.held, alert);
            return None;
        }
        if self.until.is_none_or(|until| until <= now) {
            (self.until, self.told) = (Some(now + self.every), 0);
        }
        if self.told >= self.most {
            let what = format!("{} alerts were told; the last of the rest: {}", self.told, alert.alert.what);
            let alert = Pending { alert: Alert { rule: Rule::Storm, what, ..alert.alert }, ..alert };
            Pending::merge(&mut self.rest, alert);
            return None;
        }
        self.told += 1;
        // One that waits since before its time was over comes with this one.
        let mut together = self.kinds.remove(&key).and_then(|kind| kind.held);
        Pending::merge(&mut together, alert);
        self.kinds.insert(key, Kind { until: now + self.every, held: None });
        together
    }

    /// What was held back, and has waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Pending> {
        let mut due = Vec::new();
        let (every, most) = (self.every, self.most);
        self.kinds.retain(|_, kind| {
            if kind.until > now {
                return true;
            }
            let held = kind.held.take();
            kind.until = now + every;
            let again = held.is_some();
            due.extend(held);
            again
        });
        if self.until.is_some_and(|until| until <= now) {
            due.extend(self.rest.take());
            (self.until, self.told) = (Some(now + every), u32::try_from(due.len()).unwrap_or(most));
        }
        due
    }

    /// All that was held back.
    pub(super) fn rest(&mut self) -> Vec<Pending> {
        let held = std::mem::take(&mut self.kinds).into_values().filter_map(|kind| kind.held);
        held.chain(self.rest.take()).collect()
    }

    /// When something is due, if something waits.
    pub(super) fn next(&self) -> Option<Instant> {
        let kinds = self.kinds.values().filter(|kind| kind.held.is_some()).map(|kind| kind.until);
        kinds.chain(self.until.filter(|_| self.rest.is_some())).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::ALERT_SCHEMA;

    fn alert(rule: Rule, tool: &str, attempted: u64) -> Pending {
        let alert = Alert {
            schema: ALERT_SCHEMA.to_owned(),
            rule,
            server: "s".to_owned(),
            tool: tool.to_owned(),
            call: None,
            who: String::new(),
            attempted: attempted.to_string(),
            what: attempted.to_string(),
            observed: None,
            usual: None,
            count: 1,
            recorded: true,
        };
        Pending { alert, attempted }
    }

    #[test]
    fn those_of_one_kind_are_one_for_a_time() {
        let (start, every) = (Instant::now(), Duration::from_secs(60));
        let mut bounded = Bounded::new(every, 20);
        assert_eq!(bounded.offer(alert(Rule::Time, "a", 1), start), Some(alert(Rule::Time, "a", 1)));
        assert!(bounded.offer(alert(Rule::Time, "b", 1), start).is_some());
        assert!(bounded.offer(alert(Rule::Memory, "a", 1), start).is_some());
        assert_eq!(bounded.next(), None);
        for number in 2..5 {
            assert_eq!(bounded.offer(alert(Rule::Time, "a", number), start), None);
        }
        assert_eq!((bounded.next(), bounded.due(start)), (Some(start + every), vec![]));
        let [held] = bounded.due(start + every).try_into().unwrap();
        assert_eq!((held.alert.count, held.attempted), (3, 2));
        assert_eq!((held.alert.attempted.as_str(), held.alert.what.as_str()), ("2", "4"));
        assert_eq!((bounded.next(), bounded.rest()), (None, vec![]));
    }

    #[test]
    fn a_storm_is_a_few_alerts_and_a_count() {
        let start = Instant::now();
        let mut bounded = Bounded::new(Duration::from_secs(60), 3);
        let told: Vec<_> = (0..1000)
            .filter_map(|number| bounded.offer(alert(Rule::FirstCall, &number.to_string(), number), start))
            .collect();
        assert_eq!(told.len(), 3);
        let [rest] = bounded.due(start + Duration::from_secs(60)).try_into().unwrap();
        assert_eq!((rest.alert.rule, rest.alert.count, rest.attempted), (Rule::Storm, 997, 3));
    }

    proptest! {
        /// Every alert is told or counted in one that is, and in no time of `every`, wherever it begins, more than twice
        /// `most` come at once.
        #[test]
        fn none_is_lost(offers in proptest::collection::vec((0_u64..40, 0_u8..9, 0_u64..40), 0..200)) {
            let (start, mut bounded, mut passed) = (Instant::now(), Bounded::new(Duration::from_secs(30), 2), 0);
            let (mut offered, mut told, mut at_once) = (0, 0, Vec::new());
            for (later, tool, attempted) in offers {
                passed += later;
                let now = start + Duration::from_secs(passed);
                told += bounded.due(now).iter().map(|due| due.alert.count).sum::<u64>();
                offered += 1;
                if let Some(alert) = bounded.offer(alert(Rule::Time, &tool.to_string(), attempted), now) {
                    told += alert.alert.count;
                    at_once.push(passed);
                }
            }
            told += bounded.rest().iter().map(|rest| rest.alert.count).sum::<u64>();
            prop_assert_eq!(told, offered);
            for window in at_once.windows(5) {
                prop_assert!(window[4] - window[0] >= 30);
            }
        }
    }
}
