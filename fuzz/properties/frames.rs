//! Lines as they come, in any pieces: none is lost, changed or made up, and a budget ends them.
//!
//! The first bytes of an input say how it comes: the size of a read, the longest line, the budget (0: none), and which
//! long lines are skipped. Never: knows how the reader holds its bytes.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use toolcell::mcp::frame::{Frame, Lines, Piece};

/// Gives a few bytes at each read.
struct Trickle<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Trickle<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (given, rest) = self.rest.split_at(self.size.min(into.remaining()).min(self.rest.len()));
        into.put_slice(given);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// The value of a future that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}

/// The first line of a text without its end, and what follows it; whether it had an end.
fn cut(text: &[u8]) -> (&[u8], &[u8], bool) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..], true),
        None => (text, &[], false),
    }
}

/// Reads all lines of an input, and compares each with the text.
pub fn check(data: &[u8]) {
    let [size, limit, low, high, skips, text @ ..] = data else { return };
    let budget = match u16::from_le_bytes([*low, *high]) {
        0 => u64::MAX,
        budget => u64::from(budget),
    };
    let reader = Trickle { rest: text, size: usize::from(*size) + 1 };
    let mut lines = Lines::new(reader, usize::from(*limit), budget);
    let mut rest = text;
    let mut long_lines = 0;
    loop {
        let (line, after, ended) = cut(rest);
        let next = match now(lines.next()).unwrap() {
            Frame::Line(found) => {
                assert!(ended, "a line without an end is not whole");
                assert_eq!(found, line.strip_suffix(b"\r").unwrap_or(line));
                after
            }
            Frame::Long(start) => {
                assert!(start.len() > usize::from(*limit) && line.starts_with(start));
                long_lines += 1;
                if skips & (1 << (long_lines % 8)) != 0 {
                    lines.skip_line();
                } else if !in_pieces(&mut lines, line, ended) {
                    break;
                }
                after
            }
            Frame::Half(found) => {
                assert!(!ended && !found.is_empty());
                assert_eq!(found, line);
                after
            }
            Frame::OverBudget => break,
            Frame::End => {
                assert_eq!(rest, b"");
                assert_eq!(lines.total(), u64::try_from(text.len()).unwrap());
                return;
            }
        };
        rest = next;
    }
    assert!(lines.total() > budget);
}

/// The pieces of a long line make the line. `false`: the budget ended it.
fn in_pieces(lines: &mut Lines<Trickle<'_>>, line: &[u8], ended: bool) -> bool {
    let (mut whole, mut piece) = (Vec::new(), Vec::new());
    loop {
        let state = now(lines.piece(&mut piece)).unwrap();
        whole.extend_from_slice(&piece);
        match state {
            Piece::More => assert!(line.starts_with(&whole)),
            Piece::OverBudget => return false,
            Piece::Last | Piece::Half => {
                assert_eq!((&*whole, state == Piece::Last), (line, ended));
                return true;
            }
        }
    }
}
