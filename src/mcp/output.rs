//! The one owner of the client's stdout: whole lines in the order in which they were handed over.
//!
//! A write that is given up half way leaves its rest behind, and the next one sends that first; so a line
//! is never torn, whoever was cancelled. While a long line passes, the others wait.
//!
//! Neighbours: every part of [`crate::session`] writes through it. Never: holds more than one line.

use std::sync::Arc;
use std::{fmt, io};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

struct Inner {
    writer: Box<dyn AsyncWrite + Unpin + Send>,
    /// What is being written, and how far it is.
    rest: Vec<u8>,
    done: usize,
}

impl Inner {
    async fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.rest.get(self.done..).filter(|rest| !rest.is_empty()) {
            let count = self.writer.write(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.done += count;
        }
        self.rest.clear();
        self.done = 0;
        self.writer.flush().await
    }
}

/// Writes to the client.
#[derive(Clone)]
pub struct Output {
    inner: Arc<Mutex<Inner>>,
    gone: Arc<watch::Sender<bool>>,
    left: Arc<Notify>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("gone", &*self.gone.borrow()).finish_non_exhaustive()
    }
}

impl Output {
    /// Takes the client's stdout.
    pub fn new(writer: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let inner = Inner { writer: Box::new(writer), rest: Vec::new(), done: 0 };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            gone: Arc::new(watch::Sender::new(false)),
            left: Arc::new(Notify::new()),
        }
    }

    /// Sends one line, which ends in a newline. Nothing is sent to a client that is gone.
    pub async fn line(&self, mut line: Vec<u8>) {
        self.long_line().await.push(&mut line).await;
    }

    /// Takes the output for one long line, after the rest of the last one.
    pub async fn long_line(&self) -> LongLine {
        let inner = Arc::clone(&self.inner).lock_owned().await;
        let mut long = LongLine { output: self.clone(), inner };
        long.flush().await;
        long
    }

    /// Sends what a writer that was cancelled has left. Ends when the client is gone.
    pub async fn flush_rests(&self) {
        while !*self.gone.borrow() {
            self.left.notified().await;
            drop(self.long_line().await);
        }
    }

    /// Resolves when the client cannot be written to any more.
    pub async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`, so this ends only by the value.
        drop(gone.wait_for(|gone| *gone).await);
    }
}

/// A line that is sent in pieces. The output is taken until it is dropped.
pub struct LongLine {
    output: Output,
    inner: OwnedMutexGuard<Inner>,
}

impl fmt::Debug for LongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongLine").finish_non_exhaustive()
    }
}

impl LongLine {
    /// Sends a piece and leaves an empty buffer in its place. When the future is dropped, the piece counts as sent.
    pub async fn push(&mut self, piece: &mut Vec<u8>) {
        if *self.output.gone.borrow() {
            piece.clear();
            return;
        }
        std::mem::swap(&mut self.inner.rest, piece);
        self.flush().await;
        std::mem::swap(&mut self.inner.rest, piece);
    }

    /// Adds the end of the line without waiting; it is sent by [`Output::flush_rests`] or the next writer.
    pub fn end(mut self, end: &[u8]) {
        self.inner.rest.extend_from_slice(end);
    }

    async fn flush(&mut self) {
        if self.inner.flush().await.is_err() {
            self.inner.rest.clear();
            self.inner.done = 0;
            self.output.gone.send_replace(true);
        }
    }
}

impl Drop for LongLine {
    fn drop(&mut self) {
        if !self.inner.rest.is_empty() {
            self.output.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[test]
    fn a_write_that_is_given_up_tears_no_line() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (writer, mut reader) = duplex(4);
            let output = Output::new(writer);
            {
                let mut given_up = pin!(output.line(b"the first\n".to_vec()));
                let once = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending()));
                assert!(once.await, "the pipe is too small for the line");
            }
            let mut long = {
                // The rest of the first line has to go before the output is given out.
                let mut read = vec![0; 10];
                let (long, _) = tokio::join!(output.long_line(), reader.read_exact(&mut read));
                assert_eq!(read, b"the first\n");
                long
            };
            let mut piece = b"abc".to_vec();
            long.push(&mut piece).await;
            assert!(piece.is_empty());
            long.end(b"defg\n");
            let mut read = vec![0; 8];
            tokio::select! {
                () = output.flush_rests() => {}
                done = reader.read_exact(&mut read) => assert_eq!(done.unwrap(), 8),
            }
            assert_eq!(read, b"abcdefg\n");
            drop(reader);
            output.line(b"nobody\n".to_vec()).await;
            output.gone().await;
        });
    }
}
