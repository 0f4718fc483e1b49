//! Turns what clap found wrong with a command line into an error and a hint of our own form.
//!
//! Neighbours: `cli::parse` makes a [`CliError`]; `commands` prints it. Never: prints.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong with a command line, or that help was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Help or the version is to be printed on stdout; not a mistake.
    #[error("help was asked for")]
    Help(String),
    /// A command was left out that has others below it: its help is the best answer.
    #[error("a command is missing")]
    CommandMissing(String),
    /// `run` was told no server, or a name without a configuration.
    #[error("a server is missing")]
    ServerMissing {
        /// What stood where a configured server's name would.
        name: Option<String>,
    },
    /// Anything else.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to type instead.
        hint: Option<String>,
    },
}

impl CliError {
    /// What to type instead.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Help(_) => None,
            Self::CommandMissing(_) => Some("see `toolcell --help`".to_owned()),
            Self::ServerMissing { name: Some(name) } => Some(format!(
                "`toolcell run -- {name}` runs a command, `toolcell run --config FILE {name}` a configured server"
            )),
            Self::ServerMissing { name: None } => Some(
                "put its command after `--`, as in `toolcell run -- mcp-server-git`, or name it with \
                 `--config FILE NAME`"
                    .to_owned(),
            ),
            Self::Usage { hint, .. } => hint.clone(),
        }
    }
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        let text = || error.render().to_string();
        let argument = || one(&error, ContextKind::InvalidArg);
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Help(text()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Self::CommandMissing(text()),
            ErrorKind::UnknownArgument => {
                let argument = argument();
                let hint = suggestion(&error, ContextKind::SuggestedArg).unwrap_or_else(|| {
                    "see `--help`; a program and its own arguments go after `--`".to_owned()
                });
                usage(format!("unexpected argument `{argument}`"), hint)
            }
            ErrorKind::InvalidSubcommand => {
                let hint = suggestion(&error, ContextKind::SuggestedSubcommand).unwrap_or_else(|| {
                    "see `toolcell --help`; to run a program: `toolcell exec -- PROGRAM`".to_owned()
                });
                usage(format!("unknown command `{}`", one(&error, ContextKind::InvalidSubcommand)), hint)
            }
            ErrorKind::InvalidValue => {
                let value = one(&error, ContextKind::InvalidValue);
                let message = if value.is_empty() {
                    format!("`{}` needs a value", argument())
                } else {
                    format!("`{value}` is not a value of `{}`", argument())
                };
                let valid = one(&error, ContextKind::ValidValue);
                let hint = if valid.is_empty() { SEE_HELP.to_owned() } else { format!("one of: {valid}") };
                usage(message, suggestion(&error, ContextKind::SuggestedValue).unwrap_or(hint))
            }
            ErrorKind::MissingRequiredArgument => {
                usage(format!("`{}` is missing", argument()), synopsis(&error))
            }
            ErrorKind::ArgumentConflict => {
                let (argument, prior) = (argument(), one(&error, ContextKind::PriorArg));
                if prior.is_empty() || prior == argument {
                    usage(format!("`{argument}` was given more than once"), "keep one of them".to_owned())
                } else {
                    usage(
                        format!("`{argument}` and `{prior}` cannot be used together"),
                        "leave one of them out".to_owned(),
                    )
                }
            }
            _ => {
                let text = text();
                let first = text.lines().next().unwrap_or_default();
                usage(first.trim_start_matches("error: ").to_owned(), SEE_HELP.to_owned())
            }
        }
    }
}

const SEE_HELP: &str = "see `--help`";

fn usage(message: String, hint: String) -> CliError {
    CliError::Usage { message, hint: Some(hint) }
}

fn one(error: &clap::Error, kind: ContextKind) -> String {
    error.get(kind).map(ToString::to_string).unwrap_or_default()
}

fn suggestion(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let suggested = match error.get(kind)? {
        // The likeliest comes last.
        ContextValue::Strings(several) => several.last()?.clone(),
        other => other.to_string(),
    };
    Some(format!("did you mean `{suggested}`?"))
}

/// The usage line that clap gives with an error, as a hint.
fn synopsis(error: &clap::Error) -> String {
    let usage = one(error, ContextKind::Usage);
    let usage = usage.trim().trim_start_matches("Usage:").trim();
    if usage.is_empty() { SEE_HELP.to_owned() } else { format!("usage: {usage}") }
}
