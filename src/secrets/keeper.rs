//! The keeper: a process that reads secrets for the supervisor, which opens no file and runs no program any more.
//!
//! It is forked before the supervisor is confined, takes no bytes of strangers, and answers numbers. Each answer is the work
//! of a child that reads one secret, writes it into a pipe that came with the question, and ends, and its memory with it.
//!
//! ```text
//! supervisor ── number, pipe ──► keeper ── fork ──► child: read, check ── head, value ──► pipe
//!     └── closes the socket ──► keeper ends; a child whose pipe nobody reads ends too
//! ```
//!
//! Neighbours: `commands::run` starts it, `session` asks. Never: speaks to a cell, the client or the launcher.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::source::Sources;
use super::{LONGEST, Loaded, Need, State, Trouble};
use crate::sys::descriptor::Interest;
use crate::sys::process::{self, Cloned};
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, Result, descriptor, socket};

/// The number of the keeper's socket.
const SOCKET: i32 = 3;
/// How much longer than its source's own deadline an answer may take.
const GRACE: Duration = Duration::from_secs(2);
/// What stands before a value, at most.
const HEAD_MOST: usize = 16 * 1024;

/// What stands before the value, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Head {
    Read { state: State, age_s: Option<u64>, length: usize },
    Failed(Trouble),
}

/// The supervisor's end. Dropping it ends the keeper.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    pid: libc::pid_t,
}

impl Keeper {
    /// Forks it. The process must still have one thread, and no cell.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn start(sources: Sources) -> Result<Self> {
        let (ours, theirs) = socket::pair()?;
        match process::clone3(0, None)? {
            Cloned::Child => {
                let status = match detach(theirs).and_then(|socket| serve(&sources, socket.as_fd())) {
                    Ok(()) => 0,
                    Err(_errno) => 1,
                };
                process::exit_now(status)
            }
            Cloned::Parent(pid, _pidfd) => Ok(Self { socket: ours, pid }),
        }
    }

    /// Reads one secret.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn load(&self, need: &Need) -> std::result::Result<Loaded, Trouble> {
        let answer = self.ask(need).map_err(of_errno)?;
        let mut answer = pipe::Receiver::from_owned_fd_unchecked(answer).map_err(failed)?;
        let mut bytes = Received::new();
        let all = async {
            loop {
                let room = bytes.room();
                match answer.read(room).await? {
                    0 => return Ok(()),
                    count => bytes.end += count,
                }
                if bytes.end == bytes.bytes.len() {
                    return Err(io::Error::other("the answer is too long"));
                }
            }
        };
        match timeout(need.patience + GRACE, all).await {
            Ok(read) => read.map_err(failed)?,
            Err(_late) => return Err(late()),
        }
        bytes.open()
    }

    /// The same for who has no runtime.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load_now(&self, need: &Need) -> std::result::Result<Loaded, Trouble> {
        let answer = self.ask(need).map_err(of_errno)?;
        let mut bytes = Received::new();
        let until = Instant::now() + need.patience + GRACE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut interest = [Interest { fd: Some(answer.as_fd()), events: libc::POLLIN, ready: 0 }];
            if left.is_zero() || !descriptor::poll(&mut interest, Some(left)).map_err(of_errno)? {
                return Err(late());
            }
            match descriptor::read(answer.as_fd(), bytes.room()) {
                Ok(0) => return bytes.open(),
                Ok(count) => bytes.end += count,
                Err(Errno(libc::EAGAIN)) => {}
                Err(errno) => return Err(of_errno(errno)),
            }
            if bytes.end == bytes.bytes.len() {
                return Err(failed(io::Error::other("the answer is too long")));
            }
        }
    }

    /// Asks, and gives where the answer comes.
    fn ask(&self, need: &Need) -> Result<OwnedFd> {
        let (answer, question) = descriptor::pipe()?;
        descriptor::set_nonblocking(answer.as_fd(), true)?;
        let number = u32::try_from(need.number).unwrap_or(u32::MAX).to_le_bytes();
        socket::send(self.socket.as_fd(), &number, &[question.as_fd()])?;
        Ok(answer)
    }
}

fn failed(error: io::Error) -> Trouble {
    Trouble::new("cannot ask the process that reads secrets").because(error.to_string()).hint(
        "start toolcell again; if it stays so, look how many files and processes it may have: \
         `ulimit -n`, `ulimit -u`",
    )
}

fn of_errno(errno: Errno) -> Trouble {
    failed(io::Error::from_raw_os_error(errno.0))
}

fn late() -> Trouble {
    Trouble::new("it took too long to read").hint(
        "look whether the file system that it lies on answers, and whether the host is busy, and call the tool again",
    )
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _gone = socket::shutdown(self.socket.as_fd()).is_err();
        let _reaped = process::wait(self.pid).is_ok();
    }
}

/// An answer, as far as it has come.
struct Received {
    bytes: Wiped,
    end: usize,
}

impl Received {
    /// Room for all of it, so that nothing is moved.
    fn new() -> Self {
        Self { bytes: Wiped::from(vec![0; HEAD_MOST + LONGEST + 1]), end: 0 }
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes.room(self.end)
    }

    fn open(mut self) -> std::result::Result<Loaded, Trouble> {
        self.bytes.truncate(self.end);
        let strange = || {
            Trouble::new("the process that reads secrets gave no answer").hint(
                "it had no process or no memory for that, or was ended: look at `ulimit -u` and the host's memory, \
                 and call the tool again",
            )
        };
        let head = self.bytes.iter().position(|byte| *byte == b'\n').ok_or_else(strange)?;
        match serde_json::from_slice(self.bytes.get(..head).unwrap_or_default()) {
            Ok(Head::Read { state, age_s, length }) => {
                let mut value = self.bytes;
                value.drop_first(head + 1);
                // One that was cut would be used as if it were whole.
                if value.len() != length {
                    return Err(strange());
                }
                Ok(Loaded { value, state, age: age_s.map(Duration::from_secs) })
            }
            Ok(Head::Failed(trouble)) => Err(trouble),
            Err(_foreign) => Err(strange()),
        }
    }
}

/// Away from all that the supervisor has open, from its terminal, and from whoever could read memory.
fn detach(socket: OwnedFd) -> Result<OwnedFd> {
    process::set_name(c"toolcell-secret");
    process::setsid()?;
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    process::prctl(libc::PR_SET_DUMPABLE, 0)?;
    // Not 0: a pipe to a program that stores dumps is asked even then (core(5)).
    process::setrlimit(libc::RLIMIT_CORE, 1)?;
    descriptor::keep_alone(socket, SOCKET, true)?;
    Ok(descriptor::adopt(SOCKET))
}

fn serve(sources: &Sources, socket: BorrowedFd<'_>) -> Result<()> {
    let mut number = [0; 4];
    loop {
        // Reaps those that have answered.
        let _others_at_work = process::is_alone();
        let received = socket::receive_what_fits(socket, &mut number)?;
        let Some((4, descriptors)) = received else { return Ok(()) };
        let Some(answer) = descriptors.into_iter().next() else { continue };
        let number = usize::try_from(u32::from_le_bytes(number)).unwrap_or(usize::MAX);
        // If there can be no child, the pipe ends without an answer, and the call is refused.
        if let Ok(None) = process::fork() {
            let answered = answer_with(sources, number, answer);
            process::exit_now(i32::from(answered.is_err()));
        }
    }
}

/// The child's work.
fn answer_with(sources: &Sources, number: usize, answer: OwnedFd) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let loaded = sources.load(number, now, Some(answer.as_fd()));
    let mut answer = File::from(answer);
    let (head, value) = match loaded {
        Ok(Loaded { value, state, age }) => {
            let age_s = age.map(|age| age.as_secs());
            (Head::Read { state, age_s, length: value.len() }, value)
        }
        Err(trouble) => (Head::Failed(trouble), Wiped::default()),
    };
    let mut bytes = serde_json::to_vec(&head).map_err(io::Error::other)?;
    bytes.push(b'\n');
    answer.write_all(&bytes)?;
    answer.write_all(&value)
}
