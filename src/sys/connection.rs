//! Connections that are not made by connect(2) of a TCP socket, as the hostile server tries them: what guards only that call
//! does not see them.
//!
//! Neighbours: `hostile`. Never: used to build or guard a cell; waits longer than it is told to.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::socket::stream;
use super::{Result, check};

/// A call that connects while it sends, if it is given `MSG_FASTOPEN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// sendto(2).
    To,
    /// sendmsg(2).
    Message,
    /// sendmmsg(2).
    Messages,
}

/// socket(2) of this protocol, connect(2), and a word to whoever is there.
///
/// # Errors
/// The kernel's errno; `EINPROGRESS` when it took longer than `patience`.
pub fn connect(protocol: libc::c_int, address: SocketAddrV4, patience: Duration, word: &[u8]) -> Result<()> {
    let socket = stream(libc::AF_INET, protocol, patience)?;
    let address = internet(address);
    // SAFETY: connect reads as many bytes of the address as announced, which is what `address` has.
    check(libc::c_long::from(unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size(&address))
    }))?;
    // SAFETY: send reads as many bytes as announced, which is what `word` has.
    check(long(unsafe { libc::send(socket.as_raw_fd(), word.as_ptr().cast(), word.len(), 0) })).map(drop)
}

/// A word that is sent to an address without connect(2) (`MSG_FASTOPEN`).
///
/// # Errors
/// The kernel's errno; `EINPROGRESS` when it took longer than `patience`.
pub fn send_unconnected(call: Send, address: SocketAddrV4, patience: Duration, word: &[u8]) -> Result<()> {
    const FLAGS: libc::c_int = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
    let socket = stream(libc::AF_INET, libc::IPPROTO_TCP, patience)?;
    let mut address = internet(address);
    let length = size(&address);
    let mut part = libc::iovec { iov_base: word.as_ptr().cast_mut().cast(), iov_len: word.len() };
    // SAFETY: mmsghdr is a plain C struct for which all zeroes is a value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_name = (&raw mut address).cast();
    message.msg_hdr.msg_namelen = length;
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    let number = socket.as_raw_fd();
    let sent = match call {
        // SAFETY: sendto reads as many bytes of the word and of the address as announced, which is what they have.
        Send::To => long(unsafe {
            libc::sendto(number, word.as_ptr().cast(), word.len(), FLAGS, (&raw const address).cast(), length)
        }),
        // SAFETY: sendmsg reads a header, which `msg_hdr` is: its address and its one part are live and as long as they say.
        Send::Message => long(unsafe { libc::sendmsg(number, &raw const message.msg_hdr, FLAGS) }),
        // SAFETY: sendmmsg reads one header, as above, and writes how much was sent behind it.
        Send::Messages => unsafe { libc::sendmmsg(number, &raw mut message, 1, FLAGS) }.into(),
    };
    check(sent).map(drop)
}

/// `struct sockaddr_in`.
fn internet(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn size<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or_default()
}

/// `ssize_t` as the `long` it is on every 64-bit target.
fn long(value: libc::ssize_t) -> libc::c_long {
    libc::c_long::try_from(value).unwrap_or(-1)
}
