//! User and group ids (credentials(7)).
//!
//! Neighbours: `launch`, `host`. Never: picks an id.

use std::ptr;

use super::{Errno, Result, check};

/// Gives up every supplementary group, then becomes group and user for good (real, effective, saved).
///
/// # Errors
/// The kernel's errno.
pub fn become_user(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: a list of length 0 is not read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) })?;
    // SAFETY: setresgid takes integers. The raw call changes this thread only, which is the only one.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// geteuid(2) and getegid(2).
#[must_use]
pub fn effective() -> (u32, u32) {
    // SAFETY: geteuid takes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: getegid takes nothing and cannot fail.
    (uid, unsafe { libc::getegid() })
}

/// Makes this thread's accesses to files those of another user and group (setfsuid(2)): without the capabilities that pass over
/// modes, unless it is root. What it opened before it keeps.
///
/// # Errors
/// `EPERM` when the kernel did not do it.
pub fn act_on_files_as(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: setfsgid takes an integer, and answers what was before.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // Neither tells a failure; asked for an id that there is none of, both say what holds.
    // SAFETY: as above.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: as above.
    let user = unsafe { libc::setfsuid(u32::MAX) };
    match (user.cast_unsigned(), group.cast_unsigned()) == (uid, gid) {
        true => Ok(()),
        false => Err(Errno(libc::EPERM)),
    }
}
