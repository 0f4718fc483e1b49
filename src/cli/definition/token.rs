//! Describes `toolcell token` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands. Never: holds a parsed value.

use clap::{Arg, Command};

use super::options::{Takes, value};

pub(super) fn token(command: Command) -> Command {
    let config = || {
        value("config", Takes::Path, "FILE")
            .required(true)
            .help("The configuration file; `tokens.toml` lies beside it")
    };
    let word = |name: &'static str, value_name: &'static str, help: &'static str| {
        Arg::new(name).value_name(value_name).required(true).help(help)
    };
    command
        .long_about(
            "Make, list and revoke the tokens by which clients show who they are.\n\n\
             A configuration with `mode = \"token\"` in `[auth]` lets in who has one; with `mode = \"signed\"`, who \
             signs requests with a key derived from one. Only hashes, or those keys, are kept, in `tokens.toml` \
             beside the configuration.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("new")
                .about("Make a token, print it once on stdout, and keep its hash or signing key")
                .arg(word("identity", "IDENTITY", "Whose it is: the NAME of an `[identities.NAME]`"))
                .arg(config())
                .arg(
                    value("expires", Takes::Text, "TIME")
                        .help("How long it is good, e.g. 12h or 30d, at most 3650d [default: 90d]"),
                ),
        )
        .subcommand(Command::new("list").about("List tokens: id, identity, end").arg(config()))
        .subcommand(
            Command::new("revoke")
                .about("Take a token back, in sessions that run too")
                .arg(word("id", "ID", "The token's id, as `list` shows it"))
                .arg(config()),
        )
        .after_help(
            "Examples:\n  toolcell token new ci --config servers.toml --expires 30d\n  \
             toolcell token list --config servers.toml\n  toolcell token revoke 3f9c0a12 --config servers.toml",
        )
}
