//! `SOCK_SEQPACKET` pairs with descriptors in control messages (unix(7)).
//!
//! Neighbours: `launch`. Never: reads what a message says.

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::time::Duration;

use super::{Errno, Result, check, check_fd};

/// The most descriptors that one message of ours carries.
pub const MAX_DESCRIPTORS: usize = 4;

/// A connected pair, close-on-exec.
///
/// # Errors
/// The kernel's errno.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    pair_of(libc::SOCK_SEQPACKET)
}

/// The same with bytes without borders between them.
///
/// # Errors
/// The kernel's errno.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair_of(libc::SOCK_STREAM)
}

fn pair_of(kind: libc::c_int) -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: socketpair writes two descriptors into a live array of two.
    check(libc::c_long::from(unsafe {
        libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    }))?;
    let [one, other] = ends;
    // SAFETY: a successful socketpair gave a new descriptor that nobody else owns.
    let one = unsafe { OwnedFd::from_raw_fd(one) };
    // SAFETY: as above.
    let other = unsafe { OwnedFd::from_raw_fd(other) };
    Ok((one, other))
}

/// Who sends descriptors to this end is refused that (`SO_PASSRIGHTS`, 6.16). An older kernel lets them come.
///
/// # Errors
/// The kernel's errno.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    match set(socket, SO_PASSRIGHTS, &0_i32) {
        Err(Errno(libc::ENOPROTOOPT)) => Ok(()),
        done => done,
    }
}

/// Has the kernel ask the other side of a TCP connection, each so many seconds, whether it is there (tcp(7)).
///
/// # Errors
/// The kernel's errno.
pub fn keep_alive(socket: BorrowedFd<'_>, seconds: libc::c_int) -> Result<()> {
    set(socket, libc::SO_KEEPALIVE, &1_i32)?;
    set_at(socket, (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), &seconds)?;
    set_at(socket, (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), &seconds)
}

/// setsockopt(2) of `SOL_SOCKET`, for a `T` as the option takes it.
fn set<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> Result<()> {
    set_at(socket, (libc::SOL_SOCKET, option), value)
}

/// The same of any level.
pub(crate) fn set_at<T: Copy>(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: &T,
) -> Result<()> {
    // SAFETY: setsockopt reads as many bytes as it is told of, and `value` lives and has them.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(value).cast(), size(value))
    }))
    .map(drop)
}

fn size<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

/// A stream socket, close-on-exec, whose calls wait no longer than `patience` (`SO_SNDTIMEO`, socket(7)).
pub(super) fn stream(family: libc::c_int, protocol: libc::c_int, patience: Duration) -> Result<OwnedFd> {
    // SAFETY: socket takes integers only.
    let number = check_fd(libc::c_long::from(unsafe {
        libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol)
    }))?;
    // SAFETY: a successful socket gave a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let time = libc::timeval { tv_sec: seconds, tv_usec: patience.subsec_micros().into() };
    set(socket.as_fd(), libc::SO_SNDTIMEO, &time)?;
    Ok(socket)
}

/// A stream to the socket of this path, close-on-exec. A write, and connecting to one whose queue is full, waits no longer than
/// `patience` (`SO_SNDTIMEO`, socket(7)).
///
/// # Errors
/// The kernel's errno; `ETIMEDOUT` when the queue stayed full.
pub fn connect(path: &CStr, patience: Duration) -> Result<OwnedFd> {
    // SAFETY: sockaddr_un is a plain C struct for which all zeroes is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(0);
    let bytes = path.to_bytes_with_nul();
    let place = address.sun_path.get_mut(..bytes.len()).ok_or(Errno(libc::ENAMETOOLONG))?;
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    let socket = stream(libc::AF_UNIX, 0, patience)?;
    // SAFETY: connect reads an address of this size, which lives; its path ends in a NUL.
    let connected = check(libc::c_long::from(unsafe {
        libc::connect(socket.as_raw_fd(), ptr::from_ref(&address).cast(), size(&address))
    }));
    match connected {
        Ok(_zero) => Ok(socket),
        Err(Errno(libc::EAGAIN)) => Err(Errno(libc::ETIMEDOUT)),
        Err(errno) => Err(errno),
    }
}

/// A datagram socket with no path and a name of the kernel's choice (`unix(7)`, "autobind"). Nobody waits to connect to one, whoever
/// else does.
///
/// # Errors
/// The kernel's errno.
pub fn bind_abstract() -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound().map_err(|error| Errno::from_io(&error))?;
    let family = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: bind reads an address of this size, which is a family alone and lives.
    check(libc::c_long::from(unsafe {
        libc::bind(socket.as_raw_fd(), ptr::from_ref(&family).cast(), size(&family))
    }))?;
    Ok(socket)
}

/// Connects to it, and lets go.
///
/// # Errors
/// The kernel's errno.
pub fn connect_to(bound: &UnixDatagram) -> Result<()> {
    let connected = bound.local_addr().and_then(|address| UnixDatagram::unbound()?.connect_addr(&address));
    connected.map_err(|error| Errno::from_io(&error))
}

/// Control message space: a header and the descriptors, aligned as cmsghdr.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// sendmsg(2): one message, with descriptors.
///
/// # Errors
/// The kernel's errno; `EPIPE` when the other side is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(Errno(libc::EINVAL));
    }
    let slice = IoSlice::new(bytes);
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = Control([0; 64]);
    // SAFETY: msghdr is a plain C struct for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ptr::from_ref(&slice).cast_mut().cast();
    message.msg_iovlen = 1;
    if !numbers.is_empty() {
        let length = u32::try_from(size_of_val(numbers.as_slice())).unwrap_or(0);
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as usize;
        // SAFETY: msg_control and msg_controllen describe `control`, which has room for one header.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: CMSG_LEN only computes.
        let cmsg_len = unsafe { libc::CMSG_LEN(length) } as usize;
        // SAFETY: `header` points into `control`, which is aligned for it and large enough.
        unsafe {
            *header = libc::cmsghdr { cmsg_len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS }
        };
        // SAFETY: `header` is a header inside `control`.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: MAX_DESCRIPTORS numbers and the header fit in the 64 bytes of `control`.
        unsafe { ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), data, length as usize) };
    }
    loop {
        // SAFETY: every pointer in `message` is to something live: the slice, the control space.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let errno = Errno::last();
        if errno.0 != libc::EINTR {
            return Err(errno);
        }
    }
}

/// shutdown(2), both ways: the other side reads the end, and so does who reads here.
///
/// # Errors
/// The kernel's errno.
pub fn shutdown(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: shutdown takes two integers and touches no memory of ours.
    check(libc::c_long::from(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) })).map(drop)
}

/// shutdown(2), one way: the other side reads the end, and can still be heard.
///
/// # Errors
/// The kernel's errno.
pub fn say_no_more(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: shutdown takes two integers and touches no memory of ours.
    check(libc::c_long::from(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) })).map(drop)
}

/// A message's length and its descriptors.
pub type Message = (usize, Vec<OwnedFd>);

/// recvmsg(2), without waiting: one message of at most `buffer` bytes, with its descriptors. `None` when the other side
/// is gone.
///
/// # Errors
/// The kernel's errno; `EAGAIN` when there is none; `EMSGSIZE` for a message that was longer than the buffer or had more descriptors than there was
/// room for.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Message>> {
    match receive_flagged(socket, buffer, libc::MSG_DONTWAIT)? {
        Some((_, flags)) if flags & libc::MSG_CTRUNC != 0 => Err(Errno(libc::EMSGSIZE)),
        received => Ok(received.map(|(message, _)| message)),
    }
}

/// The same, but it waits, and descriptors that this process has no room for are missing: who needs them counts.
///
/// # Errors
/// The kernel's errno; `EMSGSIZE` for a message that was longer than the buffer.
pub fn receive_what_fits(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Message>> {
    Ok(receive_flagged(socket, buffer, 0)?.map(|(message, _)| message))
}

/// One message and the flags that the kernel gave it.
fn receive_flagged(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> Result<Option<(Message, libc::c_int)>> {
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control: MaybeUninit<Control> = MaybeUninit::zeroed();
    // SAFETY: msghdr is a plain C struct for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    let count = loop {
        // SAFETY: every pointer in `message` is to something live and of the length stated.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        if let Ok(count) = usize::try_from(count) {
            break count;
        }
        let errno = Errno::last();
        if errno.0 != libc::EINTR {
            return Err(errno);
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: recvmsg set msg_controllen to what it filled of `control`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR gave lies whole in `control`.
        let cmsg = unsafe { *header };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let bytes = cmsg.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            // SAFETY: `header` lies in `control`.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel put `bytes` bytes of descriptors there, and `index` stays below their count.
                let slot = unsafe { data.add(index) };
                // SAFETY: `slot` holds a descriptor number, maybe unaligned.
                let number = unsafe { slot.read_unaligned() };
                // SAFETY: the descriptor came with this message and nobody else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `message` and `header` belong together.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno(libc::EMSGSIZE));
    }
    if count == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    Ok(Some(((count, descriptors), message.msg_flags)))
}

/// listen(2): another length for a queue.
///
/// # Errors
/// The kernel's errno.
#[cfg(test)]
pub fn listen(socket: BorrowedFd<'_>, queue: libc::c_int) -> Result<()> {
    // SAFETY: listen takes numbers only.
    check(libc::c_long::from(unsafe { libc::listen(socket.as_raw_fd(), queue) })).map(drop)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// As a stranger's may be, who found its name.
    #[test]
    fn nobody_waits_to_connect_where_nothing_more_can_be_sent() {
        let bound = bind_abstract().unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        other.connect_addr(&bound.local_addr().unwrap()).unwrap();
        while other.send(b"x").is_ok() {}
        assert_eq!(connect_to(&bound), Ok(()));
    }

    #[test]
    fn a_queue_that_stays_full_is_waited_for_so_long_and_no_longer() {
        let path = std::env::temp_dir().join(format!("toolcell-queue-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        listen(listener.as_fd(), 0).unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let wait = Duration::from_millis(10);
        let _first = connect(&name, wait).unwrap();
        assert_eq!(connect(&name, wait).unwrap_err(), Errno(libc::ETIMEDOUT));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(connect(&name, wait).unwrap_err(), Errno(libc::ENOENT));
        let long = CString::new("x".repeat(200)).unwrap();
        assert_eq!(connect(&long, wait).unwrap_err(), Errno(libc::ENAMETOOLONG));
    }
}
