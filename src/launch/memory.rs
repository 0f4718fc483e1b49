//! Memory of a cell's processes, read by the launcher for the supervisor, which a Landlock domain keeps from every process
//! outside of it.
//!
//! Neighbours: `launch::launcher` answers, `watch::refusals` asks. Never: looks at what is read; waits for long.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::sys::descriptor::{self, Interest};
use crate::sys::{Errno, Result, notify, socket};

/// A launcher at work on another cell takes some milliseconds. What comes later is not waited for.
const PATIENCE: Duration = Duration::from_millis(20);
/// The most that is read at once.
const MOST: usize = 256;
/// A question's number, with which its answer begins; after it a process id and an address.
const NUMBER: usize = size_of::<u32>();
const QUESTION: usize = 2 * NUMBER + size_of::<u64>();

/// The supervisor's end.
#[derive(Debug)]
pub struct Memory {
    socket: OwnedFd,
    asked: AtomicU32,
}

impl Memory {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, asked: AtomicU32::new(0) }
    }

    /// What lies at an address of a process, as `sys::notify::read_memory` has it, up to 256 bytes.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be read, `ETIMEDOUT` when the launcher is busy; else the socket's errno.
    pub fn read(&self, pid: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
        let question = [&number[..], &pid.to_ne_bytes(), &address.to_ne_bytes()].concat();
        socket::send(self.socket.as_fd(), &question, &[])?;
        let until = Instant::now() + PATIENCE;
        let mut answer = [0; NUMBER + MOST];
        loop {
            let mut interest = [Interest { fd: Some(self.socket.as_fd()), events: libc::POLLIN, ready: 0 }];
            let left = until.saturating_duration_since(Instant::now());
            if !descriptor::poll(&mut interest, Some(left))? {
                return Err(Errno(libc::ETIMEDOUT));
            }
            let received = socket::receive_what_fits(self.socket.as_fd(), &mut answer)?;
            let (count, _) = received.ok_or(Errno(libc::EPIPE))?;
            match answer.get(..count).and_then(|answer| answer.split_first_chunk()) {
                Some((first, [])) if *first == number => return Err(Errno(libc::EFAULT)),
                Some((first, read)) if *first == number => {
                    let length = read.len().min(buffer.len());
                    buffer.iter_mut().zip(read).for_each(|(to, from)| *to = *from);
                    return Ok(length);
                }
                // The answer to a question that was given up.
                _ => {}
            }
        }
    }
}

/// The launcher's side: answers one question.
///
/// # Errors
/// The socket's errno; `EPROTO` for what is no question.
pub(super) fn answer(socket: BorrowedFd<'_>) -> Result<()> {
    let mut question = [0; QUESTION];
    let Some((QUESTION, _)) = socket::receive_what_fits(socket, &mut question)? else {
        return Err(Errno(libc::EPROTO));
    };
    let mut answer = [0; NUMBER + MOST];
    let mut count = NUMBER;
    if let (Some((number, rest)), Some((own, room))) =
        (question.split_first_chunk::<NUMBER>(), answer.split_first_chunk_mut::<NUMBER>())
        && let Some((pid, address)) = rest.split_first_chunk()
        && let Ok(address) = address.try_into()
    {
        *own = *number;
        count +=
            notify::read_memory(u32::from_ne_bytes(*pid), u64::from_ne_bytes(address), room).unwrap_or(0);
    }
    socket::send(socket, answer.get(..count).unwrap_or_default(), &[])
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
        thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|_| answer(theirs.as_fd()).unwrap()));
            assert_eq!(memory.read(process::pid(), 8, &mut buffer), Err(Errno(libc::EFAULT)));
            assert_eq!(memory.read(process::pid(), address, &mut buffer), Ok(6));
        });
        assert_eq!(&buffer, text);
        drop(theirs);
        assert_eq!(memory.read(process::pid(), address, &mut buffer), Err(Errno(libc::EPIPE)));
    }
}
