//! The audit log: one line of JSON before a call starts, one when it has ended.
//!
//! Neighbours: `session` and `commands::exec` hand over records. The format is documented in docs/audit.md.
//! Never: alters a decision; goes on in silence when a record could not be written.

#![deny(clippy::wildcard_enum_match_arm)]

mod file;
mod line;
mod log;
mod parameters;
mod record;
mod stamp;
#[cfg(test)]
mod test_directory;

pub use file::{FileError, Report, default_path, make_directory_for};
pub use line::to_line;
pub use log::{Log, LogError};
pub use parameters::Parameters;
pub use record::{Ended, Finished, SCHEMA, Started};
pub use stamp::{CallIds, rfc3339};
