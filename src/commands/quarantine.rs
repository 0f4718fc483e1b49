//! `toolcell quarantine`: lists the tools that are kept out, and lets one run again.
//!
//! Neighbours: `guard` keeps them out. Never: lets a tool run before the log says so.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::audit::{no_place, signing_key, state_directory};
use crate::audit::{self, Log, Quarantined, rfc3339, to_line};
use crate::cli::{ColorChoice, QuarantineArgs, QuarantineCommand};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::guard::{Place, StateError, Step, Store};
use crate::policy::mistakes::closest;
use crate::sys::identity;
use crate::text::escape;

/// Runs one of the subcommands.
pub(super) fn run(args: &QuarantineArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let owner = identity::effective().0;
    let directory =
        state_directory().ok_or_else(|| no_place(Ending::Configuration, "what is kept of the tools"))?;
    let store = Store::new(&directory, owner);
    match &args.command {
        QuarantineCommand::List => list(&store, args.json),
        QuarantineCommand::Release { server, tool, audit } => {
            let log = audit.clone().unwrap_or_else(|| directory.join(audit::LOG));
            release(&store, (server, tool), (&log, owner, color), args.json)
        }
    }
}

fn state_failed(error: StateError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Configuration, error).hint(hint)
}

fn date(micros: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_micros(micros))
}

/// Those of a server that are not free.
fn held(store: &Store, server: &str) -> Result<Vec<(String, Place)>, Failure> {
    let state = store.read(server).map_err(state_failed)?;
    let held = state.tools.into_iter().filter(|(_, tool)| tool.place.is_held());
    Ok(held.map(|(name, tool)| (name, tool.place)).collect())
}

fn list(store: &Store, json: bool) -> Result<Ending, Failure> {
    let (mut text, mut all) = (String::new(), Vec::new());
    for server in store.servers().map_err(state_failed)? {
        for (tool, place) in held(store, &server)? {
            let [since, until] = [place.since(), place.until()].map(|time| time.map(date));
            let begun = since.as_deref().unwrap_or_default();
            let state = match (&place, &until) {
                (Place::Tried { clean, .. }, _) => {
                    format!("tried since {begun}, {clean} calls without a violation so far")
                }
                (_, Some(until)) => format!("kept out since {begun}, until {until}, then tried"),
                (_, None) => format!("kept out since {begun}, until it is released"),
            };
            let because = place.because().unwrap_or("the time is over");
            let _infallible =
                writeln!(text, "{}  {}  {state}: {}", escape(&server), escape(&tool), escape(because));
            all.push(json!({
                "server": server,
                "tool": tool,
                "state": place.name(),
                "since": since,
                "until": until,
                "because": place.because(),
            }));
        }
    }
    if text.is_empty() {
        text.push_str("no tool is kept out\n");
    }
    super::print(&if json { to_line(&all).unwrap_or_default() } else { text.into_bytes() })
}

fn release(
    store: &Store,
    (server, tool): (&str, &str),
    log: (&Path, u32, ColorChoice),
    json: bool,
) -> Result<Ending, Failure> {
    let none = |names: Vec<String>, message: String| {
        let hint = match closest(tool, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "`toolcell quarantine list` names all that are".to_owned(),
        };
        Failure::new(Ending::Other, message).hint(Some(hint))
    };
    if !store.servers().map_err(state_failed)?.iter().any(|known| known == server) {
        return Err(none(Vec::new(), format!("no tool of a server `{server}` is kept out")));
    }
    let mut state = store.hold(server).map_err(state_failed)?;
    let released = state.state.tools.get_mut(tool).and_then(|tool| tool.place.release());
    let Some(step) = released else {
        let names = held(store, server)?.into_iter().map(|(name, _)| name).collect();
        return Err(none(names, format!("the tool `{tool}` of server `{server}` is not kept out")));
    };
    record(step, (server, tool), log)?;
    state.write().map_err(state_failed)?;
    let text = format!("the tool `{}` of server `{}` may run again\n", escape(tool), escape(server));
    let value = json!({ "server": server, "tool": tool, "state": "free" });
    super::print(&if json { to_line(&value).unwrap_or_default() } else { text.into_bytes() })
}

/// Writes the step to the log, signed as every end of a writer is.
fn record(
    step: Step,
    place: (&str, &str),
    (log, owner, color): (&Path, u32, ColorChoice),
) -> Result<(), Failure> {
    let key = signing_key(color)?;
    audit::make_directory_for(log).map_err(super::audit::file_failed)?;
    let failed = |error: audit::LogError| {
        let hint = error.hint();
        Failure::new(Ending::Audit, error).hint(hint)
    };
    let log = Log::open(log, owner).map_err(failed)?;
    let because = format!("a person released it (uid {owner})");
    log.write(&Quarantined::new(place, step.name(), &because, SystemTime::now())).map_err(failed)?;
    key.map_or(Ok(()), |key| log.sign(&key).map_err(failed))
}
