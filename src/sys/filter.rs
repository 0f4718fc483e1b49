//! seccomp(2): installing a filter.
//!
//! Neighbours: `plan::seccomp` compiles the program, `launch::init` installs it. Never: changes it.

use super::{Errno, Result, check};

/// One instruction of classic BPF (`struct sock_filter`).
pub type Instruction = libc::sock_filter;

/// Lays a plan's tuples out as the kernel's structs.
#[must_use]
pub fn assemble(program: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
    program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect()
}

/// `SECCOMP_SET_MODE_FILTER`; needs `no_new_privs`.
///
/// # Errors
/// The kernel's errno; `EINVAL` for a program that it does not accept.
pub fn install(program: &[Instruction]) -> Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_overflow| Errno(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter` and writes nothing; both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}
