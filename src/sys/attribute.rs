//! Extended attributes of open files (xattr(7)), without values.
//!
//! Neighbours: `launch::reserve`. Never: follows a path.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Errno, Result, check};

/// fsetxattr(2) with an empty value.
///
/// # Errors
/// The kernel's errno; `EOPNOTSUPP` on a file system without attributes.
pub fn set(file: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the name is a NUL-terminated text; a value of length 0 is not read.
    check(libc::c_long::from(unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null(), 0, 0) }))
        .map(drop)
}

/// Does fgetxattr(2) find it?
#[must_use]
pub fn is_set(file: BorrowedFd<'_>, name: &CStr) -> bool {
    // SAFETY: the name is a NUL-terminated text; with size 0 nothing is written.
    let found = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null_mut(), 0) };
    libc::c_long::try_from(found).map_err(|_overflow| Errno(libc::EOVERFLOW)).and_then(check).is_ok()
}
