//! From the command line to an exit code: parses, dispatches, prints what failed.
//!
//! Neighbours: `main` calls [`main`]; each subcommand is one module here. Never: does a subcommand's work.

mod audit;
mod changes;
mod completions;
mod compose;
mod demo;
mod doctor;
mod doors;
mod exec;
mod gather;
mod install;
mod installed;
mod lock;
mod man;
mod profile;
mod quarantine;
mod quiet;
mod run;
mod secrets;
mod serve;
mod store;
mod token;

use std::ffi::OsString;
use std::io::{self, Write as _};

use self::compose::Surroundings;
use self::demo::Around;
use self::exec::Begun;
use crate::cli::{self, CliError, ColorChoice, CommandLine, DemoArgs, Invocation, SelftestArgs};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::hostile;
use crate::launch::own;
use crate::network::porter;
use crate::policy::add::Additions;
use crate::policy::mode::HOST;
use crate::policy::{Floor, files};

/// Runs one command line, program name first, and says how the process is to end.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Ending {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Before the rest is read, because a cell takes longer to make than anything else.
    let begun = arguments.get(1).filter(|command| *command == "exec").map(|_| exec::begin());
    let CommandLine { color, invocation } = match cli::parse(arguments) {
        Ok(command_line) => command_line,
        Err(error) => return help_or_usage(error),
    };
    match dispatch(invocation, color, begun) {
        Ok(ending) => ending,
        Err(failure) => {
            if failure.ending() != PIPE_CLOSED {
                failure.print(color);
            }
            failure.ending()
        }
    }
}

/// How a shell shows a process that SIGPIPE ended. The signal itself stays ignored, because a pipe that a cell
/// closes must not end the supervisor; what only prints ends as if it were not.
const PIPE_CLOSED: Ending = Ending::Signalled(13);

fn dispatch(invocation: Invocation, color: ColorChoice, begun: Option<Begun>) -> Result<Ending, Failure> {
    match invocation {
        Invocation::Completions { shell } => print(&completions::script(shell)),
        Invocation::Man { directory: None } => print(&man::page().map_err(man::failure)?),
        Invocation::Man { directory: Some(directory) } => man::write_pages(&directory).map_err(man::failure),
        Invocation::Exec(args) => exec::run(&args, color, begun),
        Invocation::Doctor(args) => doctor::run(&args, color),
        Invocation::Profile(args) => profile::run(&args, color),
        Invocation::Run(args) => run::run(&args, color),
        Invocation::Serve(args) => serve::run(&args, color),
        Invocation::Lock(args) => lock::run(&args, color),
        Invocation::Install(args) => install::run(&args, color),
        Invocation::Store(args) => store::run(&args, color),
        Invocation::Token(args) => token::run(&args),
        Invocation::Quarantine(args) => quarantine::run(&args, color),
        Invocation::Secrets(args) => secrets::check(&args),
        Invocation::Audit(args) => audit::run(&args, color),
        Invocation::Demo(DemoArgs { json, floor, without_cell, around }) => {
            let around = if without_cell { Around::Command(around) } else { Around::Cell };
            attack(json, floor, around, color)
        }
        Invocation::Selftest(SelftestArgs { profile, json, floor }) => {
            let profile = profile.map(|typed| absolute(typed.text)).transpose()?;
            profile.as_deref().map_or(Ok(()), judgeable)?;
            attack(json, floor, Around::EveryCell { profile }, color)
        }
        Invocation::TryAccess { operation, path } => Ok(profile::prove::try_it(&operation, &path)),
        Invocation::KeepDoors { sockets } => {
            porter::main(&sockets, own::confine_porter).map(|()| Ending::Success).map_err(|errno| {
                let hint = "it is started by `run` and `exec` where a profile has `[network]`".to_owned();
                Failure::new(Ending::Other, errno).hint(Some(hint))
            })
        }
        Invocation::HostileServer => match hostile::serve(io::stdin().lock(), io::stdout().lock()) {
            Ok(()) => Ok(Ending::Success),
            Err(error) => Err(stdout_failed(error)),
        },
    }
}

/// A profile as it is found from another working directory: a name stays one.
fn absolute(profile: String) -> Result<String, Failure> {
    if !files::is_file(&profile) {
        return Ok(profile);
    }
    let path = std::path::absolute(&profile).map_err(|error| Failure::new(Ending::Configuration, error))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Attacks over a network that a profile gives to its tools are no escapes, and nobody can tell them from others by what they do.
fn judgeable(profile: &str) -> Result<(), Failure> {
    // What cannot be read `run` says, as to everybody.
    let policy = Surroundings::of_process(None)?.policy(profile, &Additions::default());
    match policy {
        Ok(policy) if policy.network.mode.is_host() => {
            let told = format!(
                "`selftest` cannot judge profile `{}`: attacks over the host's network are allowed by its `{HOST}`",
                policy.name
            );
            let hint = format!("try the same profile without `{HOST}`: all else of a cell is the same");
            Err(Failure::new(Ending::Configuration, told).hint(Some(hint)))
        }
        _ => Ok(()),
    }
}

fn attack(json: bool, floor: Option<Floor>, around: Around, color: ColorChoice) -> Result<Ending, Failure> {
    let failed = |error: demo::Error| {
        let (ending, hint) = (error.ending(), error.hint());
        Failure::new(ending, error).hint(hint)
    };
    let program = std::env::current_exe().map_err(|error| Failure::new(Ending::Other, error))?;
    let mut stdout = io::stdout().lock();
    let options = demo::Options { json, floor, around, colour: diag::color_on(color, &stdout), program };
    match demo::run(&options, &mut stdout).map_err(failed)? {
        true => Ok(Ending::Success),
        false => Ok(Ending::Other),
    }
}

/// Prints the whole result of a command on stdout.
///
/// # Errors
/// When stdout cannot be written; a reader that went away is not worth a message.
pub fn print(text: &[u8]) -> Result<Ending, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Ending::Success),
        Err(error) => Err(stdout_failed(error)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
struct StdoutError(#[source] io::Error);

fn stdout_failed(error: io::Error) -> Failure {
    let ending = if error.kind() == io::ErrorKind::BrokenPipe { PIPE_CLOSED } else { Ending::Other };
    Failure::new(ending, StdoutError(error))
}

/// Help and version go to stdout; mistakes, and the help that answers a missing command, to stderr.
fn help_or_usage(error: CliError) -> Ending {
    match &error {
        CliError::Help(text) => print(text.as_bytes()).unwrap_or_else(|failure| failure.ending()),
        CliError::CommandMissing(help) => {
            diag::write_to_stderr(help);
            Ending::Usage
        }
        CliError::ServerMissing { .. } | CliError::Usage { .. } => {
            let hint = error.hint();
            Failure::new(Ending::Usage, error).hint(hint).print(ColorChoice::Auto);
            Ending::Usage
        }
    }
}

/// Does the person at the terminal agree?
fn yes(question: &str) -> io::Result<bool> {
    diag::write_to_stderr(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
