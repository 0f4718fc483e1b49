//! Tells the operator that what was read when the session started is another file now: once for each, behind a request.
//!
//! Neighbours: [`super::client`] asks, `commands::run` says which files. Never: reads one, or goes by what it says now.

use std::cell::RefCell;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Session;

/// A file as it was written: a change that is undone is one.
type Written = (u64, u64, u64, i64, i64);

/// Files that were read at the start, or were not there.
#[derive(Debug, Default)]
pub struct Read(RefCell<Vec<(PathBuf, Option<Written>)>>);

fn written(path: &Path) -> Option<Written> {
    // A directory stands for a name that nobody is to make.
    let found = fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

impl Read {
    /// This file is about to be read.
    pub fn look_at(&self, path: PathBuf) {
        let now = written(&path);
        self.0.borrow_mut().push((path, now));
    }

    /// Those that are others now, and were not yet told.
    fn changed(&self) -> Vec<PathBuf> {
        let mut files = self.0.borrow_mut();
        files.extract_if(.., |(path, then)| written(path) != *then).map(|(path, _)| path).collect()
    }
}

/// Tells of what has changed.
pub(super) fn tell(session: &Session) {
    for path in session.options.read.changed() {
        (session.options.notice)(&format!(
            "`{}` has changed on disk, and toolcell goes on with what it read at its start: start it again for what stands there now",
            path.display()
        ));
    }
}
