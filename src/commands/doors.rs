//! What cells with doors need beside their plan: the process that keeps the doors, whom it trusts, and what it puts in.
//!
//! Neighbours: `run` and `exec` start it, `network` is it, `secrets` reads what is put in. Never: keeps a value.

use std::collections::BTreeSet;
use std::path::Path;

use super::run::files_failed;
use super::secrets;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::network::porter::Porter;
use crate::network::roots::{self, RootsError};
use crate::policy::Policy;
use crate::policy::config::secrets::Secret;
use crate::policy::files::Library;
use crate::sys::Errno;

/// Starts the process that keeps the doors of these policies, if they have any; under none of them a tool can change whom a door of
/// another one trusts. The process must still have one thread.
pub(super) fn porter<'p>(
    library: &Library,
    policies: impl Iterator<Item = &'p Policy> + Clone,
) -> Result<Option<Porter>, Failure> {
    let open: Vec<&Policy> = policies.clone().filter(|policy| policy.network.is_open()).collect();
    if open.is_empty() {
        return Ok(None);
    }
    let broken = |errno: Errno| Failure::new(Ending::Cell, errno);
    let all = open.iter().flat_map(|policy| &policy.network.http);
    let named: BTreeSet<Option<&Path>> = all.map(|http| http.roots.as_deref()).collect();
    let mut files = Vec::new();
    for named in named {
        let path = named.map_or_else(roots::of_host, |path| Ok(path.to_owned())).map_err(untrusted)?;
        let (path, file) = library.open_safe(&path).map_err(files_failed)?;
        for policy in policies.clone() {
            library.keep_trusted(policy, &path).map_err(files_failed)?;
        }
        files.push((named, roots::checked(&path, file).map_err(untrusted)?));
    }
    let porter = Porter::start(open.iter().map(|policy| &policy.network)).map_err(broken)?;
    for (named, file) in files {
        porter.trust(named, &file).map_err(broken)?;
    }
    Ok(Some(porter))
}

fn untrusted(error: RootsError) -> Failure {
    let hint = match &error {
        RootsError::NoBundle => "name a file with certificates by `roots` in the door's section",
        RootsError::Read { .. } => "correct `roots` in the door's section, or let this user read the file",
        RootsError::NoAuthority(_) => "write certificates in PEM there: `-----BEGIN CERTIFICATE-----`",
        RootsError::Tls(_) => "this is a fault of toolcell's",
    };
    Failure::new(Ending::Configuration, error).hint(Some(hint.to_owned()))
}

/// What doors of these policies put in, each with the name of its door.
pub(super) fn credentials(policies: &[Policy]) -> Vec<(String, Secret)> {
    let mut found = Vec::new();
    for policy in policies {
        for (_, http) in policy.network.with_credential() {
            let Some(secret) = http.credential.as_ref().and_then(|put| put.secret.as_deref()) else {
                continue;
            };
            let one = (http.destination().to_string(), secret.clone());
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// Refuses a policy under which a tool could read the file of what a door puts in.
pub(super) fn keep<'p>(
    credentials: &[(String, Secret)],
    library: &Library,
    policy: &'p Policy,
    needed: impl Iterator<Item = &'p Path> + Clone,
) -> Result<(), Failure> {
    for (name, secret) in credentials {
        for file in secrets::files(&secret.from) {
            library.keep_secret(policy, needed.clone(), (name, &file)).map_err(files_failed)?;
        }
    }
    Ok(())
}
