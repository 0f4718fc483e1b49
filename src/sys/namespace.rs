//! Namespaces that are there already, by descriptors (`namespaces(7)`).
//!
//! Neighbours: `launch::places` enters those of a cell. Never: makes one.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::{Result, check, check_fd};

/// setns(2): into the namespaces of one kind that a descriptor stands for.
///
/// # Errors
/// The kernel's errno.
pub fn setns(namespace: BorrowedFd<'_>, kind: libc::c_int) -> Result<()> {
    // SAFETY: setns takes integers and touches no memory of ours.
    check(libc::c_long::from(unsafe { libc::setns(namespace.as_raw_fd(), kind) })).map(drop)
}

/// The user namespace that owns a namespace (`NS_GET_USERNS`, `ioctl_nsfs(2)`).
///
/// # Errors
/// The kernel's errno.
pub fn owner_of(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: this request takes no argument and returns a new descriptor or an error.
    let fd = check_fd(libc::c_long::from(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) }))?;
    // SAFETY: nobody else owns the descriptor, which is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
