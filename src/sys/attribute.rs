//! Extended attributes of open files (xattr(7)).
//!
//! Neighbours: `host::cgroups`, `launch::changes`. Never: follows a path.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Errno, Result, check};

/// Does fgetxattr(2) find it?
#[must_use]
pub fn is_set(file: BorrowedFd<'_>, name: &CStr) -> bool {
    // SAFETY: the name is a NUL-terminated text; with size 0 nothing is written.
    let found = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null_mut(), 0) };
    libc::c_long::try_from(found).map_err(|_overflow| Errno(libc::EOVERFLOW)).and_then(check).is_ok()
}

/// Does fgetxattr(2) find it with this value?
///
/// # Errors
/// The kernel's errno, but for one that is not set or that the file system cannot have.
pub fn is(file: BorrowedFd<'_>, name: &CStr, value: u8) -> Result<bool> {
    let mut found = [0_u8; 2];
    // SAFETY: the name is a NUL-terminated text, and the kernel writes at most two bytes into a live array of two.
    let count =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), found.as_mut_ptr().cast(), found.len()) };
    match libc::c_long::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW)).and_then(check) {
        Ok(1) => Ok(found.first() == Some(&value)),
        // A longer value does not fit, and is another.
        Ok(_) | Err(Errno(libc::ENODATA | libc::EOPNOTSUPP | libc::ERANGE)) => Ok(false),
        Err(errno) => Err(errno),
    }
}
