//! What is typed behind `toolcell quarantine`.
//!
//! Neighbours: `cli` parses with it, `commands::quarantine` acts on a [`QuarantineArgs`]. Never: reads a file.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::{CliError, incomplete, required};

/// The arguments of `toolcell quarantine`.
#[derive(Debug, PartialEq, Eq)]
pub struct QuarantineArgs {
    /// What to do.
    pub command: QuarantineCommand,
    /// `--json`
    pub json: bool,
}

/// The commands below `toolcell quarantine`.
#[derive(Debug, PartialEq, Eq)]
pub enum QuarantineCommand {
    /// `toolcell quarantine list`
    List,
    /// `toolcell quarantine release SERVER TOOL`
    Release {
        /// The server's name in the configuration.
        server: String,
        /// The tool's name.
        tool: String,
        /// `--audit`
        audit: Option<PathBuf>,
    },
}

pub(super) fn quarantine(matches: &mut ArgMatches) -> Result<QuarantineArgs, CliError> {
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    let matches = &mut matches;
    let json = matches.get_flag("json");
    let command = match command.as_str() {
        "list" => QuarantineCommand::List,
        "release" => QuarantineCommand::Release {
            server: required(matches, "server")?,
            tool: required(matches, "tool")?,
            audit: matches.remove_one("audit"),
        },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    };
    Ok(QuarantineArgs { command, json })
}
