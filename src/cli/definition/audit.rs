//! Describes `toolcell audit` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use std::path::PathBuf;

use clap::{Arg, Command, ValueHint, value_parser};

use super::options::{Takes, flag_json, value};

pub(super) fn audit(command: Command) -> Command {
    command
        .long_about(
            "Verify the audit log, and show the key that signs it.\n\n\
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
                     Each record has a number and a hash of all records up to it, and checkpoints sign that hash; the \
                     last one is kept in FILE.checkpoint too. Exits with 0 when the log is as it was written, and with \
                     118 when it is not; each finding is a line on stdout.",
                )
                .arg(file())
                .arg(
                    value("key", Takes::Text, "HEX")
                        .help("The public key that has to have signed [default: this installation's, if it has one]"),
                )
                .arg(
                    value("known", Takes::Text, "NUMBER:HASH")
                        .help("A record that the log had, as an earlier `verify` printed its last one"),
                )
                .arg(flag_json()),
        )
        .subcommand(Command::new("key").about("Print the public key of this installation, which is made at first need"))
        .after_help(
            "Examples:\n  toolcell audit verify\n  toolcell audit key\n  \
             toolcell audit verify ./copy/audit.jsonl --key 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        )
}

fn file() -> Arg {
    Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("The log [default: the one of `run`]")
}
