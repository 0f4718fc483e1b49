//! What is typed behind `toolcell audit`.
//!
//! Neighbours: `cli` parses with it, `commands::audit` acts on an [`AuditArgs`]. Never: reads a file.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::{CliError, Typed, incomplete, required, typed};

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
    /// `toolcell audit show [FILE]`
    Show {
        /// Which records.
        chosen: Chosen,
        /// `--follow`
        follow: bool,
        /// `--json`
        json: bool,
    },
    /// `toolcell audit stats [FILE]`
    Stats {
        /// Which records.
        chosen: Chosen,
        /// `--json`
        json: bool,
    },
    /// `toolcell audit report [FILE]`
    Report {
        /// Which records.
        chosen: Chosen,
        /// `--html`
        html: PathBuf,
    },
    /// `toolcell audit key`
    Key,
}

/// Which records are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// `--tool`
    pub tool: Option<String>,
    /// `--status`
    pub status: Option<String>,
    /// `--identity`
    pub identity: Option<String>,
    /// `--violation`
    pub violation: Option<String>,
    /// `--destination`
    pub destination: Option<String>,
    /// `--since`
    pub since: Option<Typed>,
    /// `--until`
    pub until: Option<Typed>,
}

fn chosen(matches: &mut ArgMatches) -> Chosen {
    Chosen {
        tool: matches.remove_one("tool"),
        status: matches.remove_one("status"),
        identity: matches.remove_one("identity"),
        violation: matches.remove_one("violation"),
        destination: matches.remove_one("destination"),
        since: typed(matches, "since", "--since"),
        until: typed(matches, "until", "--until"),
    }
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
        "show" => AuditCommand::Show {
            chosen: chosen(&mut matches),
            follow: matches.get_flag("follow"),
            json: matches.get_flag("json"),
        },
        "report" => {
            AuditCommand::Report { chosen: chosen(&mut matches), html: required(&mut matches, "html")? }
        }
        "stats" => AuditCommand::Stats { chosen: chosen(&mut matches), json: matches.get_flag("json") },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    };
    Ok(AuditArgs { command, file })
}
