//! The parent's side of a launch: cgroup, clone, and the hand-over of descriptors to init.
//!
//! Neighbours: `launch::launcher` and `commands::exec` call it; `launch::init` is the other side. Never: reads a pipe
//! of the payload.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use super::cgroup::CellCgroup;
use super::idmap::IdMaps;
use super::private::Private;
use super::reserve::Reserved;
use super::{LaunchError, init, orphans};
use crate::plan::Plan;
use crate::plan::step::{Namespace, Step};
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
    pub(super) image: Image,
    pub(super) idmaps: IdMaps,
    pub(super) launcher: OwnedFd,
    /// The launcher's own, as `/proc` names them; without the kinds that the kernel does not have.
    pub(super) namespaces: Vec<(&'static str, PathBuf)>,
}

/// The namespaces of a process, by their names in `/proc/PID/ns` (`namespaces(7)`).
const KINDS: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "time", "cgroup"];

impl Prepared {
    /// Lays out the filter and the arguments of exec, and makes the user namespaces that idmapped mounts need.
    ///
    /// # Errors
    /// The step that cannot be prepared.
    pub fn new(plan: Plan) -> Result<Self, LaunchError> {
        let mut filter = Vec::new();
        let mut image = None;
        let mut idmaps = IdMaps::default();
        let payload = plan.steps.iter().find_map(|step| match step {
            Step::SetIds { uid, gid } => Some((*uid, *gid)),
            _ => None,
        });
        for step in &plan.steps {
            match step {
                Step::Seccomp { program } => filter = filter::assemble(program),
                Step::Exec { program, argv, env, .. } => {
                    let path = program.to_string_lossy();
                    let made = Image::new(&path, argv, env);
                    image = Some(made.map_err(|errno| LaunchError::new("exec", path.as_ref(), errno))?);
                }
                Step::Bind { source, owner: Some(owner), .. } => {
                    idmaps
                        .add(*owner, payload.unwrap_or(*owner))
                        .map_err(|errno| LaunchError::new("bind", source.to_string_lossy(), errno))?;
                }
                _ => {}
            }
        }
        let image =
            image.ok_or_else(|| LaunchError::new("exec", "no program in the plan", Errno(libc::EINVAL)))?;
        let launcher = process::pidfd_open(process::pid().cast_signed())
            .map_err(|errno| LaunchError::new("clone", "descriptor of the launcher", errno))?;
        let namespaces = KINDS
            .into_iter()
            .filter_map(|kind| Some((kind, std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?)))
            .collect();
        Ok(Self { plan, filter, image, idmaps, launcher, namespaces })
    }
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
    /// Places of denied names, given back when this is dropped.
    pub reserved: Reserved,
    /// The directory on the host of a cell without a private root, removed when this is dropped.
    pub private: Option<Private>,
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

/// Runs the plan's steps up to the clone; init runs the rest in the child.
/// The caller must be single-threaded: the child is a copy of it.
///
/// # Errors
/// The step that failed on this side, with nothing left of the cell; what init meets comes over the channel.
pub fn spawn(prepared: &Prepared, stdio: Stdio, name: &str) -> Result<Started, LaunchError> {
    start(prepared, stdio, name, false)
}

/// The same; a held init waits between its report and the payload's start until it is told to go on.
pub(super) fn start(
    prepared: &Prepared,
    stdio: Stdio,
    name: &str,
    hold: bool,
) -> Result<Started, LaunchError> {
    let mut cgroup = None;
    let started = attempt(prepared, stdio, name, hold, &mut cgroup);
    // A cell that has started has it.
    if let Some(made) = cgroup {
        made.remove();
    }
    started
}

/// The same, for a caller who removes the cgroup when it fails.
fn attempt(
    prepared: &Prepared,
    stdio: Stdio,
    name: &str,
    hold: bool,
    cgroup: &mut Option<CellCgroup>,
) -> Result<Started, LaunchError> {
    let mut namespaces = None;
    let mut ends_with_init = false;
    let mut reserved = Reserved::default();
    let mut private = None;
    for step in &prepared.plan.steps {
        match step {
            Step::CreateCgroup { directories, unified } => {
                *cgroup = Some(CellCgroup::create(directories, *unified, name)?);
            }
            Step::ReserveName { path } => reserved.add(path)?,
            Step::MakePrivateDirectory { parent, owner } => {
                private = Some(Private::create(parent, name, *owner)?);
            }
            Step::Clone { namespaces: list } => {
                namespaces = Some(bits(list));
                ends_with_init = list.contains(&Namespace::Pid);
                break;
            }
            _ => break,
        }
    }
    let clone_error = |errno| LaunchError::new("clone", "new namespaces", errno);
    let flags = namespaces.ok_or_else(|| clone_error(Errno(libc::EINVAL)))?;
    let mut others = Vec::new();
    if !ends_with_init {
        process::become_subreaper().map_err(clone_error)?;
        others = orphans::children();
    }
    let (channel, inner) = socket::pair().map_err(clone_error)?;
    let joins = match cgroup {
        Some(made) => made.join_descriptors()?,
        None => Vec::new(),
    };
    let into = cgroup.as_ref().and_then(CellCgroup::directory_descriptor);
    match process::clone3(flags, into.as_ref().map(AsFd::as_fd)).map_err(clone_error)? {
        Cloned::Child => {
            init::main(prepared, stdio, inner, joins, name, private.as_ref().map(Private::path), hold)
        }
        Cloned::Parent(pid, pidfd) => {
            let cgroup = cgroup.take();
            Ok(Started { pid, pidfd, channel, cgroup, reserved, private, ends_with_init, others })
        }
    }
}

fn bits(namespaces: &[Namespace]) -> u64 {
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
