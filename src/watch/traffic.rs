//! What the porter tells of a cell's doors: connections that are over, and what was refused.
//!
//! Neighbours: `network` tells; `passthrough` and `launch::cell` hold a [`Doorway`] or an [`Attended`]. Never: grows with what a cell
//! does; takes silence for an end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::notes::{Note, Notes};
use super::refusals::us;
use crate::network::porter::{self, Porter};
use crate::network::{Event, MESSAGE_LIMIT};
use crate::outcome::{Layer, Reached, Receipt, Traffic, Violation};
use crate::plan::Plan;
use crate::plan::doors::{Doors, Listens};
use crate::plan::step::Step;
use crate::sys::descriptor::{self, Interest};
use crate::sys::{Errno, Result, readiness, socket};

/// How long the last words of a cell that is over are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Connections that are kept.
const MOST: usize = 64;
/// Messages that are taken in one go, so that others get their turn.
const BURST: usize = 64;

/// What was told.
#[derive(Debug)]
struct Ledger {
    began: Instant,
    notes: Notes<Violation>,
    traffic: Traffic,
    /// The porter has said all.
    complete: bool,
    buffer: Vec<u8>,
}

/// What a look at the channel found.
enum Read {
    /// Nothing more waits.
    Idle,
    /// More may wait.
    More,
    /// Nothing will come.
    End,
}

impl Ledger {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            notes: Notes::new(),
            traffic: Traffic::default(),
            complete: false,
            buffer: vec![0; MESSAGE_LIMIT],
        }
    }

    fn begin(&mut self) {
        self.began = Instant::now();
    }

    fn read(&mut self, channel: BorrowedFd<'_>) -> Read {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut found = Read::More;
        for _ in 0..BURST {
            match socket::receive(channel, &mut buffer) {
                Ok(Some((count, _))) => {
                    if let Ok(event) = serde_json::from_slice(buffer.get(..count).unwrap_or_default()) {
                        self.note(event);
                    }
                }
                Err(Errno(libc::EAGAIN)) => {
                    found = Read::Idle;
                    break;
                }
                Ok(None) | Err(_) => {
                    found = Read::End;
                    break;
                }
            }
        }
        self.buffer = buffer;
        found
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Over => self.complete = true,
            Event::Refused(violation) => self.notes.add(violation, self.began.elapsed()),
            Event::Closed(connection) => {
                let traffic = &mut self.traffic;
                traffic.up = traffic.up.saturating_add(connection.up);
                traffic.down = traffic.down.saturating_add(connection.down);
                if traffic.connections.len() < MOST {
                    traffic.connections.push(connection);
                } else {
                    traffic.left_out = traffic.left_out.saturating_add(1);
                }
            }
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let told = |note: &Note<Violation>| Violation {
            count: note.count,
            first_us: us(note.first),
            last_us: us(note.last),
            ..note.what.clone()
        };
        let mut found: Vec<Violation> = self.notes.noted.iter().map(told).collect();
        if self.notes.others > 0 {
            let rule = "`[network]`".to_owned();
            let others = Violation::of_toolcell(Layer::Network, "other refusals at doors", rule);
            found.push(Violation { count: self.notes.others, ..others });
        }
        found
    }

    fn confess(&self, receipt: &mut Receipt) {
        if !self.complete && receipt.coverage.contains_key(Layer::Network.name()) {
            let why = "the process that keeps the doors did not say all of it in time";
            receipt.reasons.insert(Layer::Network.name().to_owned(), why.to_owned());
        }
    }
}

/// The doors of a plan.
fn doors(plan: &Plan) -> Option<&Doors> {
    plan.steps.iter().find_map(|step| match step {
        Step::OpenDoors { doors } => Some(&**doors),
        _ => None,
    })
}

/// A channel for a cell of this plan, if it has doors.
fn channel(porter: Option<&Porter>, plan: &Plan) -> Result<Option<OwnedFd>> {
    match (doors(plan), porter) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Errno(libc::EPIPE)),
        (Some(doors), Some(porter)) => porter.open(doors).map(Some),
    }
}

/// The doors of the one cell of `exec`.
#[derive(Debug)]
pub struct Doorway {
    channel: OwnedFd,
    ledger: Ledger,
    open: bool,
}

impl Doorway {
    /// For a cell of this plan, if it has doors.
    ///
    /// # Errors
    /// The kernel's errno; `EPIPE` when the porter is gone.
    pub fn open(porter: Option<&Porter>, plan: &Plan) -> Result<Option<Self>> {
        let channel = channel(porter, plan)?;
        Ok(channel.map(|channel| Self { channel, ledger: Ledger::new(), open: true }))
    }

    /// Readable when something is told; nothing when nothing will be.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.channel.as_fd())
    }

    /// Hands a socket of the cell over.
    ///
    /// # Errors
    /// As for [`porter::hand_over`].
    pub fn hand_over(&self, listens: Listens, socket: &OwnedFd) -> Result<()> {
        porter::hand_over(&self.channel, listens, socket)
    }

    /// For who hands over more while the cell runs.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn channel(&self) -> Result<OwnedFd> {
        self.channel.try_clone().map_err(Errno::from)
    }

    /// Hands over what the door at this place of the policy's puts in.
    ///
    /// # Errors
    /// As for [`porter::give`].
    pub fn give(&self, place: usize, value: &[u8]) -> Result<()> {
        porter::give(&self.channel, place, value)
    }

    /// Where ports of the cell are reached.
    pub fn reached_at(&mut self, listening: &[Reached]) {
        self.ledger.traffic.listens = listening.to_vec();
    }

    /// The payload starts now.
    pub fn begin(&mut self) {
        self.ledger.begin();
    }

    /// Takes some of what waits.
    pub fn read(&mut self) {
        if let Read::End = self.ledger.read(self.channel.as_fd()) {
            self.open = false;
        }
    }

    /// The cell is over: hears what is still to be said, and no more.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn conclude(&mut self, receipt: Option<&mut Receipt>) -> Result<()> {
        let _gone = socket::say_no_more(self.channel.as_fd()).is_err();
        let began = Instant::now();
        while self.open {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let mut interest = [Interest { fd: Some(self.channel.as_fd()), events: libc::POLLIN, ready: 0 }];
            if left.is_zero() || !descriptor::poll(&mut interest, Some(left))? {
                break;
            }
            self.read();
        }
        if let Some(receipt) = receipt {
            self.ledger.confess(receipt);
        }
        Ok(())
    }

    /// What was refused.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.ledger.violations()
    }

    /// What went through.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.ledger.traffic.clone()
    }
}

/// The doors of a cell of `run`, whose events are read beside everything else. Dropping it ends them.
#[derive(Debug)]
pub struct Attended {
    channel: Arc<AsyncFd<OwnedFd>>,
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

impl Attended {
    /// For a cell of this plan, if it has doors.
    ///
    /// # Errors
    /// The kernel's errno; `EPIPE` when the porter is gone.
    pub fn open(porter: Option<&Porter>, plan: &Plan) -> Result<Option<Self>> {
        let Some(channel) = channel(porter, plan)? else { return Ok(None) };
        let channel = Arc::new(readiness::readable(channel)?);
        let ledger = Arc::new(Mutex::new(Ledger::new()));
        let task = tokio::spawn(attend(Arc::clone(&channel), Arc::clone(&ledger)));
        Ok(Some(Self { channel, ledger, task }))
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Hands a socket of the cell over.
    ///
    /// # Errors
    /// As for [`porter::hand_over`].
    pub fn hand_over(&self, listens: Listens, socket: &OwnedFd) -> Result<()> {
        porter::hand_over(self.channel.get_ref(), listens, socket)
    }

    /// For who hands over more while the cell runs.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn channel(&self) -> Result<OwnedFd> {
        self.channel.get_ref().try_clone().map_err(Errno::from)
    }

    /// Hands over what the door at this place of the policy's puts in.
    ///
    /// # Errors
    /// As for [`porter::give`].
    pub fn give(&self, place: usize, value: &[u8]) -> Result<()> {
        porter::give(self.channel.get_ref(), place, value)
    }

    /// Where ports of the cell are reached.
    pub fn reached_at(&self, listening: &[Reached]) {
        self.lock().traffic.listens = listening.to_vec();
    }

    /// The payload starts now.
    pub fn begin(&self) {
        self.lock().begin();
    }

    /// The cell is over: hears what is still to be said, and no more.
    pub async fn conclude(&mut self, receipt: &mut Receipt) {
        let _gone = socket::say_no_more(self.channel.get_ref().as_fd()).is_err();
        let _in_time = timeout(PATIENCE, &mut self.task).await.is_ok();
        self.lock().confess(receipt);
    }

    /// What was refused so far. Of what a program has learned by an answer or a reset it was told before, and may still wait.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut ledger = self.lock();
        let _more_later = ledger.read(self.channel.get_ref().as_fd());
        ledger.violations()
    }

    /// What went through so far; from here on, counting begins anew.
    #[must_use]
    pub fn take_traffic(&self) -> Traffic {
        let mut ledger = self.lock();
        let listens = ledger.traffic.listens.clone();
        std::mem::replace(&mut ledger.traffic, Traffic { listens, ..Traffic::default() })
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let _gone = socket::shutdown(self.channel.get_ref().as_fd()).is_err();
        self.task.abort();
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn attend(channel: Arc<AsyncFd<OwnedFd>>, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(mut ready) = channel.readable().await {
        loop {
            // A statement of its own: the lock is not held while others have their turn.
            let read = lock(&ledger).read(channel.get_ref().as_fd());
            match read {
                Read::Idle => break,
                Read::More => yield_now().await,
                Read::End => return,
            }
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{ClosedBy, Connection};

    #[test]
    fn what_is_told_is_counted_and_bounded() {
        let mut ledger = Ledger::new();
        let connection = Connection {
            to: "a.example:443".to_owned(),
            from: None,
            address: None,
            up: 2,
            down: 3,
            duration_us: 1,
            closed_by: ClosedBy::Cell,
        };
        for _ in 0..MOST + 5 {
            ledger.note(Event::Closed(connection.clone()));
        }
        let traffic = &ledger.traffic;
        assert_eq!(
            (traffic.connections.len(), traffic.left_out, traffic.up, traffic.down),
            (MOST, 5, 138, 207)
        );
        for number in 0..100 {
            let mut violation = Violation::of_toolcell(Layer::Network, "resolve", String::new());
            violation.object = format!("{number}");
            ledger.note(Event::Refused(violation.clone()));
            ledger.note(Event::Refused(violation));
        }
        let violations = ledger.violations();
        assert_eq!(violations.iter().map(|violation| violation.count).sum::<u64>(), 200);
        assert_eq!((violations.len(), violations[0].count), (33, 2));
    }
}
