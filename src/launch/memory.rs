//! Memory of a cell's processes, read by the launcher for the supervisor, which a Landlock domain keeps from every process
//! outside of it.
//!
//! Neighbours: `launch::launcher` answers, `watch::refusals` asks. Never: looks at what is read; waits for long.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sys::descriptor::{self, Interest};
use crate::sys::{Errno, Result, notify, socket};

/// A launcher at work on another cell takes some milliseconds. What comes later is not waited for.
const PATIENCE: Duration = Duration::from_millis(20);
/// The most that is read at once.
const MOST: usize = 256;
/// A process id and an address.
const QUESTION: usize = size_of::<u32>() + size_of::<u64>();
/// What an answer begins with, as an empty one would be the end of the socket; what was read follows.
const ANSWER: u8 = b'=';

/// The supervisor's end.
#[derive(Debug)]
pub struct Memory {
    socket: OwnedFd,
    /// The last question was given up and its answer has not come. Meanwhile none is asked: they would only pile up before
    /// a launcher that is stuck, until both sides wait for room in the socket.
    late: AtomicBool,
}

impl Memory {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, late: AtomicBool::new(false) }
    }

    /// What lies at an address of a process, as `sys::notify::read_memory` has it, up to 256 bytes.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be read, `ETIMEDOUT` when the launcher is busy; else the socket's errno.
    pub fn read(&self, pid: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut answer = [0; 1 + MOST];
        if self.late.load(Ordering::Relaxed) {
            match socket::receive(self.socket.as_fd(), &mut answer) {
                Err(Errno(libc::EAGAIN)) => return Err(Errno(libc::ETIMEDOUT)),
                given_up => given_up?.ok_or(Errno(libc::EPIPE))?,
            };
            self.late.store(false, Ordering::Relaxed);
        }
        let question = [&pid.to_ne_bytes()[..], &address.to_ne_bytes()].concat();
        socket::send(self.socket.as_fd(), &question, &[])?;
        let mut interest = [Interest { fd: Some(self.socket.as_fd()), events: libc::POLLIN, ready: 0 }];
        if !descriptor::poll(&mut interest, Some(PATIENCE))? {
            self.late.store(true, Ordering::Relaxed);
            return Err(Errno(libc::ETIMEDOUT));
        }
        let (count, _) =
            socket::receive_what_fits(self.socket.as_fd(), &mut answer)?.ok_or(Errno(libc::EPIPE))?;
        match answer.get(1..count) {
            None | Some([]) => Err(Errno(libc::EFAULT)),
            Some(read) => {
                buffer.iter_mut().zip(read).for_each(|(to, from)| *to = *from);
                Ok(read.len().min(buffer.len()))
            }
        }
    }
}

/// The launcher's side: answers one question, if there is somebody left who asks.
///
/// # Errors
/// The socket's errno; `EPROTO` for what is no question.
pub(super) fn answer(socket: BorrowedFd<'_>) -> Result<()> {
    let mut question = [0; QUESTION];
    let Some((count, _)) = socket::receive_what_fits(socket, &mut question)? else { return Ok(()) };
    let asked = question.split_first_chunk().and_then(|(pid, address)| Some((pid, address.try_into().ok()?)));
    let Some((pid, address)) = asked.filter(|_| count == QUESTION) else { return Err(Errno(libc::EPROTO)) };
    let mut answer = [ANSWER; 1 + MOST];
    let room = answer.get_mut(1..).unwrap_or_default();
    let read = notify::read_memory(u32::from_ne_bytes(*pid), u64::from_ne_bytes(address), room).unwrap_or(0);
    socket::send(socket, answer.get(..=read).unwrap_or_default(), &[])
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::sys::process;

    #[test]
    fn what_was_asked_is_answered_and_what_came_too_late_is_not_taken_for_it() {
        let (ours, theirs) = socket::pair().unwrap();
        let memory = Memory::new(ours);
        let text = b"a text";
        let address = u64::try_from(text.as_ptr().addr()).unwrap();
        let mut buffer = [0; 6];
        assert_eq!(memory.read(process::pid(), address, &mut buffer), Err(Errno(libc::ETIMEDOUT)));
        // Not asked at all.
        assert_eq!(memory.read(process::pid(), address, &mut buffer), Err(Errno(libc::ETIMEDOUT)));
        answer(theirs.as_fd()).unwrap();
        assert_eq!(socket::receive(theirs.as_fd(), &mut [0; QUESTION]).map(|_| ()), Err(Errno(libc::EAGAIN)));
        thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| answer(theirs.as_fd()).unwrap()));
            assert_eq!(memory.read(process::pid(), 8, &mut buffer), Err(Errno(libc::EFAULT)));
            assert_eq!(memory.read(process::pid(), address, &mut buffer), Ok(6));
        });
        assert_eq!(&buffer, text);
        drop(theirs);
        assert_eq!(memory.read(process::pid(), address, &mut buffer), Err(Errno(libc::EPIPE)));
    }
}
