//! seccomp(2) user notification: which call waits, whether it still waits, the answer; and memory of who made it.
//!
//! Neighbours: `sys::filter` gives the listener, `watch::refusals` answers. Never: decides.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::descriptor::{self, Interest};
use super::{Errno, Result, check};

/// `struct seccomp_notif` with its `struct seccomp_data`: a call that waits for an answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Notification {
    /// The kernel's name for this one call.
    pub id: u64,
    /// The thread that made it.
    pub pid: u32,
    flags: u32,
    /// The system call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
    instruction_pointer: u64,
    /// The registers.
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddedDescriptor {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

// linux/seccomp.h: `_IOWR('!', 0, struct seccomp_notif)` and its neighbours.
const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const SECCOMP_IOCTL_NOTIF_ID_VALID: libc::Ioctl = 0x4008_2102;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (6.6): who made a call and who answers it take turns on one processor, so that neither
/// waits for another to wake up. A kernel that does not know it goes on as before.
pub fn take_turns(listener: BorrowedFd<'_>) {
    const SECCOMP_IOCTL_NOTIF_SET_FLAGS: libc::Ioctl = 0x4008_2104;
    const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the flags go in the argument itself; no memory is touched.
    let _slower = unsafe {
        libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    };
}

/// What a listener has at this moment.
#[derive(Debug)]
pub enum Waiting {
    /// A call.
    Call(Notification),
    /// Nothing.
    Nothing,
    /// Nothing ever again: no process is left under the filter.
    Gone,
}

/// The next call that waits. Does not wait for one.
///
/// # Errors
/// The kernel's errno.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Waiting> {
    // The ioctl would wait where there is none; this process is the only one that takes calls from this listener.
    let mut interest = [Interest { fd: Some(listener), events: libc::POLLIN, ready: 0 }];
    descriptor::poll(&mut interest, Some(Duration::ZERO))?;
    let [Interest { ready, .. }] = interest;
    if ready & libc::POLLIN == 0 {
        let gone = ready & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0;
        return Ok(if gone { Waiting::Gone } else { Waiting::Nothing });
    }
    receive_ready(listener)
}

/// The next call, of a listener of which poll(2) has said `POLLIN` since the last call was taken from it; else this waits. What was
/// polled is enough: the kernel counts a call when it comes and when it is taken, so that one whose process was killed between
/// the two is `ENOENT`, and no wait.
///
/// # Errors
/// The kernel's errno.
pub fn receive_ready(listener: BorrowedFd<'_>) -> Result<Waiting> {
    let mut notification = Notification::default();
    // SAFETY: the request has the size of `notification` in it, which is live, writable and all zeroes as demanded.
    let received = check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification)
    }));
    match received {
        Ok(_) => Ok(Waiting::Call(notification)),
        // Who made the call was killed between the two.
        Err(Errno(libc::ENOENT | libc::EINTR)) => Ok(Waiting::Nothing),
        Err(errno) => Err(errno),
    }
}

/// Does the call still wait? If so, its thread id was not another's when memory was read.
#[must_use]
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads the 64 bits of `id`, which is live.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id)
    }))
    .is_ok()
}

/// The call goes on as if nobody had been told. Only for one that the program allows on its registers: what they point to
/// may change until the kernel looks.
///
/// # Errors
/// The kernel's errno; `ENOENT` when nobody waits for the answer any more.
pub fn proceed(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
    send(listener, &Response { id, val: 0, error: 0, flags: SECCOMP_USER_NOTIF_FLAG_CONTINUE })
}

/// The call returns this error.
///
/// # Errors
/// The kernel's errno; `ENOENT` when nobody waits for the answer any more.
pub fn refuse(listener: BorrowedFd<'_>, id: u64, errno: Errno) -> Result<()> {
    send(listener, &Response { id, val: 0, error: -errno.0, flags: 0 })
}

/// The call succeeds, and returns 0.
///
/// # Errors
/// The kernel's errno; `ENOENT` when nobody waits for the answer any more.
pub fn succeed(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    send(listener, &Response { id, val: 0, error: 0, flags: 0 })
}

/// The call returns a descriptor, which is put into the process that made it (`SECCOMP_ADDFD_FLAG_SEND`, 5.14).
///
/// # Errors
/// The kernel's errno; `ENOENT` when nobody waits for the answer any more, `EMFILE` when the process has no room.
pub fn hand_in(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<()> {
    const SECCOMP_IOCTL_NOTIF_ADDFD: libc::Ioctl = 0x4018_2103;
    const SECCOMP_ADDFD_FLAG_SEND: u32 = 2;
    let flags = if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
    let added = AddedDescriptor {
        id,
        flags: SECCOMP_ADDFD_FLAG_SEND,
        source: descriptor.as_raw_fd().cast_unsigned(),
        number: 0,
        number_flags: flags,
    };
    // SAFETY: the request has the size of `added` in it, which is live.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ADDFD, &raw const added)
    }))
    .map(drop)
}

fn send(listener: BorrowedFd<'_>, response: &Response) -> Result<()> {
    // SAFETY: the request has the size of `response` in it, which is live.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, std::ptr::from_ref(response))
    }))
    .map(drop)
}

/// `process_vm_readv(2)`: what lies at an address of another process, up to the buffer's length; less where less is
/// mapped.
///
/// # Errors
/// The kernel's errno.
pub fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    const PAGE: usize = 4096;
    let pid = libc::pid_t::try_from(pid).map_err(|_overflow| Errno(libc::ESRCH))?;
    let address = usize::try_from(address).map_err(|_overflow| Errno(libc::EFAULT))?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // The kernel counts whole pieces, so what reaches into a page that is not there is a piece of its own.
    let first = buffer.len().min(PAGE - address % PAGE);
    let second = address.checked_add(first).ok_or(Errno(libc::EFAULT))?;
    let remote = [
        libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: first },
        libc::iovec { iov_base: std::ptr::without_provenance_mut(second), iov_len: buffer.len() - first },
    ];
    // SAFETY: the kernel writes to `buffer` only, and no more than its length; addresses of the other process are
    // checked by it.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), 2, 0) };
    usize::try_from(count).map_err(|_negative| Errno::last())
}
