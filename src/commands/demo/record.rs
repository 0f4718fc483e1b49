//! The `finished` records of the audit log, as far as the demonstration reads them.
//!
//! Neighbours: `client` reads the file line by line, `judge` asks what a record says. Never: writes one.

use serde_json::Value;

use crate::outcome::{Limit, Receipt, Status, Violation};

/// What one record says about its call.
#[derive(Debug)]
pub(super) struct Record {
    /// The tool that was called.
    pub(super) tool: String,
    /// What was refused.
    pub(super) violations: Vec<Violation>,
    status: Option<Status>,
    receipt: Option<Receipt>,
}

impl Record {
    /// A line of the log, if it is the record of a call that ended.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let member =
            |name: &str| value.get(name).or_else(|| value.get("call").and_then(|call| call.get(name)));
        let violations = serde_json::from_value(member("violations")?.clone()).ok()?;
        let tool = member("tool").or_else(|| member("target")).and_then(Value::as_str)?.to_owned();
        let status = member("status").and_then(|status| serde_json::from_value(status.clone()).ok());
        let receipt = member("receipt").and_then(|receipt| serde_json::from_value(receipt.clone()).ok());
        Some(Self { tool, violations, status, receipt })
    }

    /// The limit that ended the call, or that was hit in it.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self.status {
            Some(Status::Limit { limit }) => Some(limit),
            _ => self.violations.iter().find_map(|violation| violation.limit),
        }
    }

    /// The rung that was verified from inside the cell.
    pub(super) fn floor(&self) -> Option<String> {
        self.receipt.as_ref().map(|receipt| receipt.floor.name().to_owned())
    }

    /// Was this layer seen to be on from inside the cell?
    pub(super) fn verified(&self, layer: &str) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.layers.contains_key(layer))
    }
}
