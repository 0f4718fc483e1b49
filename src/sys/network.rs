//! Network interfaces of the current namespace (netdevice(7)), and sockets that only ask whether they may be used.
//!
//! Neighbours: `launch::init`. Never: changes anything but interface flags, sends anything.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check, check_fd};

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
    internet(libc::AF_INET, libc::SOCK_DGRAM)
}

/// A TCP socket of the current network namespace, not connected, that waits for nothing.
///
/// # Errors
/// The kernel's errno.
pub fn unconnected(six: bool) -> Result<OwnedFd> {
    internet(if six { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)
}

fn internet(family: libc::c_int, kind: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: socket takes integers.
    let fd = check_fd(libc::c_long::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) }))?;
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

/// Ends what is left of a socket's connection, so that it can be connected again (connect(2), `AF_UNSPEC`): the other side is told by
/// a reset, if it was not told before.
///
/// # Errors
/// The kernel's errno.
pub fn disconnect(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: sockaddr is a plain C struct for which all zeroes is a value: `AF_UNSPEC`.
    let nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length =
        libc::socklen_t::try_from(size_of_val(&nobody)).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: connect reads `length` bytes of an address, which `nobody` has and which lives through the call.
    check(libc::c_long::from(unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, length) }))?;
    // What became of the connection must not be taken for what becomes of the next.
    option(socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut [0; size_of::<libc::c_int>()])
}

/// Has a TCP socket said and heard all, and the other side not taken all of it yet?
///
/// # Errors
/// The kernel's errno.
pub fn is_leaving(socket: BorrowedFd<'_>) -> Result<bool> {
    let mut state = [0; 1];
    option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state)?;
    // The first byte of `struct tcp_info`: `TCP_LAST_ACK` and `TCP_CLOSING` of linux/tcp.h.
    Ok(matches!(state, [9 | 11]))
}

/// getsockopt(2): as much of an option as there is room for.
fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: getsockopt writes at most `length` bytes to `value`, which has them.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    }))
    .map(drop)
}

type Call = unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int;

/// Over IP.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the protocols' own names")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What one socket is answered to connect(2) to this port of the own loopback, where nothing listens and which sends nothing
/// over UDP, and then to bind(2) to another port there. Where there is no socket, both have its errno.
pub fn connect_and_bind(protocol: Protocol, to: u16, at: u16) -> [Result<()>; 2] {
    let kind = match protocol {
        Protocol::Tcp => libc::SOCK_STREAM,
        Protocol::Udp => libc::SOCK_DGRAM,
    };
    match internet(libc::AF_INET, kind) {
        Ok(socket) => [on_loopback(&socket, libc::connect, to), on_loopback(&socket, libc::bind, at)],
        Err(errno) => [Err(errno), Err(errno)],
    }
}

fn on_loopback(socket: &OwnedFd, call: Call, port: u16) -> Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).map_err(|_overflow| Errno(libc::EOVERFLOW))?,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let length =
        libc::socklen_t::try_from(size_of_val(&address)).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: bind and connect read `length` bytes of an address, which `address` has and which lives through the call.
    check(libc::c_long::from(unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), length) }))
        .map(drop)
}
