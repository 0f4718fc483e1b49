//! What a server is started from, looked after: one that was started before it changed is not what a start would give now.
//!
//! Neighbours: [`super`] asks before it gives one to a call. Never: reads a file.

use std::path::PathBuf;

use crate::session::trees::Trees;
use crate::sys::Result;

/// After so many, others have their turn.
const TURN: usize = 64;

/// Trees that nobody has changed.
#[derive(Debug)]
pub(super) struct Source(Trees);

impl Source {
    /// Looks after these files, and directories with all that is below.
    ///
    /// # Errors
    /// The kernel's errno; `E2BIG` for more than can be looked after, and then no server is started before its call.
    pub(super) async fn new(paths: &[PathBuf]) -> Result<Self> {
        let mut trees = Trees::new(paths.iter().cloned())?;
        let mut number = 0;
        while trees.next(|_| false)?.is_some() {
            number += 1;
            if number % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Self(trees))
    }

    /// Is it not any more what it was?
    pub(super) fn has_changed(&self) -> bool {
        self.0.watcher.has_changed() || self.0.replaced().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::Errno;

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
