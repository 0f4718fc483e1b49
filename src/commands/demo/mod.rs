//! `toolcell demo` and `toolcell selftest`: wrap the built-in hostile server like any other, play the client, and show
//! call by call what was tried, what stopped it, and how long it took or what was recorded.
//!
//! Neighbours: starts this same program as `run … -- … hostile-server`; reads the audit file that it writes.
//! Never: believes an attacker's word where it can look from outside; reaches into a stage of the library.

mod attacks;
mod client;
mod judge;
mod limit;
mod look;
mod record;
mod render;
mod stage;
mod stopper;
mod way;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use attacks::{Attack, Wall};
use client::{Beside, Client, Exchange};
use look::Left;
use record::Record;
use serde_json::json;
use stage::Stage;
use way::{Granted, WAYS, Way};

use crate::exit_codes::Ending;
use crate::policy::{Floor, Writes};

/// How many harmless calls are timed.
const TIMED_CALLS: usize = 15;
/// How often an attack is made to get it into a cell that was made the one way. The host may mount something meanwhile,
/// and then no cell that was built before is used.
const TRIES: usize = 4;

/// What `run` says where the only rung of the host cannot protect names in a grant.
const UNPROTECTED: &str = "what the host would run from a writable directory cannot be protected";

/// What it says where nothing can be laid over a directory: on the lowest rung, and on a kernel without overlays.
const NO_REVIEW: [&str; 2] = ["can only go there directly", "makes no overlay"];

/// What is around the hostile server.
#[derive(Debug)]
pub(super) enum Around {
    /// A cell of `toolcell run`; each attack is made once, in whatever cell comes.
    Cell,
    /// The same, and each attack is made in a cell of each [`Way`].
    EveryCell {
        /// The profile instead of the default one, as `run` takes it.
        profile: Option<String>,
    },
    /// What this command, with the server's own behind it, puts there; nothing, if it is empty.
    Command(Vec<OsString>),
}

impl Around {
    /// Is it a cell of `toolcell run`, which keeps records?
    const fn is_cell(&self) -> bool {
        matches!(self, Self::Cell | Self::EveryCell { .. })
    }
}

/// What was typed, resolved.
#[derive(Debug)]
pub(super) struct Options {
    /// One JSON document instead of a table.
    pub(super) json: bool,
    /// The weakest isolation to accept; the default of `run` if none.
    pub(super) floor: Option<Floor>,
    /// Without a cell the same probes run bare, to show that each of them can escape.
    pub(super) around: Around,
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
        /// The status it exited with, if it did.
        status: Option<u8>,
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
            Self::Refused { words, .. } if !words.contains("hint: ") => Some(
                "`toolcell doctor` says what this host lacks; `--floor no-cgroup` accepts a host without cgroup limits"
                    .to_owned(),
            ),
            Self::Refused { .. } | Self::Prepare { .. } | Self::Lost { .. } | Self::Write(_) => None,
        }
    }

    /// How the process is to end: as `run` did, where that says more.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Refused { status: Some(status @ 1..), .. } => Ending::Exited(*status),
            Self::Refused { .. } | Self::Prepare { .. } | Self::Lost { .. } | Self::Write(_) => Ending::Other,
        }
    }
}

/// One attack and how it ended.
#[derive(Debug)]
struct Row {
    attack: &'static Attack,
    /// The call in which least was held.
    worst: Made,
    /// The other calls.
    others: Vec<Made>,
}

/// One call and how it ended.
#[derive(Debug)]
struct Made {
    exchange: Exchange,
    judgement: judge::Judgement,
    /// How the cell was made, if its record says so.
    way: Option<Way>,
}

impl Row {
    /// Of its calls; none without one.
    fn new(attack: &'static Attack, mut calls: Vec<Made>) -> Option<Self> {
        calls.sort_by_key(|made| std::cmp::Reverse(made.judgement.verdict));
        let mut calls = calls.into_iter();
        Some(Self { attack, worst: calls.next()?, others: calls.collect() })
    }

    /// Every call.
    fn calls(&self) -> impl Iterator<Item = &Made> {
        std::iter::once(&self.worst).chain(&self.others)
    }

    /// How many of the calls were in a cell that was made so.
    fn made(&self, way: Way) -> usize {
        self.calls().filter(|made| made.way == Some(way)).count()
    }
}

/// Everything seen.
#[derive(Debug)]
struct Summary {
    rows: Vec<Row>,
    left: Left,
    harmless: Duration,
    closing: Option<Duration>,
    /// A class that cannot be tried on the only rung of this host.
    untried: Option<&'static str>,
    /// Ways in which no cell is made here, and why.
    lacking: Vec<(Way, String)>,
    floor: Option<String>,
    unrecorded: usize,
}

impl Summary {
    /// How many cells were made in each way.
    fn cells(&self) -> [(Way, usize); WAYS.len()] {
        WAYS.map(|way| (way, self.rows.iter().map(|row| row.made(way)).sum()))
    }

    /// Nothing escaped, nothing is unclear, nothing is left, and every call has its record.
    fn held(&self) -> bool {
        self.rows.iter().flat_map(Row::calls).all(|made| made.judgement.verdict.held())
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
    let unseen = |cause| Error::Prepare { what: "/proc".to_owned(), cause };
    let mut before = look::before().map_err(unseen)?;
    let mut stage = Stage::new(&options.program)?;
    let mut unprotected = false;
    let mut client = match start(options, &mut stage, Granted::Direct) {
        // On the lowest rung there is no such grant, and nothing is protected in none.
        Err(Error::Refused { words, .. }) if words.contains(UNPROTECTED) => {
            unprotected = true;
            start(options, &mut stage, Granted::Unprotected)?
        }
        started => started?,
    };
    let (mut others, mut lacking) = (Vec::new(), Vec::new());
    if matches!(options.around, Around::EveryCell { .. }) {
        for granted in
            [Granted::Spared, Granted::Named, Granted::NamedSpared, Granted::Doors, Granted::Session]
        {
            // Where there is no such grant, there is no such cell.
            match start(options, &mut stage, granted) {
                Ok(other) => others.push(other),
                Err(error) => lacking.extend(
                    WAYS.iter().find(|way| way.granted() == granted).map(|way| (*way, error.to_string())),
                ),
            }
        }
    }
    before.makers().map_err(unseen)?;
    let mut table = render::Table::new(options, out);
    table.header(unprotected)?;
    let mut ways = match options.around {
        Around::Cell | Around::Command(_) => vec![None],
        Around::EveryCell { .. } => WAYS.map(Some).to_vec(),
    };
    let mut rows: Vec<Row> = Vec::new();
    for attack in attacks::direct() {
        let mut calls = Vec::new();
        for way in &ways {
            if way.is_some_and(|way| !way.has(attack)) {
                continue;
            }
            let other =
                others.iter_mut().find(|other| way.is_some_and(|way| way.granted() == other.granted()));
            let client = other.unwrap_or(&mut client);
            attack_so(client, attack, &mut stage, options, *way, &mut calls)?;
        }
        let Some(row) = Row::new(attack, calls) else { continue };
        table.row(&row)?;
        // What this host or the profile does not have, the first attack does not find either. Later ones must get theirs.
        if rows.is_empty() {
            ways.retain(|way| way.is_none_or(|way| way == Way::OnDemand || row.made(way) > 0));
        }
        rows.push(row);
    }
    let harmless = time_harmless(&mut client)?;
    let mut closing = client.close();
    for mut other in others {
        closing = closing.and_then(|time| other.close().map(|other| time.max(other)));
    }
    let mut untried = None;
    for (writes, wall) in
        [(Writes::Review, Wall::Review), (Writes::Ask, Wall::Agreed), (Writes::Discard, Wall::Discarded)]
    {
        let mut reviewing = match start(options, &mut stage, Granted::InMemory(writes)) {
            Err(Error::Refused { words, .. }) if NO_REVIEW.iter().any(|why| words.contains(why)) => {
                untried = Some(attacks::REVIEW);
                break;
            }
            started => started?,
        };
        // One that was built for its call is to be had of every such plan.
        let way = options.around.is_cell().then_some(Way::OnDemand);
        for attack in attacks::reviewed().filter(|attack| attack.wall == wall) {
            let mut calls = Vec::new();
            attack_so(&mut reviewing, attack, &mut stage, options, way, &mut calls)?;
            let Some(row) = Row::new(attack, calls) else { continue };
            table.row(&row)?;
            rows.push(row);
        }
        closing = closing.and_then(|time| reviewing.close().map(|other| time.max(other)));
    }
    stage.end();
    let left = look::since(&before, &stage).map_err(unseen)?;
    let records = || rows.iter().flat_map(Row::calls).map(|made| made.exchange.record.as_ref());
    let floor = records().flatten().find_map(Record::floor);
    let unrecorded = records().filter(|record| options.around.is_cell() && record.is_none()).count();
    let summary = Summary { left, harmless, closing, untried, lacking, floor, unrecorded, rows };
    table.summary(&summary)?;
    Ok(summary.held())
}

/// A client whose server works, with a time limit that its machine keeps.
fn start(options: &Options, stage: &mut Stage, granted: Granted) -> Result<Client, Error> {
    loop {
        let mut client = Client::start(options, stage, granted)?;
        let began = Instant::now();
        let called = first_call(&mut client, stage);
        if !stage.limit.prolong(began.elapsed()) {
            return called.map(|()| client);
        }
    }
}

/// The handshake and one harmless call: whether the wrapped server works at all.
fn first_call(client: &mut Client, stage: &Stage) -> Result<(), Error> {
    let refused = |client: &mut Client| {
        let words = client.last_words();
        Error::Refused { words, status: client.status() }
    };
    if !client.handshake() {
        return Err(refused(client));
    }
    let exchange = client.exchange("harmless", json!({"text": stage.token()}), &Beside::default(), false);
    let text = exchange.answer.as_ref().and_then(client::text).map(str::to_owned);
    match text {
        Some(text) if text == stage.token() => Ok(()),
        Some(text) => Err(Error::Refused { words: render::plain(&text), status: None }),
        None => Err(refused(client)),
    }
}

/// One attack in a cell that was made so, if it can be had: its calls, and what came of them.
fn attack_so(
    client: &mut Client,
    attack: &'static Attack,
    stage: &mut Stage,
    options: &Options,
    way: Option<Way>,
    calls: &mut Vec<Made>,
) -> Result<(), Error> {
    for _ in 0..TRIES {
        stage.ready(attack.sign)?;
        let arguments = (attack.arguments)(stage, !options.around.is_cell());
        let beside = Beside {
            victim: attack.sign.is_protocol().then(|| stage.victim()),
            taker: way == Some(Way::OnDemand),
        };
        let exchange = client.exchange(attack.tool, arguments, &beside, options.around.is_cell());
        if exchange.lost {
            return Err(Error::Lost { call: attack.tool, words: client.last_words() });
        }
        let judgement = judge::judge(attack, &exchange, stage, options.around.is_cell());
        let made_so = exchange.record.as_ref().and_then(|record| Way::of(client.granted(), record));
        calls.push(Made { exchange, judgement, way: made_so });
        if way.is_none() || made_so == way {
            break;
        }
    }
    Ok(())
}

/// The median time of some harmless calls.
fn time_harmless(client: &mut Client) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(TIMED_CALLS);
    for _ in 0..TIMED_CALLS {
        let begin = Instant::now();
        let exchange = client.exchange("harmless", json!({"text": "hello"}), &Beside::default(), false);
        if exchange.lost {
            return Err(Error::Lost { call: "harmless", words: client.last_words() });
        }
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(TIMED_CALLS / 2).copied().unwrap_or_default())
}
