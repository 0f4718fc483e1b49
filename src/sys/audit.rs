//! The socket of the audit subsystem (audit(8), netlink(7)): whether auditing is on, and the records as they are logged.
//!
//! Neighbours: `host::denials` opens it, `watch::denials` reads from it. Never: changes a setting; reads what a record says.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use super::descriptor::{self, Interest};
use super::{Errno, Result, check, check_fd};

/// `AUDIT_LANDLOCK_ACCESS`: something was denied.
pub const LANDLOCK_ACCESS: u16 = 1423;
/// `AUDIT_LANDLOCK_DOMAIN`: a domain shows for the first time, or has ended.
pub const LANDLOCK_DOMAIN: u16 = 1424;

const AUDIT_GET: u16 = 1000;
/// `AUDIT_NLGRP_READLOG`, the first group, as a mask.
const READLOG: u32 = 1;
/// Bytes of `struct nlmsghdr`.
const HEAD: usize = size_of::<libc::nlmsghdr>();
/// Records that may wait in the kernel take so many bytes.
const ROOM: libc::c_int = 8 << 20;

/// `struct audit_status`, of which these are the first members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Records are made.
    pub enabled: bool,
    /// The kernel panics when a record is lost (`AUDIT_FAIL_PANIC`).
    pub panics: bool,
}

/// One that does not wait, and is closed on exec.
fn socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes numbers only.
    let number =
        check_fd(libc::c_long::from(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_AUDIT) }))?;
    // SAFETY: a successful socket gave a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What auditing is set to. The answer comes from a thread of the kernel's, and is not waited for longer than `patience`.
///
/// # Errors
/// `EPROTONOSUPPORT` without audit; `ECONNREFUSED` in a user namespace; `EPERM` without `CAP_AUDIT_CONTROL`, or in a pid
/// namespace; `ETIMEDOUT`.
pub fn status(patience: Duration) -> Result<Status> {
    let socket = socket()?;
    let mut question = [0; HEAD];
    let length = u32::try_from(HEAD).unwrap_or_default();
    let flags = u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default();
    for (place, byte) in question
        .iter_mut()
        .zip([&length.to_ne_bytes()[..], &AUDIT_GET.to_ne_bytes(), &flags.to_ne_bytes()].concat())
    {
        *place = byte;
    }
    // SAFETY: send reads the bytes of `question`, which lives. Without an address it goes to the kernel.
    let sent = unsafe { libc::send(socket.as_raw_fd(), question.as_ptr().cast(), question.len(), 0) };
    check(i64::try_from(sent).unwrap_or(-1))?;
    let until = Instant::now() + patience;
    let mut buffer = [0; 1024];
    loop {
        let mut interest = [Interest { fd: Some(socket.as_fd()), events: libc::POLLIN, ready: 0 }];
        if !descriptor::poll(&mut interest, Some(until.saturating_duration_since(Instant::now())))? {
            return Err(Errno(libc::ETIMEDOUT));
        }
        let Some((kind, body)) = receive(socket.as_fd(), &mut buffer)? else { continue };
        let word = |at: usize| {
            let bytes = body.get(at * 4..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        if kind == AUDIT_GET {
            // After the mask: enabled, and what happens at a failure, of which 2 is a panic.
            let (enabled, failure) =
                (word(1).ok_or(Errno(libc::EPROTO))?, word(2).ok_or(Errno(libc::EPROTO))?);
            return Ok(Status { enabled: enabled != 0, panics: failure == 2 });
        }
        if i32::from(kind) == libc::NLMSG_ERROR {
            let errno = word(0).map_or(libc::EPROTO, |negative| negative.cast_signed().saturating_neg());
            return Err(Errno(errno));
        }
    }
}

fn option<T>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: the kernel reads `length` bytes of `value`, which lives and is of the option's type.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, ptr::from_ref(value).cast(), length)
    }))
    .map(drop)
}

/// Records of the two kinds from here on, as long as it is open. Only who reads them in the initial network namespace gets any.
///
/// # Errors
/// `EPERM` without `CAP_AUDIT_READ` in the initial user namespace.
pub fn follow() -> Result<OwnedFd> {
    let socket = socket()?;
    // Loads the kind, which is not in the network's order; takes the two, and nothing else.
    let kinds = [LANDLOCK_ACCESS, LANDLOCK_DOMAIN].map(|kind| u32::from(kind.to_be()));
    let [access, domain] = kinds;
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let (load, equal) =
        (code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS), code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K));
    let give = code(libc::BPF_RET | libc::BPF_K);
    let mut program = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: 4 },
        libc::sock_filter { code: equal, jt: 1, jf: 0, k: access },
        libc::sock_filter { code: equal, jt: 0, jf: 1, k: domain },
        libc::sock_filter { code: give, jt: 0, jf: 0, k: u32::MAX },
        libc::sock_filter { code: give, jt: 0, jf: 0, k: 0 },
    ];
    let length = libc::c_ushort::try_from(program.len()).unwrap_or_default();
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    option(socket.as_fd(), libc::SO_ATTACH_FILTER, &program)?;
    // With less room more is lost, and that is noticed.
    let _as_it_is = option(socket.as_fd(), libc::SO_RCVBUFFORCE, &ROOM).is_err();
    // SAFETY: sockaddr_nl is a plain C struct for which all zeroes is a value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    address.nl_groups = READLOG;
    let length =
        libc::socklen_t::try_from(size_of_val(&address)).map_err(|_overflow| Errno(libc::EOVERFLOW))?;
    // SAFETY: bind reads an address of this size, which lives.
    check(libc::c_long::from(unsafe {
        libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), length)
    }))?;
    Ok(socket)
}

/// The next message of the kernel's: its kind, and what follows the header. `None` when none waits.
///
/// # Errors
/// `ENOBUFS` when some were lost since the last one; the kernel's errno.
pub fn receive<'b>(socket: BorrowedFd<'_>, buffer: &'b mut [u8]) -> Result<Option<(u16, &'b [u8])>> {
    loop {
        let mut address: MaybeUninit<libc::sockaddr_nl> = MaybeUninit::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or_default();
        // SAFETY: the kernel writes at most the buffer's length to it, and an address of at most `length` bytes.
        let count = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                address.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            match Errno::last() {
                Errno(libc::EAGAIN) => return Ok(None),
                Errno(libc::EINTR) => continue,
                errno => return Err(errno),
            }
        };
        // SAFETY: all zeroes were a value, and what the kernel wrote over them is one.
        let from_kernel = unsafe { address.assume_init() }.nl_pid == 0;
        // The length in a record's header is not to be relied on (kernel/audit.c); a message is one record.
        let kind =
            buffer.get(4..6).and_then(|bytes| bytes.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
        match kind {
            Some(kind) if from_kernel && count >= HEAD => {
                return Ok(Some((kind, buffer.get(HEAD..count).unwrap_or_default())));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity;

    #[test]
    fn the_state_of_auditing_is_told_to_root_alone() {
        let status = status(Duration::from_secs(5));
        let refused = [libc::EPERM, libc::ECONNREFUSED, libc::EPROTONOSUPPORT];
        match identity::effective() {
            (0, _) => assert!(status.is_ok() || status.is_err_and(|errno| refused.contains(&errno.0))),
            _ => assert!(refused.contains(&status.unwrap_err().0)),
        }
    }

    /// Whatever else is logged meanwhile does not come.
    #[test]
    fn who_may_read_hears_nothing_that_is_not_of_landlock() {
        if let Ok(socket) = follow() {
            let _asked = status(Duration::from_secs(5));
            let mut buffer = [0; 16 * 1024];
            while let Some((kind, _)) = receive(socket.as_fd(), &mut buffer).unwrap() {
                assert!([LANDLOCK_ACCESS, LANDLOCK_DOMAIN].contains(&kind), "{kind}");
            }
        }
    }
}
