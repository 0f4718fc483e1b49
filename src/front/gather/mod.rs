//! Several servers, each behind a `toolcell run` of its own, as one server for one client.
//!
//! ```text
//! client ──► requests ──► one child, by the name or URI in the request
//!    ▲                └─► all children (handshake, discovery, lists, log level, listening) ──► merge ──► one answer
//!    └── answers ◄── a child's lines as they came, but for the ids of its own requests
//! ```
//!
//! The client's ids go to the children as they are: each is open at one child, or at all for one answer. What a child asks the client
//! gets an id of this process, because the children's can be the same.
//!
//! A child that cannot be spoken to is left out; one that ends is reported, and the others go on.
//!
//! Neighbours: `commands::gather` composes it, [`super::child`] holds a child. Never: decides what may be called: each child does.

mod answers;
mod merge;
mod names;
mod requests;

use std::collections::{BTreeSet, HashMap};
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

use names::Owners;
pub use names::clash;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

use self::merge::Part;
use super::child::{Child, Input, Output as FromChild, Process, Said, Start};
use super::tail::Tail;
use crate::mcp::envelope::{self, Era, Id, PARSE_ERROR};
use crate::mcp::frame::{Frame, Lines, Piece};
use crate::mcp::output::Output;
use crate::mcp::reply;
use crate::mcp::scan::Scanner;

/// The longest line that a client may send.
const CLIENT_LINE: usize = 64 * 1024 * 1024;
/// A child's line that is longer passes in pieces. Lists and requests are never longer.
pub const LONGEST: usize = 10 * 1024 * 1024;
/// Lines of the client that may wait,
const MOST_LINES: usize = 10_000;
/// and lines of all children together.
const MOST_SAID: usize = 16;
/// How long after the end of its input the client gets answers, and the children have to leave.
const LAST: Duration = Duration::from_millis(900);
/// How long a child has to leave when it says no more.
const LEAVE: Duration = Duration::from_secs(2);
/// Pages of one list of one server.
const MOST_PAGES: usize = 100;

/// What there is to gather.
pub struct Options {
    /// Each server's name, and how its `toolcell run` is started.
    pub servers: Vec<(String, Start)>,
    /// This program's version.
    pub version: String,
    /// Tells the operator what is left out.
    pub notice: Box<dyn Fn(&str)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// One server.
#[derive(Debug)]
struct Member {
    input: Option<Input>,
    /// The legacy handshake did not come to an agreement.
    left_out: bool,
}

/// A request of the client that is not answered.
#[derive(Debug)]
enum Open {
    One { server: usize, method: String, era: Era },
    All(Fan),
}

/// A request that all answer together.
#[derive(Debug)]
struct Fan {
    method: String,
    /// As the client wrote it.
    line: Vec<u8>,
    waiting: BTreeSet<usize>,
    parts: Vec<Part>,
    pages: HashMap<usize, usize>,
    /// The first error.
    refused: Option<Vec<u8>>,
    /// The handshake is repeated with those whose version was too new.
    again: bool,
    /// Those that have not acknowledged that they are listened to,
    unheard: BTreeSet<usize>,
    /// and what was said before all have.
    held: Vec<Vec<u8>>,
}

/// What a child did.
enum Event {
    Said(usize, Vec<u8>),
    /// A long answer has gone to the client.
    Passed(Option<Id>),
    Ended(usize, io::Result<ExitStatus>),
}

struct Gather {
    options: Options,
    names: Vec<String>,
    members: Vec<Member>,
    output: Output,
    open: HashMap<Id, Open>,
    /// What the children ask the client, under this process's ids, and under which id a child knows it.
    asked: HashMap<i64, (usize, Vec<u8>)>,
    /// The progress tokens of these, which count like them.
    tokens: HashMap<i64, (usize, Vec<u8>)>,
    next: i64,
    owners: Owners,
    /// Requests that wait until it is known whose a resource is.
    deferred: Vec<Vec<u8>>,
}

/// Serves one client until it closes its input, its output breaks, or no server is left.
///
/// # Errors
/// When a child cannot be started, or the client sends and reads nothing.
pub async fn serve(
    options: Options,
    client_in: impl AsyncRead + Unpin + 'static,
    client_out: impl AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            let (said, mut events) = mpsc::channel(MOST_SAID);
            let output = Output::new(client_out);
            let mut members = Vec::new();
            for (at, (_, start)) in options.servers.iter().enumerate() {
                let Child { input, output: lines, process } = start.child()?;
                members.push(Member { input: Some(input), left_out: false });
                drop(spawn_local(read(at, (lines, process), output.clone(), said.clone())));
            }
            drop(said);
            let names = options.servers.iter().map(|(name, _)| name.clone()).collect();
            let mut gather = Gather {
                options,
                names,
                members,
                output: output.clone(),
                open: HashMap::new(),
                asked: HashMap::new(),
                tokens: HashMap::new(),
                next: 0,
                owners: Owners::default(),
                deferred: Vec::new(),
            };
            let (sender, mut lines) = mpsc::channel(MOST_LINES);
            let (over, mut ended) = watch::channel(false);
            drop(spawn_local(listen(client_in, sender, over)));
            tokio::select! {
                biased;
                () = output.gone() => Ok(()),
                () = output.flush_rests() => Ok(()),
                served = gather.run(&mut lines, &mut events) => served,
                // However long a write to the client takes.
                () = overdue(&mut ended) => Ok(()),
            }
        })
        .await
}

async fn overdue(ended: &mut watch::Receiver<bool>) {
    drop(ended.wait_for(|ended| *ended).await);
    sleep_until(Instant::now() + LAST).await;
}

/// Reads the client's lines. A client that is far ahead of its answers is not read until it has fewer.
async fn listen(
    client_in: impl AsyncRead + Unpin,
    lines: mpsc::Sender<Option<Vec<u8>>>,
    over: watch::Sender<bool>,
) {
    let mut client = Lines::new(client_in, CLIENT_LINE, u64::MAX);
    while let Ok(frame) = client.next().await {
        let line = match frame {
            Frame::Line(line) => Some(line.to_vec()),
            Frame::Long(_) => {
                client.skip_line();
                None
            }
            Frame::Half(_) | Frame::OverBudget | Frame::End => break,
        };
        client.shrink();
        if lines.send(line).await.is_err() {
            break;
        }
    }
    over.send_replace(true);
}

/// Reads a child's lines until it is gone.
async fn read(
    at: usize,
    (mut lines, mut process): (FromChild, Process),
    client: Output,
    said: mpsc::Sender<Event>,
) {
    loop {
        let event = match lines.next().await {
            Said::Line(line) => Event::Said(at, line),
            Said::Long => Event::Passed(pass(&mut lines, &client).await),
            Said::End => break,
        };
        if said.send(event).await.is_err() {
            return;
        }
    }
    let status = process.ended_by(Instant::now() + LEAVE).await;
    drop(said.send(Event::Ended(at, status)).await);
}

/// Passes a long line on. Its id, if it was an answer; a line that breaks off is finished with an id that nobody asked with.
async fn pass(lines: &mut FromChild, client: &Output) -> Option<Id> {
    let mut out = client.long_line().await;
    let (mut tail, mut scanner) = (Tail::default(), Scanner::new());
    let mut piece = Vec::new();
    loop {
        let state = lines.piece(&mut piece).await;
        tail.feed(&piece);
        let whole = scanner.feed(&piece).is_ok();
        if whole && state != Piece::Half {
            if state == Piece::Last {
                piece.push(b'\n');
            }
            out.push(&mut piece).await;
        }
        match state {
            Piece::More if whole => {}
            Piece::Last if whole => return tail.id(),
            _ => {
                let mut end = Vec::new();
                scanner.complete(1, &mut end);
                end.extend_from_slice(&reply::void_end());
                out.end(&end);
                return None;
            }
        }
    }
}

impl Gather {
    async fn run(
        &mut self,
        lines: &mut mpsc::Receiver<Option<Vec<u8>>>,
        events: &mut mpsc::Receiver<Event>,
    ) -> io::Result<()> {
        let mut open = true;
        loop {
            // Neither side's flood keeps the other waiting.
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Said(server, line)) => self.said(server, line).await,
                    Some(Event::Passed(id)) => drop(id.map(|id| self.open.remove(&id))),
                    Some(Event::Ended(server, status)) => self.ended(server, status, open).await,
                    // The last child is gone.
                    None => return if open { Err(io::Error::other("every server has ended")) } else { Ok(()) },
                },
                line = lines.recv(), if open => match line {
                    Some(Some(line)) => self.line(&line).await,
                    Some(None) => {
                        let detail = format!("a message is longer than {CLIENT_LINE} bytes");
                        self.output.line(reply::error(None, PARSE_ERROR, &detail)).await;
                    }
                    None => {
                        open = false;
                        self.members.iter_mut().for_each(|member| member.input = None);
                    }
                },
            }
        }
    }

    fn name(&self, server: usize) -> &str {
        self.names.get(server).map_or("", String::as_str)
    }

    /// Sends a line, without its end, to one child. One that does not read any more is about to be reported.
    async fn send(&mut self, server: usize, line: &[u8]) {
        if let Some(input) = self.members.get_mut(server).and_then(|member| member.input.as_mut()) {
            drop(input.send(line).await);
        }
    }

    /// Those that a request of this era can be sent to.
    fn reachable(&self, era: Era) -> BTreeSet<usize> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.input.is_some() && !(member.left_out && era == Era::Legacy))
            .map(|(at, _)| at)
            .collect()
    }

    async fn error(&self, id: &Id, code: i32, detail: &str) {
        self.output.line(reply::error(Some(id), code, detail)).await;
    }
}

/// The parameters' value of this name, as text.
fn text_of(line: &[u8], message: &envelope::Message, name: &str) -> Option<String> {
    envelope::target(line, message.params.as_ref(), name).ok()
}
