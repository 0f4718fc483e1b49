//! Waiting for a descriptor in the runtime.
//!
//! Neighbours: `launch::supervisor`. Never: registers a descriptor that it does not own.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Errno, Result};

/// A descriptor whose readability can be awaited.
///
/// # Errors
/// The kernel's errno; `EPERM` for a descriptor that is always ready.
pub fn readable(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, keeps its number and its file description until it is dropped, and the
    // `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(|error| Errno::from_io(&std::io::Error::from(error)))
}

/// The same, and whether it can be written to.
///
/// # Errors
/// The kernel's errno; `EPERM` for a descriptor that is always ready.
pub fn ready(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE) };
    registered.map_err(|error| Errno::from_io(&std::io::Error::from(error)))
}
