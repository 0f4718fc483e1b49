//! What many `finished` records say together: by tool, by layer and day, by caller; and what was refused.
//!
//! Neighbours: `commands::audit` reads the records and shows a [`Summary`]. Never: reads a clock; says a figure that the
//! records do not have.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::guarded::{Alerted, Quarantined, Rule};
use super::record::Finished;
use crate::outcome::{Layer, Status};

/// Steps of quarantine that are kept: the last.
const STEPS_MOST: usize = 200;
/// Different refusals that are kept; the rest is counted together.
const REFUSALS_MOST: usize = 500;

/// The name of a status.
#[must_use]
pub const fn status_name(status: &Status) -> &'static str {
    match status {
        Status::Completed => "completed",
        Status::Failed { .. } => "failed",
        Status::Limit { .. } => "limit",
        Status::Cancelled => "cancelled",
        Status::Refused { .. } => "refused",
        Status::Died { .. } => "died",
    }
}

/// Median and highest of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of the values are not above it.
    pub median: u64,
    /// 95 of 100 are not above it.
    pub p95: u64,
    /// The highest.
    pub max: u64,
}

impl Spread {
    /// Of these values, if there are any.
    #[must_use]
    pub fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        // The smallest value that so many hundredths are not above.
        let rank = |hundredths: usize| {
            sorted.get((sorted.len() * hundredths).div_ceil(100).saturating_sub(1)).copied()
        };
        Some(Self { median: rank(50)?, p95: rank(95)?, max: *sorted.last()? })
    }
}

/// The calls of one tool of one server.
#[derive(Debug, Clone, Default)]
pub struct Tool {
    /// How many.
    pub calls: u64,
    /// By status.
    pub statuses: BTreeMap<&'static str, u64>,
    /// Violations in them, as often as each happened.
    pub violations: u64,
    /// How long each took, in microseconds.
    pub durations: Vec<u64>,
    /// The highest memory use of each that was counted, in bytes.
    pub memory: Vec<u64>,
}

/// One kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Which layer.
    pub layer: Layer,
    /// What was tried, and on what.
    pub what: String,
    /// By which rule.
    pub rule: String,
    /// The line that would allow it.
    pub allow: Option<String>,
}

/// How often secrets with a `max-age` were asked for by a call, and how old they were then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// How often.
    pub uses: u64,
    /// Of these, by secrets that were due to be rotated,
    pub due: u64,
    /// or too old, so that the call was refused.
    pub overdue: u64,
    /// Hundredths of a percent that were not overdue.
    pub in_time: u64,
}

/// The figures about security that a log can give.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Microseconds from an attempt that `[auth]` or a role refused to its record, by which who follows the log learns of it.
    pub attempt_to_record_us: Option<Spread>,
    /// Microseconds from such an attempt to the end of the first hook that was told of it.
    pub attempt_to_alert_us: Option<Spread>,
    /// Such attempts of which a hook was to be told, and none was.
    pub attempts_untold: u64,
    /// Hundredths of a percent of the calls that showed an identity that is known; `None` where none ever did and none was
    /// refused for it.
    pub authenticated: Option<u64>,
    /// How often a limit was hit, by day.
    pub limits_by_day: BTreeMap<String, u64>,
    /// Whether secrets were rotated in time; `None` where no call asked for one with a `max-age`.
    pub rotation: Option<Rotation>,
}

/// The alerts of one rule.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    /// How many, of one kind together as often as each happened.
    pub count: u64,
    /// Those of which somebody was told: how long after the request, in microseconds.
    pub told: Vec<u64>,
    /// Those of which a hook was to be told, and none was.
    pub untold: u64,
}

/// What was added up.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Calls that ended.
    pub calls: u64,
    /// By status.
    pub statuses: BTreeMap<&'static str, u64>,
    /// By server and tool, or method where there is none.
    pub tools: BTreeMap<(String, String), Tool>,
    /// Calls by day.
    pub days: BTreeMap<String, u64>,
    /// The same by how they ended.
    pub by_status: BTreeMap<(String, &'static str), u64>,
    /// Violations by day and layer, as often as each happened.
    pub violations: BTreeMap<(String, Layer), u64>,
    /// Calls by who, server and tool.
    pub callers: BTreeMap<(String, String, String), u64>,
    /// What was refused, and how often.
    pub refusals: BTreeMap<Refusal, u64>,
    /// Refusals that were too many to keep apart.
    pub refusals_left_out: u64,
    /// Time of the first and of the last record.
    pub times: Option<(String, String)>,
    /// Alerts by rule.
    pub alerts: BTreeMap<Rule, Alerts>,
    /// The last steps of quarantine.
    pub steps: VecDeque<Quarantined>,
    limits: BTreeMap<String, u64>,
    attempts: Vec<u64>,
    identified: u64,
    rotation: Rotation,
}

/// What a record's call is about: the tool, prompt or resource, else the method.
#[must_use]
pub fn tool_of(record: &Finished) -> &str {
    record.call.target.as_deref().unwrap_or(&record.call.method)
}

/// Who made the call: the identity that was shown, else what the client says of itself.
#[must_use]
pub fn caller_of(record: &Finished) -> &str {
    record.call.identity.as_deref().unwrap_or(&record.call.who)
}

impl Summary {
    /// Adds one record.
    pub fn add(&mut self, record: &Finished) {
        let day = record.time.get(..10).unwrap_or_default().to_owned();
        let (server, name) = (record.call.server.clone(), tool_of(record).to_owned());
        let status = status_name(&record.status);
        self.calls += 1;
        *self.statuses.entry(status).or_default() += 1;
        *self.days.entry(day.clone()).or_default() += 1;
        *self.by_status.entry((day.clone(), status)).or_default() += 1;
        let caller = (caller_of(record).to_owned(), server.clone(), name.clone());
        *self.callers.entry(caller).or_default() += 1;
        let tool = self.tools.entry((server, name)).or_default();
        tool.calls += 1;
        *tool.statuses.entry(status).or_default() += 1;
        tool.durations.push(record.duration_us);
        tool.memory.extend(record.usage.memory_peak);
        let mut turned_away = false;
        for violation in &record.violations {
            tool.violations = tool.violations.saturating_add(violation.count);
            let by_layer = self.violations.entry((day.clone(), violation.layer)).or_default();
            *by_layer = by_layer.saturating_add(violation.count);
            if violation.limit.is_some() {
                let by_day = self.limits.entry(day.clone()).or_default();
                *by_day = by_day.saturating_add(violation.count);
            }
            turned_away |= violation.layer == Layer::Access;
            let object =
                if violation.object.is_empty() { String::new() } else { format!(" {}", violation.object) };
            let refusal = Refusal {
                layer: violation.layer,
                what: format!("{}{object}", violation.operation),
                rule: violation.rule.clone(),
                allow: violation.allow.clone(),
            };
            if self.refusals.len() < REFUSALS_MOST || self.refusals.contains_key(&refusal) {
                let count = self.refusals.entry(refusal).or_default();
                *count = count.saturating_add(violation.count);
            } else {
                self.refusals_left_out = self.refusals_left_out.saturating_add(violation.count);
            }
        }
        for used in record.secrets.iter().filter(|used| used.max_age_s.is_some()) {
            let Rotation { uses, due, overdue, .. } = &mut self.rotation;
            match used.state.as_str() {
                "fresh" => {}
                "due" => *due += 1,
                "overdue" => *overdue += 1,
                // Of what could not be read nobody knows the age.
                _ => continue,
            }
            *uses += 1;
        }
        if turned_away {
            self.attempts.push(record.duration_us);
        }
        self.identified += u64::from(record.call.identity.is_some());
        let first = self.times.take().map_or_else(|| record.time.clone(), |(first, _)| first);
        self.times = Some((first, record.time.clone()));
    }

    /// Adds an alert.
    pub fn alert(&mut self, record: &Alerted) {
        let alerts = self.alerts.entry(record.alert.rule).or_default();
        alerts.count = alerts.count.saturating_add(record.alert.count);
        match record.alerted_us {
            Some(after) => alerts.told.push(after),
            None if record.hooks.is_empty() => {}
            None => alerts.untold = alerts.untold.saturating_add(record.alert.count),
        }
    }

    /// Adds a step of quarantine.
    pub fn step(&mut self, record: Quarantined) {
        if self.steps.len() == STEPS_MOST {
            self.steps.pop_front();
        }
        self.steps.push_back(record);
    }

    /// The figures about security.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let attempts = self.alerts.get(&Rule::Unauthorised);
        let asked = self.identified > 0 || !self.attempts.is_empty();
        Figures {
            attempt_to_record_us: Spread::of(&self.attempts),
            attempt_to_alert_us: attempts.and_then(|attempts| Spread::of(&attempts.told)),
            attempts_untold: attempts.map_or(0, |attempts| attempts.untold),
            authenticated: asked.then(|| self.identified * 10_000 / self.calls.max(1)),
            limits_by_day: self
                .days
                .keys()
                .map(|day| (day.clone(), self.limits.get(day).copied().unwrap_or(0)))
                .collect(),
            rotation: (self.rotation.uses > 0).then(|| {
                let Rotation { uses, overdue, .. } = self.rotation;
                Rotation { in_time: (uses - overdue) * 10_000 / uses, ..self.rotation }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::record::Ended;
    use super::*;
    use crate::call::Call;
    use crate::outcome::{Evidence, Limit, SecretUse, Usage, Violation};

    fn violation(layer: Layer, limit: Option<Limit>, count: u64) -> Violation {
        Violation {
            layer,
            limit,
            operation: "socket".to_owned(),
            object: "AF_INET".to_owned(),
            errno: None,
            count,
            value: None,
            peak: None,
            rule: "the rule".to_owned(),
            allow: Some("a = 1".to_owned()),
            evidence: Evidence::Kernel,
            first_us: None,
            last_us: None,
        }
    }

    fn record(
        tool: &str,
        identity: Option<&str>,
        status: Status,
        violations: Vec<Violation>,
        micros: u64,
    ) -> Finished {
        let call = Call {
            who: "c/1 uid 0".to_owned(),
            profile: "default".to_owned(),
            identity: identity.map(str::to_owned),
            ..Call::example(tool)
        };
        let ended = Ended {
            now: SystemTime::UNIX_EPOCH,
            duration: Duration::from_micros(micros),
            status,
            usage: Usage { memory_peak: Some(micros * 10), ..Usage::default() },
            violations,
            receipt: None,
            stderr: vec![],
            secrets: vec![],
            changes: None,
            traffic: None,
        };
        Finished::new(&call, &[], ended)
    }

    #[test]
    fn records_are_added_up_by_tool_layer_and_caller() {
        let mut summary = Summary::default();
        for micros in 1..=100 {
            summary.add(&record("a", None, Status::Completed, vec![], micros));
        }
        let memory = violation(Layer::Cgroup, Some(Limit::Memory), 2);
        let limit = Status::Limit { limit: Limit::Memory };
        summary.add(&record("b", None, limit, vec![memory, violation(Layer::Seccomp, None, 5)], 7));
        let a = &summary.tools[&("s".to_owned(), "a".to_owned())];
        assert_eq!(Spread::of(&a.durations), Some(Spread { median: 50, p95: 95, max: 100 }));
        assert_eq!(Spread::of(&a.memory).unwrap().max, 1000);
        assert_eq!(summary.statuses, BTreeMap::from([("completed", 100), ("limit", 1)]));
        let day = "1970-01-01".to_owned();
        assert_eq!(summary.violations[&(day.clone(), Layer::Seccomp)], 5);
        assert_eq!(summary.refusals.values().copied().collect::<Vec<_>>(), [5, 2]);
        assert_eq!(summary.callers[&("c/1 uid 0".to_owned(), "s".to_owned(), "a".to_owned())], 100);
        let figures = summary.figures();
        assert_eq!(figures.limits_by_day, BTreeMap::from([(day, 2)]));
        // Nobody was asked who they are, so there is nothing to say about it.
        assert_eq!((figures.attempt_to_record_us, figures.authenticated), (None, None));
    }

    #[test]
    fn who_was_turned_away_and_who_was_known_is_told() {
        let mut summary = Summary::default();
        let refused = Status::Refused { detail: "no".to_owned() };
        summary.add(&record("a", None, refused, vec![violation(Layer::Access, None, 1)], 40));
        for _ in 0..2 {
            summary.add(&record("a", Some("alice"), Status::Completed, vec![], 1));
        }
        let figures = summary.figures();
        assert_eq!(figures.attempt_to_record_us.unwrap().max, 40);
        assert_eq!(figures.authenticated, Some(6666));
    }

    #[test]
    fn secrets_that_were_rotated_in_time_are_told_from_others() {
        let used = |state: &str, max_age_s: Option<u64>| SecretUse {
            name: "s".to_owned(),
            into: "env S".to_owned(),
            state: state.to_owned(),
            age_s: Some(7),
            max_age_s,
            redacted: vec![],
        };
        let mut summary = Summary::default();
        let mut record = record("a", None, Status::Completed, vec![], 1);
        record.secrets = vec![used("fresh", None), used("unreadable", Some(9))];
        summary.add(&record);
        assert_eq!(summary.figures().rotation, None);
        record.secrets = vec![used("fresh", Some(9)), used("due", Some(9)), used("overdue", Some(9))];
        summary.add(&record);
        let found = Rotation { uses: 3, due: 1, overdue: 1, in_time: 6666 };
        assert_eq!(summary.figures().rotation, Some(found));
    }

    #[test]
    fn different_refusals_are_bounded_and_the_rest_is_counted() {
        let mut summary = Summary::default();
        for number in 0..REFUSALS_MOST + 3 {
            let violation = Violation { object: number.to_string(), ..violation(Layer::Seccomp, None, 2) };
            summary.add(&record("a", None, Status::Completed, vec![violation], 1));
        }
        assert_eq!((summary.refusals.len(), summary.refusals_left_out), (REFUSALS_MOST, 6));
        assert_eq!(Spread::of(&[]), None);
    }
}
