//! `toolcell audit`: reads the log that `run` and `exec` write.
//!
//! Neighbours: one module here for each subcommand; `audit` has the format and the arithmetic. Never: writes to a log.

mod html;
mod report;
mod show;
mod stats;
mod verify;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::audit::{self, FileError, Key, KeyError};
use crate::cli::{AuditArgs, AuditCommand, ColorChoice};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::policy::tokens::to_hex;
use crate::sys::identity;

/// Runs one of the subcommands.
pub(super) fn run(args: &AuditArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let log = || args.file.clone().map_or_else(default_log, Ok);
    match &args.command {
        AuditCommand::Verify { key, known, json } => {
            verify::run(&log()?, key.as_ref(), known.as_ref(), *json)
        }
        AuditCommand::Show { chosen, follow, json } => show::run(&log()?, chosen, *follow, *json, color),
        AuditCommand::Stats { chosen, json } => stats::run(&log()?, chosen, *json),
        AuditCommand::Report { chosen, html } => report::run(&log()?, chosen, html),
        AuditCommand::Key => {
            let key = own_key()?.ok_or_else(|| no_place(Ending::Audit, "the key of the audit log"))?;
            super::print(format!("{}\n", to_hex(&key.public())).as_bytes())
        }
    }
}

/// The directory of what is toolcell's own, if there is a place for it.
pub(super) fn state_directory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME");
    audit::state_directory(state.as_deref(), std::env::var_os("HOME").as_deref())
}

/// The log of `run`, if nobody names one.
pub(super) fn default_log() -> Result<PathBuf, Failure> {
    state_directory()
        .map(|directory| directory.join(audit::LOG))
        .ok_or_else(|| no_place(Ending::Audit, "the audit log"))
}

/// What to do where toolcell has no directory of its own.
const PLACE: &str = "name a directory of your own in `XDG_STATE_HOME`";

/// Nothing says where toolcell's own directory is.
pub(super) fn no_place(ending: Ending, of: &str) -> Failure {
    let message = format!("there is no place for {of}: `HOME` is not set");
    Failure::new(ending, message).hint(Some(PLACE.to_owned()))
}

/// The key of this installation, which is made now if there is none; `None` when there is no place for one.
fn own_key() -> Result<Option<Key>, Failure> {
    let Some(directory) = state_directory() else { return Ok(None) };
    Key::at(&directory.join(audit::KEY), identity::effective().0).map(Some).map_err(|error| {
        let hint = error.hint();
        Failure::new(Ending::Audit, error).hint(hint)
    })
}

/// The same for who is about to write records. Without a place they are chained all the same, and it is said that they are
/// not signed; a key that is there and cannot be trusted stops the call.
pub(super) fn signing_key(color: ColorChoice) -> Result<Option<Key>, Failure> {
    let because = match state_directory() {
        None => "`HOME` is not set".to_owned(),
        Some(directory) => match Key::at(&directory.join(audit::KEY), identity::effective().0) {
            Ok(key) => return Ok(Some(key)),
            Err(KeyError::File(error)) if error.is_no_place() => {
                let cause =
                    std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                format!("{error}{cause}")
            }
            Err(error) => {
                let hint = error.hint();
                return Err(Failure::new(Ending::Audit, error).hint(hint));
            }
        },
    };
    let message = format!("the audit log is chained, but not signed: {because}");
    diag::warn(color, &message, Some(PLACE));
    Ok(None)
}

pub(super) fn file_failed(error: FileError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Audit, error).hint(hint)
}

/// All files of a log, in their order. One that cannot be read is another matter than one that cannot be written.
fn open_all(log: &Path) -> Result<Vec<(PathBuf, File)>, Failure> {
    audit::open_all(log).map_err(|error| {
        let hint = match &error {
            FileError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("nothing was recorded yet, or the log lies elsewhere: name it".to_owned())
            }
            _ => None,
        };
        Failure::new(Ending::Other, error).hint(hint)
    })
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use the value `{text}` of `{option}`")]
struct BadValue {
    option: &'static str,
    text: String,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", .0.display())]
struct Unreadable(PathBuf, #[source] io::Error);

fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::new(Ending::Other, Unreadable(path.to_owned(), error))
}
