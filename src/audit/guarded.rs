//! The records of what is unusual and of tools that are kept out: alerts with who was told of them, steps of quarantine.
//!
//! Neighbours: `guard` makes and writes them, `audit::summary` adds them up. Never: reads the clock; holds text without a
//! bound, but for what `guard` has bounded already.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::record::SCHEMA;
use super::stamp::rfc3339;

/// The name and version of the form in which hooks get an alert.
pub const ALERT_SCHEMA: &str = "toolcell.alert/1";

/// Why an alert was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// `anomalies.refusals`
    Refusals,
    /// `anomalies.destination`
    Destination,
    /// `anomalies.memory`
    Memory,
    /// `anomalies.time`
    Time,
    /// `anomalies.first-call`
    FirstCall,
    /// `anomalies.unauthorised`
    Unauthorised,
    /// `anomalies.unrecorded`
    Unrecorded,
    /// A step of quarantine.
    Quarantine,
    /// Alerts that were too many to be told one by one.
    Storm,
    /// The guard itself cannot do its work.
    Guard,
}

impl Rule {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Destination => "destination",
            Self::Memory => "memory",
            Self::Time => "time",
            Self::FirstCall => "first-call",
            Self::Unauthorised => "unauthorised",
            Self::Unrecorded => "unrecorded",
            Self::Quarantine => "quarantine",
            Self::Storm => "storm",
            Self::Guard => "guard",
        }
    }
}

/// What hooks are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// [`ALERT_SCHEMA`]
    pub schema: String,
    /// By which rule.
    pub rule: Rule,
    /// Which server.
    pub server: String,
    /// Which tool, prompt or resource, or the method.
    pub tool: String,
    /// The call's id, or nothing where it is about none.
    pub call: Option<String>,
    /// Who called.
    pub who: String,
    /// When the request came that it is about, in UTC by RFC 3339; of several, the first.
    pub attempted: String,
    /// What is unusual, one fragment.
    pub what: String,
    /// The number that is.
    pub observed: Option<u64>,
    /// What it usually is, or its threshold.
    pub usual: Option<u64>,
    /// How many alerts this one stands for.
    pub count: u64,
    /// Whether the record of the call is in the log.
    pub recorded: bool,
}

/// What became of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// `command`, `file` or `syslog`.
    pub hook: String,
    /// When it had finished, in UTC by RFC 3339.
    pub finished: String,
    /// Microseconds from the attempt to that.
    pub after_us: u64,
    /// Why it failed; `null` when it did not.
    pub failed: Option<String>,
}

/// Written when every hook has finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerted {
    /// [`SCHEMA`]
    pub schema: String,
    /// `alert`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// What was told.
    pub alert: Alert,
    /// To whom.
    pub hooks: Vec<Hook>,
    /// Microseconds from the attempt to the end of the first hook that worked; `null` when none did, or there is none.
    pub alerted_us: Option<u64>,
}

impl Alerted {
    /// The record of an alert and its hooks.
    #[must_use]
    pub fn new(alert: Alert, hooks: Vec<Hook>, now: SystemTime) -> Self {
        let worked = hooks.iter().filter(|hook| hook.failed.is_none());
        Self {
            schema: SCHEMA.to_owned(),
            event: "alert".to_owned(),
            time: rfc3339(now),
            alerted_us: worked.map(|hook| hook.after_us).min(),
            alert,
            hooks,
        }
    }
}

/// Written before a step of quarantine has an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// [`SCHEMA`]
    pub schema: String,
    /// `quarantine`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// Which server.
    pub server: String,
    /// Which tool.
    pub tool: String,
    /// `refused`, `tried`, `restored`, `kept-out` or `released`.
    pub step: String,
    /// Why.
    pub because: String,
    /// Until when it is refused, in UTC by RFC 3339, where there is an end.
    pub until: Option<String>,
    /// The call that led to it, or `null` when a person did.
    pub call: Option<String>,
}

impl Quarantined {
    /// The record of a step.
    #[must_use]
    pub fn new((server, tool): (&str, &str), step: &str, because: &str, now: SystemTime) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            event: "quarantine".to_owned(),
            time: rfc3339(now),
            server: server.to_owned(),
            tool: tool.to_owned(),
            step: step.to_owned(),
            because: because.to_owned(),
            until: None,
            call: None,
        }
    }
}
