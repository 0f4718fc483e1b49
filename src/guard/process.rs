//! The guard's own process: it has what the supervisor has given up, and reads nothing of a client's or a server's but the
//! events that the supervisor makes of it.
//!
//! ```text
//! poll ── a call has ended ──► rules, quarantine ──► the log, the state ──► alerts ──► hooks
//!   │ ─── may a tool be called? ──► quarantine ──► verdict
//!   │ ─── a file is wanted ──► open it, hand it over
//!   │ ─── a hook is done, or late; alerts that were held back are due
//!   └─── the supervisor is gone ──► tell what was held back, wait for the hooks, exit
//! ```
//!
//! Neighbours: started by `commands::run` before the runtime, spoken to by `guard::link`. Never: waits for a hook while
//! somebody asks; lets a tool run by a step that is not recorded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::alerts::{Bounded, Pending};
use super::event::{Event, MESSAGE_LIMIT, Message, Said, Verdict, micros, moment};
use super::exports::Exports;
use super::hooks::{Hooks, Told};
use super::link::Wanted;
use super::quarantine::{Place, Step};
use super::rules::{self, Anomaly};
use super::state::{Held, StateError, Store};
use super::written::Written;
use crate::audit::{ALERT_SCHEMA, Alert, Alerted, Bounds, Key, Quarantined, Rule, rfc3339};
use crate::launch::own;
use crate::policy::config::guard::Guarding;
use crate::sys::descriptor::{self, Interest};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, Result, socket};
use crate::text::chain;

/// The descriptors that the guard keeps.
const SOCKET: i32 = 3;
const FILES: i32 = 4;

/// Reads the file of tokens: its text, or why not.
type Tokens = dyn Fn() -> std::result::Result<String, String>;

/// What a guard is there for.
pub struct Duty {
    /// Whose tools it looks at.
    pub server: String,
    /// By which rules.
    pub guarding: Guarding,
    /// Where it keeps what was before; there is one, if it has to.
    pub store: Option<Store>,
    /// The log that the session writes to.
    pub log: PathBuf,
    /// When that becomes an earlier file.
    pub bounds: Bounds,
    /// The key that signs it, where there is one.
    pub key: Option<Key>,
    /// The user whose files these are.
    pub owner: u32,
    /// Reads the file of tokens.
    pub tokens: Box<Tokens>,
}

impl std::fmt::Debug for Duty {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Duty").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The supervisor's end of a guard that has just been started.
#[derive(Debug)]
pub struct Handle {
    pub(super) socket: OwnedFd,
    pub(super) files: OwnedFd,
    pub(super) pidfd: OwnedFd,
    pub(super) asks: bool,
    pub(super) listens: bool,
}

/// Forks the guard. Call it before the process has a second thread.
///
/// # Errors
/// The kernel's errno.
pub fn start(duty: Duty) -> Result<Handle> {
    let (ours, theirs) = socket::pair()?;
    let (asking, asked) = socket::pair()?;
    let Guarding { quarantine, export, .. } = &duty.guarding;
    let asks = quarantine.is_some();
    let listens = duty.guarding.remembers() || export.is_some();
    match process::clone3(0, None)? {
        Cloned::Child => {
            let status = match detach(theirs, asked).and_then(|(socket, files)| serve(duty, socket, files)) {
                Ok(()) => 0,
                Err(_errno) => 1,
            };
            process::exit_now(status)
        }
        Cloned::Parent(_pid, pidfd) => Ok(Handle { socket: ours, files: asking, pidfd, asks, listens }),
    }
}

/// Away from the client's descriptors, those of the supervisor and its launcher, and the terminal's signals; confined.
fn detach(socket: OwnedFd, files: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    process::set_name(c"toolcell-guard");
    process::setsid()?;
    // Whatever stands where they are to be: nothing of it is used here again, and no owner of it is dropped.
    let both = [socket, files].map(|fd| descriptor::duplicate_above(fd.as_fd(), 64));
    let [socket, files] = both;
    descriptor::duplicate_to(socket?.as_fd(), SOCKET, true)?;
    descriptor::duplicate_to(files?.as_fd(), FILES, true)?;
    descriptor::close_from(FILES + 1)?;
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    for number in 0..3 {
        descriptor::duplicate_to(null.as_fd(), number, false)?;
    }
    own::confine_guard()?;
    Ok((descriptor::adopt(SOCKET), descriptor::adopt(FILES)))
}

fn serve(duty: Duty, socket: OwnedFd, files: OwnedFd) -> Result<()> {
    let mut guard = Guard::new(duty);
    let served = guard.run(socket.as_fd(), files.as_fd());
    guard.finish(socket.as_fd());
    served
}

/// A call that has ended, and is not part of what is kept of its tool yet.
struct Owed {
    event: Event,
    trial: bool,
}

struct Guard {
    duty: Duty,
    alerts: Bounded,
    hooks: Hooks,
    exports: Exports,
    written: Written,
    /// Calls that run with less.
    trials: BTreeSet<String>,
    /// Tools whose place is not known, with what has to be kept of them first.
    unknown: BTreeMap<String, VecDeque<Owed>>,
    /// What the supervisor is to tell a person.
    notices: Vec<String>,
}

impl Guard {
    fn new(duty: Duty) -> Self {
        let bounds = duty.guarding.alerts.clone().unwrap_or_default();
        Self {
            alerts: Bounded::new(bounds.every, bounds.most),
            hooks: Hooks::new(duty.guarding.alerts.clone(), duty.owner),
            exports: Exports::new(duty.guarding.export.clone(), duty.owner),
            written: Written::new(duty.log.clone(), duty.key.clone(), duty.owner, duty.bounds),
            trials: BTreeSet::new(),
            unknown: BTreeMap::new(),
            notices: Vec::new(),
            duty,
        }
    }

    fn run(&mut self, socket: BorrowedFd<'_>, files: BorrowedFd<'_>) -> Result<()> {
        let mut buffer = vec![0; MESSAGE_LIMIT];
        loop {
            let interest = |fd| Interest { fd, events: libc::POLLIN, ready: 0 };
            let mut interests = [interest(Some(socket)), interest(Some(files)), interest(self.hooks.pidfd())];
            let next = [self.alerts.next(), self.hooks.deadline(), self.exports.next()];
            let next = next.into_iter().flatten().min();
            descriptor::poll(
                &mut interests,
                next.map(|next| next.saturating_duration_since(Instant::now())),
            )?;
            let [heard, asked, _hook] = interests.map(|interest| interest.ready != 0);
            // Files first: the session's thread waits for them.
            if asked && !self.hand_over(files, &mut buffer)? {
                return Ok(());
            }
            if heard {
                match socket::receive(socket, &mut buffer) {
                    Ok(None) | Err(Errno(libc::ECONNRESET)) => return Ok(()),
                    Err(Errno(libc::EAGAIN)) => {}
                    Err(errno) => return Err(errno),
                    Ok(Some((length, _none))) => {
                        let bytes = buffer.get(..length).unwrap_or_default();
                        let message = postcard::from_bytes(bytes).map_err(|_foreign| Errno(libc::EPROTO))?;
                        self.hear(message, socket)?;
                    }
                }
            }
            let now = Instant::now();
            let done = self.hooks.look(now);
            self.record(done);
            for due in self.alerts.due(now) {
                self.tell(due);
            }
            self.notices.extend(self.exports.look(self.duty.store.as_ref(), now));
            self.notices.extend(self.written.notice());
            for notice in std::mem::take(&mut self.notices) {
                say(socket, &Said::Notice(notice))?;
            }
        }
    }

    /// Everything that is left to do when nobody is there any more.
    fn finish(&mut self, socket: BorrowedFd<'_>) {
        for tool in self.unknown.keys().cloned().collect::<Vec<_>>() {
            if let Err(why) = self.settle(&tool) {
                self.notices.push(format!("the last calls of a tool do not count for its quarantine: {why}"));
            }
        }
        self.notices.extend(self.exports.finish(self.duty.store.as_ref()));
        for rest in self.alerts.rest() {
            self.tell(rest);
        }
        let patience = self.duty.guarding.alerts.as_ref().map_or(Duration::ZERO, |alerts| alerts.patience);
        let until = Instant::now() + patience * 2;
        while let Some(deadline) = self.hooks.deadline().map(|deadline| deadline.min(until)) {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let mut interests = [Interest { fd: self.hooks.pidfd(), events: libc::POLLIN, ready: 0 }];
            if descriptor::poll(&mut interests, Some(deadline.saturating_duration_since(now))).is_err() {
                break;
            }
            let done = self.hooks.look(Instant::now());
            self.record(done);
        }
        let left = self.hooks.give_up();
        self.record(left);
        self.written.finish();
        for notice in std::mem::take(&mut self.notices) {
            let _nobody_is_left = say(socket, &Said::Notice(notice)).is_err();
        }
    }

    fn hear(&mut self, message: Message, socket: BorrowedFd<'_>) -> Result<()> {
        match message {
            Message::May { number, call, tool, shown } => {
                let verdict = self.may(call, (&tool, &shown));
                say(socket, &Said::Verdict { number, verdict })
            }
            Message::Lost(count) => {
                let what = format!("{count} calls ended faster than they could be looked at, and were not");
                self.alert_of_itself(what);
                Ok(())
            }
            Message::Ended(event) => {
                self.ended(&event);
                Ok(())
            }
        }
    }

    /// Opens what is asked for. `false`: nobody is there to be answered.
    fn hand_over(&mut self, files: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<bool> {
        let wanted = match socket::receive(files, buffer) {
            Ok(None) | Err(Errno(libc::ECONNRESET)) => return Ok(false),
            Err(Errno(libc::EAGAIN)) => return Ok(true),
            Err(errno) => return Err(errno),
            Ok(Some(_message)) => buffer.first().copied().and_then(Wanted::of),
        };
        let file = match wanted {
            Some(Wanted::Log) => self.written.current().map_err(|error| chain(&error)),
            Some(Wanted::Tokens) => (self.duty.tokens)().and_then(|text| in_memory(&text)),
            None => Err("the question is not known".to_owned()),
        };
        match file {
            Ok(file) => socket::send(files, b"+", &[file.as_fd()])?,
            Err(why) => socket::send(files, why.as_bytes(), &[])?,
        }
        Ok(true)
    }

    fn hold(&self) -> std::result::Result<Option<Held>, StateError> {
        self.duty.store.as_ref().map(|store| store.hold(&self.duty.server)).transpose()
    }

    fn may(&mut self, call: String, (tool, shown): (&str, &str)) -> Verdict {
        if let Err(why) = self.settle(tool) {
            return Verdict::Unknown(format!("what its last calls were refused cannot be kept: {why}"));
        }
        let mut held = match self.hold() {
            Ok(Some(held)) => held,
            Ok(None) => return Verdict::Free,
            Err(error) => return Verdict::Unknown(with_hint(&error)),
        };
        let Some(entry) = held.state.tools.get_mut(tool) else { return Verdict::Free };
        let (verdict, step) = entry.place.asked(micros(SystemTime::now()));
        if let Some(step) = step {
            let because = "the time is over; it is tried with less".to_owned();
            if let Err(why) = self.step(shown, (step, because, None), Some(&call)) {
                return Verdict::Unknown(format!("its trial cannot be recorded: {why}"));
            }
            if let Err(error) = held.write() {
                return Verdict::Unknown(with_hint(&error));
            }
        }
        if verdict == Verdict::Trial {
            self.trials.insert(call);
        }
        verdict
    }

    fn ended(&mut self, event: &Event) {
        let trial = self.trials.remove(&event.call.id) && event.ran;
        let rules = self.duty.guarding.anomalies.clone();
        let mut found = rules.as_ref().map_or_else(Vec::new, |rules| rules::at_once(event, rules));
        if let Some(tool) = &event.tool {
            match self.settle(tool).and_then(|()| self.remember(event, tool, trial)) {
                Ok(more) => found.extend(more),
                Err(why) => {
                    // What cannot change its place is lost, as it is without quarantine.
                    if self.duty.guarding.quarantine.is_some() && (event.ran || event.counted() > 0) {
                        let owed = Owed { event: event.clone(), trial };
                        self.unknown.entry(tool.clone()).or_default().push_back(owed);
                    }
                    self.alert_of_itself(why);
                }
            }
        }
        for anomaly in found {
            self.alert(event, anomaly);
        }
        self.notices.extend(self.exports.ended(event, self.duty.store.as_ref(), Instant::now()));
    }

    /// Tries once more to keep what could not be kept of a tool; until that is done its place is not known.
    fn settle(&mut self, tool: &str) -> std::result::Result<(), String> {
        let Some(mut owed) = self.unknown.remove(tool) else { return Ok(()) };
        while let Some(Owed { event, trial }) = owed.front() {
            match self.remember(event, tool, *trial) {
                Ok(found) => found.into_iter().for_each(|anomaly| self.alert(event, anomaly)),
                Err(why) => {
                    self.unknown.insert(tool.to_owned(), owed);
                    return Err(why);
                }
            }
            owed.pop_front();
        }
        Ok(())
    }

    /// What is unusual about a call of a tool, which becomes part of what is kept; and whether the tool is kept out now.
    fn remember(
        &mut self,
        event: &Event,
        tool: &str,
        trial: bool,
    ) -> std::result::Result<Vec<Anomaly>, String> {
        let Some(mut held) = self.hold().map_err(|error| with_hint(&error))? else { return Ok(Vec::new()) };
        // A name that somebody made up must not push out what is kept of the others.
        if !event.ran && !held.state.tools.contains_key(tool) {
            return Ok(Vec::new());
        }
        let before = held.state.calls();
        let (entry, new) = held.state.tool(tool);
        entry.count(event);
        let mut found = Vec::new();
        if let Some(rules) = &self.duty.guarding.anomalies {
            if new && rules.first_call && before >= u64::from(rules.after) {
                let what = format!("it was never called before, in {before} calls of this server");
                found.push(Anomaly::new(Rule::FirstCall, what));
            }
            found.extend(entry.learn(event, rules));
        }
        if let Some(rules) = self.duty.guarding.quarantine.clone() {
            let before = entry.place.clone();
            let step = entry.place.ended(&rules, event.counted(), trial, event.ended);
            if let Some(step) = step {
                let because = match step {
                    Step::Restored => format!("{} calls in a row had no violation", rules.clean),
                    Step::Refused | Step::Tried | Step::KeptOut | Step::Released => {
                        entry.place.because().unwrap_or_default().to_owned()
                    }
                };
                let until = entry.place.until();
                let place: &mut Place = &mut entry.place;
                let shown = event.call.target.as_deref().unwrap_or_default();
                let recorded = self.step(shown, (step, because.clone(), until), Some(&event.call.id));
                if let Err(why) = &recorded {
                    self.notices.push(format!("a step of quarantine is not recorded: {why}"));
                }
                // What lets it run again has to be recorded first; what keeps it out is not put off.
                if recorded.is_err() && step == Step::Restored {
                    *place = before;
                    let what = format!("that `{shown}` is restored cannot be recorded");
                    found.push(Anomaly::new(Rule::Guard, what));
                } else {
                    found.push(Anomaly::new(Rule::Quarantine, format!("{}: {because}", step.name())));
                }
            }
        }
        held.write().map_err(|error| with_hint(&error))?;
        Ok(found)
    }

    /// Records a step of quarantine.
    fn step(
        &mut self,
        tool: &str,
        (step, because, until): (Step, String, Option<u64>),
        call: Option<&str>,
    ) -> std::result::Result<(), String> {
        let place = (self.duty.server.as_str(), tool);
        let record = Quarantined {
            until: until.map(|until| rfc3339(moment(until))),
            call: call.map(str::to_owned),
            ..Quarantined::new(place, step.name(), &because, SystemTime::now())
        };
        self.written.write(&record).map_err(|error| chain(&error))
    }

    fn alert(&mut self, event: &Event, Anomaly { rule, what, observed, usual }: Anomaly) {
        let call = &event.call;
        let alert = Alert {
            schema: ALERT_SCHEMA.to_owned(),
            rule,
            server: call.server.clone(),
            tool: call.target.clone().unwrap_or_else(|| call.method.clone()),
            call: Some(call.id.clone()),
            who: call.identity.clone().unwrap_or_else(|| call.who.clone()),
            attempted: rfc3339(moment(event.began)),
            what,
            observed,
            usual,
            count: 1,
            recorded: event.unrecorded.is_none(),
        };
        self.offer(Pending { alert, attempted: event.began });
    }

    /// The guard cannot do its work.
    fn alert_of_itself(&mut self, what: String) {
        self.notices.push(what.clone());
        let now = SystemTime::now();
        let alert = Alert {
            schema: ALERT_SCHEMA.to_owned(),
            rule: Rule::Guard,
            server: self.duty.server.clone(),
            tool: String::new(),
            call: None,
            who: String::new(),
            attempted: rfc3339(now),
            what,
            observed: None,
            usual: None,
            count: 1,
            recorded: true,
        };
        self.offer(Pending { alert, attempted: micros(now) });
    }

    fn offer(&mut self, alert: Pending) {
        if let Some(alert) = self.alerts.offer(alert, Instant::now()) {
            self.tell(alert);
        }
    }

    fn tell(&mut self, alert: Pending) {
        let done = self.hooks.tell(alert);
        self.record(done);
    }

    /// Records what was told, and to whom.
    fn record(&mut self, done: Vec<Told>) {
        for Told { alert, hooks, .. } in done {
            for hook in hooks.iter().filter(|hook| hook.failed.is_some()) {
                let why = hook.failed.as_deref().unwrap_or_default();
                self.notices.push(format!("nobody was told of an alert by `{}`: {why}", hook.hook));
            }
            let record = Alerted::new(alert, hooks, SystemTime::now());
            if let Err(error) = self.written.write(&record) {
                self.notices.push(format!("an alert is not recorded: {}", chain(&error)));
            }
        }
    }
}

fn say(socket: BorrowedFd<'_>, said: &Said) -> Result<()> {
    let bytes = postcard::to_allocvec(said).map_err(|_unwritable| Errno(libc::EPROTO))?;
    match socket::send(socket, &bytes, &[]) {
        // Who is gone needs no answer; the end comes by the way of the events.
        Err(Errno(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        sent => sent,
    }
}

fn with_hint(error: &StateError) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", chain(error)),
        None => chain(error),
    }
}

fn in_memory(text: &str) -> std::result::Result<File, String> {
    use std::io::Write as _;
    let write = || -> std::io::Result<File> {
        let mut file = File::from(descriptor::anonymous_file()?);
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    write().map_err(|error| error.to_string())
}
