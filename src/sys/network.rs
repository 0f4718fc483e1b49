//! Network interfaces of the current namespace (netdevice(7)).
//!
//! Neighbours: `launch::init`. Never: touches anything but interface flags.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Result, check, check_fd};

#[repr(C)]
struct Ifreq {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

const fn request(name: &[u8]) -> Ifreq {
    let mut padded = [0; libc::IFNAMSIZ];
    let mut index = 0;
    while index < name.len() && index < libc::IFNAMSIZ - 1 {
        #[expect(
            clippy::indexing_slicing,
            reason = "both bounds are checked in the condition; const fn has no iterators"
        )]
        {
            padded[index] = name[index];
        }
        index += 1;
    }
    Ifreq { name: padded, flags: 0, padding: [0; 22] }
}

/// A socket to ask through. `AF_INET` so that it exists in every network namespace.
///
/// # Errors
/// The kernel's errno.
fn control() -> Result<OwnedFd> {
    // SAFETY: socket takes integers.
    let fd = check_fd(libc::c_long::from(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    }))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Brings `lo` up.
///
/// # Errors
/// The kernel's errno.
pub fn loopback_up() -> Result<()> {
    let socket = control()?;
    let mut ifreq = request(b"lo");
    // IFF_UP and IFF_RUNNING are 0x1 and 0x40.
    ifreq.flags = 0x41;
    // SAFETY: SIOCSIFFLAGS reads an ifreq of 40 bytes; `ifreq` is one and lives through the call.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const ifreq)
    }))
    .map(drop)
}

/// Is the interface of this name up?
///
/// # Errors
/// The kernel's errno; `ENODEV` when there is none.
pub fn is_up(name: &str) -> Result<bool> {
    let socket = control()?;
    let mut ifreq = request(name.as_bytes());
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of an ifreq of 40 bytes, which `ifreq` is.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut ifreq)
    }))?;
    Ok(ifreq.flags & 0x1 != 0)
}
