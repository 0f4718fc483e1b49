//! Denied names that do not exist: for the life of a cell each is an empty directory on the host, so that there is
//! something to cover. Every process that uses one holds a shared lock on it; whoever ends as the last removes it.
//!
//! Neighbours: `launch::spawn` reserves before the clone; dropping a [`Reserved`] releases. Never: removes a directory
//! that toolcell did not mark as its own, or that has something in it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::sys::Errno;

/// The mode that marks a directory of ours: private, and sticky, which means nothing where only the owner may write.
/// It is there from the first moment on, so whoever is killed in between leaves no directory that is not known again.
const MARK: u32 = 0o1700;

/// Directories made for one cell, outermost first.
#[derive(Debug, Default)]
pub struct Reserved(Vec<(PathBuf, File)>);

impl Drop for Reserved {
    fn drop(&mut self) {
        for (path, lock) in self.0.drain(..).rev() {
            release_one(&path, &lock);
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

fn is_marked(metadata: &Metadata) -> bool {
    // The set-group-ID bit comes from the directory above (mkdir(2)).
    metadata.mode() & 0o5777 == MARK
}

/// Is this one of the directories that hold a denied name's place?
#[must_use]
pub fn is_reserved(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && is_marked(&found))
}

/// Removes what a killed launcher left of these; what another cell still uses stays.
pub fn release(paths: &[PathBuf]) {
    for path in paths.iter().rev() {
        if let Ok(directory) = open(path) {
            release_one(path, &directory);
        }
    }
}

fn release_one(path: &Path, lock: &File) {
    // Another holder removes it later; a directory with something in it is no longer only ours.
    if lock.metadata().is_ok_and(|found| is_marked(&found)) && lock.try_lock().is_ok() {
        let _not_empty = fs::remove_dir(path).is_err();
    }
}

impl Reserved {
    /// The paths, outermost first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Makes `path` exist, and with it the directories above. What exists already is left as it is.
    pub(super) fn add(&mut self, path: &Path) -> Result<(), LaunchError> {
        let mut missing: Vec<&Path> =
            path.ancestors().take_while(|a| fs::symlink_metadata(a).is_err() || is_reserved(a)).collect();
        missing.reverse();
        for directory in missing {
            if self.0.iter().any(|(held, _)| held == directory) {
                continue;
            }
            let held = hold(directory).map_err(|error| {
                LaunchError::new("reserve-name", path.to_string_lossy(), Errno::from(error))
            })?;
            self.0.extend(held.map(|lock| (directory.to_owned(), lock)));
        }
        Ok(())
    }
}

/// Makes one directory, or shares it with the cells that use it; `None` when somebody else made something there.
fn hold(path: &Path) -> std::io::Result<Option<File>> {
    // The last user may remove the directory between our looking and our locking; then it is made again.
    for _ in 0..100 {
        let made = match DirBuilder::new().mode(MARK).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        let directory = match open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) if !made => return Ok(None),
            Err(error) => return Err(error),
        };
        directory.lock_shared()?;
        let found = directory.metadata()?;
        if found.nlink() == 0 {
            continue;
        }
        // A file system without modes works too; only a place left by a double SIGKILL is not known again.
        return Ok((made || is_marked(&found)).then_some(directory));
    }
    Err(std::io::Error::from_raw_os_error(libc::EBUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("toolcell-reserve-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn the_last_user_removes_the_name_and_its_parents() {
        let top = directory("last");
        let path = top.join("a/b");
        let mut first = Reserved::default();
        first.add(&path).unwrap();
        let mut second = Reserved::default();
        second.add(&path).unwrap();
        drop(first);
        assert!(path.is_dir(), "the second user still holds it");
        drop(second);
        assert!(!top.join("a").exists());
        fs::remove_dir(top).unwrap();
    }

    #[test]
    fn what_a_killed_user_left_is_known_again() {
        let top = directory("killed");
        let path = top.join("a/b");
        let mut killed = Reserved::default();
        killed.add(&path).unwrap();
        // The kernel closes what a killed process had open, and nobody removes what it made.
        killed.0.clear();
        assert!(is_reserved(&path) && is_reserved(&top.join("a")));
        let mut next = Reserved::default();
        next.add(&path).unwrap();
        drop(next);
        assert!(!top.join("a").exists());
        fs::remove_dir(top).unwrap();
    }

    #[test]
    fn what_somebody_made_stays() {
        let top = directory("stays");
        let path = top.join("hooks");
        fs::create_dir(&path).unwrap();
        let mut reserved = Reserved::default();
        reserved.add(&path).unwrap();
        drop(reserved);
        assert!(path.is_dir());
        let mut reserved = Reserved::default();
        let other = top.join("other");
        reserved.add(&other).unwrap();
        fs::write(other.join("mine"), "x").unwrap();
        drop(reserved);
        assert!(other.join("mine").exists());
        fs::remove_dir_all(top).unwrap();
    }
}
