//! `toolcell audit`: reads the log that `run` and `exec` write.
//!
//! Neighbours: one module here for each subcommand; `audit` has the format and the arithmetic. Never: writes to a log.

mod verify;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::audit::{self, FileError};
use crate::cli::{AuditArgs, AuditCommand};
use crate::diag::Failure;
use crate::exit_codes::Ending;

/// Runs one of the subcommands.
pub(super) fn run(args: &AuditArgs) -> Result<Ending, Failure> {
    let path = args.file.clone().map_or_else(default_log, Ok)?;
    match &args.command {
        AuditCommand::Verify { json } => verify::run(&path, *json),
    }
}

/// The log of `run`, if nobody names one.
pub(super) fn default_log() -> Result<PathBuf, Failure> {
    let state = std::env::var_os("XDG_STATE_HOME");
    let home = std::env::var_os("HOME");
    audit::default_path(state.as_deref(), home.as_deref())
        .ok_or_else(|| Failure::new(Ending::Audit, "there is no place for the audit log: `HOME` is not set"))
}

pub(super) fn file_failed(error: FileError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Audit, error).hint(hint)
}

/// A log that cannot be read is another matter than one that cannot be written.
fn open_to_read(path: &Path) -> Result<File, Failure> {
    audit::open_to_read(path).map_err(|error| {
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
#[error("cannot read `{}`", .0.display())]
struct Unreadable(PathBuf, #[source] io::Error);

fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::new(Ending::Other, Unreadable(path.to_owned(), error))
}
