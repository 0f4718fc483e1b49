//! Sessions of legacy clients: each has a child of its own, which knows its handshake.
//!
//! ```text
//! initialize ──► Session ──DELETE, idle, or the child's end──► gone: its id is unknown
//! ```
//!
//! What the server says goes to the request that it belongs to, if that is known; else to the stream that the client has
//! opened by GET; else it waits for one. A request of the server's goes to another stream of the client sooner than it waits.
//!
//! Neighbours: [`super::endpoint`] begins and ends them. Never: lets another identity than the one that began it use one.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use super::child::{Child, Output, Process, Said, Start};
use super::queue::{Budget, Event, Outbox, stream};
use super::shared::{error_code, too_long, write};
use super::tail::Tail;
use super::wire;
use crate::mcp::envelope::{self, Id, Kind, Message};
use crate::mcp::{object, reply};
use crate::policy::tokens::to_hex;

/// What one client has not read yet, and what its child has not.
const UNREAD: u32 = 64 * 1024 * 1024;
const UNSENT: u32 = 64 * 1024 * 1024;
/// Lines that wait for a stream while there is none.
const WAITING: usize = 64;
/// How long a child has to leave when its input has ended.
const LEAVE: Duration = Duration::from_secs(2);

/// All sessions there are.
#[derive(Debug)]
pub(super) struct Sessions {
    start: Start,
    most: usize,
    idle: Duration,
    all: RefCell<HashMap<String, Rc<Session>>>,
    /// How many children there are; one may outlive its session by a moment.
    children: watch::Sender<usize>,
    closed: Cell<bool>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    /// Whose it is.
    identity: Option<String>,
    outbox: RefCell<Option<Rc<Outbox>>>,
    open: RefCell<HashMap<Id, Open>>,
    counter: Cell<u64>,
    /// The stream that the client has opened by GET.
    stream: RefCell<Option<mpsc::Sender<Event>>>,
    /// Lines that have found no stream, and whether they are requests.
    waiting: RefCell<VecDeque<(bool, Vec<u8>)>>,
    /// Streams and requests that are open.
    busy: Cell<usize>,
    unread: Budget,
    touched: Cell<Instant>,
    over: watch::Sender<bool>,
}

#[derive(Debug)]
struct Open {
    events: mpsc::Sender<Event>,
    progress: Option<Id>,
    /// Later ones have greater numbers.
    number: u64,
}

/// Why there is no new session.
#[derive(Debug)]
pub(super) enum NoSession {
    /// There are as many as may be.
    Full,
    /// The front is closing.
    Closing,
    /// Its child cannot be started.
    Failed(io::Error),
}

/// A stream of a session, or one of its requests. Dropped, the session is less busy.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) events: mpsc::Receiver<Event>,
    session: Rc<Session>,
    asked: Option<Id>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.session.busy.set(self.session.busy.get().saturating_sub(1));
        self.session.touched.set(Instant::now());
        // A client that went away has not cancelled: what it asked goes on, and nobody hears of it.
        if let Some(id) = &self.asked {
            self.session.open.borrow_mut().remove(id);
        }
    }
}

impl Sessions {
    pub(super) fn new(start: Start, most: usize, idle: Duration) -> Rc<Self> {
        let (all, children, closed) = (RefCell::default(), watch::Sender::new(0), Cell::new(false));
        Rc::new(Self { start, most, idle, all, children, closed })
    }

    /// Begins one.
    pub(super) fn begin(
        self: &Rc<Self>,
        identity: Option<&str>,
        id: &[u8],
    ) -> Result<Rc<Session>, NoSession> {
        if self.closed.get() {
            return Err(NoSession::Closing);
        }
        if *self.children.borrow() >= self.most {
            return Err(NoSession::Full);
        }
        let Child { input, output, process } = self.start.child().map_err(NoSession::Failed)?;
        let (outbox, lines) = Outbox::new(Budget::new(UNSENT));
        let session = Rc::new(Session {
            id: to_hex(id),
            identity: identity.map(str::to_owned),
            outbox: RefCell::new(Some(outbox)),
            open: RefCell::default(),
            counter: Cell::new(0),
            stream: RefCell::default(),
            waiting: RefCell::default(),
            busy: Cell::new(0),
            unread: Budget::new(UNREAD),
            touched: Cell::new(Instant::now()),
            over: watch::Sender::new(false),
        });
        self.all.borrow_mut().insert(session.id.clone(), Rc::clone(&session));
        self.children.send_modify(|count| *count += 1);
        spawn_local(write(input, lines));
        spawn_local(Rc::clone(self).serve(Rc::clone(&session), output, process));
        Ok(session)
    }

    /// The session of this id, if it is this identity's.
    pub(super) fn find(&self, id: &str, identity: Option<&str>) -> Option<Rc<Session>> {
        let found = self.all.borrow().get(id).cloned();
        found.filter(|session| session.identity.as_deref() == identity)
    }

    /// Ends one: from here on nobody finds it, and its child is to leave.
    pub(super) fn end(&self, session: &Session) {
        self.all.borrow_mut().remove(&session.id);
        session.over.send_replace(true);
    }

    /// Ends all, and waits for their children.
    pub(super) async fn close(&self) {
        self.closed.set(true);
        let all: Vec<Rc<Session>> = self.all.borrow().values().cloned().collect();
        all.iter().for_each(|session| self.end(session));
        let mut children = self.children.subscribe();
        drop(children.wait_for(|count| *count == 0).await);
    }

    async fn serve(self: Rc<Self>, session: Rc<Session>, mut output: Output, mut process: Process) {
        let (mut over, mut over_too) = (session.over.subscribe(), session.over.subscribe());
        loop {
            let quiet = session.touched.get() + self.idle;
            let idle = session.busy.get() == 0;
            tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => break,
                said = output.next() => match said {
                    Said::Line(line) => {
                        tokio::select! {
                            biased;
                            _ = over_too.wait_for(|over| *over) => break,
                            () = session.dispatch(line) => {}
                        }
                    }
                    Said::Long => {
                        let mut tail = Tail::default();
                        if !output.long(|piece| tail.feed(piece)).await {
                            break;
                        }
                        if let Some(id) = tail.id() {
                            session.dispatch(too_long(&id)).await;
                        }
                    }
                    Said::End => break,
                },
                () = sleep_until(quiet) => if idle && session.touched.get() + self.idle <= Instant::now() {
                    break;
                } else if session.busy.get() > 0 {
                    session.touched.set(Instant::now());
                },
            }
        }
        self.end(&session);
        session.outbox.borrow_mut().take();
        session.stream.borrow_mut().take();
        let lost = std::mem::take(&mut *session.open.borrow_mut());
        for open in lost.into_values() {
            drop(open.events.try_send(Event::Lost));
        }
        // What it still says is read, or it could not leave.
        let leave = Instant::now() + LEAVE;
        let drained = async { while !matches!(output.next().await, Said::End | Said::Long) {} };
        drop(tokio::time::timeout_at(leave, drained).await);
        drop(process.ended_by(leave).await);
        self.children.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Session {
    fn hold(self: &Rc<Self>, events: mpsc::Receiver<Event>, asked: Option<Id>) -> Held {
        self.busy.set(self.busy.get() + 1);
        Held { events, session: Rc::clone(self), asked }
    }

    /// Sends a line that wants no answer. `false`: the session is over.
    pub(super) async fn tell(&self, line: Vec<u8>) -> bool {
        self.touched.set(Instant::now());
        let outbox = self.outbox.borrow().clone();
        match outbox {
            Some(outbox) => outbox.put(line).await,
            None => false,
        }
    }

    /// Sends a request. `None`: the session is over.
    ///
    /// # Errors
    /// A request of this id is still open.
    pub(super) async fn ask(
        self: &Rc<Self>,
        line: Vec<u8>,
        id: Id,
        progress: Option<Id>,
    ) -> Result<Option<Held>, ()> {
        let (sender, events) = stream();
        let number = self.counter.get() + 1;
        self.counter.set(number);
        {
            let mut open = self.open.borrow_mut();
            if open.contains_key(&id) {
                return Err(());
            }
            open.insert(id.clone(), Open { events: sender.clone(), progress, number });
        }
        // The server may wait for what nobody could be asked so far, before it works on this.
        if self.waiting.borrow().iter().any(|(request, _)| *request) {
            let session = Rc::clone(self);
            spawn_local(async move { session.catch_up(&sender, false).await });
        }
        let held = self.hold(events, Some(id));
        Ok(self.tell(line).await.then_some(held))
    }

    /// There will be no answer to a request: its client has cancelled it.
    pub(super) fn forget(&self, id: &Id) {
        self.open.borrow_mut().remove(id);
    }

    /// Opens the stream for what belongs to no request. `None`: there is one.
    pub(super) fn listen(self: &Rc<Self>) -> Option<Held> {
        let (sender, events) = stream();
        {
            let mut place = self.stream.borrow_mut();
            if place.as_ref().is_some_and(|stream| !stream.is_closed()) {
                return None;
            }
            *place = Some(sender.clone());
        }
        let session = Rc::clone(self);
        spawn_local(async move { session.catch_up(&sender, true).await });
        Some(self.hold(events, None))
    }

    /// Sends what has waited for a stream, or its requests alone.
    async fn catch_up(&self, events: &mpsc::Sender<Event>, all: bool) {
        loop {
            let next = {
                let mut waiting = self.waiting.borrow_mut();
                let at = waiting.iter().position(|(request, _)| all || *request);
                at.and_then(|at| waiting.remove(at))
            };
            let Some((_, line)) = next else { return };
            let Some(line) = self.unread.line(line).await else { return };
            if events.send(Event::Note(line)).await.is_err() {
                return;
            }
        }
    }

    async fn dispatch(&self, line: Vec<u8>) {
        let Ok(message) = envelope::parse(&line) else { return };
        if let Kind::Answer { id, .. } = &message.kind {
            let Some(open) = self.open.borrow_mut().remove(id) else { return };
            let code = error_code(&line);
            if let Some(line) = self.unread.line(line).await {
                drop(open.events.send(Event::Answer(line, code)).await);
            }
            return;
        }
        let (label, line) = wire::unlabelled(line);
        while let Some(events) = self.stream_for(label.as_ref(), &line, &message) {
            let Some(placed) = self.unread.line(line.clone()).await else { return };
            if events.send(Event::Note(placed)).await.is_ok() {
                return;
            }
            // Its client has gone; there may be another stream.
        }
        self.wait(line, &message.kind);
    }

    /// Keeps a line until there is a stream. A request that finds no room is answered, or the server would wait for ever.
    fn wait(&self, line: Vec<u8>, kind: &Kind) {
        let mut waiting = self.waiting.borrow_mut();
        let request = matches!(kind, Kind::Request { .. });
        if waiting.len() < WAITING {
            waiting.push_back((request, line));
            return;
        }
        if let (Kind::Request { id, .. }, Some(outbox)) = (kind, self.outbox.borrow().as_ref()) {
            let mut line = reply::error(Some(id), envelope::INTERNAL_ERROR, "the client has no stream open");
            line.pop();
            outbox.tell(line);
        }
    }

    /// Where a line that is no answer goes.
    fn stream_for(&self, label: Option<&Id>, line: &[u8], message: &Message) -> Option<mpsc::Sender<Event>> {
        let open = self.open.borrow();
        let alive = |open: &&Open| !open.events.is_closed();
        let labelled = label.and_then(|id| open.get(id)).filter(alive);
        let token = || {
            let span = object::member(line, message.params.clone()?, "progressToken")?;
            let token = Id::parse(line.get(span)?)?;
            open.values().find(|open| open.progress.as_ref() == Some(&token)).filter(alive)
        };
        // What is about no request does not come in its stream, unless somebody has to answer it.
        let asks = matches!(message.kind, Kind::Request { .. });
        let latest = || open.values().filter(|open| asks && alive(open)).max_by_key(|open| open.number);
        if let Some(open) = labelled.or_else(token) {
            return Some(open.events.clone());
        }
        let listening = self.stream.borrow().clone().filter(|stream| !stream.is_closed());
        listening.or_else(|| latest().map(|open| open.events.clone()))
    }
}
