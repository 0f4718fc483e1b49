//! Being told that files have changed (inotify(7)).
//!
//! Neighbours: `session::spares`, `session::locked`, `launch::ready`. Never: follows a link.

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
/// Under which names a file is to be found; as attributes, its links are counted.
const NAMES: u32 = libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_DONT_FOLLOW;

/// The number of what is looked after, and a name in it; none if it is about the thing itself.
pub type Change = (i32, Vec<u8>);

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

    /// Looks after a file, or a directory and what is in it, but not below. Gives its number.
    ///
    /// # Errors
    /// The kernel's errno; `ENOSPC` past `fs.inotify.max_user_watches`.
    pub fn add(&self, path: &CStr) -> Result<i32> {
        self.watch(path, CHANGES)
    }

    /// Looks after a file's names and attributes, and not after what is written to it. Gives its number.
    ///
    /// # Errors
    /// As of [`Watcher::add`].
    pub fn add_names(&self, path: &CStr) -> Result<i32> {
        self.watch(path, NAMES)
    }

    fn watch(&self, path: &CStr, events: u32) -> Result<i32> {
        // SAFETY: inotify_add_watch wants an inotify descriptor, which this is, and a NUL-terminated path, which `path`
        // is for as long as it is borrowed.
        let number =
            check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), events) }.into())?;
        i32::try_from(number).map_err(|_large| Errno(libc::EOVERFLOW))
    }

    /// What has changed since this was asked last: the number of what is looked after, and the name in it. What was too much to
    /// be kept has a number that is nothing's.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut room = [0; 16 * 1024];
        loop {
            let count = match (&self.0).read(&mut room) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) => return Err(error.into()),
            };
            let mut rest = room.get(..count).unwrap_or_default();
            while let Some((change, after)) = event(rest) {
                // That a watch is over says nothing of what it was for.
                changes.extend(change);
                rest = after;
            }
        }
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

/// The bytes of one event before its name: number, mask, cookie, and how long the name is.
const HEAD: usize = 16;

/// The first event, if it is a change, and what is behind it.
fn event(bytes: &[u8]) -> Option<(Option<Change>, &[u8])> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
    let number = i32::from_ne_bytes(word(0)?);
    let mask = u32::from_ne_bytes(word(4)?);
    let length = usize::try_from(u32::from_ne_bytes(word(12)?)).ok()?;
    let name = bytes.get(HEAD..HEAD + length)?.split(|byte| *byte == 0).next().unwrap_or_default();
    let change = (mask & libc::IN_IGNORED == 0).then(|| (number, name.to_vec()));
    Some((change, bytes.get(HEAD + length..)?))
}
