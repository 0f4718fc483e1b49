//! Carries stdin, stdout and stderr of one command between the caller's descriptors and the cell's pipes, up to the
//! deadline and the output cap, in the single thread that also launched it.
//!
//! Neighbours: `commands::exec` uses it; `session` has its own relay for MCP. Never: looks at the bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::launch::spawn::Started;
use crate::launch::{Kept, LaunchError, REPORT_LIMIT, Report};
use crate::outcome::{Limit, Receipt, Violation};
use crate::plan::Plan;
use crate::sys::descriptor::{self, Interest};
use crate::sys::process::{self, Exit};
use crate::sys::{Errno, Result, socket};
use crate::watch::denials::{Cell, Following};
use crate::watch::refusals::{Look, Refusals};
use crate::watch::traffic::Doorway;

/// The supervisor's ends of the three pipes.
#[derive(Debug)]
pub struct Ends {
    /// Writing end of the payload's stdin.
    pub stdin: OwnedFd,
    /// Reading end of its stdout.
    pub stdout: OwnedFd,
    /// Reading end of its stderr.
    pub stderr: OwnedFd,
}

/// How the command ended and what was seen on the way.
#[derive(Debug, Default)]
pub struct Passed {
    /// The payload's end, as init reported it.
    pub exit: Option<Exit>,
    /// A step that failed, before or at exec.
    pub failed: Option<LaunchError>,
    /// What was enforced.
    pub receipt: Option<Receipt>,
    /// Calls that the filter refused.
    pub refusals: Option<Refusals>,
    listener: Option<OwnedFd>,
    /// What Landlock refused, as far as it was told.
    pub denied: Vec<Violation>,
    /// What was told of doors, if there are any.
    pub doors: Option<Doorway>,
    /// Doors at which nobody is, of a cell that is only looked at.
    unattended: Vec<OwnedFd>,
    /// When the cell was ready, and how often Landlock had refused something to init by then.
    ready: Option<(Instant, u32)>,
    /// When the last process of the cell was gone.
    pub gone: Option<Instant>,
    /// No process was left but init when it reported that.
    pub alone: bool,
    /// The scratch directory, for its usage.
    pub scratch: Option<OwnedFd>,
    /// What it wrote to overlays, and what these lie over, if that is to be reviewed.
    pub changes: Option<(OwnedFd, Kept)>,
    /// The limit that stopped it: time or output.
    pub stopped: Option<Limit>,
    /// Bytes to stdin.
    pub bytes_in: u64,
    /// Bytes from stdout and stderr.
    pub bytes_out: u64,
    /// CPU time of all processes of the cell.
    pub cpu_us: Option<u64>,
    /// The end of what went to stderr.
    pub stderr: Vec<u8>,
}

/// How much of stderr's end is kept.
const TAIL: usize = 8 * 1024;

/// One direction. Closed when `from` ends or `to` is gone.
struct Stream<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    open: bool,
    /// splice(2) works for this pair; else copy through a buffer.
    splice: bool,
    moved: u64,
    /// The end of what was copied, for a stream that is not spliced.
    tail: Vec<u8>,
}

const CHUNK: usize = 256 * 1024;

impl<'a> Stream<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self { from, to, open: true, splice: true, moved: 0, tail: Vec::new() }
    }

    /// Moves what is there; at most `left` bytes. Blocks on a slow reader, which is the back-pressure.
    fn pump(&mut self, left: u64) -> Result<()> {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        if self.splice {
            match descriptor::splice(self.from, self.to, length, true) {
                Ok(0) => self.open = false,
                Ok(count) => self.moved += count as u64,
                Err(Errno(libc::EINVAL)) => self.splice = false,
                Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
                Err(Errno(libc::EPIPE | libc::EIO)) => self.open = false,
                Err(errno) => return Err(errno),
            }
            if self.splice {
                return Ok(());
            }
        }
        let mut buffer = [0; 16 * 1024];
        let length = length.min(buffer.len());
        let count = match descriptor::read(self.from, buffer.get_mut(..length).unwrap_or_default()) {
            Ok(count) => count,
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return Ok(()),
            Err(_) => 0,
        };
        if count == 0 {
            self.open = false;
            return Ok(());
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        self.tail.extend_from_slice(rest);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        while !rest.is_empty() {
            match descriptor::write(self.to, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno(libc::EINTR)) => {}
                Err(Errno(libc::EAGAIN)) => {
                    let mut wait = [Interest { fd: Some(self.to), events: libc::POLLOUT, ready: 0 }];
                    descriptor::poll(&mut wait, None)?;
                }
                Err(_) => {
                    self.open = false;
                    break;
                }
            }
        }
        self.moved += count as u64;
        Ok(())
    }
}

/// Who is told of refusals beside the filter's listener.
#[derive(Debug, Default)]
pub struct Told<'a> {
    /// What Landlock refuses.
    pub denials: Option<&'a mut Following>,
    /// The doors of the cell, if it has any.
    pub doors: Option<Doorway>,
}

/// Runs until every process of the cell is dead. Once init is the only one left, `last` is called, if that is ever known:
/// what it does is done while the kernel takes the cell down.
///
/// # Errors
/// A failing system call of the supervisor itself; the cell is killed then.
pub fn pass(
    started: &Started,
    plan: &Plan,
    ends: Ends,
    time: Duration,
    output: u64,
    Told { mut denials, doors }: Told<'_>,
    last: impl FnOnce(&Passed),
) -> Result<Passed> {
    if let Some(denials) = &mut denials {
        denials.expect(started.pid);
    }
    let channel = doors.as_ref().map(Doorway::channel).transpose()?;
    let refusals = Refusals::new(plan, started.pid, None, channel);
    let mut passed = Passed { refusals: Some(refusals), doors, ..Passed::default() };
    let answer = relay(started, ends, (time, output), denials.as_deref_mut(), &mut passed, last);
    if answer.is_err() || passed.stopped.is_some() {
        started.end()?;
    }
    let reaped = process::wait(started.pid)?;
    started.end_the_rest(&started.others);
    passed.gone = Some(Instant::now());
    passed.cpu_us = Some(reaped.cpu_us);
    passed.listener = None;
    passed.unattended.clear();
    drain_channel(started, &mut passed)?;
    if let (Some(refusals), Some(receipt)) = (&passed.refusals, &mut passed.receipt) {
        refusals.confess(receipt);
    }
    if let Some(doors) = &mut passed.doors {
        doors.conclude(passed.receipt.as_mut())?;
    }
    // Nothing of the cell is left, and the listener, which belongs to it too, is closed.
    if let (Some(denials), Some(receipt), Some((began, own))) = (denials, &mut passed.receipt, passed.ready) {
        passed.denied = denials.conclude(Cell { init: started.pid, own, began }, receipt)?;
    }
    if passed.exit.is_none() && passed.stopped.is_none() {
        if passed.receipt.is_none() && passed.failed.is_none() {
            // Nothing of the payload ran, so this is not the payload's exit.
            passed.failed = Some(LaunchError::unfinished());
        }
        passed.exit = Some(reaped.exit);
    }
    answer.map(|()| passed)
}

fn relay(
    started: &Started,
    ends: Ends,
    (time, output): (Duration, u64),
    mut denials: Option<&mut Following>,
    passed: &mut Passed,
    last: impl FnOnce(&Passed),
) -> Result<()> {
    let mut last = Some(last);
    let deadline = Instant::now() + time;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut sink = Some(ends.stdin);
    let mut out = Stream::new(ends.stdout.as_fd(), stdout.as_fd());
    // Copied, because its end is kept for the record.
    let mut err = Stream { splice: false, ..Stream::new(ends.stderr.as_fd(), stderr.as_fd()) };
    let mut into_splice = true;
    let (mut alive, mut reporting) = (true, true);
    // When the filter's listener is looked at again, if that is not now.
    let mut look_at: Option<Instant> = None;
    'streams: while alive || out.open || err.open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            passed.stopped = Some(Limit::Time);
            break;
        }
        let wanted = |open: bool, fd| open.then_some(fd);
        let mut interests = [
            (wanted(reporting, started.channel.as_fd()), libc::POLLIN),
            (wanted(alive, started.pidfd.as_fd()), libc::POLLIN),
            (wanted(sink.is_some(), stdin.as_fd()), libc::POLLIN),
            (wanted(out.open, out.from), libc::POLLIN),
            (wanted(err.open, err.from), libc::POLLIN),
            // Nobody reads the payload's stdin any more: an event (POLLERR) without being asked for.
            (sink.as_ref().map(AsFd::as_fd), 0),
            (passed.listener.as_ref().map(AsFd::as_fd).filter(|_| look_at.is_none()), libc::POLLIN),
            (denials.as_deref().map(Following::socket), libc::POLLIN),
            (passed.doors.as_ref().and_then(Doorway::socket), libc::POLLIN),
        ]
        .map(|(fd, events)| Interest { fd, events, ready: 0 });
        let pause = look_at.map(|at| at.saturating_duration_since(Instant::now()));
        descriptor::poll(&mut interests, Some(pause.map_or(left, |pause| pause.min(left))))?;
        let waits = matches!(&interests, [.., refused, _, _] if refused.ready & libc::POLLIN != 0);
        let [channel, init, input, output_ready, error_ready, reader, refused, denied, told] =
            interests.map(|i| i.ready != 0);
        if let Some(denials) = denials.as_deref_mut().filter(|_| denied) {
            denials.read();
        }
        if let Some(doors) = passed.doors.as_mut().filter(|_| told) {
            doors.read();
        }
        if channel {
            reporting = drain_channel(started, passed)?;
            if let Some(last) = last.take_if(|_| passed.alone) {
                last(passed);
            }
        }
        if refused || look_at.is_some_and(|at| at <= Instant::now()) {
            look_at = look(passed, waits);
        }
        if init && alive {
            alive = false;
            // What is left would keep the pipes open.
            let keep: Vec<_> = started.others.iter().copied().chain([started.pid]).collect();
            started.end_the_rest(&keep);
        }
        if reader {
            sink = None;
        } else if let (true, Some(pipe)) = (input, &sink) {
            let mut into = Stream::new(stdin.as_fd(), pipe.as_fd());
            into.splice = into_splice;
            into.pump(CHUNK as u64)?;
            into_splice = into.splice;
            passed.bytes_in += into.moved;
            if !into.open {
                sink = None;
            }
        }
        for (stream, ready) in [(&mut out, output_ready), (&mut err, error_ready)] {
            if ready && stream.open {
                let left = output.saturating_sub(passed.bytes_out);
                let before = stream.moved;
                stream.pump(left.max(1))?;
                passed.bytes_out += stream.moved - before;
                if passed.bytes_out > output || (left == 0 && stream.moved > before) {
                    passed.stopped = Some(Limit::Output);
                    break 'streams;
                }
            }
        }
    }
    passed.stderr = std::mem::take(&mut err.tail);
    Ok(())
}

/// Answers refused calls; the time of the next look, if that is not when the next call comes. `waits`: there is one, as poll(2)
/// said of the listener.
fn look(passed: &mut Passed, waits: bool) -> Option<Instant> {
    let (Some(listener), Some(refusals)) = (&passed.listener, &mut passed.refusals) else { return None };
    let listener = listener.as_fd();
    match if waits { refusals.look_once(listener) } else { refusals.look(listener, false) } {
        Look::Idle | Look::Again(Duration::ZERO) => None,
        Look::Again(pause) => Some(Instant::now() + pause),
        Look::Gone => {
            passed.listener = None;
            None
        }
    }
}

/// Takes what init has said; false when it will say no more. A message that is none of ours is a fault of init,
/// hence of the cell.
fn drain_channel(started: &Started, passed: &mut Passed) -> Result<bool> {
    let mut buffer = vec![0; REPORT_LIMIT];
    loop {
        match socket::receive(started.channel.as_fd(), &mut buffer) {
            Ok(None) | Err(Errno(libc::ECONNRESET)) => return Ok(false),
            Err(Errno(libc::EAGAIN)) => return Ok(true),
            Err(errno) => return Err(errno),
            Ok(Some((count, descriptors))) => {
                let message = buffer.get(..count).unwrap_or_default();
                match serde_json::from_slice(message).map_err(|_foreign| Errno(libc::EPROTO))? {
                    Report::Failed(error) => passed.failed = Some(error),
                    // Of one that is there something may just have been said that holds for no other.
                    Report::Listener if passed.listener.is_some() => return Err(Errno(libc::EPROTO)),
                    Report::Listener => {
                        passed.listener = descriptors.into_iter().next();
                        if let (Some(listener), Some(refusals)) = (&passed.listener, &passed.refusals) {
                            refusals.meet(listener.as_fd());
                        }
                    }
                    Report::Ready { receipt, denials } => {
                        passed.ready = Some((Instant::now(), denials));
                        if let Some(refusals) = &mut passed.refusals {
                            refusals.begin();
                        }
                        if let Some(doors) = &mut passed.doors {
                            doors.begin();
                        }
                        passed.receipt = Some(receipt);
                        passed.scratch = descriptors.into_iter().next();
                    }
                    Report::Door(listens) => {
                        let socket = descriptors.into_iter().next().ok_or(Errno(libc::EPROTO))?;
                        match &passed.doors {
                            Some(doors) => doors.hand_over(listens, &socket)?,
                            None => passed.unattended.push(socket),
                        }
                    }
                    // Its plan is the whole of it.
                    Report::Namespace | Report::Places => return Err(Errno(libc::EPROTO)),
                    Report::Changes(kept) => {
                        passed.changes = descriptors.into_iter().next().map(|memory| (memory, kept));
                    }
                    Report::Exited { exit, alone } => {
                        passed.exit = Some(exit);
                        passed.alone = alone;
                    }
                }
            }
        }
    }
}
