//! The supervisor's side of the launcher: asks for cells, hands out their pipes, tells when they have ended. It has
//! cells built ahead of the calls that will use them ([`Launcher::build_ahead`]).
//!
//! Neighbours: `session` uses it; `launch::launcher` answers. Never: blocks the runtime for longer than a small write.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::cell::{Cell, End, Written, error_of};
use super::changes::Reviewed;
use super::handover::Handover;
use super::launcher::{Answer, Handle, MESSAGE_LIMIT, Request, Weight};
use super::memory::Memory;
use super::places::Ahead;
use super::ready::{self, Logs, Mounts, Shelf, Sources};
use super::traces::{Traces, clear};
use super::{LaunchError, Report};
use crate::network::porter::Porter;
use crate::outcome::{Built, Reached, Receipt};
use crate::plan::step::Step;
use crate::plan::{self, Plan};
use crate::policy::{Floor, Policy};
use crate::sys::{Errno, Result, descriptor, process, readiness, socket};
use crate::watch::attendant::Attendant;
use crate::watch::listening::Listening;
use crate::watch::refusals::Refusals;
use crate::watch::traffic::Attended;

/// A cell that the launcher has made: init's descriptors and the cell's cgroup.
#[derive(Debug)]
struct Made {
    init: libc::pid_t,
    pidfd: OwnedFd,
    channel: OwnedFd,
    traces: Traces,
    listening: Vec<Reached>,
}

#[derive(Debug)]
struct Waiting {
    plan: u64,
    launched: Option<oneshot::Sender<std::result::Result<Made, LaunchError>>>,
    ended: oneshot::Sender<End>,
}

/// A cell that waits for its call, and what it shows of the host.
#[derive(Debug)]
struct Ready {
    cell: Cell,
    sources: Sources,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: BTreeMap<u64, Waiting>,
    /// Those that the launcher has, by its numbers for them.
    plans: BTreeMap<u64, Weak<Plan>>,
    next_plan: u64,
    next_cell: u64,
    /// Who waits for what became of a cell's changes.
    reviews: BTreeMap<u64, oneshot::Sender<Reviewed>>,
    ready: Shelf<Ready>,
    /// Without it nothing is built ahead.
    mounts: Option<Mounts>,
    logs: Logs,
    gone: bool,
    /// Held open for the descriptors that answers will bring: two for each cell that has been asked for. With none
    /// left, an answer could come without its cell, which nobody could end then.
    room: Vec<OwnedFd>,
}

/// How long a place on this host is waited for that the cell of the call before may be leaving, and how often it is tried.
const PLACE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(20);

/// Descriptors of an [`Answer::Launched`].
const OF_A_CELL: usize = 2;

/// Bytes in the pipe of a payload's stdout.
const RESULT_PIPE: libc::c_int = 256 * 1024;

/// The way to the launcher. Copies share it.
#[derive(Debug, Clone)]
pub struct Launcher {
    socket: Arc<AsyncFd<OwnedFd>>,
    memory: Arc<Memory>,
    /// What tells of Landlock's refusals, or why nothing does.
    denials: Listening,
    /// Who keeps the doors of cells that have some.
    porter: Option<Arc<Porter>>,
    pid: libc::pid_t,
    shared: Arc<Mutex<Shared>>,
}

impl Launcher {
    /// Takes over a launcher that was started before the runtime. `denials` is `sys::audit::follow`'s, or why there is none;
    /// `porter` keeps the doors of cells that have some.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn new(
        handle: Handle,
        denials: std::result::Result<OwnedFd, String>,
        porter: Option<Porter>,
    ) -> Result<Self> {
        let denials = Listening::start(denials)?;
        let (socket, pid) = (Arc::new(readiness::readable(handle.socket)?), handle.pid);
        let shared = Shared { mounts: Mounts::of_host().ok(), ..Shared::default() };
        let (memory, shared) = (Arc::new(handle.memory), Arc::new(Mutex::new(shared)));
        let launcher = Self { socket, memory, denials, porter: porter.map(Arc::new), pid, shared };
        let listener = launcher.clone();
        tokio::spawn(async move {
            listener.listen().await;
            listener.give_up();
            drop(handle.pidfd);
        });
        Ok(launcher)
    }

    /// What is written to these files, which are hidden from cells, makes no cell that waits useless.
    pub fn write_to(&self, logs: &[PathBuf]) {
        self.lock().logs = Logs::of(logs);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a plan's payload, with these secrets, in a cell that nobody has used: one that was built ahead (of the plan itself, or of `ahead`'s),
    /// if it still shows what one built now would; else one that is built now.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn launch(
        &self,
        plan: &Arc<Plan>,
        policy: &Arc<Policy>,
        secrets: Option<&Handover>,
        ahead: Option<&Ahead>,
    ) -> std::result::Result<Cell, LaunchError> {
        let began = Instant::now();
        self.forget_unwanted();
        if let Some(cell) = self.take_ready(plan, policy, secrets, (ahead, began)).await {
            return Ok(cell);
        }
        let until = Instant::now() + PLACE;
        // One that gets secrets waits for them, as one that was built ahead does for its call.
        let mut cell = loop {
            match self.build(plan, policy, self.next_cell(), secrets.is_some()).await {
                Err(error) if error.is_taken() && Instant::now() < until => {
                    sleep_until(Instant::now() + AGAIN).await;
                }
                built => break built?,
            }
        };
        let told = secrets.map_or(Ok(()), |secrets| cell.go_on(secrets));
        told.map(|()| cell).map_err(|errno| LaunchError::new("secrets", "init", errno))
    }

    /// Builds a cell that the next call of this plan takes; at most one for each plan, and `most` in all. A call that
    /// comes before it is there waits for it. When it cannot be built, the next call learns why.
    pub async fn build_ahead(&self, plan: &Arc<Plan>, policy: &Arc<Policy>, most: usize) {
        if !ready::may_wait(plan) {
            return;
        }
        self.forget_unwanted();
        let number = self.next_cell();
        let Some(place) = self.lock().ready.put(plan, number, most) else { return };
        let built = async {
            // Before it is built: what changes meanwhile has changed when the cell is taken.
            let sources = self.sources(plan)?;
            let cell = self.build(plan, policy, number, true).await.ok()?;
            Some(Ready { cell, sources })
        };
        match timeout(policy.limits.time, built).await {
            Ok(Some(ready)) => {
                if let Err(unwanted) = place.send(ready) {
                    unwanted.end().await;
                }
            }
            Ok(None) | Err(_) => self.lock().ready.remove(number),
        }
    }

    /// Puts into the places of a cell what makes it its call's, once.
    ///
    /// # Errors
    /// The step that failed. What there is of the others is in the cell.
    pub async fn put_in(
        &self,
        cell: &mut Cell,
        Ahead { plan, put: steps }: &Ahead,
    ) -> std::result::Result<(), LaunchError> {
        let failed = |errno| LaunchError::new("open-places", "launcher", errno);
        let (namespace, places) = cell.places.take().ok_or_else(|| failed(Errno(libc::EINVAL)))?;
        let asked = (|| {
            let (ours, theirs) = socket::pair()?;
            let plan_number = self.plan_number(plan)?;
            let steps = plan_file(plan.floor, steps)?;
            let descriptors = [steps.as_fd(), theirs.as_fd(), namespace.as_fd(), places.as_fd()];
            self.send(&Request::PutIn { plan: plan_number }, &descriptors)?;
            readiness::readable(ours)
        })();
        let answer = asked.map_err(failed)?;
        let mut buffer = vec![0; MESSAGE_LIMIT];
        let received = answer.async_io(Interest::READABLE, |answer| {
            socket::receive(answer.as_fd(), &mut buffer).map_err(error_of)
        });
        let received = received.await.map_err(|error| failed(Errno::from_io(&error)))?;
        let (count, _) = received.ok_or_else(|| failed(Errno(libc::EPIPE)))?;
        let put: Option<LaunchError> = serde_json::from_slice(buffer.get(..count).unwrap_or_default())
            .map_err(|_foreign| failed(Errno(libc::EPROTO)))?;
        put.map_or(Ok(()), Err)
    }

    /// Has the launcher review what a cell of this plan wrote, when it has ended, and do it to the host if it may be done.
    pub async fn review(&self, plan: &Arc<Plan>, written: &Written, look: bool) -> Reviewed {
        let failed = |errno| Reviewed::failed(LaunchError::new("review", "launcher", errno));
        let (sender, answer) = oneshot::channel();
        let review = self.next_cell();
        let asked = self.plan_number(plan).and_then(|plan| {
            let Written { memory, kept } = written;
            let mut shared = self.lock();
            if shared.gone {
                return Err(Errno(libc::EPIPE));
            }
            self.send(&Request::Review { review, plan, kept: kept.clone(), look }, &[memory.as_fd()])?;
            shared.reviews.insert(review, sender);
            Ok(())
        });
        match asked {
            Ok(()) => answer.await.unwrap_or_else(|_gone| failed(Errno(libc::EPIPE))),
            Err(errno) => failed(errno),
        }
    }

    /// Has a cell's share of the processors set, in a moment.
    pub fn weigh(&self, cell: &Cell, weight: Weight) {
        // A launcher that is gone has taken the cell with it.
        let _gone = self.send(&Request::Weigh { cell: cell.number, weight }, &[]).is_err();
    }

    /// Ends every cell that waits for a call, and builds none ahead any more.
    pub async fn end_ready(&self) {
        let places = self.lock().ready.close();
        for mut place in places {
            // One that is still coming finds the place gone.
            place.close();
            if let Ok(ready) = place.try_recv() {
                ready.end().await;
            }
        }
    }

    /// The ready cell of a plan, told to go on; `None` when there is none that is alive and true.
    async fn take_ready(
        &self,
        plan: &Arc<Plan>,
        policy: &Arc<Policy>,
        secrets: Option<&Handover>,
        (ahead, began): (Option<&Ahead>, Instant),
    ) -> Option<Cell> {
        let plan = ahead.map_or(plan, |ahead| &ahead.plan);
        let place = self.lock().ready.take(plan)?;
        let Ready { mut cell, sources } = place.await.ok()?;
        if self.sources(plan)? != sources {
            return None;
        }
        if let Some(ahead) = ahead {
            // What cannot be put in cannot be mounted in a cell of its own either, which says why.
            self.put_in(&mut cell, ahead).await.ok()?;
        }
        cell.policy = Arc::clone(policy);
        cell.receipt.cell = Built::Ahead;
        cell.began = began;
        let nothing = Handover::nothing();
        // Fails when init is dead.
        cell.go_on(secrets.unwrap_or(&nothing)).ok()?;
        Some(cell)
    }

    /// What a cell of this plan would show if it were built now; `None` where none may be built before its call.
    #[must_use]
    pub fn look(&self, plan: &Plan) -> Option<Sources> {
        if ready::may_wait(plan) { self.sources(plan) } else { None }
    }

    fn sources(&self, plan: &Plan) -> Option<Sources> {
        let Shared { mounts, logs, .. } = &mut *self.lock();
        Sources::look(plan, mounts.as_mut()?, logs).ok()
    }

    fn next_cell(&self) -> u64 {
        let mut shared = self.lock();
        shared.next_cell += 1;
        shared.next_cell
    }

    /// Has a cell built, and waits until it is verified, or a step has failed.
    async fn build(
        &self,
        plan: &Arc<Plan>,
        policy: &Arc<Policy>,
        cell: u64,
        hold: bool,
    ) -> std::result::Result<Cell, LaunchError> {
        let began = Instant::now();
        let failed = |errno| LaunchError::new("clone", "launcher", errno);
        let (launched, waiting) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let number = self.plan_number(plan).map_err(failed)?;
        let no_porter = |errno| LaunchError::new("open-doors", "the process that keeps the doors", errno);
        let doors = Attended::open(self.porter.as_deref(), plan).map_err(no_porter)?;
        let (payload_in, stdin) = descriptor::pipe().map_err(failed)?;
        let (stdout, payload_out) = descriptor::pipe().map_err(failed)?;
        let (stderr, payload_err) = descriptor::pipe().map_err(failed)?;
        // Large results in fewer steps; a user who has used up his pipes' share gets them in more.
        let _as_it_is = descriptor::widen_pipe(stdout.as_fd(), RESULT_PIPE).is_err();
        {
            let mut shared = self.lock();
            if shared.gone {
                return Err(failed(Errno(libc::EPIPE)));
            }
            let (one, other) = (self.spare().map_err(failed)?, self.spare().map_err(failed)?);
            let request = Request::Launch { cell, plan: number, hold };
            let descriptors = [payload_in.as_fd(), payload_out.as_fd(), payload_err.as_fd()];
            self.send(&request, &descriptors).map_err(failed)?;
            shared.room.extend([one, other]);
            shared.waiting.insert(cell, Waiting { plan: number, launched: Some(launched), ended });
        }
        drop((payload_in, payload_out, payload_err));
        let made = waiting.await.unwrap_or_else(|_gone| Err(failed(Errno(libc::EPIPE))))?;
        let pipes = (|| {
            for end in [&stdin, &stdout, &stderr] {
                descriptor::set_nonblocking(end.as_fd(), true)?;
            }
            Ok((
                pipe::Sender::from_owned_fd_unchecked(stdin)?,
                pipe::Receiver::from_owned_fd_unchecked(stdout)?,
                pipe::Receiver::from_owned_fd_unchecked(stderr)?,
                readiness::readable(made.pidfd)?,
                readiness::readable(made.channel)?,
            ))
        })();
        let (stdin, stdout, stderr, pidfd, channel) = pipes.map_err(failed)?;
        let handed = doors.as_ref().map(Attended::channel).transpose().map_err(failed)?;
        if let Some(doors) = &doors {
            doors.reached_at(&made.listening);
        }
        let mut cell = Cell {
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            receipt: Receipt {
                floor: plan.floor,
                cell: Built::OnDemand,
                layers: BTreeMap::new(),
                coverage: BTreeMap::new(),
                reasons: BTreeMap::new(),
            },
            number: cell,
            pidfd,
            channel,
            traces: made.traces,
            scratch: None,
            places: None,
            written: None,
            attendant: Attendant::new(Refusals::new(plan, made.init, Some(Arc::clone(&self.memory)), handed)),
            denials: self.denials.of(made.init),
            doors,
            listening: made.listening,
            policy: Arc::clone(policy),
            ended: Some(end),
            end: None,
            dead: false,
            began,
            kill_at: None,
        };
        let mut report = cell.report().await.map_err(failed)?;
        if let Some((Report::Changes(kept), memory)) = report {
            cell.written = memory.map(|memory| Written { memory, kept });
            report = cell.report().await.map_err(failed)?;
        }
        if let Some((Report::Namespace, namespace)) = report {
            cell.places = namespace.zip(match cell.report().await.map_err(failed)? {
                Some((Report::Places, places)) => places,
                _ => None,
            });
            report = cell.report().await.map_err(failed)?;
        }
        while let Some((Report::Door(listens), socket)) = report {
            let handed_over = match (&cell.doors, &socket) {
                (Some(doors), Some(socket)) => doors.hand_over(listens, socket),
                _ => Err(Errno(libc::EPROTO)),
            };
            handed_over.map_err(no_porter)?;
            report = cell.report().await.map_err(failed)?;
        }
        if let Some((Report::Listener, listener)) = report {
            let listener = listener.ok_or(Errno(libc::EPROTO));
            listener.and_then(|listener| cell.attendant.listen(listener)).map_err(failed)?;
            report = cell.report().await.map_err(failed)?;
        }
        match report {
            Some((Report::Ready { receipt, denials }, scratch)) => {
                cell.receipt = receipt;
                cell.denials.ready(denials);
                cell.scratch = scratch;
                cell.attendant.refusals().begin();
                Ok(cell)
            }
            Some((Report::Failed(error), _)) => {
                cell.gone().await;
                Err(error)
            }
            // Init was killed, or said what it may not say.
            Some((
                Report::Exited { .. }
                | Report::Listener
                | Report::Changes(_)
                | Report::Door(_)
                | Report::Namespace
                | Report::Places,
                _,
            ))
            | None => {
                cell.signal(libc::SIGKILL);
                cell.gone().await;
                Err(LaunchError::unfinished())
            }
        }
    }

    /// Sends each plan once.
    fn plan_number(&self, plan: &Arc<Plan>) -> Result<u64> {
        let mut shared = self.lock();
        // An address is not given out again while there is a `Weak` for it.
        let known = shared.plans.iter().find(|(_, known)| Weak::as_ptr(known) == Arc::as_ptr(plan));
        if let Some((number, _)) = known {
            return Ok(*number);
        }
        let number = shared.next_plan;
        shared.next_plan += 1;
        let file = plan_file(plan.floor, &plan.steps)?;
        self.send(&Request::Prepare { plan: number }, &[file.as_fd()])?;
        shared.plans.insert(number, Arc::downgrade(plan));
        Ok(number)
    }

    /// Drops what is kept of plans that no grant and no call has any more.
    fn forget_unwanted(&self) {
        let mut shared = self.lock();
        shared.ready.drop_unwanted();
        let unwanted = shared.plans.extract_if(.., |_, plan| plan.strong_count() == 0);
        for (plan, _) in unwanted {
            // A launcher that is gone has forgotten everything.
            let _gone = self.send(&Request::Forget { plan }, &[]).is_err();
        }
    }

    fn send(&self, request: &Request, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(request).map_err(|_unprintable| Errno(libc::EPROTO))?;
        socket::send(self.socket.as_fd(), &bytes, descriptors)
    }

    /// A descriptor that only takes up a number.
    fn spare(&self) -> Result<OwnedFd> {
        self.socket.get_ref().try_clone().map_err(|error| Errno::from_io(&error))
    }

    /// Hands every answer to whoever waits for it, until the launcher is gone or says what cannot be understood.
    async fn listen(&self) {
        let mut buffer = vec![0; MESSAGE_LIMIT];
        loop {
            let received = self.socket.async_io(Interest::READABLE, |socket| {
                // The runtime has one thread: nothing takes the numbers between here and the message.
                let mut shared = self.lock();
                let kept = shared.room.len().saturating_sub(OF_A_CELL);
                let freed = shared.room.split_off(kept).len();
                let received = socket::receive(socket.as_fd(), &mut buffer);
                let taken = matches!(&received, Ok(Some((_, descriptors))) if !descriptors.is_empty());
                if !taken {
                    for _ in 0..freed {
                        shared.room.push(self.spare().map_err(error_of)?);
                    }
                }
                received.map_err(error_of)
            });
            let Ok(Some((count, descriptors))) = received.await else { return };
            let Ok(answer) = serde_json::from_slice(buffer.get(..count).unwrap_or_default()) else { return };
            if self.hand_out(answer, descriptors).is_none() {
                return;
            }
        }
    }

    /// `None`: an answer came without what belongs to it.
    fn hand_out(&self, answer: Answer, descriptors: Vec<OwnedFd>) -> Option<()> {
        let mut shared = self.lock();
        match answer {
            Answer::Launched { cell, init, cgroup, reserved, private, listening } => {
                let mut descriptors = descriptors.into_iter();
                let (pidfd, channel) = (descriptors.next()?, descriptors.next()?);
                let waiting = shared.waiting.get_mut(&cell).and_then(|w| w.launched.take());
                let traces = Traces { cgroup, reserved, private };
                let made = Made { init, pidfd, channel, traces, listening };
                if let Some(Err(Ok(unwanted))) = waiting.map(|waiting| waiting.send(Ok(made))) {
                    // The call was given up meanwhile. Its cgroup can go when the cell has.
                    let _gone = process::pidfd_send_signal(unwanted.pidfd.as_fd(), libc::SIGKILL).is_err();
                    tokio::spawn(clear(unwanted.pidfd, unwanted.traces));
                }
            }
            Answer::Refused { cell, error } => {
                let kept = shared.room.len().saturating_sub(OF_A_CELL);
                shared.room.truncate(kept);
                if let Some(waiting) = shared.waiting.remove(&cell) {
                    // What the launcher lacked may be there when it is asked again.
                    if shared.plans.remove(&waiting.plan).is_some() {
                        let _gone = self.send(&Request::Forget { plan: waiting.plan }, &[]).is_err();
                    }
                    let _unwanted = waiting.launched.map(|launched| launched.send(Err(error))).is_some();
                }
            }
            Answer::Reviewed { review, reviewed } => {
                if let Some(waiting) = shared.reviews.remove(&review) {
                    let _unwanted = waiting.send(reviewed).is_err();
                }
            }
            Answer::Ended { cell, exit, cpu_us } => {
                // Whoever killed a ready cell: it is not given out.
                shared.ready.remove(cell);
                if let Some(waiting) = shared.waiting.remove(&cell) {
                    let _unwanted = waiting.ended.send(Some((exit, cpu_us))).is_err();
                }
            }
        }
        Some(())
    }

    /// The launcher is gone, or is told to go, and with it every cell; who waits learns it now.
    fn give_up(&self) {
        let _gone = socket::shutdown(self.socket.as_fd()).is_err();
        let _reaped = process::wait(self.pid).is_ok();
        let mut shared = self.lock();
        shared.gone = true;
        shared.waiting.clear();
        shared.reviews.clear();
        drop(shared.ready.close());
    }
}

/// Steps as the launcher reads them.
fn plan_file(floor: Floor, steps: &[Step]) -> Result<std::fs::File> {
    let bytes = plan::written(floor, steps).map_err(|_unwritable| Errno(libc::EPROTO))?;
    let mut file = std::fs::File::from(descriptor::anonymous_file()?);
    file.write_all(&bytes)?;
    Ok(file)
}

impl Ready {
    /// There is no payload whose CPU time would have to be counted.
    async fn end(mut self) {
        self.cell.signal(libc::SIGKILL);
        self.cell.gone().await;
    }
}
