//! The files of a log: the one that is written to, and the earlier ones, which a large or old log becomes.
//!
//! An earlier file is called like the log, with the number of its first record behind it, and is never written to again.
//!
//! Neighbours: `audit::log` rotates when it opens a log that nobody else has open, `commands::audit` reads them all.
//! Never: removes a file.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::chain::{Link, sealed};
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
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name();
        let number = other.to_str().and_then(|other| other.strip_prefix(&*name)?.strip_prefix('.'));
        let number = number.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = number.and_then(|digits| digits.parse::<u64>().ok()) {
            found.push((number, directory.join(other)));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Where an earlier file ends.
pub(super) fn end_of(path: &Path) -> io::Result<Option<Link>> {
    let file = File::open(path)?;
    Ok(tail::find(&file, file.metadata()?.len())?.link)
}

#[derive(Deserialize)]
struct Dated {
    time: String,
}

/// Gives a log that is large or old the name of an earlier file, and says so. Nobody else may have it open.
pub(super) fn set_aside(log: &Path, file: &File, bounds: Bounds, now: SystemTime) -> io::Result<bool> {
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    // The first whole record; what stands before it was sealed by it.
    let first = loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if let Some(first) = line.strip_suffix(b"\n").and_then(sealed) {
            break first.link.number;
        }
    };
    let oldest = now.checked_sub(bounds.age).map(rfc3339).unwrap_or_default();
    let old = serde_json::from_slice::<Dated>(&line).is_ok_and(|dated| dated.time < oldest);
    if !old && file.metadata()?.len() < bounds.size {
        return Ok(false);
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{first}"));
    if fs::symlink_metadata(&name).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("`{}` exists already", name.to_string_lossy()),
        ));
    }
    fs::rename(log, name)?;
    Ok(true)
}
