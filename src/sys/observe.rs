//! What the demo looks and tidies up with, from outside of every cell: inotify, the subreaper, signals, host name.
//!
//! Neighbours: `commands::demo`. Never: runs in a cell, decides what anything means.

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Errno, Result, check, check_fd};

/// A descriptor that becomes readable each time the file at `path` is written to.
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
    check(unsafe { libc::inotify_add_watch(raw, path.as_ptr(), libc::IN_MODIFY) }.into())?;
    Ok(watcher)
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

/// The user id this process acts as.
#[must_use]
pub fn user_id() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}
