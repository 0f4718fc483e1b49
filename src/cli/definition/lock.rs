//! Describes `toolcell lock` to clap.
//!
//! Neighbours: `cli::definition` puts it into the whole. Never: holds a parsed value.

use clap::{Arg, ArgAction, Command};

use super::options::{self, Takes, flag, server, shared, value};

pub(super) fn lock(command: Command) -> Command {
    command
        .override_usage(
            "toolcell lock [OPTIONS] --config FILE [NAME]...\n       \
             toolcell lock [OPTIONS] --lock FILE -- SERVER [ARGS]...",
        )
        .long_about(
            "Keep what servers are now, so that `run` refuses what changes unseen.\n\n\
             Each server is started in its cell and asked for its tools, prompts, resources and resource templates. The lock file \
             then holds the hash of the program's files, every definition, and the profiles. `toolcell run` compares \
             with it, leaves out of lists what differs, and refuses calls. What is suspicious in a text (hidden characters, \
             orders to a model) is shown and has to be accepted.",
        )
        .arg(
            Arg::new("names")
                .value_name("NAME")
                .num_args(1..)
                .help("Servers of the configuration [default: all]"),
        )
        .arg(server())
        .arg(value("config", Takes::Path, "FILE").help("Take the servers from this configuration file"))
        .arg(
            value("lock", Takes::Path, "FILE")
                .help("The lock file [default: toolcell.lock beside the file of --config]"),
        )
        .arg(flag("check", "Only compare: exit with 118 when something differs").conflicts_with("review"))
        .arg(flag("review", "Show what differs, and accept it after a typed `y` for each server"))
        .arg(flag("yes", "Accept what differs without asking").requires("review"))
        .arg(
            value("accept-flagged", Takes::Text, "SERVER/NAME=RULE")
                .action(ArgAction::Append)
                .help("Accept what a rule has flagged in a definition; may be repeated")
                .long_help(
                    "Accept what a rule has flagged in the definition of this name of this server; may be repeated. It is \
                     kept in the lock file, and goes when the definition changes.",
                ),
        )
        .args(shared())
        .arg(options::audit(
            "[default: $XDG_STATE_HOME/toolcell/audit.jsonl, or ~/.local/state/toolcell/audit.jsonl]",
        ))
        .after_help(
            "Examples:\n  toolcell lock --config ~/.config/toolcell/servers.toml\n  \
             toolcell lock --config servers.toml --check\n  \
             toolcell lock --config servers.toml --review git\n  \
             toolcell lock --config servers.toml --accept-flagged git/git_log=secrecy git",
        )
}
