//! The process that answers what belongs to no call: the handshake, lists, discovery, log levels, subscriptions. What a list says of
//! tools' arguments is kept for their calls; a call that comes before the list makes the session ask for it.
//!
//! One for each era, because a server may fix its era at its first message. It is started when it is needed, serves one
//! request after the other so that a walk over pages stays in one process, and is ended when nobody has asked for a while,
//! unless the client watches resources, or listens. It does not take a slot of the calls: with one slot, a list would otherwise
//! wait for a call or the other way round.
//!
//! With `state = "session"` it is the cell of the client's session, one for each era and identity: calls run in it as well, side by side ([`kept`]).
//!
//! Neighbours: [`super::client`] sends it jobs, [`super::call`] shares its start and end. Never: runs a tool, unless its server keeps a session.

mod answered;
mod kept;
mod learn;

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use kept::{Called, Kept, Restarts};
pub(super) use learn::Learn;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, sleep_until};

use super::call::{self, Refused, Running};
use super::link::{End, Step};
use super::rules::{Asked, Offers};
use super::{Agreed, Ask, Control, Session, Whose, answer, client, text};
use crate::mcp::envelope::{Era, INTERNAL_ERROR, INVALID_REQUEST, Kind as Said, Message};
use crate::mcp::reply;
use crate::outcome::{Limit, Status};
use crate::policy::config::state::State;
use crate::watch::usage;

/// The method in the records of these processes,
pub const METHOD: &str = "catalogue";
/// and of those that serve a session.
pub(super) const SESSION: &str = "session";
/// A process that nobody asks is ended after this time,
const IDLE: Duration = Duration::from_secs(2);
/// or after this one, when a list has further pages.
const WALK: Duration = Duration::from_secs(30);
/// The list of tools.
const LIST: &str = "tools/list";
/// How long a process may take to leave.
const LEAVE: Duration = Duration::from_millis(100);
/// What holds for as long as the client likes.
const LISTEN: &str = "subscriptions/listen";

/// What the catalogue is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Answer a request.
    Ask(Box<(Ask, Control)>),
    /// Pass a notification on, if there is a process.
    Note(Vec<u8>),
    /// Ask for all tools, unless they are known.
    Learn(Learn),
}

/// What waits for its turn.
enum Waiting {
    Asked(Ask, Control),
    Learn(Learn),
    /// The process that watched resources has died.
    Watch(Ask),
}

/// What an open request is.
enum Kind {
    Request,
    /// The session has asked this itself.
    Learn(Learn),
    /// `subscriptions/listen`.
    Listen,
    /// A call, in the cell of a session.
    Call(Box<Called>),
    /// A subscription that the client has made before, in a process that is gone.
    Again,
}

struct Open {
    kind: Kind,
    ask: Ask,
    control: Control,
    deadline: Option<Instant>,
    /// The client does not wait for the answer any more.
    silent: bool,
}

struct Catalogue {
    session: Rc<Session>,
    era: Era,
    /// Of a process that serves a session.
    kept: Option<Kept>,
    restarts: Restarts,
    running: Option<Running>,
    open: Vec<Open>,
    waiting: VecDeque<Waiting>,
    idle_at: Instant,
    /// The resources that the client watches, and one of the requests by which it does.
    watched: BTreeSet<String>,
    watcher: Option<Ask>,
}

impl Session {
    /// Gives the catalogue of an era a job, starting it if there is none. Where it is the cell of a session, each identity has its own.
    pub(super) fn catalogue(&self, era: Era, identity: Option<Rc<str>>, job: Job) {
        let Some(session) = self.itself.upgrade() else { return };
        if self.closed.get() {
            return;
        }
        let identity = identity.filter(|_| self.options.profiles.state(None) == State::Session);
        let mut catalogues = self.catalogues.borrow_mut();
        let sender = catalogues.entry((era, identity)).or_insert_with(|| {
            let (sender, jobs) = unbounded_channel();
            self.spawn(run(session, era, jobs));
            sender
        });
        // A catalogue ends only with the session.
        drop(sender.send(job));
    }

    /// Passes a notification of a legacy client on to the processes that serve its session.
    pub(super) fn note(&self, line: &[u8]) {
        let legacy = |whose: &Whose| whose.0 == Era::Legacy;
        self.catalogues.borrow_mut().retain(|key, sender| {
            // One that has ended takes no more.
            !legacy(key) || sender.send(Job::Note(line.to_vec())).is_ok()
        });
    }

    /// Does this call run in the cell of its session?
    pub(super) fn keeps(&self, ask: &Ask) -> bool {
        let tool = ask.target.as_deref().filter(|_| ask.method == "tools/call");
        self.options.profiles.state(tool) == State::Session
    }
}

/// Serves jobs until there are no more.
async fn run(session: Rc<Session>, era: Era, mut jobs: UnboundedReceiver<Job>) {
    let mut more = true;
    let mut gone = session.gone.subscribe();
    let kept = match session.options.profiles.state(None) {
        State::Call => None,
        State::Session => Some(Kept::new(session.options.profiles.idle())),
    };
    let mut catalogue = Catalogue {
        session,
        era,
        kept,
        restarts: Restarts::default(),
        running: None,
        open: Vec::new(),
        waiting: VecDeque::new(),
        idle_at: Instant::now(),
        watched: BTreeSet::new(),
        watcher: None,
    };
    loop {
        // What needs no process, or gets none, is done with at once.
        while let Some(next) = catalogue.next() {
            match next {
                Waiting::Asked(ask, control) if catalogue.is_kept_call(&ask) => {
                    catalogue.begin_call(ask, control).await;
                }
                Waiting::Asked(ask, control) => catalogue.begin(ask, control, None).await,
                Waiting::Learn(learn) => catalogue.learn(learn).await,
                Waiting::Watch(ask) => catalogue.watch_again(ask).await,
            }
        }
        // Who listened does not read any more.
        let done = catalogue.open.iter().all(|open| matches!(open.kind, Kind::Listen));
        if done && catalogue.waiting.is_empty() && !more {
            break;
        }
        if !catalogue.turn(&mut jobs, &mut more, &mut gone).await {
            break;
        }
    }
    catalogue.abandon().await;
}

/// What a turn was about.
enum Event {
    Job(Option<Job>),
    Gone,
    Cancelled(usize, Vec<u8>),
    Deadline,
    Idle,
    /// A process may be started again.
    Again,
    Step(Step),
}

impl Catalogue {
    const fn kept(&self) -> bool {
        self.kept.is_some()
    }

    fn is_kept_call(&self, ask: &Ask) -> bool {
        self.kept() && client::is_call(&ask.method)
    }

    /// What is begun next, if its turn has come.
    fn next(&mut self) -> Option<Waiting> {
        if self.running.is_none() && self.restarts.rests(Instant::now()) {
            return None;
        }
        loop {
            let at = if self.kept() {
                self.next_kept()?
            } else {
                let busy = self.open.iter().any(|open| !matches!(open.kind, Kind::Listen));
                (!busy).then_some(0)?
            };
            let mut next = self.waiting.remove(at)?;
            let given_up = match &mut next {
                Waiting::Asked(_, Control { cancel: Some(cancel), .. }) => {
                    !matches!(cancel.try_recv(), Err(TryRecvError::Empty))
                }
                _ => false,
            };
            if !given_up {
                return Some(next);
            }
        }
    }

    /// Waits for one thing and deals with it. False: the client is gone.
    async fn turn(
        &mut self,
        jobs: &mut UnboundedReceiver<Job>,
        more: &mut bool,
        gone: &mut tokio::sync::watch::Receiver<bool>,
    ) -> bool {
        let deadline = self.open.iter().filter_map(|open| open.deadline).min();
        let again = self.restarts.not_before.filter(|_| self.running.is_none() && !self.waiting.is_empty());
        let at = |at: Option<Instant>| sleep_until(at.unwrap_or_else(Instant::now));
        let idle = self.open.is_empty() && self.running.is_some() && self.watched.is_empty();
        let event = tokio::select! {
            biased;
            _ = gone.wait_for(|gone| *gone) => Event::Gone,
            job = jobs.recv(), if *more => Event::Job(job),
            (at, note) = cancelled(&mut self.open) => Event::Cancelled(at, note),
            () = at(deadline), if deadline.is_some() => Event::Deadline,
            () = at(again), if again.is_some() => Event::Again,
            () = sleep_until(self.idle_at), if idle => Event::Idle,
            step = step(self.running.as_mut(), &self.session), if self.running.is_some() => Event::Step(step),
        };
        match event {
            Event::Gone => return false,
            Event::Job(None) => *more = false,
            Event::Job(Some(Job::Ask(asked))) => self.waiting.push_back(Waiting::Asked(asked.0, asked.1)),
            Event::Job(Some(Job::Learn(learn))) => self.waiting.push_back(Waiting::Learn(learn)),
            Event::Job(Some(Job::Note(line))) => {
                if let Some(running) = &mut self.running {
                    running.link.process.send(line);
                }
            }
            Event::Cancelled(at, note) => self.cancel(at, note),
            Event::Again => self.restarts.not_before = None,
            Event::Idle => self.end(Status::Completed, LEAVE, "").await,
            Event::Deadline => self.late().await,
            Event::Step(Step::Answer(line, message)) => self.answered(line, message).await,
            Event::Step(Step::End(End::OverBudget)) => self.fail(Some((Limit::Output, None)), None).await,
            Event::Step(Step::End(End::Closed)) => self.fail(None, None).await,
            Event::Step(Step::NoHandshake(detail)) => self.fail(None, Some(detail)).await,
            Event::Step(Step::Long) => self.stream(gone).await,
        }
        true
    }

    /// The time of an open request is over.
    async fn late(&mut self) {
        let late = self.open.iter().enumerate().filter_map(|(at, open)| Some((open.deadline?, at)));
        let late = late.min().map(|(_, at)| at);
        self.fail(Some((Limit::Time, late)), None).await;
    }

    /// The client takes a request back.
    fn cancel(&mut self, at: usize, note: Vec<u8>) {
        let kept = self.kept();
        let Some(open) = self.open.get_mut(at) else { return };
        if let Some(running) = &mut self.running {
            running.link.process.send(note);
        }
        if !kept && matches!(open.kind, Kind::Request) {
            // The next request waits for its answer.
            open.silent = true;
            return;
        }
        let Open { kind, ask, .. } = self.open.remove(at);
        if let Some(running) = &mut self.running {
            running.link.rules.cancel(&ask.id);
        }
        if let Kind::Call(called) = kind {
            self.called(*called, &ask, Status::Cancelled, Vec::new(), 0);
        }
        self.rest(false);
    }

    /// From now on nobody asks; `further`: but will, for the next page.
    fn rest(&mut self, further: bool) {
        let idle = self.kept.as_ref().map_or(if further { WALK } else { IDLE }, |kept| kept.idle);
        self.idle_at = Instant::now() + idle;
    }

    /// Starts a process for a request, if there is none.
    ///
    /// # Errors
    /// Why there is none.
    async fn ensure(&mut self, ask: &Ask) -> Result<(), Refused> {
        if self.running.is_some() {
            return Ok(());
        }
        let (method, streams) = if self.kept() { (SESSION, true) } else { (METHOD, false) };
        let mut running = call::start(&self.session, ask, method, streams, Ok(Vec::new()), None).await?;
        let rules = &mut running.link.rules;
        rules.kept = self.kept.is_some();
        rules.announces = rules.kept;
        rules.watched = !self.watched.is_empty();
        if ask.method != "initialize"
            && self.era == Era::Legacy
            && let Agreed::Done(handshake) = &*self.session.agreed.borrow()
        {
            running.link.replay(handshake, self.session.level.borrow().clone());
        }
        self.restarts.started(Instant::now());
        self.running = Some(running);
        Ok(())
    }

    async fn begin(&mut self, ask: Ask, control: Control, learn: Option<Learn>) {
        let first = ask.method == "initialize";
        if first {
            self.watched.clear();
            self.end(Status::Completed, LEAVE, "the client has begun a new session").await;
            self.session.forget_lists(Era::Legacy);
        }
        if self.running.as_ref().is_some_and(|running| running.link.rules.is_cancelled(&ask.id)) {
            self.session.forget(&ask.id);
            self.session.reply(in_doubt(&ask));
            return;
        }
        if let Err(Refused { detail, .. }) = self.ensure(&ask).await {
            if let Some(learn) = learn {
                return drop(learn.done.send(Err(detail)));
            }
            self.session.forget(&ask.id);
            if first {
                self.session.agreed.send_replace(Agreed::None);
            }
            let line = reply::error(Some(&ask.id), INTERNAL_ERROR, &text::clean(&detail));
            self.session.reply(line);
            return;
        }
        let kind = match learn {
            Some(learn) => Kind::Learn(learn),
            None if ask.method == LISTEN => Kind::Listen,
            None => Kind::Request,
        };
        self.ask(kind, ask, control);
    }

    /// Sends a request to the process, which is there.
    fn ask(&mut self, kind: Kind, ask: Ask, control: Control) {
        let Some(running) = &mut self.running else { return };
        self.session.era.set(self.era);
        let rules = &mut running.link.rules;
        if ask.method == "initialize" {
            rules.announces = true;
            rules.offers = Offers::of(&ask.line, ask.params.as_ref());
        }
        rules.watched |= ask.method == "resources/subscribe";
        let listens = matches!(kind, Kind::Listen);
        let streams = match &kind {
            Kind::Call(called) => called.streams(),
            Kind::Request | Kind::Learn(_) | Kind::Listen | Kind::Again => false,
        };
        let asked = Asked { listens, ..Asked::once(ask.id.clone(), ask.meta.progress.clone(), streams) };
        let policy = &running.grant.policy;
        let deadline = (!listens).then(|| Instant::now() + policy.limits.time);
        if self.kept.is_some() {
            running.link.process.refill(policy.limits.output);
        }
        running.link.ask(asked, ask.line.clone());
        self.open.push(Open { kind, ask, control, deadline, silent: false });
        self.hold();
    }

    async fn answered(&mut self, line: Vec<u8>, message: Message) {
        let Said::Answer { id, error } = &message.kind else { return };
        let error = *error;
        let Some(at) = self.open.iter().position(|open| open.ask.id == *id) else { return };
        let Open { kind, ask, mut control, silent, .. } = self.open.remove(at);
        if let Some(running) = &mut self.running {
            running.link.rules.answered(id);
        }
        if let Kind::Call(called) = kind {
            self.call_answered(*called, &ask, &mut control, line, message).await;
            self.hold();
            return self.rest(false);
        }
        let (line, message) = self.take_down(&ask, line, message);
        match kind {
            Kind::Learn(learn) => return Box::pin(self.learned(learn, &line, &message)).await,
            Kind::Again if error => {
                return (self.session.options.notice)(
                    "the server does not let its resources be watched again",
                );
            }
            Kind::Again => return,
            Kind::Request | Kind::Listen | Kind::Call(_) if silent => {}
            Kind::Request | Kind::Listen | Kind::Call(_) => {
                self.session.forget(&ask.id);
                self.session.reply(self.session.listed(ask.identity.as_deref(), &ask.method, line));
            }
        }
        if let Some(running) = self.running.as_ref().filter(|_| !self.kept()) {
            if ask.method == "tools/list" {
                self.session.expect(&running.grant);
            }
            self.session.prepare(&running.grant);
        }
        if error && ask.method == "server/discover" {
            // A server that does not know the question may have fixed its era by it.
            self.end(Status::Completed, LEAVE, "the server has refused to tell what it is").await;
        }
    }

    /// The process is of no use any more: tells the open requests why, and ends it. `limit`: which one, and who reached it.
    async fn fail(&mut self, limit: Option<(Limit, Option<usize>)>, detail: Option<String>) {
        let Some(running) = self.running.take() else { return };
        let opens = std::mem::take(&mut self.open);
        let Running { call, grant, link, began, .. } = running;
        link.withdraw_all(&self.session);
        let grace = if limit.is_none() && detail.is_none() { LEAVE } else { Duration::ZERO };
        let mut tally = link.rules.tally;
        let mut remains = link.process.reap(grace, |_| {}).await;
        let policy = &grant.policy;
        let (status, told) = match (limit, detail) {
            (Some((limit, _)), _) => {
                let bytes_out = remains.ended.usage.bytes_out;
                remains.ended.violations.push(usage::stopped(policy, limit, bytes_out));
                let found = &remains.ended.violations;
                (Status::Limit { limit }, text::stopped(limit, found, policy, &tally, &remains.stderr))
            }
            (None, Some(detail)) => {
                let told = text::broken(&detail, &tally, &remains.stderr);
                (Status::Died { detail }, told)
            }
            // A process that leaves when nobody waits for it has done nothing wrong.
            (None, None) if opens.is_empty() => (Status::Completed, String::new()),
            (None, None) => call::obituary(&remains, policy, &tally),
        };
        let late = limit.and_then(|(limit, who)| Some((limit, who?)));
        for (at, open) in opens.into_iter().enumerate() {
            let (status, told) = match late {
                Some((limit, who)) if who != at => kept::along(limit),
                _ => (status.clone(), told.clone()),
            };
            self.unanswered(open, status, &told).await;
        }
        let violations = tally.take();
        if let Some(kept) = &mut self.kept {
            remains.ended.violations = kept.unseen(std::mem::take(&mut remains.ended.violations));
        }
        if self.kept.is_some() || !self.watched.is_empty() {
            self.restarts.died(Instant::now());
        }
        call::finish(&self.session, (&call, &grant, began), status, remains, violations);
        if let Some(ask) = self.watcher.clone().filter(|_| !self.watched.is_empty()) {
            self.waiting.push_back(Waiting::Watch(ask));
        }
    }

    /// Tells who waits for an answer that there is none.
    async fn unanswered(&mut self, open: Open, status: Status, told: &str) {
        let Open { kind, ask, mut control, silent, .. } = open;
        match kind {
            Kind::Again => return,
            Kind::Learn(learn) => return drop(learn.done.send(Err(told.to_owned()))),
            Kind::Call(called) => self.called(*called, &ask, status, Vec::new(), 0),
            Kind::Request | Kind::Listen => {}
        }
        if silent {
            return;
        }
        self.session.forget(&ask.id);
        if ask.method == "initialize" {
            self.session.agreed.send_replace(Agreed::None);
        }
        call::deliver(&self.session, &mut control, answer::failure(&ask, told, &[])).await;
    }

    /// Ends the process, if there is one. Who still waits is told why.
    async fn end(&mut self, status: Status, grace: Duration, why: &str) {
        let Some(Running { call, grant, link, began, .. }) = self.running.take() else { return };
        link.withdraw_all(&self.session);
        let mut tally = link.rules.tally;
        let mut remains = link.process.reap(grace, |_| {}).await;
        for open in std::mem::take(&mut self.open) {
            self.unanswered(open, Status::Cancelled, why).await;
        }
        let violations = tally.take();
        if let Some(kept) = &mut self.kept {
            remains.ended.violations = kept.unseen(std::mem::take(&mut remains.ended.violations));
        }
        call::finish(&self.session, (&call, &grant, began), status, remains, violations);
    }

    /// The client is gone.
    async fn abandon(&mut self) {
        for open in std::mem::take(&mut self.open) {
            if let Kind::Call(called) = open.kind {
                self.called(*called, &open.ask, Status::Cancelled, Vec::new(), 0);
            }
        }
        self.end(Status::Completed, Duration::ZERO, "").await;
    }
}

/// A request under an id for which another answer may still come.
fn in_doubt(ask: &Ask) -> Vec<u8> {
    let detail =
        format!("the id {} belongs to a request that was cancelled; its answer may still come", ask.id);
    reply::error(Some(&ask.id), INVALID_REQUEST, &detail)
}

/// The first open request that its client takes back, and the client's notification.
async fn cancelled(open: &mut [Open]) -> (usize, Vec<u8>) {
    std::future::poll_fn(|context: &mut Context<'_>| {
        for (at, open) in open.iter_mut().enumerate().filter(|(_, open)| !open.silent) {
            let Some(cancel) = &mut open.control.cancel else { continue };
            match Pin::new(cancel).poll(context) {
                Poll::Ready(Ok(note)) => return Poll::Ready((at, note)),
                Poll::Ready(Err(_)) => open.control.cancel = None,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

async fn step(running: Option<&mut Running>, session: &Session) -> Step {
    match running {
        Some(running) => running.link.step(session).await,
        None => std::future::pending().await,
    }
}
