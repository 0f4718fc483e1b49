//! Names that do not exist and must not come to: for the life of a cell each is an empty directory on the host, or a file
//! with a given content, so that there is something to cover or to bind. Every process that uses one holds a shared lock
//! on it; whoever ends as the last removes it.
//!
//! Neighbours: `launch::spawn` reserves before the clone; dropping a [`Reserved`] releases. Never: removes what toolcell
//! did not mark as its own, or that has something of others in it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::sys::Errno;

/// What marks a directory or file of ours, beside the owner's rights: sticky, which means nothing for a file, nor where
/// only the owner may write. It is there from the first moment on, so whoever is killed in between leaves nothing that is
/// not known again.
const MARK: u32 = 0o1000;

/// The owner's rights on a directory and on a file of ours.
const RIGHTS: [u32; 2] = [0o700, 0o600];

/// The longest content of a file of ours, in bytes.
const LONGEST: u64 = 16;

/// Names made for one cell, outermost first.
#[derive(Debug, Default)]
pub struct Reserved(Vec<(PathBuf, File)>);

impl Drop for Reserved {
    fn drop(&mut self) {
        for (path, lock) in self.0.drain(..).rev() {
            release_one(&path, &lock);
        }
    }
}

fn open(path: &Path, write: bool, flags: i32) -> std::io::Result<File> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
}

/// What `git config` and the like put in our place has our mode, but more in it.
fn is_marked(metadata: &Metadata) -> bool {
    let [directory, file] = RIGHTS;
    // The set-group-ID bit comes from the directory above (mkdir(2)).
    match metadata.mode() & 0o5777 {
        mode if metadata.is_dir() => mode == MARK | directory,
        mode => metadata.is_file() && mode == MARK | file && metadata.len() <= LONGEST,
    }
}

/// Is there nothing of others: one of the directories and files that hold a name's place, or nothing any more? Whoever holds
/// the place may leave it at any moment.
#[must_use]
pub fn is_vacant(path: &Path) -> bool {
    let ours = |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| is_vacant(&entry.path()));
    let gone = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    match fs::symlink_metadata(path) {
        Err(error) => gone(&error),
        Ok(found) if !is_marked(&found) => false,
        Ok(found) if found.is_file() => true,
        Ok(_) => fs::read_dir(path).map_or_else(|error| gone(&error), |mut entries| entries.all(ours)),
    }
}

/// Removes what a killed launcher left of these; what another cell still uses stays.
pub fn release(paths: &[PathBuf]) {
    for path in paths.iter().rev() {
        if let Ok(made) = open(path, false, 0) {
            release_one(path, &made);
        }
    }
}

fn release_one(path: &Path, lock: &File) {
    let Ok(ours) = lock.metadata() else { return };
    // Another holder removes it later.
    if !is_marked(&ours) || lock.try_lock().is_err() {
        return;
    }
    if ours.is_dir() {
        // A directory with something in it is no longer only ours.
        let _not_empty = fs::remove_dir(path).is_err();
    } else if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
        let _gone = fs::remove_file(path).is_err();
    }
}

impl Reserved {
    /// The paths, outermost first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Makes `path` exist, as a file if there is content for it, and with it the directories above. What exists already is
    /// left as it is.
    pub(super) fn add(&mut self, path: &Path, content: Option<&str>) -> Result<(), LaunchError> {
        let mut missing: Vec<&Path> = path.ancestors().take_while(|a| !is_there(a)).collect();
        missing.reverse();
        for place in missing {
            if self.0.iter().any(|(held, _)| held == place) {
                continue;
            }
            let held = hold(place, content.filter(|_| place == path)).map_err(|error| {
                LaunchError::new("reserve-name", path.to_string_lossy(), Errno::from(error))
            })?;
            self.0.extend(held.map(|lock| (place.to_owned(), lock)));
        }
        Ok(())
    }
}

/// Is something there that is not ours?
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !is_marked(&found))
}

fn make(path: &Path, content: Option<&str>) -> std::io::Result<()> {
    let [directory, file] = RIGHTS;
    match content {
        None => DirBuilder::new().mode(MARK | directory).create(path),
        Some(_) => OpenOptions::new().write(true).create_new(true).mode(MARK | file).open(path).map(drop),
    }
}

/// Makes one name, or shares it with the cells that use it; `None` when somebody else made something there.
fn hold(path: &Path, content: Option<&str>) -> std::io::Result<Option<File>> {
    // The last user may remove the name between our looking and our locking; then it is made again.
    for _ in 0..100 {
        let made = match make(path, content) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        let place = match open(path, content.is_some(), if content.is_some() { 0 } else { libc::O_DIRECTORY })
        {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) if !made => return Ok(None),
            Err(error) => return Err(error),
        };
        place.lock_shared()?;
        let found = place.metadata()?;
        if found.nlink() == 0 {
            continue;
        }
        // A file system without modes works too; only a place left by a double SIGKILL is not known again.
        if !made && !is_marked(&found) {
            return Ok(None);
        }
        if let Some(content) = content.filter(|content| found.len() < content.len() as u64) {
            // Also where somebody was killed before he could, or has not come to it yet.
            place.write_all_at(content.as_bytes(), 0)?;
        }
        return Ok(Some(place));
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
        first.add(&path, None).unwrap();
        let mut second = Reserved::default();
        second.add(&path, None).unwrap();
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
        killed.add(&path, None).unwrap();
        // The kernel closes what a killed process had open, and nobody removes what it made.
        killed.0.clear();
        assert!(is_vacant(&path) && is_vacant(&top.join("a")));
        let mut next = Reserved::default();
        next.add(&path, None).unwrap();
        // A child of another test may have a copy of the lock until its exec, so who removes them is not asked here.
        assert_eq!(next.paths(), [top.join("a"), path]);
        drop(next);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_place_that_is_left_meanwhile_is_vacant_too() {
        let top = directory("meanwhile");
        let path = top.join("a");
        std::thread::scope(|scope| {
            let cells = scope.spawn(|| {
                for _ in 0..2000 {
                    Reserved::default().add(&path.join("b"), None).unwrap();
                }
            });
            while !cells.is_finished() {
                assert!(is_vacant(&path));
            }
        });
        fs::create_dir(&path).unwrap();
        assert!(!is_vacant(&path), "of others");
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn what_somebody_made_stays() {
        let top = directory("stays");
        let path = top.join("hooks");
        fs::create_dir(&path).unwrap();
        let mut reserved = Reserved::default();
        reserved.add(&path, None).unwrap();
        drop(reserved);
        assert!(path.is_dir());
        let mut reserved = Reserved::default();
        let other = top.join("other");
        reserved.add(&other, None).unwrap();
        fs::write(other.join("mine"), "x").unwrap();
        drop(reserved);
        assert!(other.join("mine").exists());
        fs::remove_dir_all(top).unwrap();
    }
}
