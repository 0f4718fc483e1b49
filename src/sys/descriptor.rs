//! Descriptors: pipes, duplication, closing ranges, polling, moving bytes between pipes.
//!
//! Neighbours: `launch`, `watch`, `commands::exec`. Never: interprets what flows.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{Errno, Result, check, check_fd};

/// pipe2(2), close-on-exec: reading end, writing end.
///
/// # Errors
/// The kernel's errno.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 writes two descriptors into a live array of two.
    check(libc::c_long::from(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }))?;
    let [read, write] = ends;
    // SAFETY: a successful pipe2 gave a new descriptor that nobody else owns.
    let read = unsafe { OwnedFd::from_raw_fd(read) };
    // SAFETY: as above.
    let write = unsafe { OwnedFd::from_raw_fd(write) };
    Ok((read, write))
}

/// dup3(2) to a fixed number, or clearing close-on-exec when it is that number already.
///
/// # Errors
/// The kernel's errno.
pub fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd, close_on_exec: bool) -> Result<()> {
    let flag = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    if fd.as_raw_fd() == number {
        let value = if close_on_exec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: F_SETFD takes an integer.
        return check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, value) })).map(drop);
    }
    // SAFETY: dup3 takes integers; the callers own `number` by agreement (0 to 4 in a child about to exec).
    check(libc::c_long::from(unsafe { libc::dup3(fd.as_raw_fd(), number, flag) })).map(drop)
}

/// `F_DUPFD_CLOEXEC`: a copy whose number is at least `least`.
///
/// # Errors
/// The kernel's errno.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    let copy =
        check_fd(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The descriptor of this number, which the caller knows to be open and its own.
#[must_use]
pub fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the callers pass a number that they have just put there with `duplicate_to`.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// `close_range(2)` from `first` up.
///
/// # Errors
/// The kernel's errno.
pub fn close_from(first: RawFd) -> Result<()> {
    // SAFETY: close_range takes integers; the callers keep no owner of a number it closes.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Leaves of all descriptors this one alone, under this number, and `/dev/null` as the first three. For a process that has just been
/// cloned: what the other numbers stood for belongs to values of its parent, which nobody drops here.
///
/// # Errors
/// The kernel's errno.
pub fn keep_alone(fd: OwnedFd, number: RawFd, close_on_exec: bool) -> Result<()> {
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    let above = duplicate_above(fd.as_fd(), 16)?;
    drop(fd);
    for standard in 0..3 {
        duplicate_to(null.as_fd(), standard, false)?;
    }
    duplicate_to(above.as_fd(), number, close_on_exec)?;
    let _numbers: [i32; 2] = [null, above].map(IntoRawFd::into_raw_fd);
    close_from(number + 1)
}

/// What [`poll`] waits for, and what came.
#[derive(Debug, Clone, Copy)]
pub struct Interest<'a> {
    /// Whose events; `None` is passed over.
    pub fd: Option<BorrowedFd<'a>>,
    /// `POLLIN`, `POLLOUT`.
    pub events: i16,
    /// Filled in.
    pub ready: i16,
}

/// poll(2); `None` waits for ever. Returns false on time-out.
///
/// # Errors
/// The kernel's errno; `EINTR` counts as a time-out of zero length, the caller looks again.
pub fn poll(interests: &mut [Interest<'_>], timeout: Option<std::time::Duration>) -> Result<bool> {
    let mut list: Vec<libc::pollfd> = interests
        .iter()
        .map(|i| libc::pollfd { fd: i.fd.map_or(-1, |fd| fd.as_raw_fd()), events: i.events, revents: 0 })
        .collect();
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `list` is an array of `len` pollfd; the timeout is null or a live timespec; a null mask changes none.
    let answer = check(libc::c_long::from(unsafe {
        libc::ppoll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout, ptr::null())
    }));
    match answer {
        Err(Errno(libc::EINTR)) => return Ok(false),
        Err(errno) => return Err(errno),
        Ok(_) => {}
    }
    for (interest, filled) in interests.iter_mut().zip(&list) {
        interest.ready = filled.revents;
    }
    Ok(list.iter().any(|filled| filled.revents != 0))
}

/// splice(2) between two descriptors, one a pipe: bytes moved, 0 at the end of input.
///
/// # Errors
/// The kernel's errno; `EINVAL` where neither end can be spliced.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize, wait: bool) -> Result<usize> {
    let flags = libc::SPLICE_F_MOVE | if wait { 0 } else { libc::SPLICE_F_NONBLOCK };
    // SAFETY: null offsets mean the descriptors' own positions; the rest are integers.
    let moved = unsafe {
        libc::splice(from.as_raw_fd(), ptr::null_mut(), to.as_raw_fd(), ptr::null_mut(), length, flags)
    };
    let moved = check(libc::c_long::try_from(moved).map_err(|_overflow| Errno(libc::EOVERFLOW))?)?;
    usize::try_from(moved).map_err(|_overflow| Errno(libc::EOVERFLOW))
}

/// read(2).
///
/// # Errors
/// The kernel's errno.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into a live buffer of that length.
    let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(check(libc::c_long::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW))?)?)
        .map_err(|_overflow| Errno(libc::EOVERFLOW))
}

/// write(2).
///
/// # Errors
/// The kernel's errno.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes of a live buffer of that length.
    let count = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(check(libc::c_long::try_from(count).map_err(|_overflow| Errno(libc::EOVERFLOW))?)?)
        .map_err(|_overflow| Errno(libc::EOVERFLOW))
}

/// Sets or clears `O_NONBLOCK` on the open file description.
///
/// # Errors
/// The kernel's errno.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    // SAFETY: F_GETFL takes nothing more.
    let flags = check_fd(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }))?;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: F_SETFL takes an integer.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })).map(drop)
}

/// `F_SETPIPE_SZ`: room for at least so many bytes in a pipe. One that has more keeps it.
///
/// # Errors
/// The kernel's errno; `EBADF` for what is no pipe, `EPERM` when the user's pipes together would exceed
/// `pipe-user-pages-soft`.
pub fn widen_pipe(fd: BorrowedFd<'_>, size: libc::c_int) -> Result<()> {
    // SAFETY: F_GETPIPE_SZ takes nothing more.
    let now = check_fd(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) }))?;
    if now >= size {
        return Ok(());
    }
    // SAFETY: F_SETPIPE_SZ takes an integer.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, size) })).map(drop)
}

/// `memfd_create(2)`, close-on-exec: an anonymous file to hand over something larger than a message.
///
/// # Errors
/// The kernel's errno.
pub fn anonymous_file() -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated text.
    let fd =
        check_fd(libc::c_long::from(unsafe { libc::memfd_create(c"toolcell".as_ptr(), libc::MFD_CLOEXEC) }))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes 0, 1 and 2.
///
/// # Errors
/// The kernel's errno.
pub fn close_standard() -> Result<()> {
    // SAFETY: close_range takes integers; std's handles for these numbers are not used after this in init.
    check(unsafe { libc::syscall(libc::SYS_close_range, 0, 2, 0) }).map(drop)
}

/// openat(2), close-on-exec, following links as usual.
///
/// # Errors
/// The kernel's errno.
pub fn open_at(directory: BorrowedFd<'_>, path: &std::ffi::CStr, flags: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: the path is a NUL-terminated text; without O_CREAT no mode is read.
    let fd = check_fd(libc::c_long::from(unsafe {
        libc::openat(directory.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC)
    }))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `AT_FDCWD`, for calls that take a directory.
#[must_use]
pub fn working_directory() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not -1 and no real descriptor, so there is nothing to outlive.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// access(2) with `W_OK`, for the effective ids.
///
/// # Errors
/// Why the path cannot be written to.
pub fn writable(path: &std::path::Path) -> Result<()> {
    access(path, libc::W_OK)
}

/// faccessat(2) for the effective ids. Landlock is not asked.
///
/// # Errors
/// Why the path cannot be used in this way.
pub fn access(path: &std::path::Path, mode: libc::c_int) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe {
        libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS)
    }))
    .map(drop)
}

/// Is there a descriptor of this number (fcntl(2) `F_GETFD`)?
#[must_use]
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes integers and changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Is it a directory (fstat(2))? Works on `O_PATH` descriptors.
///
/// # Errors
/// The kernel's errno.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: stat is a plain C struct for which all zeroes is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live and of the type that fstat fills.
    check(libc::c_long::from(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) }))?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_pipe_gets_wider_and_never_narrower() {
        let (read, write) = pipe().unwrap();
        set_nonblocking(write.as_fd(), true).unwrap();
        widen_pipe(write.as_fd(), 128 * 1024).unwrap();
        widen_pipe(read.as_fd(), 4096).unwrap();
        let bytes = vec![0; 256 * 1024];
        assert_eq!(super::write(write.as_fd(), &bytes), Ok(128 * 1024));
    }
}
