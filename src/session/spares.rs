//! Servers that are started before their call: the handshake is repeated, then every process of the cell is stopped until a call takes it.
//!
//! ```text
//! restocked ──► recorded ──► started ──► handshake ──► calm ──► stopped ──► taken: one call, then ended like any other
//!                               └───────────┴────────────┴─────────┴──► died, out of date, idle, gone ──► recorded
//! ```
//!
//! How many wait is learnt ([`demand`]), and bounded by number and memory. Until its call a spare has a tenth of a cell's share of the processors.
//!
//! A spare has had no call and gets one. It is of one plan, era, handshake, log level and set of roots; a call that finds it otherwise has a cell of its own, and
//! what does not fit any more is ended. What the cell shows of the host is looked at again, as for any cell that was built ahead. A call can take a spare
//! at any moment after its record: what is still missing of its start goes on.
//!
//! Neighbours: [`super::call`] takes one, and restocks behind each call. Never: gives a spare to two calls, or to one whose tool gets a secret into its cell.

mod demand;
mod source;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use demand::Demand;
use source::Source;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::link::{End, Link, STREAM_FROM, Step};
use super::process::Process;
use super::secrets::Mask;
use super::{Agreed, Finished, Grant, Handshake, Session, gone};
use crate::call::Call;
use crate::launch::handover::Handover;
use crate::launch::launcher::Weight;
use crate::launch::ready::may_wait;
use crate::mcp::envelope::Era;
use crate::outcome::{Status, Usage};
use crate::plan::Plan;

/// More are never started, whatever is asked for.
pub const MOST: usize = 64;
/// The method in the records of these processes.
pub(super) const METHOD: &str = "spare";
/// How long a server goes on when it has answered the handshake, and after each look at whether it has more to say.
const CALM: Duration = Duration::from_millis(200);
/// When one is stopped that never has no more to say.
const RESTLESS: Duration = Duration::from_secs(10);
/// How long one starts that is asked nothing.
const START: Duration = Duration::from_secs(2);
/// A call that has one and takes longer does not keep the next from being started.
const BESIDE: Duration = Duration::from_millis(100);
/// Plans that are remembered: those that were asked for last.
const REMEMBERED: usize = 64;
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
    /// What it holds, as far as that is known.
    memory: Rc<Cell<u64>>,
    /// Dropped, it ends the spare.
    call: oneshot::Sender<oneshot::Sender<Box<Link>>>,
}

/// What is known of the calls of one plan, and of its servers.
struct Kind {
    plan: Arc<Plan>,
    demand: Demand,
    /// What one that waited held.
    memory: Option<u64>,
    /// One has said before its call what it may not say, so no other is started as long as this is remembered.
    unfit: bool,
}

/// The spares of a session.
#[derive(Default)]
pub(super) struct Spares {
    shelf: RefCell<Vec<Spare>>,
    kinds: RefCell<Vec<Kind>>,
    /// What they were started from; nothing before the first.
    source: Mutex<Option<Source>>,
    /// It cannot be looked after, so none is started.
    blind: Cell<bool>,
    closed: Cell<bool>,
}

impl Spares {
    /// Ends them all, and lets none be made.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.shelf.take();
    }

    /// What they hold, in bytes.
    fn held(&self) -> u64 {
        self.shelf.borrow().iter().map(|spare| spare.memory.get()).sum()
    }

    fn kind<T>(&self, plan: &Arc<Plan>, tell: impl FnOnce(&mut Kind) -> T) -> T {
        let mut kinds = self.kinds.borrow_mut();
        // The last one is the one that was called last.
        let found = kinds.iter().position(|kind| kind.plan == *plan);
        let mut kind = match found {
            Some(at) => kinds.remove(at),
            None => Kind { plan: Arc::clone(plan), demand: Demand::default(), memory: None, unfit: false },
        };
        let told = tell(&mut kind);
        if kinds.len() == REMEMBERED {
            kinds.remove(0);
        }
        kinds.push(kind);
        told
    }

    /// Ends those that were started from what is not there any more.
    fn drop_outdated(&self) {
        // Whoever holds it looks after what is there now, and has started nothing yet.
        let Ok(mut source) = self.source.try_lock() else { return };
        if source.as_ref().is_some_and(Source::has_changed) {
            *source = None;
            self.shelf.take();
            self.kinds.borrow_mut().iter_mut().for_each(|kind| kind.unfit = false);
        }
    }
}

impl Session {
    /// Who asks what there is to be called is about to call it.
    pub(super) fn expect(&self, grant: &Grant) {
        self.spares.kind(&grant.plan, |kind| kind.demand.called(Instant::now()));
    }

    /// Lets the next call of the same grant find its server started, or its cell built. As many cells wait as calls can run at once.
    pub(super) fn prepare(&self, grant: &Grant) {
        if let Some(waiting) = grant.waiting()
            && !restock(self, &waiting, self.era.get())
        {
            self.build_ahead(waiting);
        }
    }

    /// Has a cell built in which nothing is started before the call.
    fn build_ahead(&self, Grant { plan, policy, .. }: Grant) {
        let (launcher, most) = (self.options.launcher.clone(), self.options.jobs);
        self.spawn(async move { launcher.build_ahead(&plan, &policy, most).await });
    }
}

/// A started server for a call of this grant, if there is one that fits.
///
/// Dropped where it cannot get what the call is granted, or what its doors put in, which ends it; the call then has a cell of its own, which says why.
pub(super) async fn take(
    session: &Session,
    grant: &Grant,
    era: Era,
    put_in: Option<(&Handover, &Rc<Mask>)>,
) -> Option<Link> {
    let mut link = take_waiting(session, &grant.waiting()?, era).await?;
    if let Some(waiting) = &grant.ahead {
        link.process.put_in(&session.options.launcher, &waiting.ahead, &grant.policy).await.ok()?;
    }
    if let Some((handover, mask)) = put_in {
        link.process.give(handover, mask).ok()?;
    }
    Some(link)
}

async fn take_waiting(session: &Session, grant: &Grant, era: Era) -> Option<Link> {
    session.spares.kind(&grant.plan, |kind| kind.demand.called(Instant::now()));
    let now = Fitting::now(session, era)?;
    session.spares.drop_outdated();
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
            restock_beside(session, grant, era);
            return Some(*link);
        }
    }
}

/// The same as behind a call, for those that come while it runs.
fn restock_beside(session: &Session, grant: &Grant, era: Era) {
    let (Some(strong), grant) = (session.itself.upgrade(), grant.clone()) else { return };
    session.spawn(async move {
        let mut over = strong.gone.subscribe();
        tokio::select! {
            biased;
            () = gone(&mut over) => {}
            () = sleep_until(Instant::now() + BESIDE) => drop(restock(&strong, &grant, era)),
        }
    });
}

/// Has servers started for the next calls of this grant, as many as are wanted and may be; are there any?
fn restock(session: &Session, grant: &Grant, era: Era) -> bool {
    let (Some(fitting), Some(strong)) = (Fitting::now(session, era), session.itself.upgrade()) else {
        return false;
    };
    let spares = &session.spares;
    let (most, budget) = (session.options.spares, session.options.spares_memory);
    // In the host's network one would be reached by others before its call, and have the ports that the call's own server wants.
    let is_reached = !grant.plan.floor.has_own_network();
    if most == 0 || spares.blind.get() || spares.closed.get() || is_reached || !may_wait(&grant.plan) {
        return false;
    }
    let of_kind = |kind: &mut Kind| (kind.demand.wanted(Instant::now()), kind.memory, kind.unfit);
    let (wanted, each, unfit) = spares.kind(&grant.plan, of_kind);
    if unfit {
        return false;
    }
    let mut shelf = spares.shelf.borrow_mut();
    shelf.retain(|spare| !spare.call.is_closed());
    loop {
        let there = shelf.iter().filter(|spare| spare.plan == grant.plan).count();
        // What one takes is known when the first waits.
        if there >= wanted.min(most) || (there > 0 && each.is_none()) {
            return there > 0;
        }
        let held: u64 = shelf.iter().map(|spare| spare.memory.get()).sum();
        if shelf.len() >= most || held.saturating_add(each.unwrap_or(0)) > budget {
            // The oldest makes room for what is called now.
            match shelf.iter().position(|spare| spare.plan != grant.plan) {
                Some(oldest) => drop(shelf.remove(oldest)),
                None => return there > 0,
            }
            continue;
        }
        let (call, asked) = oneshot::channel();
        let memory = Rc::new(Cell::new(each.unwrap_or(0)));
        shelf.push(Spare {
            plan: Arc::clone(&grant.plan),
            profile: grant.policy.name.clone(),
            fitting: fitting.clone(),
            memory: Rc::clone(&memory),
            call,
        });
        session.spawn(keep(Rc::clone(&strong), grant.clone(), fitting.clone(), memory, asked));
    }
}

/// Why a spare is over.
enum Over {
    Asked(oneshot::Sender<Box<Link>>),
    /// Nobody needs it.
    Unwanted,
    Gone,
    Died(String),
    /// It has said what it may not say.
    Spoke,
}

/// Starts a server and keeps it until a call takes it.
async fn keep(
    session: Rc<Session>,
    grant: Grant,
    fitting: Fitting,
    memory: Rc<Cell<u64>>,
    mut asked: oneshot::Receiver<oneshot::Sender<Box<Link>>>,
) {
    if !looked_after(&session).await {
        return;
    }
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
    let cell = match launcher.launch(&grant.plan, &grant.policy, None, None).await {
        Ok(cell) => cell,
        Err(error) => {
            let detail = crate::text::chain(&error);
            return finish(Finished::refused(Status::Refused { detail }, Vec::new()));
        }
    };
    launcher.weigh(&cell, Weight::Tenth);
    let Some(process) = Process::new(cell, STREAM_FROM, grant.policy.limits.output, None) else { return };
    let mut link = Link::new(process, session.next_cell(), fitting.era, true);
    if let Some(handshake) = &fitting.handshake {
        link.replay(handshake, fitting.level.clone());
        // Nobody has called it, so there is nothing to be asked but where it works.
        link.rules.offers = handshake.offers.roots_alone();
    }
    let over = wait(&session, &mut link, &grant, (began, &memory), &mut asked).await;
    if matches!(over, Over::Spoke) {
        session.spares.kind(&grant.plan, |kind| kind.unfit = true);
        session.build_ahead(grant.clone());
    }
    let receipt = Some(link.process.receipt().clone());
    match over {
        // It shows of the host what a cell built now would.
        Over::Asked(taken) if launcher.look(&grant.plan).as_ref() == Some(&sources) => {
            link.process.prefer(launcher);
            link.process.begin(grant.policy.limits.output);
            link.hand_over(fitting.handshake.as_ref().map(|handshake| handshake.offers));
            finish(Finished { receipt, ..Finished::refused(Status::Completed, Vec::new()) });
            // A call that was given up meanwhile drops the cell, which ends it.
            drop(taken.send(Box::new(link)));
        }
        over => {
            link.withdraw_all(&session);
            link.process.prefer(launcher);
            // A call that came for it does not wait for its end.
            drop(asked);
            let (status, grace) = match over {
                Over::Died(detail) => (Status::Died { detail }, LEAVE),
                Over::Spoke => {
                    let detail = "the server spoke out of turn before its call".to_owned();
                    (Status::Died { detail }, Duration::ZERO)
                }
                Over::Unwanted => (Status::Cancelled, LEAVE),
                Over::Asked(taken) => {
                    drop(taken);
                    (Status::Cancelled, Duration::ZERO)
                }
                Over::Gone => (Status::Cancelled, Duration::ZERO),
            };
            let mut violations = link.rules.tally.take();
            let remains = link.process.reap(grace, |_| {}).await;
            violations.extend(remains.ended.violations);
            let usage: Usage = remains.ended.usage;
            let finished = Finished::refused(status, violations);
            finish(Finished { receipt, usage, stderr: remains.stderr, ..finished });
        }
    }
}

/// Has what servers are started from looked after, from before the first of them; false where it cannot be, which is said once.
async fn looked_after(session: &Session) -> bool {
    let mut source = session.spares.source.lock().await;
    if source.is_none() && !session.spares.blind.get() {
        match Source::new(&session.options.program).await {
            Ok(found) => *source = Some(found),
            Err(errno) => {
                session.spares.blind.set(true);
                (session.options.notice)(&format!(
                    "no server is started before its call, because it cannot be noticed when its files change: {errno}; `--spares 0` says so from the start"
                ));
            }
        }
    }
    source.is_some()
}

async fn wait(
    session: &Session,
    link: &mut Link,
    grant: &Grant,
    (began, memory): (Instant, &Cell<u64>),
    asked: &mut oneshot::Receiver<oneshot::Sender<Box<Link>>>,
) -> Over {
    let mut over = session.gone.subscribe();
    let (ready, misdeed) = (Rc::clone(&link.ready), Rc::<Notify>::default());
    link.rules.tally.heard = Some(Rc::clone(&misdeed));
    let mut calm = began + START;
    let (mut paused, mut start) = (false, None);
    loop {
        tokio::select! {
            biased;
            () = gone(&mut over) => return Over::Gone,
            // Before it is given to a call.
            () = misdeed.notified() => return Over::Spoke,
            asked = &mut *asked => return asked.map_or(Over::Unwanted, Over::Asked),
            step = link.step(session) => match step {
                Step::End(End::Closed) => return Over::Died("the server ended before its call".to_owned()),
                Step::End(End::OverBudget) => return Over::Died("the server wrote too much before its call".to_owned()),
                Step::NoHandshake(detail) => return Over::Died(detail),
                // Nothing was asked.
                Step::Answer(..) | Step::Long => {}
            },
            () = ready.notified() => {
                calm = Instant::now() + CALM;
                start = Some(began.elapsed());
                link.probe();
            }
            () = sleep_until(calm), if !paused => {
                let rests = link.rests() || began.elapsed() >= RESTLESS;
                if !link.is_open() {
                    calm = Instant::now() + CALM;
                } else if !rests {
                    link.probe();
                    calm = Instant::now() + CALM;
                } else {
                    link.process.pause();
                    paused = true;
                    // What no cgroup counts is held to be as much as it may be.
                    memory.set(link.process.memory().unwrap_or(grant.policy.limits.memory));
                    session.spares.kind(&grant.plan, |kind| {
                        kind.memory = Some(memory.get());
                        // One that is asked nothing may have needed all of the time.
                        kind.demand.started(start.unwrap_or(START));
                    });
                    if session.spares.held() > session.options.spares_memory {
                        return Over::Unwanted;
                    }
                    restock(session, grant, session.era.get());
                }
            }
            () = sleep_until(began + session.options.spares_idle) => return Over::Unwanted,
        }
    }
}
