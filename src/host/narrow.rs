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
use crate::outcome::Granted;
use crate::plan::step::{Access, SCRATCH};
use crate::policy::config::grants::{ArgumentGrant, Use};
use crate::policy::path::{PathError, grantable, normal};
use crate::policy::print::quote;
use crate::policy::{PathRule, Policy};
use crate::sys::Errno;

/// Paths in the arguments of one call: each costs the supervisor a look and the cell a mount.
const MOST: usize = 64;

/// Why an argument grants nothing, and the call is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is the place in the arguments, and what was found there")]
pub enum Unfit {
    #[error("the argument `{at}` holds {count} paths; a call can be granted {MOST}")]
    Many { at: String, count: usize },
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
    #[error("the argument `{at}` is `{path}`, which is no directory, and `list` is for directories")]
    NoDirectory { at: String, path: String },
    #[error(
        "the argument `{at}` is `{path}`, of which not the names alone can be shown: the cell's own `{SCRATCH}` lies above it"
    )]
    InScratch { at: String, path: String },
    #[error("the argument `{at}` is the directory `{path}`, and `max-file-size` can hold for a file only")]
    Unbounded { at: String, path: String },
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
            Self::InScratch { .. } => Some(format!(
                "grant `read`, or set `scratch = 0` in the profile, which has no `{SCRATCH}` then"
            )),
            Self::NoDirectory { .. } => Some("name the directory that it lies in".to_owned()),
            Self::Many { .. } => Some("split the call".to_owned()),
            Self::Unbounded { .. } => Some("name the file".to_owned()),
            Self::Large { size, .. } => Some(format!("to allow it: max-file-size = \"{size}\"")),
            Self::Unusable { source: Errno(libc::ENOENT), .. } => {
                Some("the path has to exist before the call".to_owned())
            }
            Self::NoText { .. } | Self::NoPath { .. } | Self::Unusable { .. } | Self::Special { .. } => None,
        }
    }
}

/// The policy for a call with these arguments, and what they grant; `whole` is how the policy is seen without them.
///
/// # Errors
/// The first argument that names what cannot be granted.
pub fn narrowed(
    files: &Files,
    policy: &Policy,
    whole: &View,
    grants: &[ArgumentGrant],
    arguments: &Value,
) -> Result<(Policy, Vec<Granted>), Unfit> {
    let mut policy = policy.clone();
    let mut wanted = Vec::new();
    let mut all_roots = Vec::new();
    for grant in grants {
        let roots = real(files, &grant.within);
        let values = grant.argument.find(arguments);
        let count = wanted.len() + values.len();
        if count > MOST {
            return Err(Unfit::Many { at: grant.argument.to_string(), count });
        }
        for value in values {
            let scratch = policy.filesystem.scratch > 0;
            let asked = Asked { files, profile: &policy.name, whole, grant, roots: &roots, scratch };
            let (path, real) = asked.look(value)?;
            wanted.push((grant, path, real));
        }
        all_roots.extend(roots);
    }
    // A rule beneath a directory that is to be written to is what keeps its place from being written to.
    let inner = |rule: &Path| {
        wanted
            .iter()
            .any(|(grant, _, real)| grant.access == Use::Write && rule != real && rule.starts_with(real))
    };
    let goes = |rule: &Path| all_roots.iter().any(|root| rule.starts_with(root) || root.starts_with(rule));
    let filesystem = &mut policy.filesystem;
    let keep = |list: &mut Vec<PathRule>, inner: &dyn Fn(&Path) -> bool| {
        list.retain(|rule| {
            let rule = real(files, std::slice::from_ref(&rule.path));
            rule.iter().all(|rule| !goes(rule) || inner(rule))
        });
    };
    keep(&mut filesystem.read, &inner);
    keep(&mut filesystem.execute, &inner);
    keep(&mut filesystem.write, &|_| false);
    let mut granted = Vec::new();
    for (grant, path, _) in wanted {
        let (list, most) = match grant.access {
            Use::Read => (&mut policy.filesystem.read, None),
            Use::Write => (&mut policy.filesystem.write, grant.largest),
            Use::List => (&mut policy.filesystem.list, None),
        };
        policy.limits.file_size = policy.limits.file_size.min(most.unwrap_or(u64::MAX));
        granted.push(Granted {
            access: grant.access.name().to_owned(),
            path: path.to_string_lossy().into_owned(),
            by: Some(format!("/arguments{}", grant.argument)),
        });
        if !list.iter().any(|rule| rule.path == path) {
            let why = format!("the call's argument `{}`", grant.argument);
            list.push(PathRule { path, why, origin: "`grants`".to_owned(), optional: false });
        }
    }
    Ok((policy, granted))
}

/// Where paths lead; as they stand where that cannot be found out.
fn real(files: &Files, paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| files.resolve(path).map_or_else(|_| path.clone(), |found| found.real)).collect()
}

/// What decides about the paths in one argument.
struct Asked<'a> {
    files: &'a Files,
    profile: &'a str,
    whole: &'a View,
    grant: &'a ArgumentGrant,
    /// Where `within` of the grant leads.
    roots: &'a [PathBuf],
    /// The cell has a writable directory of its own.
    scratch: bool,
}

impl Asked<'_> {
    /// The path in an argument and where it leads, if the grant and the policy let it be reached.
    fn look(&self, value: &Value) -> Result<(PathBuf, PathBuf), Unfit> {
        let at = self.grant.argument.to_string();
        let Some(text) = value.as_str() else { return Err(Unfit::NoText { at }) };
        let path = normal(text).and_then(|path| grantable(&path).map(|()| path));
        let path = path.map_err(|source| Unfit::NoPath { at: at.clone(), source })?;
        let shown = path.display().to_string();
        if !self.roots.iter().chain(&self.grant.within).any(|root| path.starts_with(root)) {
            return Err(self.outside(at, shown));
        }
        // What is told of a path depends on what the policy shows alone, until it is known to show this one.
        let (real, meta) = match self.files.resolve(&path) {
            Ok(found) => (found.real, Ok(found.meta)),
            Err(error) => match self.reached(&path) {
                Some(real) => (real, Err(Errno::from(error))),
                None => return Err(self.outside(at, shown)),
            },
        };
        if !self.roots.iter().any(|root| real.starts_with(root)) {
            return Err(self.outside(at, shown));
        }
        let write = self.grant.access == Use::Write;
        if !allows(self.whole, &real, write) {
            let verb = if write { "change" } else { "read" };
            return Err(Unfit::NotGranted { at, path: shown, profile: self.profile.to_owned(), verb });
        }
        let meta = meta.map_err(|source| Unfit::Unusable { at: at.clone(), path: shown.clone(), source })?;
        match self.grant.largest {
            _ if !meta.is_file() && !meta.is_dir() => Err(Unfit::Special { at, path: shown }),
            _ if self.grant.access == Use::List && !meta.is_dir() => {
                Err(Unfit::NoDirectory { at, path: shown })
            }
            // Landlock adds rights only, and all of that directory can be read.
            _ if self.grant.access == Use::List
                && self.scratch
                && [&path, &real].iter().any(|path| path.starts_with(SCRATCH)) =>
            {
                Err(Unfit::InScratch { at, path: shown })
            }
            Some(_) if meta.is_dir() => Err(Unfit::Unbounded { at, path: shown }),
            Some(most) if meta.len() > most => Err(Unfit::Large { at, path: shown, size: meta.len(), most }),
            _ => Ok((path, real)),
        }
    }

    /// Where a path that leads nowhere would be, unless a link hides that.
    fn reached(&self, path: &Path) -> Option<PathBuf> {
        let (above, rest) = self.files.nearest(path)?;
        let next = above.join(rest.components().next()?);
        (!self.files.is_link(&next)).then(|| above.join(rest))
    }

    fn outside(&self, at: String, path: String) -> Unfit {
        let within: Vec<String> =
            self.grant.within.iter().map(|root| format!("`{}`", root.display())).collect();
        let within =
            if within.is_empty() { "everything: `within` is empty".to_owned() } else { within.join(", ") };
        Unfit::Outside { at, path, within }
    }
}

/// Does a view show this path, and for writing too if that is wanted?
fn allows(view: &View, path: &Path, write: bool) -> bool {
    reach(view, path).is_some_and(|access| access.write || !write)
}

/// What a view lets be done with a path, if it shows it.
pub(super) fn reach(view: &View, path: &Path) -> Option<Access> {
    let over = |seen: &&Seen| path.starts_with(&seen.source);
    let denied = view.hidden.iter().any(|seen| over(&seen))
        || view.absent.iter().any(|rule| path.starts_with(&rule.path))
        || view.vacant.iter().any(|(seen, _)| over(&seen));
    let kept = view.protected.iter().any(|seen| over(&seen));
    // The innermost grant decides, and of two in one place the weaker.
    let innermost = view.granted.iter().filter(over).map(|seen| seen.source.as_os_str().len()).max();
    let deciding =
        view.granted.iter().filter(over).filter(|seen| Some(seen.source.as_os_str().len()) == innermost);
    let weaker = |one: Access, other: Access| Access {
        write: one.write && other.write,
        execute: one.execute && other.execute,
        names: one.names || other.names,
    };
    let access = deciding.map(|seen| seen.access).reduce(weaker).filter(|_| !denied)?;
    Some(Access { write: access.write && !kept, ..access })
}

#[cfg(test)]
#[path = "narrow/tests.rs"]
pub(super) mod tests;
