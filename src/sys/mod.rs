//! The kernel boundary: the only module with `unsafe`, one system call family a file, names as in the kernel.
//!
//! Neighbours: `launch`, `watch`, `host` call it. Never: holds policy, decides, retries, logs.

pub mod attack;
pub mod attribute;
pub mod audit;
pub mod capability;
pub mod connection;
pub mod descriptor;
pub mod environment;
pub mod filter;
pub mod heap;
pub mod identity;
mod image;
pub mod kernel_file;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod notify;
pub mod observe;
pub mod own_text;
pub mod process;
pub mod readiness;
pub mod scheduler;
pub mod signals;
pub mod socket;
pub mod start;
pub mod surface;
pub mod tree;
pub mod trial;
pub mod watcher;
pub mod wiped;

use std::fmt;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

/// An error number of the kernel (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

/// The numbers that messages and hints name, with the kernel's words for them.
const NAMES: &[(i32, &str, &str)] = &[
    (libc::EPERM, "EPERM", "operation not permitted"),
    (libc::ENOENT, "ENOENT", "no such file or directory"),
    (libc::ESRCH, "ESRCH", "no such process"),
    (libc::EINTR, "EINTR", "interrupted"),
    (libc::EIO, "EIO", "input/output error"),
    (libc::ENXIO, "ENXIO", "no such device or address"),
    (libc::E2BIG, "E2BIG", "argument list too long"),
    (libc::ENOEXEC, "ENOEXEC", "not an executable format"),
    (libc::EBADF, "EBADF", "bad descriptor"),
    (libc::ECHILD, "ECHILD", "no child process"),
    (libc::EAGAIN, "EAGAIN", "try again"),
    (libc::ENOMEM, "ENOMEM", "out of memory"),
    (libc::EACCES, "EACCES", "permission denied"),
    (libc::EFAULT, "EFAULT", "bad address"),
    (libc::EBUSY, "EBUSY", "busy"),
    (libc::EEXIST, "EEXIST", "exists already"),
    (libc::EXDEV, "EXDEV", "across file systems"),
    (libc::ENODEV, "ENODEV", "no such device"),
    (libc::ENOTDIR, "ENOTDIR", "not a directory"),
    (libc::EISDIR, "EISDIR", "is a directory"),
    (libc::EINVAL, "EINVAL", "invalid argument"),
    (libc::ENFILE, "ENFILE", "too many open files on this host"),
    (libc::EMFILE, "EMFILE", "too many open files"),
    (libc::ETXTBSY, "ETXTBSY", "file is being written to or executed"),
    (libc::EFBIG, "EFBIG", "file too large"),
    (libc::ENOSPC, "ENOSPC", "no space left"),
    (libc::EROFS, "EROFS", "read-only file system"),
    (libc::EPIPE, "EPIPE", "broken pipe"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG", "name too long"),
    (libc::ENOSYS, "ENOSYS", "not implemented by this kernel"),
    (libc::ELOOP, "ELOOP", "symbolic link where none may be"),
    (libc::EOVERFLOW, "EOVERFLOW", "value too large"),
    (libc::EUSERS, "EUSERS", "too many users or namespaces"),
    (libc::EMSGSIZE, "EMSGSIZE", "message too long"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT", "option not supported"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT", "protocol not supported"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP", "not supported"),
    (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT", "socket type not supported"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT", "address family not supported"),
    (libc::EADDRINUSE, "EADDRINUSE", "address in use"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL", "no such address here"),
    (libc::ENETUNREACH, "ENETUNREACH", "network unreachable"),
    (libc::ECONNREFUSED, "ECONNREFUSED", "connection refused"),
    (libc::ECONNRESET, "ECONNRESET", "connection reset"),
    (libc::ETOOMANYREFS, "ETOOMANYREFS", "too many descriptors under way"),
    (libc::ETIMEDOUT, "ETIMEDOUT", "timed out"),
    (libc::ESTALE, "ESTALE", "not what it was"),
    (libc::EDQUOT, "EDQUOT", "quota exceeded"),
    (libc::EPROTO, "EPROTO", "protocol error"),
    (libc::EINPROGRESS, "EINPROGRESS", "in progress"),
];

impl Errno {
    /// The calling thread's errno.
    #[must_use]
    pub fn last() -> Self {
        Self::from_io(&std::io::Error::last_os_error())
    }

    /// The number inside an I/O error, or `EIO` for one that the kernel did not give.
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The symbolic name, e.g. `EPERM`; the number for the few that have none here.
    #[must_use]
    pub fn name(self) -> String {
        NAMES
            .iter()
            .find(|(number, _, _)| *number == self.0)
            .map_or_else(|| format!("errno {}", self.0), |(_, name, _)| (*name).to_owned())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _, _)| *number == self.0) {
            Some((_, name, words)) => write!(f, "{words} ({name})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self::from_io(&error)
    }
}

impl From<Errno> for std::io::Error {
    fn from(Errno(errno): Errno) -> Self {
        Self::from_raw_os_error(errno)
    }
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// −1 becomes the errno, everything else the value.
fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value == -1 { Err(Errno::last()) } else { Ok(value) }
}

/// A system call's result as a descriptor number.
fn check_fd(value: libc::c_long) -> Result<RawFd> {
    RawFd::try_from(check(value)?).map_err(|_overflow| Errno(libc::EOVERFLOW))
}
