//! What is unusual about a call, against what its tool did before. docs/alerts.md lists the rules.
//!
//! Neighbours: `guard::state` keeps the history, `policy::config::guard` the thresholds. Never: does I/O, reads the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::{Event, Seen};
use super::quarantine::Place;
use super::usual::Usual;
use crate::audit::Rule;
use crate::outcome::{Layer, Limit};
use crate::policy::config::guard::Anomalies;
use crate::policy::limits;
use crate::text::start_of;

/// Calls of which time and memory are kept.
const SAMPLES: usize = 64;
/// Destinations that are kept; beyond, none is new any more, and that is told once.
const DESTINATIONS: usize = 64;
/// Bytes of one.
const DESTINATION: usize = 128;

/// Upper bounds of the classes of durations, in microseconds; one more class has what is longer.
pub(super) const CLASSES: [u64; 13] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// What is kept of one tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Whether it may be called.
    pub place: Place,
    /// When it was called last, in microseconds after 1970.
    pub last: u64,
    /// Calls that ended, by status.
    pub statuses: BTreeMap<String, u64>,
    /// Different violations of its calls, by layer.
    pub violations: BTreeMap<Layer, u64>,
    /// Calls that ran, by class of their time.
    pub classes: BTreeMap<usize, u64>,
    /// The time of all of them, in microseconds.
    pub time: u64,
    /// The highest memory use of any.
    pub memory_most: u64,
    /// Calls in a row up to the last in which something was refused.
    refused: u32,
    /// Time of the last calls.
    times: VecDeque<u64>,
    /// Memory of the last calls.
    memory: VecDeque<u64>,
    /// What it tried to reach.
    destinations: BTreeSet<String>,
}

/// Something unusual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anomaly {
    pub(super) rule: Rule,
    /// One fragment.
    pub(super) what: String,
    pub(super) observed: Option<u64>,
    pub(super) usual: Option<u64>,
}

impl Anomaly {
    pub(super) const fn new(rule: Rule, what: String) -> Self {
        Self { rule, what, observed: None, usual: None }
    }
}

/// What is unusual about an event whatever was before.
pub(super) fn at_once(event: &Event, rules: &Anomalies) -> Vec<Anomaly> {
    let mut found = Vec::new();
    if let Some(why) = event.unrecorded.as_ref().filter(|_| rules.unrecorded) {
        found.push(Anomaly::new(Rule::Unrecorded, format!("its record is not in the log: {why}")));
    }
    if rules.unauthorised && event.is_unauthorised() {
        let tried = event.seen.iter().find(|seen| seen.layer == Layer::Access);
        let what = tried.map_or("", |seen| seen.operation.as_str());
        found.push(Anomaly::new(Rule::Unauthorised, format!("a request was refused: {what}")));
    }
    found
}

/// What a call tried to reach: another family of sockets, an address, a socket in the file system.
fn destination(seen: &Seen) -> Option<String> {
    let network = seen.operation.split(", ").any(|right| right.starts_with("net."))
        || matches!(
            seen.operation.as_str(),
            "socket" | "connect" | "bind" | "sendto" | "sendmsg" | "sendmmsg"
        );
    let whole = format!("{} {}", seen.operation, seen.object);
    network.then(|| start_of(whole.trim_end(), DESTINATION).to_owned())
}

fn keep(values: &mut VecDeque<u64>, value: u64) {
    if values.len() == SAMPLES {
        values.pop_front();
    }
    values.push_back(value);
}

impl Tool {
    /// Calls that ended.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Counts a call.
    pub(super) fn count(&mut self, event: &Event) {
        self.last = self.last.max(event.ended);
        *self.statuses.entry(event.status.clone()).or_default() += 1;
        for (layer, count) in &event.layers {
            *self.violations.entry(*layer).or_default() += count;
        }
        if event.ran {
            let class = CLASSES.iter().position(|most| event.wall_us <= *most).unwrap_or(CLASSES.len());
            *self.classes.entry(class).or_default() += 1;
            self.time = self.time.saturating_add(event.wall_us);
            self.memory_most = self.memory_most.max(event.memory.unwrap_or(0));
        }
    }

    /// Adds the counts of another tool, whose history goes.
    pub(super) fn take_over(&mut self, other: Self) {
        self.last = self.last.max(other.last);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (layer, count) in other.violations {
            *self.violations.entry(layer).or_default() += count;
        }
        for (class, count) in other.classes {
            *self.classes.entry(class).or_default() += count;
        }
        self.time = self.time.saturating_add(other.time);
        self.memory_most = self.memory_most.max(other.memory_most);
    }

    /// What is unusual about a call, which then is part of the history.
    pub(super) fn learn(&mut self, event: &Event, rules: &Anomalies) -> Vec<Anomaly> {
        let mut found = Vec::new();
        // That a tool is kept out says nothing new about it.
        if event.layers.contains_key(&Layer::Quarantine) {
            return found;
        }
        let refusals = event.status == "refused" || event.seen.iter().any(|seen| seen.limit.is_none());
        self.refused = if refusals { self.refused.saturating_add(1) } else { 0 };
        if let Some(most) =
            rules.refusals.filter(|most| self.refused > 0 && self.refused.is_multiple_of(*most))
        {
            let what = format!("{} calls in a row had something refused", self.refused);
            found.push(Anomaly {
                observed: Some(self.refused.into()),
                usual: Some(most.into()),
                ..Anomaly::new(Rule::Refusals, what)
            });
        }
        for destination in event.seen.iter().filter_map(destination) {
            if self.destinations.len() < DESTINATIONS && self.destinations.insert(destination.clone()) {
                let more = if self.destinations.len() == DESTINATIONS {
                    "; of further ones none is told"
                } else {
                    ""
                };
                let what = format!("it never tried this before: {destination}{more}");
                found.extend(rules.destination.then(|| Anomaly::new(Rule::Destination, what)));
            }
        }
        if event.ran {
            let after = usize::try_from(rules.after).unwrap_or(usize::MAX);
            let far = |values: &VecDeque<u64>, value: u64, factor: Option<u32>| {
                let usual = Usual::of(values.iter().copied()).filter(|_| values.len() >= after)?;
                factor.filter(|factor| usual.is_far(value, *factor)).map(|_| usual.median)
            };
            if let Some((memory, usual)) =
                event.memory.and_then(|memory| Some((memory, far(&self.memory, memory, rules.memory)?)))
            {
                let [shown, usually] = [memory, usual].map(|bytes| limits::print(Limit::Memory, bytes));
                let what = format!("it used {shown} of memory, and usually {usually}");
                found.push(Anomaly {
                    observed: Some(memory),
                    usual: Some(usual),
                    ..Anomaly::new(Rule::Memory, what)
                });
            }
            if let Some(usual) = far(&self.times, event.wall_us, rules.time) {
                let what = format!("it took {} ms, and usually {}", event.wall_us / 1000, usual / 1000);
                let observed = Some(event.wall_us);
                found.push(Anomaly { observed, usual: Some(usual), ..Anomaly::new(Rule::Time, what) });
            }
            keep(&mut self.times, event.wall_us);
            event.memory.into_iter().for_each(|memory| keep(&mut self.memory, memory));
        }
        found
    }
}

#[cfg(test)]
mod tests;
