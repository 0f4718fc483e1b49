//! The options that `run` and `exec` have in common, and the helpers that describe options to clap.
//!
//! Neighbours: `cli::definition` puts them into commands. Never: holds a parsed value.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, ValueHint, value_parser};

use crate::policy::{Floor, Writes};

pub(super) const SEES: &str = "What the cell may see";
pub(super) const LIMITS: &str = "Limits (in place of the profile's)";
pub(super) const RECORDS: &str = "Records";

const SIZE_UNITS: &str = "A number with B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024)";

/// What an option takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    /// UTF-8 text.
    Text,
    /// Any path.
    Path,
}

/// A long option with one value.
pub(super) fn value(name: &'static str, takes: Takes, value_name: &'static str) -> Arg {
    let option = Arg::new(name).long(name).value_name(value_name);
    match takes {
        Takes::Text => option,
        Takes::Path => option.value_parser(value_parser!(PathBuf)).value_hint(ValueHint::AnyPath),
    }
}

/// A long option without a value.
pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// `--json`
pub(super) fn flag_json() -> Arg {
    flag("json", "Print JSON instead of text")
}

/// `--audit`, with the default of the command.
pub(super) fn audit(default: &str) -> Arg {
    value("audit", Takes::Path, "FILE")
        .help_heading(RECORDS)
        .help(format!("Append a record of each call to this file, as JSON lines {default}"))
        .long_help(format!(
            "Append a record of each call to this file, as JSON lines: one before it starts, one when it has \
             finished. The file is made with mode 0600; one that others can read or write is refused. A call \
             whose record cannot be written is not started.\n\n{default}"
        ))
}

/// `--lock`, with the default of the command.
pub(super) fn lock_file(default: &str) -> Arg {
    value("lock", Takes::Path, "FILE")
        .help(format!("Compare the server with this lock file {default}"))
        .long_help(format!(
            "Compare the server with this lock file, which `toolcell lock` has written: its command, program and \
             profiles, and every tool that it lists. What differs is not shown to the client, and its calls are \
             refused.\n\n{default}"
        ))
}

/// `--state`
pub(super) fn state() -> Arg {
    value("state", Takes::Text, "STATE")
        .value_parser([
            PossibleValue::new("call").help("One call: each has a fresh process"),
            PossibleValue::new("session")
                .help("The client's session: its calls share a process, and what that keeps in mind"),
        ])
        .conflicts_with("config")
        .help("How long a process of the server lives [default: call]; in a configuration `state` says so")
}

/// What is added to the profile.
pub(super) fn shared() -> Vec<Arg> {
    vec![
        profile().help_heading(SEES),
        value("read", Takes::Path, "PATH")
            .help_heading(SEES)
            .action(ArgAction::Append)
            .help("Let the cell read this file or directory; may be repeated")
            .long_help(
                "Let the cell read this file or directory, at the same path as on the host. May be repeated. \
                 It is only needed for data: what a program needs to start is found by toolcell.",
            ),
        value("write", Takes::Path, "PATH")
            .help_heading(SEES)
            .action(ArgAction::Append)
            .help("Let the cell read and write this file or directory; may be repeated"),
        value("writes", Takes::Text, "WHERE")
            .help_heading(SEES)
            .value_parser([
                PossibleValue::new(Writes::Direct.name()).help("To the directories that the cell may write to"),
                PossibleValue::new(Writes::Discard.name()).help("To memory; gone with the cell"),
                PossibleValue::new(Writes::Ask.name()).help("As `review`, when a person has agreed"),
                PossibleValue::new(Writes::Review.name())
                    .help("To memory; after success, what changed is checked and done to the directories, or not at all"),
            ])
            .help("Where what the cell writes goes [default: the profile's]"),
        value("env", Takes::Text, "NAME[=VALUE]")
            .help_heading(SEES)
            .action(ArgAction::Append)
            .help("Pass an environment variable on, or set it; may be repeated")
            .long_help(
                "Pass an environment variable on, or set it. May be repeated. The cell's environment is empty \
                 but for what the profile passes and what is named here.",
            ),
        value("net", Takes::Text, "HOST:PORT")
            .help_heading(SEES)
            .action(ArgAction::Append)
            .help("Let the cell connect to this host and port; may be repeated")
            .long_help(
                "Let the cell connect to this host and port over TCP: `api.github.com:443`, `*.example.com:443`, \
                 `10.0.0.5:5432`, `[2001:db8::1]:443`, `localhost:8080`. May be repeated. Without it, and \
                 without `[network]` in the profile, a cell reaches nothing.",
            ),
        value("listen", Takes::Text, "PORT[=AT]")
            .help_heading(SEES)
            .action(ArgAction::Append)
            .help("Let this host reach a port at which the cell listens; may be repeated")
            .long_help(
                "Let this host reach a port of 1024 or above at which a program of the cell listens, over TCP: `8080` from a \
                 port of 127.0.0.1 that the kernel chooses and that is told, `8080=127.0.0.1:9000` from that one, \
                 `8080=/run/user/1000/x.sock` from a socket that only this user can connect to. May be repeated. Without \
                 it, and without `listen` in the profile, nobody reaches a cell.",
            ),
        value("memory", Takes::Text, "SIZE")
            .help_heading(LIMITS)
            .help("Memory of the whole cell, such as 512MiB")
            .long_help(format!("Memory of the whole cell, its files in /tmp included. {SIZE_UNITS}: 512MiB")),
        value("cpu", Takes::Text, "CORES")
            .help_heading(LIMITS)
            .help("CPU time per second, in cores, such as 0.5 or 2"),
        value("tasks", Takes::Text, "NUMBER")
            .help_heading(LIMITS)
            .help("Processes and threads together, such as 64"),
        value("timeout", Takes::Text, "TIME")
            .help_heading(LIMITS)
            .help("Wall-clock time of one call, such as 30s")
            .long_help("Wall-clock time of one call. A number with ms, s, m or h: 30s"),
        value("scratch", Takes::Text, "SIZE")
            .help_heading(LIMITS)
            .help("Size of the cell's private /tmp, such as 64MiB; 0 for none")
            .long_help(format!("Size of the cell's private /tmp; 0 for none. {SIZE_UNITS}: 64MiB")),
        floor(),
    ]
}

/// `--profile`, which `selftest` has too.
pub(super) fn profile() -> Arg {
    value("profile", Takes::Text, "NAME|FILE")
        .value_hint(ValueHint::AnyPath)
        .help("A name from `toolcell profile list`, or a file [default: default]")
}

/// `--floor`, which `demo` and `selftest` have too.
pub(super) fn floor() -> Arg {
    value("floor", Takes::Text, "FLOOR")
        .help_heading("Isolation")
        .value_parser([
            PossibleValue::new(Floor::Full.name()).help("Every layer"),
            PossibleValue::new(Floor::NoCgroup.name())
                .help("Every layer but cgroup limits: no limit on memory, CPU and tasks together"),
            PossibleValue::new(Floor::Landlock.name()).help(
                "No namespaces either, where the host gives none: names stay visible, nothing inside a grant can be denied",
            ),
            PossibleValue::new(Floor::HostNetwork.name())
                .help("Every layer, and the network is the host's where the profile has `mode = \"host\"`"),
            PossibleValue::new(Floor::HostNetworkNoCgroup.name()).help("Both: that network, and no cgroup limits"),
            PossibleValue::new(Floor::HostNetworkLandlock.name()).help("Both: that network, and no namespaces"),
        ])
        .help("The weakest isolation to accept; below it nothing runs [default: the profile's]")
}

/// A server's command behind `--`, where no configuration names one.
pub(super) fn server() -> Arg {
    Arg::new("server")
        .value_name("SERVER")
        .last(true)
        .num_args(1..)
        .value_parser(value_parser!(OsString))
        .conflicts_with("config")
        .help("The server's program and arguments, as the client would start it")
}
