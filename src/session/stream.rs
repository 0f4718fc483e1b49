//! Passes an answer that is too long to hold from a cell to the client, checked while it passes.
//!
//! What was sent on cannot be called back. So nothing after the end of the result is sent before the whole line
//! is known to be the answer; when it is not, or the call is stopped half way, the line is finished as valid JSON
//! with an id that nobody asked with. Clients report such a line and go on, and the call gets its own error.
//!
//! Neighbours: [`super::call`] starts it, [`super::link`] has read the start of the line. Never: holds more than a piece.

use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::link::{End, Link};
use super::tally::Misdeed;
use crate::mcp::envelope::{self, Id, Kind, Message};
use crate::mcp::frame::Piece;
use crate::mcp::output::{LongLine, Output};
use crate::mcp::reply;
use crate::mcp::scan::{Member, Scanner};

/// What may follow the result in the line: `jsonrpc`, `id`, and unknown members of a reasonable size.
const LONGEST_TAIL: usize = 64 * 1024;
/// How long a server may keep everybody else's answers waiting inside one line, when it is the one who is slow.
const PATIENCE: Duration = Duration::from_secs(2);
/// Patience that each byte earns back: 1 MiB a second is fast enough for ever.
const EARNED: Duration = Duration::from_micros(1);

/// An answer that is known to be right. Only its end is still to be sent.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) out: LongLine,
    pub(super) tail: Vec<u8>,
    pub(super) message: Message,
}

/// Why an answer was not finished.
#[derive(Debug)]
pub(super) enum Broken {
    /// The process ended in the middle of it, or wrote too much.
    End(End),
    /// What is wrong with it.
    Wrong(String),
}

/// The part that was sent; finishes the line when it is dropped early.
struct Sent {
    out: Option<LongLine>,
    scanner: Scanner,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(out) = self.out.take()
            && self.scanner.offset() > 0
        {
            let mut end = Vec::new();
            self.scanner.complete(1, &mut end);
            end.extend_from_slice(&reply::void_end());
            out.end(&end);
        }
    }
}

impl Sent {
    /// `piece` follows what was sent, and is known to be valid there.
    async fn push(&mut self, piece: &mut Vec<u8>, after: Scanner) {
        self.scanner = after;
        if let Some(out) = &mut self.out {
            out.push(piece).await;
        }
    }
}

/// Streams the line that the reader of `link` stands at. When the future is dropped the line is finished.
pub(super) async fn pass(link: &mut Link, output: &Output, asked: &[Id]) -> Result<Passed, Broken> {
    let mut sent = Sent { out: Some(output.long_line().await), scanner: Scanner::new() };
    let mut scanner = Scanner::new();
    let mut head = Vec::new();
    let mut tail: Option<(usize, Vec<u8>)> = None;
    let mut piece = Vec::new();
    let mut patience = PATIENCE;
    loop {
        let asked_at = Instant::now();
        let state = tokio::select! {
            biased;
            state = link.process.piece(&mut piece) => state,
            () = sleep_until(asked_at + patience) => {
                return Err(wrong(link, "it wrote the middle of a long answer too slowly"));
            }
        };
        let earned = EARNED.saturating_mul(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        patience = (patience.saturating_sub(asked_at.elapsed()) + earned).min(PATIENCE);
        if state == Piece::OverBudget {
            link.rules.tally.add(Misdeed::BrokenAnswer, b"more output than allowed");
            return Err(Broken::End(End::OverBudget));
        }
        let before = scanner.offset();
        if let Err(fault) = scanner.feed(&piece) {
            return Err(wrong(link, &format!("a long answer is not valid: {fault}")));
        }
        if head.is_empty() {
            head.clone_from(&piece);
            head.truncate(scanner.inside_from().unwrap_or(0));
        }
        match (&mut tail, body_end(&scanner)) {
            (Some((_, tail)), _) => tail.extend_from_slice(&piece),
            (None, None) => sent.push(&mut piece, scanner.clone()).await,
            (None, Some(end)) => {
                let rest = piece.split_off(end.saturating_sub(before).min(piece.len()));
                let mut after = sent.scanner.clone();
                if let Err(fault) = after.feed(&piece) {
                    return Err(wrong(link, &fault.to_string()));
                }
                sent.push(&mut piece, after).await;
                tail = Some((end, rest));
            }
        }
        if tail.as_ref().is_some_and(|(_, tail)| tail.len() > LONGEST_TAIL) {
            return Err(wrong(link, "too much follows the result of a long answer"));
        }
        match state {
            Piece::More => {}
            Piece::Last => break,
            Piece::Half => {
                link.rules.tally.add(Misdeed::BrokenAnswer, b"the output ended inside it");
                return Err(Broken::End(End::Closed));
            }
            Piece::OverBudget => return Err(Broken::End(End::OverBudget)),
        }
    }
    if let Err(fault) = scanner.finish() {
        return Err(wrong(link, &format!("a long answer is not valid: {fault}")));
    }
    let (from, mut tail) = tail.unwrap_or_default();
    let slice = |span: Range<usize>| {
        let in_tail = span.start.checked_sub(from).zip(span.end.checked_sub(from));
        in_tail.map_or_else(|| head.get(span), |(start, end)| tail.get(start..end)).unwrap_or_default()
    };
    let message = match envelope::read(&scanner, slice) {
        Ok(message) => message,
        Err(refusal) => return Err(wrong(link, &format!("a long answer is no message: {}", refusal.detail))),
    };
    if !matches!(&message.kind, Kind::Answer { id, .. } if asked.contains(id)) {
        return Err(wrong(link, "a long answer has an id that was not asked with"));
    }
    // A CR before the line's end belongs to the end, which is LF alone on this side.
    if tail.ends_with(b"\r") {
        tail.pop();
    }
    tail.push(b'\n');
    match sent.out.take() {
        Some(out) => Ok(Passed { out, tail, message }),
        None => Err(Broken::End(End::Closed)),
    }
}

/// Where the result or error ended, if it has.
fn body_end(scanner: &Scanner) -> Option<usize> {
    if matches!(scanner.inside(), Some(Member::Result | Member::Error)) {
        return None;
    }
    let spans = scanner.spans();
    spans.result.clone().or_else(|| spans.error.clone()).map(|span| span.end)
}

fn wrong(link: &mut Link, detail: &str) -> Broken {
    link.rules.tally.add(Misdeed::BrokenAnswer, detail.as_bytes());
    Broken::Wrong(detail.to_owned())
}
