//! The directory on the host that stands for `/tmp` in a cell without a private root, and beside it the canary.
//!
//! Neighbours: `launch::spawn` makes it before the clone and removes it after the last process; `commands` sweeps what
//! a killed launcher left. Never: removes a directory of another user's, or follows a link.
//!
//! ```text
//! PARENT/toolcell-…/canary     readable by mode, granted by no rule
//!                  /scratch/   the payload's
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::LaunchError;
use super::cgroup::is_abandoned;
use crate::sys::{Errno, identity};

/// One cell's directory, removed when this is dropped.
#[derive(Debug)]
pub struct Private(PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// The file that only Landlock keeps from being read.
pub(super) fn canary(directory: &Path) -> PathBuf {
    directory.join("canary")
}

/// What `/tmp` stands for.
pub(super) fn scratch(directory: &Path) -> PathBuf {
    directory.join("scratch")
}

impl Private {
    pub(super) fn create(parent: &Path, name: &str, owner: Option<(u32, u32)>) -> Result<Self, LaunchError> {
        let path = parent.join(name);
        let failed = |error| {
            LaunchError::new("make-private-directory", path.to_string_lossy(), Errno::from_io(&error))
        };
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let made = Self(path.clone());
        made.fill(owner).map_err(failed)?;
        Ok(made)
    }

    fn fill(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        File::create_new(canary(&self.0))?.set_permissions(Permissions::from_mode(0o444))?;
        let scratch = scratch(&self.0);
        DirBuilder::new().mode(0o700).create(&scratch)?;
        if let Some((uid, gid)) = owner {
            chown(&scratch, Some(uid), Some(gid))?;
            fs::set_permissions(&self.0, Permissions::from_mode(0o711))?;
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes a cell's directory. Call it when the last process of the cell is dead: nothing changes in it any more.
pub fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        // The payload may have made directories that not even their owner can list.
        open_up(path);
        let _left_to_the_sweep = fs::remove_dir_all(path).is_err();
    }
}

fn open_up(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return;
    }
    let _others = fs::set_permissions(path, Permissions::from_mode(0o700)).is_err();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// Removes the directories whose maker is gone.
pub fn sweep(parent: &Path) {
    let (uid, _) = identity::effective();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let own =
            || fs::symlink_metadata(entry.path()).is_ok_and(|found| found.is_dir() && found.uid() == uid);
        if is_abandoned(&entry.file_name()) && own() {
            remove(&entry.path());
        }
    }
}
