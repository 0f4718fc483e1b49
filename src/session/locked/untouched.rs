//! The files of a locked program, looked after while its session runs.
//!
//! What happens to a file by its name in a directory is seen (inotify(7)), whether or not it is undone; what comes and goes again,
//! as a file that an editor or `toolcell` itself writes another one by, is no change.
//!
//! Neighbours: `commands::lock` makes one before the files are hashed, [`super`] asks before each call. Never: reads a file,
//! follows a link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::sys::watcher::Watcher;
use crate::sys::{Errno, Result};

/// More directories are not looked after.
const MOST: usize = 16 * 1024;

/// Files that nobody has changed.
#[derive(Debug)]
pub struct Untouched {
    watcher: Watcher,
    places: BTreeMap<i32, Place>,
    left_out: Vec<PathBuf>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// What was in the directory.
    names: BTreeSet<OsString>,
}

impl Untouched {
    /// Looks after files, and directories with all that is below, but for what is left out.
    ///
    /// # Errors
    /// The kernel's errno; `E2BIG` for more than can be looked after.
    pub fn new(own: &[PathBuf], left_out: Vec<PathBuf>) -> Result<Self> {
        let mut all = Self { watcher: Watcher::new()?, places: BTreeMap::new(), left_out };
        let mut left = own.to_vec();
        while let Some(path) = left.pop().filter(|_| all.places.len() <= MOST) {
            if !all.is_left_out(&path) {
                left.extend(all.add(path)?);
            }
        }
        if all.places.len() > MOST { Err(Errno(libc::E2BIG)) } else { Ok(all) }
    }

    fn is_left_out(&self, path: &Path) -> bool {
        // A log and its like have earlier files, which are called like them.
        let grown = |out: &PathBuf| {
            let name = path.as_os_str().as_bytes().strip_prefix(out.as_os_str().as_bytes());
            name.is_some_and(|rest| rest.starts_with(b".") && !rest.contains(&b'/'))
        };
        self.left_out.iter().any(|out| path.starts_with(out) || grown(out))
    }

    /// Looks after one path; gives the directories in it, listed after that, so that none comes unseen.
    fn add(&mut self, path: PathBuf) -> Result<Vec<PathBuf>> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
        let watch = self.watcher.add(&name)?;
        let (mut names, mut below) = (BTreeSet::new(), Vec::new());
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    below.push(entry.path());
                }
                names.insert(entry.file_name());
            }
        }
        self.places.insert(watch, Place { path, names });
        Ok(below)
    }

    /// A path of which something was changed since this was made.
    #[must_use]
    pub fn touched(&self) -> Option<PathBuf> {
        let changes = match self.watcher.changes() {
            Ok(changes) => changes,
            Err(errno) => return Some(PathBuf::from(format!("what cannot be told: {errno}"))),
        };
        changes.into_iter().find_map(|(watch, name)| match self.places.get(&watch) {
            Some(place) => self.touches(place, OsStr::from_bytes(&name)),
            None => Some(PathBuf::from("more than can be told")),
        })
    }

    fn touches(&self, place: &Place, name: &OsStr) -> Option<PathBuf> {
        if name.is_empty() {
            return Some(place.path.clone());
        }
        let path = place.path.join(name);
        let came_and_went = !place.names.contains(name) && fs::symlink_metadata(&path).is_err();
        Some(path).filter(|path| !came_and_went && !self.is_left_out(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_the_program_is_seen_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("toolcell-untouched-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("a/data")).unwrap();
        for file in ["a/b/file", "a/other", "a/log", "a/data/x"] {
            fs::write(at(file), "1").unwrap();
        }
        let new = || Untouched::new(&[at("a")], vec![at("a/data"), at("a/log")]).unwrap();
        let files = new();
        fs::read(at("a/b/file")).unwrap();
        for unseen in ["a/data/x", "a/data/y", "a/log", "a/log.17", "beside"] {
            fs::write(at(unseen), "2").unwrap();
        }
        fs::write(at("a/b/temporary"), "").unwrap();
        fs::remove_file(at("a/b/temporary")).unwrap();
        assert_eq!(files.touched(), None);
        let changes: [(&str, &dyn Fn()); 6] = [
            ("a/b/file", &|| fs::write(at("a/b/file"), "2").unwrap()),
            ("a/logs", &|| fs::write(at("a/logs"), "").unwrap()),
            ("a/other", &|| fs::rename(at("beside"), at("a/other")).unwrap()),
            ("a/b", &|| fs::rename(at("a/b"), at("b")).unwrap()),
            ("a/data", &|| fs::rename(at("a/data"), at("data")).unwrap()),
            ("a", &|| fs::rename(at("a"), at("c")).unwrap()),
        ];
        for (path, change) in changes {
            let files = new();
            change();
            let seen = files.touched();
            assert_eq!(seen, (path != "a/data").then(|| at(path)), "{path}");
            assert_eq!(files.touched(), None);
        }
        assert_eq!(Untouched::new(&[at("a")], Vec::new()).unwrap_err(), Errno(libc::ENOENT));
        fs::remove_dir_all(directory).unwrap();
    }
}
