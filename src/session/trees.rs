//! Walks what is to be looked after, from before it is listed on, so that nothing in it changes unseen.
//!
//! Neighbours: [`super::locked`] asks what has changed, [`super::spares`] whether anything has. Never: reads a file, follows a link.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::sys::watcher::Watcher;
use crate::sys::{Errno, Result};

/// More files and directories are not looked after.
const MOST: usize = 16 * 1024;

/// Files, and directories with all that is below.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) watcher: Watcher,
    /// Each with its file system and number there: no event tells that a directory above has another name.
    roots: Vec<(PathBuf, (u64, u64))>,
    left: Vec<PathBuf>,
    number: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Place {
    /// By which events tell of it.
    pub(super) watch: i32,
    pub(super) path: PathBuf,
    /// What was in the directory.
    pub(super) names: Vec<OsString>,
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Trees {
    /// Of which nothing is looked after yet.
    ///
    /// # Errors
    /// The kernel's errno.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let roots = paths.into_iter().map(|path| identity(&path).map(|identity| (path, identity)));
        let roots: Vec<_> = roots.collect::<Result<_>>()?;
        let left = roots.iter().map(|(path, _)| path.clone()).collect();
        Ok(Self { watcher: Watcher::new()?, roots, left, number: 0 })
    }

    /// Looks after the next one, and what is in it but for what is left out. `None`: after all of them.
    ///
    /// # Errors
    /// The kernel's errno; `E2BIG` for more than can be looked after.
    pub(super) fn next(&mut self, is_left_out: impl Fn(&Path) -> bool) -> Result<Option<Place>> {
        while let Some(path) = self.left.pop() {
            self.number += 1;
            if self.number > MOST {
                return Err(Errno(libc::E2BIG));
            }
            match self.look_after(&path, &is_left_out) {
                Ok((watch, names)) => return Ok(Some(Place { watch, path, names })),
                // It was there a moment ago: its directory, or its root, tells that it is gone.
                Err(Errno(libc::ENOENT | libc::ENOTDIR))
                    if self.roots.iter().all(|(root, _)| *root != path) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }

    /// Looks after one path. The directories in it are listed after that, so that none comes unseen.
    fn look_after(
        &mut self,
        path: &Path,
        is_left_out: impl Fn(&Path) -> bool,
    ) -> Result<(i32, Vec<OsString>)> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
        let watch = self.watcher.add(&name)?;
        let mut names = Vec::new();
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let below = entry.path();
                // What is gone already is looked for, and not found.
                if entry.file_type().map_or(true, |kind| kind.is_dir()) && !is_left_out(&below) {
                    self.left.push(below);
                }
                names.push(entry.file_name());
            }
        }
        Ok((watch, names))
    }

    /// A path that was asked for and is another file's or directory's now.
    pub(super) fn replaced(&self) -> Option<&Path> {
        let other = |(path, then): &&(PathBuf, (u64, u64))| identity(path) != Ok(*then);
        self.roots.iter().find(other).map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_while_it_is_walked_is_a_change_and_no_end_of_looking() {
        let directory = std::env::temp_dir().join(format!("toolcell-trees-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        let goes: [(&str, &dyn Fn()); 3] = [
            ("removed", &|| fs::remove_dir_all(at("a/b")).unwrap()),
            ("a file in its place", &|| {
                fs::remove_dir_all(at("a/b")).unwrap();
                fs::write(at("a/b"), "").unwrap();
            }),
            ("moved", &|| fs::rename(at("a/b"), at("c")).unwrap()),
        ];
        for (what, go) in goes {
            drop(fs::remove_dir_all(&directory));
            fs::create_dir_all(at("a/b/deep")).unwrap();
            let mut trees = Trees::new([at("a")]).unwrap();
            assert_eq!(trees.next(|_| false).unwrap().unwrap().path, at("a"));
            go();
            while trees.next(|_| false).unwrap().is_some() {}
            assert!(trees.watcher.has_changed(), "{what}");
        }
        assert!(Trees::new([at("a/none")]).is_err());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn another_directory_at_the_same_path_is_seen() {
        let directory = std::env::temp_dir().join(format!("toolcell-replaced-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("above/a")).unwrap();
        let mut trees = Trees::new([at("above/a")]).unwrap();
        while trees.next(|_| false).unwrap().is_some() {}
        assert_eq!(trees.replaced(), None);
        fs::rename(at("above"), at("away")).unwrap();
        fs::create_dir_all(at("above/a")).unwrap();
        assert!(!trees.watcher.has_changed(), "the kernel tells nothing of this");
        assert_eq!(trees.replaced(), Some(at("above/a").as_path()));
        fs::remove_dir_all(directory).unwrap();
    }
}
