//! What is kept of a server's tools from session to session: one small file for each server, private to the user, shared by
//! sessions that run side by side, replaced as a whole.
//!
//! Its second line is the SHA-256 of its first, so that half a file or a stray edit is an error and not a tool that was
//! never refused. Whoever has the user's rights outside a cell can write another.
//!
//! Neighbours: `guard::process` and `commands::quarantine` change it under its lock. Never: begins anew in silence.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use super::rules::Tool;
use crate::audit::{FileError, make_directory_for, open_private, wait_for};
use crate::policy::tokens::to_hex;
use crate::text::quoted_path;

/// The name and version of the form.
const SCHEMA: &str = "toolcell.guard/1";
/// Tools of which a history is kept.
const TOOLS: usize = 256;
/// The counts of those of which it went are kept together under this name, which no tool has.
pub(super) const OTHERS: &str = "(others)";
/// How long somebody else may hold the lock; it takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);
/// No state is as large.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Why there is no state to go by.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file or its lock cannot be used.
    #[error("cannot use what is kept of the tools")]
    File(#[from] FileError),
    /// Reading, writing or locking failed.
    #[error("cannot read or write what is kept of the tools, `{}`", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else keeps the lock.
    #[error("what is kept of the tools is locked by another process: `{}`", .0.display())]
    Busy(PathBuf),
    /// It is not what was written.
    #[error("what is kept of the tools is damaged: `{}`", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How that shows.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StateError {
    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Io { path, source } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!("make room: df {}", quoted_path(path)))
            }
            Self::Io { path, .. } => {
                Some(format!("see whose it is, and who may write there: ls -ld {}", quoted_path(path)))
            }
            Self::Busy(path) => Some(format!("find it with: fuser -v {}", quoted_path(path))),
            Self::Damaged { path, .. } => {
                let [damaged, aside] =
                    [path.clone(), path.with_added_extension("damaged")].map(|path| quoted_path(&path));
                Some(format!("to begin anew, with no tool kept out: mv {damaged} {aside}"))
            }
        }
    }
}

/// What is kept of one server's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    schema: String,
    /// By name.
    pub tools: BTreeMap<String, Tool>,
}

impl State {
    /// A tool's entry, made if there is none; whether it was. The one that was not called for longest makes room, unless it is
    /// kept out.
    pub(super) fn tool(&mut self, name: &str) -> (&mut Tool, bool) {
        let new = !self.tools.contains_key(name);
        if new && self.tools.len() >= TOOLS {
            let free = self.tools.iter().filter(|(name, tool)| !tool.place.is_held() && *name != OTHERS);
            let oldest = free.min_by_key(|(_, tool)| tool.last).map(|(name, _)| name.clone());
            if let Some(gone) = oldest.and_then(|name| self.tools.remove(&name)) {
                self.tools.entry(OTHERS.to_owned()).or_default().take_over(gone);
            }
        }
        (self.tools.entry(name.to_owned()).or_default(), new)
    }

    /// Calls of all tools.
    pub(super) fn calls(&self) -> u64 {
        self.tools.values().map(Tool::calls).sum()
    }
}

/// The states of all servers, in a directory of toolcell's own.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    owner: u32,
}

/// The state of a server under its lock.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    owner: u32,
    _lock: File,
    /// What is kept.
    pub state: State,
}

impl Store {
    /// In toolcell's own directory.
    #[must_use]
    pub fn new(state_directory: &Path, owner: u32) -> Self {
        Self { directory: state_directory.join("guard"), owner }
    }

    fn path(&self, server: &str) -> PathBuf {
        self.directory.join(format!("{server}.json"))
    }

    /// The servers of which something is kept.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn servers(&self) -> Result<Vec<String>, StateError> {
        let failed = |source| StateError::Io { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut servers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            servers.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        servers.sort();
        Ok(servers)
    }

    /// What is kept of a server, to look at it: it is replaced as a whole, so no lock is needed.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self, server: &str) -> Result<State, StateError> {
        read(&self.path(server), self.owner)
    }

    /// The same under its lock, to change it.
    ///
    /// # Errors
    /// When it cannot be locked or read, or is damaged.
    pub fn hold(&self, server: &str) -> Result<Held, StateError> {
        let path = self.path(server);
        let lock = path.with_extension("lock");
        make_directory_for(&lock)?;
        let file = open_private(&lock, self.owner, false)?;
        wait_for(|| file.try_lock(), Instant::now() + PATIENCE).map_err(|error| match error {
            TryLockError::WouldBlock => StateError::Busy(lock),
            TryLockError::Error(source) => StateError::Io { path: lock, source },
        })?;
        let state = read(&path, self.owner)?;
        Ok(Held { path, owner: self.owner, _lock: file, state })
    }
}

impl Held {
    /// Puts the state in the place of the one before.
    ///
    /// # Errors
    /// When it cannot be written; then the one before is there still.
    pub fn write(&mut self) -> Result<(), StateError> {
        SCHEMA.clone_into(&mut self.state.schema);
        let new = self.path.with_extension("new");
        let failed = |source| StateError::Io { path: new.clone(), source };
        let mut text = serde_json::to_vec(&self.state).map_err(|error| failed(error.into()))?;
        let digest = to_hex(&Sha256::digest(&text));
        text.extend_from_slice(format!("\n{digest}\n").as_bytes());
        let mut file = open_private(&new, self.owner, false)?;
        file.set_len(0).and_then(|()| file.write_all(&text)).map_err(failed)?;
        drop(file);
        fs::rename(&new, &self.path).map_err(failed)
    }
}

fn read(path: &Path, owner: u32) -> Result<State, StateError> {
    let failed = |source| StateError::Io { path: path.to_owned(), source };
    // Opening it would make it.
    if let Err(error) = fs::symlink_metadata(path) {
        return if error.kind() == io::ErrorKind::NotFound {
            Ok(State::default())
        } else {
            Err(failed(error))
        };
    }
    let mut text = Vec::new();
    open_private(path, owner, false)?.take(LARGEST).read_to_end(&mut text).map_err(failed)?;
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| StateError::Damaged {
        path: path.to_owned(),
        source,
    };
    let whole = text.strip_suffix(b"\n").and_then(|text| {
        let at = text.iter().rposition(|byte| *byte == b'\n')?;
        Some((text.get(..at)?, text.get(at + 1..)?))
    });
    let (body, digest) = whole.ok_or_else(|| damaged("it is not two lines".into()))?;
    if to_hex(&Sha256::digest(body)).as_bytes() != digest {
        return Err(damaged("its SHA-256 is not the one that was written".into()));
    }
    let state: State = serde_json::from_slice(body).map_err(|error| damaged(error.into()))?;
    if state.schema != SCHEMA {
        return Err(damaged(format!("its form is `{}`, not `{SCHEMA}`", state.schema).into()));
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
