//! Extended attributes (xattr(7)).
//!
//! Neighbours: `host::cgroups`, `launch::changes`, `launch::memory`. Never: follows another link than one of `/proc`.

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

/// The protocol of the socket behind `/proc/PID/fd/N`, as `/proc/net/protocols` calls it, e.g. `TCPv6`: nothing is held of the
/// socket meanwhile.
///
/// # Errors
/// getxattr(2)'s errno; `EILSEQ` for what is no text.
pub fn protocol(descriptor: &CStr) -> Result<String> {
    let mut found = [0_u8; 32];
    // SAFETY: both names are NUL-terminated texts, and the kernel writes at most 32 bytes into a live array of 32.
    let count = unsafe {
        let name = c"system.sockprotoname";
        libc::getxattr(descriptor.as_ptr(), name.as_ptr(), found.as_mut_ptr().cast(), found.len())
    };
    let count = check(libc::c_long::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW))?)?;
    let name = usize::try_from(count).ok().and_then(|count| found.get(..count)).unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_not_text| Errno(libc::EILSEQ))?;
    Ok(name.trim_end_matches('\0').to_owned())
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
