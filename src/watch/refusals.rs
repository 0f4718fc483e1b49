//! Calls that the filter refused, told by the kernel: each gets the filter's own error, and a place in the record.
//!
//! ```text
//! told ──► the program of the plan says which error ──► noted ──► answered
//! ```
//!
//! What is answered rests on registers alone. Texts are read from memory that its owner may change meanwhile, so they
//! are for the record, and a call is refused just so when they cannot be read.
//!
//! Where opens are told as well, the program says that such a call runs, and `files` lets it go on; where attempts to reach
//! an address, to listen at one, or to run a program are, `connects` and `files` do, or refuse.
//!
//! Neighbours: `passthrough` and `launch::supervisor` hold the listener and say when to look. Never: lets a call run that
//! the program refuses; waits; grows with what a cell does.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connects::Connects;
use super::destination;
use super::files::Files;
use super::notes::{Note, Notes};
use crate::launch::memory::{Memory, Question};
use crate::outcome::{Coverage, Evidence, Layer, Receipt, Violation};
use crate::plan::seccomp::{self, Attempt, Destination, Verdict};
use crate::plan::step::Step;
use crate::plan::{Plan, why};
use crate::policy::Policy;
use crate::sys::notify::{self, Notification, Waiting};
use crate::sys::{Errno, Result};

/// Bytes of a text that are kept.
const TEXT: usize = 256;
/// Calls of one cell whose texts are read, and which are answered at once.
const AT_ONCE: u64 = 1024;
/// Calls that are answered in one go, so that others get their turn.
const BURST: usize = 16;
/// How long a cell with more than [`AT_ONCE`] waits after a burst: it pays for its flood, and others do not.
const PAUSE: Duration = Duration::from_millis(1);

/// What a look at the listener found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing waits.
    Idle,
    /// More may wait. Look again after this time.
    Again(Duration),
    /// Nothing will come: no process is left under the filter, or the listener failed. Let go of it: then the kernel
    /// refuses by itself.
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused {
    number: u32,
    operation: &'static str,
    object: String,
    errno: Errno,
}

/// The refused calls of one cell.
#[derive(Debug)]
pub struct Refusals {
    program: Vec<(u16, u8, u8, u32)>,
    /// Who reads memory, if not this process.
    memory: Option<Arc<Memory>>,
    /// The cell's pid 1, whose own calls are nobody's attempt.
    init: u32,
    began: Instant,
    begun: bool,
    notes: Notes<Refused>,
    files: Option<Files>,
    connects: Option<Connects>,
    answered: u64,
    /// The listener failed: what came after that nobody was told.
    lost: bool,
    /// The text of a call could not be had.
    unread: bool,
    /// A record that was written already has not each on its own.
    left_out: bool,
}

impl Refusals {
    /// Of a cell that was launched by this plan. A process that may not read others' memory has it read. `channel` leads to who
    /// keeps its doors.
    #[must_use]
    pub fn new(
        plan: &Plan,
        init: libc::pid_t,
        memory: Option<Arc<Memory>>,
        channel: Option<OwnedFd>,
    ) -> Self {
        let program = plan.steps.iter().find_map(|step| match step {
            Step::Seccomp { program, .. } => Some(program.clone()),
            _ => None,
        });
        Self {
            program: program.unwrap_or_default(),
            memory,
            init: init.cast_unsigned(),
            began: Instant::now(),
            begun: false,
            notes: Notes::new(),
            files: Files::of(plan),
            connects: Connects::of(plan, channel),
            answered: 0,
            lost: false,
            unread: false,
            left_out: false,
        }
    }

    /// The listener is here.
    pub fn meet(&self, listener: BorrowedFd<'_>) {
        // Every open waits for an answer then.
        if self.files.as_ref().is_some_and(|files| files.opens) {
            notify::take_turns(listener);
        }
    }

    /// The payload starts now: times in the record count from here. What it did already was seen before init's word of it.
    pub fn begin(&mut self) {
        if self.notes.noted.is_empty()
            && self.files.as_ref().is_none_or(Files::is_empty)
            && self.connects.as_ref().is_none_or(Connects::is_empty)
        {
            self.began = Instant::now();
        }
        self.begun = true;
    }

    /// Answers what waits, up to a burst. `told`: poll(2) has said so, and nothing was taken since.
    pub fn look(&mut self, listener: BorrowedFd<'_>, told: bool) -> Look {
        self.burst(listener, told).unwrap_or_else(|errno| self.lose(errno))
    }

    /// Answers the one call of which poll(2) has said that it waits, for a caller who polls again anyway; of a cell that floods
    /// as much as [`Refusals::look`].
    pub fn look_once(&mut self, listener: BorrowedFd<'_>) -> Look {
        if self.is_flood() {
            return self.look(listener, true);
        }
        match notify::receive_ready(listener).and_then(|waiting| self.take(listener, waiting)) {
            Ok(found) => found.unwrap_or(Look::Again(Duration::ZERO)),
            Err(errno) => self.lose(errno),
        }
    }

    fn lose(&mut self, _errno: Errno) -> Look {
        self.lost = true;
        Look::Gone
    }

    fn burst(&mut self, listener: BorrowedFd<'_>, told: bool) -> Result<Look> {
        for nth in 0..BURST {
            let waiting =
                if told && nth == 0 { notify::receive_ready(listener) } else { notify::receive(listener) };
            if let Some(found) = self.take(listener, waiting?)? {
                return Ok(found);
            }
        }
        Ok(Look::Again(if self.is_flood() { PAUSE } else { Duration::ZERO }))
    }

    /// Answers it; what else was found, if it is no call.
    fn take(&mut self, listener: BorrowedFd<'_>, waiting: Waiting) -> Result<Option<Look>> {
        match waiting {
            Waiting::Nothing => Ok(Some(Look::Idle)),
            Waiting::Gone => Ok(Some(Look::Gone)),
            Waiting::Call(call) => self.answer(listener, &call).map(|()| None),
        }
    }

    fn is_flood(&self) -> bool {
        self.answered > AT_ONCE
            || self.files.as_ref().is_some_and(Files::is_flood)
            || self.connects.as_ref().is_some_and(Connects::is_flood)
    }

    fn answer(&mut self, listener: BorrowedFd<'_>, call: &Notification) -> Result<()> {
        if !self.begun && call.pid != self.init {
            self.begin();
        }
        let refused = seccomp::refusal(&self.program, call.architecture, call.number, &call.arguments);
        let allowed = refused.is_none()
            && seccomp::allows(&self.program, call.architecture, call.number, &call.arguments);
        if let Some(connects) =
            self.connects.as_mut().filter(|_| allowed && seccomp::reaches(call.number).is_some())
        {
            return there(match call.pid == self.init {
                true => notify::proceed(listener, call.id),
                false => connects.answer(listener, call, self.memory.as_deref(), self.began.elapsed()),
            });
        }
        if let Some(files) = self.files.as_mut().filter(|_| allowed) {
            return there(match call.pid == self.init {
                true => notify::proceed(listener, call.id),
                false => files.answer(listener, call, self.memory.as_deref(), self.began.elapsed()),
            });
        }
        let now = self.began.elapsed();
        if let Some(answered) =
            self.connects.as_mut().and_then(|connects| connects.hand_in(listener, call, refused, now))
        {
            return there(answered);
        }
        // Else the kernel tells of refusals only. Whatever else this were, it does not run.
        let errno = Errno(refused.unwrap_or(libc::EPERM));
        if call.pid != self.init {
            let mut attempt = seccomp::attempt(call.number, &call.arguments);
            if self.answered < AT_ONCE {
                self.read_texts(listener, call, &mut attempt);
            }
            self.answered = self.answered.saturating_add(1);
            let Attempt { operation, object, .. } = attempt;
            let what = Refused { number: call.number, operation, object, errno };
            self.notes.add(what, self.began.elapsed());
        }
        there(notify::refuse(listener, call.id, errno))
    }

    /// Adds what the registers point to. A text counts only if the call waited all the while: else the thread id may have
    /// been another's by then.
    fn read_texts(&mut self, listener: BorrowedFd<'_>, call: &Notification, attempt: &mut Attempt) {
        let texts: Vec<String> = attempt
            .texts
            .iter()
            .filter_map(|at| {
                let read = self.read(call.pid, *call.arguments.get(*at)?)?;
                let read = read.get(..TEXT).unwrap_or(&read);
                let end = read.iter().position(|byte| *byte == 0).unwrap_or(read.len());
                let text = String::from_utf8_lossy(read.get(..end)?).into_owned();
                Some(text).filter(|text| !text.is_empty())
            })
            .collect();
        let destination = attempt.destination.and_then(|at| self.read_destination(call, at));
        if (texts.is_empty() && destination.is_none()) || !notify::still_waits(listener, call.id) {
            return;
        }
        if !texts.is_empty() {
            attempt.object = texts.join(" → ");
        }
        if let Some(destination) = destination {
            let how = std::mem::take(&mut attempt.object);
            attempt.object = if how.is_empty() { destination } else { format!("{how} to {destination}") };
        }
    }

    /// The address that a call was to go to.
    fn read_destination(&mut self, call: &Notification, at: Destination) -> Option<String> {
        let (Destination::Register(number) | Destination::Header(number)) = at;
        let pointer = *call.arguments.get(number)?;
        let address = match at {
            Destination::Register(_) => pointer,
            Destination::Header(_) => destination::of_header(&self.read(call.pid, pointer)?)?,
        };
        destination::words(&self.read(call.pid, address)?)
    }

    /// Memory of a process that waits; none where there is none, which is no want of the record.
    fn read(&mut self, pid: u32, address: u64) -> Option<Vec<u8>> {
        match (Question { pid, address, directory: None }).look_by(self.memory.as_deref()) {
            Ok(found) => Some(found.bytes),
            Err(errno) => {
                // Else there is no text, or nobody any more whose it was.
                self.unread |= !matches!(errno, Errno(libc::EFAULT | libc::ESRCH));
                None
            }
        }
    }

    /// What the receipt is to say, after it said which layers tell: no more than what was noted.
    pub fn confess(&self, receipt: &mut Receipt) {
        self.confess_of(receipt, self.left_out);
    }

    /// What was refused stands in the record of a call of a cell that goes on, with how much that is: the next one's has a place for
    /// each again. Texts are read of a bounded number of the cell's calls all the same.
    pub fn take_noted(&mut self, policy: &Policy, receipt: &mut Receipt) -> Vec<Violation> {
        self.confess_of(receipt, false);
        let found = self.violations(policy);
        self.left_out |= self.notes.others > 0;
        self.notes.clear();
        self.files.iter_mut().for_each(Files::forget);
        self.connects.iter_mut().for_each(Connects::forget);
        found
    }

    fn confess_of(&self, receipt: &mut Receipt, left_out: bool) {
        let told = |coverage| if self.lost { Coverage::Blind } else { coverage };
        if let Some(coverage @ Coverage::Complete) = receipt.coverage.get_mut(Layer::Seccomp.name())
            && (self.lost || self.unread || left_out || self.notes.others > 0 || self.answered > AT_ONCE)
        {
            *coverage = told(Coverage::Sampled);
        }
        if let Some(coverage) = receipt.coverage.get_mut(Layer::Network.name())
            && self.lost
            && !self.connects.as_ref().is_some_and(Connects::has_doors)
        {
            *coverage = Coverage::Blind;
        }
        if let Some(coverage @ Coverage::Sampled) = receipt.coverage.get_mut(Layer::Root.name())
            && let Some(files) = &self.files
        {
            *coverage = told(files.coverage());
        }
    }

    /// What was refused so far: calls, then files, in the order in which each was first tried.
    #[must_use]
    pub fn violations(&self, policy: &Policy) -> Vec<Violation> {
        let mut found: Vec<Violation> = self.notes.noted.iter().map(|note| violation(note, policy)).collect();
        if self.notes.others > 0 {
            found.push(Violation {
                operation: "other refused calls".to_owned(),
                count: self.notes.others,
                ..blank()
            });
        }
        found.extend(self.files.iter().flat_map(|files| files.violations(policy)));
        found.extend(self.connects.iter().flat_map(Connects::violations));
        found
    }
}

/// Killed, or gone on after a signal: there is nobody to answer.
const fn there(answered: Result<()>) -> Result<()> {
    match answered {
        Err(Errno(libc::ENOENT | libc::EINTR)) => Ok(()),
        answered => answered,
    }
}

/// A time in a record.
pub(super) fn us(time: Duration) -> Option<u64> {
    u64::try_from(time.as_micros()).ok()
}

/// How often and when something was refused.
pub(super) fn noted<T>(note: &Note<T>, errno: Errno) -> Violation {
    Violation {
        errno: Some(errno.name()),
        count: note.count,
        first_us: us(note.first),
        last_us: us(note.last),
        ..blank()
    }
}

pub(super) fn blank() -> Violation {
    Violation {
        layer: Layer::Seccomp,
        limit: None,
        operation: String::new(),
        object: String::new(),
        errno: None,
        count: 0,
        value: None,
        peak: None,
        rule: "the system call filter".to_owned(),
        allow: None,
        evidence: Evidence::Kernel,
        first_us: None,
        last_us: None,
    }
}

fn violation(note: &Note<Refused>, policy: &Policy) -> Violation {
    let Note { what: Refused { number, operation, object, errno }, .. } = note;
    let rule = if policy.syscalls.deny.iter().any(|denied| denied == operation) {
        format!("`syscalls.deny` of profile `{}`", policy.name)
    } else {
        let sockets = !policy.network.unix.is_empty();
        let explained = seccomp::explain_number(*number, &policy.syscalls, sockets);
        explained.map_or_else(
            |_unknown_name| blank().rule,
            |explained| match explained.verdict {
                // By what its policy says it would have run.
                Verdict::Allow => {
                    "the system call filter: Landlock on this host does not hold what the call acts on"
                        .to_owned()
                }
                _ => format!("the system call filter: {}", explained.why),
            },
        )
    };
    let allow = why::call(operation);
    Violation {
        operation: (*operation).to_owned(),
        object: object.clone(),
        rule,
        allow,
        ..noted(note, *errno)
    }
}
