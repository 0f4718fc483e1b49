//! An init that is made before its plan is: while the caller still works out what the cell is to be, init makes the
//! namespaces and builds what every cell begins with ([`prelude`]).
//!
//! ```text
//! caller:  begin ── reads profile, program and host ── makes the plan ──► order: plan, pipes ──► as after any clone
//! init:      └─ on another processor: namespaces ── prelude ── waits ◄─────────┘ ── every later step
//! ```
//!
//! The clone itself makes only the namespaces that a process cannot enter by itself, or must be in to make the others
//! (pid, time, user): the others take longer than all that, and are made by init, so that the caller goes on at once.
//!
//! Neighbours: `commands::exec` begins, `launch::spawn` orders, `launch::init` is the other side. Never: knows a
//! policy; is used for a plan that begins otherwise, or for cgroup v2, whose limits hold from the clone on.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::idmap::IdMaps;
use super::spawn::{Origin, Prepared, Stdio, bits, own_pidfd};
use super::{LaunchError, init};
use crate::plan::prelude::{Mode, namespaces, prelude};
use crate::plan::step::{Namespace, Step};
use crate::plan::{Plan, written};
use crate::sys::process::{self, Cloned};
use crate::sys::scheduler::Processors;
use crate::sys::{Errno, Result, heap, identity, mount, socket};

/// The longest message to an init, which is a piece of a longer plan.
const MESSAGE_LIMIT: usize = 4096;

/// Bytes of heap that the caller fills while it works out the plan. Not backed before the clone: a page that init has too is copied
/// for the one that writes to it.
const HEAP: usize = 120 * 1024;

/// An init that waits for its plan. Dropping it ends it.
#[derive(Debug)]
pub struct Early {
    steps: Vec<Step>,
    /// Its id, a descriptor for it, and the channel to it, until it is handed on.
    init: Option<(libc::pid_t, OwnedFd, OwnedFd)>,
}

impl Early {
    /// Starts one, where that is possible; a failure of the clone shows again, with its step, when the plan is run.
    /// The caller must be single-threaded.
    #[must_use]
    pub fn begin() -> Option<Self> {
        // On a host of cgroup v2 the clone itself must put init into its cgroup, which is not known yet.
        if !mount::kind(c"/sys/fs/cgroup").is_ok_and(|kind| kind.tmpfs) {
            return None;
        }
        let (uid, gid) = identity::effective();
        let root = uid == 0;
        // Init and its caller each write down the steps for themselves, because everything waits for the clone.
        let beginning = || prelude(root, (uid, gid), Mode::Cell);
        let flags = bits(&namespaces(root));
        let launcher = own_pidfd().ok()?;
        let (channel, inner) = socket::pair().ok()?;
        match process::clone3(flags & by_clone(), None).ok()? {
            Cloned::Child => {
                // Only the caller's own, so that init reads the end when the caller lets go of it.
                drop(channel);
                init::wait_for_plan(Prepared::unplanned(beginning(), launcher), inner, flags & !by_clone())
            }
            Cloned::Parent(pid, pidfd) => {
                // The kernel starts a new process where its parent runs, and may leave it waiting there for as long as
                // the parent has work. Where the other processor is busy, it may fetch it back when the parent waits.
                let _here_then = Processors::allowed().and_then(|all| all.send_away(pid)).is_err();
                heap::back(HEAP);
                Some(Self { steps: beginning().steps, init: Some((pid, pidfd, channel)) })
            }
        }
    }

    /// What init has not begun of a plan that begins as it has.
    fn rest<'p>(&self, plan: &'p Plan) -> Option<&'p [Step]> {
        let launchers = plan.steps.iter().take_while(|step| matches!(step, Step::ReserveName { .. })).count();
        plan.steps.get(launchers..)?.strip_prefix(self.steps.as_slice())
    }

    /// Hands over the rest of the plan, stdin, stdout and stderr, the idmaps, and what the caller is; init goes on by itself. `None`: there is no init that has begun as the plan does, so one has
    /// to be cloned.
    pub(super) fn order(
        mut self,
        prepared: &Prepared,
        stdio: &Stdio,
    ) -> std::result::Result<Option<(libc::pid_t, OwnedFd, OwnedFd)>, LaunchError> {
        let Some(steps) = self.rest(&prepared.plan) else { return Ok(None) };
        let Some((_, _, channel)) = &self.init else { return Ok(None) };
        match hand_over(channel, prepared, steps, stdio) {
            // An init that is gone has said why, which is read like any of its reports.
            Ok(()) | Err(Errno(libc::EPIPE | libc::ECONNRESET)) => Ok(self.init.take()),
            Err(errno) => Err(LaunchError::new("clone", "plan for init", errno)),
        }
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        if let Some((pid, pidfd, _)) = self.init.take() {
            let _gone = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).is_err();
            let _reaped = process::wait(pid).is_ok();
        }
    }
}

/// The namespaces that are made with init.
fn by_clone() -> u64 {
    bits(&[Namespace::User, Namespace::Pid, Namespace::Time])
}

/// Init's side, first of all: makes the other namespaces.
pub(super) fn settle(namespaces: u64) -> Result<()> {
    let flags = libc::c_int::try_from(namespaces).map_err(|_none_so_high| Errno(libc::EINVAL))?;
    process::unshare(flags)
}

/// What init goes on with. Pieces of the plan follow it, and a message with a descriptor for each owner.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// Bytes of the plan as it is written.
    length: usize,
    owners: Vec<(u32, u32)>,
}

fn hand_over(channel: &OwnedFd, prepared: &Prepared, steps: &[Step], stdio: &Stdio) -> Result<()> {
    let plan = written(prepared.plan.floor, steps).map_err(|_unwritable| Errno(libc::EPROTO))?;
    let order = Order { length: plan.len(), owners: prepared.idmaps.owners() };
    let bytes = serde_json::to_vec(&order).map_err(|_unprintable| Errno(libc::EPROTO))?;
    socket::send(
        channel.as_fd(),
        &bytes,
        &[stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd()],
    )?;
    for piece in plan.chunks(MESSAGE_LIMIT) {
        socket::send(channel.as_fd(), piece, &[])?;
    }
    for owner in &order.owners {
        let map = prepared.idmaps.get(*owner).ok_or(Errno(libc::EINVAL))?;
        socket::send(channel.as_fd(), b"idmap", &[map])?;
    }
    // Looked for while init is at work already: it compares only when all is built.
    let bytes = serde_json::to_vec(prepared.own_origin()?).map_err(|_unprintable| Errno(libc::EPROTO))?;
    socket::send(channel.as_fd(), &bytes, &[])
}

/// Init's side: waits for the rest of the plan. `None` when the caller went away or did without.
pub(super) fn receive(channel: &OwnedFd) -> Result<Option<(Plan, IdMaps, Stdio)>> {
    let mut buffer = [0; MESSAGE_LIMIT];
    let Some((count, descriptors)) = socket::receive_what_fits(channel.as_fd(), &mut buffer)? else {
        return Ok(None);
    };
    let order: Order = serde_json::from_slice(buffer.get(..count).unwrap_or_default())
        .map_err(|_foreign| Errno(libc::EPROTO))?;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(Errno(libc::EPROTO));
    };
    let mut plan = vec![0; order.length];
    let mut rest = plan.as_mut_slice();
    while !rest.is_empty() {
        let Some((count, _)) = socket::receive_what_fits(channel.as_fd(), rest)? else { return Ok(None) };
        rest = rest.get_mut(count..).unwrap_or_default();
    }
    let plan = Plan::read(&plan).map_err(|_foreign| Errno(libc::EPROTO))?;
    let mut idmaps = IdMaps::default();
    for owner in order.owners {
        let Some((_, maps)) = socket::receive_what_fits(channel.as_fd(), &mut buffer)? else {
            return Ok(None);
        };
        idmaps.put(owner, maps.into_iter().next().ok_or(Errno(libc::EPROTO))?);
    }
    debug_assert!(channel.as_raw_fd() > 2, "the standard descriptors are not used yet");
    Ok(Some((plan, idmaps, Stdio { stdin, stdout, stderr })))
}

/// Init's side: what comes last of all that is handed over.
pub(super) fn receive_origin(channel: &OwnedFd) -> Result<Origin> {
    let mut buffer = [0; MESSAGE_LIMIT];
    let (count, _) = socket::receive_what_fits(channel.as_fd(), &mut buffer)?.ok_or(Errno(libc::EPIPE))?;
    serde_json::from_slice(buffer.get(..count).unwrap_or_default()).map_err(|_foreign| Errno(libc::EPROTO))
}
