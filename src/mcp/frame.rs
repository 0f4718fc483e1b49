//! A bounded reader of lines: LF ends a line, a CR before it is not part of it.
//!
//! It never holds more than its limit, knows how many bytes it has read, and hands a line that is longer over in pieces.
//!
//! Neighbours: [`crate::session`] reads the client and every cell with it. Never: looks into a line.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt as _};

const FIRST_BUFFER: usize = 16 * 1024;
/// Once a read has filled that: as much as a pipe holds.
const SECOND_BUFFER: usize = 64 * 1024;
/// The most that one read asks for.
const READ: usize = 256 * 1024;

/// What a reader found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// The start of a line that is longer than the limit; the reader has not moved past it.
    Long(&'a [u8]),
    /// The stream has ended inside a line.
    Half(&'a [u8]),
    /// More bytes than the budget allows.
    OverBudget,
    /// The stream has ended.
    End,
}

/// A piece of a long line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The line goes on.
    More,
    /// This was its last piece.
    Last,
    /// The stream has ended inside the line.
    Half,
    /// More bytes than the budget allows.
    OverBudget,
}

/// Reads lines.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes after `start` that are known to hold no line end.
    searched: usize,
    limit: usize,
    budget: u64,
    total: u64,
    skipping: bool,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// A reader of lines up to `limit` bytes, of at most `budget` bytes in all.
    pub const fn new(reader: R, limit: usize, budget: u64) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
            limit,
            budget,
            total: 0,
            skipping: false,
            ended: false,
        }
    }

    /// Allows at most `budget` bytes from here on.
    pub const fn refill(&mut self, budget: u64) {
        self.budget = self.total.saturating_add(budget);
    }

    /// Bytes read so far.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Changes the limit of a line.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Has a whole line been read already?
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.unsearched()).is_some()
    }

    /// The next line. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub async fn next(&mut self) -> io::Result<Frame<'_>> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', self.unsearched()) {
                let line = self.start..self.start + self.searched + found;
                self.advance(line.end + 1);
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                return Ok(Frame::Line(without_cr(self.slice(line))));
            }
            self.searched = self.end - self.start;
            if self.skipping {
                self.advance(self.end);
            } else if self.searched > self.limit {
                return Ok(Frame::Long(self.slice(self.start..self.end)));
            }
            if self.ended {
                let rest = self.start..self.end;
                self.advance(self.end);
                return Ok(if rest.is_empty() { Frame::End } else { Frame::Half(self.slice(rest)) });
            }
            if self.total > self.budget {
                return Ok(Frame::OverBudget);
            }
            self.read().await?;
            if self.total > self.budget {
                return Ok(Frame::OverBudget);
            }
        }
    }

    /// Drops the rest of the line that [`Frame::Long`] has shown.
    pub const fn skip_line(&mut self) {
        self.skipping = true;
    }

    /// Moves the next piece of the current line into `piece`, whose old content is dropped.
    /// Dropping the future loses nothing as long as `piece` is not used.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub async fn piece(&mut self, piece: &mut Vec<u8>) -> io::Result<Piece> {
        if self.start == self.end && !self.ended {
            // The buffer that came back in exchange is empty. It is filled where it has room, not zeroed first.
            self.buffer.clear();
            self.buffer.reserve(READ);
            let count = self.reader.read_buf(&mut self.buffer).await?;
            self.count(count);
        }
        piece.clear();
        if self.total > self.budget {
            return Ok(Piece::OverBudget);
        }
        let all = self.start..self.end;
        let (taken, next, state) = match memchr::memchr(b'\n', self.slice(all.clone())) {
            Some(found) => (all.start..all.start + found, all.start + found + 1, Piece::Last),
            None if self.ended => (all.clone(), all.end, Piece::Half),
            None => (all.clone(), all.end, Piece::More),
        };
        if state == Piece::More && all.start == 0 {
            // The whole buffer changes hands, so that a long line is not copied once more.
            std::mem::swap(piece, &mut self.buffer);
            piece.truncate(all.end);
        } else {
            piece.extend_from_slice(self.slice(taken));
        }
        self.advance(next);
        Ok(state)
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() == self.end {
            let room = self.end.clamp(FIRST_BUFFER, READ);
            self.buffer.resize(self.buffer.capacity().max(self.end + room), 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let room = room.len().min(READ);
        let count =
            self.reader.read(self.buffer.get_mut(self.end..self.end + room).unwrap_or_default()).await?;
        self.count(count);
        if self.end == self.buffer.len() && self.end < SECOND_BUFFER {
            self.buffer.resize(SECOND_BUFFER, 0);
        }
        Ok(())
    }

    /// So many bytes were read behind `end`; none is the end of the stream.
    fn count(&mut self, count: usize) {
        self.end += count;
        self.total = self.total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.ended = count == 0;
    }

    fn advance(&mut self, to: usize) {
        self.start = to;
        self.searched = 0;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    fn unsearched(&self) -> &[u8] {
        self.slice(self.start + self.searched..self.end)
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Gives back the memory of long lines, when nothing is buffered.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > READ {
            self.buffer = Vec::new();
            self.start = 0;
            self.end = 0;
        }
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// Gives its pieces one a read.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(into.remaining()));
                into.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn lines(text: &[u8], size: usize, limit: usize, budget: u64) -> Lines<Pieces> {
        Lines::new(Pieces(text.chunks(size).map(<[u8]>::to_vec).collect()), limit, budget)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(text in "[a-c\r\n]{0,60}", size in 1usize..20) {
            let mut reader = lines(text.as_bytes(), size, 1000, u64::MAX);
            let mut expected: Vec<&str> = text.split('\n').collect();
            let half = expected.pop().unwrap();
            block_on(async {
                for line in expected {
                    let line = line.strip_suffix('\r').unwrap_or(line);
                    assert_eq!(reader.next().await.unwrap(), Frame::Line(line.as_bytes()));
                }
                if !half.is_empty() {
                    assert_eq!(reader.next().await.unwrap(), Frame::Half(half.as_bytes()));
                }
                assert_eq!(reader.next().await.unwrap(), Frame::End);
            });
        }

        #[test]
        fn a_long_line_comes_in_pieces_or_is_skipped(length in 61usize..200, size in 1usize..40, skip: bool, second in "[a-c]{0,5}") {
            let long = "x".repeat(length);
            let mut reader = lines(format!("{long}\n{second}\n").as_bytes(), size, 20, u64::MAX);
            block_on(async {
                assert!(matches!(reader.next().await.unwrap(), Frame::Long(_)));
                if skip {
                    reader.skip_line();
                } else {
                    let mut whole = Vec::new();
                    let mut piece = Vec::new();
                    loop {
                        let state = reader.piece(&mut piece).await.unwrap();
                        whole.extend_from_slice(&piece);
                        if state == Piece::Last {
                            break;
                        }
                        assert_eq!(state, Piece::More);
                    }
                    assert_eq!(whole, long.as_bytes());
                }
                assert_eq!(reader.next().await.unwrap(), Frame::Line(second.as_bytes()));
                assert_eq!(reader.next().await.unwrap(), Frame::End);
            });
        }
    }

    #[test]
    fn a_line_that_was_read_is_known_and_much_at_once_makes_room_for_more() {
        block_on(async {
            let mut reader = lines(b"one\ntwo\nth", 100, 100, u64::MAX);
            assert!(!reader.has_line());
            assert_eq!(reader.next().await.unwrap(), Frame::Line(b"one"));
            assert!(reader.has_line());
            assert_eq!(reader.next().await.unwrap(), Frame::Line(b"two"));
            assert!(!reader.has_line());
            assert_eq!(reader.buffer.len(), FIRST_BUFFER);
            let mut reader = lines(&[b'\n'; FIRST_BUFFER], FIRST_BUFFER, 100, u64::MAX);
            assert_eq!(reader.next().await.unwrap(), Frame::Line(b""));
            assert_eq!(reader.buffer.len(), SECOND_BUFFER);
        });
    }

    #[test]
    fn the_budget_ends_a_flood() {
        block_on(async {
            let mut reader = lines(b"one\ntwo\nthree\nfour\n", 4, 100, 9);
            assert_eq!(reader.next().await.unwrap(), Frame::Line(b"one"));
            assert_eq!(reader.next().await.unwrap(), Frame::Line(b"two"));
            assert_eq!(reader.next().await.unwrap(), Frame::OverBudget);
        });
    }
}
