//! Being told that files have changed (inotify(7)).
//!
//! Neighbours: `session::spares`. Never: says what has changed, or follows a link.

use std::ffi::CStr;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::{Errno, Result, check, check_fd};

/// Contents, modes, names, and whether it is there. Reading is no change.
const CHANGES: u32 = libc::IN_MODIFY
    | libc::IN_ATTRIB
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_DONT_FOLLOW;

/// Files and directories that are looked after.
#[derive(Debug)]
pub struct Watcher(std::fs::File);

impl Watcher {
    /// One that looks after nothing yet.
    ///
    /// # Errors
    /// The kernel's errno; `EMFILE` past `fs.inotify.max_user_instances`.
    pub fn new() -> Result<Self> {
        // SAFETY: inotify_init1 takes flags only.
        let raw = check_fd(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into())?;
        // SAFETY: the call above has just made this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }.into()))
    }

    /// Looks after a file, or a directory and what is in it, but not below.
    ///
    /// # Errors
    /// The kernel's errno; `ENOSPC` past `fs.inotify.max_user_watches`.
    pub fn add(&self, path: &CStr) -> Result<()> {
        // SAFETY: inotify_add_watch wants an inotify descriptor, which this is, and a NUL-terminated path, which `path`
        // is for as long as it is borrowed.
        check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), CHANGES) }.into()).map(drop)
    }

    /// Has anything changed since this was asked last? An error counts as a change.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let mut room = [0; 4096];
        match (&self.0).read(&mut room) {
            Err(error) => Errno::from(error) != Errno(libc::EAGAIN),
            Ok(count) => count > 0,
        }
    }
}
