//! Describes `toolcell quarantine` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use clap::{Arg, Command};

use super::options::{self, flag_json};

pub(super) fn quarantine(command: Command) -> Command {
    let word = |name: &'static str, value_name: &'static str, help: &'static str| {
        Arg::new(name).value_name(value_name).required(true).help(help)
    };
    command
        .long_about(
            "List the tools that are kept out, and let one run again.\n\n\
             A configuration with `[quarantine]` keeps a tool out for a time when its cells were refused too much, \
             then tries it with less, and restores it or keeps it out.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("list").about("List the tools that are kept out or tried, and what for").arg(flag_json()),
        )
        .subcommand(
            Command::new("release")
                .about("Let a tool run again, in sessions that run too; the audit log says so")
                .arg(word("server", "SERVER", "The server's name in the configuration"))
                .arg(word("tool", "TOOL", "The tool's name, as `list` shows it"))
                .arg(options::audit(
                    "[default: $XDG_STATE_HOME/toolcell/audit.jsonl, or ~/.local/state/toolcell/audit.jsonl]",
                ))
                .arg(flag_json()),
        )
        .after_help("Examples:\n  toolcell quarantine list\n  toolcell quarantine release git git_push")
}
