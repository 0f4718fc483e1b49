//! One system call made to see what becomes of it, in a child that ends with it.
//!
//! Neighbours: `commands::profile::prove` runs it in a cell. Never: is called outside of one.

use super::process::{self, Exit};
use super::{Errno, Result};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It ran: it returned, did not return, or ended its process itself.
    Ran,
    /// It returned this error.
    Failed(Errno),
    /// Its process was killed for it (`SIGSYS`).
    Killed,
}

/// Seconds after which a call that has not returned is taken for one that waits.
const PATIENCE: u32 = 1;
/// No errno is larger.
const LARGEST_ERRNO: i32 = 133;

/// Makes the call of this number with no argument that means anything: every bit of each is set, so that pointers and descriptors
/// are none.
///
/// # Errors
/// That of fork(2) or wait4(2).
pub fn call(number: u32) -> Result<Trial> {
    let Some(pid) = process::fork()? else {
        let number = libc::c_long::from(number.cast_signed());
        // SAFETY: alarm takes an integer; what it sends ends this process, which is here for one call.
        unsafe { libc::alarm(PATIENCE) };
        // SAFETY: no argument is an address that exists, so the kernel neither reads nor writes memory of this process; what else
        // the call does to the process, the process does not survive.
        let returned = unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) };
        process::exit_now(if returned == -1 { Errno::last().0 } else { 0 })
    };
    Ok(match process::wait(pid)?.exit {
        Exit::Signal(libc::SIGSYS) => Trial::Killed,
        Exit::Code(errno) if (1..=LARGEST_ERRNO).contains(&errno) => Trial::Failed(Errno(errno)),
        Exit::Signal(_) | Exit::Code(_) => Trial::Ran,
    })
}
