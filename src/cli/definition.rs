//! Describes every command and option to clap: names, values, help.
//!
//! Neighbours: `cli` parses with it; `commands::completions` and `commands::man` generate from it; the option
//! texts that `run` and `exec` share are in `cli::options`. Never: holds a parsed value.

mod audit;
mod lock;
mod options;
mod quarantine;
mod secrets;
mod serve;
mod store;
mod token;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Arg, ArgGroup, Command, value_parser};
use clap_complete::Shell;
use options::{Takes, flag, flag_json, shared, value};

use crate::exit_codes::Ending;

/// Lines of help are not longer, however wide the terminal is.
const WIDTH: usize = 100;

/// The whole command. Arguments of a subcommand are described only when it is the one that was typed.
#[must_use]
pub fn command() -> Command {
    Command::new("toolcell")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Run each MCP tool call in a fresh process in its own kernel-isolated cell")
        .long_about(
            "Run each MCP tool call in a fresh process in its own kernel-isolated cell.\n\n\
             Put `toolcell run --` in front of the command with which a client starts its MCP server. Each call \
             then sees only what its profile grants, within limits, and nothing of it is left afterwards.",
        )
        .after_help(EXAMPLES)
        .after_long_help(format!("{}\n\n{ENVIRONMENT}\n\n{EXAMPLES}", exit_codes()))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(WIDTH)
        .arg(
            value("color", Takes::Text, "WHEN")
                .global(true)
                .value_parser(["auto", "always", "never"])
                .default_value("auto")
                .hide_default_value(true)
                .help("Colour: auto, always, never [default: auto, which honours NO_COLOR]")
                .hide_possible_values(true)
                .display_order(900),
        )
        .subcommand(
            Command::new("run")
                .about("Run an MCP server over stdio, each call in its own cell")
                .defer(run),
        )
        .subcommand(
            Command::new("serve")
                .about("Serve MCP over HTTP, for clients and gateways that need a network")
                .defer(serve::serve),
        )
        .subcommand(
            Command::new("exec")
                .about("Run one command in a cell and return its exit status")
                .defer(exec),
        )
        .subcommand(
            Command::new("install")
                .about("Fetch packages of npm and PyPI once, for calls to run")
                .defer(store::install),
        )
        .subcommand(
            Command::new("store").about("List, verify and clean up what was fetched").defer(store::store),
        )
        .subcommand(
            Command::new("doctor")
                .about("Show which isolation this host offers, and what to type for more")
                .defer(doctor),
        )
        .subcommand(
            Command::new("profile")
                .about("List, show, check and explain profiles")
                .defer(profile),
        )
        .subcommand(
            Command::new("lock")
                .about("Keep what servers are now, so that `run` refuses what changes unseen")
                .defer(lock::lock),
        )
        .subcommand(
            Command::new("token")
                .about("Make, list and revoke the tokens by which clients show who they are")
                .defer(token::token),
        )
        .subcommand(
            Command::new("quarantine")
                .about("List the tools that are kept out, and let one run again")
                .defer(quarantine::quarantine),
        )
        .subcommand(
            Command::new("secrets").about("Tell the age of the secrets that tools are given").defer(secrets::secrets),
        )
        .subcommand(
            Command::new("audit").about("Verify and read the audit log, and show the key that signs it").defer(audit::audit),
        )
        .subcommand(
            Command::new("demo")
                .about("Watch a hostile server try, and what stops it")
                .defer(demo),
        )
        .subcommand(
            Command::new("selftest")
                .about("Try every known attack on this host, and show what stops it")
                .defer(selftest),
        )
        .subcommand(
            Command::new("completions")
                .about("Print a completion script for a shell")
                .defer(completions),
        )
        .subcommand(Command::new("man").about("Print the manual page").defer(man))
        .subcommand(
            Command::new("keep-doors")
                .about("Keeps the doors of cells, for `run` and `exec`")
                .hide(true)
                .arg(
                    Arg::new("socket")
                        .value_name("SOCKET")
                        .value_parser(value_parser!(PathBuf))
                        .num_args(0..)
                        .help("Sockets with a path to which some of the doors lead"),
                ),
        )
        .subcommand(
            Command::new("hostile-server").about("The hostile server that `demo` and `selftest` run in cells").hide(true),
        )
        .subcommand(
            Command::new("try-access")
                .about("What `profile why --prove` runs in a cell")
                .hide(true)
                .arg(
                    Arg::new("operation")
                        .value_name("OPERATION")
                        .required(true)
                        .value_parser(["read", "write", "exec", "connect", "syscall"])
                        .help("What to try"),
                )
                .arg(
                    Arg::new("path")
                        .value_name("PATH")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("On which path, with whom, or which"),
                ),
        )
}

fn run(command: Command) -> Command {
    let command = command
        .override_usage(
            "toolcell run [OPTIONS] -- SERVER [ARGS]...\n       toolcell run [OPTIONS] --config FILE [NAME]...",
        )
        .long_about(
            "Run an MCP server over stdio, each call in its own cell.\n\n\
             A client launches this in place of the server. Each `tools/call`, `prompts/get`, `resources/read` \
             and `completion/complete` is answered by a fresh process of the server in a cell of its own; lists \
             are asked for once and kept. Calls run side by side up to `--jobs`. When the client closes stdin, \
             every cell is ended.",
        );
    supervised(command).after_help(RUN_EXAMPLES)
}

/// What tells `run`, and `serve` for it, which server and how.
fn supervised(command: Command) -> Command {
    command
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .num_args(0..)
                .help("The server's name in the configuration; not needed when it has only one. Several are offered as one"),
        )
        .arg(options::server())
        .arg(
            flag("all", "Offer all servers of the configuration as one: their tools are called NAME__TOOL")
                .requires("config")
                .conflicts_with("name"),
        )
        .arg(
            value("config", Takes::Path, "FILE")
                .help("Take the server from this configuration file")
                .long_help(
                    "Take the server from this configuration file, which names servers and may give each tool \
                     its own profile:\n\n    \
                     [servers.git]\n    \
                     command = [\"mcp-server-git\", \"--repository\", \"/home/u/p\"]\n    \
                     profile = \"offline\"\n    \
                     [servers.git.tools.git_commit]\n    \
                     profile = \"git-write\"\n\n\
                     A tool that is not named runs under the server's profile.",
                ),
        )
        .arg(
            value("jobs", Takes::Text, "NUMBER")
                .help("Calls that run side by side; more wait for their callers' turns [default: the number of CPUs]"),
        )
        .arg(
            value("spares", Takes::Text, "NUMBER")
                .help("Servers that are started before their call, and stopped until it comes, at most [default: as --jobs]")
                .long_help(
                    "Servers that are started before their call, and stopped until it comes, at most. How many wait is learnt from \
                     the calls; none with 0. [default: as --jobs]",
                ),
        )
        .arg(
            value("spares-memory", Takes::Text, "SIZE")
                .help("Memory that servers hold that wait for a call [default: 1GiB]"),
        )
        .arg(
            value("spares-idle", Takes::Text, "TIME")
                .help("A server that no call takes is ended after this time [default: 10m]"),
        )
        .arg(options::state())
        .arg(
            flag("no-validate", "Run calls whose arguments do not fit the schema that the server lists")
                .long_help(
                    "Run calls whose arguments do not fit the `inputSchema` that the server lists for the tool, and \
                     calls of tools that it does not list. In a configuration `validate = \"off\"` says the same of \
                     one server or tool.",
                ),
        )
        .arg(options::lock_file(
            "[default: toolcell.lock beside the file of --config, if it is there]",
        ))
        .arg(flag("lists-only", "Answer lists and run no call, for `toolcell lock`").hide(true))
        .args(shared())
        .arg(options::audit(
            "[default: $XDG_STATE_HOME/toolcell/audit.jsonl, or ~/.local/state/toolcell/audit.jsonl]",
        ))
}

fn exec(command: Command) -> Command {
    command
        .override_usage("toolcell exec [OPTIONS] -- COMMAND [ARGS]...")
        .long_about(
            "Run one command in a cell and return its exit status.\n\n\
             Stdin, stdout and stderr are passed through. The cell is built exactly as for a call of `run`: try \
             a profile by hand, or run a step of a build in it.",
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .last(true)
                .required(true)
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .help("The program and its arguments"),
        )
        .args(shared())
        .arg(options::audit("[default: none]"))
        .arg(
            value("report", Takes::Path, "FILE").help_heading(options::RECORDS).help(
                "Write what happened as JSON: status, usage, violations, what was enforced",
            ),
        )
        .after_help(EXEC_EXAMPLES)
        .after_long_help(format!("{}\n\n{EXEC_EXAMPLES}", exit_codes()))
}

fn doctor(command: Command) -> Command {
    command
        .long_about(
            "Show which isolation this host offers, and what to type for more.\n\n\
             For each layer: whether it is there, in which version, and else the system call, the error and its \
             cause. Then the rung of the ladder that the host reaches, as an ordinary user and as root. Exits \
             with 0 when the default floor is reached, with 121 when it is not.",
        )
        .arg(flag_json().conflicts_with("fix"))
        .arg(flag("fix", "Print what root can do about what is missing: files to write, programs to run"))
        .arg(flag("apply", "Do it, each after a typed `yes`").requires("fix"))
        .arg(flag("yes", "Do it without asking").requires("apply"))
        .after_help(
            "Examples:\n  toolcell doctor\n  toolcell doctor --json\n  toolcell doctor --fix\n  \
             sudo toolcell doctor --fix --apply",
        )
}

fn profile(command: Command) -> Command {
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(Command::new("list").about("List built-in and own profiles"))
        .subcommand(
            Command::new("show")
                .about("Show a profile, with what it inherits and why each rule is there")
                .arg(Arg::new("name").value_name("NAME").required(true).help("The profile's name")),
        )
        .subcommand(
            Command::new("check").about("Report every mistake of a profile file, with line and column").arg(
                Arg::new("file")
                    .value_name("FILE")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("The profile file"),
            ),
        )
        .subcommand(
            Command::new("explain")
                .about("Print the whole plan of a cell, in order, exactly as it would be run")
                .override_usage("toolcell profile explain [OPTIONS] NAME|FILE [-- COMMAND [ARGS]...]")
                .arg(
                    Arg::new("profile")
                        .value_name("NAME|FILE")
                        .required(true)
                        .value_parser(value_parser!(OsString))
                        .help("A profile's name, or a profile file"),
                )
                .arg(
                    Arg::new("command")
                        .value_name("COMMAND")
                        .last(true)
                        .num_args(1..)
                        .value_parser(value_parser!(OsString))
                        .help("The program and its arguments that the plan is for"),
                )
                .arg(flag(
                    "lost",
                    "Print what this host cannot give the profile instead, why, and what to type",
                ))
                .arg(flag_json())
                .after_help(
                    "Examples:\n  toolcell profile explain default -- /bin/true\n  \
                     toolcell profile explain ./own.toml --json -- python3 server.py\n  \
                     toolcell profile explain workspace --lost",
                ),
        )
        .subcommand(why(Command::new("why")))
        .after_help(
            "Examples:\n  toolcell profile list\n  toolcell profile show node\n  \
             toolcell profile check ./own.toml\n  toolcell profile explain default -- /bin/true\n  \
             toolcell profile why workspace --write ./notes",
        )
}

fn why(command: Command) -> Command {
    let question = |name: &'static str, takes, value_name: &'static str| {
        value(name, takes, value_name).group("question")
    };
    command
        .about("Say whether a profile allows one thing, by which rule, and what would allow it")
        .long_about(
            "Say whether a profile allows one thing, by which rule, and what would allow it.\n\n\
             The answer comes from the plan of a cell. With `--prove` a cell is built and the thing is tried in it, \
             without creating, changing or executing anything; an answer that the cell contradicts exits with 1. \
             Exits with 0 when it is allowed, and with 119 when it is refused or depends on more than the profile.",
        )
        .override_usage(
            "toolcell profile why [OPTIONS] NAME|FILE <--read PATH|--write PATH|--exec PATH|--connect HOST:PORT|\
             --syscall NAME> [-- COMMAND [ARGS]...]",
        )
        .arg(
            Arg::new("profile")
                .value_name("NAME|FILE")
                .required(true)
                .value_parser(value_parser!(OsString))
                .help("A profile's name, or a profile file"),
        )
        .arg(question("read", Takes::Path, "PATH").help("May it read this file, or list this directory?"))
        .arg(question("write", Takes::Path, "PATH").help("May it change or make this file?"))
        .arg(question("exec", Takes::Path, "PATH").help("May it execute this file?"))
        .arg(question("connect", Takes::Text, "HOST:PORT").help("May it connect to this address?"))
        .arg(question("syscall", Takes::Text, "NAME").help("May it make this system call?"))
        .group(ArgGroup::new("question").required(true))
        .arg(
            Arg::new("prove")
                .long("prove")
                .action(clap::ArgAction::SetTrue)
                .help("Try it in a cell as well, changing nothing"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .last(true)
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .help("The program and its arguments that the cell is for"),
        )
        .arg(flag_json())
        .after_help(
            "Examples:\n  toolcell profile why default --read ~/.ssh/id_ed25519 --prove\n  \
             toolcell profile why workspace --write .git/hooks/pre-commit\n  \
             toolcell profile why strict --syscall socket",
        )
}

fn demo(command: Command) -> Command {
    command
        .long_about(
            "Watch a hostile server try, and what stops it.\n\n\
             A hostile MCP server is part of this program. It is wrapped like any other, and call by call you \
             see what it tried, which layer or limit stopped it, and the time that took; at the end, what was \
             left behind and how long a harmless call took. It is safe to run: what it looks for is planted.",
        )
        .arg(flag_json())
        .arg(options::floor())
        .arg(
            Arg::new("without-cell")
                .long("without-cell")
                .action(clap::ArgAction::SetTrue)
                .hide(true)
                .help("Run the same probes without a cell, to see that each of them can escape"),
        )
        .arg(
            Arg::new("around")
                .value_name("COMMAND")
                .last(true)
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .requires("without-cell")
                .hide(true)
                .help("Start the server by this command, its own words behind it"),
        )
        .override_usage("toolcell demo [OPTIONS]")
        .after_help("Examples:\n  toolcell demo\n  toolcell demo --json\n  toolcell demo --floor no-cgroup")
}

fn selftest(command: Command) -> Command {
    command
        .long_about(
            "Try every known attack on this host, and show what stops it.\n\n\
             The hostile server of `demo` is run under a profile, in a planted home and working directory, and every \
             attack is made twice: in a cell that was built for its call, and in one that was built ahead of it. Each \
             line says whether it was stopped, by which layer, and what of it is in the record. The profile's \
             limits are replaced by small ones, so that the test is short, and the planted working directory may be \
             written to. It is safe to run. Exits with 0 when nothing escaped and nothing is left behind, else \
             with 1.",
        )
        .arg(options::profile())
        .arg(flag_json())
        .arg(options::floor())
        .after_help(
            "Examples:\n  toolcell selftest\n  toolcell selftest --profile ./own.toml\n  \
             toolcell selftest --json --floor no-cgroup",
        )
}

fn completions(command: Command) -> Command {
    command
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("For which shell"),
        )
        .after_help(
            "Examples:\n  toolcell completions bash > ~/.local/share/bash-completion/completions/toolcell\n  \
             toolcell completions fish > ~/.config/fish/completions/toolcell.fish",
        )
}

fn man(command: Command) -> Command {
    command
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Write a page for each command into this directory, instead of the main one to stdout"),
        )
        .after_help("Examples:\n  toolcell man | man -l -\n  toolcell man ~/.local/share/man/man1")
}

/// The table of exit codes, from the codes themselves.
fn exit_codes() -> String {
    let mut text = String::from("Exit status:");
    for ending in Ending::OWN {
        // Writing to a `String` cannot fail.
        write!(text, "\n  {:<6} {}", ending.code(), ending.meaning()).ok();
    }
    text.push_str(
        "\n  128+n  exec: the command was ended by signal n\n  other  exec: the command's own exit status",
    );
    text
}

const ENVIRONMENT: &str = "\
Environment:
  TOOLCELL_TOKEN    run: shows who the client is, where the configuration asks for it
  NO_COLOR          when set and not empty, --color auto means never
  XDG_CONFIG_HOME   own profiles are in toolcell/profiles below it [default: ~/.config]
  XDG_STATE_HOME    the audit log is toolcell/audit.jsonl below it [default: ~/.local/state]";

const EXAMPLES: &str = "\
Examples:
  toolcell doctor                                   is this host ready?
  toolcell demo                                     see it work
  toolcell selftest                                 see that it holds on this host
  toolcell run -- mcp-server-git --repository .     wrap a server
  toolcell exec --profile offline -- ls -la .      look around in a cell";

const RUN_EXAMPLES: &str = "\
Examples:
  toolcell run -- npx -y @modelcontextprotocol/server-everything
  toolcell run --profile python --write ~/p -- mcp-server-git --repository ~/p
  toolcell run --memory 1GiB --timeout 2m -- node server.js
  toolcell run --config ~/.config/toolcell/servers.toml git";

const EXEC_EXAMPLES: &str = "\
Examples:
  toolcell exec -- ls -la /etc
  toolcell exec --read ~/p --cpu 0.5 --report report.json -- python3 ~/p/check.py
  toolcell exec --env LANG=C.UTF-8 --env TERM -- sh -c 'env'";
