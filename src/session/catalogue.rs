//! The process that answers what belongs to no call: the handshake, lists, discovery, log levels. What a list says of tools' arguments is
//! kept for their calls; a call that comes before the list makes the session ask for it.
//!
//! One for each era, because a server may fix its era at its first message. It is started when it is needed, serves one
//! request after the other so that a walk over pages stays in one process, and is ended when nobody has asked for a while.
//! It does not take a slot of the calls: with one slot, a list would otherwise wait for a call or the other way round.
//!
//! Neighbours: [`super::client`] sends it jobs, [`super::call`] shares its start and end. Never: runs a tool.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::cache::Key;
use super::call::{self, Refused, Running};
use super::link::{End, Step};
use super::rules::{Asked, Offers};
use super::{Agreed, Ask, Control, Handshake, Session, Stop, locked, text};
use crate::mcp::envelope::{self, Era, INTERNAL_ERROR, Id, Kind, Message};
use crate::mcp::{annex, object, reply};
use crate::outcome::{Limit, Status};
use crate::policy::bounds::CODEX;
use crate::watch::usage;

/// The method in the records of these processes.
pub(super) const METHOD: &str = "catalogue";
/// A process that nobody asks is ended after this time,
const IDLE: Duration = Duration::from_secs(2);
/// or after this one, when a list has further pages.
const WALK: Duration = Duration::from_secs(30);
/// The list of tools,
const LIST: &str = "tools/list";
/// of which so many pages are read,
const MOST_PAGES: usize = 100;
/// under this id. One request is open at a time, so that it is taken for no other's.
const LEARN_ID: &str = "dev.toolcell/tools";
/// How long a process may take to leave.
const LEAVE: Duration = Duration::from_millis(100);

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

/// A walk over the list of tools that the session needs itself.
#[derive(Debug)]
pub(super) struct Learn {
    /// The `_meta` of its requests, as JSON.
    pub(super) meta: Option<Vec<u8>>,
    /// Told when the list has been seen whole, or why it cannot be.
    pub(super) done: oneshot::Sender<Result<(), String>>,
    /// Pages so far.
    pub(super) pages: usize,
}

impl Learn {
    /// The request for a page.
    fn ask(&self, session: &Session, era: Era, cursor: Option<&str>) -> Option<(Ask, Control)> {
        let mut params = Vec::new();
        if let Some(cursor) = cursor {
            params.push(format!("\"cursor\":{}", serde_json::Value::from(cursor)).into_bytes());
        }
        if let Some(meta) = &self.meta {
            params.push([b"\"_meta\":", meta.as_slice()].concat());
        }
        let params = [b"{", params.join(&b","[..]).as_slice(), b"}"].concat();
        let id = Id::Text(LEARN_ID.to_owned());
        let line = reply::request(&id, LIST, Some(&params));
        let message = envelope::parse(line.trim_ascii_end()).ok()?;
        let meta = envelope::Meta { era, progress: None, client: None, trace: None };
        let params = message.params;
        let ask = Ask { id, line, method: LIST.to_owned(), target: None, params, meta, identity: None };
        Some((ask, Control { cancel: None, gone: session.gone.subscribe() }))
    }
}

/// What waits for its turn.
enum Waiting {
    Asked(Ask, Control),
    Learn(Learn),
}

struct Open {
    /// The session has asked this itself.
    learn: Option<Learn>,
    ask: Ask,
    control: Control,
    deadline: Instant,
    /// The client does not wait for the answer any more.
    silent: bool,
}

struct Catalogue {
    session: Rc<Session>,
    era: Era,
    running: Option<Running>,
    open: Option<Open>,
    waiting: VecDeque<Waiting>,
    idle_at: Instant,
}

/// Serves jobs until there are no more.
pub(super) async fn run(session: Rc<Session>, era: Era, mut jobs: UnboundedReceiver<Job>) {
    let mut more = true;
    let mut gone = session.gone.subscribe();
    let mut catalogue = Catalogue {
        session,
        era,
        running: None,
        open: None,
        waiting: VecDeque::new(),
        idle_at: Instant::now(),
    };
    loop {
        // What needs no process, or gets none, is done with at once.
        while catalogue.open.is_none()
            && let Some(next) = catalogue.waiting.pop_front()
        {
            match next {
                Waiting::Asked(ask, control) => catalogue.begin(ask, control, None).await,
                Waiting::Learn(learn) => catalogue.learn(learn).await,
            }
        }
        if catalogue.open.is_none() && !more {
            break;
        }
        if !catalogue.turn(&mut jobs, &mut more, &mut gone).await {
            break;
        }
    }
    catalogue.end(Status::Completed, Duration::ZERO).await;
}

/// What a turn was about.
enum Event {
    Job(Option<Job>),
    Gone,
    Stop(Stop),
    Deadline,
    Idle,
    Step(Step),
}

impl Catalogue {
    /// Waits for one thing and deals with it. False: the client is gone.
    async fn turn(
        &mut self,
        jobs: &mut UnboundedReceiver<Job>,
        more: &mut bool,
        gone: &mut tokio::sync::watch::Receiver<bool>,
    ) -> bool {
        let open = self.open.is_some();
        let deadline = self.open.as_ref().map_or(self.idle_at, |open| open.deadline);
        let heard = self.open.as_ref().is_some_and(|open| !open.silent);
        let event = tokio::select! {
            biased;
            _ = gone.wait_for(|gone| *gone) => Event::Gone,
            job = jobs.recv(), if *more => Event::Job(job),
            stop = stop(self.open.as_mut()), if heard => Event::Stop(stop),
            () = sleep_until(deadline), if open => Event::Deadline,
            () = sleep_until(self.idle_at), if !open && self.running.is_some() => Event::Idle,
            step = step(self.running.as_mut(), &self.session), if self.running.is_some() => Event::Step(step),
            else => Event::Job(None),
        };
        match event {
            Event::Gone | Event::Stop(Stop::Gone) => return false,
            Event::Job(None) => *more = false,
            Event::Job(Some(Job::Ask(asked))) => self.waiting.push_back(Waiting::Asked(asked.0, asked.1)),
            Event::Job(Some(Job::Learn(learn))) => self.waiting.push_back(Waiting::Learn(learn)),
            Event::Job(Some(Job::Note(line))) => {
                if let Some(running) = &mut self.running {
                    running.link.process.send(line);
                }
            }
            Event::Stop(Stop::Cancelled(note)) => {
                if let (Some(open), Some(running)) = (&mut self.open, &mut self.running) {
                    open.silent = true;
                    running.link.process.send(note);
                }
            }
            Event::Idle => self.end(Status::Completed, LEAVE).await,
            Event::Deadline => self.fail(Some(Limit::Time), None).await,
            Event::Step(Step::Answer(line, message)) => self.answered(line, message).await,
            Event::Step(Step::End(End::OverBudget)) => self.fail(Some(Limit::Output), None).await,
            Event::Step(Step::End(End::Closed)) => self.fail(None, None).await,
            Event::Step(Step::NoHandshake(detail)) => self.fail(None, Some(detail)).await,
            // Lists are held whole, so nothing is ever offered for streaming.
            Event::Step(Step::Long) => {}
        }
        true
    }

    async fn learn(&mut self, learn: Learn) {
        if self.session.schemas(self.era).is_complete() {
            // Who waited may have left.
            return drop(learn.done.send(Ok(())));
        }
        if let Some((ask, control)) = learn.ask(&self.session, self.era, None) {
            self.begin(ask, control, Some(learn)).await;
        }
    }

    /// A page of what the session has asked for itself.
    async fn learned(&mut self, learn: Learn, line: &[u8], message: &Message) {
        let body = message.body.clone().unwrap_or_default();
        if matches!(message.kind, Kind::Answer { error: true, .. }) {
            let said = envelope::text_member(line, body, "message").unwrap_or_default();
            return drop(learn.done.send(Err(format!("the server refuses to list its tools: {said}"))));
        }
        let Some(cursor) = envelope::text_member(line, body, "nextCursor") else {
            self.session.schemas(self.era).complete();
            return drop(learn.done.send(Ok(())));
        };
        let learn = Learn { pages: learn.pages + 1, ..learn };
        if learn.pages >= MOST_PAGES {
            let told = format!("the server's list of tools has more than {MOST_PAGES} pages");
            return drop(learn.done.send(Err(told)));
        }
        if let Some((ask, control)) = learn.ask(&self.session, self.era, Some(&cursor)) {
            self.begin(ask, control, Some(learn)).await;
        }
    }

    async fn begin(&mut self, ask: Ask, control: Control, learn: Option<Learn>) {
        let first = ask.method == "initialize";
        if first {
            self.end(Status::Completed, LEAVE).await;
            self.session.forget_lists(Era::Legacy);
        }
        let fresh = self.running.is_none();
        if fresh {
            match call::start(&self.session, &ask, METHOD, false, Ok(Vec::new())).await {
                Ok(running) => self.running = Some(running),
                Err(Refused { detail, .. }) => {
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
            }
        }
        let Some(running) = &mut self.running else { return };
        running.link.rules.announces |= first;
        if first {
            running.link.rules.offers = Offers::of(&ask.line, ask.params.as_ref());
        }
        if fresh
            && !first
            && self.era == Era::Legacy
            && let Agreed::Done(handshake) = &*self.session.agreed.borrow()
        {
            running.link.replay(handshake, self.session.level.borrow().clone(), &ask.id);
        }
        let asked = Asked { id: ask.id.clone(), progress: ask.meta.progress.clone() };
        running.link.ask(asked, ask.line.clone());
        let deadline = Instant::now() + running.grant.policy.limits.time;
        self.open = Some(Open { learn, ask, control, deadline, silent: false });
    }

    async fn answered(&mut self, line: Vec<u8>, message: Message) {
        let Some(open) = self.open.take() else { return };
        let Some(running) = &mut self.running else { return };
        running.link.rules.asked = None;
        let Open { learn, ask, silent, .. } = open;
        let error = matches!(message.kind, Kind::Answer { error: true, .. });
        let (line, message) = without_what_is_not_offered(&ask.method, line, message);
        let (line, message) = self.with_what_is_offered(&ask.method, line, message);
        let (line, message) = locked::checked(&self.session, self.era, &ask.method, line, message);
        let result = message.body.clone().unwrap_or_default();
        let further = !error && object::member(&line, result.clone(), "nextCursor").is_some();
        self.idle_at = Instant::now() + if further { WALK } else { IDLE };
        match ask.method.as_str() {
            "initialize" => self.agree(&ask, &line, &message, error),
            "logging/setLevel" if !error => {
                *self.session.level.borrow_mut() =
                    ask.params.clone().and_then(|span| ask.line.get(span)).map(<[u8]>::to_vec);
            }
            _ if !error => {
                if ask.method == LIST {
                    let cursor =
                        ask.params.clone().and_then(|span| object::member(&ask.line, span, "cursor"));
                    // One that is no text is none that goes on with a walk.
                    let cursor =
                        cursor.map(|span| ask.line.get(span).and_then(object::text).unwrap_or_default());
                    self.session.schemas(self.era).take(&line, result.clone(), cursor.as_deref());
                }
                if let Some(key) = Key::new(self.era, &ask.method, &ask.line, ask.params.as_ref()) {
                    let mut cache = self.session.cache.borrow_mut();
                    cache.put(key, &line, message.id.clone(), result, Instant::now());
                }
            }
            _ => {}
        }
        if let Some(learn) = learn {
            return Box::pin(self.learned(learn, &line, &message)).await;
        }
        if !silent {
            self.session.forget(&ask.id);
            self.session.reply(self.session.listed(ask.identity.as_deref(), &ask.method, line));
        }
        if let Some(running) = &self.running {
            self.session.build_ahead(&running.grant);
        }
        if error && ask.method == "server/discover" {
            // A server that does not know the question may have fixed its era by it.
            self.end(Status::Completed, LEAVE).await;
        }
    }

    /// Some clients say what their own sandbox allows only to a server that offers to listen.
    fn with_what_is_offered(&self, method: &str, line: Vec<u8>, message: Message) -> (Vec<u8>, Message) {
        if method != "initialize" || !self.session.options.profiles.heeded().offer {
            return (line, message);
        }
        let line = annex::offering(line, &message, CODEX);
        let message = envelope::parse(line.trim_ascii_end()).unwrap_or(message);
        (line, message)
    }

    /// Keeps what the client and the server agreed on, for every fresh process.
    fn agree(&self, ask: &Ask, line: &[u8], message: &Message, error: bool) {
        let version =
            message.body.clone().and_then(|body| envelope::text_member(line, body, "protocolVersion"));
        let agreed = match (ask.params.clone(), version) {
            (Some(params), Some(version)) if !error => {
                let offers = Offers::of(&ask.line, Some(&params));
                let info = object::member(&ask.line, params.clone(), "clientInfo");
                if let Some(name) = info.and_then(|info| envelope::client_name(&ask.line, info)) {
                    *self.session.client.borrow_mut() = name;
                }
                let params = ask.line.get(params).unwrap_or_default().to_vec();
                Agreed::Done(Rc::new(Handshake { params, version, offers }))
            }
            _ => Agreed::None,
        };
        self.session.agreed.send_replace(agreed);
    }

    /// The process is of no use any more: tells the open request why, and ends it.
    async fn fail(&mut self, limit: Option<Limit>, detail: Option<String>) {
        let Some(running) = self.running.take() else { return };
        let open = self.open.take();
        let Running { call, grant, link, began } = running;
        link.withdraw_all(&self.session);
        let grace = if limit.is_none() && detail.is_none() { LEAVE } else { Duration::ZERO };
        let mut tally = link.rules.tally;
        let mut remains = link.process.reap(grace, |_| {}).await;
        let (status, told) = match (limit, detail) {
            (Some(limit), _) => {
                let bytes_out = remains.ended.usage.bytes_out;
                remains.ended.violations.push(usage::stopped(&grant.policy, limit, bytes_out));
                let found = &remains.ended.violations;
                (Status::Limit { limit }, text::stopped(limit, found, &grant.policy, &tally, &remains.stderr))
            }
            (None, Some(detail)) => {
                let told = text::broken(&detail, &tally, &remains.stderr);
                (Status::Died { detail }, told)
            }
            // A process that leaves when nobody waits for it has done nothing wrong.
            (None, None) if open.is_none() => (Status::Completed, String::new()),
            (None, None) => call::obituary(&remains, &grant.policy, &tally),
        };
        let violations = tally.take();
        call::finish(&self.session, (&call, &grant, began), status, remains, violations);
        if let Some(Open { learn: Some(learn), .. }) = open {
            return drop(learn.done.send(Err(told)));
        }
        if let Some(Open { ask, silent: false, .. }) = open {
            self.session.forget(&ask.id);
            if ask.method == "initialize" {
                self.session.agreed.send_replace(Agreed::None);
            }
            self.session.reply(call::failure(&ask, &told, &[]));
        }
    }

    /// Ends the process, if there is one.
    async fn end(&mut self, status: Status, grace: Duration) {
        let Some(Running { call, grant, link, began }) = self.running.take() else { return };
        link.withdraw_all(&self.session);
        let mut tally = link.rules.tally;
        let remains = link.process.reap(grace, |_| {}).await;
        call::finish(&self.session, (&call, &grant, began), status, remains, tally.take());
    }
}

async fn stop(open: Option<&mut Open>) -> Stop {
    match open {
        Some(open) => open.control.stop().await,
        None => std::future::pending().await,
    }
}

async fn step(running: Option<&mut Running>, session: &Session) -> Step {
    match running {
        Some(running) => running.link.step(session).await,
        None => std::future::pending().await,
    }
}

/// Takes capabilities out of a handshake's or discovery's answer that a process for each call cannot keep:
/// subscriptions and tasks live longer than a call. Every other byte stays.
fn without_what_is_not_offered(method: &str, line: Vec<u8>, message: Message) -> (Vec<u8>, Message) {
    if !matches!(method, "initialize" | "server/discover") {
        return (line, message);
    }
    let mut line = line;
    line.pop();
    let result = |line: &[u8]| object::member(line, 0..line.len(), "result");
    for path in [
        &["capabilities", "resources", "subscribe"][..],
        &["capabilities", "tasks"],
        &["capabilities", "extensions", "io.modelcontextprotocol/tasks"],
    ] {
        // A server that says `false` has told the truth already.
        let offered =
            result(&line).and_then(|span| object::lookup(&line, span, path)).and_then(|span| line.get(span));
        if offered.is_some_and(|value| value != b"false") {
            line = object::without(line, result, path);
        }
    }
    // The removal has moved the positions.
    let message = envelope::parse(&line).unwrap_or(message);
    line.push(b'\n');
    (line, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_offered_is_taken_out() {
        let line = br#"{"result":{"capabilities":{"resources":{"subscribe":true,"listChanged":true},"tasks":{"x":1},"tools":{}},"x":1.0},"jsonrpc":"2.0","id":3}"#;
        let mut line = line.to_vec();
        let message = envelope::parse(&line).unwrap();
        line.push(b'\n');
        let (stripped, again) = without_what_is_not_offered("initialize", line.clone(), message.clone());
        assert_eq!(
            String::from_utf8(stripped.clone()).unwrap(),
            "{\"result\":{\"capabilities\":{\"resources\":{\"listChanged\":true},\"tools\":{}},\"x\":1.0},\"jsonrpc\":\"2.0\",\"id\":3}\n"
        );
        assert_eq!(&stripped[again.id], b"3");
        assert_eq!(without_what_is_not_offered("tools/list", line.clone(), message).0, line);
        let honest =
            br#"{"id":1,"jsonrpc":"2.0","result":{"capabilities":{"resources":{"subscribe":false}}}}"#;
        let message = envelope::parse(honest).unwrap();
        let honest = [honest.as_slice(), b"\n"].concat();
        assert_eq!(without_what_is_not_offered("initialize", honest.clone(), message).0, honest);
    }
}
