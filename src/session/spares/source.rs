//! What a server is started from, looked after: one that was started before it changed is not what a start would give now.
//!
//! Neighbours: [`super`] asks before it gives one to a call. Never: reads a file.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::sys::watcher::Watcher;
use crate::sys::{Errno, Result};

/// More directories are not looked after, and a server that has more is not started before its call.
const MOST: usize = 16 * 1024;
/// After so many, others have their turn.
const TURN: usize = 64;

/// Trees that nobody has changed.
#[derive(Debug)]
pub(super) struct Source(Watcher);

impl Source {
    /// Looks after these files, and directories with all that is below.
    ///
    /// # Errors
    /// The kernel's errno; `E2BIG` for more than can be looked after.
    pub(super) async fn new(paths: &[PathBuf]) -> Result<Self> {
        let watcher = Watcher::new()?;
        let mut left: Vec<PathBuf> = paths.to_vec();
        let mut number = 0;
        while let Some(path) = left.pop() {
            number += 1;
            if number > MOST {
                return Err(Errno(libc::E2BIG));
            }
            if number % TURN == 0 {
                tokio::task::yield_now().await;
            }
            match watch(&watcher, &path) {
                Ok(below) => left.extend(below),
                // It was there a moment ago, and its directory tells that it is gone.
                Err(Errno(libc::ENOENT)) if !paths.contains(&path) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Self(watcher))
    }

    /// Is it not any more what it was?
    pub(super) fn has_changed(&self) -> bool {
        self.0.has_changed()
    }
}

/// Looks after one path; the directories in it, listed after that, so that none comes unseen.
fn watch(watcher: &Watcher, path: &Path) -> Result<Vec<PathBuf>> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
    watcher.add(&name).map(drop)?;
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(Vec::new());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_change_below_is_noticed_and_reading_is_none() {
        let directory = std::env::temp_dir().join(format!("toolcell-source-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "1").unwrap();
        fs::write(at("single"), "1").unwrap();
        let paths = [at("a"), at("single")];
        let source = Source::new(&paths).await.unwrap();
        fs::read(at("a/b/file")).unwrap();
        fs::read_dir(at("a/b")).unwrap().count();
        fs::write(at("beside"), "1").unwrap();
        assert!(!source.has_changed());
        let changes: [(&str, &dyn Fn()); 5] = [
            ("contents", &|| fs::write(at("a/b/file"), "2").unwrap()),
            ("a new name", &|| fs::write(at("a/new"), "").unwrap()),
            ("a file put over it", &|| fs::rename(at("beside"), at("single")).unwrap()),
            ("a directory's new name", &|| fs::rename(at("a/b"), at("a/c")).unwrap()),
            ("its end", &|| fs::remove_dir_all(at("a")).unwrap()),
        ];
        for (what, change) in changes {
            change();
            assert!(source.has_changed(), "{what}");
        }
        assert_eq!(Source::new(&paths).await.unwrap_err(), Errno(libc::ENOENT));
        fs::remove_dir_all(directory).unwrap();
    }
}
