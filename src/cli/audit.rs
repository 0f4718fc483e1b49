//! What is typed behind `toolcell audit`.
//!
//! Neighbours: `cli` parses with it, `commands::audit` acts on an [`AuditArgs`]. Never: reads a file.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::{CliError, Typed, incomplete, typed};

/// The arguments of `toolcell audit`.
#[derive(Debug, PartialEq, Eq)]
pub struct AuditArgs {
    /// What to do.
    pub command: AuditCommand,
    /// The log, where another than the default is named.
    pub file: Option<PathBuf>,
}

/// The commands below `toolcell audit`.
#[derive(Debug, PartialEq, Eq)]
pub enum AuditCommand {
    /// `toolcell audit verify [FILE]`
    Verify {
        /// `--key`
        key: Option<Typed>,
        /// `--known`
        known: Option<Typed>,
        /// `--json`
        json: bool,
    },
    /// `toolcell audit key`
    Key,
}

pub(super) fn audit(matches: &mut ArgMatches) -> Result<AuditArgs, CliError> {
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    if command == "key" {
        return Ok(AuditArgs { command: AuditCommand::Key, file: None });
    }
    let file = matches.remove_one("file");
    let command = match command.as_str() {
        "verify" => AuditCommand::Verify {
            key: typed(&mut matches, "key", "--key"),
            known: typed(&mut matches, "known", "--known"),
            json: matches.get_flag("json"),
        },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    };
    Ok(AuditArgs { command, file })
}
