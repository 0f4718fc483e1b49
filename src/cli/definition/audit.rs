//! Describes `toolcell audit` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use std::path::PathBuf;

use clap::{Arg, Command, ValueHint, value_parser};

use super::options::{Takes, flag, flag_json, value};

pub(super) fn audit(command: Command) -> Command {
    command
        .long_about(
            "Verify and read the audit log, and show the key that signs it.\n\n\
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
        .subcommand(
            Command::new("show")
                .about("Show each call that ended, with what was refused in it")
                .arg(file())
                .args(chosen())
                .arg(flag("follow", "Go on with what is written from now on, until interrupted"))
                .arg(flag("json", "Print the records as they are in the log")),
        )
        .subcommand(
            Command::new("stats")
                .about("Add up calls, refusals, times and memory, by tool, layer and day")
                .arg(file())
                .args(chosen())
                .arg(flag_json()),
        )
        .subcommand(
            Command::new("report")
                .about("Write calls, refusals, times and memory as one page with charts")
                .arg(file())
                .arg(
                    value("html", Takes::Path, "PAGE")
                        .required(true)
                        .help("Where to write the page, which needs no other file and runs no script"),
                )
                .args(chosen()),
        )
        .subcommand(Command::new("key").about("Print the public key of this installation, which is made at first need"))
        .after_help(
            "Examples:\n  toolcell audit show --status refused --since 2026-11-22\n  toolcell audit stats\n  \
             toolcell audit report --html page.html\n  \
             toolcell audit verify\n  toolcell audit key\n  \
             toolcell audit verify ./copy/audit.jsonl --key 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        )
}

/// Which records are wanted.
fn chosen() -> [Arg; 7] {
    const WHICH: &str = "Which records";
    let one = |name, value_name, help| value(name, Takes::Text, value_name).help_heading(WHICH).help(help);
    [
        one("tool", "NAME", "Of this tool, prompt or resource"),
        one("status", "STATUS", "That ended so").value_parser([
            "completed",
            "failed",
            "limit",
            "cancelled",
            "refused",
            "died",
        ]),
        one("identity", "NAME", "Of who showed this identity, or called itself so"),
        one("violation", "NAME", "With a violation of this layer or limit, such as seccomp or memory"),
        one("destination", "HOST", "That reached this host, or this HOST:PORT, through a door"),
        one("since", "TIME", "Not before this time, in UTC: 2026-11-22, or 2026-11-22T14:05"),
        one("until", "TIME", "Not after this time"),
    ]
}

fn file() -> Arg {
    Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("The log [default: the one of `run`]")
}
