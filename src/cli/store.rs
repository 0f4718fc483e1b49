//! What is typed behind `toolcell install` and `toolcell store`.
//!
//! Neighbours: `cli` parses with it; `commands::install` and `commands::store` act on it. Never: reads a file.

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::{CliError, Typed, floor, incomplete, many, typed};
use crate::policy::Floor;

/// The arguments of `toolcell install`.
#[derive(Debug, PartialEq, Eq)]
pub struct InstallArgs {
    /// At least one.
    pub packages: Vec<Typed>,
    /// `--with`, in the order typed.
    pub with: Vec<String>,
    /// `--allow-scripts`, in the order typed.
    pub scripts: Vec<String>,
    /// `--net`, in the order typed.
    pub net: Vec<Typed>,
    /// `--floor`
    pub floor: Option<Floor>,
}

/// The arguments of `toolcell store`.
#[derive(Debug, PartialEq, Eq)]
pub struct StoreArgs {
    /// What to do.
    pub command: StoreCommand,
    /// `--json`
    pub json: bool,
}

/// The commands below `toolcell store`.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// `toolcell store list`
    List,
    /// `toolcell store verify`
    Verify,
    /// `toolcell store gc`
    Collect {
        /// `--unused`
        unused: Option<Typed>,
    },
}

pub(super) fn install(matches: &mut ArgMatches) -> InstallArgs {
    let typed = |texts: Vec<String>, option| texts.into_iter().map(|text| Typed { option, text }).collect();
    InstallArgs {
        packages: typed(many(matches, "packages"), "PACKAGE"),
        with: many(matches, "with"),
        scripts: many(matches, "allow-scripts"),
        net: typed(many(matches, "net"), "--net"),
        floor: floor(matches),
    }
}

pub(super) fn store(matches: &mut ArgMatches) -> Result<StoreArgs, CliError> {
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    let matches = &mut matches;
    let command = match command.as_str() {
        "list" => StoreCommand::List,
        "verify" => StoreCommand::Verify,
        "gc" => StoreCommand::Collect { unused: typed(matches, "unused", "--unused") },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    };
    Ok(StoreArgs { command, json: matches.get_flag("json") })
}
