//! Describes `toolcell secrets` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use clap::Command;

use super::options::{Takes, flag_json, value};

pub(super) fn secrets(command: Command) -> Command {
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("check")
                .about("Read each secret once, and tell its age and whether tools can get it")
                .long_about(
                    "Read each secret of a configuration once, and tell where it comes from, which tools get it, its age, \
                     and whether it is fresh, due to be rotated, overdue or unreadable. No value is shown. Exits with \
                     0 when tools can get all of them, else with 1.",
                )
                .arg(value("config", Takes::Path, "FILE").required(true).help("The configuration file"))
                .arg(flag_json()),
        )
        .after_help("Examples:\n  toolcell secrets check --config servers.toml")
}
