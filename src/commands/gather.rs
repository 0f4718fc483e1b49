//! `toolcell run` with more than one name, or `--all`: several servers as one.
//!
//! Neighbours: `commands::run` is what each child does, `front::gather` speaks with them. Never: starts a cell itself.

use std::path::Path;

use super::compose::Surroundings;
use crate::cli::{ColorChoice, RunArgs, Server};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::front::child::Start;
use crate::front::gather::{self, LONGEST, Options};
use crate::launch::own;
use crate::mcp::stdio;
use crate::policy::files::FilesError;

/// Serves until the client closes its side. No names: all servers of the configuration.
pub(super) fn run(
    args: &RunArgs,
    config: &Path,
    names: &[String],
    color: ColorChoice,
) -> Result<Ending, Failure> {
    own::confine_front().map_err(|errno| Failure::new(Ending::Other, errno))?;
    let names = chosen(config, names)?;
    if let Some((one, other)) = gather::clash(&names) {
        let hint = format!("rename one of them, e.g. `[servers.{}]`", other.replace('_', "-"));
        let told = format!("tools of the servers `{one}` and `{other}` could have the same name");
        return Err(Failure::new(Ending::Configuration, told).hint(Some(hint)));
    }
    let start = |name: &String| {
        let one = Server::Configured { config: config.to_owned(), name: Some(name.clone()) };
        let start = Start {
            program: "/proc/self/exe".into(),
            arguments: RunArgs { server: one, ..args.clone() }.words(color),
            set: Vec::new(),
            removed: Vec::new(),
            longest: LONGEST,
        };
        (name.clone(), start)
    };
    let options = Options {
        servers: names.iter().map(start).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        notice: Box::new(move |text| diag::warn(color, text, None)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Ending::Cell, error))?;
    let served = runtime.block_on(async {
        let stdin = stdio::stdin().map_err(|error| Failure::new(Ending::Other, error))?;
        let stdout = stdio::stdout().map_err(|error| Failure::new(Ending::Other, error))?;
        gather::serve(options, stdin, stdout).await.map_err(|error| Failure::new(Ending::Other, error))
    });
    // A thread that still reads a client's terminal must not keep the process.
    runtime.shutdown_background();
    served.map(|()| Ending::Success)
}

/// The servers that are meant, as the configuration has them.
fn chosen(path: &Path, names: &[String]) -> Result<Vec<String>, Failure> {
    let surroundings = Surroundings::of_process(Some(path))?;
    let config = surroundings.library.config().map_err(|error: FilesError| {
        let hint = error.hint();
        Failure::new(Ending::Configuration, error).hint(hint)
    })?;
    if names.is_empty() {
        let all: Vec<String> = config.servers.keys().cloned().collect();
        let none = || Failure::new(Ending::Configuration, "the configuration has no server");
        return if all.is_empty() { Err(none()) } else { Ok(all) };
    }
    for (at, name) in names.iter().enumerate() {
        config.server(name).map_err(|hint| {
            Failure::new(Ending::Configuration, format!("the configuration has no server `{name}`"))
                .hint(Some(hint))
        })?;
        if names.iter().take(at).any(|before| before == name) {
            return Err(Failure::new(Ending::Usage, format!("server `{name}` is named twice")));
        }
    }
    Ok(names.to_vec())
}
