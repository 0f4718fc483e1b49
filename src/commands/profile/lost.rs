//! `toolcell profile explain --lost`: what this host cannot give a profile, why, and what to type.
//!
//! Neighbours: `host::probe` tries each part, `compose` plans the rung without namespaces, `plan::lost` judges. Never: judges
//! itself; starts a cell.

use serde_json::json;

use crate::commands::compose::{self, Surroundings};
use crate::commands::doctor::{call, failed_json, prose};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::probe;
use crate::host::probe::clues::Clues;
use crate::plan::lost::{Losses, losses};
use crate::policy::add::Additions;
use crate::policy::{Floor, Policy};
use crate::text::escape;

/// Prints the losses; exits with the code of a floor that is not reached when calls are refused for it.
pub(super) fn run(profile: &str, command: &[String], json: bool) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(None)?;
    let policy = surroundings.policy(profile, &Additions::default())?;
    let mut facts = compose::facts();
    let parts = probe::run(&facts, &Clues::read());
    facts.try_namespaces();
    let refused = if facts.no_namespaces.is_some() {
        let standing_in = [super::NO_COMMAND.to_owned()];
        let runtime = surroundings.runtime(if command.is_empty() { &standing_in } else { command })?;
        let host = policy.network.mode.is_host();
        let floor = if host { Floor::HostNetworkLandlock } else { Floor::Landlock };
        let lowest = Policy { floor, ..policy.clone() };
        match surroundings.plan(&lowest, &runtime, &facts) {
            Ok(_) => None,
            Err(failure) if failure.ending() == Ending::Floor => Some(failure.message()),
            Err(failure) => return Err(failure),
        }
    } else {
        None
    };
    let losses = losses(&policy, &parts, facts.landlock_abi, refused.as_deref());
    let runs = losses.reaches.is_some_and(|rung| policy.floor.accepts(rung));
    let text = if json { as_json(&policy, &losses, runs) } else { as_text(&policy, &losses, runs) };
    crate::commands::print(text.as_bytes())?;
    Ok(if runs { Ending::Success } else { Ending::Floor })
}

fn as_text(policy: &Policy, losses: &Losses, runs: bool) -> String {
    let reaches = losses.reaches.map_or_else(|| "no rung".to_owned(), |floor| format!("`{}`", floor.name()));
    let end = if runs { "" } else { ": every call is refused" };
    let name = escape(&policy.name);
    let mut text = format!("{name}: asks for `{}`, this host reaches {reaches}{end}\n", policy.floor.name());
    if losses.missing.is_empty() {
        text.push_str("nothing is lost\n");
    }
    for missing in &losses.missing {
        text.push_str(&format!("\nmissing: {}\n", missing.layer));
        if let Some(failed) = &missing.failed {
            prose(&mut text, "  fails  ", &call(failed));
        }
        prose(&mut text, "  cause  ", &missing.cause);
        prose(&mut text, "  fix    ", &missing.fix);
        for lost in &missing.lost {
            let rule = lost.rule.as_ref().map_or_else(String::new, |rule| format!(" ({rule})"));
            prose(&mut text, "  lost   ", &format!("{}{rule}; here: {}", lost.promise, lost.instead));
        }
    }
    text
}

fn as_json(policy: &Policy, losses: &Losses, runs: bool) -> String {
    let missing: Vec<_> = losses
        .missing
        .iter()
        .map(|missing| {
            json!({
                "layer": missing.layer,
                "failed": missing.failed.as_ref().map(failed_json),
                "cause": missing.cause,
                "fix": missing.fix,
                "lost": missing.lost,
            })
        })
        .collect();
    let value = json!({
        "schema": 1,
        "profile": policy.name,
        "asks": policy.floor.name(),
        "reaches": losses.reaches.map(Floor::name),
        "runs": runs,
        "missing": missing,
    });
    format!("{value:#}\n")
}
