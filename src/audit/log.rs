//! The audit log itself: appends one whole line a record, with any number of writers.
//!
//! Neighbours: `session` and `commands::exec` write through it; docs/audit.md documents it. Never: drops a
//! record in silence; runs a line into one that another writer left unfinished.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::file::{FileError, open_for_append};
use super::line::to_line;

/// How long another writer may hold the log. It needs microseconds; whoever holds it longer stops the call, not
/// the supervisor.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// An open audit log. It is opened once; a log that is renamed is followed, one that is emptied is appended to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// The lock on the file keeps other processes out, this one the other threads, which share the file's lock.
    file: Mutex<File>,
}

impl Log {
    /// Opens a log, or makes it with mode 0600. `owner` is the effective user id of this process: the file has
    /// to be that user's, a regular one, and closed to everybody else.
    ///
    /// # Errors
    /// When it cannot be opened, or is not such a file.
    pub fn open(path: &Path, owner: u32) -> Result<Self, LogError> {
        let file = open_for_append(path, owner)?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record. When this fails the call that the record is about must not go on.
    ///
    /// # Errors
    /// When the record was not written, or not all of it; part of a line may then be in the log, and the next
    /// record begins on a new one.
    pub fn write(&self, record: &impl Serialize) -> Result<(), LogError> {
        self.write_within(PATIENCE, record)
    }

    fn write_within(&self, patience: Duration, record: &impl Serialize) -> Result<(), LogError> {
        let line = to_line(record).map_err(LogError::Json)?;
        // A thread that panicked while it held the file left at worst an unfinished line.
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock(&file, Instant::now() + patience)?;
        let written = append(&file, line);
        let unlocked = file.unlock();
        written.map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        unlocked.map_err(|source| LogError::Lock { path: self.path.clone(), source })
    }

    /// Waits for the lock with a deadline. flock(2) has none, and tells nobody when a lock comes free, so this
    /// looks again and again.
    fn lock(&self, file: &File, deadline: Instant) -> Result<(), LogError> {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_micros(200));
                }
                Err(TryLockError::WouldBlock) => return Err(LogError::Busy(self.path.clone())),
                Err(TryLockError::Error(source)) => {
                    return Err(LogError::Lock { path: self.path.clone(), source });
                }
            }
        }
    }
}

/// Appends a line with one write(2). What a writer that was killed or ran out of space left of a line is ended
/// first; what the system call did not take is written by another one, the lock being held, or gives the error.
fn append(mut file: &File, mut line: Vec<u8>) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_at(&mut last, end)?;
    }
    if last != [b'\n'] {
        line.insert(0, b'\n');
    }
    file.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::super::test_directory::TestDirectory;
    use super::*;

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
                        log.write(&json!({ "writer": writer, "number": number, "text": filling })).unwrap();
                    }
                });
            }
        });
        let lines = lines(&path);
        assert_eq!(lines.len(), 600);
        for writer in 0..6 {
            let own: Vec<_> = lines.iter().filter(|line| line["writer"] == writer).collect();
            assert!(own.iter().map(|line| line["number"].as_u64().unwrap()).eq(0..100));
        }
    }

    #[test]
    fn an_unfinished_line_does_not_take_the_next_one_with_it() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        log.write(&1).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"torn\":").unwrap();
        log.write(&2).unwrap();
        log.write(&3).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n{\"torn\":\n2\n3\n");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().read(true).append(true).open("/dev/full").unwrap();
        let source = append(&full, b"x\n".to_vec()).unwrap_err();
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        let error = LogError::Write { path: PathBuf::from("/var/log/x"), source };
        assert!(error.hint().unwrap().starts_with("make room"));
    }

    #[test]
    fn a_lock_that_is_kept_stops_the_call_and_not_the_supervisor() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        let error = log.write_within(Duration::ZERO, &1).unwrap_err();
        assert!(matches!(error, LogError::Busy(_)) && error.hint().is_some());
        drop(holder);
        log.write(&2).unwrap();
        assert_eq!(lines(&path), [json!(2)]);
    }
}
