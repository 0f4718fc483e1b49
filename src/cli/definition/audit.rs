//! Describes `toolcell audit` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use std::path::PathBuf;

use clap::{Arg, Command, ValueHint, value_parser};

use super::options::flag_json;

pub(super) fn audit(command: Command) -> Command {
    command
        .long_about(
            "Verify the audit log.\n\n\
             The log is the one that `run` writes to if nobody says otherwise, or FILE.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("verify")
                .about("Find lines that were edited, removed, moved or added")
                .long_about(
                    "Find lines that were edited, removed, moved or added.\n\n\
                     Each record has a number and a hash of all records up to it. Exits with 0 when the log is as it \
                     was written, and with 118 when it is not; each finding is a line on stdout.",
                )
                .arg(file())
                .arg(flag_json()),
        )
        .after_help("Examples:\n  toolcell audit verify\n  toolcell audit verify ./copy/audit.jsonl --json")
}

fn file() -> Arg {
    Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("The log [default: the one of `run`]")
}
