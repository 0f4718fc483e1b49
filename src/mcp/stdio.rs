//! The process's own stdin and stdout as asynchronous streams, whatever they are.
//!
//! | what it is | how it is read and written |
//! |---|---|
//! | pipe | opened anew through `/proc/self/fd`, so that non-blocking mode does not reach whoever shares it |
//! | the same, where that is refused | in place |
//! | socket | in place |
//! | file, terminal, anything else | stdin on a thread of its own, stdout directly: a file cannot be polled, a terminal is shared |
//!
//! Neighbours: `commands::run` hands both to [`crate::session`]. Never: reads stderr, or buffers.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Pieces that the reading thread may be ahead.
const AHEAD: usize = 4;
const PIECE: usize = 64 * 1024;

/// Takes stdin. Must be called inside the runtime.
///
/// # Errors
/// When it is closed, or cannot be duplicated or registered.
pub fn stdin() -> io::Result<Box<dyn AsyncRead + Unpin + Send>> {
    reader(io::stdin().as_fd().try_clone_to_owned()?, "/proc/self/fd/0")
}

/// Takes stdout. Must be called inside the runtime.
///
/// # Errors
/// When it is closed, or cannot be duplicated or registered.
pub fn stdout() -> io::Result<Box<dyn AsyncWrite + Unpin + Send>> {
    writer(io::stdout().as_fd().try_clone_to_owned()?, "/proc/self/fd/1")
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    // Reading and writing a stream do not depend on its family, so this serves TCP as well.
    let stream = StdStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn reader(fd: OwnedFd, path: &str) -> io::Result<Box<dyn AsyncRead + Unpin + Send>> {
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        if let Ok(receiver) = pipe::OpenOptions::new().open_receiver(path) {
            return Ok(Box::new(receiver));
        }
        return Ok(Box::new(pipe::Receiver::from_file(file)?));
    }
    if kind.is_socket() {
        return Ok(Box::new(socket(file.into())?));
    }
    Ok(Box::new(Threaded::start(file)?))
}

fn writer(fd: OwnedFd, path: &str) -> io::Result<Box<dyn AsyncWrite + Unpin + Send>> {
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        if let Ok(sender) = pipe::OpenOptions::new().open_sender(path) {
            return Ok(Box::new(sender));
        }
        return Ok(Box::new(pipe::Sender::from_file(file)?));
    }
    if kind.is_socket() {
        return Ok(Box::new(socket(file.into())?));
    }
    Ok(Box::new(Direct(file)))
}

/// A file that a thread reads, because the kernel cannot say when it is readable.
struct Threaded {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    done: usize,
}

impl Threaded {
    fn start(mut file: File) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(AHEAD);
        // It ends with the file, with the receiver, or with the process.
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut room = vec![0; PIECE];
            loop {
                let read = match file.read(&mut room) {
                    Ok(0) => return,
                    Ok(count) => Ok(room.get(..count).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = read.is_err();
                if sender.blocking_send(read).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self { pieces, piece: Vec::new(), done: 0 })
    }
}

impl AsyncRead for Threaded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.done == self.piece.len() {
            match self.pieces.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(piece))) => {
                    self.piece = piece;
                    self.done = 0;
                }
            }
        }
        let rest = self.piece.get(self.done..).unwrap_or_default();
        let count = rest.len().min(into.remaining());
        into.put_slice(rest.get(..count).unwrap_or_default());
        self.done += count;
        Poll::Ready(Ok(()))
    }
}

/// A file that is written where it stands: a write to it does not wait for a reader.
struct Direct(File);

impl AsyncWrite for Direct {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
