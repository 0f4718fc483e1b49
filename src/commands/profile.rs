//! `toolcell profile`: lists, shows and checks profiles, and explains the plan that one leads to. `why` answers one
//! question, `lost` says what a host cannot give.
//!
//! Neighbours: `policy::files` finds and resolves, `compose` plans, `plan::explain` words the steps. Never: starts a cell, but for `why --prove`.

mod lost;
pub(super) mod prove;
mod why;

use std::fmt::Write as _;
use std::path::Path;

use super::compose::{self, Surroundings};
use crate::cli::{ColorChoice, ProfileArgs};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::plan::doors::Doors;
use crate::plan::explain;
use crate::policy::add::Additions;
use crate::policy::{Policy, check, print};
use crate::text::escape;

/// Runs one of the subcommands.
pub(super) fn run(args: &ProfileArgs, color: ColorChoice) -> Result<Ending, Failure> {
    match args {
        ProfileArgs::List => list(),
        ProfileArgs::Show { name } => show(name),
        ProfileArgs::Check { file } => check_file(file, color),
        ProfileArgs::Why(args) => why::run(args),
        ProfileArgs::Explain { profile, command, lost, json } => {
            let profile = compose::texts(std::slice::from_ref(profile))?.concat();
            let command = compose::texts(command)?;
            if *lost {
                lost::run(&profile, &command, *json)
            } else {
                explain_plan(&profile, &command, *json, color)
            }
        }
    }
}

fn list() -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(None)?;
    let listed = surroundings.profiles();
    let width = listed.iter().map(|profile| profile.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for profile in &listed {
        let what = match &profile.policy {
            Ok(policy) => escape(&policy.description).into_owned(),
            Err(error) => format!("cannot be used: {error}"),
        };
        let place =
            profile.path.as_deref().map_or_else(String::new, |path| format!("  [{}]", path.display()));
        let _infallible = writeln!(text, "{:width$}  {what}{place}", profile.name);
    }
    super::print(text.as_bytes())
}

fn show(name: &str) -> Result<Ending, Failure> {
    let policy = Surroundings::of_process(None)?.policy(name, &Additions::default())?;
    super::print(print::to_toml(&policy).as_bytes())
}

fn check_file(file: &Path, color: ColorChoice) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(Some(file))?;
    let path =
        file.to_str().ok_or_else(|| Failure::new(Ending::Usage, "the file's name is not valid UTF-8"))?;
    // A name without a slash would be looked up as a profile's name.
    let path = if path.contains('/') { path.to_owned() } else { format!("./{path}") };
    let policy = surroundings.policy(&path, &Additions::default())?;
    // As on a host with IPv6, where doors have more addresses.
    drop(Doors::fitting(&policy.network, true).map_err(compose::refused)?);
    for warning in check::warnings(&policy) {
        diag::warn(color, &warning, None);
    }
    super::print(format!("{path}: profile `{}` is valid\n", policy.name).as_bytes())
}

/// A command for a profile that is explained without one: the runtime view of `true` is the system's libraries.
const NO_COMMAND: &str = "true";

fn explain_plan(
    profile: &str,
    command: &[String],
    json: bool,
    color: ColorChoice,
) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(None)?;
    let policy: Policy = surroundings.policy(profile, &Additions::default())?;
    let standing_in = [NO_COMMAND.to_owned()];
    let runtime = surroundings.runtime(if command.is_empty() { &standing_in } else { command })?;
    let mut facts = compose::facts();
    if policy.floor.is_bare() {
        facts.try_namespaces();
    }
    // As for a call whose record is written.
    drop(facts.follow_denials());
    let composed = surroundings.plan(&policy, &runtime, &facts)?;
    for remark in &composed.remarks {
        diag::warn(color, remark, None);
    }
    if json {
        let mut text =
            serde_json::to_vec_pretty(&composed.plan).map_err(|error| Failure::new(Ending::Other, error))?;
        text.push(b'\n');
        return super::print(&text);
    }
    super::print(explain::text(&policy, &composed.plan).as_bytes())
}
