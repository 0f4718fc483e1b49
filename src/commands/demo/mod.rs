//! `toolcell demo`: wraps the built-in hostile server like any other, plays the client, and shows call by call what
//! was tried, what stopped it and how long it took.
//!
//! Neighbours: starts this same program as `run … -- … hostile-server`; reads the audit file that it writes.
//! Never: believes an attacker's word where it can look from outside; reaches into a stage of the library.

mod attacks;
mod client;
mod judge;
mod look;
mod record;
mod render;
mod stage;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use attacks::{ATTACKS, Attack};
use client::{Client, Exchange};
use look::Left;
use record::Record;
use serde_json::json;
use stage::Stage;

use crate::policy::Floor;

/// How many harmless calls are timed.
const TIMED_CALLS: usize = 15;

/// What was typed, resolved.
#[derive(Debug)]
pub(super) struct Options {
    /// One JSON document instead of a table.
    pub(super) json: bool,
    /// The weakest isolation to accept; the default of `run` if none.
    pub(super) floor: Option<Floor>,
    /// Wrap the server. Without, the same probes run bare, to show that each of them can escape.
    pub(super) cell: bool,
    /// Paint the table.
    pub(super) colour: bool,
    /// The toolcell binary, which is also the hostile server.
    pub(super) program: PathBuf,
}

/// Why a demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The canaries could not be set up.
    #[error("cannot prepare `{what}`")]
    Prepare {
        /// What was to be made.
        what: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The wrapped server did not do its first, harmless call.
    #[error("`toolcell run` refused the hostile server:\n{words}")]
    Refused {
        /// What it said, already escaped line by line.
        words: String,
    },
    /// The connection to the wrapped server broke.
    #[error("lost the connection to `toolcell run` during `{call}`:\n{words}")]
    Lost {
        /// The tool that was being called.
        call: &'static str,
        /// What it said last.
        words: String,
    },
    /// The table could not be written.
    #[error("cannot write the table")]
    Write(#[from] io::Error),
}

impl Error {
    /// The next thing to do.
    #[must_use]
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => Some(
                "`toolcell doctor` says what this host lacks; `toolcell demo --floor no-cgroup` accepts a host without \
                 cgroup limits"
                    .to_owned(),
            ),
            Self::Prepare { .. } | Self::Lost { .. } | Self::Write(_) => None,
        }
    }
}

/// One attack and how it ended.
#[derive(Debug)]
struct Row {
    attack: &'static Attack,
    exchange: Exchange,
    judgement: judge::Judgement,
}

/// Everything seen.
#[derive(Debug)]
struct Summary {
    rows: Vec<Row>,
    left: Left,
    harmless: Duration,
    closing: Option<Duration>,
    floor: Option<String>,
    unrecorded: usize,
}

impl Summary {
    /// Nothing escaped, nothing is unclear, nothing is left, and every call has its record.
    fn held(&self) -> bool {
        self.rows.iter().all(|row| row.judgement.verdict.held())
            && self.left.is_nothing()
            && self.closing.is_some()
            && self.unrecorded == 0
    }
}

/// Runs the demonstration. True: every attack was stopped and nothing was left behind.
///
/// # Errors
/// When it could not be prepared, the wrapped server did not work at all, or `out` could not be written.
pub(super) fn run(options: &Options, out: &mut dyn Write) -> Result<bool, Error> {
    let before = look::before().map_err(|cause| Error::Prepare { what: "/proc".to_owned(), cause })?;
    let mut stage = Stage::new(&options.program)?;
    let mut client = Client::start(options, &stage)?;
    first_call(&mut client, &stage)?;
    let mut table = render::Table::new(options, out);
    table.header()?;
    let mut rows = Vec::new();
    let mut floor = None;
    let mut unrecorded = 0;
    for attack in ATTACKS {
        stage.ready()?;
        let exchange = attack_once(&mut client, attack, &stage, options)?;
        let judgement = judge::judge(attack, &exchange, &mut stage, options.cell);
        unrecorded += usize::from(options.cell && exchange.record.is_none());
        floor = floor.or_else(|| exchange.record.as_ref().and_then(Record::floor));
        let row = Row { attack, exchange, judgement };
        table.row(&row)?;
        rows.push(row);
    }
    let harmless = time_harmless(&mut client)?;
    let closing = client.close();
    stage.end();
    let left =
        look::since(&before, &stage).map_err(|cause| Error::Prepare { what: "/proc".to_owned(), cause })?;
    let summary = Summary { rows, left, harmless, closing, floor, unrecorded };
    table.summary(&summary)?;
    Ok(summary.held())
}

/// The handshake and one harmless call: whether the wrapped server works at all.
fn first_call(client: &mut Client, stage: &Stage) -> Result<(), Error> {
    let refused = |client: &mut Client| Error::Refused { words: client.last_words() };
    if !client.handshake() {
        return Err(refused(client));
    }
    let exchange = client.exchange("harmless", json!({"text": stage.token()}), None, false);
    let text = exchange.answer.as_ref().and_then(client::text).map(str::to_owned);
    match text {
        Some(text) if text == stage.token() => Ok(()),
        Some(text) => Err(Error::Refused { words: render::plain(&text) }),
        None => Err(refused(client)),
    }
}

/// One attack: its call, and what came of it.
fn attack_once(
    client: &mut Client,
    attack: &'static Attack,
    stage: &Stage,
    options: &Options,
) -> Result<Exchange, Error> {
    let arguments = (attack.arguments)(stage, !options.cell);
    let protocol = attack.sign.is_protocol();
    let victim = protocol.then(|| stage.victim());
    let exchange = client.exchange(attack.tool, arguments, victim.as_deref(), options.cell);
    if exchange.lost {
        return Err(Error::Lost { call: attack.tool, words: client.last_words() });
    }
    Ok(exchange)
}

/// The median time of some harmless calls.
fn time_harmless(client: &mut Client) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(TIMED_CALLS);
    for _ in 0..TIMED_CALLS {
        let begin = Instant::now();
        let exchange = client.exchange("harmless", json!({"text": "hello"}), None, false);
        if exchange.lost {
            return Err(Error::Lost { call: "harmless", words: client.last_words() });
        }
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(TIMED_CALLS / 2).copied().unwrap_or_default())
}
