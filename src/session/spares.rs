//! Servers that are started before their call: the handshake is repeated, then every process of the cell is stopped until a call takes it.
//!
//! ```text
//! restocked ──► recorded ──► started ──► handshake ──► calm ──► stopped ──► taken: one call, then ended like any other
//!                               └───────────┴────────────┴─────────┴──► died, out of date, idle, gone ──► recorded
//! ```
//!
//! A spare has had no call and gets one. It is of one plan, era, handshake, log level and set of roots; a call that finds it otherwise has a cell of its own, and
//! what does not fit any more is ended. What the cell shows of the host is looked at again, as for any cell that was built ahead. A call can take a spare
//! at any moment after its record: what is still missing of its start goes on.
//!
//! Neighbours: [`super::call`] takes one, and restocks behind each call. Never: gives a spare to two calls, or to one whose tool gets a secret.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::link::{End, Link, STREAM_FROM, Step};
use super::process::Process;
use super::{Agreed, Finished, Grant, Handshake, Session, gone};
use crate::call::Call;
use crate::launch::ready::Sources;
use crate::mcp::envelope::{Era, Id};
use crate::outcome::{Status, Usage};
use crate::plan::Plan;

/// The method in the records of these processes.
pub(super) const METHOD: &str = "spare";
/// How long a server goes on when it has answered the handshake.
const CALM: Duration = Duration::from_millis(200);
/// How long one starts that is asked nothing.
const START: Duration = Duration::from_secs(2);
/// One that no call takes is ended.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long one that is not needed may take to leave.
const LEAVE: Duration = Duration::from_millis(100);

/// What has to be the same when a call comes.
#[derive(Debug, Clone)]
struct Fitting {
    era: Era,
    handshake: Option<Rc<Handshake>>,
    level: Option<Vec<u8>>,
    /// How often the client's roots have changed.
    roots: u64,
}

impl Fitting {
    fn now(session: &Session, era: Era) -> Option<Self> {
        let handshake = match (era, &*session.agreed.borrow()) {
            (Era::Modern, _) => None,
            (Era::Legacy, Agreed::Done(handshake)) => Some(Rc::clone(handshake)),
            (Era::Legacy, Agreed::None | Agreed::Pending) => return None,
        };
        let level = session.level.borrow().clone();
        Some(Self { era, handshake, level, roots: session.roots.changes() })
    }

    fn fits(&self, other: &Self) -> bool {
        let same = match (&self.handshake, &other.handshake) {
            (None, None) => true,
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            _ => false,
        };
        same && self.era == other.era && self.level == other.level && self.roots == other.roots
    }
}

struct Spare {
    plan: Arc<Plan>,
    profile: String,
    fitting: Fitting,
    /// Dropped, it ends the spare.
    call: oneshot::Sender<oneshot::Sender<Box<Link>>>,
}

/// The spares of a session.
#[derive(Default)]
pub(super) struct Spares {
    shelf: RefCell<Vec<Spare>>,
    closed: Cell<bool>,
}

impl Spares {
    /// Ends them all, and lets none be made.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.shelf.take();
    }
}

impl Session {
    /// Lets the next call of the same grant find its cell built, or its server started. As many cells wait as calls can run at once.
    pub(super) fn prepare(&self, grant: &Grant) {
        if grant.once {
            return;
        }
        if self.options.spares > 0 {
            return restock(self, grant, self.era.get());
        }
        let (launcher, Grant { plan, policy, .. }) = (self.options.launcher.clone(), grant.clone());
        let most = self.options.jobs;
        self.spawn(async move { launcher.build_ahead(&plan, &policy, most).await });
    }
}

/// A started server for a call of this grant, if there is one that fits.
pub(super) async fn take(session: &Session, grant: &Grant, era: Era) -> Option<Link> {
    let now = Fitting::now(session, era)?;
    loop {
        let spare = {
            let mut shelf = session.spares.shelf.borrow_mut();
            // A client has one era, once it is settled; and what a profile comes to on this host has changed for good.
            shelf.retain(|spare| {
                let current = spare.profile != grant.policy.name || spare.plan == grant.plan;
                current && !spare.call.is_closed() && spare.fitting.fits(&now)
            });
            let at = shelf.iter().position(|spare| spare.plan == grant.plan)?;
            shelf.remove(at)
        };
        let (taken, link) = oneshot::channel();
        // One that has just died is followed by the next.
        if spare.call.send(taken).is_ok()
            && let Ok(link) = link.await
        {
            return Some(*link);
        }
    }
}

/// Has servers started for the next calls of this grant, as many as are wanted in all.
pub(super) fn restock(session: &Session, grant: &Grant, era: Era) {
    let (Some(fitting), Some(strong)) = (Fitting::now(session, era), session.itself.upgrade()) else {
        return;
    };
    if grant.once || session.spares.closed.get() {
        return;
    }
    let mut shelf = session.spares.shelf.borrow_mut();
    shelf.retain(|spare| !spare.call.is_closed());
    if shelf.len() >= session.options.spares && !shelf.iter().any(|spare| spare.plan == grant.plan) {
        // The oldest makes room for what is called now.
        shelf.remove(0);
    }
    while shelf.len() < session.options.spares {
        let (call, asked) = oneshot::channel();
        let (plan, profile) = (Arc::clone(&grant.plan), grant.policy.name.clone());
        shelf.push(Spare { plan, profile, fitting: fitting.clone(), call });
        session.spawn(keep(Rc::clone(&strong), grant.clone(), fitting.clone(), asked));
    }
}

/// Why a spare is over.
enum Over {
    Asked(oneshot::Sender<Box<Link>>),
    /// Nobody needs it.
    Unwanted,
    Gone,
    Died(String),
}

/// Starts a server and keeps it until a call takes it.
async fn keep(
    session: Rc<Session>,
    grant: Grant,
    fitting: Fitting,
    mut asked: oneshot::Receiver<oneshot::Sender<Box<Link>>>,
) {
    let began = Instant::now();
    let launcher = &session.options.launcher;
    let Some(sources) = launcher.look(&grant.plan) else { return };
    let call = Call {
        id: session.next_call_id(),
        server: session.options.server.clone(),
        method: METHOD.to_owned(),
        target: None,
        profile: grant.policy.name.clone(),
        who: format!("{} ({})", session.client.borrow(), session.options.user),
        identity: None,
        trace: None,
    };
    if session.options.records.started(&call, Some(&grant.policy), None, &[]).is_err() {
        return;
    }
    let finish = |finished: Finished| {
        session.record(&call, Some(&grant.policy), &Finished { duration: began.elapsed(), ..finished });
    };
    let cell = match launcher.launch(&grant.plan, &grant.policy, None).await {
        Ok(cell) => cell,
        Err(error) => {
            let detail = crate::text::chain(&error);
            return finish(Finished::refused(Status::Refused { detail }, Vec::new()));
        }
    };
    let Some(process) = Process::new(cell, STREAM_FROM, grant.policy.limits.output, None) else { return };
    let mut link = Link::new(process, session.next_cell(), fitting.era, true);
    if let Some(handshake) = &fitting.handshake {
        link.replay(handshake, fitting.level.clone(), &Id::Text(String::new()));
        // Nobody has called it, so there is nothing to be asked but where it works.
        link.rules.offers = handshake.offers.roots_alone();
    }
    let over = wait(&session, &mut link, began, &mut asked).await;
    let receipt = Some(link.process.receipt().clone());
    match over {
        Over::Asked(taken) if is_true(&session, &grant, &sources, &link) => {
            link.process.resume();
            link.process.begin(grant.policy.limits.output);
            if let Some(handshake) = &fitting.handshake {
                link.rules.offers = handshake.offers;
            }
            finish(Finished { receipt, ..Finished::refused(Status::Completed, Vec::new()) });
            // A call that was given up meanwhile drops the cell, which ends it.
            drop(taken.send(Box::new(link)));
        }
        over => {
            link.withdraw_all(&session);
            link.process.resume();
            let grace = if matches!(over, Over::Gone | Over::Asked(_)) { Duration::ZERO } else { LEAVE };
            let mut violations = link.rules.tally.take();
            let remains = link.process.reap(grace, |_| {}).await;
            violations.extend(remains.ended.violations);
            let status = match over {
                Over::Died(detail) => Status::Died { detail },
                Over::Asked(_) | Over::Unwanted | Over::Gone => Status::Cancelled,
            };
            let usage: Usage = remains.ended.usage;
            let finished = Finished::refused(status, violations);
            finish(Finished { receipt, usage, stderr: remains.stderr, ..finished });
        }
    }
}

/// Does it show of the host what a cell built now would, and has it said nothing that it may not?
fn is_true(session: &Session, grant: &Grant, sources: &Sources, link: &Link) -> bool {
    let quiet = link.rules.tally.misdeeds().next().is_none();
    quiet && session.options.launcher.look(&grant.plan).as_ref() == Some(sources)
}

async fn wait(
    session: &Session,
    link: &mut Link,
    began: Instant,
    asked: &mut oneshot::Receiver<oneshot::Sender<Box<Link>>>,
) -> Over {
    let mut over = session.gone.subscribe();
    let ready = Rc::clone(&link.ready);
    let mut calm = began + START;
    let mut paused = false;
    loop {
        tokio::select! {
            biased;
            () = gone(&mut over) => return Over::Gone,
            asked = &mut *asked => return asked.map_or(Over::Unwanted, Over::Asked),
            step = link.step(session) => match step {
                Step::End(End::Closed) => return Over::Died("the server ended before its call".to_owned()),
                Step::End(End::OverBudget) => return Over::Died("the server wrote too much before its call".to_owned()),
                Step::NoHandshake(detail) => return Over::Died(detail),
                // Nothing was asked.
                Step::Answer(..) | Step::Long => {}
            },
            () = ready.notified() => calm = Instant::now() + CALM,
            () = sleep_until(calm), if !paused => {
                if link.is_open() {
                    link.process.pause();
                    paused = true;
                } else {
                    calm = Instant::now() + CALM;
                }
            }
            () = sleep_until(began + IDLE) => return Over::Unwanted,
        }
    }
}
