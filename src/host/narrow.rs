//! What one call sees of the directories that its tool's `grants` speak of: the paths in its arguments, and nothing else.
//!
//! The result is never wider than the policy: what a grant of the profile does not show, an argument does not either, and
//! what is hidden or protected in it stays so.
//!
//! Neighbours: `commands::run` asks for each call, `host::view` looks at the result as at any policy. Never: tells whether
//! there is a file outside of the directories that the grants name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::runtime::Files;
use super::view::{Seen, View};
use crate::policy::config::grants::{ArgumentGrant, Use};
use crate::policy::path::{PathError, grantable, normal};
use crate::policy::pointer::Pointer;
use crate::policy::print::quote;
use crate::policy::{PathRule, Policy};
use crate::sys::Errno;

/// Why an argument grants nothing, and the call is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is the place in the arguments, and what was found there")]
pub enum Unfit {
    #[error("the argument `{at}` is no text, and has to be a path")]
    NoText { at: String },
    #[error("the argument `{at}` is no path that can be granted")]
    NoPath { at: String, source: PathError },
    #[error("the argument `{at}` is `{path}`, which lies outside of {within}")]
    Outside { at: String, path: String, within: String },
    #[error("the argument `{at}` is `{path}`, which cannot be used")]
    Unusable { at: String, path: String, source: Errno },
    #[error("the argument `{at}` is `{path}`, which is neither a file nor a directory")]
    Special { at: String, path: String },
    #[error("the argument `{at}` is `{path}`, which has {size} bytes; `max-file-size` is {most}")]
    Large { at: String, path: String, size: u64, most: u64 },
    #[error("the argument `{at}` is `{path}`, which profile `{profile}` does not let tools {verb}")]
    NotGranted { at: String, path: String, profile: String, verb: &'static str },
}

impl Unfit {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoPath { source: PathError::Relative(_) | PathError::Dots(_), .. } => {
                Some("give the absolute path, without `.` and `..`".to_owned())
            }
            Self::Outside { path, .. } => {
                let directory = Path::new(path).parent().unwrap_or(Path::new(path));
                Some(format!(
                    "to allow it, name its directory in the tool's `grants`: within = [{}]",
                    quote(&directory.to_string_lossy())
                ))
            }
            Self::NotGranted { path, profile, verb, .. } => {
                let option = if *verb == "read" { "--read" } else { "--write" };
                Some(format!("what stands against it: toolcell profile why {profile} {option} {path}"))
            }
            Self::Large { size, .. } => Some(format!("to allow it: max-file-size = \"{size}\"")),
            Self::Unusable { source: Errno(libc::ENOENT), .. } => {
                Some("the path has to exist before the call".to_owned())
            }
            Self::NoText { .. } | Self::NoPath { .. } | Self::Unusable { .. } | Self::Special { .. } => None,
        }
    }
}

/// The policy for a call with these arguments; `whole` is how the policy is seen without them.
///
/// # Errors
/// The first argument that names what cannot be granted.
pub fn narrowed(
    files: &Files,
    policy: &Policy,
    whole: &View,
    grants: &[ArgumentGrant],
    arguments: &Value,
) -> Result<Policy, Unfit> {
    let mut policy = policy.clone();
    let mut wanted = Vec::new();
    for grant in grants {
        for value in grant.argument.find(arguments) {
            wanted.push((grant, asked(files, &policy.name, whole, grant, value)?));
        }
    }
    let roots: Vec<PathBuf> = grants.iter().flat_map(|grant| real(files, &grant.within)).collect();
    let filesystem = &mut policy.filesystem;
    for list in [&mut filesystem.read, &mut filesystem.write, &mut filesystem.execute] {
        list.retain(|rule| {
            let rule = real(files, std::slice::from_ref(&rule.path));
            !rule.iter().any(|rule| roots.iter().any(|root| rule.starts_with(root) || root.starts_with(rule)))
        });
    }
    for (grant, path) in wanted {
        let (list, most) = match grant.access {
            Use::Read => (&mut policy.filesystem.read, None),
            Use::Write => (&mut policy.filesystem.write, grant.largest),
        };
        policy.limits.file_size = policy.limits.file_size.min(most.unwrap_or(u64::MAX));
        if !list.iter().any(|rule| rule.path == path) {
            let why = format!("the call's argument `{}`", grant.argument);
            list.push(PathRule { path, why, origin: "`grants`".to_owned(), optional: false });
        }
    }
    Ok(policy)
}

/// Where paths lead; as they stand where that cannot be found out.
fn real(files: &Files, paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| files.resolve(path).map_or_else(|_| path.clone(), |found| found.real)).collect()
}

/// The path in an argument, if the grant and the policy let it be reached.
fn asked(
    files: &Files,
    profile: &str,
    whole: &View,
    grant: &ArgumentGrant,
    value: &Value,
) -> Result<PathBuf, Unfit> {
    let at = Pointer::to_string(&grant.argument);
    let Some(text) = value.as_str() else { return Err(Unfit::NoText { at }) };
    let path = normal(text).and_then(|path| grantable(&path).map(|()| path));
    let path = path.map_err(|source| Unfit::NoPath { at: at.clone(), source })?;
    let shown = || path.display().to_string();
    let roots = real(files, &grant.within);
    let beneath = |path: &Path, roots: &[PathBuf]| roots.iter().any(|root| path.starts_with(root));
    let outside = || {
        let within: Vec<String> = grant.within.iter().map(|root| format!("`{}`", root.display())).collect();
        let within =
            if within.is_empty() { "everything: `within` is empty".to_owned() } else { within.join(", ") };
        Unfit::Outside { at: at.clone(), path: shown(), within }
    };
    if !beneath(&path, &roots) && !beneath(&path, &grant.within) {
        return Err(outside());
    }
    let found = files.resolve(&path);
    let found =
        found.map_err(|error| Unfit::Unusable { at: at.clone(), path: shown(), source: error.into() })?;
    if !beneath(&found.real, &roots) {
        return Err(outside());
    }
    if !found.meta.is_file() && !found.meta.is_dir() {
        return Err(Unfit::Special { at, path: shown() });
    }
    let size = if found.meta.is_file() { found.meta.len() } else { 0 };
    if let Some(most) = grant.largest.filter(|most| size > *most) {
        return Err(Unfit::Large { at, path: shown(), size, most });
    }
    let write = grant.access == Use::Write;
    if !allows(whole, &found.real, write) {
        let verb = if write { "change" } else { "read" };
        return Err(Unfit::NotGranted { at, path: shown(), profile: profile.to_owned(), verb });
    }
    Ok(path)
}

/// Does a view show this path, and for writing too if that is wanted?
fn allows(view: &View, path: &Path, write: bool) -> bool {
    let over = |seen: &&Seen| path.starts_with(&seen.source);
    let denied = view.hidden.iter().any(|seen| over(&seen))
        || view.absent.iter().any(|rule| path.starts_with(&rule.path))
        || view.vacant.iter().any(|(seen, _)| over(&seen));
    let kept = write && view.protected.iter().any(|seen| over(&seen));
    // The innermost grant decides, and of two in one place the weaker.
    let innermost = view.granted.iter().filter(over).map(|seen| seen.source.as_os_str().len()).max();
    let mut deciding =
        view.granted.iter().filter(over).filter(|seen| Some(seen.source.as_os_str().len()) == innermost);
    !denied && !kept && innermost.is_some() && deciding.all(|seen| seen.access.write || !write)
}

#[cfg(test)]
#[path = "narrow/tests.rs"]
mod tests;
