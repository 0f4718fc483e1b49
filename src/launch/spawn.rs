//! The parent's side of a launch: cgroup, clone, and the hand-over of descriptors to init.
//!
//! Neighbours: `launch::launcher` and `commands::exec` call it; `launch::init` is the other side. Never: reads a pipe
//! of the payload.

use std::cell::{LazyCell, OnceCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::{CellCgroup, cell_name};
use super::early::Early;
use super::idmap::IdMaps;
use super::outside::Outside;
use super::private::Private;
use super::reserve::Reserved;
use super::{LaunchError, init, orphans, verify};
use crate::plan::step::{Namespace, Step};
use crate::plan::{Plan, seccomp};
use crate::sys::descriptor::Interest;
use crate::sys::filter::{self, Instruction};
use crate::sys::process::{self, Cloned, Image};
use crate::sys::{Errno, descriptor, socket};

/// The three ends that the payload gets.
#[derive(Debug)]
pub struct Stdio {
    /// Reading end of a pipe.
    pub stdin: OwnedFd,
    /// Writing end of a pipe.
    pub stdout: OwnedFd,
    /// Writing end of a pipe.
    pub stderr: OwnedFd,
}

/// A plan with all that can be worked out before a call: done once, used for every cell of the plan.
#[derive(Debug)]
pub struct Prepared {
    pub(super) plan: Plan,
    pub(super) filter: Vec<Instruction>,
    /// The same filter, telling of what it refuses; empty where nobody is to be told.
    pub(super) observing: Vec<Instruction>,
    /// The filter lets init give back pages of its program.
    pub(super) may_let_go: bool,
    /// And run the payload by execveat(2), of which no listener is told.
    pub(super) untold: bool,
    /// `None` as long as there is no whole plan.
    pub(super) image: Option<Image>,
    pub(super) idmaps: IdMaps,
    launcher: OnceCell<OwnedFd>,
    origin: OnceCell<Origin>,
}

/// The launcher, as an init of its cells compares itself with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Its own by kind, as `/proc` names them; without the kinds that the kernel does not have.
    pub(super) namespaces: BTreeMap<String, String>,
    /// Filters that init has before it installs the cell's.
    pub(super) filters: u32,
}

/// A descriptor for this process.
pub(super) fn own_pidfd() -> Result<OwnedFd, Errno> {
    process::pidfd_open(process::pid().cast_signed())
}

impl Prepared {
    /// Lays out the filter and the arguments of exec, and makes the user namespaces that idmapped mounts need.
    ///
    /// # Errors
    /// The step that cannot be prepared.
    pub fn new(plan: Plan) -> Result<Self, LaunchError> {
        let mut prepared = Self::of(plan, OnceCell::new());
        let payload = prepared.plan.steps.iter().find_map(|step| match step {
            Step::SetIds { uid, gid } => Some((*uid, *gid)),
            _ => None,
        });
        for step in &prepared.plan.steps {
            if let Step::Bind { source, owner: Some(owner), .. }
            | Step::MountOverlay { source, owner: Some(owner), .. } = step
            {
                prepared
                    .idmaps
                    .add(*owner, payload.unwrap_or(*owner))
                    .map_err(|errno| LaunchError::new(step.name(), source.to_string_lossy(), errno))?;
            }
        }
        prepared.lay_out()?;
        Ok(prepared)
    }

    /// What it was made from.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Before there is a whole plan; `plan` is what there is of it.
    pub(super) fn unplanned(plan: Plan, launcher: OwnedFd) -> Self {
        Self::of(plan, OnceCell::from(launcher))
    }

    fn of(plan: Plan, launcher: OnceCell<OwnedFd>) -> Self {
        Self {
            plan,
            filter: Vec::new(),
            observing: Vec::new(),
            may_let_go: false,
            untold: false,
            image: None,
            idmaps: IdMaps::default(),
            launcher,
            origin: OnceCell::new(),
        }
    }

    /// A descriptor for the launcher, for its inits.
    pub(super) fn launcher(&self) -> Result<&OwnedFd, Errno> {
        self.launcher.get().ok_or(Errno(libc::EINVAL))
    }

    /// The launcher, for its inits.
    pub(super) fn origin(&self) -> Result<&Origin, Errno> {
        self.origin.get().ok_or(Errno(libc::EINVAL))
    }

    /// The same for the launcher itself, which looks once.
    pub(super) fn own_origin(&self) -> Result<&Origin, Errno> {
        if self.origin.get().is_none() {
            self.learn(verify::caller()?);
        }
        self.origin()
    }

    /// For an init that is told.
    pub(super) fn learn(&self, origin: Origin) {
        self.origin.get_or_init(|| origin);
    }

    /// For the launcher, before it clones.
    fn tell(&self) -> Result<(), LaunchError> {
        let tell = || {
            self.own_origin()?;
            if self.launcher.get().is_none() {
                let launcher = own_pidfd()?;
                self.launcher.get_or_init(|| launcher);
            }
            Ok(())
        };
        tell().map_err(|errno| LaunchError::new("clone", "what the launcher is", errno))
    }

    /// The rest of the plan, for an init that has begun without it.
    pub(super) fn complete(&mut self, rest: Plan, idmaps: IdMaps) -> Result<(), LaunchError> {
        self.plan.floor = rest.floor;
        self.plan.steps.extend(rest.steps);
        self.idmaps = idmaps;
        self.lay_out()
    }

    fn lay_out(&mut self) -> Result<(), LaunchError> {
        for step in &self.plan.steps {
            match step {
                Step::Seccomp { program, observe, attempts } => {
                    self.filter = filter::assemble(program);
                    self.may_let_go = may(program, "madvise");
                    self.untold = may(program, "execveat");
                    if let Some(observe) = observe
                        && may(program, "sendmsg")
                    {
                        self.observing = filter::assemble(&seccomp::observing(program, *observe, *attempts));
                    }
                }
                Step::Exec { program, argv, env, .. } => {
                    let path = program.to_string_lossy();
                    let made = Image::new(&path, argv, env);
                    self.image = Some(made.map_err(|errno| LaunchError::new("exec", path.as_ref(), errno))?);
                }
                _ => {}
            }
        }
        match self.image {
            Some(_) => Ok(()),
            None => Err(LaunchError::new("exec", "no program in the plan", Errno(libc::EINVAL))),
        }
    }
}

/// A policy may refuse the very call that hands the listener over: nobody would answer it. And what init does for itself
/// must not be counted as the payload's.
fn may(program: &[(u16, u8, u8, u32)], call: &str) -> bool {
    seccomp::number(call)
        .is_some_and(|call| seccomp::allows(program, seccomp::AUDIT_ARCH_X86_64, call, &[0; 6]))
}

/// A cell that is being built or runs.
#[derive(Debug)]
pub struct Started {
    /// Init's process id in this pid namespace.
    pub pid: libc::pid_t,
    /// A descriptor for init.
    pub pidfd: OwnedFd,
    /// Where init reports ([`super::Report`]).
    pub channel: OwnedFd,
    /// The cell's cgroup, if the plan has one.
    pub cgroup: Option<CellCgroup>,
    /// Places of names that must not come to exist, given back when this is dropped.
    pub reserved: Reserved,
    /// The directory on the host of a cell without a private root, removed when this is dropped.
    pub private: Option<Private>,
    /// Where ports of the cell are reached; sockets with a path are removed when this is dropped.
    pub outside: Outside,
    /// Every process of the cell ends with init.
    pub ends_with_init: bool,
    /// What else was a child of this process before, where it is not.
    pub others: Vec<libc::pid_t>,
}

impl Started {
    /// How long init may take to end the cell in order.
    pub const PATIENCE: Duration = Duration::from_millis(100);

    /// After init: ends what a pid namespace would have ended with it. `keep` are this process's other children.
    pub fn end_the_rest(&self, keep: &[libc::pid_t]) {
        if self.ends_with_init {
            return;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        orphans::end(keep);
    }

    /// Ends every process of the cell: init counts their CPU time, or is killed when it takes too long.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn end(&self) -> Result<(), Errno> {
        let mut gone = [Interest { fd: Some(self.pidfd.as_fd()), events: libc::POLLIN, ready: 0 }];
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            match process::pidfd_send_signal(self.pidfd.as_fd(), signal) {
                Ok(()) => {}
                Err(Errno(libc::ESRCH)) => return Ok(()),
                Err(errno) => return Err(errno),
            }
            if descriptor::poll(&mut gone, Some(Self::PATIENCE))? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Runs the launcher's steps of the plan for the cell of this number; init runs the others in the child of the clone, or is at work already when the
/// cell was begun early. The caller must be single-threaded: the child is a copy of it.
///
/// # Errors
/// The step that failed on this side, with nothing left of the cell; what init meets comes over the channel.
pub fn spawn(prepared: &Prepared, stdio: Stdio, cell: u64) -> Result<Started, LaunchError> {
    start(prepared, stdio, cell, Init::New)
}

/// Where a cell's init comes from, and what it does when all is built.
#[derive(Debug)]
pub enum Init {
    /// Cloned now.
    New,
    /// Cloned now; it waits between its report and the payload's start until it is told to go on.
    Held,
    /// At work already on what every plan begins with; one for a plan that begins otherwise is ended, and another cloned.
    Early(Early),
}

/// As [`spawn`], with a choice of init.
///
/// # Errors
/// As for [`spawn`].
pub fn start(prepared: &Prepared, stdio: Stdio, cell: u64, init: Init) -> Result<Started, LaunchError> {
    let name = LazyCell::new(|| cell_name(cell));
    let mut unfinished = Unfinished::default();
    let mut flags = None;
    let mut ends_with_init = false;
    for step in &prepared.plan.steps {
        match step {
            Step::CreateCgroup { directories, unified } => {
                unfinished.cgroup = Some(CellCgroup::create(directories, *unified, &name)?);
            }
            Step::ReserveName { path, content } => unfinished.reserved.add(path, content.as_deref())?,
            Step::ListenOutside { port, at } => unfinished.outside.open(*port, at)?,
            Step::MakePrivateDirectory { parent, owner } => {
                unfinished.private = Some(Private::create(parent, &name, *owner)?);
            }
            Step::Clone { namespaces } => {
                flags = Some(bits(namespaces));
                ends_with_init = namespaces.contains(&Namespace::Pid);
                break;
            }
            _ => break,
        }
    }
    let clone_error = |errno| LaunchError::new("clone", "new namespaces", errno);
    let flags = flags.ok_or_else(|| clone_error(Errno(libc::EINVAL)))?;
    let (hold, early) = match init {
        Init::New => (false, None),
        Init::Held => (true, None),
        Init::Early(early) => (false, Some(early)),
    };
    let begun = match early {
        Some(early) => early.order(prepared, &stdio)?,
        None => None,
    };
    let mut others = Vec::new();
    if !ends_with_init {
        process::become_subreaper().map_err(clone_error)?;
        others = orphans::children();
    }
    let (pid, pidfd, channel) = match begun {
        Some(begun) => begun,
        None => {
            prepared.tell()?;
            let (channel, inner) = socket::pair().map_err(clone_error)?;
            let into = unfinished.cgroup.as_ref().and_then(CellCgroup::directory_descriptor);
            let cloned = process::clone3(flags, into.as_ref().map(AsFd::as_fd));
            // Filters of containers hide clone3, and no other call clones into a cgroup: then the child enters by itself,
            // before it is init. Whether it is there is looked at by `join-cgroup`.
            let enters = flags == 0 && into.is_some() && matches!(cloned, Err(Errno(libc::ENOSYS)));
            let cloned = if enters { process::clone3(0, None) } else { cloned };
            match cloned.map_err(clone_error)? {
                Cloned::Child => {
                    if let Some(cgroup) = unfinished.cgroup.as_ref().filter(|_| enters) {
                        let _found_out_later = cgroup.enter().is_err();
                    }
                    let private = unfinished.private.as_ref().map(Private::path);
                    let outside = unfinished.outside.take();
                    init::main(prepared, (stdio, outside), inner, &name, private, hold)
                }
                Cloned::Parent(pid, pidfd) => (pid, pidfd, channel),
            }
        }
    };
    unfinished.init = Some((pid, pidfd));
    // Whoever keeps the doors closes the last one, and the next cell finds the place free.
    drop(unfinished.outside.take());
    let late = prepared.plan.steps.iter().find_map(|step| match step {
        Step::CreateCgroup { directories, unified: false } => Some(directories),
        _ => None,
    });
    // While init builds the root: it waits at this step.
    if let Some(directories) = late {
        let made = unfinished.cgroup.insert(CellCgroup::create(directories, false, &name)?);
        let joins = made.join_descriptors()?;
        let joins: Vec<_> = joins.iter().map(AsFd::as_fd).collect();
        match socket::send(channel.as_fd(), name.as_bytes(), &joins) {
            // An init that is gone has said why, which is read like any of its reports.
            Ok(()) | Err(Errno(libc::EPIPE | libc::ECONNRESET)) => {}
            Err(errno) => return Err(LaunchError::new("create-cgroup", name.as_str(), errno)),
        }
    }
    unfinished.finish(channel, ends_with_init, others).ok_or_else(|| clone_error(Errno(libc::ECHILD)))
}

/// What a launch that fails on this side must not leave behind: taken back when dropped.
#[derive(Debug, Default)]
struct Unfinished {
    init: Option<(libc::pid_t, OwnedFd)>,
    cgroup: Option<CellCgroup>,
    reserved: Reserved,
    private: Option<Private>,
    outside: Outside,
}

impl Unfinished {
    fn finish(mut self, channel: OwnedFd, ends_with_init: bool, others: Vec<libc::pid_t>) -> Option<Started> {
        let (pid, pidfd) = self.init.take()?;
        let (cgroup, private) = (self.cgroup.take(), self.private.take());
        let reserved = std::mem::take(&mut self.reserved);
        let outside = std::mem::take(&mut self.outside);
        Some(Started { pid, pidfd, channel, cgroup, reserved, private, outside, ends_with_init, others })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((pid, pidfd)) = self.init.take() {
            let _gone = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).is_err();
            let _reaped = process::wait(pid).is_ok();
        }
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
    }
}

pub(super) fn bits(namespaces: &[Namespace]) -> u64 {
    namespaces.iter().fold(0, |bits, namespace| {
        bits | process::namespace_bits(match namespace {
            Namespace::User => libc::CLONE_NEWUSER,
            Namespace::Mount => libc::CLONE_NEWNS,
            Namespace::Pid => libc::CLONE_NEWPID,
            Namespace::Net => libc::CLONE_NEWNET,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Cgroup => libc::CLONE_NEWCGROUP,
            Namespace::Time => libc::CLONE_NEWTIME,
        })
    })
}
