//! One way of a connection: bytes as they come, in the buffer that all connections share, and when there are many, by splice(2)
//! through a pipe, in which the kernel moves pages instead of copying them.
//!
//! ```text
//! wait for the source ──some──► read, write: what is not taken is kept, and the source not read
//!        ▲              └─a buffer full──► splice, splice, … ──the source has no more──┐
//!        └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Neighbours: `relay` has one for each way. Never: holds memory, or a pipe, for a connection on which nothing waits to be taken.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::yield_now;

use super::limit::Of;
use crate::sys::{Result, descriptor, socket};

/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;
/// Bytes that the kernel is asked to move at once.
const SPLICED: usize = 1 << 20;
/// After so many bytes others have their turn.
const TURN: usize = 4 << 20;
/// Fewer bytes at once than these are copied.
const FEW: usize = 16 * 1024;
/// Pipes that are kept for who needs one.
const PIPES: usize = 8;
/// Pipes that there are at once: a user has a bounded share of their memory (pipe(7)), of which this leaves the most to others.
const MOST_PIPES: usize = 64;

thread_local! {
    /// This process has one thread that passes bytes.
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static PIPES_THERE: Cell<usize> = const { Cell::new(0) };
}

/// One end of a connection.
#[derive(Debug)]
pub(super) enum End {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for End {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl End {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn attempt(&self, interest: Interest, spliced: impl FnOnce() -> Result<usize>) -> io::Result<usize> {
        let spliced = || spliced().map_err(io::Error::from);
        match self {
            Self::Tcp(stream) => stream.try_io(interest, spliced),
            Self::Unix(stream) => stream.try_io(interest, spliced),
        }
    }

    /// What is small goes at once.
    pub(super) fn hurry(&self) {
        if let Self::Tcp(stream) = self {
            let _only_slower = stream.set_nodelay(true).is_err();
        }
    }

    /// The other side is told at once, and nothing more is sent.
    pub(super) fn reset(self) {
        if let Self::Tcp(stream) = self {
            super::keep::reset(stream);
        }
    }
}

/// How one way ended.
pub(super) enum Done {
    /// Its source has said all.
    Ended,
    /// Its source is gone.
    SourceGone,
    /// Who is to take it is gone.
    SinkGone,
    /// More than the policy lets through.
    Limit(Of, u64),
}

/// What is counted of one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter<'c> {
    /// Bytes of this connection.
    pub(super) moved: &'c AtomicU64,
    /// What else they are a part of.
    pub(super) bounds: [Bound<'c>; 2],
}

/// Bytes of several connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'c> {
    /// Whose.
    pub(super) of: Of,
    /// So many, which are counted where there is a limit.
    pub(super) all: &'c AtomicU64,
    /// How many there may be.
    pub(super) limit: Option<u64>,
}

/// There would be more of these than may be.
#[derive(Debug)]
pub(super) struct Excess(pub(super) Of, pub(super) u64);

impl From<Excess> for Done {
    fn from(Excess(of, limit): Excess) -> Self {
        Self::Limit(of, limit)
    }
}

impl Meter<'_> {
    /// May they go on?
    pub(super) fn lets(&self, count: usize) -> std::result::Result<(), Excess> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        for Bound { of, all, limit } in self.bounds {
            let Some(limit) = limit else { continue };
            if all.fetch_add(count, Ordering::Relaxed).saturating_add(count) > limit {
                return Err(Excess(of, limit));
            }
        }
        Ok(())
    }

    pub(super) fn add(&self, count: usize) {
        self.moved.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What a read found.
enum Step {
    /// Nothing yet.
    Wait,
    /// So many bytes, all of which were taken.
    Passed(usize),
    /// Some of them, of which these were not.
    Left(Vec<u8>),
}

/// One way. What a reader does not take is not read from the writer. `first` goes before all else.
pub(super) async fn carry(from: &End, to: &End, first: Vec<u8>, meter: Meter<'_>) -> Done {
    let ended = async {
        if !first.is_empty() {
            meter.lets(first.len())?;
            write_all(to, &first, meter).await?;
        }
        drop(first);
        let mut many = false;
        loop {
            if from.readable().await.is_err() {
                return Err(Done::SourceGone);
            }
            if many && let Some(pipe) = Pipe::take() {
                many = splice(from, to, pipe, meter).await?;
                continue;
            }
            match step(from, to, meter)? {
                Step::Wait => {}
                Step::Passed(count) => many = count == BUFFER,
                Step::Left(left) => {
                    many = true;
                    write_all(to, &left, meter).await?;
                }
            }
        }
    };
    let ended: std::result::Result<std::convert::Infallible, Done> = ended.await;
    match ended {
        Err(Done::Ended) => {
            let _gone_already = socket::say_no_more(to.as_fd()).is_err();
            Done::Ended
        }
        Err(done) => done,
        Ok(never) => match never {},
    }
}

fn step(from: &End, to: &End, meter: Meter<'_>) -> std::result::Result<Step, Done> {
    SHARED.with_borrow_mut(|buffer| {
        let count = match from.try_read(buffer) {
            Ok(0) => return Err(Done::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
            Err(_) => return Err(Done::SourceGone),
        };
        meter.lets(count)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Done::SinkGone),
        };
        meter.add(written);
        match bytes.get(written..) {
            Some(left) if !left.is_empty() => Ok(Step::Left(left.to_vec())),
            _ => Ok(Step::Passed(count)),
        }
    })
}

async fn write_all(to: &End, mut bytes: &[u8], meter: Meter<'_>) -> std::result::Result<(), Done> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => {
                meter.add(written);
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to.writable().await.map_err(|_gone| Done::SinkGone)?;
            }
            Err(_) => return Err(Done::SinkGone),
        }
    }
    Ok(())
}

/// Until the source has nothing more for now; were there many bytes?
async fn splice(from: &End, to: &End, pipe: Pipe, meter: Meter<'_>) -> std::result::Result<bool, Done> {
    let (mut many, mut turn) = (false, 0);
    loop {
        let into = || descriptor::splice(from.as_fd(), pipe.write.as_fd(), SPLICED, false);
        let mut left = match from.attempt(Interest::READABLE, into) {
            Ok(0) => return Err(Done::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.give_back();
                return Ok(many);
            }
            // Not by this kernel, or not of such a socket: bytes are copied.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) => {
                pipe.give_back();
                return Ok(false);
            }
            Err(_) => return Err(Done::SourceGone),
        };
        meter.lets(left)?;
        many |= left > FEW;
        turn += left;
        while left > 0 {
            let out = || descriptor::splice(pipe.read.as_fd(), to.as_fd(), left, false);
            match to.attempt(Interest::WRITABLE, out) {
                Ok(0) => return Err(Done::SinkGone),
                Ok(count) => {
                    meter.add(count);
                    left -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    to.writable().await.map_err(|_gone| Done::SinkGone)?;
                }
                Err(_) => return Err(Done::SinkGone),
            }
        }
        if turn >= TURN {
            turn = 0;
            yield_now().await;
        }
    }
}

/// A pipe with nothing in it, where it is not in use.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// None when there is no room for one: then bytes are copied.
    fn take() -> Option<Self> {
        IDLE.with_borrow_mut(Vec::pop).or_else(|| {
            if PIPES_THERE.get() >= MOST_PIPES {
                return None;
            }
            let (read, write) = descriptor::pipe().ok()?;
            PIPES_THERE.set(PIPES_THERE.get() + 1);
            Some(Self { read, write })
        })
    }

    /// It is empty again.
    fn give_back(self) {
        IDLE.with_borrow_mut(|idle| {
            if idle.len() < PIPES {
                idle.push(self);
            }
        });
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        PIPES_THERE.set(PIPES_THERE.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::plan::seccomp;
    use crate::policy::Syscalls;
    use crate::sys::{filter, process};

    /// Carries this many bytes from one pair to another.
    fn carried(count: usize) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (one, from) = UnixStream::pair().unwrap();
            let (to, other) = UnixStream::pair().unwrap();
            let (one, other) = (End::Unix(one), End::Unix(other));
            let (moved, all) = (AtomicU64::new(0), AtomicU64::new(0));
            let bounds = [Of::Door, Of::Cell].map(|of| Bound { of, all: &all, limit: None });
            let meter = || Meter { moved: &moved, bounds };
            let (from, to) = (End::Unix(from), End::Unix(to));
            let write = async {
                assert!(write_all(&one, &vec![7; count], meter()).await.is_ok());
                socket::say_no_more(one.as_fd()).unwrap();
            };
            let read = async {
                let (mut buffer, mut got) = (vec![0; BUFFER], 0);
                loop {
                    other.readable().await.unwrap();
                    match other.try_read(&mut buffer) {
                        Ok(0) => return got,
                        Ok(count) => got += count,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                }
            };
            let joined = async { tokio::join!(write, carry(&from, &to, Vec::new(), meter()), read).2 };
            let got = tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap();
            assert_eq!(all.load(Ordering::Relaxed), 0, "nobody has a limit");
            got
        })
    }

    #[test]
    fn a_pipe_is_taken_while_there_are_few_and_comes_back() {
        let all: Vec<Pipe> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(all.len(), MOST_PIPES);
        assert_eq!(carried(1 << 20), 1 << 20, "copied");
        all.into_iter().for_each(Pipe::give_back);
        assert_eq!(PIPES_THERE.get(), PIPES);
        assert_eq!(carried(1 << 20), 1 << 20);
        assert!(PIPES_THERE.get() <= PIPES);
    }

    #[test]
    fn where_no_bytes_can_be_moved_they_are_copied() {
        let refusing = || {
            let deny = vec!["splice".to_owned()];
            let program = seccomp::compile(&Syscalls { deny, ..Syscalls::default() }, false).unwrap();
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).unwrap();
            filter::install(&filter::assemble(&program)).unwrap();
            assert_eq!(carried(1 << 20), 1 << 20);
        };
        thread::scope(|scope| scope.spawn(refusing).join().unwrap());
    }
}
