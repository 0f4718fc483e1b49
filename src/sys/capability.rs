//! Capabilities: capset, bounding and ambient sets, securebits (capabilities(7)).
//!
//! Neighbours: `launch::init`, `launch::own`. Never: adds a capability.

use super::{Errno, Result, check, process};

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Every securebit that takes a privilege away, and every lock; `KEEP_CAPS` stays off and is locked off.
const SECUREBITS: libc::c_ulong = 0xEF;

/// Empties the three sets of a process, and with them the ambient one. Needs no capability.
///
/// # Errors
/// The kernel's errno.
pub fn drop_held() -> Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and two data elements; both are live and laid out as the kernel wants.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Capabilities by their numbers (linux/capability.h).
pub mod cap {
    #![expect(missing_docs, reason = "the names are the kernel's and documented in capabilities(7)")]
    pub const CHOWN: u64 = 1;
    pub const DAC_OVERRIDE: u64 = 1 << 1;
    pub const DAC_READ_SEARCH: u64 = 1 << 2;
    pub const FOWNER: u64 = 1 << 3;
    pub const FSETID: u64 = 1 << 4;
    pub const KILL: u64 = 1 << 5;
    pub const SETGID: u64 = 1 << 6;
    pub const SETUID: u64 = 1 << 7;
    pub const SETPCAP: u64 = 1 << 8;
    pub const NET_BIND_SERVICE: u64 = 1 << 10;
    pub const NET_ADMIN: u64 = 1 << 12;
    pub const SYS_CHROOT: u64 = 1 << 18;
    pub const SYS_PTRACE: u64 = 1 << 19;
    pub const SYS_ADMIN: u64 = 1 << 21;
    pub const SYS_RESOURCE: u64 = 1 << 24;
    pub const SETFCAP: u64 = 1 << 31;
}

/// Gives up every capability but those of a set; what the process does not have stays so.
///
/// # Errors
/// The kernel's errno.
pub fn keep(set: u64) -> Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data elements; both are live and laid out as the kernel wants.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    for (word, shift) in data.iter_mut().zip([0, 32]) {
        let mask = u32::try_from(set >> shift & u64::from(u32::MAX)).unwrap_or_default();
        word.permitted &= mask;
        word.effective &= mask;
        word.inheritable &= mask;
    }
    // SAFETY: as above, and the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Locks securebits, empties the bounding and ambient sets, then the other three.
///
/// # Errors
/// The kernel's errno.
pub fn drop_all() -> Result<()> {
    process::prctl(libc::PR_SET_SECUREBITS, SECUREBITS)?;
    for capability in 0..64 {
        match process::prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            // The first number that the kernel does not know is past its last capability.
            Err(Errno(libc::EINVAL)) => break,
            Err(errno) => return Err(errno),
        }
    }
    drop_held()
}
