//! The audit log: one line of JSON before a call starts, one when it has ended.
//!
//! Neighbours: `session` and `commands::exec` hand over records. The format is documented in docs/audit.md.
//! Never: alters a decision; goes on in silence when a record could not be written.

#![deny(clippy::wildcard_enum_match_arm)]

mod chain;
mod checkpoint;
mod file;
mod guarded;
mod key;
mod line;
mod log;
mod parameters;
mod record;
mod rotate;
mod signer;
mod stamp;
mod summary;
mod tail;
#[cfg(test)]
mod test_directory;
mod verify;

pub use chain::{Hash, Link};
pub use checkpoint::{Checkpoint, beside};
pub use file::{
    FileError, KEY, LOG, Report, make_directory_for, open_private, open_to_read, state_directory,
};
pub use guarded::{ALERT_SCHEMA, Alert, Alerted, Hook, Quarantined, Rule};
pub use key::{Key, KeyError, Public};
pub use line::to_line;
pub use log::{Log, LogError, wait_for};
pub use parameters::{Parameters, REDACTED};
pub use record::{Continued, Ended, Finished, SCHEMA, Started, TEXT_MOST, Torn, target_in_record};
pub use rotate::{Bounds, earlier, is_earlier, is_elsewhere, open_all};
pub use signer::Signer;
pub use stamp::{CallIds, rfc3339};
pub use summary::{
    Alerts, Figures, Refusal, Rotation, Spread, Summary, Tool, caller_of, status_name, tool_of,
};
pub use verify::{Finding, Known, Place, Reader, Signed, Verdict, Wrong};
