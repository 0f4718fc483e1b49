//! Tells the operator that what was read when the session started is another file now: once for each, behind a request.
//!
//! Neighbours: [`super::client`] asks for who was let in, `commands::run` says which files. Never: reads one, or goes by what it says now.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Session;
use crate::sys::watcher::Watcher;
use crate::sys::{Errno, Result};

/// Which file it is, its size, and when it was written and changed. The last time nobody can set back, so that a file which is written anew
/// is another one, whatever stands in it; as is one that gets another mode.
type Written = (u64, u64, u64, (i64, i64), (i64, i64));

/// Files that were read at the start, or were not there.
#[derive(Debug)]
pub struct Read {
    files: RefCell<Vec<(PathBuf, Option<Written>)>>,
    /// Before it tells of something, no file is looked at: a file system that does not answer any more would hold the session.
    /// `None`: it cannot tell of everything, so that each request looks.
    watcher: Option<Watcher>,
    /// Directories whose names it looks after.
    listed: BTreeSet<PathBuf>,
}

fn written(path: &Path) -> Option<Written> {
    // A directory stands for a name that nobody is to make.
    let found = fs::metadata(path).ok().filter(Metadata::is_file)?;
    let (written, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.size(), written, changed))
}

/// Has what is at a path looked after, the names beside it, and where the directories above are.
fn watch(watcher: &Watcher, listed: &mut BTreeSet<PathBuf>, path: &Path) -> Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL));
    match watcher.add(&name(path)?) {
        Ok(_) | Err(Errno(libc::ENOENT)) => {}
        Err(errno) => return Err(errno),
    }
    let mut above = path.ancestors().skip(1);
    if let Some(directory) = above.next() {
        watcher.add(&name(directory)?)?;
        listed.insert(directory.to_path_buf());
    }
    // Less would be told of one that is asked for again.
    for directory in above.filter(|directory| !listed.contains(*directory)) {
        watcher.add_names(&name(directory)?)?;
    }
    Ok(())
}

impl Read {
    /// Of which there are none yet.
    #[must_use]
    pub fn none() -> Self {
        Self { files: RefCell::default(), watcher: Watcher::new().ok(), listed: BTreeSet::new() }
    }

    /// This file, whose path is absolute, is about to be read.
    pub fn look_at(&mut self, path: PathBuf) {
        // A link, and what it leads to.
        let places =
            BTreeSet::from([fs::canonicalize(&path).unwrap_or_else(|_missing| path.clone()), path.clone()]);
        let listed = &mut self.listed;
        self.watcher.take_if(|watcher| places.iter().any(|place| watch(watcher, listed, place).is_err()));
        let now = written(&path);
        self.files.get_mut().push((path, now));
    }

    /// Those that are others now, and were not yet told.
    fn changed(&self) -> Vec<PathBuf> {
        let mut files = self.files.borrow_mut();
        if files.is_empty() || self.watcher.as_ref().is_some_and(|watcher| !watcher.has_changed()) {
            return Vec::new();
        }
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_of_the_same_size_and_time_is_another_and_so_is_one_whose_directory_has_another_name() {
        let directory = std::env::temp_dir().join(format!("toolcell-stale-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        let start = || {
            drop(fs::remove_dir_all(&directory));
            fs::create_dir_all(at("above/beside")).unwrap();
            fs::write(at("above/beside/file"), "1").unwrap();
            fs::write(at("above/file"), "1").unwrap();
            std::os::unix::fs::symlink("file", at("above/link")).unwrap();
        };
        let rewrite = || {
            let file = File::options().write(true).open(at("above/file")).unwrap();
            let before = file.metadata().unwrap();
            // The file system's clock moves in steps.
            let changed = |found: Metadata| (found.ctime(), found.ctime_nsec());
            while changed(file.metadata().unwrap()) == changed(before.clone()) {
                fs::write(at("above/file"), "2").unwrap();
                file.set_modified(before.modified().unwrap()).unwrap();
            }
        };
        let put_over = || {
            fs::write(at("above/new"), "2").unwrap();
            fs::rename(at("above/new"), at("above/file")).unwrap();
        };
        type Change<'a> = (&'a str, &'a [&'a str], &'a dyn Fn());
        let changes: [Change<'_>; 6] = [
            ("written", &["file", "link"], &rewrite),
            ("put over it", &["file", "link"], &put_over),
            ("gone", &["file", "link"], &|| fs::remove_file(at("above/file")).unwrap()),
            ("a link that leads elsewhere", &["link"], &|| {
                fs::remove_file(at("above/link")).unwrap();
                std::os::unix::fs::symlink("beside/file", at("above/link")).unwrap();
            }),
            ("made", &["none"], &|| fs::write(at("above/none"), "").unwrap()),
            ("directory", &["beside/file", "file", "link"], &|| fs::rename(at("above"), at("away")).unwrap()),
        ];
        let names = ["beside/file", "file", "link", "none"];
        for watched in [true, false] {
            for (what, others, change) in changes {
                start();
                let mut read = Read::none();
                assert!(read.watcher.is_some());
                names.iter().for_each(|name| read.look_at(at("above").join(name)));
                assert!(read.watcher.is_some(), "everything is looked after");
                read.watcher.take_if(|_| !watched);
                fs::read(at("above/file")).unwrap();
                assert_eq!(read.changed(), Vec::<PathBuf>::new());
                change();
                let others: Vec<PathBuf> = others.iter().map(|name| at("above").join(name)).collect();
                assert_eq!(read.changed(), others, "{what}, {watched}");
                assert_eq!(read.changed(), Vec::<PathBuf>::new());
            }
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
