//! A cell as a conversation partner: lines in, lines out, stderr drained, bytes counted.
//!
//! Neighbours: [`super::link`] talks through it. Never: reads a message, or decides when it is over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::launch::supervisor::{Cell, Ended};
use crate::mcp::frame::{Frame, Lines, Piece};
use crate::outcome::Receipt;

/// Of stderr, this many lines and bytes are kept: the last ones.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 8 * 1024;
/// How long after the end of a cell its last bytes may still be on their way.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
        let over = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..over);
    }

    fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).map(|line| (*line).to_owned()).collect()
    }
}

/// What is on its way to the cell's stdin.
#[derive(Debug)]
struct Feed {
    stdin: Option<pipe::Sender>,
    queue: VecDeque<Vec<u8>>,
    done: usize,
    closing: bool,
    sent: u64,
}

impl Feed {
    /// Writes as long as there is something to write; then never resolves. Dropping it loses nothing.
    async fn drive(&mut self) -> std::convert::Infallible {
        loop {
            let rest = self.queue.front().and_then(|line| line.get(self.done..)).unwrap_or_default();
            let Some(stdin) = self.stdin.as_mut() else {
                self.queue.clear();
                return pending().await;
            };
            if rest.is_empty() {
                self.done = 0;
                if self.queue.pop_front().is_none() {
                    if !self.closing {
                        return pending().await;
                    }
                    self.stdin = None;
                }
                continue;
            }
            match stdin.write(rest).await {
                Ok(count) => {
                    self.done += count;
                    self.sent = self.sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                // The server reads no more. What that means shows in what it still writes.
                Err(_) => self.stdin = None,
            }
        }
    }
}

/// One running cell.
#[derive(Debug)]
pub(super) struct Process {
    cell: Cell,
    lines: Lines<pipe::Receiver>,
    feed: Feed,
    tail: Rc<RefCell<Tail>>,
    drain: JoinHandle<()>,
}

/// What is left of a cell.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) ended: Ended,
    pub(super) receipt: Receipt,
    pub(super) stderr: Vec<String>,
    /// It ended by itself, before it was killed.
    pub(super) by_itself: bool,
}

impl Process {
    /// Takes over a cell. `None` if it has no pipes.
    pub(super) fn new(mut cell: Cell, limit: usize, budget: u64) -> Option<Self> {
        let stdout = cell.stdout.take()?;
        let mut stderr = cell.stderr.take()?;
        let feed = Feed {
            stdin: Some(cell.stdin.take()?),
            queue: VecDeque::new(),
            done: 0,
            closing: false,
            sent: 0,
        };
        let tail = Rc::new(RefCell::new(Tail::default()));
        let kept = Rc::clone(&tail);
        // A task of its own, so that a full stderr never blocks the server while its answer is on its way.
        let drain = tokio::task::spawn_local(async move {
            let mut room = vec![0; TAIL_BYTES];
            while let Ok(count) = stderr.read(&mut room).await
                && count > 0
            {
                kept.borrow_mut().push(room.get(..count).unwrap_or_default());
            }
        });
        Some(Self { cell, lines: Lines::new(stdout, limit, budget), feed, tail, drain })
    }

    /// Puts a line in the queue for the server.
    pub(super) fn send(&mut self, line: Vec<u8>) {
        self.feed.queue.push_back(line);
    }

    /// The next thing the server wrote. What is queued for it is written meanwhile.
    pub(super) async fn next(&mut self) -> Frame<'_> {
        tokio::select! {
            frame = self.lines.next() => frame.unwrap_or(Frame::End),
            never = self.feed.drive() => match never {},
        }
    }

    /// The next piece of a long line.
    pub(super) async fn piece(&mut self, piece: &mut Vec<u8>) -> Piece {
        tokio::select! {
            state = self.lines.piece(piece) => state.unwrap_or(Piece::Half),
            never = self.feed.drive() => match never {},
        }
    }

    pub(super) const fn set_limit(&mut self, limit: usize) {
        self.lines.set_limit(limit);
    }

    pub(super) const fn skip_line(&mut self) {
        self.lines.skip_line();
    }

    /// Ends the server: closes its stdin, gives it `grace` to leave by itself, kills it, and waits until
    /// every process of the cell is gone. `late` sees each line that it still writes.
    pub(super) async fn reap(mut self, grace: Duration, mut late: impl FnMut(&[u8])) -> Remains {
        self.feed.closing = true;
        let until = Instant::now() + grace;
        let mut open = true;
        let early = loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => break None,
                ended = self.cell.ended() => break Some(ended),
                frame = self.lines.next(), if open => match frame {
                    Ok(Frame::Line(line)) => late(line),
                    Ok(Frame::Long(_)) => self.lines.skip_line(),
                    Ok(Frame::OverBudget) => break None,
                    Ok(Frame::Half(_) | Frame::End) | Err(_) => open = false,
                },
                never = self.feed.drive() => match never {},
            }
        };
        let by_itself = early.is_some();
        let mut ended = match early {
            Some(ended) => ended,
            None => {
                self.cell.kill();
                self.cell.ended().await
            }
        };
        // All writers are dead, so both end by themselves; the bound is for a pipe that was passed on to a stranger.
        let last_words = async {
            open &= by_itself;
            while open {
                match self.lines.next().await {
                    Ok(Frame::Line(line)) => late(line),
                    Ok(Frame::Long(_)) => self.lines.skip_line(),
                    Ok(Frame::Half(_) | Frame::OverBudget | Frame::End) | Err(_) => open = false,
                }
            }
            (&mut self.drain).await
        };
        tokio::select! {
            _ = last_words => {}
            () = sleep_until(Instant::now() + LAST_WORDS) => {}
        }
        ended.usage.bytes_in = self.feed.sent;
        ended.usage.bytes_out = self.lines.total();
        let stderr = self.tail.borrow().lines();
        Remains { ended, receipt: self.cell.receipt.clone(), stderr, by_itself }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_in_lines_and_bytes() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        assert_eq!(tail.lines().len(), TAIL_LINES);
        assert_eq!(tail.lines().last().unwrap(), "line 99");
        tail.push(&vec![b'x'; 3 * TAIL_BYTES]);
        assert_eq!(tail.0.len(), TAIL_BYTES);
    }
}
