//! User and group ids (credentials(7)).
//!
//! Neighbours: `launch`, `host`. Never: picks an id.

use std::ptr;

use super::{Result, check};

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
