//! The session's side of the guard: hands over calls that have ended, asks whether a tool may be called.
//!
//! Neighbours: `commands::run` takes it over from before the runtime, `guard::process` answers. Never: keeps the session's
//! thread waiting, but for a file that has to be there before it goes on; lets a call run without an answer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::event::{Event, MESSAGE_LIMIT, Message, Said, Verdict};
use super::process::Handle;
use crate::sys::{Errno, Result, descriptor, readiness, socket};

/// Messages that may wait for the guard.
const WAITING: usize = 4096;
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the end of a session waits for it: most of the time it has nothing left to do.
const LAST: Duration = Duration::from_millis(150);

/// Told of what a person should know.
type Notice = dyn Fn(&str) + Send + Sync;

#[derive(Debug, Default)]
struct Shared {
    asked: HashMap<u64, oneshot::Sender<Verdict>>,
    next: u64,
    lost: u64,
    /// Nobody answers any more.
    gone: bool,
    /// Which is as it should be.
    over: bool,
}

/// The way to the guard. Copies share it.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Each as it is sent.
    messages: Sender<Vec<u8>>,
    shared: Arc<Mutex<Shared>>,
    /// A tool may be kept out, so that each call has to be asked for.
    asks: bool,
    /// Anything is done with calls that have ended.
    listens: bool,
    files: Arc<Files>,
    ended: Arc<OwnedFd>,
}

/// Asks for what this process cannot open.
#[derive(Debug)]
pub struct Files(Mutex<OwnedFd>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// Takes over a guard that was started before the runtime. What it has to say to a person goes to `notice`.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn new(handle: Handle, notice: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        descriptor::set_nonblocking(handle.socket.as_fd(), true)?;
        let socket = Arc::new(readiness::ready(handle.socket)?);
        let (messages, waiting) = channel(WAITING);
        let guard = Self {
            messages,
            shared: Arc::default(),
            asks: handle.asks,
            listens: handle.listens,
            files: Arc::new(Files(Mutex::new(handle.files))),
            ended: Arc::new(handle.pidfd),
        };
        drop(tokio::spawn(send(Arc::clone(&socket), waiting)));
        drop(tokio::spawn(hear(socket, Arc::clone(&guard.shared), Box::new(notice))));
        Ok(guard)
    }

    /// What this process cannot open, it asks for by this.
    #[must_use]
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }

    /// A call has ended.
    pub fn ended(&self, event: impl FnOnce() -> Event) {
        if !self.listens {
            return;
        }
        let mut shared = lock(&self.shared);
        let sent =
            |message: Message| message.encoded().is_some_and(|bytes| self.messages.try_send(bytes).is_ok());
        if shared.lost > 0 && sent(Message::Lost(shared.lost)) {
            shared.lost = 0;
        }
        if !sent(Message::Ended(Box::new(event()))) {
            shared.lost += 1;
        }
    }

    /// May this tool, which records name as `shown`, be called now? Whatever ended before is known by then.
    pub async fn may(&self, call: &str, tool: &str, shown: &str) -> Verdict {
        if !self.asks {
            return Verdict::Free;
        }
        let gone = || Verdict::Unknown("toolcell's guard is gone".to_owned());
        let (answer, verdict) = oneshot::channel();
        let (number, question) = {
            let mut shared = lock(&self.shared);
            if shared.gone {
                return gone();
            }
            shared.next += 1;
            let number = shared.next;
            let [call, tool, shown] = [call, tool, shown].map(str::to_owned);
            let Some(question) = (Message::May { number, call, tool, shown }).encoded() else {
                return Verdict::Unknown("its name is longer than toolcell's guard reads".to_owned());
            };
            shared.asked.insert(number, answer);
            (number, question)
        };
        let asked = async {
            self.messages.send(question).await.ok()?;
            verdict.await.ok()
        };
        let verdict = timeout(PATIENCE, asked).await;
        lock(&self.shared).asked.remove(&number);
        match verdict {
            Ok(Some(verdict)) => verdict,
            Ok(None) => gone(),
            Err(_elapsed) => Verdict::Unknown("toolcell's guard does not answer".to_owned()),
        }
    }

    /// The session is over: lets the guard finish, but not for long.
    pub async fn finish(self) {
        let Self { messages, listens, ended, shared, .. } = self;
        lock(&shared).over = true;
        drop(messages);
        if !listens {
            return;
        }
        let Ok(ended) = ended.try_clone().map_err(Errno::from).and_then(readiness::readable) else { return };
        let _late = timeout(LAST, ended.readable()).await.is_err();
    }
}

/// Sends what waits, in its order, until nobody has anything to send any more; the guard reads the end then.
async fn send(socket: Arc<AsyncFd<OwnedFd>>, mut waiting: Receiver<Vec<u8>>) {
    while let Some(bytes) = waiting.recv().await {
        let sent = socket
            .async_io(Interest::WRITABLE, |socket| {
                socket::send(socket.as_fd(), &bytes, &[]).map_err(io::Error::from)
            })
            .await;
        if sent.is_err() {
            break;
        }
    }
    let _gone = socket::say_no_more(socket.get_ref().as_fd()).is_err();
}

async fn hear(socket: Arc<AsyncFd<OwnedFd>>, shared: Arc<Mutex<Shared>>, notice: Box<Notice>) {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    loop {
        let heard = socket
            .async_io(Interest::READABLE, |socket| {
                socket::receive(socket.as_fd(), &mut buffer).map_err(io::Error::from)
            })
            .await;
        let Ok(Some((length, _none))) = heard else { break };
        match postcard::from_bytes(buffer.get(..length).unwrap_or_default()) {
            Ok(Said::Verdict { number, verdict }) => {
                let asked = lock(&shared).asked.remove(&number);
                // Who asked may have stopped waiting.
                drop(asked.map(|asked| asked.send(verdict)));
            }
            Ok(Said::Notice(text)) => notice(&text),
            Err(error) => notice(&format!("toolcell's guard said what cannot be read: {error}")),
        }
    }
    // Who still waits learns at once that nobody will answer.
    let over = {
        let mut shared = lock(&shared);
        shared.gone = true;
        shared.asked.clear();
        shared.over
    };
    if !over {
        notice(
            "toolcell's guard is gone: nobody is told of what is unusual any more, and the log is not rotated",
        );
    }
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The audit log, as it is at its path now.
    Log,
    /// The text of `tokens.toml`.
    Tokens,
}

impl Wanted {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => b'l',
            Self::Tokens => b't',
        }
    }

    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            b'l' => Some(Self::Log),
            b't' => Some(Self::Tokens),
            _ => None,
        }
    }
}

impl Files {
    /// The audit log that is at its path now, after a rotation if it is time for one.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn log(&self) -> io::Result<File> {
        self.ask(Wanted::Log)
    }

    /// What the file of tokens holds now.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn tokens(&self) -> io::Result<String> {
        let mut file = self.ask(Wanted::Tokens)?;
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text)
    }

    fn ask(&self, wanted: Wanted) -> io::Result<File> {
        // The answer to a question that was given up on is not that to the next.
        let socket = lock(&self.0);
        let mut buffer = vec![0; MESSAGE_LIMIT];
        while socket::receive(socket.as_fd(), &mut buffer).is_ok_and(|late| late.is_some()) {}
        socket::send(socket.as_fd(), &[wanted.byte()], &[])?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut interests =
                [descriptor::Interest { fd: Some(socket.as_fd()), events: libc::POLLIN, ready: 0 }];
            let ready = descriptor::poll(&mut interests, Some(left))?;
            if !ready && left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "toolcell's guard does not answer"));
            }
            if !ready {
                continue;
            }
            return match socket::receive(socket.as_fd(), &mut buffer)? {
                None => Err(io::Error::other("toolcell's guard is gone")),
                Some((length, descriptors)) => match descriptors.into_iter().next() {
                    Some(file) => Ok(File::from(file)),
                    None => {
                        let why = buffer.get(..length).unwrap_or_default();
                        Err(io::Error::other(String::from_utf8_lossy(why).into_owned()))
                    }
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::call::Call;
    use crate::sys::process;

    /// A guard that finds every tool free, and reads what is sent as long as it can; then it gives back what that was.
    fn guard() -> (Handle, std::thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = socket::pair().unwrap();
        let (files, _asked) = socket::pair().unwrap();
        let pidfd = process::pidfd_open(process::pid().cast_signed()).unwrap();
        let reads = std::thread::spawn(move || {
            let (mut buffer, mut heard) = (vec![0; MESSAGE_LIMIT], Vec::new());
            while let Ok(Some((length, _none))) = socket::receive_what_fits(theirs.as_fd(), &mut buffer) {
                let message: Message = postcard::from_bytes(&buffer[..length]).unwrap();
                heard.push(match message {
                    Message::May { number, tool, .. } => {
                        let said = Said::Verdict { number, verdict: Verdict::Free };
                        socket::send(theirs.as_fd(), &postcard::to_allocvec(&said).unwrap(), &[]).unwrap();
                        tool
                    }
                    Message::Lost(count) => format!("{count} lost"),
                    Message::Ended(event) => event.tool.unwrap_or_default(),
                });
            }
            heard
        });
        (Handle { socket: ours, files, pidfd, asks: true, listens: true }, reads)
    }

    fn ended(tool: &str) -> Event {
        let call = Call::example(tool);
        let record = crate::audit::Started::new(&call, None, &[], SystemTime::UNIX_EPOCH);
        Event::unstarted(&call, &record, SystemTime::UNIX_EPOCH, "")
    }

    #[test]
    fn what_is_longer_than_the_guard_reads_is_refused_and_ends_nothing() {
        let (handle, reads) = guard();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let guard = Guard::new(handle, |_notice| {}).unwrap();
            for length in [MESSAGE_LIMIT, 1 << 20] {
                let long = "x".repeat(length);
                let Verdict::Unknown(why) = guard.may("1", &long, &long).await else { panic!() };
                assert_eq!(why, "its name is longer than toolcell's guard reads");
                assert_eq!(guard.may("2", "t", "t").await, Verdict::Free);
                guard.ended(|| ended(&long));
            }
            guard.ended(|| ended("short"));
            assert_eq!(guard.may("3", "t", "t").await, Verdict::Free);
            lock(&guard.shared).over = true;
        });
        drop(runtime);
        assert_eq!(reads.join().unwrap(), ["t", "t", "1 lost", "1 lost", "short", "t"]);
    }
}
