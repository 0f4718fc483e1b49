//! Describes `toolcell install` and `toolcell store` to clap.
//!
//! Neighbours: `cli::definition` has them among the commands. Never: holds a parsed value.

use clap::{Arg, ArgAction, Command};

use super::options::{Takes, flag_json, floor, value};

pub(super) fn install(command: Command) -> Command {
    command
        .override_usage("toolcell install [OPTIONS] npm:NAME[@VERSION]|pypi:NAME[==VERSION]...")
        .long_about(
            "Fetch packages once, so that calls run them without a package manager.\n\n\
             Your own npm or pip fetches them, from the registry of its settings, in a cell that can reach only that, with no home \
             and no secret. Install scripts are not run. `toolcell run -- npx PACKAGE` and `uvx PACKAGE` find what is installed, \
             and install what is not. A name without a version stands for what was fetched, until it is installed again.",
        )
        .arg(
            Arg::new("packages")
                .value_name("PACKAGE")
                .required(true)
                .num_args(1..)
                .help("What to fetch: `npm:NAME@VERSION` or `pypi:NAME==VERSION`"),
        )
        .arg(
            value("with", Takes::Text, "NAME")
                .action(ArgAction::Append)
                .help("Install this package of the same registry beside each; may be repeated"),
        )
        .arg(
            value("allow-scripts", Takes::Text, "NAME")
                .action(ArgAction::Append)
                .help("Run the install scripts of this package, or build it from source; may be repeated"),
        )
        .arg(
            value("net", Takes::Text, "HOST:PORT")
                .action(ArgAction::Append)
                .help("Let the cell reach this too; may be repeated"),
        )
        .arg(floor())
        .after_help(
            "Examples:\n  toolcell install npm:@modelcontextprotocol/server-filesystem\n  \
             toolcell install pypi:mcp-server-git==2026.10.19",
        )
}

pub(super) fn store(command: Command) -> Command {
    command
        .long_about("List, verify and clean up what `toolcell install` and `toolcell run` have fetched.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(Command::new("list").about("List what is in the store").arg(flag_json()))
        .subcommand(
            Command::new("verify")
                .about("Compare the files with what was installed; exits with 118 when some differ")
                .arg(flag_json()),
        )
        .subcommand(
            Command::new("gc")
                .about("Remove what no name stands for any more")
                .arg(
                    value("unused", Takes::Text, "TIME").help("And what was not run for so long, e.g. `30d`"),
                )
                .arg(flag_json()),
        )
        .after_help("Examples:\n  toolcell store list\n  toolcell store gc --unused 30d")
}
