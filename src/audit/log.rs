//! The audit log itself: appends one whole line a record, tied to the line before, with any number of writers.
//!
//! Neighbours: `session` and `commands::exec` write through it, `audit::tail` finds where the chain goes on,
//! `audit::signer` calls for checkpoints; docs/audit.md documents it. Never: drops a record in silence; runs a line into one that another writer left
//! unfinished; goes back in the chain.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
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

/// How long another writer may hold the log. It needs microseconds; whoever holds it longer stops the call, not
/// the supervisor.
const PATIENCE: Duration = Duration::from_secs(1);

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
            Self::Busy(path) => Some(format!("find it with: fuser -v '{}'", path.display())),
            Self::Write { path, source } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!("make room, or move the log with `--audit FILE`: df '{}'", path.display()))
            }
            Self::Json(_) | Self::Lock { .. } | Self::Write { .. } => None,
        }
    }
}

/// An open audit log. It is opened once, and rotated only then; a log that is renamed is followed.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// The lock on the file keeps other processes out, this one the other threads, which share the file's lock.
    inner: Mutex<Inner>,
    /// What a person should know of how it was found.
    remarks: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    /// The line of the last checkpoint is in here. A lock on it says that the log is open.
    beside: Arc<File>,
    /// The number of the last record that is a checkpoint, as far as is known here.
    signed: u64,
    /// The last record that was read or written here.
    link: Link,
    /// How long the file was then; `None` when that is not known.
    length: Option<u64>,
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

    /// The same with other bounds than the usual ones: a log that is out of them becomes an earlier file, unless another
    /// process has it open.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_within(path: &Path, owner: u32, bounds: Bounds) -> Result<Self, LogError> {
        let beside = Arc::new(open_private(&beside(path), owner, false)?);
        let deadline = Instant::now() + PATIENCE;
        let alone = match beside.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(LogError::Lock { path: path.to_owned(), source }),
        };
        if !alone {
            wait_for(path, || beside.try_lock_shared(), deadline)?;
        }
        let mut log = Self::as_it_is(path, owner, Arc::clone(&beside))?;
        if alone {
            let set_aside = {
                let inner = log.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
                rotate::set_aside(path, &inner.file, bounds, SystemTime::now())
            };
            if set_aside.map_err(|source| LogError::Write { path: path.to_owned(), source })? {
                let before = std::mem::take(&mut log.remarks);
                log = Self::as_it_is(path, owner, Arc::clone(&beside))?;
                log.remarks.splice(..0, before);
            }
            wait_for(path, || beside.try_lock_shared(), deadline)?;
            // One lock is given up before the other is taken, and somebody else may have rotated in between.
            if !log.is_at_its_path() {
                log = Self::as_it_is(path, owner, Arc::clone(&beside))?;
            }
        }
        Ok(log)
    }

    fn is_at_its_path(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (open, there) = (inner.file.metadata().map(place), std::fs::metadata(&self.path).map(place));
        matches!((open, there), (Ok(open), Ok(there)) if open == there)
    }

    /// Opens the file, and finds out where the chain goes on.
    fn as_it_is(path: &Path, owner: u32, beside: Arc<File>) -> Result<Self, LogError> {
        let file = Arc::new(open_private(path, owner, true)?);
        let inner = Mutex::new(Inner { file, beside, signed: 0, link: Link::default(), length: None });
        let log = Self { path: path.to_owned(), inner, remarks: Vec::new() };
        let remarks = log.locked(PATIENCE, |inner| inner.found(path))?;
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
        let (file, beside) = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&inner.file), Arc::clone(&inner.beside))
        };
        let synced = file.sync_data().and_then(|()| beside.sync_data());
        synced.map_err(|source| LogError::Write { path: self.path.clone(), source })
    }

    fn write_within(&self, patience: Duration, record: &impl Serialize) -> Result<(), LogError> {
        let line = to_line(record).map_err(LogError::Json)?;
        self.locked(patience, |inner| inner.append(Some(line))).map(drop)
    }

    fn locked<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> Result<T, LogError> {
        // A thread that panicked while it held the file left at worst an unfinished line.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(&self.path, || inner.file.try_lock(), Instant::now() + patience)?;
        let done = work(&mut inner);
        let unlocked = inner.file.unlock();
        let done = done.map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        unlocked.map_err(|source| LogError::Lock { path: self.path.clone(), source })?;
        Ok(done)
    }
}

/// Waits for a lock with a deadline. flock(2) has none, and tells nobody when a lock comes free, so this looks again and
/// again.
fn wait_for(
    path: &Path,
    lock: impl Fn() -> Result<(), TryLockError>,
    deadline: Instant,
) -> Result<(), LogError> {
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            Err(TryLockError::WouldBlock) => return Err(LogError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(LogError::Lock { path: path.to_owned(), source });
            }
        }
    }
}

impl Inner {
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
        self.link = link;
        self.length = Some(length + u64::try_from(bytes.len()).map_err(io::Error::other)?);
        Ok((torn, bytes.split_off(before)))
    }

    fn sign(&mut self, key: &Key) -> io::Result<()> {
        if self.signed > 0
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
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::super::chain::{digest, sealed};
    use super::super::test_directory::TestDirectory;
    use super::*;
    use crate::policy::tokens::to_hex;

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn writers_that_share_a_log_and_writers_that_do_not_leave_whole_lines() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let shared = Log::open(&path, directory.owner).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..6 {
                let (path, shared) = (&path, &shared);
                scope.spawn(move || {
                    let own = Log::open(path, directory.owner).unwrap();
                    let log = if writer % 2 == 0 { shared } else { &own };
                    for number in 0..100 {
                        let filling = "\n".repeat(writer * 700 + number);
                        log.write(&json!({ "writer": writer, "record": number, "text": filling })).unwrap();
                    }
                });
            }
        });
        let lines = lines(&path);
        assert_eq!(lines.len(), 600);
        for writer in 0..6 {
            let own: Vec<_> = lines.iter().filter(|line| line["writer"] == writer).collect();
            assert!(own.iter().map(|line| line["record"].as_u64().unwrap()).eq(0..100));
        }
        assert!(lines.iter().map(|line| line["number"].as_u64().unwrap()).eq(1..=600));
    }

    #[test]
    fn an_unfinished_line_is_sealed_by_the_next_record_or_start() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        assert!(log.remarks().is_empty());
        log.write(&json!({"a": 1})).unwrap();
        let tear = |text: &[u8]| File::options().append(true).open(&path).unwrap().write_all(text).unwrap();
        tear(b"{\"torn\":");
        log.write(&json!({"a": 2})).unwrap();
        tear(b"\n\nx");
        let log = Log::open(&path, directory.owner).unwrap();
        assert!(log.remarks()[0].contains("3 bytes"));
        log.write(&json!({"a": 3})).unwrap();

        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[1], lines[4], lines[5], lines[6]), ("{\"torn\":", "", "", "x"));
        let events: Vec<Value> = [2, 7].map(|at| serde_json::from_str(lines[at]).unwrap()).into();
        assert_eq!(events[0]["event"], "torn");
        assert_eq!((&events[0]["bytes"], &events[1]["bytes"]), (&json!(9), &json!(4)));
        assert_eq!(events[1]["sha256"], to_hex(&digest(b"\n\nx\n")));
        let numbers: Vec<u64> =
            lines.iter().filter_map(|line| Some(sealed(line.as_bytes())?.link.number)).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_log_that_is_emptied_goes_on_with_its_numbers() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        log.write(&json!({"a": 1})).unwrap();
        log.write(&json!({"a": 2})).unwrap();
        File::create(&path).unwrap();
        log.write(&json!({"a": 3})).unwrap();
        assert_eq!(lines(&path)[0]["number"], 3);
    }

    #[test]
    fn a_large_or_old_log_becomes_an_earlier_file_unless_somebody_has_it_open() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let large = Bounds { size: 1, ..Bounds::default() };
        let old = Bounds { age: Duration::ZERO, ..Bounds::default() };
        let open = |bounds| Log::open_within(&path, directory.owner, bounds).unwrap();
        let record = || json!({"event": "started", "time": "2026-11-22T14:05:09.000123Z"});
        // There is nothing to set aside yet.
        drop(open(large));
        let first = open(Bounds::default());
        first.write(&record()).unwrap();
        first.write(&record()).unwrap();
        let second = open(large);
        second.write(&record()).unwrap();
        assert_eq!(first.files(), [path.clone(), directory.path.join("log.checkpoint")]);
        drop((first, second));

        for bounds in [large, old] {
            let log = open(bounds);
            log.write(&record()).unwrap();
        }
        drop(open(Bounds::default()));
        let earlier = rotate::earlier(&path).unwrap();
        assert_eq!(earlier, ["log.1", "log.4"].map(|name| directory.path.join(name)));
        let numbers = |path: &Path| -> Vec<u64> {
            lines(path).iter().map(|line| line["number"].as_u64().unwrap()).collect()
        };
        assert_eq!(numbers(&earlier[0]), [1, 2, 3]);
        assert_eq!((numbers(&earlier[1]), numbers(&path)), (vec![4, 5], vec![6, 7]));
        let continued = &lines(&path)[0];
        assert_eq!((&continued["event"], &continued["count"]), (&json!("continued"), &json!(5)));
        assert_eq!(continued["previous"], "log.4");
        // Killed between the two steps: the file is not there.
        fs::remove_file(&path).unwrap();
        fs::remove_file(directory.path.join("log.checkpoint")).unwrap();
        open(Bounds::default()).write(&record()).unwrap();
        assert_eq!(numbers(&path), [6, 7]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let file = File::options().read(true).append(true).open("/dev/full").unwrap();
        let file = Arc::new(file);
        let mut full =
            Inner { beside: Arc::clone(&file), file, signed: 0, link: Link::default(), length: None };
        let source = full.append(Some(b"{\"a\":1}\n".to_vec())).unwrap_err();
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(full.link, Link::default());
        let error = LogError::Write { path: PathBuf::from("/var/log/x"), source };
        assert!(error.hint().unwrap().starts_with("make room"));
    }

    #[test]
    fn what_is_no_object_is_no_record() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        assert!(matches!(log.write(&1), Err(LogError::Write { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_lock_that_is_kept_stops_the_call_and_not_the_supervisor() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        let error = log.write_within(Duration::ZERO, &json!({"a": 1})).unwrap_err();
        assert!(matches!(error, LogError::Busy(_)) && error.hint().is_some());
        drop(holder);
        log.write(&json!({"a": 2})).unwrap();
        assert_eq!(lines(&path)[0]["a"], 2);
    }
}
