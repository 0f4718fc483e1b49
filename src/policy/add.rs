//! Options typed by the operator on top of a profile.
//!
//! Neighbours: the command line fills in [`Additions`], `policy::files` adds them to what a profile resolves to.
//! Never: reads a relative path, which would depend on the working directory.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::limits::OutOfBounds;
use super::listen::Listen;
use super::mode::HOST;
use super::network::{Allowed, Destination};
use super::path::{PathError, grantable, normal};
use super::profile::is_variable;
use super::resolve::made_void;
use super::{Floor, PathRule, Policy, Writes};
use crate::outcome::Limit;

/// What options add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    /// `--read`: absolute paths.
    pub read: Vec<PathBuf>,
    /// `--write`: absolute paths.
    pub write: Vec<PathBuf>,
    /// `--env NAME` (let through) and `--env NAME=VALUE` (set).
    pub env: Vec<(String, Option<String>)>,
    /// `--memory`, in bytes.
    pub memory: Option<u64>,
    /// `--cpu`, in thousandths of one.
    pub cpu: Option<u32>,
    /// `--tasks`
    pub tasks: Option<u32>,
    /// `--timeout`
    pub time: Option<std::time::Duration>,
    /// `--scratch`, in bytes.
    pub scratch: Option<u64>,
    /// `--floor`
    pub floor: Option<Floor>,
    /// `--writes`
    pub writes: Option<Writes>,
    /// `--net`
    pub net: Vec<Destination>,
    /// `--listen`
    pub listen: Vec<Listen>,
}

/// Why an option cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddError {
    /// The path cannot be granted.
    #[error("cannot use the path of `{option}`")]
    Path {
        /// `--read` or `--write`.
        option: &'static str,
        /// Why.
        source: PathError,
    },
    /// A `deny` of the profile hides it.
    #[error("{0}")]
    Denied(String),
    /// A door of the profile is in its place.
    #[error("{0}")]
    Unfit(String),
    /// The port, or its place, is taken.
    #[error("{told}")]
    Unheard {
        /// By what.
        told: String,
        /// What to do.
        hint: String,
    },
    /// A door, where the network is the host's.
    #[error("`{option}` opens a door, and the network of profile `{profile}` is the host's: it has `{HOST}`")]
    NoDoors {
        /// `--net` or `--listen`.
        option: &'static str,
        /// Which profile.
        profile: String,
    },
    /// A limit beyond its bounds.
    #[error("cannot use the value of `{option}`")]
    Limit {
        /// The option.
        option: &'static str,
        /// Why.
        source: OutOfBounds,
    },
    /// A name that no environment variable has.
    #[error("`{0}` cannot be a variable's name")]
    Variable(String),
    /// A value that no environment variable can have.
    #[error("the value of `{0}` holds a NUL")]
    Value(String),
}

impl AddError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Path { source: PathError::Relative(_), .. } => Some("give the whole path".to_owned()),
            Self::Path { source, .. } => source.hint(),
            Self::Denied(_) => Some("choose a profile that does not deny it".to_owned()),
            Self::Unfit(_) => {
                Some("choose a profile that has its door at another port, by `listen`".to_owned())
            }
            Self::Unheard { hint, .. } => Some(hint.clone()),
            Self::NoDoors { option, .. } => Some(format!(
                "leave `{option}` out, or choose a profile whose cells have a network of their own"
            )),
            Self::Limit { .. } | Self::Variable(_) | Self::Value(_) => None,
        }
    }
}

/// Reads `NAME` or `NAME=VALUE`, as `--env` and `servers.NAME.env` have it.
///
/// # Errors
/// A name that no variable has, or a value that none can have.
pub fn parse_env(text: &str) -> Result<(String, Option<String>), AddError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if !is_variable(name) {
        return Err(AddError::Variable(name.to_owned()));
    }
    if value.is_some_and(|value| value.contains('\0')) {
        return Err(AddError::Value(name.to_owned()));
    }
    Ok((name.to_owned(), value.map(str::to_owned)))
}

impl Policy {
    /// The policy with options added; an option wins over the profile, but not over its `deny`.
    ///
    /// # Errors
    /// The first option that cannot be added.
    pub fn with(mut self, additions: &Additions) -> Result<Self, AddError> {
        let Additions { read, write, env, memory, cpu, tasks, time, scratch, floor, writes, net, listen } =
            additions;
        for (option, paths) in [("--read", read), ("--write", write)] {
            for path in paths {
                let rule = self.rule(option, path)?;
                let filesystem = &mut self.filesystem;
                let list = if option == "--read" { &mut filesystem.read } else { &mut filesystem.write };
                match list.iter_mut().find(|known| known.path == rule.path) {
                    Some(known) => known.optional = false,
                    None => list.push(rule),
                }
            }
        }
        let limits = [
            ("--memory", Limit::Memory, *memory),
            ("--cpu", Limit::Cpu, cpu.map(u64::from)),
            ("--tasks", Limit::Tasks, tasks.map(u64::from)),
            ("--timeout", Limit::Time, time.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX))),
            ("--scratch", Limit::Scratch, *scratch),
        ];
        for (option, limit, amount) in limits {
            let Some(amount) = amount else { continue };
            self.set_limit(limit, amount).map_err(|source| AddError::Limit { option, source })?;
        }
        for (name, value) in env {
            match value {
                Some(value) => self.environment.set(name, value),
                None => self.environment.pass(name),
            }
        }
        self.floor = floor.unwrap_or(self.floor);
        self.filesystem.writes = writes.unwrap_or(self.filesystem.writes);
        let doors = [("--net", net.is_empty()), ("--listen", listen.is_empty())];
        if let Some((option, _)) = doors.into_iter().find(|(_, none)| self.network.mode.is_host() && !none) {
            return Err(AddError::NoDoors { option, profile: self.name });
        }
        for destination in net {
            let allowed = Allowed { destination: destination.clone(), origin: "`--net`".to_owned() };
            self.network.add(&allowed);
            if !self.network.doors().any(|door| door.destination == *destination) {
                return Err(AddError::Denied(format!("`{destination}` is denied by `deny` in `[network]`")));
            }
            if let Some((message, _)) = self.network.http.iter().find_map(|http| http.unfit(&self.network)) {
                return Err(AddError::Unfit(message));
            }
        }
        for listen in listen {
            self.network.listen_at(&Listen { origin: "`--listen`".to_owned(), ..listen.clone() });
        }
        match self.network.unheard() {
            Some((_, told, hint)) => Err(AddError::Unheard { told, hint }),
            None => Ok(self),
        }
    }

    fn rule(&self, option: &'static str, path: &Path) -> Result<PathRule, AddError> {
        let text = path.to_str().ok_or(AddError::Path { option, source: PathError::NotUtf8 })?;
        let path = normal(text).and_then(|path| grantable(&path).map(|()| path));
        let path = path.map_err(|source| AddError::Path { option, source })?;
        let rule = PathRule { path, why: String::new(), origin: format!("`{option}`"), optional: false };
        match self.filesystem.deny.iter().find_map(|deny| made_void(deny, &rule)) {
            Some(message) => Err(AddError::Denied(message)),
            None => Ok(rule),
        }
    }
}
