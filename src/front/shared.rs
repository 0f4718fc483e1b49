//! The child that all modern clients share: each request stands alone, so it may come from anybody.
//!
//! ```text
//! Idle ──ask──► Running ──child ended──► Idle (not before a time that grows while starts fail)
//!   └───────────────┴──close──► Closed
//! ```
//!
//! A request goes in under a number of the front's own. When the child ends, what it had not answered is lost, and its
//! client is told: it may have had its effects, so it is never sent again.
//!
//! Neighbours: [`super::endpoint`] asks; [`super::wire`] changes the lines. Never: shows a line to another client than the
//! one whose request it belongs to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::child::{Input, Output, Process, Said, Start};
use super::queue::{Budget, Event, Outbox, Posted, stream};
use super::tail::Tail;
use super::wire::{self, Incoming, Kept};
use crate::mcp::envelope::{self, Id, Kind, Message};
use crate::mcp::{object, reply};

/// What the clients of one child have not read yet.
const UNREAD: u32 = 256 * 1024 * 1024;
/// What the child has not read yet.
const UNSENT: u32 = 64 * 1024 * 1024;
/// How long everybody waits for one client that does not read; then it loses its stream.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a child has to leave when its input has ended.
const LEAVE: Duration = Duration::from_secs(2);
/// A child that lived this long had started.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two starts, doubled with each that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MOST_DOUBLED: u32 = 7;

/// One child at a time, started when there is something to ask.
#[derive(Debug)]
pub(super) struct Shared {
    start: Start,
    state: RefCell<State>,
    next: Cell<i64>,
    unread: Budget,
    itself: std::rc::Weak<Self>,
}

#[derive(Debug)]
enum State {
    Idle { failed: u32, not_before: Option<Instant> },
    Running(Rc<Running>),
    Closed,
}

#[derive(Debug)]
struct Running {
    outbox: RefCell<Option<Rc<Outbox>>>,
    open: RefCell<HashMap<i64, Open>>,
    gone: watch::Sender<bool>,
}

#[derive(Debug)]
struct Open {
    events: mpsc::Sender<Event>,
    kept: Rc<Kept>,
}

/// Why nothing can be asked now.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// The front is closing.
    Closing,
    /// A child could not be started, or ended soon. The time until the next one may be tried.
    Failed(Duration),
}

/// A request that was sent. Dropped before its answer, it is cancelled.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) events: mpsc::Receiver<Event>,
    running: Rc<Running>,
    number: i64,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.running.cancel(self.number);
    }
}

impl Running {
    fn outbox(&self) -> Option<Rc<Outbox>> {
        self.outbox.borrow().clone()
    }

    fn cancel(&self, number: i64) {
        if self.open.borrow_mut().remove(&number).is_some()
            && let Some(outbox) = self.outbox()
        {
            let mut line =
                reply::cancelled(&Id::Number(number), "the client has closed the stream of the answer");
            line.pop();
            outbox.tell(line);
        }
    }
}

impl Shared {
    pub(super) fn new(start: Start) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            start,
            state: RefCell::new(State::Idle { failed: 0, not_before: None }),
            next: Cell::new(0),
            unread: Budget::new(UNREAD),
            itself: itself.clone(),
        })
    }

    /// Sends a request, in whose line the front's word is already.
    ///
    /// # Errors
    /// There is no child to send it to.
    pub(super) async fn ask(&self, request: &Incoming) -> Result<Pending, Unavailable> {
        let number = self.next.get() + 1;
        self.next.set(number);
        let (line, kept) = request.numbered(number);
        self.send(number, line, kept).await
    }

    /// Whether the child answers, or one can be started that does. It is asked what every supervisor answers by itself: a
    /// line that is no request, but has an id.
    pub(super) async fn answers(&self, by: Instant) -> bool {
        let number = self.next.get() + 1;
        self.next.set(number);
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{number}}}").into_bytes();
        let asked = async {
            let mut pending = self.send(number, line, Kept::default()).await.ok()?;
            pending.events.recv().await
        };
        matches!(timeout_at(by, asked).await, Ok(Some(Event::Answer(..))))
    }

    async fn send(&self, number: i64, line: Vec<u8>, kept: Kept) -> Result<Pending, Unavailable> {
        let running = self.running()?;
        let (sender, events) = stream();
        running.open.borrow_mut().insert(number, Open { events: sender, kept: Rc::new(kept) });
        let pending = Pending { events, running: Rc::clone(&running), number };
        let sent = match running.outbox() {
            Some(outbox) => outbox.put(line).await,
            None => false,
        };
        if sent { Ok(pending) } else { Err(Unavailable::Closing) }
    }

    fn running(&self) -> Result<Rc<Running>, Unavailable> {
        let mut state = self.state.borrow_mut();
        let (failed, not_before) = match &*state {
            State::Running(running) => return Ok(Rc::clone(running)),
            State::Closed => return Err(Unavailable::Closing),
            State::Idle { failed, not_before } => (*failed, *not_before),
        };
        let now = Instant::now();
        if let Some(at) = not_before.filter(|at| *at > now) {
            return Err(Unavailable::Failed(at - now));
        }
        let Ok(child) = self.start.child() else {
            let pause = pause(failed);
            *state = State::Idle { failed: failed + 1, not_before: Some(now + pause) };
            return Err(Unavailable::Failed(pause));
        };
        let (outbox, lines) = Outbox::new(Budget::new(UNSENT));
        let running = Rc::new(Running {
            outbox: RefCell::new(Some(outbox)),
            open: RefCell::default(),
            gone: watch::Sender::new(false),
        });
        *state = State::Running(Rc::clone(&running));
        spawn_local(write(child.input, lines));
        if let Some(itself) = self.itself.upgrade() {
            spawn_local(itself.read(Rc::clone(&running), child.output, child.process, failed));
        }
        Ok(running)
    }

    /// Ends the child and waits for it. Nothing can be asked any more.
    pub(super) async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.borrow_mut(), State::Closed);
        if let State::Running(running) = before {
            let mut gone = running.gone.subscribe();
            // Its end is the child's end of input, once what is written has been.
            running.outbox.borrow_mut().take();
            drop(gone.wait_for(|gone| *gone).await);
        }
    }

    async fn read(
        self: Rc<Self>,
        running: Rc<Running>,
        mut output: Output,
        mut process: Process,
        failed: u32,
    ) {
        let started = Instant::now();
        loop {
            match output.next().await {
                Said::Line(line) => self.dispatch(&running, line).await,
                Said::Long => {
                    let mut tail = Tail::default();
                    if !output.long(|piece| tail.feed(piece)).await {
                        break;
                    }
                    if let Some(id) = tail.id() {
                        self.dispatch(&running, too_long(&id)).await;
                    }
                }
                Said::End => break,
            }
        }
        drop(process.ended_by(Instant::now() + LEAVE).await);
        drop(process);
        running.outbox.borrow_mut().take();
        let lost = std::mem::take(&mut *running.open.borrow_mut());
        for events in lost.into_values().map(|open| open.events) {
            // A stream that is full is cut off instead, which says the same.
            drop(events.try_send(Event::Lost));
        }
        let mut state = self.state.borrow_mut();
        if matches!(&*state, State::Running(now) if Rc::ptr_eq(now, &running)) {
            let settled = started.elapsed() >= SETTLED;
            let failed = if settled { 0 } else { failed + 1 };
            let not_before = (failed > 0).then(|| Instant::now() + pause(failed - 1));
            *state = State::Idle { failed, not_before };
        }
        drop(state);
        running.gone.send_replace(true);
    }

    async fn dispatch(&self, running: &Rc<Running>, line: Vec<u8>) {
        let Ok(message) = envelope::parse(&line) else { return };
        let (number, line) = match &message.kind {
            Kind::Answer { id: Id::Number(number), .. } => (*number, line),
            Kind::Answer { .. } => return,
            Kind::Request { .. } | Kind::Notification { .. } => match wire::unlabelled(line) {
                (Some(Id::Number(number)), line) => (number, line),
                // It belongs to no request, and nobody has asked for it.
                (Some(Id::Text(_)) | None, _) => return,
            },
        };
        let found =
            running.open.borrow().get(&number).map(|open| (open.events.clone(), Rc::clone(&open.kept)));
        let Some((events, kept)) = found else { return };
        let until = Instant::now() + PATIENCE;
        let answered = matches!(message.kind, Kind::Answer { .. });
        let line = match answered {
            true => wire::answer(&line, &message, &kept),
            false => wire::note(line, number, &kept),
        };
        let code = answered.then(|| error_code(&line)).flatten();
        let put = async {
            let line = self.unread.line(line).await?;
            let event = if answered { Event::Answer(line, code) } else { Event::Note(line) };
            events.send(event).await.ok()
        };
        match timeout_at(until, put).await {
            Ok(Some(())) if answered => {
                running.open.borrow_mut().remove(&number);
            }
            Ok(Some(())) => {}
            // It is gone, or does not read: its stream ends where it stands.
            Ok(None) | Err(_) if answered => {
                running.open.borrow_mut().remove(&number);
            }
            Ok(None) | Err(_) => running.cancel(number),
        }
    }
}

fn pause(failed: u32) -> Duration {
    FIRST_PAUSE * 2_u32.pow(failed.min(MOST_DOUBLED))
}

/// The code of an answer that is an error.
pub(super) fn error_code(line: &[u8]) -> Option<i64> {
    let message: Message = envelope::parse(line).ok()?;
    let Kind::Answer { error: true, .. } = message.kind else { return None };
    let code = object::member(line, message.body?, "code")?;
    std::str::from_utf8(line.get(code)?).ok()?.parse().ok()
}

/// The answer in place of one that is too long.
pub(super) fn too_long(id: &Id) -> Vec<u8> {
    let told = "the answer is longer than toolcell passes on over HTTP";
    let mut line = reply::error(Some(id), envelope::INTERNAL_ERROR, told);
    line.pop();
    line
}

/// Writes what is put in until nobody can put anything in any more, or the child does not read.
pub(super) async fn write(mut input: Input, mut lines: mpsc::UnboundedReceiver<Posted>) {
    while let Some(posted) = lines.recv().await {
        if input.send(&posted.line).await.is_err() {
            return;
        }
    }
}
