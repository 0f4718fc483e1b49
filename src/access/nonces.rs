//! The nonces of signed requests that were let in, so that none is let in twice: not by this process, by another one, nor
//! by the next.
//!
//! They are lines `TIMESTAMP KEY NONCE` of a file to which all processes of one configuration append. Two locks guard it:
//!
//! | | lock of `nonces.lock` | lock of `nonces` |
//! |---|---|---|
//! | at the start: to open it, and to leave out what is too old if no other process has it open | exclusive | shared, then kept |
//! | a request: to read what others appended, and append | exclusive | |
//!
//! Neighbours: `access::gate` asks it of each right signature. Never: lets a request on whose line is not in the file, or
//! waits for another process for long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long another process may hold the lock; it needs it for two system calls.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`", .path.display())]
pub struct NoncesError {
    path: PathBuf,
    source: io::Error,
}

/// Whether a request is the first with its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    First,
    Again,
    /// It is older than some that were forgotten, so that nobody can tell.
    TooOld,
}

/// The nonces of a configuration's processes.
#[derive(Debug)]
pub struct Nonces {
    window: Duration,
    lock: File,
    file: File,
    /// Up to where the file was read.
    read: u64,
    known: Known,
}

/// What the file says.
#[derive(Debug, Default)]
struct Known {
    /// `KEY NONCE`, with the last of its timestamps.
    nonces: BTreeMap<Rc<str>, u64>,
    /// The same by age.
    ages: BTreeSet<(u64, Rc<str>)>,
    /// Nothing of before this can be told: it may have been forgotten.
    from: u64,
}

impl Known {
    fn add(&mut self, timestamp: u64, nonce: Rc<str>) {
        if let Some(before) = self.nonces.insert(Rc::clone(&nonce), timestamp) {
            self.ages.remove(&(before, Rc::clone(&nonce)));
        }
        self.ages.insert((timestamp, nonce));
    }

    /// A line that was not written whole is of a request that was refused, so it is passed over.
    fn read(&mut self, line: &str) {
        let Some((timestamp, nonce)) = line.split_once(' ') else { return };
        let Ok(timestamp) = timestamp.parse() else { return };
        if nonce == FORGOTTEN {
            self.from = self.from.max(timestamp);
        } else {
            self.add(timestamp, Rc::from(nonce));
        }
    }

    /// Forgets what the window refuses anyway.
    fn forget(&mut self, window: Duration, date: Duration) -> bool {
        let mut any = false;
        let old = |timestamp: u64| Duration::from_secs(timestamp).saturating_add(window) < date;
        while self.ages.first().is_some_and(|(timestamp, _)| old(*timestamp)) {
            let Some((timestamp, nonce)) = self.ages.pop_first() else { break };
            self.nonces.remove(&nonce);
            self.from = self.from.max(timestamp.saturating_add(1));
            any = true;
        }
        any
    }

    fn text(&self) -> String {
        let lines = self.ages.iter().map(|(timestamp, nonce)| format!("{timestamp} {nonce}\n"));
        std::iter::once(format!("{} {FORGOTTEN}\n", self.from)).chain(lines).collect()
    }
}

/// In the place of key and nonce: what is of before the timestamp may not be in the file. No nonce is so short.
const FORGOTTEN: &str = "-";

impl Nonces {
    /// Opens the file, or makes it. `owner` is who it has to belong to, `date` the time since 1970.
    ///
    /// # Errors
    /// It cannot be opened, read or locked, or is not a regular file of the owner's alone.
    pub fn open(path: &Path, owner: u32, window: Duration, date: Duration) -> Result<Self, NoncesError> {
        let failed = |source| NoncesError { path: path.to_owned(), source };
        let lock = private(&path.with_extension("lock"), owner).map_err(failed)?;
        wait_for(&lock).map_err(failed)?;
        let file = private(path, owner).map_err(failed)?;
        let mut nonces = Self { window, lock, file, read: 0, known: Known::default() };
        nonces.settle(path, owner, date).and_then(|()| nonces.lock.unlock()).map_err(failed)?;
        Ok(nonces)
    }

    /// Reads the file; without what is too old, if nobody else has it open.
    fn settle(&mut self, path: &Path, owner: u32, date: Duration) -> io::Result<()> {
        self.catch_up()?;
        let alone = match self.file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        if self.known.forget(self.window, date) && alone {
            let whole = path.with_extension("new");
            if let Err(error) = fs::remove_file(&whole)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let text = self.known.text();
            self.file = private(&whole, owner)?;
            self.file.write_all(text.as_bytes())?;
            self.file.sync_all()?;
            fs::rename(&whole, path)?;
            self.read = u64::try_from(text.len()).map_err(io::Error::other)?;
        }
        // Only who has the other lock takes this one exclusively, and that is us.
        self.file.lock_shared()
    }

    /// Takes a nonce for a request whose signature is right and whose timestamp is in the window.
    ///
    /// # Errors
    /// The file cannot be read, written or locked; then the nonce is not taken.
    pub(super) fn take(
        &mut self,
        key: &str,
        nonce: &str,
        timestamp: u64,
        date: Duration,
    ) -> io::Result<Taken> {
        wait_for(&self.lock)?;
        let taken = self.take_locked(&format!("{key} {nonce}"), timestamp, date);
        self.lock.unlock()?;
        taken
    }

    fn take_locked(&mut self, nonce: &str, timestamp: u64, date: Duration) -> io::Result<Taken> {
        let torn = self.catch_up()?;
        self.known.forget(self.window, date);
        if timestamp < self.known.from {
            return Ok(Taken::TooOld);
        }
        if self.known.nonces.contains_key(nonce) {
            return Ok(Taken::Again);
        }
        let line = format!("{}{timestamp} {nonce}\n", if torn > 0 { "\n" } else { "" });
        // At once: what is written in part is not read as a line.
        if self.file.write(line.as_bytes())? < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.known.add(timestamp, Rc::from(nonce));
        self.read += u64::try_from(torn + line.len()).map_err(io::Error::other)?;
        Ok(Taken::First)
    }

    /// Reads what is new, up to the last end of a line; how much of a line is behind it.
    fn catch_up(&mut self) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        let new = length.checked_sub(self.read).ok_or_else(|| io::Error::other("it was cut"))?;
        let mut bytes = vec![0; usize::try_from(new).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.read)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let whole = bytes.get(..end).unwrap_or_default();
        for line in String::from_utf8_lossy(whole).lines() {
            self.known.read(line);
        }
        self.read += u64::try_from(end).map_err(io::Error::other)?;
        Ok(bytes.len() - end)
    }
}

fn private(path: &Path, owner: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    // Non-blocking, so that a FIFO in the file's place cannot hold the start up.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != owner || metadata.mode() & 0o077 != 0 || metadata.nlink() > 1
    {
        let why = format!("`{}` is not a regular file of user {owner}'s alone (mode 0600)", path.display());
        return Err(io::Error::other(why));
    }
    Ok(file)
}

/// Waits for the lock with a deadline. flock(2) has none, and tells nobody when a lock comes free, so this looks again.
fn wait_for(lock: &File) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another toolcell has had it locked for too long"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
#[path = "nonces/tests.rs"]
mod tests;
