//! The records of one call: what is written before it starts and when it has ended. The schema is versioned and
//! documented in docs/audit.md; the report of `exec` is the same `finished` record.
//!
//! Neighbours: `session` and `commands::exec` make them, `audit::log` writes them. Never: reads the clock; holds
//! text without a bound.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::{Hash, Link};
use super::parameters::{Parameters, REDACTED, touches};
use super::stamp::rfc3339;
use crate::call::Call;
use crate::outcome::{
    Change, Changes, Connection, Evidence, Granted, Layer, Receipt, Redaction, SecretUse, Status, Traffic,
    Usage, Violation,
};
use crate::policy::tokens::to_hex;
use crate::text::{from_bytes, start_of};

/// The name and version of the schema, in each record.
pub const SCHEMA: &str = "toolcell.record/1";

/// Bytes that a text keeps before it is cut.
pub const TEXT_MOST: usize = 1024;
/// Violations that a record keeps.
const VIOLATIONS_MOST: usize = 64;
/// Granted paths that a record keeps.
const GRANTED_MOST: usize = 64;
/// Layers that a receipt keeps; there are not as many.
const LAYERS_MOST: usize = 32;
/// Secrets of a call that a record keeps, and places of each.
const SECRETS_MOST: usize = 64;
/// Changed files that a record keeps.
const CHANGES_MOST: usize = 64;
/// Connections that a record keeps.
const CONNECTIONS_MOST: usize = 64;
/// Lines that are kept of the end of stderr.
const STDERR_MOST: usize = 20;

/// Written before the call starts; a call whose `started` record cannot be written is not started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// [`SCHEMA`]
    pub schema: String,
    /// `started`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// Who asks which server for what.
    pub call: Call,
    /// With which parameters, if there are any.
    pub parameters: Option<Parameters>,
    /// What is left to a call that its arguments or its client narrow of what its profile grants.
    #[serde(default)]
    pub granted: Vec<Granted>,
    /// How much more of it there is than the record holds.
    #[serde(default)]
    pub granted_left_out: u64,
}

impl Started {
    /// The record of a call that is about to start. `redact` is the policy's list of JSON Pointers.
    #[must_use]
    pub fn new(call: &Call, parameters: Option<&RawValue>, redact: &[String], now: SystemTime) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            event: "started".to_owned(),
            time: rfc3339(now),
            call: bounded_call(call, redact),
            parameters: parameters.map(|raw| Parameters::new(raw, redact)),
            granted: Vec::new(),
            granted_left_out: 0,
        }
    }

    /// The same with what the call is granted. A path is a copy of the parameter that it stems from, and redacted with it; without
    /// one it may stem from any of what the client says.
    #[must_use]
    pub fn with_granted(self, granted: &[Granted], redact: &[String]) -> Self {
        let left_out = granted.len().saturating_sub(GRANTED_MOST);
        let kept = granted.iter().take(GRANTED_MOST).map(|granted| {
            let place = granted.by.as_deref().unwrap_or("/_meta");
            let hidden = redact.iter().any(|pointer| touches(pointer, place));
            Granted {
                access: granted.access.clone(),
                path: if hidden { REDACTED.to_owned() } else { bounded(&granted.path) },
                by: granted.by.as_deref().map(bounded),
            }
        });
        Self {
            granted: kept.collect(),
            granted_left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            ..self
        }
    }
}

/// Written in front of the next record where the log ends in something else: what a writer that was killed left of a
/// line. From then on that is as it was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Torn {
    /// [`SCHEMA`]
    pub schema: String,
    /// `torn`
    pub event: String,
    /// When it was found, in UTC by RFC 3339.
    pub time: String,
    /// How many bytes stand between the last whole record and this one.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
}

impl Torn {
    /// The record of so many bytes with this digest.
    #[must_use]
    pub fn new(bytes: u64, digest: &Hash, now: SystemTime) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            event: "torn".to_owned(),
            time: rfc3339(now),
            bytes,
            sha256: to_hex(digest),
        }
    }
}

/// The first record of a log that goes on where an earlier file ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Continued {
    /// [`SCHEMA`]
    pub schema: String,
    /// `continued`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// The name of the earlier file; empty where the log itself was removed.
    pub previous: String,
    /// How many records there are before this one.
    pub count: u64,
    /// The hash of the last of them.
    pub head: String,
}

impl Continued {
    /// The record of a log that goes on behind this file, which ends at this place.
    #[must_use]
    pub fn new(previous: &str, link: &Link, now: SystemTime) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            event: "continued".to_owned(),
            time: rfc3339(now),
            previous: bounded(previous),
            count: link.number,
            head: to_hex(&link.hash),
        }
    }
}

/// What the supervisor knows when a call has ended: what [`Finished::new`] makes a record of.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The clock's time at the end.
    pub now: SystemTime,
    /// From the request's arrival to its end, by a clock that is never set.
    pub duration: Duration,
    /// How.
    pub status: Status,
    /// What the cell used.
    pub usage: Usage,
    /// What was refused, and which limits were hit.
    pub violations: Vec<Violation>,
    /// What was enforced; `None` when no payload was started.
    pub receipt: Option<Receipt>,
    /// The end of what the payload wrote to stderr.
    pub stderr: Vec<u8>,
    /// The secrets that the tool got, or was to get.
    pub secrets: Vec<SecretUse>,
    /// What it changed, if that was reviewed.
    pub changes: Option<Changes>,
    /// What went through its doors, if it has any.
    pub traffic: Option<Traffic>,
}

/// Written when the last process of the call's cell is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// [`SCHEMA`]
    pub schema: String,
    /// `finished`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// The same as in the `started` record.
    pub call: Call,
    /// How the call ended.
    pub status: Status,
    /// Microseconds from the request's arrival to its end.
    pub duration_us: u64,
    /// What the cell used, bytes in and out among it.
    pub usage: Usage,
    /// What was refused, and which limits were hit.
    pub violations: Vec<Violation>,
    /// How many more violations there were than the record holds.
    pub violations_left_out: u64,
    /// What was really enforced; `null` when no payload was started.
    pub receipt: Option<Receipt>,
    /// The last lines that the payload wrote to stderr.
    pub stderr: Vec<String>,
    /// The secrets that the tool got, or was to get, and where they were taken out of what it said; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What the call changed, and what became of it; absent where its changes are not reviewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// What went through the doors of the cell; absent where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

impl Finished {
    /// The record of a call that has ended. Where `redact` is not empty, what the payload said in its own words
    /// is left out, because it may repeat what is redacted.
    #[must_use]
    pub fn new(call: &Call, redact: &[String], ended: Ended) -> Self {
        let Ended {
            now,
            duration,
            status,
            usage,
            mut violations,
            receipt,
            stderr,
            secrets,
            changes,
            traffic,
        } = ended;
        let left_out = violations.len().saturating_sub(VIOLATIONS_MOST);
        violations.truncate(VIOLATIONS_MOST);
        let hush = !redact.is_empty();
        let hidden = call.target.as_deref().filter(|_| target_is_redacted(&call.method, redact));
        Self {
            schema: SCHEMA.to_owned(),
            event: "finished".to_owned(),
            time: rfc3339(now),
            call: bounded_call(call, redact),
            status: bounded_status(status, hush, hidden.is_some()),
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            usage,
            violations: violations
                .into_iter()
                .map(|violation| bounded_violation(violation, hush, hidden))
                .collect(),
            violations_left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            receipt: receipt.map(|receipt| bounded_receipt(receipt, hush)),
            stderr: if hush && !stderr.is_empty() { vec![REDACTED.to_owned()] } else { last_lines(&stderr) },
            secrets: secrets.into_iter().take(SECRETS_MOST).map(bounded_secret).collect(),
            changes: changes.map(|changes| bounded_changes(changes, hush)),
            traffic: traffic.map(|traffic| bounded_traffic(traffic, hush)),
        }
    }
}

fn bounded_call(call: &Call, redact: &[String]) -> Call {
    let Call { id, server, method, target: _, profile, who, identity, trace } = call;
    Call {
        id: bounded(id),
        server: bounded(server),
        method: bounded(method),
        target: target_in_record(call, redact),
        profile: bounded(profile),
        who: bounded(who),
        identity: identity.as_deref().map(bounded),
        // It has a bound, and no text of anybody's.
        trace: trace.clone(),
    }
}

/// The name or address that a call is for, as its records have it.
#[must_use]
pub fn target_in_record(call: &Call, redact: &[String]) -> Option<String> {
    let hidden = target_is_redacted(&call.method, redact);
    call.target.as_deref().map(|target| if hidden { REDACTED.to_owned() } else { bounded(target) })
}

/// The target is a copy of one of the parameters, so a pointer to that one hides both. A pointer to all of them
/// leaves a tool's or prompt's name, which is no data, but not a resource's address.
fn target_is_redacted(method: &str, redact: &[String]) -> bool {
    let sources: &[&str] = match method {
        "tools/call" | "prompts/get" => &["/name"],
        _ => &["", "/uri", "/ref", "/ref/uri", "/ref/name", "/name"],
    };
    redact.iter().any(|pointer| sources.contains(&pointer.as_str()))
}

/// Why toolcell refused a call can name what it was for.
fn bounded_status(status: Status, hush: bool, hidden: bool) -> Status {
    match status {
        Status::Failed { detail } => Status::Failed { detail: said(&detail, hush) },
        Status::Died { detail } => Status::Died { detail: said(&detail, hush) },
        Status::Refused { detail } => Status::Refused { detail: said(&detail, hidden) },
        Status::Completed | Status::Limit { .. } | Status::Cancelled => status,
    }
}

fn bounded_violation(violation: Violation, hush: bool, hidden: Option<&str>) -> Violation {
    let hush = hush
        && match violation.evidence {
            Evidence::Reported | Evidence::Supervisor => true,
            // A file can have been named by the payload.
            Evidence::Kernel => violation.layer == Layer::Landlock,
        };
    Violation {
        operation: bounded(&violation.operation),
        object: said(&violation.object, hush),
        errno: violation.errno.as_deref().map(bounded),
        rule: bounded(&hidden.map_or(Cow::Borrowed(&violation.rule), |name| {
            Cow::Owned(violation.rule.replace(name, REDACTED))
        })),
        allow: violation.allow.as_deref().map(|allow| said(allow, hush)),
        ..violation
    }
}

/// Which doors there are can have been said by the call's arguments.
fn bounded_receipt(receipt: Receipt, hush: bool) -> Receipt {
    let layers: BTreeMap<String, String> = receipt
        .layers
        .iter()
        .take(LAYERS_MOST)
        .map(|(layer, seen)| (bounded(layer), said(seen, hush && layer == "network")))
        .collect();
    let coverage =
        receipt.coverage.iter().take(LAYERS_MOST).map(|(layer, known)| (bounded(layer), *known)).collect();
    let reasons =
        receipt.reasons.iter().take(LAYERS_MOST).map(|(layer, why)| (bounded(layer), bounded(why))).collect();
    Receipt { layers, coverage, reasons, ..receipt }
}

fn bounded_secret(used: SecretUse) -> SecretUse {
    let SecretUse { name, into, redacted, .. } = &used;
    let redaction = |found: &Redaction| Redaction { place: bounded(&found.place), ..found.clone() };
    let redacted = redacted.iter().take(SECRETS_MOST).map(redaction).collect();
    SecretUse { name: bounded(name), into: bounded(into), redacted, ..used }
}

/// A path can have been named by the payload.
fn bounded_changes(changes: Changes, hush: bool) -> Changes {
    let Changes { verdict, files, left_out } = changes;
    let more = u64::try_from(files.len().saturating_sub(CHANGES_MOST)).unwrap_or(u64::MAX);
    let bounded = |change: Change| Change { path: said(&change.path, hush), ..change };
    let files = files.into_iter().take(CHANGES_MOST).map(bounded).collect();
    Changes { verdict, files, left_out: left_out.saturating_add(more) }
}

/// A name below a pattern can be of the payload's choice.
fn bounded_traffic(traffic: Traffic, hush: bool) -> Traffic {
    let more = u64::try_from(traffic.connections.len().saturating_sub(CONNECTIONS_MOST)).unwrap_or(u64::MAX);
    let bounded = |connection: Connection| Connection {
        to: said(&connection.to, hush),
        from: connection.from.as_deref().map(bounded),
        address: connection.address.as_deref().map(bounded),
        ..connection
    };
    let connections = traffic.connections.into_iter().take(CONNECTIONS_MOST).map(bounded).collect();
    Traffic { connections, left_out: traffic.left_out.saturating_add(more), ..traffic }
}

fn said(text: &str, hush: bool) -> String {
    if hush && !text.is_empty() { REDACTED.to_owned() } else { bounded(text) }
}

fn bounded(text: &str) -> String {
    if text.len() <= TEXT_MOST {
        return text.to_owned();
    }
    format!("{}…[cut: {} bytes]", start_of(text, TEXT_MOST), text.len())
}

fn last_lines(stderr: &[u8]) -> Vec<String> {
    let stderr = stderr.strip_suffix(b"\n").unwrap_or(stderr);
    if stderr.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = stderr
        .rsplit(|&byte| byte == b'\n')
        .take(STDERR_MOST)
        .map(|line| bounded(&from_bytes(line)))
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests;
