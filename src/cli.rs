//! The command line as it was typed, and nothing more: no unit, path or profile is resolved here.
//!
//! Neighbours: `cli::definition` describes commands and options to clap; `commands` acts on an [`Invocation`].
//! Never: reads a file, looks at the host, prints.

mod audit;
pub mod definition;
mod lock;
mod mistake;
mod quarantine;
mod serve;
mod store;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

pub use audit::{AuditArgs, AuditCommand, Chosen};
use clap::ArgMatches;
use clap::error::ErrorKind;
use clap_complete::Shell;
pub use lock::{LockArgs, LockDoes, WhichServers};
pub use mistake::CliError;
pub use quarantine::{QuarantineArgs, QuarantineCommand};
pub use serve::ServeArgs;
pub use store::{InstallArgs, StoreArgs, StoreCommand};

use crate::policy::config::state::State;
use crate::policy::{Floor, Writes};

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Not even on a terminal.
    Never,
}

/// A whole command line.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// `--color`
    pub color: ColorChoice,
    /// The command and what belongs to it.
    pub invocation: Invocation,
}

/// One command with its options.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `toolcell run`
    Run(RunArgs),
    /// `toolcell serve`
    Serve(Box<ServeArgs>),
    /// `toolcell exec`
    Exec(ExecArgs),
    /// `toolcell doctor`
    Doctor(DoctorArgs),
    /// `toolcell profile`
    Profile(ProfileArgs),
    /// `toolcell lock`
    Lock(LockArgs),
    /// `toolcell install`
    Install(InstallArgs),
    /// `toolcell store`
    Store(StoreArgs),
    /// `toolcell token`
    Token(TokenArgs),
    /// `toolcell quarantine`
    Quarantine(QuarantineArgs),
    /// `toolcell secrets check`
    Secrets(SecretsArgs),
    /// `toolcell audit`
    Audit(AuditArgs),
    /// `toolcell demo`
    Demo(DemoArgs),
    /// `toolcell selftest`
    Selftest(SelftestArgs),
    /// `toolcell completions SHELL`
    Completions {
        /// Whose script.
        shell: Shell,
    },
    /// `toolcell man [DIR]`
    Man {
        /// Where to write one page a command; without it the main page goes to stdout.
        directory: Option<PathBuf>,
    },
    /// What `profile why --prove` runs in the cell.
    TryAccess {
        /// `read`, `write`, `exec`, `connect` or `syscall`.
        operation: String,
        /// The path in the cell, the address and port, or the number.
        path: PathBuf,
    },
    /// `toolcell hostile-server`, the server that `demo` and `selftest` run in cells.
    HostileServer,
    /// `toolcell keep-doors`, the process that `run` and `exec` start for cells with doors.
    KeepDoors {
        /// Sockets with a path to which some of the doors lead.
        sockets: Vec<PathBuf>,
    },
}

/// The arguments of `toolcell doctor`.
#[derive(Debug, PartialEq, Eq)]
pub struct DoctorArgs {
    /// `--json`
    pub json: bool,
    /// `--fix`, with `--apply` and `--yes`.
    pub fix: Option<Fix>,
}

/// What `toolcell doctor` does about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// `--fix`: prints it.
    Print,
    /// `--fix --apply`: does each after a yes.
    Apply,
    /// `--fix --apply --yes`: does each.
    ApplyAll,
}

/// The arguments of `toolcell run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunArgs {
    /// Which server.
    pub server: Server,
    /// `--jobs`
    pub jobs: Option<Typed>,
    /// `--spares`
    pub spares: Option<Typed>,
    /// `--spares-memory`
    pub spares_memory: Option<Typed>,
    /// `--spares-idle`
    pub spares_idle: Option<Typed>,
    /// `--state`
    pub state: Option<State>,
    /// `--no-validate`
    pub no_validate: bool,
    /// `--lock`
    pub lock: Option<PathBuf>,
    /// `--lists-only`: what `toolcell lock` starts.
    pub lists_only: bool,
    /// What is added to the profile.
    pub shared: SharedArgs,
}

/// How `toolcell run` was told its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `-- SERVER [ARGS]...`; at least the program.
    Command(Vec<OsString>),
    /// `--config FILE [NAME]`
    Configured {
        /// The configuration file.
        config: PathBuf,
        /// The server's name in it; may be left out when it has only one.
        name: Option<String>,
    },
    /// `--config FILE NAME NAME...`, or `--all`: several as one.
    Several {
        /// The configuration file.
        config: PathBuf,
        /// At least two names in it; none: all servers.
        names: Vec<String>,
    },
}

/// The arguments of `toolcell exec`.
#[derive(Debug, PartialEq, Eq)]
pub struct ExecArgs {
    /// The program and its arguments; at least the program.
    pub command: Vec<OsString>,
    /// `--report`
    pub report: Option<PathBuf>,
    /// What is added to the profile.
    pub shared: SharedArgs,
}

/// The arguments of `toolcell demo`.
#[derive(Debug, PartialEq, Eq)]
pub struct DemoArgs {
    /// `--json`
    pub json: bool,
    /// `--floor`
    pub floor: Option<Floor>,
    /// `--without-cell`: the same probes bare, for the proof that each can escape.
    pub without_cell: bool,
    /// `--without-cell -- COMMAND`: what starts the server instead, for the proof that one layer of many can be gone.
    pub around: Vec<OsString>,
}

/// The arguments of `toolcell selftest`.
#[derive(Debug, PartialEq, Eq)]
pub struct SelftestArgs {
    /// `--profile`
    pub profile: Option<Typed>,
    /// `--json`
    pub json: bool,
    /// `--floor`
    pub floor: Option<Floor>,
}

/// Options that `run` and `exec` have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedArgs {
    /// `--profile`
    pub profile: Option<Typed>,
    /// `--read`, in the order typed.
    pub read: Vec<PathBuf>,
    /// `--write`, in the order typed.
    pub write: Vec<PathBuf>,
    /// `--env`, in the order typed: `NAME` or `NAME=VALUE`.
    pub env: Vec<Typed>,
    /// `--memory`
    pub memory: Option<Typed>,
    /// `--cpu`
    pub cpu: Option<Typed>,
    /// `--tasks`
    pub tasks: Option<Typed>,
    /// `--timeout`
    pub timeout: Option<Typed>,
    /// `--scratch`
    pub scratch: Option<Typed>,
    /// `--floor`
    pub floor: Option<Floor>,
    /// `--writes`
    pub writes: Option<Writes>,
    /// `--net`, in the order typed.
    pub net: Vec<Typed>,
    /// `--listen`, in the order typed.
    pub listen: Vec<Typed>,
    /// `--audit`
    pub audit: Option<PathBuf>,
}

/// A value as it was typed, with its option, so that whoever parses it can name both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// The option, dashes included.
    pub option: &'static str,
    /// The text.
    pub text: String,
}

/// The commands below `toolcell profile`.
#[derive(Debug, PartialEq, Eq)]
pub enum ProfileArgs {
    /// `toolcell profile list`
    List,
    /// `toolcell profile show NAME`
    Show {
        /// The profile's name.
        name: String,
    },
    /// `toolcell profile check FILE`
    Check {
        /// The file.
        file: PathBuf,
    },
    /// `toolcell profile explain NAME|FILE [-- COMMAND...]`
    Explain {
        /// A profile's name, or a file.
        profile: OsString,
        /// The command to plan for; empty when none was typed.
        command: Vec<OsString>,
        /// `--lost`: not the plan, but what it cannot promise on this host.
        lost: bool,
        /// `--json`
        json: bool,
    },
    /// `toolcell profile why NAME|FILE QUESTION [-- COMMAND...]`
    Why(WhyArgs),
}

/// The arguments of `toolcell secrets check`.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretsArgs {
    /// `--config`
    pub config: PathBuf,
    /// `--json`
    pub json: bool,
}

/// The arguments of `toolcell token`.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenArgs {
    /// `--config`
    pub config: PathBuf,
    /// What to do.
    pub command: TokenCommand,
}

/// The commands below `toolcell token`.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenCommand {
    /// `toolcell token new IDENTITY`
    New {
        /// Whose it is to be.
        identity: String,
        /// `--expires`
        expires: Option<Typed>,
    },
    /// `toolcell token list`
    List,
    /// `toolcell token revoke ID`
    Revoke {
        /// Which.
        id: String,
    },
}

/// The arguments of `toolcell profile why`.
#[derive(Debug, PartialEq, Eq)]
pub struct WhyArgs {
    /// A profile's name, or a file.
    pub profile: OsString,
    /// What is asked.
    pub question: Question,
    /// `--prove`
    pub prove: bool,
    /// The command that the cell is for; empty when none was typed.
    pub command: Vec<OsString>,
    /// `--json`
    pub json: bool,
}

/// What `toolcell profile why` is asked about.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// `--read`, `--write` or `--exec`, and the path.
    File(Access, PathBuf),
    /// `--connect`
    Connect(String),
    /// `--syscall`
    Syscall(String),
}

/// What one wants to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `--read`
    Read,
    /// `--write`
    Write,
    /// `--exec`
    Exec,
}

/// Parses a command line, program name first.
///
/// # Errors
/// What is wrong with it; [`CliError::Help`] is no mistake, but text to be printed on stdout.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, CliError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match without_options(&arguments) {
        Some(command_line) => Ok(command_line),
        None => described(arguments),
    }
}

/// `exec -- COMMAND`: to describe every option, for none of them to be there, takes longer than much of a launch.
fn without_options(arguments: &[OsString]) -> Option<CommandLine> {
    match arguments {
        [_, exec, dashes, command @ ..] if exec == "exec" && dashes == "--" && !command.is_empty() => {
            let (report, shared) = (None, SharedArgs::default());
            let invocation = Invocation::Exec(ExecArgs { command: command.to_vec(), report, shared });
            Some(CommandLine { color: ColorChoice::default(), invocation })
        }
        _ => None,
    }
}

/// By the description of the whole command line.
fn described(arguments: Vec<OsString>) -> Result<CommandLine, CliError> {
    let mut matches = definition::command().try_get_matches_from(arguments)?;
    let color = match matches.remove_one::<String>("color").as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    };
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    let invocation = invocation(&command, &mut matches)?;
    Ok(CommandLine { color, invocation })
}

fn invocation(command: &str, matches: &mut ArgMatches) -> Result<Invocation, CliError> {
    Ok(match command {
        "run" => Invocation::Run(run(matches)?),
        "serve" => Invocation::Serve(Box::new(serve::serve(matches)?)),
        "exec" => Invocation::Exec(ExecArgs {
            command: many(matches, "command"),
            report: matches.remove_one("report"),
            shared: shared(matches),
        }),
        "doctor" => Invocation::Doctor(DoctorArgs { json: matches.get_flag("json"), fix: fix(matches) }),
        "profile" => Invocation::Profile(profile(matches)?),
        "lock" => Invocation::Lock(lock::lock(matches)?),
        "install" => Invocation::Install(store::install(matches)),
        "store" => Invocation::Store(store::store(matches)?),
        "token" => Invocation::Token(token(matches)?),
        "quarantine" => Invocation::Quarantine(quarantine::quarantine(matches)?),
        "secrets" => Invocation::Secrets(secrets(matches)?),
        "audit" => Invocation::Audit(audit::audit(matches)?),
        "demo" => Invocation::Demo(DemoArgs {
            json: matches.get_flag("json"),
            floor: floor(matches),
            without_cell: matches.get_flag("without-cell"),
            around: many(matches, "around"),
        }),
        "selftest" => Invocation::Selftest(SelftestArgs {
            profile: typed(matches, "profile", "--profile"),
            json: matches.get_flag("json"),
            floor: floor(matches),
        }),
        "completions" => Invocation::Completions { shell: required(matches, "shell")? },
        "man" => Invocation::Man { directory: matches.remove_one("directory") },
        "hostile-server" => Invocation::HostileServer,
        "keep-doors" => Invocation::KeepDoors { sockets: many(matches, "socket") },
        "try-access" => Invocation::TryAccess {
            operation: required(matches, "operation")?,
            path: required(matches, "path")?,
        },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    })
}

fn fix(matches: &ArgMatches) -> Option<Fix> {
    let all = if matches.get_flag("yes") { Fix::ApplyAll } else { Fix::Apply };
    let chosen = if matches.get_flag("apply") { all } else { Fix::Print };
    matches.get_flag("fix").then_some(chosen)
}

fn run(matches: &mut ArgMatches) -> Result<RunArgs, CliError> {
    let command = many(matches, "server");
    let names: Vec<String> = many(matches, "name");
    let all = matches.get_flag("all");
    let server = match matches.remove_one("config") {
        Some(config) if all || names.len() > 1 => Server::Several { config, names },
        Some(config) => Server::Configured { config, name: names.into_iter().next() },
        None if command.is_empty() => return Err(CliError::ServerMissing { name: names.into_iter().next() }),
        None => Server::Command(command),
    };
    Ok(RunArgs {
        server,
        jobs: typed(matches, "jobs", "--jobs"),
        spares: typed(matches, "spares", "--spares"),
        spares_memory: typed(matches, "spares-memory", "--spares-memory"),
        spares_idle: typed(matches, "spares-idle", "--spares-idle"),
        state: matches.remove_one::<String>("state").and_then(|state| state.parse().ok()),
        no_validate: matches.get_flag("no-validate"),
        lock: matches.remove_one("lock"),
        lists_only: matches.get_flag("lists-only"),
        shared: shared(matches),
    })
}

fn shared(matches: &mut ArgMatches) -> SharedArgs {
    SharedArgs {
        profile: typed(matches, "profile", "--profile"),
        read: many(matches, "read"),
        write: many(matches, "write"),
        env: many(matches, "env").into_iter().map(|text| Typed { option: "--env", text }).collect(),
        memory: typed(matches, "memory", "--memory"),
        cpu: typed(matches, "cpu", "--cpu"),
        tasks: typed(matches, "tasks", "--tasks"),
        timeout: typed(matches, "timeout", "--timeout"),
        scratch: typed(matches, "scratch", "--scratch"),
        floor: floor(matches),
        writes: writes(matches),
        net: many(matches, "net").into_iter().map(|text| Typed { option: "--net", text }).collect(),
        listen: many(matches, "listen").into_iter().map(|text| Typed { option: "--listen", text }).collect(),
        audit: matches.remove_one("audit"),
    }
}

fn floor(matches: &mut ArgMatches) -> Option<Floor> {
    let text = matches.remove_one::<String>("floor")?;
    Floor::ALL.into_iter().find(|floor| floor.name() == text)
}

fn writes(matches: &mut ArgMatches) -> Option<Writes> {
    let text = matches.remove_one::<String>("writes")?;
    Writes::ALL.into_iter().find(|writes| writes.name() == text)
}

fn profile(matches: &mut ArgMatches) -> Result<ProfileArgs, CliError> {
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    let matches = &mut matches;
    Ok(match command.as_str() {
        "list" => ProfileArgs::List,
        "show" => ProfileArgs::Show { name: required(matches, "name")? },
        "check" => ProfileArgs::Check { file: required(matches, "file")? },
        "explain" => ProfileArgs::Explain {
            profile: required(matches, "profile")?,
            command: many(matches, "command"),
            lost: matches.get_flag("lost"),
            json: matches.get_flag("json"),
        },
        "why" => ProfileArgs::Why(WhyArgs {
            profile: required(matches, "profile")?,
            question: question(matches)?,
            prove: matches.get_flag("prove"),
            command: many(matches, "command"),
            json: matches.get_flag("json"),
        }),
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    })
}

fn secrets(matches: &mut ArgMatches) -> Result<SecretsArgs, CliError> {
    // `check` is all there is.
    let Some((_check, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    Ok(SecretsArgs { config: required(&mut matches, "config")?, json: matches.get_flag("json") })
}

fn token(matches: &mut ArgMatches) -> Result<TokenArgs, CliError> {
    let Some((command, mut matches)) = matches.remove_subcommand() else {
        return Err(incomplete(ErrorKind::MissingSubcommand));
    };
    let matches = &mut matches;
    let command_line = match command.as_str() {
        "new" => TokenCommand::New {
            identity: required(matches, "identity")?,
            expires: typed(matches, "expires", "--expires"),
        },
        "list" => TokenCommand::List,
        "revoke" => TokenCommand::Revoke { id: required(matches, "id")? },
        _ => return Err(incomplete(ErrorKind::InvalidSubcommand)),
    };
    Ok(TokenArgs { config: required(matches, "config")?, command: command_line })
}

fn question(matches: &mut ArgMatches) -> Result<Question, CliError> {
    for (id, access) in [("read", Access::Read), ("write", Access::Write), ("exec", Access::Exec)] {
        if let Some(path) = matches.remove_one(id) {
            return Ok(Question::File(access, path));
        }
    }
    if let Some(address) = matches.remove_one("connect") {
        return Ok(Question::Connect(address));
    }
    Ok(Question::Syscall(required(matches, "syscall")?))
}

fn typed(matches: &mut ArgMatches, id: &str, option: &'static str) -> Option<Typed> {
    matches.remove_one(id).map(|text| Typed { option, text })
}

fn many<T: Clone + Send + Sync + 'static>(matches: &mut ArgMatches, id: &str) -> Vec<T> {
    matches.remove_many(id).map(Iterator::collect).unwrap_or_default()
}

fn required<T: Clone + Send + Sync + 'static>(matches: &mut ArgMatches, id: &str) -> Result<T, CliError> {
    matches.remove_one(id).ok_or_else(|| incomplete(ErrorKind::MissingRequiredArgument))
}

/// What clap lets through although the definition rules it out; refused here as well.
fn incomplete(kind: ErrorKind) -> CliError {
    definition::command().error(kind, "the command line is incomplete").into()
}

#[cfg(test)]
mod tests;
