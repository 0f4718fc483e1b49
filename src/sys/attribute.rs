//! Extended attributes of open files (xattr(7)), without values.
//!
//! Neighbours: `host::cgroups`. Never: follows a path.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Errno, check};

/// Does fgetxattr(2) find it?
#[must_use]
pub fn is_set(file: BorrowedFd<'_>, name: &CStr) -> bool {
    // SAFETY: the name is a NUL-terminated text; with size 0 nothing is written.
    let found = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null_mut(), 0) };
    libc::c_long::try_from(found).map_err(|_overflow| Errno(libc::EOVERFLOW)).and_then(check).is_ok()
}
