//! The audit log itself: appends one whole line a record, tied to the line before, with any number of writers.
//!
//! Neighbours: `session` and `commands::exec` write through it, `audit::tail` finds where the chain goes on,
//! `audit::signer` calls for checkpoints; docs/audit.md documents it. Never: drops a record in silence; runs a line into one that another writer left
//! unfinished; goes back in the chain.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::chain::{Link, sealed};
use super::checkpoint::{Checkpoint, beside};
use super::file::{FileError, open_private};
use super::key::Key;
use super::line::to_line;
use super::record::{Continued, Torn};
use super::rotate::{self, Bounds};
use super::tail;
use crate::text::quoted_path;

/// How long another writer may hold the log. It needs microseconds; whoever holds it longer stops the call, not
/// the supervisor.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether the file is old.
const LOOK: Duration = Duration::from_secs(60);
/// How many bytes later a rotation that failed is tried again.
const POSTPONED: u64 = 1024 * 1024;

/// What a log goes on behind whose file was removed.
const REMOVED: &str = "";

/// More bytes than the line of a checkpoint has.
const KEPT: usize = 4096;

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file is not fit to be the log.
    #[error("cannot use the audit log")]
    File(#[from] FileError),
    /// The record is no JSON.
    #[error("cannot write a record as JSON")]
    Json(#[source] serde_json::Error),
    /// The lock failed.
    #[error("cannot lock the audit log `{}`", .path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process keeps the lock.
    #[error("the audit log `{}` is locked by another process", .0.display())]
    Busy(PathBuf),
    /// The line was not written, or not all of it.
    #[error("cannot write to the audit log `{}`", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl LogError {
    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Busy(path) => Some(format!("find it with: fuser -v {}", quoted_path(path))),
            Self::Write { path, source } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!("make room, or move the log with `--audit FILE`: df {}", quoted_path(path)))
            }
            Self::Json(_) | Self::Lock { .. } | Self::Write { .. } => None,
        }
    }
}

/// Opens the log that is at its path, for a process that may not open files itself.
type Reopen = dyn Fn() -> io::Result<File> + Send + Sync;

/// An open audit log. When it is large or old it is rotated, and whoever has it open goes on in the new file.
pub struct Log {
    path: PathBuf,
    owner: u32,
    bounds: Bounds,
    reopen: Option<Box<Reopen>>,
    /// The lock on the file keeps other processes out, this one the other threads, which share the file's lock.
    inner: Mutex<Inner>,
    /// What a person should know of how it was found.
    remarks: Vec<String>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    /// The line of the last checkpoint is in here.
    beside: Arc<File>,
    /// The files before this one, that are not on the disk yet.
    before: Vec<Arc<File>>,
    /// The number of the last record that is a checkpoint, as far as is known here.
    signed: u64,
    /// The last record that was read or written here.
    link: Link,
    /// How long the file was then; `None` when that is not known.
    length: Option<u64>,
    /// Lines that are to be written before any other: one for each call at most that was under way when they could not be.
    owed: Vec<Vec<u8>>,
    /// It was not the first one, and nothing was written to it here.
    turned: bool,
    /// The one before was removed, and nothing was at its path: what is written next says so first.
    removed: bool,
    /// When it was looked whether the file is old.
    looked: Instant,
    /// How long it was when it could not be rotated.
    postponed: Option<u64>,
}

impl Log {
    /// Opens a log, or makes it with mode 0600. `owner` is the effective user id of this process: the file has
    /// to be that user's, a regular one, and closed to everybody else. An unfinished line at its end is sealed.
    ///
    /// # Errors
    /// When it cannot be opened, or is not such a file, or what is to be sealed cannot be.
    pub fn open(path: &Path, owner: u32) -> Result<Self, LogError> {
        Self::open_within(path, owner, Bounds::default())
    }

    /// The same with other bounds than the usual ones.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_within(path: &Path, owner: u32, bounds: Bounds) -> Result<Self, LogError> {
        let before = Self::as_it_is(path, owner, bounds)?;
        if !rotate::turn(path, owner, bounds)? {
            return Ok(before);
        }
        let log = Self::as_it_is(path, owner, bounds)?;
        Ok(Self { remarks: [before.remarks, log.remarks].concat(), ..log })
    }

    /// From here on this process may open no file: what is at the log's path it gets by `reopen`.
    #[must_use]
    pub fn reopening(self, reopen: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self { reopen: Some(Box::new(reopen)), ..self }
    }

    /// The log that is at a path, rotated if it is time for it, for another writer.
    ///
    /// # Errors
    /// When it cannot be opened or rotated.
    pub fn fresh(path: &Path, owner: u32, bounds: Bounds) -> Result<File, LogError> {
        // What is begun in it says where it goes on.
        drop(Self::open_within(path, owner, bounds)?);
        Ok(open_private(path, owner, true)?)
    }

    /// Opens the file, and finds out where the chain goes on.
    fn as_it_is(path: &Path, owner: u32, bounds: Bounds) -> Result<Self, LogError> {
        let beside = Arc::new(open_private(&beside(path), owner, false)?);
        let file = Arc::new(open_private(path, owner, true)?);
        let inner = Mutex::new(Inner::new(file, beside));
        let log = Self { path: path.to_owned(), owner, bounds, reopen: None, inner, remarks: Vec::new() };
        let remarks = log.with_file(PATIENCE, |inner| inner.found(path))?;
        Ok(Self { remarks, ..log })
    }

    /// Where it is, with the file beside it and the earlier ones.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        // Where they cannot be listed, the log could not have been opened.
        let earlier = rotate::earlier(&self.path).unwrap_or_default();
        earlier.into_iter().chain([self.path.clone(), beside(&self.path)]).collect()
    }

    /// What a person should know of how the log was found.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Appends one record. When this fails the call that the record is about must not go on.
    ///
    /// # Errors
    /// When the record was not written, or not all of it; part of a line may then be in the log, and the next
    /// record begins on a new one.
    pub fn write(&self, record: &impl Serialize) -> Result<(), LogError> {
        self.write_within(PATIENCE, record)
    }

    /// Appends the record of something that has happened already. When this fails the record is kept, and written in front of the
    /// next one, which cannot be written before: so no further call begins without it.
    ///
    /// # Errors
    /// As for [`Log::write`].
    pub fn write_or_owe(&self, record: &impl Serialize) -> Result<(), LogError> {
        let line = to_line(record).map_err(LogError::Json)?;
        let written = self.locked(PATIENCE, |inner| inner.append(Some(line.clone())));
        if written.is_err() {
            self.inner.lock().unwrap_or_else(PoisonError::into_inner).owed.push(line);
        }
        written.map(drop)
    }

    /// Signs all that is in the log, unless the last record here was a checkpoint already.
    ///
    /// # Errors
    /// When the checkpoint was not written.
    pub fn sign(&self, key: &Key) -> Result<(), LogError> {
        self.locked(PATIENCE, |inner| inner.sign(key))
    }

    /// Waits until all that was written before is on the disk. Nobody is kept from writing meanwhile.
    ///
    /// # Errors
    /// When the disk says so.
    pub fn sync(&self) -> Result<(), LogError> {
        let (files, before) = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let now = [Arc::clone(&inner.file), Arc::clone(&inner.beside)];
            (inner.before.iter().cloned().chain(now).collect::<Vec<_>>(), inner.before.len())
        };
        let synced = files.iter().try_for_each(|file| file.sync_data());
        synced.map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.before.drain(..before);
        Ok(())
    }

    fn write_within(&self, patience: Duration, record: &impl Serialize) -> Result<(), LogError> {
        let line = to_line(record).map_err(LogError::Json)?;
        self.locked(patience, |inner| inner.append(Some(line))).map(drop)
    }

    /// Does something with the file that is at the log's path, under its lock.
    fn locked<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> Result<T, LogError> {
        // A thread that panicked while it held the file left at worst an unfinished line.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + patience;
        loop {
            wait(&self.path, || inner.file.try_lock(), deadline)?;
            let moved = rotate::is_elsewhere(&self.path, &inner.file) || inner.is_bare();
            if !moved && !inner.is_due(self.bounds) {
                break;
            }
            self.unlock(&inner)?;
            let removed = rotate::is_removed(&self.path, &inner.file);
            match self.current() {
                Ok(file) => inner.turn(file, removed),
                // It can still be written to, and rotated later.
                Err(_later) if !moved => {
                    inner.looked = Instant::now();
                    inner.postponed = inner.length;
                }
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(LogError::Busy(self.path.clone()));
            }
        }
        self.work(&mut inner, work)
    }

    /// Does something with the file that is open, under its lock.
    fn with_file<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> Result<T, LogError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        wait(&self.path, || inner.file.try_lock(), Instant::now() + patience)?;
        self.work(&mut inner, work)
    }

    /// Does something with a file that is locked, and gives up its lock.
    fn work<T>(
        &self,
        inner: &mut Inner,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> Result<T, LogError> {
        let done = work(inner);
        let unlocked = self.unlock(inner);
        let done = done.map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        unlocked?;
        Ok(done)
    }

    fn unlock(&self, inner: &Inner) -> Result<(), LogError> {
        inner.file.unlock().map_err(|source| LogError::Lock { path: self.path.clone(), source })
    }

    fn current(&self) -> Result<File, LogError> {
        match &self.reopen {
            None => Self::fresh(&self.path, self.owner, self.bounds),
            Some(reopen) => reopen().map_err(|source| LogError::Write { path: self.path.clone(), source }),
        }
    }
}

/// Waits for a lock with a deadline. flock(2) has none, and tells nobody when a lock comes free, so this looks again and
/// again.
///
/// # Errors
/// `WouldBlock` when somebody else kept it until then; the kernel's otherwise.
pub fn wait_for(lock: impl Fn() -> Result<(), TryLockError>, deadline: Instant) -> Result<(), TryLockError> {
    loop {
        match lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            done => return done,
        }
    }
}

/// The same for a file of the log.
pub(super) fn wait(
    path: &Path,
    lock: impl Fn() -> Result<(), TryLockError>,
    deadline: Instant,
) -> Result<(), LogError> {
    wait_for(lock, deadline).map_err(|error| match error {
        TryLockError::WouldBlock => LogError::Busy(path.to_owned()),
        TryLockError::Error(source) => LogError::Lock { path: path.to_owned(), source },
    })
}

impl Inner {
    fn new(file: Arc<File>, beside: Arc<File>) -> Self {
        Self {
            file,
            beside,
            before: Vec::new(),
            signed: 0,
            link: Link::default(),
            length: None,
            owed: Vec::new(),
            turned: false,
            removed: false,
            looked: Instant::now(),
            postponed: None,
        }
    }

    /// Goes on in another file, whose beginning says where.
    fn turn(&mut self, file: File, removed: bool) {
        // Asked for a second time and still without a beginning, it has none.
        let place = |file: &File| file.metadata().map(rotate::place).ok();
        self.turned = place(&file) != place(&self.file);
        self.removed |= removed;
        self.before.push(std::mem::replace(&mut self.file, Arc::new(file)));
        self.length = None;
        self.looked = Instant::now();
        self.postponed = None;
    }

    /// It was rotated again since it was opened, and nobody has said yet where this file goes on from.
    fn is_bare(&self) -> bool {
        self.turned && !self.removed && self.file.metadata().is_ok_and(|metadata| metadata.len() == 0)
    }

    /// Whether it is time for a new file. Its age is looked at now and then only.
    fn is_due(&mut self, bounds: Bounds) -> bool {
        let large = self.length.is_some_and(|length| {
            length >= bounds.size
                && self.postponed.is_none_or(|then| length >= then.saturating_add(POSTPONED))
        });
        if large || self.looked.elapsed() < LOOK {
            return large;
        }
        self.looked = Instant::now();
        // What cannot be looked at is found out by who opens it.
        self.postponed.is_none()
            && rotate::is_due(&self.file, bounds, SystemTime::now()).is_ok_and(|due| due.is_some())
    }

    /// Seals what is unfinished, goes on behind earlier files, and says what a person should know.
    fn found(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let name = path.display();
        let mut remarks = Vec::new();
        let kept = kept(&self.beside)?;
        let mut previous = None;
        if tail::find(&self.file, self.file.metadata()?.len())?.link.is_none() {
            previous = rotate::earlier(path)?.pop();
            self.link = previous.as_deref().map(rotate::end_of).transpose()?.flatten().unwrap_or_default();
        }
        let torn = self.append(None)?;
        if torn > 0 {
            remarks.push(format!(
                "the audit log `{name}` ended in an unfinished line ({torn} bytes), which is sealed now"
            ));
        }
        if let Some(kept) = kept.filter(|kept| kept.number > self.link.number) {
            let (first, last) = (self.link.number + 1, kept.number);
            remarks.push(format!("records {first} to {last} of the audit log `{name}` are gone"));
            self.link = kept;
        }
        if let Some(previous) = previous {
            let previous = previous.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.append_with(|link| Ok(Some(to_line(&Continued::new(&previous, link, SystemTime::now()))?)))?;
        }
        Ok(remarks)
    }

    /// Appends a line with one write(2); in front of it, if need be, what seals the remains of another one. What the
    /// system call did not take is written by a second one, the lock being held, or gives the error. Says how many
    /// bytes were sealed.
    fn append(&mut self, line: Option<Vec<u8>>) -> io::Result<u64> {
        self.append_with(|_link| Ok(line)).map(|(torn, _line)| torn)
    }

    /// The same with a line that depends on what is before it, and that is given back as it was written.
    fn append_with(
        &mut self,
        line: impl FnOnce(&Link) -> io::Result<Option<Vec<u8>>>,
    ) -> io::Result<(u64, Vec<u8>)> {
        let length = self.file.metadata()?.len();
        let mut link = self.link;
        let mut bytes = Vec::new();
        let mut torn = 0;
        if self.length != Some(length) {
            let end = tail::find(&self.file, length)?;
            // A log that was emptied or cut goes on where it was, so that the gap shows.
            link = end.link.filter(|found| found.number >= link.number).unwrap_or(link);
            torn = end.loose;
        }
        if torn > 0 {
            let (ending, digest) = tail::close(&self.file, length, torn)?;
            bytes.extend_from_slice(ending);
            let covered = torn + u64::try_from(ending.len()).map_err(io::Error::other)?;
            let record = to_line(&Torn::new(covered, &digest, SystemTime::now()))?;
            link = add(&mut bytes, link, record)?;
        }
        if self.removed {
            let record = to_line(&Continued::new(REMOVED, &link, SystemTime::now()))?;
            link = add(&mut bytes, link, record)?;
        }
        for owed in &self.owed {
            link = add(&mut bytes, link, owed.clone())?;
        }
        let before = bytes.len();
        if let Some(line) = line(&link)? {
            link = add(&mut bytes, link, line)?;
        }
        self.length = None;
        if let Err(error) = (&*self.file).write_all(&bytes) {
            // Where this fails too, the next record seals what there is.
            drop(self.file.set_len(length));
            return Err(error);
        }
        self.owed.clear();
        self.removed = false;
        self.link = link;
        self.turned = false;
        self.length = Some(length + u64::try_from(bytes.len()).map_err(io::Error::other)?);
        Ok((torn, bytes.split_off(before)))
    }

    fn sign(&mut self, key: &Key) -> io::Result<()> {
        if self.signed > 0
            && self.owed.is_empty()
            && self.signed == self.link.number
            && self.length == Some(self.file.metadata()?.len())
        {
            return Ok(());
        }
        let (_torn, line) = self.append_with(|link| {
            let record = Checkpoint::new(link, key, SystemTime::now());
            Ok(Some(to_line(&record)?))
        })?;
        self.signed = self.link.number;
        self.beside.write_all_at(&line, 0)?;
        self.beside.set_len(u64::try_from(line.len()).map_err(io::Error::other)?)
    }
}

/// The place of the last checkpoint, by the file beside the log; `None` when there is none, or no longer one.
fn kept(beside: &File) -> io::Result<Option<Link>> {
    let mut line = vec![0; KEPT];
    let read = beside.read_at(&mut line, 0)?;
    line.truncate(read);
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(sealed(line).map(|sealed| sealed.link))
}

/// Adds a line to what is about to be written, as the next link.
fn add(bytes: &mut Vec<u8>, link: Link, line: Vec<u8>) -> io::Result<Link> {
    let sealed = link.seal(line);
    let (mut line, link) = sealed
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a record is an object with members"))?;
    if bytes.is_empty() {
        *bytes = line;
    } else {
        bytes.append(&mut line);
    }
    Ok(link)
}

#[cfg(test)]
mod tests;
