//! What the demo looks and tidies up with, from outside of every cell: inotify, the subreaper, signals, host name.
//!
//! Neighbours: `commands::demo`. Never: runs in a cell, decides what anything means.

use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Errno, Result, check, check_fd};

/// A descriptor that becomes readable each time the file at `path` is written to; of a directory, each time one of its files
/// is, or there is a new one.
///
/// # Errors
/// The kernel's errno.
pub fn watch_writes(path: &CStr) -> Result<OwnedFd> {
    // SAFETY: inotify_init1 takes flags only.
    let raw = check_fd(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) }.into())?;
    // SAFETY: the call above has just made this descriptor, and nothing else owns it.
    let watcher = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: inotify_add_watch wants an inotify descriptor, which `raw` is, and a NUL-terminated path,
    // which `path` is for as long as it is borrowed.
    check(unsafe { libc::inotify_add_watch(raw, path.as_ptr(), libc::IN_MODIFY | libc::IN_CREATE) }.into())?;
    Ok(watcher)
}

/// A System V segment and a POSIX queue of one's own, removed with the value.
#[derive(Debug)]
pub struct SharedObjects {
    segment: libc::c_int,
    /// None until it is one's own.
    queue: Option<CString>,
}

impl SharedObjects {
    /// shmget(2) and `mq_open(2)` of what does not exist yet, for everybody to find.
    ///
    /// # Errors
    /// The kernel's errno; the first is removed when the second cannot be made.
    pub fn new(key: i32, queue: CString) -> Result<Self> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o666;
        // SAFETY: shmget takes integers only.
        let segment = unsafe { libc::shmget(key, 4096, flags) };
        check(segment.into())?;
        let mut objects = Self { segment, queue: None };
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the call wants a NUL-terminated name without a slash, flags, a mode, and attributes, for which a null
        // pointer means the system's; it returns a new descriptor.
        let made =
            unsafe { libc::syscall(libc::SYS_mq_open, queue.as_ptr(), flags, 0o666, std::ptr::null::<u8>()) };
        // SAFETY: the call above has just made this descriptor, if it did, and nothing else owns it.
        check_fd(made).map(|raw| drop(unsafe { OwnedFd::from_raw_fd(raw) }))?;
        objects.queue = Some(queue);
        Ok(objects)
    }
}

impl Drop for SharedObjects {
    fn drop(&mut self) {
        // SAFETY: shmctl with IPC_RMID takes integers and no buffer.
        unsafe { libc::shmctl(self.segment, libc::IPC_RMID, std::ptr::null_mut()) };
        if let Some(queue) = &self.queue {
            // SAFETY: the call wants a NUL-terminated name, which `queue` is.
            unsafe { libc::syscall(libc::SYS_mq_unlink, queue.as_ptr()) };
        }
    }
}

/// kill(2).
///
/// # Errors
/// The kernel's errno.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes integers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// The host name that this process sees (uname(2)).
///
/// # Errors
/// The kernel's errno.
pub fn host_name() -> Result<String> {
    // SAFETY: utsname holds byte arrays only, for which all zeroes are a value.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: uname wants a pointer to a utsname that it may write: `names` is one and lives through the call.
    check(unsafe { libc::uname(&raw mut names) }.into())?;
    let bytes: Vec<u8> = names.nodename.iter().map(|c| c.cast_unsigned()).take_while(|c| *c != 0).collect();
    String::from_utf8(bytes).map_err(|_not_text| Errno(libc::EINVAL))
}
