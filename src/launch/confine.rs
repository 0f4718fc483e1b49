//! Identity, cgroup membership, capabilities and Landlock of a cell: the steps that are not mounts.
//!
//! Neighbours: `launch::init` runs them in order. Never: looks for a weaker way when one fails.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::init::{State, tie_to_launcher};
use super::{LaunchError, root};
use crate::plan::doors::DNS;
use crate::plan::step::{Kind, LandlockRule, Ports, Resource, Step};
use crate::sys::landlock::{self, access};
use crate::sys::mount::{self, Beneath};
use crate::sys::process::Image;
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, Result, capability, descriptor, identity, kernel_file, process};

/// Enters each cgroup, looks that it is there, and makes it the root of a cgroup namespace where it may.
pub(super) fn join_cgroup(name: &str, joins: &[OwnedFd], namespace: bool) -> Result<()> {
    for procs in joins {
        descriptor::write(procs.as_fd(), b"0")?;
    }
    let membership = kernel_file::read("/proc/self/cgroup")?;
    let wanted = joins.len().max(1);
    let inside = membership.lines().filter(|line| line.rsplit('/').next() == Some(name)).count();
    if inside < wanted {
        return Err(Errno(libc::ESRCH));
    }
    if namespace { process::unshare(libc::CLONE_NEWCGROUP) } else { Ok(()) }
}

/// Writes a file of the host's `/proc`, which stays reachable by descriptor after the pivot.
fn write_proc(state: &State<'_>, path: &std::ffi::CStr, content: &str) -> Result<()> {
    let proc = state.proc.as_ref().ok_or(Errno(libc::EBADF))?;
    let file = open_plain(proc.as_fd(), path)?;
    descriptor::write(file.as_fd(), content.as_bytes()).map(drop)
}

/// `/proc/self` is a link by design, so the rest of the path is opened beneath the directory it leads to.
fn open_plain(proc: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<OwnedFd> {
    descriptor::open_at(proc, path, libc::O_WRONLY)
}

/// setgroups(2) stays off for good, then one user and one group are mapped.
fn write_maps(state: &State<'_>, inside: u32, uid: u32, gid: u32) -> Result<()> {
    write_proc(state, c"self/setgroups", "deny")?;
    write_proc(state, c"self/uid_map", &format!("{inside} {uid} 1"))?;
    write_proc(state, c"self/gid_map", &format!("{inside} {gid} 1"))
}

pub(super) fn map_ids(state: &State<'_>, inside: u32, uid: u32, gid: u32) -> Result<()> {
    write_maps(state, inside, uid, gid)
}

/// From root to the payload's user on the host. The kernel forgets dumpable and the death signal with the ids.
pub(super) fn set_ids(state: &State<'_>, uid: u32, gid: u32) -> Result<()> {
    identity::become_user(uid, gid)?;
    // The files in /proc/self that `UnshareUser` writes belong to root while the process is not dumpable.
    process::prctl(libc::PR_SET_DUMPABLE, 1)?;
    tie_to_launcher(state)
}

/// A user namespace below the host's that owns none of the cell's other namespaces: even full capabilities in it
/// mean nothing to the mounts, the network or the process ids of the cell.
pub(super) fn unshare_user(state: &State<'_>, inside: u32) -> Result<()> {
    let (uid, gid) = identity::effective();
    process::unshare(libc::CLONE_NEWUSER)?;
    write_maps(state, inside, uid, gid)?;
    tie_to_launcher(state)
}

/// The limit that is written is the current user namespace's own.
pub(super) fn forbid_user_namespaces(state: &State<'_>) -> Result<()> {
    write_proc(state, c"sys/user/max_user_namespaces", "0")
}

pub(super) fn new_session() -> Result<()> {
    process::setsid()?;
    match process::join_session_keyring() {
        // A kernel without keyrings has none to inherit, and a container's filter keeps them from the payload too.
        Ok(()) | Err(Errno(libc::ENOSYS | libc::EPERM)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Not dumpable either: the payload has the same user id, and may not look into init.
pub(super) fn drop_capabilities(bounding: bool) -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0)?;
    if bounding { capability::drop_all() } else { capability::drop_held() }
}

/// What init needs to answer for the cell's processes without a pid namespace, opened before Landlock keeps it from it.
#[derive(Debug)]
pub(super) struct Alone {
    /// A Landlock ruleset for the payload alone, so that it cannot signal init.
    pub(super) scope: OwnedFd,
    /// The program with the cell's own directory in its environment.
    pub(super) image: Option<Image>,
    /// Init's own `/proc/self/status`.
    pub(super) status: File,
    /// Init's own `/proc/self/cgroup`.
    pub(super) membership: File,
}

impl Alone {
    pub(super) fn new(state: &State<'_>) -> Result<Self> {
        process::become_subreaper()?;
        process::hear_of_parents_end()?;
        let root = root::open_directory(Path::new("/"))?;
        Ok(Self {
            scope: landlock::create_signal_scope(root.as_fd())?,
            image: image(state, &[])?,
            status: File::open("/proc/self/status")?,
            membership: File::open("/proc/self/cgroup")?,
        })
    }
}

/// The program of the plan with this in its environment too.
pub(super) fn image(state: &State<'_>, secrets: &[(String, Wiped)]) -> Result<Option<Image>> {
    let exec = state.prepared.plan.steps.iter().find_map(|step| match step {
        Step::Exec { program, argv, env, .. } => Some((program, argv, env)),
        _ => None,
    });
    let Some((program, argv, env)) = exec else { return Ok(None) };
    let value = |value: &String| state.place(Path::new(value)).to_string_lossy().into_owned();
    let env: Vec<_> = env.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    Image::with_secrets(&program.to_string_lossy(), argv, &env, secrets).map(Some)
}

pub(super) const fn resource(resource: Resource) -> libc::__rlimit_resource_t {
    match resource {
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
    }
}

/// Every rule must hold; a path that is missing fails the launch instead of dropping a rule.
pub(super) fn landlock(
    abi: u32,
    (rules, ports): (&[LandlockRule], Option<&Ports>),
    logged: bool,
    state: &State<'_>,
) -> std::result::Result<(), LaunchError> {
    let fail = |object: &str| {
        let object = object.to_owned();
        move |errno| LaunchError::new("landlock", object, errno)
    };
    let ruleset = match ports {
        Some(_) => landlock::create_ruleset(abi),
        None => landlock::create_ruleset_with_network(abi),
    };
    let ruleset = ruleset.map_err(fail("ruleset"))?;
    for rule in rules {
        let object = rule.path.to_string_lossy();
        let path = root::text(&state.place(&rule.path)).and_then(|path| {
            mount::open_without_links(descriptor::working_directory(), &path, libc::O_PATH, 0, Beneath::Plain)
        });
        let path = path.map_err(fail(&object))?;
        landlock::add_path(ruleset.as_fd(), path.as_fd(), rights(abi, rule)).map_err(fail(&object))?;
    }
    let Ports { connect, listen } = ports.cloned().unwrap_or_default();
    for port in &connect {
        landlock::add_door(ruleset.as_fd(), abi, *port).map_err(fail(&format!("port {port}")))?;
    }
    for port in &listen {
        landlock::add_listener(ruleset.as_fd(), abi, *port).map_err(fail(&format!("port {port}")))?;
    }
    if !connect.is_empty() {
        landlock::add_resolver(ruleset.as_fd(), abi, DNS).map_err(fail("the resolver's port"))?;
    }
    let restrict = match abi {
        _ if logged => landlock::restrict_self_logging,
        landlock::LOGGED.. => landlock::restrict_self_quietly,
        _ => landlock::restrict_self,
    };
    restrict(ruleset.as_fd()).map_err(fail("restrict"))
}

fn rights(abi: u32, rule: &LandlockRule) -> u64 {
    let mut rights = access::READ_DIR;
    if !rule.access.names {
        rights |= access::READ_FILE;
    }
    if rule.access.execute {
        rights |= access::EXECUTE;
    }
    if rule.access.write {
        // All but device nodes and device ioctls.
        rights |= access::WRITE_FILE
            | access::REMOVE_DIR
            | access::REMOVE_FILE
            | access::MAKE_DIR
            | access::MAKE_REG
            | access::MAKE_SOCK
            | access::MAKE_FIFO
            | access::MAKE_SYM
            | access::REFER
            | access::TRUNCATE;
    }
    if rule.kind == Kind::File {
        rights &= access::OF_FILES;
    }
    rights & access::handled(abi)
}
