//! What a cell's processes mean by what they pass to a call, looked up by the launcher for the supervisor: a Landlock domain
//! keeps it from every process outside of it.
//!
//! Neighbours: `launch::launcher` answers, `watch::refusals`, `watch::files` and `watch::connects` ask. Never: judges what is read; waits for long.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sys::descriptor::{self, Interest};
use crate::sys::{Errno, Result, attribute, notify, socket};

/// A launcher at work on another cell takes some milliseconds. What comes later is not waited for.
const PATIENCE: Duration = Duration::from_millis(20);
/// And what a call cannot do without is waited for so long; in vain once.
const MORE_PATIENCE: Duration = Duration::from_millis(500);
/// The most that is read at once, of memory and of a directory's path.
const MOST: usize = 1024;
/// A process id, an address, and a directory.
const QUESTION: usize = size_of::<u32>() + size_of::<u64>() + size_of::<i32>();
/// Where there is no directory to be looked up. No descriptor has this number.
const NO_DIRECTORY: i32 = i32::MIN;
/// What an answer begins with: the errno, if there is one, and the length of the directory's path, which comes before what
/// was read.
const HEAD: usize = size_of::<i32>() + size_of::<u16>();

/// What is asked of a process.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The process, or a thread of it.
    pub pid: u32,
    /// Where to read its memory.
    pub address: u64,
    /// The descriptor of its directory (`AT_FDCWD`: the working directory) that a relative path begins in, if the memory
    /// holds a path.
    pub directory: Option<i32>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Memory, up to 1024 bytes; less where less is mapped.
    pub bytes: Vec<u8>,
    /// The directory that was asked for, if the memory holds no absolute path. Of a socket there is its protocol behind it.
    pub directory: Option<PathBuf>,
}

impl Question {
    /// Has the launcher look, where this process may not.
    ///
    /// # Errors
    /// As for [`Question::look`] and [`Memory::ask`].
    pub fn look_by(self, memory: Option<&Memory>) -> Result<Found> {
        match memory {
            Some(memory) => memory.ask(self),
            None => self.look(),
        }
    }

    /// The same, of what a call cannot do without: a launcher that is busy is waited for longer.
    ///
    /// # Errors
    /// As for [`Question::look_by`].
    pub fn look_by_all_means(self, memory: Option<&Memory>) -> Result<Found> {
        match memory {
            Some(memory) => memory.ask_within(self, MORE_PATIENCE),
            None => self.look(),
        }
    }

    /// Looks itself, as a process that may.
    ///
    /// # Errors
    /// `process_vm_readv(2)`'s errno, `EFAULT` when there is nothing; readlink(2)'s.
    pub fn look(self) -> Result<Found> {
        let mut bytes = vec![0; MOST];
        let count = notify::read_memory(self.pid, self.address, &mut bytes)?;
        bytes.truncate(count);
        let first = *bytes.first().ok_or(Errno(libc::EFAULT))?;
        let directory = match self.directory {
            Some(number) if first != b'/' => {
                let link = match number {
                    libc::AT_FDCWD => format!("/proc/{}/cwd", self.pid),
                    number => format!("/proc/{}/fd/{number}", self.pid),
                };
                let mut behind = std::fs::read_link(&link)?;
                if behind.as_os_str().as_bytes().starts_with(b"socket:") {
                    let link = CString::new(link).map_err(|_nul| Errno(libc::EINVAL))?;
                    if let Ok(protocol) = attribute::protocol(&link) {
                        behind.as_mut_os_string().push(format!(" {protocol}"));
                    }
                }
                Some(behind).filter(|path| path.as_os_str().len() <= MOST)
            }
            _ => None,
        };
        Ok(Found { bytes, directory })
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Memory {
    socket: OwnedFd,
    /// The last question was given up and its answer has not come. Meanwhile none is asked: they would only pile up before
    /// a launcher that is stuck, until both sides wait for room in the socket.
    late: AtomicBool,
    /// It was waited for as long as for anything: nobody waits for it any more, so that a cell that goes on asking does not keep who
    /// serves all of them.
    stuck: AtomicBool,
    /// The host's table of mounts, which a confined supervisor can no longer open.
    mounts: Option<File>,
}

impl Memory {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let (late, stuck) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { socket, late, stuck, mounts: File::open("/proc/self/mountinfo").ok() }
    }

    /// Has the launcher look.
    ///
    /// # Errors
    /// As for [`Question::look`]; `ETIMEDOUT` when the launcher is busy; `EPIPE` when it is gone; the socket's errno.
    pub fn ask(&self, question: Question) -> Result<Found> {
        self.ask_within(question, PATIENCE)
    }

    fn ask_within(&self, question: Question, patience: Duration) -> Result<Found> {
        let mut answer = [0; HEAD + MOST + MOST];
        let answered = || {
            let mut interest = [Interest { fd: Some(self.socket.as_fd()), events: libc::POLLIN, ready: 0 }];
            descriptor::poll(&mut interest, Some(patience))
        };
        let most = patience > PATIENCE;
        if self.late.load(Ordering::Relaxed) {
            if most && !self.stuck.load(Ordering::Relaxed) {
                self.stuck.store(!answered()?, Ordering::Relaxed);
            }
            match socket::receive(self.socket.as_fd(), &mut answer) {
                Err(Errno(libc::EAGAIN)) => return Err(Errno(libc::ETIMEDOUT)),
                given_up => there(given_up)?,
            };
            self.late.store(false, Ordering::Relaxed);
            self.stuck.store(false, Ordering::Relaxed);
        }
        let Question { pid, address, directory } = question;
        let directory = directory.unwrap_or(NO_DIRECTORY);
        let question = [&pid.to_ne_bytes()[..], &address.to_ne_bytes(), &directory.to_ne_bytes()].concat();
        socket::send(self.socket.as_fd(), &question, &[])?;
        if !answered()? {
            self.late.store(true, Ordering::Relaxed);
            self.stuck.store(most, Ordering::Relaxed);
            return Err(Errno(libc::ETIMEDOUT));
        }
        let (count, _) = there(socket::receive_what_fits(self.socket.as_fd(), &mut answer))?;
        found(answer.get(..count).unwrap_or_default())
    }

    /// The host's table of mounts as it is now (`proc_pid_mountinfo(5)`); empty where it could not be read.
    #[must_use]
    pub fn mounts(&self) -> String {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while let Some(table) = &self.mounts
            && let Ok(count @ 1..) = table.read_at(&mut part, bytes.len() as u64)
        {
            bytes.extend_from_slice(part.get(..count).unwrap_or_default());
        }
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// A launcher that goes away is one error, whether it has left a question unread (`ECONNRESET`) or not.
fn there<T>(received: Result<Option<T>>) -> Result<T> {
    match received {
        Ok(None) | Err(Errno(libc::ECONNRESET)) => Err(Errno(libc::EPIPE)),
        Ok(Some(answer)) => Ok(answer),
        Err(errno) => Err(errno),
    }
}

fn found(answer: &[u8]) -> Result<Found> {
    let broken = Errno(libc::EPROTO);
    let (errno, rest) = answer.split_first_chunk().ok_or(broken)?;
    let (length, rest) = rest.split_first_chunk().ok_or(broken)?;
    let (directory, bytes) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*length))).ok_or(broken)?;
    match i32::from_ne_bytes(*errno) {
        0 => Ok(Found {
            bytes: bytes.to_vec(),
            directory: (!directory.is_empty()).then(|| OsString::from_vec(directory.to_vec()).into()),
        }),
        errno => Err(Errno(errno)),
    }
}

/// The launcher's side: answers one question, if there is somebody left who asks.
///
/// # Errors
/// The socket's errno; `EPROTO` for what is no question.
pub(super) fn answer(socket: BorrowedFd<'_>) -> Result<()> {
    let mut question = [0; QUESTION];
    let Some((count, _)) = socket::receive_what_fits(socket, &mut question)? else { return Ok(()) };
    let asked = question.split_first_chunk().and_then(|(pid, rest)| {
        let (address, directory) = rest.split_first_chunk()?;
        let directory = i32::from_ne_bytes(directory.try_into().ok()?);
        Some(Question {
            pid: u32::from_ne_bytes(*pid),
            address: u64::from_ne_bytes(*address),
            directory: Some(directory).filter(|number| *number != NO_DIRECTORY),
        })
    });
    let Some(question) = asked.filter(|_| count == QUESTION) else { return Err(Errno(libc::EPROTO)) };
    let (errno, Found { bytes, directory }) = match question.look() {
        Ok(found) => (0, found),
        Err(Errno(errno)) => (errno, Found::default()),
    };
    let directory = directory.unwrap_or_default();
    let directory = directory.as_os_str().as_bytes();
    let length = u16::try_from(directory.len()).unwrap_or_default();
    let head = [&errno.to_ne_bytes()[..], &length.to_ne_bytes()].concat();
    socket::send(socket, &[&head, directory, &bytes].concat(), &[])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::sys::process;

    #[test]
    fn what_was_asked_is_answered_and_what_came_too_late_is_not_taken_for_it() {
        let (ours, theirs) = socket::pair().unwrap();
        let memory = Memory::new(ours);
        let text = b"a text";
        let address = u64::try_from(text.as_ptr().addr()).unwrap();
        let question = Question { pid: process::pid(), address, directory: None };
        assert_eq!(memory.ask(question), Err(Errno(libc::ETIMEDOUT)));
        // Not asked at all.
        assert_eq!(memory.ask(question), Err(Errno(libc::ETIMEDOUT)));
        answer(theirs.as_fd()).unwrap();
        assert_eq!(socket::receive(theirs.as_fd(), &mut [0; QUESTION]).map(|_| ()), Err(Errno(libc::EAGAIN)));
        let place = File::open("/proc").unwrap();
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let absolute = c"/absolute".to_bytes_with_nul();
        let at = |text: &[u8], directory: i32| Question {
            address: u64::try_from(text.as_ptr().addr()).unwrap(),
            directory: Some(directory),
            ..question
        };
        thread::scope(|scope| {
            scope.spawn(|| (0..7).for_each(|_| answer(theirs.as_fd()).unwrap()));
            assert_eq!(memory.ask(Question { address: 8, ..question }), Err(Errno(libc::EFAULT)));
            let found = memory.ask(question).unwrap();
            assert!(found.bytes.starts_with(text) && found.directory.is_none());
            let directory = |question| memory.ask(question).map(|found| found.directory);
            assert_eq!(directory(at(text, place.as_raw_fd())), Ok(Some("/proc".into())));
            assert_eq!(directory(at(text, libc::AT_FDCWD)), Ok(std::env::current_dir().ok()));
            assert_eq!(directory(at(absolute, libc::AT_FDCWD)), Ok(None));
            assert_eq!(directory(at(text, 1 << 20)), Err(Errno(libc::ENOENT)));
            let socket = directory(at(text, bound.as_raw_fd())).unwrap().unwrap();
            let socket = socket.to_str().unwrap();
            assert!(socket.starts_with("socket:[") && socket.ends_with("] UDP"), "{socket}");
        });
        assert_eq!(memory.ask(question), Err(Errno(libc::ETIMEDOUT)));
        // The late answer is waited for, and then the one that is wanted.
        thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| answer(theirs.as_fd()).unwrap()));
            assert!(question.look_by_all_means(Some(&memory)).unwrap().bytes.starts_with(text));
        });
        // In vain but once.
        let by_all_means = || question.look_by_all_means(Some(&memory)).map(drop);
        for patience in [PATIENCE, MORE_PATIENCE] {
            assert_eq!(memory.ask_within(question, patience), Err(Errno(libc::ETIMEDOUT)));
            assert_eq!(by_all_means(), Err(Errno(libc::ETIMEDOUT)));
            let began = Instant::now();
            assert_eq!(by_all_means(), Err(Errno(libc::ETIMEDOUT)));
            assert!(began.elapsed() < MORE_PATIENCE);
            answer(theirs.as_fd()).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| answer(theirs.as_fd()).unwrap());
                assert_eq!(by_all_means(), Ok(()));
            });
        }
        assert_eq!(memory.ask(question), Err(Errno(libc::ETIMEDOUT)));
        drop(theirs);
        // A child of another test may have a copy of that end until its exec.
        let mut gone = [Interest { fd: Some(memory.socket.as_fd()), events: 0, ready: 0 }];
        assert!(descriptor::poll(&mut gone, Some(Duration::from_secs(20))).unwrap());
        // With a question left unread, and with none.
        assert_eq!(memory.ask(question), Err(Errno(libc::EPIPE)));
        assert_eq!(memory.ask(question), Err(Errno(libc::EPIPE)));
        assert_eq!(memory.mounts(), std::fs::read_to_string("/proc/self/mountinfo").unwrap());
    }
}
