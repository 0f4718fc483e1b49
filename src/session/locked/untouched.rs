//! The files of a locked program, looked after while its session runs.
//!
//! What happens to a file by its name in a directory is seen (inotify(7)), whether or not it is undone; what comes and goes again,
//! as a file that an editor or `toolcell` itself writes another one by, is no change.
//!
//! Neighbours: `commands::lock` makes one before the files are hashed, [`super`] asks before each call. Never: reads a file,
//! follows a link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::audit::is_earlier;
use crate::session::trees::Trees;
use crate::sys::Result;

/// Files that nobody has changed.
#[derive(Debug)]
pub struct Untouched {
    trees: Trees,
    places: BTreeMap<i32, Place>,
    left_out: Vec<PathBuf>,
    log: PathBuf,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// What was in the directory.
    names: BTreeSet<OsString>,
}

impl Untouched {
    /// Looks after files, and directories with all that is below, but for what is left out, and what the log becomes.
    ///
    /// # Errors
    /// The kernel's errno; `E2BIG` for more than can be looked after.
    pub fn new(own: &[PathBuf], left_out: Vec<PathBuf>, log: PathBuf) -> Result<Self> {
        let is_out = |path: &Path| is_left_out(&left_out, &log, path);
        let mut trees = Trees::new(own.iter().filter(|path| !is_out(path)).cloned())?;
        let mut places = BTreeMap::new();
        while let Some(place) = trees.next(is_out)? {
            let names = place.names.into_iter().collect();
            places.insert(place.watch, Place { path: place.path, names });
        }
        Ok(Self { trees, places, left_out, log })
    }

    /// A path of which something was changed since this was made.
    #[must_use]
    pub fn touched(&self) -> Option<PathBuf> {
        let changes = match self.trees.watcher.changes() {
            Ok(changes) => changes,
            Err(errno) => return Some(PathBuf::from(format!("what cannot be told: {errno}"))),
        };
        let told = changes.into_iter().find_map(|(watch, name)| match self.places.get(&watch) {
            Some(place) => self.touches(place, OsStr::from_bytes(&name)),
            None => Some(PathBuf::from("more than can be told")),
        });
        told.or_else(|| self.trees.replaced().map(Path::to_path_buf))
    }

    fn touches(&self, place: &Place, name: &OsStr) -> Option<PathBuf> {
        if name.is_empty() {
            return Some(place.path.clone());
        }
        let path = place.path.join(name);
        let came_and_went = !place.names.contains(name) && fs::symlink_metadata(&path).is_err();
        Some(path).filter(|path| !came_and_went && !is_left_out(&self.left_out, &self.log, path))
    }
}

fn is_left_out(left_out: &[PathBuf], log: &Path, path: &Path) -> bool {
    left_out.iter().any(|out| path.starts_with(out)) || is_earlier(log, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn each_change_of_the_program_is_seen_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("toolcell-untouched-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("a/data")).unwrap();
        for file in ["a/b/file", "a/other", "a/log", "a/data/x", "a/data.py", "a/log.py"] {
            fs::write(at(file), "1").unwrap();
        }
        let new = || Untouched::new(&[at("a")], vec![at("a/data"), at("a/log")], at("a/log")).unwrap();
        let files = new();
        fs::read(at("a/b/file")).unwrap();
        for unseen in ["a/data/x", "a/data/y", "a/log", "a/log.17", "beside"] {
            fs::write(at(unseen), "2").unwrap();
        }
        fs::write(at("a/b/temporary"), "").unwrap();
        fs::remove_file(at("a/b/temporary")).unwrap();
        assert_eq!(files.touched(), None);
        let changes: [(&str, &dyn Fn()); 10] = [
            ("a/b/file", &|| fs::write(at("a/b/file"), "2").unwrap()),
            ("a/data.py", &|| fs::write(at("a/data.py"), "2").unwrap()),
            ("a/data.7", &|| fs::write(at("a/data.7"), "").unwrap()),
            ("a/log.py", &|| fs::write(at("a/log.py"), "2").unwrap()),
            ("a/log.7x", &|| fs::write(at("a/log.7x"), "").unwrap()),
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
            // What took the program's place, or that nothing did, stays to be seen.
            assert_eq!(files.touched(), (path == "a").then(|| at(path)));
        }
        assert_eq!(Untouched::new(&[at("a")], Vec::new(), at("a/log")).unwrap_err(), Errno(libc::ENOENT));
        fs::remove_dir_all(directory).unwrap();
    }
}
