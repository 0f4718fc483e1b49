//! A session with one client: wires the stages, and is the only module that sees all of them.
//!
//! ```text
//! client ──► client ──► call (one a request, `jobs` at once) ──► link ──► process ──► cell
//!    ▲         └─────► catalogue (one an era; also the cell of a session) ─┘
//!    └── output ◄── answers, in the order in which they are ready
//! ```
//!
//! A call whose server has asked the client something waits in [`chain`], without a place among the `jobs`.
//!
//! When the client closes its input, requests that are open get [`LAST_ANSWERS`] to be answered; then every cell is
//! killed. Within a second the session is over, whether or not the client still reads.
//!
//! Neighbours: `commands::run` calls [`serve`]. Never: reads a profile, makes a plan, or writes to stdout but through
//! [`crate::mcp::output`].

mod admission;
mod answer;
mod arguments;
mod bounds;
mod cache;
mod call;
mod catalogue;
mod chain;
mod changes;
mod client;
mod control;
mod forgotten;
mod grant;
mod link;
mod locked;
mod outbound;
pub mod persist;
mod process;
mod quarantine;
mod question;
mod results;
mod rules;
mod schemas;
pub mod secrets;
mod spares;
mod stale;
mod stream;
mod tally;
mod text;
mod trees;
mod turns;
mod unkept;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

pub use arguments::readable;
use bounds::Roots;
use cache::Cache;
use catalogue::Job;
pub use catalogue::METHOD as LISTS;
use chain::Chains;
use control::{Control, Stop, gone};
pub use grant::{Grant, NoGrant, Profiles, Waiting};
use locked::Locked;
pub use locked::{Lock, Untouched};
use outbound::Outbound;
use persist::Persist;
use rules::Offers;
use schemas::Schemas;
use secrets::Secrets;
use serde_json::value::RawValue;
pub use spares::MOST as MOST_SPARES;
use spares::Spares;
pub use stale::Read;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};
use turns::Turns;

use crate::access::{Gate, Pass};
use crate::call::Call;
use crate::guard::Guard;
use crate::launch::supervisor::Launcher;
use crate::mcp::envelope::{Era, Id, Meta, PARSE_ERROR};
use crate::mcp::frame::{Frame, Lines};
use crate::mcp::output::Output;
use crate::mcp::reply;
use crate::outcome::{Changes, Granted, Receipt, SecretUse, Status, Traffic, Usage, Violation};
use crate::policy::Policy;
use crate::sys::own_text;

/// The longest line that a client may send.
const CLIENT_LINE: usize = 64 * 1024 * 1024;
/// How long after the end of its input a client still gets answers.
const LAST_ANSWERS: Duration = Duration::from_millis(650);
/// How long the cells then have to be dead and recorded.
const LAST_RECORDS: Duration = Duration::from_millis(250);
/// How long a client says nothing until the pages of the program are given back: most of them only a start or a call needs, and this
/// process lives as long as its client.
const QUIET: Duration = Duration::from_secs(2);
/// Lines of the session's own that may wait for a client that does not read.
const MOST_REPLIES: usize = 10_000;

/// Takes down what is about to happen, and what has happened.
pub trait Records {
    /// A cell is about to start. Without a policy the parameters must not be written.
    ///
    /// # Errors
    /// When it cannot be written; the cell is then not started.
    fn started(
        &self,
        call: &Call,
        policy: Option<&Policy>,
        params: Option<&RawValue>,
        granted: &[Granted],
    ) -> io::Result<()>;

    /// A cell is gone. Without a policy, what the server said must not be written.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finished(&self, call: &Call, policy: Option<&Policy>, finished: &Finished) -> io::Result<()>;

    /// A request was turned away, and there was no cell: nothing of its parameters must be written.
    ///
    /// # Errors
    /// When it cannot be written.
    fn refused(&self, call: &Call, finished: &Finished) -> io::Result<()>;
}

/// How a call ended, for its record.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The status.
    pub status: Status,
    /// What it used.
    pub usage: Usage,
    /// What it was refused, and what it did against the rules.
    pub violations: Vec<Violation>,
    /// What was enforced; nothing if no payload ran.
    pub receipt: Option<Receipt>,
    /// The last lines of its stderr, hostile text.
    pub stderr: Vec<String>,
    /// The secrets that its tool got, or was to get.
    pub secrets: Vec<SecretUse>,
    /// What it changed, if that was reviewed.
    pub changes: Option<Changes>,
    /// What went through its doors, if it has any.
    pub traffic: Option<Traffic>,
    /// From the request's turn to the last process gone.
    pub duration: Duration,
}

impl Finished {
    /// For a call that nothing was started for.
    fn refused(status: Status, violations: Vec<Violation>) -> Self {
        Self {
            status,
            usage: Usage::default(),
            violations,
            receipt: None,
            stderr: Vec::new(),
            secrets: Vec::new(),
            changes: None,
            traffic: None,
            duration: Duration::ZERO,
        }
    }
}

/// What a session needs.
pub struct Options {
    /// The server's name in records.
    pub server: String,
    /// Who runs the supervisor, e.g. `uid 1000`.
    pub user: String,
    /// The start of every call's id, unique to this supervisor.
    pub run: String,
    /// Calls that run at once.
    pub jobs: usize,
    /// Servers that are started before their call, at most,
    pub spares: usize,
    /// the memory that these may hold, in bytes,
    pub spares_memory: u64,
    /// and how long one waits that no call takes.
    pub spares_idle: Duration,
    /// What the server is started from: files, and directories with all that is below.
    pub program: Vec<PathBuf>,
    /// What was read and is not read again.
    pub read: Read,
    /// Starts cells.
    pub launcher: Launcher,
    /// Gives grants.
    pub profiles: Box<dyn Profiles>,
    /// What the server keeps from call to call.
    pub persist: Option<Persist>,
    /// Decides who may call what; without one, everybody may call everything.
    pub gate: Option<Gate>,
    /// Says whether a tool is kept out.
    pub guard: Guard,
    /// What was accepted of the server; without one, whatever it lists is.
    pub lock: Option<Lock>,
    /// Nothing is run but lists and handshakes.
    pub lists_only: bool,
    /// The client is a front: what is passed on to it from a request's process names the request.
    pub fronted: bool,
    /// What some tools are given and nobody is told; nothing where the configuration has none for this server.
    pub secrets: Option<Secrets>,
    /// Takes records.
    pub records: Box<dyn Records>,
    /// Where they go, if not where a command looks for them by itself.
    pub log: Option<PathBuf>,
    /// Tells the operator what is no fault, and has nowhere else to go.
    pub note: Box<dyn Fn(&str)>,
    /// Tells the operator of a fault that has nowhere else to go.
    pub notice: Box<dyn Fn(&str)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("server", &self.server)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// Why a session ended otherwise than by the client's wish.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The client's messages cannot be read.
    #[error("cannot read from the client")]
    Read(#[source] io::Error),
    /// The client sends, but reads no answers.
    #[error("the client has left {MOST_REPLIES} lines unread and sends more")]
    Unread,
}

/// A legacy handshake that every fresh process repeats.
#[derive(Debug)]
struct Handshake {
    params: Vec<u8>,
    version: String,
    offers: Offers,
}

/// What the legacy handshake has come to.
#[derive(Debug, Clone)]
enum Agreed {
    None,
    Pending,
    Done(Rc<Handshake>),
}

/// One request of the client.
#[derive(Debug, Clone)]
struct Ask {
    id: Id,
    /// With its newline.
    line: Vec<u8>,
    method: String,
    target: Option<String>,
    params: Option<Range<usize>>,
    meta: Meta,
    /// Who sent it, where that is asked.
    identity: Option<Rc<str>>,
}

impl Ask {
    /// Whose turn it has: its identity's, or where nobody asks for one, that of the client by its own word.
    fn caller(&self) -> Rc<str> {
        let client = || Rc::from(self.meta.client.as_deref().unwrap_or_default());
        self.identity.clone().unwrap_or_else(client)
    }
}

#[derive(Debug)]
struct OpenRequest {
    cancel: oneshot::Sender<Vec<u8>>,
    bytes: usize,
    /// Its place among its identity's calls, until it is answered.
    _pass: Option<Pass>,
}

/// Whom a catalogue serves; an identity only where it is the cell of a session.
type Whose = (Era, Option<Rc<str>>);

/// What all parts of a session share.
struct Session {
    options: Options,
    output: Output,
    agreed: watch::Sender<Agreed>,
    /// The parameters of the last `logging/setLevel` that succeeded.
    level: RefCell<Option<Vec<u8>>>,
    /// The legacy client's name.
    client: RefCell<String>,
    open: RefCell<HashMap<Id, OpenRequest>>,
    open_bytes: Cell<usize>,
    outbound: RefCell<Outbound>,
    roots: Roots,
    cache: RefCell<Cache>,
    /// Legacy, modern.
    schemas: [RefCell<Schemas>; 2],
    locked: Option<Locked>,
    chains: RefCell<Chains>,
    turns: Turns,
    gone: watch::Sender<bool>,
    tasks: watch::Sender<usize>,
    replies: Cell<usize>,
    counter: Cell<u64>,
    catalogues: RefCell<HashMap<Whose, UnboundedSender<Job>>>,
    /// Of the last request.
    era: Cell<Era>,
    spares: Spares,
    /// The operator was told that the server seems to need a session.
    forgotten: Cell<bool>,
    /// Set when the input has ended: no catalogue is started again.
    closed: Cell<bool>,
    itself: std::rc::Weak<Session>,
}

/// Counts a task as long as it lives.
struct Counted(Rc<Session>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks = tasks.saturating_sub(1));
    }
}

impl Session {
    fn next_cell(&self) -> u64 {
        self.counter.set(self.counter.get() + 1);
        self.counter.get()
    }

    fn next_call_id(&self) -> String {
        format!("{}-{}", self.options.run, self.next_cell())
    }

    /// Runs a task of the session.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let Some(session) = self.itself.upgrade() else { return };
        self.tasks.send_modify(|tasks| *tasks += 1);
        let counted = Counted(session);
        // The task is counted, and ends with the session at the latest.
        drop(tokio::task::spawn_local(async move {
            task.await;
            drop(counted);
        }));
    }

    /// Sends a line of the session's own, without waiting for it.
    fn reply(&self, line: Vec<u8>) {
        let Some(session) = self.itself.upgrade() else { return };
        self.replies.set(self.replies.get() + 1);
        self.spawn(async move {
            let mut over = session.gone.subscribe();
            tokio::select! {
                biased;
                () = session.output.line(line) => {}
                () = gone(&mut over) => {}
            }
            session.replies.set(session.replies.get().saturating_sub(1));
        });
    }

    /// Registers a request, so that it can be cancelled.
    fn track(&self, ask: &Ask, pass: Option<Pass>) -> Control {
        let (sender, cancel) = oneshot::channel();
        self.open_bytes.set(self.open_bytes.get() + ask.line.len());
        let open = OpenRequest { cancel: sender, bytes: ask.line.len(), _pass: pass };
        self.open.borrow_mut().insert(ask.id.clone(), open);
        Control { cancel: Some(cancel), gone: self.gone.subscribe() }
    }

    /// A request is about to be answered.
    fn forget(&self, id: &Id) {
        if let Some(open) = self.open.borrow_mut().remove(id) {
            self.open_bytes.set(self.open_bytes.get().saturating_sub(open.bytes));
        }
    }

    /// The handshake that a fresh process repeats, as soon as it is known whether there is one.
    async fn agreed(&self) -> Option<Rc<Handshake>> {
        let mut agreed = self.agreed.subscribe();
        let settled = agreed.wait_for(|agreed| !matches!(agreed, Agreed::Pending)).await.ok()?;
        match &*settled {
            Agreed::Done(handshake) => Some(Rc::clone(handshake)),
            Agreed::None | Agreed::Pending => None,
        }
    }

    /// What the tools of an era take.
    fn schemas(&self, era: Era) -> RefMut<'_, Schemas> {
        let [legacy, modern] = &self.schemas;
        if era == Era::Modern { modern.borrow_mut() } else { legacy.borrow_mut() }
    }

    /// An answer of the catalogue as somebody may see it.
    fn listed(&self, identity: Option<&str>, method: &str, line: Vec<u8>) -> Vec<u8> {
        match &self.options.gate {
            Some(gate) => gate.listed(identity.unwrap_or_default(), method, line),
            None => line,
        }
    }

    fn record(&self, call: &Call, policy: Option<&Policy>, finished: &Finished) {
        if let Err(error) = self.options.records.finished(call, policy, finished) {
            (self.options.notice)(&format!("cannot record the end of call `{}`: {error}", call.id));
        }
    }
}

/// Serves one client until it closes its input, its output breaks, or it cannot be read.
///
/// # Errors
/// When the client's messages cannot be read, or it reads none.
pub async fn serve(
    mut options: Options,
    client_in: impl AsyncRead + Unpin,
    client_out: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), ServeError> {
    let session = Rc::new_cyclic(|itself| Session {
        turns: Turns::new(options.jobs.max(1)),
        locked: options.lock.take().map(Locked::new),
        options,
        output: Output::new(client_out),
        agreed: watch::Sender::new(Agreed::None),
        level: RefCell::default(),
        client: RefCell::new("unknown".to_owned()),
        open: RefCell::default(),
        open_bytes: Cell::new(0),
        outbound: RefCell::default(),
        roots: Roots::default(),
        cache: RefCell::default(),
        schemas: Default::default(),
        chains: RefCell::default(),
        gone: watch::Sender::new(false),
        tasks: watch::Sender::new(0),
        replies: Cell::new(0),
        counter: Cell::new(0),
        catalogues: RefCell::default(),
        era: Cell::new(Era::Modern),
        spares: Spares::default(),
        forgotten: Cell::new(false),
        closed: Cell::new(false),
        itself: itself.clone(),
    });
    // What still runs when this ends is dropped with the set, and a dropped cell is killed.
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            // Not one of the tasks that the end of the session waits for.
            drop(tokio::task::spawn_local(locked::compare_program(Rc::clone(&session))));
            let served = tokio::select! {
                served = listen(&session, client_in) => served,
                () = session.output.gone() => Ok(()),
                () = session.output.flush_rests() => Ok(()),
            };
            wind_up(&session).await;
            served
        })
        .await
}

async fn listen(session: &Rc<Session>, client_in: impl AsyncRead + Unpin) -> Result<(), ServeError> {
    let mut lines = Lines::new(client_in, CLIENT_LINE, u64::MAX);
    loop {
        let frame = match timeout(QUIET, lines.next()).await {
            Ok(frame) => frame,
            Err(_quiet) => {
                own_text::let_go();
                lines.next().await
            }
        };
        match frame.map_err(ServeError::Read)? {
            Frame::Line(line) => client::line(session, line),
            Frame::Long(_) => {
                lines.skip_line();
                let detail = format!("a message is longer than {CLIENT_LINE} bytes");
                session.reply(reply::error(None, PARSE_ERROR, &detail));
            }
            Frame::Half(_) => {
                session.reply(reply::error(None, PARSE_ERROR, "the input ends inside a message"));
                return Ok(());
            }
            Frame::OverBudget | Frame::End => return Ok(()),
        }
        lines.shrink();
        if session.replies.get() > MOST_REPLIES {
            return Err(ServeError::Unread);
        }
        // Reading must not keep the calls from their turn when a client sends without a pause.
        tokio::task::yield_now().await;
    }
}

/// Gives open requests a last chance, then ends everything.
async fn wind_up(session: &Rc<Session>) {
    session.closed.set(true);
    session.catalogues.take();
    session.chains.borrow_mut().close();
    session.spares.close();
    let launcher = session.options.launcher.clone();
    session.spawn(async move { launcher.end_ready().await });
    let mut tasks = session.tasks.subscribe();
    let until = Instant::now() + LAST_ANSWERS;
    tokio::select! {
        _ = tasks.wait_for(|tasks| *tasks == 0) => return,
        () = session.output.gone() => {}
        () = session.output.flush_rests() => {}
        () = sleep_until(until) => {}
    }
    session.gone.send_replace(true);
    tokio::select! {
        _ = tasks.wait_for(|tasks| *tasks == 0) => {}
        () = sleep_until(Instant::now() + LAST_RECORDS) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Filesystem, Floor, Limits};

    pub(super) fn policy(time: Duration, output: u64) -> Policy {
        let limits = Limits { time, output, open_files: 64, file_size: 1 << 20, ..Limits::default() };
        let filesystem = Filesystem::default();
        Policy { filesystem, limits, floor: Floor::Landlock, ..Policy::nothing("test") }
    }
}
