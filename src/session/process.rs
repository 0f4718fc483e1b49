//! A cell as a conversation partner: lines in, lines out, stderr drained, bytes counted.
//!
//! Neighbours: [`super::link`] talks through it. Never: reads a message, or decides when it is over.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::{JoinHandle, consume_budget};
use tokio::time::{Instant, sleep_until};

use super::secrets::{Mask, Masking};
use crate::launch::LaunchError;
use crate::launch::cell::{Cell, Ended};
use crate::launch::handover::Handover;
use crate::launch::launcher::Weight;
use crate::launch::places::Ahead;
use crate::launch::supervisor::Launcher;
use crate::mcp::frame::{Frame, Lines, Piece};
use crate::outcome::{Changes, Layer, Receipt, SecretUse, Traffic, Violation};
use crate::policy::Policy;
use crate::policy::connect::as_named;

/// Of stderr, this many lines and bytes are kept: the last ones.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 8 * 1024;
/// Lines that may wait for a server that does not read. Beyond it nothing more is read from that server,
/// which otherwise could fill the supervisor's memory with answers to its pings.
const MOST_QUEUED: usize = 256;
/// How long after the end of a cell its last bytes may still be on their way.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The last bytes of stderr.
#[derive(Debug, Default)]
struct Tail {
    last: VecDeque<u8>,
    /// How much there was, and how much of that is a flood.
    total: u64,
    flood: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.last.extend(bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
        let over = self.last.len().saturating_sub(TAIL_BYTES);
        self.last.drain(..over);
    }

    /// As often as it could have filled the output limit, which ends a flood of stdout.
    fn violation(&self) -> Option<Violation> {
        let count = self.total / self.flood.max(1);
        let rule = "the bound on output, which `limits.output` sets".to_owned();
        let found = || Violation::of_toolcell(Layer::Output, "flood stderr", rule);
        (count > 0).then(|| Violation { count, value: Some(self.flood), ..found() })
    }

    fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
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
    fn has_work(&self) -> bool {
        self.stdin.is_some() && (self.closing || !self.queue.is_empty())
    }

    /// One write, or the end of stdin. Dropping it loses nothing.
    async fn advance(&mut self) {
        let Some(stdin) = self.stdin.as_mut() else { return };
        let Some(line) = self.queue.front() else {
            if self.closing {
                self.stdin = None;
            }
            return;
        };
        let rest = line.get(self.done..).unwrap_or_default();
        match stdin.write(rest).await {
            Ok(count) => {
                self.done += count;
                self.sent = self.sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                if self.done >= line.len() {
                    self.done = 0;
                    self.queue.pop_front();
                }
            }
            // The server reads no more. What that means shows in what it still writes.
            Err(_) => {
                self.stdin = None;
                self.queue.clear();
            }
        }
    }

    /// Writes as long as there is something to write; then never resolves. Dropping it loses nothing.
    async fn drive(&mut self) -> Infallible {
        while self.has_work() {
            self.advance().await;
        }
        pending().await
    }

    /// Writes until the queue is short again, if it is not.
    async fn relieve(&mut self) {
        while self.stdin.is_some() && self.queue.len() > MOST_QUEUED {
            self.advance().await;
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
    /// What takes secrets out of all that comes from the cell, once there are any.
    mask: Rc<OnceCell<Rc<Mask>>>,
    /// The last line, without them,
    masked: Vec<u8>,
    /// or the long one that is being read.
    masking: Option<Masking>,
}

/// What is left of a cell.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) ended: Ended,
    pub(super) receipt: Receipt,
    pub(super) stderr: Vec<String>,
    /// It ended by itself, before it was killed.
    pub(super) by_itself: bool,
    /// The secrets that it had.
    pub(super) secrets: Vec<SecretUse>,
    /// What it changed, once that was reviewed.
    pub(super) changes: Option<Changes>,
    /// What went through its doors, if it has any.
    pub(super) traffic: Option<Traffic>,
}

impl Process {
    /// Takes over a cell. `None` if it has no pipes.
    pub(super) fn new(mut cell: Cell, limit: usize, budget: u64, mask: Option<Rc<Mask>>) -> Option<Self> {
        let stdout = cell.stdout.take()?;
        let mut stderr = cell.stderr.take()?;
        let feed = Feed {
            stdin: Some(cell.stdin.take()?),
            queue: VecDeque::new(),
            done: 0,
            closing: false,
            sent: 0,
        };
        let tail = Rc::new(RefCell::new(Tail { flood: budget, ..Tail::default() }));
        let kept = Rc::clone(&tail);
        let mask = Rc::new(mask.map_or_else(OnceCell::new, OnceCell::from));
        let (mut masking, known) = (None, Rc::clone(&mask));
        // A task of its own, so that a full stderr never blocks the server while its answer is on its way.
        let drain = tokio::task::spawn_local(async move {
            let mut room = vec![0; TAIL_BYTES];
            while let Ok(count) = stderr.read(&mut room).await
                && count > 0
            {
                let said = room.get(..count).unwrap_or_default();
                if masking.is_none() {
                    masking = known.get().map(Masking::of_stderr);
                }
                match &mut masking {
                    None => kept.borrow_mut().push(said),
                    Some(masking) => {
                        let mut out = Vec::new();
                        masking.push(said, false, &mut out);
                        kept.borrow_mut().push(&out);
                    }
                }
            }
            if let Some(masking) = &mut masking {
                let mut out = Vec::new();
                masking.push(&[], true, &mut out);
                kept.borrow_mut().push(&out);
            }
        });
        let lines = Lines::new(stdout, limit, budget);
        Some(Self { cell, lines, feed, tail, drain, mask, masked: Vec::new(), masking: None })
    }

    /// Puts a line in the queue for the server.
    pub(super) fn send(&mut self, line: Vec<u8>) {
        if self.feed.stdin.is_some() {
            self.feed.queue.push_back(line);
        }
    }

    /// The next thing the server wrote. What is queued for it is written meanwhile.
    pub(super) async fn next(&mut self) -> Frame<'_> {
        // Lines from the buffer cost no waiting, and a flood of tiny ones must not keep timers and others from running.
        consume_budget().await;
        self.feed.relieve().await;
        let frame = tokio::select! {
            frame = self.lines.next() => frame.unwrap_or(Frame::End),
            never = self.feed.drive() => match never {},
        };
        match self.mask.get() {
            None => frame,
            Some(mask) => without_secrets(mask, frame, &mut self.masked),
        }
    }

    /// Is there a whole line that [`Process::next`] has without waiting?
    pub(super) fn has_line(&self) -> bool {
        self.feed.queue.len() <= MOST_QUEUED && self.lines.has_line()
    }

    /// The next piece of a long line.
    pub(super) async fn piece(&mut self, piece: &mut Vec<u8>) -> Piece {
        let state = tokio::select! {
            state = self.lines.piece(piece) => state.unwrap_or(Piece::Half),
            never = self.feed.drive() => match never {},
        };
        if let Some(mask) = self.mask.get() {
            self.masking.get_or_insert_with(|| Masking::of_line(mask)).exchange(piece, state);
            self.masking.take_if(|_| state != Piece::More);
        }
        state
    }

    /// What takes secrets out of words about the call.
    pub(super) fn mask(&self) -> Option<&Mask> {
        self.mask.get().map(|mask| &**mask)
    }

    /// The same, to be had after the cell.
    pub(super) fn shared_mask(&self) -> Option<Rc<Mask>> {
        self.mask.get().cloned()
    }

    /// What the cell was refused so far.
    pub(super) fn refused(&self) -> Vec<Violation> {
        let mut refused = self.cell.refusals();
        refused.extend(self.tail.borrow().violation());
        self.as_told(refused)
    }

    /// What of that one record has for all calls to come.
    pub(super) fn take_refused(&self, receipt: &mut Receipt) -> Vec<Violation> {
        self.as_told(self.cell.take_refusals(receipt))
    }

    fn as_told(&self, mut refused: Vec<Violation>) -> Vec<Violation> {
        as_named(&self.cell.policy().network, &mut refused);
        if let Some(mask) = self.mask.get() {
            mask.violations(&mut refused, false);
        }
        refused
    }

    /// Stops the cell's processes.
    pub(super) fn pause(&self) {
        self.cell.pause();
    }

    /// Lets them go on.
    pub(super) fn resume(&self) {
        self.cell.resume();
    }

    /// What went through its doors since it was last asked, if it has any.
    pub(super) fn take_traffic(&self) -> Option<Traffic> {
        self.cell.traffic()
    }

    /// What was enforced.
    pub(super) const fn receipt(&self) -> &Receipt {
        &self.cell.receipt
    }

    /// What was started before its call goes on, for that or to its end, as fast as any other.
    pub(super) fn prefer(&self, launcher: &Launcher) {
        launcher.weigh(&self.cell, Weight::Usual);
        self.cell.resume();
    }

    /// Puts what its call is granted into the cell of a server that was started before.
    pub(super) async fn put_in(
        &mut self,
        launcher: &Launcher,
        ahead: &Ahead,
        policy: &Arc<Policy>,
    ) -> Result<(), LaunchError> {
        launcher.put_in(&mut self.cell, ahead).await?;
        self.cell.is_of(policy);
        Ok(())
    }

    /// Gives the doors of a server that was started before what they put in for its call.
    pub(super) fn give(&mut self, handover: &Handover, mask: &Rc<Mask>) -> crate::sys::Result<()> {
        // Before anything of it can come back.
        let _the_only_one = self.mask.set(Rc::clone(mask)).is_ok();
        self.cell.give(handover)
    }

    /// The call of a server that was started before begins.
    pub(super) fn begin(&mut self, budget: u64) {
        self.cell.begin();
        self.refill(budget);
    }

    /// What the cell holds now, in bytes, if a cgroup counts that.
    pub(super) fn memory(&self) -> Option<u64> {
        self.cell.memory()
    }

    /// From here on it may write this much.
    pub(super) fn refill(&mut self, budget: u64) {
        self.lines.refill(budget);
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
        let mask = self.mask.get().cloned();
        let mut late = |line: &[u8]| match mask.as_ref().and_then(|mask| mask.line(line)) {
            None => late(line),
            Some(masked) => late(&masked),
        };
        let until = Instant::now() + grace;
        let mut open = true;
        let early = loop {
            consume_budget().await;
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
        ended.violations.extend(self.cell.denied().await);
        as_named(&self.cell.policy().network, &mut ended.violations);
        let traffic = self.cell.traffic();
        ended.usage.bytes_in = self.feed.sent;
        ended.usage.bytes_out = self.lines.total();
        let stderr = self.tail.borrow().lines();
        ended.violations.extend(self.tail.borrow().violation());
        let mut secrets = Vec::new();
        if let Some(mask) = &mask {
            mask.violations(&mut ended.violations, true);
            secrets = mask.uses();
        }
        let receipt = self.cell.receipt.clone();
        Remains { ended, receipt, stderr, by_itself, secrets, changes: None, traffic }
    }
}

/// A frame without the secrets in it; what is only the start of a line keeps what may be the start of one to itself.
fn without_secrets<'f>(mask: &Mask, frame: Frame<'f>, masked: &'f mut Vec<u8>) -> Frame<'f> {
    let changed = match &frame {
        Frame::Line(line) | Frame::Half(line) => mask.line(line),
        Frame::Long(start) => Some(mask.start(start)),
        Frame::OverBudget | Frame::End => None,
    };
    let Some(changed) = changed else { return frame };
    *masked = changed;
    match frame {
        Frame::Line(_) => Frame::Line(masked),
        Frame::Half(_) => Frame::Half(masked),
        Frame::Long(_) => Frame::Long(masked),
        Frame::OverBudget | Frame::End => frame,
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
        assert_eq!(tail.last.len(), TAIL_BYTES);
    }
}
