//! The client's side of a demonstration: starts the wrapped server, calls it, collects every line and every record.
//!
//! Three threads turn what blocks into events in one line: standard output, the audit log, the process's end.
//! Neighbours: `demo::run` calls, `judge` reads an [`Exchange`]. Never: decides what an answer means.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::record::{self, Record};
use super::stage::{ARGUMENT, HOSTILE, KEY, PROJECT, Stage, left_to_the_tool};
use super::way::Granted;
use super::{Around, Error, Options, render};
use crate::plan::seccomp;
use crate::policy::config::state::State;
use crate::sys::{landlock, observe};

/// How long an answer may take: well above the time limit that the wrapped server's calls have, also on an emulated machine.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a record may take once the answer is there, and the process once its input is closed.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// How long a record may take after one has not come at all.
const IMPATIENT: Duration = Duration::from_millis(200);
/// How much of standard error is kept.
const WORDS: u64 = 16 << 10;
/// What the victim of a forgery is asked to give back.
pub(super) const TRUE_ANSWER: &str = "the true answer";

/// Doors that lead nowhere (RFC 6761), by the resolver of the cell.
const NET: [&str; 2] = ["--net", "*.toolcell-demo.invalid:443"];
/// The port of a cell into which one leads.
const LISTEN: [&str; 2] = ["--listen", "8080"];

/// Something that happened.
enum Event {
    /// A line on standard output.
    Line(Vec<u8>),
    /// A record of a call that ended.
    Record(Box<Record>),
    /// The process is gone with this status, and its standard output was read to the end.
    Exited(Option<u8>),
}

/// The wrapped server.
#[derive(Debug)]
pub(super) struct Client {
    /// What it may have.
    granted: Granted,
    /// What each call names, of what it may have.
    names: Option<PathBuf>,
    stdin: Option<UnixStream>,
    events: Receiver<Event>,
    /// Where standard error goes.
    words: PathBuf,
    pid: Option<i32>,
    status: Option<u8>,
    calls: u64,
    /// Calls whose record is to come.
    open: usize,
    patience: Duration,
}

/// What is asked for in the same breath as an attack.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// A harmless call behind it, of this id, whose answer may be forged.
    pub(super) victim: Option<String>,
    /// A harmless call before it, which takes the cell that waits, if there is one.
    pub(super) taker: bool,
}

/// All that came of one call.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The first answer with the call's id.
    pub(super) answer: Option<Value>,
    /// How many answers had the call's id.
    pub(super) answers: usize,
    /// The answers to the victim's call, errors too.
    pub(super) victim_answers: usize,
    /// The texts of those that are none.
    pub(super) victim: Vec<String>,
    /// Every line that came, whatever it is.
    pub(super) lines: Vec<Vec<u8>>,
    /// The record of the call.
    pub(super) record: Option<Record>,
    /// From the request to the first answer.
    pub(super) time: Duration,
    /// The wrapped server ended, or did not answer at all.
    pub(super) lost: bool,
}

impl Client {
    /// Starts the server, wrapped or bare.
    pub(super) fn start(options: &Options, stage: &Stage, granted: Granted) -> Result<Self, Error> {
        let cannot = |what: String| move |cause: io::Error| Error::Prepare { what, cause };
        let program = options.program.display().to_string();
        let words = stage.words();
        // A socket and a file, so that an attacker who got hold of them could do something with them.
        let (stdin, theirs) = UnixStream::pair().map_err(cannot("socket".to_owned()))?;
        let file = File::options().append(true).open(&words).map_err(cannot(words.display().to_string()))?;
        let mut command = command(options, stage, granted);
        command.stdin(OwnedFd::from(theirs)).stderr(file);
        let mut child = command.spawn().map_err(cannot(program.clone()))?;
        drop(command);
        let (sender, events) = mpsc::channel();
        let stdout = child.stdout.take();
        let pid = i32::try_from(child.id()).ok();
        if options.around.is_cell() {
            let audit = stage.audit();
            let mut file = File::open(&audit).map_err(cannot(audit.display().to_string()))?;
            // What another server's calls left there is nobody's here.
            file.seek(SeekFrom::End(0)).map_err(cannot(audit.display().to_string()))?;
            let name = CString::new(audit.as_os_str().as_bytes()).unwrap_or_default();
            let writes = observe::watch_writes(&name)
                .map_err(|errno| io::Error::from_raw_os_error(errno.0))
                .map_err(cannot(audit.display().to_string()))?;
            let sender = sender.clone();
            let supervisor = child.id();
            thread::spawn(move || follow(file, File::from(writes), supervisor, &sender));
        }
        thread::spawn(move || read(child, stdout, &sender));
        Ok(Self {
            granted,
            names: granted.is_named().then(|| stage.given()),
            stdin: Some(stdin),
            events,
            words,
            pid,
            status: None,
            calls: 0,
            open: 0,
            patience: AFTERWARDS,
        })
    }

    /// What it may have.
    pub(super) const fn granted(&self) -> Granted {
        self.granted
    }

    /// The legacy handshake. False: it did not succeed.
    pub(super) fn handshake(&mut self) -> bool {
        let greeting = json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "toolcell-demo", "version": env!("CARGO_PKG_VERSION")}}});
        if !self.send(&[greeting]) {
            return false;
        }
        let end = Instant::now() + ANSWER;
        loop {
            match self.next(end) {
                Some(Event::Line(line)) => {
                    let answer = serde_json::from_slice::<Value>(&line).unwrap_or_default();
                    if answer.get("id").is_some_and(|id| id == "hello") {
                        let agreed = answer.get("result").is_some();
                        return agreed
                            && self
                                .send(&[json!({"jsonrpc": "2.0", "method": "notifications/initialized"})]);
                    }
                }
                Some(Event::Record(_)) => {}
                Some(Event::Exited(_)) | None => return false,
            }
        }
    }

    /// Calls a tool and waits for its answer, the victim's if there is a victim, and the records if there are to be any:
    /// then every cell is gone. With a victim, one more call flushes out what comes late.
    pub(super) fn exchange(
        &mut self,
        tool: &'static str,
        mut arguments: Value,
        beside: &Beside,
        recorded: bool,
    ) -> Exchange {
        self.calls += 1;
        if let (Some(names), Some(arguments)) = (&self.names, arguments.as_object_mut()) {
            arguments.insert(ARGUMENT.to_owned(), json!(names));
        }
        let id = format!("call-{}", self.calls);
        let victim = beside.victim.as_deref();
        let mut exchange = Exchange::default();
        let mut requests = Vec::new();
        if beside.taker {
            requests.push(call(&format!("{id}-first"), "harmless", json!({"text": "first"})));
        }
        requests.push(call(&id, tool, arguments));
        requests.extend(victim.map(|id| call(id, "harmless", json!({"text": TRUE_ANSWER}))));
        let begin = Instant::now();
        exchange.lost = !self.send(&requests);
        let mut end = begin + ANSWER;
        while !exchange.lost {
            let answered = exchange.answer.is_some()
                && (victim.is_none() || exchange.victim.contains(&TRUE_ANSWER.into()));
            if answered && (!recorded || (exchange.record.is_some() && self.open == 0)) {
                break;
            }
            match self.next(end) {
                Some(Event::Line(line)) => {
                    if exchange.take(line, &id, victim) {
                        exchange.time = begin.elapsed();
                        end = Instant::now() + self.patience;
                    }
                }
                Some(Event::Record(record)) if record.is_of(tool) => exchange.record = Some(*record),
                Some(Event::Record(_)) => {}
                Some(Event::Exited(_)) => exchange.lost = true,
                None => {
                    exchange.lost = exchange.answer.is_none();
                    self.patience = IMPATIENT;
                    break;
                }
            }
        }
        if victim.is_some() && !exchange.lost {
            self.flush(&mut exchange, &id, victim, recorded);
        }
        exchange
    }

    /// One more harmless call: whatever is late has come when it is answered.
    fn flush(&mut self, exchange: &mut Exchange, id: &str, victim: Option<&str>, recorded: bool) {
        let last = format!("{id}-flush");
        exchange.lost = !self.send(&[call(&last, "harmless", json!({"text": "flush"}))]);
        let end = Instant::now() + ANSWER;
        let mut flushed = false;
        while !flushed || (recorded && self.open > 0) {
            match self.next(end) {
                Some(Event::Line(line)) => {
                    let message = serde_json::from_slice::<Value>(&line);
                    flushed |=
                        message.is_ok_and(|answer| answer.get("id").is_some_and(|id| *id == last.as_str()));
                    exchange.take(line, id, victim);
                }
                Some(Event::Record(_)) => {}
                Some(Event::Exited(_)) | None => {
                    exchange.lost |= !flushed;
                    break;
                }
            }
        }
    }

    /// Writes messages in one go.
    fn send(&mut self, messages: &[Value]) -> bool {
        self.open += messages
            .iter()
            .filter(|message| message.get("method").is_some_and(|m| m == "tools/call"))
            .count();
        let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
        self.stdin.as_mut().is_some_and(|stdin| stdin.write_all(text.as_bytes()).is_ok())
    }

    /// The next event, if there is one before `end`.
    fn next(&mut self, end: Instant) -> Option<Event> {
        let event = self.events.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
        match event {
            Some(Event::Exited(status)) => (self.pid, self.status) = (None, status),
            Some(Event::Record(_)) => self.open = self.open.saturating_sub(1),
            Some(Event::Line(_)) | None => {}
        }
        event
    }

    /// Closes the input and waits for the end. Gives the time that took; `None`: it had to be killed.
    pub(super) fn close(&mut self) -> Option<Duration> {
        drop(self.stdin.take());
        let begin = Instant::now();
        while self.pid.is_some() {
            if self.next(begin + AFTERWARDS).is_none() {
                self.kill();
                return None;
            }
        }
        Some(begin.elapsed())
    }

    /// Ends a process that has not ended by itself.
    fn kill(&mut self) {
        if let Some(pid) = self.pid.take() {
            observe::kill(pid, libc::SIGKILL).unwrap_or_default();
        }
    }

    /// The status it exited with, once it has.
    pub(super) const fn status(&self) -> Option<u8> {
        self.status
    }

    /// Ends it, and gives what it said on standard error, fit for a terminal.
    pub(super) fn last_words(&mut self) -> String {
        self.close();
        let mut words = Vec::new();
        let read = File::open(&self.words).and_then(|file| file.take(WORDS).read_to_end(&mut words));
        let words =
            read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&words).into_owned());
        // The first line is the stage's own.
        render::plain(words.split_once('\n').map_or("", |(_, words)| words).trim_end())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

impl Exchange {
    /// Takes in a line. True: it is the first answer to the call.
    pub(super) fn take(&mut self, line: Vec<u8>, id: &str, victim: Option<&str>) -> bool {
        let message = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        self.lines.push(line);
        let answered = message.get("id").and_then(Value::as_str).unwrap_or_default();
        if victim.is_some_and(|victim| victim == answered) {
            self.victim_answers += 1;
            let failed =
                message.pointer("/result/isError").map_or(message.get("result").is_none(), |is| *is == true);
            self.victim.extend(text(&message).filter(|_| !failed).map(str::to_owned));
        }
        if answered != id {
            return false;
        }
        self.answers += 1;
        let first = self.answer.is_none();
        self.answer.get_or_insert(message);
        first
    }
}

/// The command that is attacked from, in the workspace.
fn command(options: &Options, stage: &Stage, granted: Granted) -> Command {
    let mut command = match &options.around {
        Around::Cell => run(options, stage, granted, None),
        Around::EveryCell { profile } => run(options, stage, granted, profile.as_deref()),
        Around::Command(words) => match words.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&options.program);
                command
            }
            None => Command::new(&options.program),
        },
    };
    if !granted.is_named() {
        command.arg(HOSTILE);
    }
    command.env(KEY, stage.secret()).current_dir(stage.path("workspace")).stdout(Stdio::piped());
    command
}

/// `toolcell run` with limits so small that what takes without end comes to an end soon.
fn run(options: &Options, stage: &Stage, granted: Granted, profile: Option<&str>) -> Command {
    let mut command = Command::new(&options.program);
    command.args(["run", "--memory", "128MiB", "--tasks", "64", "--scratch", "2MiB"]);
    command.args(["--timeout", &stage.limit.words()]);
    // One call can take the cell that waits while another comes, and the host has processors to spare.
    command.args(["--jobs", "4", "--cpu", "1"]);
    let workspace = stage.path("workspace");
    let project = stage.path(PROJECT);
    command.args(["--spares", if granted.is_spared() { "4" } else { "0" }]);
    let written: Vec<PathBuf> = match granted {
        Granted::Unprotected => left_to_the_tool(&workspace).chain([workspace.clone()]).collect(),
        Granted::InMemory(writes) => {
            command.args(["--writes", writes.name()]);
            vec![project]
        }
        _ => left_to_the_tool(&workspace).chain([workspace.clone(), project]).collect(),
    };
    for path in written {
        command.arg("--write").arg(path);
    }
    if granted == Granted::Session {
        command.args(["--state", State::Session.name()]);
    }
    if granted == Granted::Doors {
        command.args(NET);
        if seccomp::holds_ports(landlock::abi()) {
            command.args(LISTEN);
        }
    }
    command.arg("--audit").arg(stage.audit()).env("XDG_STATE_HOME", stage.path("state"));
    if let Some(profile) = profile {
        command.args(["--profile", profile]);
    }
    if let Some(floor) = options.floor {
        command.args(["--floor", floor.name()]);
    }
    if granted.is_named() {
        command.arg("--read").arg(stage.named()).arg("--config").arg(stage.configuration());
    } else {
        command.arg("--").arg(&options.program);
    }
    command
}

/// A `tools/call` request.
fn call(id: &str, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// The first text of a result, or the message of an error.
pub(super) fn text(answer: &Value) -> Option<&str> {
    answer
        .pointer("/result/content/0/text")
        .or_else(|| answer.pointer("/error/message"))
        .and_then(Value::as_str)
}

/// Turns standard output and then the end of the process into events.
fn read(mut child: Child, stdout: Option<ChildStdout>, events: &Sender<Event>) {
    if let Some(stdout) = stdout {
        let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        for line in lines {
            if events.send(Event::Line(line)).is_err() {
                break;
            }
        }
    }
    let status = child.wait().ok().and_then(|status| u8::try_from(status.code()?).ok());
    events.send(Event::Exited(status)).unwrap_or_default();
}

/// Turns what one supervisor adds to the audit log about its calls into events, each time the kernel says that the log was written to.
fn follow(mut log: File, mut writes: File, supervisor: u32, events: &Sender<Event>) {
    let mut rest = Vec::new();
    let mut notice = [0; 4096];
    let mut named = HashSet::new();
    loop {
        if log.read_to_end(&mut rest).is_err() {
            return;
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            named.extend(record::names(&line));
            if let Some(mut record) = Record::parse(&line).filter(|record| record.is_of_call_in(supervisor)) {
                record.named = named.remove(record.id());
                if events.send(Event::Record(Box::new(record))).is_err() {
                    return;
                }
            }
        }
        if writes.read(&mut notice).is_err() {
            return;
        }
    }
}
