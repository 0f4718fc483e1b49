//! The records of calls in the audit log, as far as the demonstration reads them (docs/audit.md).
//!
//! Neighbours: `client` reads the file line by line, `judge` asks what a record says. Never: writes one.

use serde::Deserialize;

use super::stage::ARGUMENT;
use crate::outcome::{Built, Coverage, Granted, Layer, Limit, Receipt, Status, Traffic, Violation};

/// What one record says about its call.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    event: String,
    call: Called,
    status: Status,
    /// What was refused.
    pub(super) violations: Vec<Violation>,
    receipt: Option<Receipt>,
    #[serde(default)]
    traffic: Option<Traffic>,
    /// The call had what it named.
    #[serde(skip)]
    pub(super) named: bool,
}

/// What the record of a call that starts says, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Started {
    event: String,
    call: Called,
    granted: Vec<Granted>,
}

/// The id of the call of which this line of the log says that it starts, and has what its arguments name.
pub(super) fn names(line: &[u8]) -> Option<String> {
    let by = format!("/arguments/{ARGUMENT}");
    let started: Started = serde_json::from_slice(line).ok()?;
    let named = started.granted.iter().any(|granted| granted.by.as_deref() == Some(&by));
    (started.event == "started" && named).then_some(started.call.id)
}

/// The call that a record is about.
#[derive(Debug, Deserialize)]
struct Called {
    id: String,
    target: Option<String>,
}

impl Record {
    /// A line of the log, if it is the record of a call that ended.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().filter(|record: &Self| record.event == "finished")
    }

    /// The id of the call.
    pub(super) fn id(&self) -> &str {
        &self.call.id
    }

    /// Is it about a call of a tool in the session of this supervisor?
    pub(super) fn is_of_call_in(&self, supervisor: u32) -> bool {
        // The id ends with the supervisor's process id and a number.
        let made_by = self.call.id.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
        self.call.target.is_some() && made_by == Some(supervisor)
    }

    /// Is it about a call of this tool?
    pub(super) fn is_of(&self, tool: &str) -> bool {
        self.call.target.as_deref() == Some(tool)
    }

    /// The limit that ended the call, or that was hit in it.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self.status {
            Status::Limit { limit } => Some(limit),
            _ => self.violations.iter().find_map(|violation| violation.limit),
        }
    }

    /// The rung that was verified from inside the cell.
    pub(super) fn floor(&self) -> Option<String> {
        self.receipt.as_ref().map(|receipt| receipt.floor.name().to_owned())
    }

    /// When the cell was built.
    pub(super) fn cell(&self) -> Option<Built> {
        self.receipt.as_ref().map(|receipt| receipt.cell)
    }

    /// Had the cell doors?
    pub(super) const fn is_open(&self) -> bool {
        self.traffic.is_some()
    }

    /// Does all that this layer refused stand in the record?
    pub(super) fn tells(&self, layer: Layer) -> bool {
        let coverage = self.receipt.as_ref().and_then(|receipt| receipt.coverage.get(layer.name()));
        coverage == Some(&Coverage::Complete)
    }

    /// Was this layer seen to be on from inside the cell?
    pub(super) fn verified(&self, layer: &str) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.layers.contains_key(layer))
    }
}
