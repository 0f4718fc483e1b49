//! What goes between the session and the guard: calls that have ended, questions, verdicts.
//!
//! Neighbours: `guard::link` sends events and questions, `guard::process` answers. Never: holds a call's parameters, or text
//! without a bound.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::audit::{Finished, Started, status_name};
use crate::call::Call;
use crate::outcome::{Layer, Limit};
use crate::text::start_of;

/// Violations of which an event has more than the number.
const VIOLATIONS_MOST: usize = 16;
/// Bytes of each text of one.
const TEXT_MOST: usize = 256;

/// The longest message between the two.
pub(super) const MESSAGE_LIMIT: usize = 64 * 1024;

/// Microseconds after 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The other way round.
pub(super) fn moment(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// One violation of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which layer.
    pub layer: Layer,
    /// Which limit, if it is one.
    pub limit: Option<Limit>,
    /// What was tried.
    pub operation: String,
    /// On what.
    pub object: String,
}

/// A call that has ended, or that could not begin because its record could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// As in its record.
    pub call: Call,
    /// The tool that was called, if it was one, by its own name: the record's may be redacted.
    pub tool: Option<String>,
    /// When the request came, in microseconds after 1970.
    pub began: u64,
    /// When it had ended.
    pub ended: u64,
    /// The status's name.
    pub status: String,
    /// A payload was started.
    pub ran: bool,
    /// Microseconds of the cell.
    pub wall_us: u64,
    /// The highest memory use, if it was counted.
    pub memory: Option<u64>,
    /// The first of its violations.
    pub seen: Vec<Seen>,
    /// How many different ones there were of each layer.
    pub layers: BTreeMap<Layer, u64>,
    /// Why its record is not in the log, if it is not.
    pub unrecorded: Option<String>,
}

impl Event {
    /// Of a call that has ended, and its record.
    #[must_use]
    pub fn of(call: &Call, record: &Finished, now: SystemTime, unrecorded: Option<String>) -> Self {
        let ended = micros(now);
        let mut layers: BTreeMap<Layer, u64> = BTreeMap::new();
        for violation in &record.violations {
            *layers.entry(violation.layer).or_default() += 1;
        }
        let cut = |text: &str| start_of(text, TEXT_MOST).to_owned();
        let seen = record.violations.iter().take(VIOLATIONS_MOST).map(|violation| Seen {
            layer: violation.layer,
            limit: violation.limit,
            operation: cut(&violation.operation),
            object: cut(&violation.object),
        });
        Self {
            call: record.call.clone(),
            tool: call.tool().map(str::to_owned),
            began: ended.saturating_sub(record.duration_us),
            ended,
            status: status_name(&record.status).to_owned(),
            ran: record.receipt.is_some(),
            wall_us: record.usage.wall_us,
            memory: record.usage.memory_peak,
            seen: seen.collect(),
            layers,
            unrecorded: unrecorded.map(|why| cut(&why)),
        }
    }

    /// Of a call that was not started, because its record could not be written.
    #[must_use]
    pub fn unstarted(call: &Call, record: &Started, now: SystemTime, why: &str) -> Self {
        let now = micros(now);
        Self {
            call: record.call.clone(),
            tool: call.tool().map(str::to_owned),
            began: now,
            ended: now,
            status: "refused".to_owned(),
            ran: false,
            wall_us: 0,
            memory: None,
            seen: Vec::new(),
            layers: BTreeMap::new(),
            unrecorded: Some(start_of(why, TEXT_MOST).to_owned()),
        }
    }

    /// Violations that are the tool's own doing: not who called it, with which arguments, that it was kept out, or is not as it was locked.
    #[must_use]
    pub fn counted(&self) -> u64 {
        let own = self.layers.iter().filter(|(layer, _)| match layer {
            Layer::Access | Layer::Quarantine | Layer::Lock => false,
            // Of a call that ran it is its result that did not fit.
            Layer::Arguments => self.ran,
            Layer::Namespaces
            | Layer::Root
            | Layer::Landlock
            | Layer::Seccomp
            | Layer::Capabilities
            | Layer::Cgroup
            | Layer::Rlimit
            | Layer::Deadline
            | Layer::Output
            | Layer::Review
            | Layer::Network
            | Layer::Protocol => true,
        });
        own.map(|(_, count)| count).sum()
    }

    /// It was refused by `[auth]` or a role.
    #[must_use]
    pub fn is_unauthorised(&self) -> bool {
        self.layers.contains_key(&Layer::Access)
    }
}

/// What is said about a call before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may run.
    Free,
    /// It may run with less.
    Trial,
    /// It may not.
    Refused {
        /// Why, one fragment.
        why: String,
        /// Until when, in microseconds after 1970; `None`: until somebody releases it.
        until: Option<u64>,
    },
    /// Whether it may is not known, so it may not.
    Unknown(String),
}

/// To the guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// A call has ended.
    Ended(Box<Event>),
    /// So many events did not find room, and are lost.
    Lost(u64),
    /// May this tool be called? Records name it as `shown`.
    May { number: u64, call: String, tool: String, shown: String },
}

impl Message {
    /// As it is sent. `None`: it is longer than the guard reads, which would end it.
    pub(super) fn encoded(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok().filter(|bytes| bytes.len() <= MESSAGE_LIMIT)
    }
}

/// From the guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The answer to a question.
    Verdict { number: u64, verdict: Verdict },
    /// What a person should know.
    Notice(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Ended;
    use crate::call::Trace;
    use crate::outcome::{Evidence, Status, Usage, Violation};

    #[test]
    fn the_longest_event_finds_room_in_a_message() {
        let long = "\u{7f}".repeat(100_000);
        let call = Call {
            id: long.clone(),
            server: long.clone(),
            method: "tools/call".to_owned(),
            target: Some("x".repeat(1024)),
            profile: long.clone(),
            who: long.clone(),
            identity: Some(long.clone()),
            trace: Trace::new(
                &format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}", "x".repeat(456)),
                Some(&"x".repeat(512)),
            ),
        };
        assert!(call.trace.is_some());
        let one = Violation {
            operation: long.clone(),
            object: long.clone(),
            evidence: Evidence::Kernel,
            ..Violation::of_toolcell(Layer::Seccomp, "", String::new())
        };
        let ended = Ended {
            now: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            status: Status::Died { detail: long.clone() },
            usage: Usage::default(),
            violations: vec![one; 1000],
            receipt: None,
            stderr: long.clone().into_bytes(),
            secrets: Vec::new(),
            changes: None,
            traffic: None,
        };
        let record = Finished::new(&call, &[], ended);
        let event = Event::of(&call, &record, SystemTime::UNIX_EPOCH, Some(long));
        assert_eq!((event.seen.len(), event.layers[&Layer::Seccomp]), (VIOLATIONS_MOST, 64));
        assert!(Message::Ended(Box::new(event)).encoded().is_some());
    }

    #[test]
    fn a_tool_has_its_own_name_whatever_its_record_says() {
        let call = Call::example("t");
        let of = |call: &Call| {
            let record = Started::new(call, None, &["/name".to_owned()], SystemTime::UNIX_EPOCH);
            Event::unstarted(call, &record, SystemTime::UNIX_EPOCH, "")
        };
        let event = of(&call);
        assert_eq!((event.tool.as_deref(), event.call.target.as_deref()), (Some("t"), Some("[redacted]")));
        assert_eq!(of(&Call { method: "prompts/get".to_owned(), ..call }).tool, None);
    }
}
