//! Signals as something to wait for (sigaction(2)): a handler writes to a pipe. It is gone after exec(2), so that no child
//! inherits anything of it.
//!
//! Never: is called twice.

use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::{Errno, Result, check, descriptor};

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn tell(_signal: libc::c_int) {
    // SAFETY: __errno_location gives this thread's errno, in a handler too.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid as long as the thread is.
    let before = unsafe { *errno };
    let byte = 1_u8;
    // SAFETY: write may be called in a handler; `byte` is one live byte. A pipe that is full has told already.
    let _told = unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    // SAFETY: as above. Whatever was interrupted sees its own error.
    unsafe { *errno = before };
}

/// A descriptor that can be read once one of these signals has come. They no longer end the process.
///
/// # Errors
/// The kernel's errno.
pub fn heard(signals: &[libc::c_int]) -> Result<OwnedFd> {
    let (read, write) = descriptor::pipe()?;
    descriptor::set_nonblocking(std::os::fd::AsFd::as_fd(&write), true)?;
    if PIPE.compare_exchange(-1, write.into_raw_fd(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return Err(Errno(libc::EBUSY));
    }
    // SAFETY: sigaction is a plain C struct for which all zeroes is a value: an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = tell as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    for signal in signals {
        // SAFETY: `action` is live; the handler does what handlers may; no old action is asked for.
        let set = unsafe { libc::sigaction(*signal, &raw const action, ptr::null_mut()) };
        check(libc::c_long::from(set))?;
    }
    Ok(read)
}
