//! What is typed behind `toolcell lock`.
//!
//! Neighbours: `cli` parses with it, `commands::lock` acts on a [`LockArgs`]. Never: reads a file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;

use super::{CliError, SharedArgs, Typed, many, shared};

/// The arguments of `toolcell lock`.
#[derive(Debug, PartialEq, Eq)]
pub struct LockArgs {
    /// Which servers.
    pub servers: WhichServers,
    /// `--lock`
    pub lock: Option<PathBuf>,
    /// What to do.
    pub does: LockDoes,
    /// `--accept-flagged`, in the order typed.
    pub accepted: Vec<Typed>,
    /// What is added to the profiles.
    pub shared: SharedArgs,
}

/// Which servers are locked.
#[derive(Debug, PartialEq, Eq)]
pub enum WhichServers {
    /// `-- SERVER [ARGS]...`; at least the program.
    Command(Vec<OsString>),
    /// `--config FILE [NAME]...`; all, if none is named.
    Configured {
        /// The configuration file.
        config: PathBuf,
        /// Names in it.
        names: Vec<String>,
    },
}

/// What `toolcell lock` does about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockDoes {
    /// Writes what is new, and refuses what differs.
    Write,
    /// `--check`
    Check,
    /// `--review`: after a typed `y`.
    Review,
    /// `--review --yes`
    ReviewAll,
}

pub(super) fn lock(matches: &mut ArgMatches) -> Result<LockArgs, CliError> {
    let command = many(matches, "server");
    let names: Vec<String> = many(matches, "names");
    let servers = match matches.remove_one("config") {
        Some(config) => WhichServers::Configured { config, names },
        None if command.is_empty() => return Err(CliError::ServerMissing { name: names.into_iter().next() }),
        None => WhichServers::Command(command),
    };
    let review = if matches.get_flag("yes") { LockDoes::ReviewAll } else { LockDoes::Review };
    let does = match (matches.get_flag("check"), matches.get_flag("review")) {
        (true, _) => LockDoes::Check,
        (false, true) => review,
        (false, false) => LockDoes::Write,
    };
    let accepted: Vec<String> = many(matches, "accept-flagged");
    let accepted = accepted.into_iter().map(|text| Typed { option: "--accept-flagged", text }).collect();
    Ok(LockArgs { servers, lock: matches.remove_one("lock"), does, accepted, shared: shared(matches) })
}
