//! What `run` makes of `[anomalies]`, `[alerts]`, `[quarantine]` and `[export]`: the guard's duty, after everything that can
//! be wrong with it was looked at.
//!
//! Neighbours: `run` starts the guard with it. Never: lets a session start whose hooks a tool could change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::audit::{no_place, state_directory};
use super::{Served, Surroundings};
use crate::audit::{Bounds, Key};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::guard::{Duty, Store};
use crate::policy::Policy;
use crate::policy::add::Additions;
use crate::policy::config::guard::Guarding;
use crate::policy::files::{FilesError, Library};
use crate::sys::{descriptor, identity};
use crate::text::{chain, quoted};

/// What the guard of a session is there for.
pub(super) fn duty(
    served: &Served,
    library: &Library,
    log: &Path,
    key: Option<Key>,
    bounds: Bounds,
) -> Result<Duty, Failure> {
    let owner = identity::effective().0;
    let guarding = served.guarding.clone();
    let store = match state_directory() {
        _ if !guarding.remembers() => None,
        Some(directory) => Some(Store::new(&directory, owner)),
        None => return Err(no_place(Ending::Configuration, "what is kept of the tools")),
    };
    if let Some(store) = &store {
        // What is damaged is said now, and not at the first call.
        store.hold(&served.name).map_err(|error| {
            let hint = error.hint();
            Failure::new(Ending::Configuration, error).hint(hint)
        })?;
    }
    if let Some(program) = guarding.alerts.iter().filter_map(|alerts| alerts.command.as_ref()?.first()).next()
    {
        descriptor::access(Path::new(program), libc::X_OK).map_err(|errno| {
            let message = format!("the program of `alerts.command`, `{program}`, cannot be started: {errno}");
            let hint = match errno.0 {
                libc::ENOENT | libc::ENOTDIR => "name one that is there, with its absolute path".to_owned(),
                _ => format!("let this user run it: ls -l {}", quoted(program)),
            };
            Failure::new(Ending::Configuration, message).hint(Some(hint))
        })?;
    }
    let library = library.clone();
    Ok(Duty {
        server: served.name.clone(),
        guarding,
        store,
        log: std::path::absolute(log).map_err(|error| Failure::new(Ending::Audit, error))?,
        bounds,
        key,
        owner,
        tokens: Box::new(move || {
            library.tokens_and_text().map(|(_, text)| text).map_err(|error| chain(&error))
        }),
    })
}

/// Refuses a policy under which a tool sees or changes what toolcell writes of it, or changes what toolcell starts.
pub(super) fn keep<'p>(
    guarding: &Guarding,
    library: &Library,
    policy: &'p Policy,
    needed: impl IntoIterator<Item = &'p Path>,
) -> Result<(), Failure> {
    let failed = |error: FilesError| {
        let hint = error.hint();
        Failure::new(Ending::Configuration, error).hint(hint)
    };
    let needed: Vec<&Path> = needed.into_iter().collect();
    let alerts = guarding.alerts.as_ref();
    let written = alerts.and_then(|alerts| alerts.file.as_ref());
    let exported = guarding.export.iter().flat_map(|export| [&export.prometheus, &export.otel]).flatten();
    for file in written.into_iter().chain(exported) {
        library.keep_from_tools(policy, needed.iter().copied(), file).map_err(failed)?;
    }
    let words = alerts.and_then(|alerts| alerts.command.as_ref()).into_iter().flatten();
    for file in words.filter(|word| word.starts_with('/')).map(PathBuf::from) {
        library.keep_as_it_is(policy, &file).map_err(failed)?;
    }
    Ok(())
}

/// The policies of calls that are tried, where tools may come to that.
pub(super) fn less(
    served: &Served,
    surroundings: &Surroundings,
    additions: &Additions,
    own: &[(&str, &Path)],
    policies: &BTreeMap<String, Arc<Policy>>,
) -> Result<BTreeMap<String, Arc<Policy>>, Failure> {
    let Some(quarantine) = &served.guarding.quarantine else { return Ok(BTreeMap::new()) };
    let Some(named) = &quarantine.profile else {
        let less = policies.iter().map(|(name, policy)| (name.clone(), Arc::new(policy.tightened())));
        return Ok(less.collect());
    };
    // What was typed may add to what a tool has, and not to what one has that is tried.
    let writes = additions.writes.filter(|writes| writes.overlays());
    let (env, floor) = (additions.env.clone(), additions.floor);
    let additions = Additions { env, floor, writes, ..Additions::default() };
    let policy = Arc::new(surroundings.policy_without(named, &additions, own)?);
    Ok(policies.keys().map(|name| (name.clone(), Arc::clone(&policy))).collect())
}
