//! seccomp(2): installing a filter.
//!
//! Neighbours: `plan::seccomp` compiles the program, `launch::init` and `launch::own` install it. Never: changes it.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Errno, Result, check};

/// One instruction of classic BPF (`struct sock_filter`).
pub type Instruction = libc::sock_filter;

/// Lays a plan's tuples out as the kernel's structs.
#[must_use]
pub fn assemble(program: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
    program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect()
}

/// Filters that this process has put on itself, or that it has from one that it was cloned from.
static OWN: AtomicU32 = AtomicU32::new(0);

/// How many of this process's filters come from this program, and not from whoever started it.
#[must_use]
pub fn own() -> u32 {
    OWN.load(Ordering::Relaxed)
}

/// `SECCOMP_SET_MODE_FILTER`; needs `no_new_privs`.
///
/// # Errors
/// The kernel's errno; `EINVAL` for a program that it does not accept.
pub fn install(program: &[Instruction]) -> Result<()> {
    set(program, 0).map(drop)
}

/// adjtimex(2) of nothing: `EFAULT` from the kernel, another error from a filter.
///
/// # Errors
/// Always.
pub fn adjust_no_clock() -> Result<()> {
    // SAFETY: adjtimex first reads a struct where its argument points, and a null pointer is an error.
    check(unsafe { libc::syscall(libc::SYS_adjtimex, std::ptr::null_mut::<libc::timex>()) }).map(drop)
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: installs a program that tells, close-on-exec listener included. Once a call was
/// taken, only a signal that kills interrupts it, where the kernel knows how (5.19).
///
/// # Errors
/// The kernel's errno, and then nothing is installed; `EBUSY` when another listener stands above this process.
pub fn install_observing(program: &[Instruction]) -> Result<OwnedFd> {
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let answer = match set(program, flags | WAIT_KILLABLE_RECV) {
        Err(Errno(libc::EINVAL)) => set(program, flags),
        answer => answer,
    };
    let number = i32::try_from(answer?).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: with this flag the call returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn set(program: &[Instruction], flags: libc::c_ulong) -> Result<libc::c_long> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_overflow| Errno(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter` and writes nothing; both outlive the call.
    let answer = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    OWN.fetch_add(1, Ordering::Relaxed);
    Ok(answer)
}
