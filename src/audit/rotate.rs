//! The files of a log: the one that is written to, and the earlier ones, which a large or old log becomes.
//!
//! An earlier file is called like the log, with the number of its first record behind it, and is never written to again.
//!
//! Neighbours: `audit::log` rotates when it opens a log or has written much to it, `commands::audit` reads them all.
//! Never: removes a file; changes the name of a file that somebody is writing to at the moment.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

use super::chain::{Link, sealed};
use super::file::{FileError, open_private, open_to_read};
use super::log::{LogError, PATIENCE, wait};
use super::stamp::rfc3339;
use super::tail;

/// When a log becomes an earlier file.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes from which on it does.
    pub size: u64,
    /// The age of its first record from which on it does.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { size: 64 * 1024 * 1024, age: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// The earlier files of a log, by the number of their first record.
///
/// # Errors
/// When their directory cannot be read.
pub fn earlier(log: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let other = entry?.file_name();
        if let Some(number) = number_of(log, &other) {
            found.push((number, directory.join(other)));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Whether a path is that of an earlier file of a log.
#[must_use]
pub fn is_earlier(log: &Path, path: &Path) -> bool {
    path.parent() == log.parent() && path.file_name().is_some_and(|name| number_of(log, name).is_some())
}

/// The number of the first record of an earlier file of this name.
fn number_of(log: &Path, name: &OsStr) -> Option<u64> {
    let digits = name.as_bytes().strip_prefix(log.file_name()?.as_bytes())?.strip_prefix(b".")?;
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Where an earlier file ends. Who appends to it at this moment does so before there was a file after it, and is waited
/// for; nobody begins to any more.
pub(super) fn end_of(path: &Path) -> io::Result<Option<Link>> {
    let file = File::open(path)?;
    wait(path, || file.try_lock_shared(), Instant::now() + PATIENCE).map_err(io::Error::other)?;
    Ok(tail::find(&file, file.metadata()?.len())?.link)
}

/// Whether a file is the log no more: another one is at its path, or nothing at the moment, and it is an earlier one or
/// removed. One that somebody else moved away is followed.
#[must_use]
pub fn is_elsewhere(log: &Path, file: &File) -> bool {
    let Ok(open) = file.metadata().map(place) else { return false };
    let is_it = |path: &Path| fs::metadata(path).map(place).map(|there| there == open);
    match is_it(log) {
        Ok(same) => !same,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let earlier = earlier(log).unwrap_or_default();
            is_removed(log, file) || earlier.iter().any(|path| is_it(path).unwrap_or(false))
        }
        Err(_unseen) => false,
    }
}

/// Whether a log was removed, and nobody has begun another one.
pub(super) fn is_removed(log: &Path, file: &File) -> bool {
    let nothing = fs::metadata(log).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    nothing && file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

/// Which file it is, whatever its name.
pub(super) fn place(metadata: Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[derive(Deserialize)]
struct Dated {
    time: String,
}

/// The number of the first record of a log that is large or old.
pub(super) fn is_due(file: &File, bounds: Bounds, now: SystemTime) -> io::Result<Option<u64>> {
    let mut lines = BufReader::new(Whole { file, at: 0 });
    let mut line = Vec::new();
    // The first whole record; what stands before it was sealed by it.
    let first = loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if let Some(first) = line.strip_suffix(b"\n").and_then(sealed) {
            break first.link.number;
        }
    };
    let oldest = now.checked_sub(bounds.age).map(rfc3339).unwrap_or_default();
    let old = serde_json::from_slice::<Dated>(&line).is_ok_and(|dated| dated.time < oldest);
    Ok((old || file.metadata()?.len() >= bounds.size).then_some(first))
}

/// A file from its beginning, wherever its position is.
struct Whole<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += u64::try_from(count).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Gives a log that is large or old the name of an earlier file, and makes a new one. Whoever has it open sees that another
/// is at its path, once this has given up the lock. Says whether it was so.
pub(super) fn turn(log: &Path, owner: u32, bounds: Bounds) -> Result<bool, LogError> {
    let failed = |source| LogError::Write { path: log.to_owned(), source };
    let file = open_private(log, owner, true)?;
    wait(log, || file.try_lock(), Instant::now() + PATIENCE)?;
    if is_elsewhere(log, &file) {
        // Somebody else was first.
        return Ok(true);
    }
    let Some(first) = is_due(&file, bounds, SystemTime::now()).map_err(failed)? else { return Ok(false) };
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{first}"));
    if fs::symlink_metadata(&name).is_ok() {
        let source = io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("`{}` exists already", name.to_string_lossy()),
        );
        return Err(failed(source));
    }
    fs::rename(log, name).map_err(failed)?;
    drop(open_private(log, owner, true)?);
    Ok(true)
}

/// Opens a log with all its earlier files, in their order, as they are at one moment.
///
/// # Errors
/// When one cannot be opened.
pub fn open_all(log: &Path) -> Result<Vec<(PathBuf, File)>, FileError> {
    let list = || earlier(log).map_err(|source| FileError::Open { path: log.to_owned(), source });
    loop {
        let mut paths = list()?;
        paths.push(log.to_owned());
        let open = |path: PathBuf| open_to_read(&path).map(|file| (path, file));
        let files: Vec<_> = paths.into_iter().map(open).collect::<Result<_, _>>()?;
        // If it was rotated meanwhile, what was in it is missing.
        if list()?.len() + 1 == files.len() {
            return Ok(files);
        }
    }
}
