//! Names in an open directory: listing, renaming, removing, by the directory's descriptor and one component.
//!
//! Neighbours: `launch::changes`. Never: resolves more than the one name.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use super::{Errno, Result, check, descriptor};

/// Where the length of an entry and its name stand in `struct linux_dirent64` (getdents(2)).
const LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

/// The names in a directory but for `.` and `..`, as the file system gives them; no more than `most` and one, where there are more.
///
/// # Errors
/// The kernel's errno.
pub fn names(directory: BorrowedFd<'_>, most: usize) -> Result<Vec<OsString>> {
    // Opened anew, so that it is read from its beginning.
    let own = descriptor::open_at(directory, c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut room = vec![0_u8; 32 * 1024];
    let mut found = Vec::new();
    while found.len() <= most {
        // SAFETY: the kernel writes at most `len` bytes into a live buffer of that length.
        let count =
            unsafe { libc::syscall(libc::SYS_getdents64, own.as_raw_fd(), room.as_mut_ptr(), room.len()) };
        let count = usize::try_from(check(count)?).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
        if count == 0 {
            break;
        }
        let mut rest = room.get(..count).unwrap_or_default();
        while let Some(length) = rest.get(LENGTH_AT..).and_then(<[u8]>::first_chunk) {
            let length = usize::from(u16::from_ne_bytes(*length));
            let (entry, after) = rest.split_at_checked(length.max(NAME_AT)).ok_or(Errno(libc::EIO))?;
            let name =
                entry.get(NAME_AT..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            if !matches!(name, b"." | b"..") {
                found.push(OsString::from_vec(name.to_vec()));
            }
            rest = after;
        }
    }
    found.truncate(most.saturating_add(1));
    Ok(found)
}

/// renameat2(2) within a directory; with `fresh`, not over anything (`RENAME_NOREPLACE`).
///
/// # Errors
/// The kernel's errno.
pub fn rename(directory: BorrowedFd<'_>, from: &CStr, to: &CStr, fresh: bool) -> Result<()> {
    let flags = if fresh { libc::RENAME_NOREPLACE } else { 0 };
    let fd = directory.as_raw_fd();
    // SAFETY: both names are NUL-terminated texts; the rest are integers.
    check(unsafe { libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), flags) }).map(drop)
}

/// unlinkat(2) of a file, or of an empty directory.
///
/// # Errors
/// The kernel's errno.
pub fn remove(directory: BorrowedFd<'_>, name: &CStr, empty_directory: bool) -> Result<()> {
    let flags = if empty_directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: the name is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) }))
        .map(drop)
}

/// Where an open symbolic link leads (readlinkat(2) without a name).
///
/// # Errors
/// The kernel's errno.
pub fn link(link: BorrowedFd<'_>) -> Result<CString> {
    let mut room = vec![0_u8; usize::from(u16::MAX)];
    // SAFETY: the name is an empty NUL-terminated text, and the kernel writes at most `len` bytes into a live buffer.
    let count =
        unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), room.as_mut_ptr().cast(), room.len()) };
    let count = check(libc::c_long::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW))?)?;
    room.truncate(usize::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW))?);
    CString::new(room).map_err(|_nul| Errno(libc::EINVAL))
}
