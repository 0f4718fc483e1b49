//! Capabilities: capset, bounding and ambient sets, securebits (capabilities(7)).
//!
//! Neighbours: `launch::init`. Never: keeps a capability.

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
