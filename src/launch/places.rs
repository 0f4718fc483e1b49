//! Places: empty directories of a cell that waits, in which a process of the launcher mounts what the cell's call may see.
//!
//! ```text
//! init: the private root once more, writable, mounted nowhere ── with its mount namespace ──► supervisor
//! supervisor ── both, and steps ──► launcher ── clone ──► child: trees of the host ── setns ──► mount points, mounts, a look ──► answer
//! ```
//!
//! The child has the privilege over the cell's mounts that its init had before it gave it up, and nothing of the cell can reach it. Landlock's rules
//! were on the places before the server started. They are on directories of the private root, so they hold for all that is mounted there,
//! on a place itself too: on the way up from a file the kernel passes over the roots of mounts that another mount hides.
//!
//! Neighbours: `launch::root` runs the step, `launch::launcher` clones into [`put_in`]. Never: follows a link, or mounts outside of a place.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::idmap::IdMaps;
use super::init::{State, tell};
use super::root::{Root, attributes, cut, relative};
use super::{LaunchError, Report};
use crate::plan::Plan;
use crate::plan::step::{Access, Step};
use crate::sys::mount::{self, Beneath};
use crate::sys::{Errno, Result, descriptor, namespace, process};

/// A cell that can be built before a call is known, and what makes it that call's.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// What the launcher runs, with places.
    pub plan: Arc<Plan>,
    /// What is put into its places.
    pub put: Arc<[Step]>,
}

/// For init, in the private root.
pub(super) fn open(root: &Root, state: &State<'_>) -> Result<()> {
    let proc = state.proc.as_ref().ok_or(Errno(libc::EINVAL))?;
    let namespace = descriptor::open_at(proc.as_fd(), c"self/ns/mnt", libc::O_RDONLY)?;
    tell(&state.channel, &Report::Namespace, Some(&namespace))?;
    tell(&state.channel, &Report::Places, Some(&root.once_more()?))
}

/// For a child of the launcher, which has no other thread: puts into the places of a cell of this plan what the steps say.
pub(super) fn put_in(
    plan: &Plan,
    steps: &[Step],
    mounts: BorrowedFd<'_>,
    writable: BorrowedFd<'_>,
) -> std::result::Result<(), LaunchError> {
    let of_cell = |errno| LaunchError::new("open-places", "the cell's mounts", errno);
    process::set_name(c"toolcell-put-in");
    let idmaps = idmaps(plan, steps)?;
    enter_user(plan, mounts).map_err(of_cell)?;
    // A copy of the host's mounts, which are looked at from the same side as for any cell.
    process::unshare(libc::CLONE_NEWNS).and_then(|()| mount::make_slave()).map_err(of_cell)?;
    let mut trees = Vec::new();
    for step in steps {
        if let Step::Bind { source, kind, access, devices, owner, .. } = step {
            let idmap = owner.and_then(|owner| idmaps.get(owner));
            let tree = cut(source, *kind, attributes(*access, *devices), idmap);
            trees.push(tree.map_err(|errno| failed(step, source, errno))?);
        }
    }
    namespace::setns(mounts, libc::CLONE_NEWNS).map_err(of_cell)?;
    let root = Root::of_here().map_err(of_cell)?;
    let mut trees = trees.into_iter();
    for step in steps {
        match step {
            Step::MakeDirectory { path, mode } => {
                let made =
                    in_place(plan, path).and_then(|path| mount::make_directory(writable, &path, *mode));
                made.map_err(|errno| failed(step, path, errno))?;
            }
            Step::MakeFile { path, mode, .. } => {
                let made = in_place(plan, path).and_then(|path| {
                    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                    mount::open_without_links(writable, &path, flags, *mode, Beneath::SameMount)
                });
                made.map_err(|errno| failed(step, path, errno))?;
            }
            Step::Bind { target, access, .. } => {
                let tree = trees.next().ok_or(Errno(libc::EPROTO));
                let attached = tree.and_then(|tree| {
                    in_place(plan, target)?;
                    attach(&root, &tree, target, *access)
                });
                attached.map_err(|errno| failed(step, target, errno))?;
            }
            Step::Hide { path, emptied } => {
                root.hide(path, *emptied).map_err(|errno| failed(step, path, errno))?
            }
            _ => return Err(of_cell(Errno(libc::EPROTO))),
        }
    }
    Ok(())
}

fn failed(step: &Step, path: &Path, errno: Errno) -> LaunchError {
    LaunchError::new(step.name(), path.to_string_lossy(), errno)
}

fn idmaps(plan: &Plan, steps: &[Step]) -> std::result::Result<IdMaps, LaunchError> {
    let payload = plan.steps.iter().find_map(|step| match step {
        Step::SetIds { uid, gid } => Some((*uid, *gid)),
        _ => None,
    });
    let mut idmaps = IdMaps::default();
    for step in steps {
        if let Step::Bind { source, owner: Some(owner), .. } = step {
            let added = idmaps.add(*owner, payload.unwrap_or(*owner));
            added.map_err(|errno| failed(step, source, errno))?;
        }
    }
    Ok(idmaps)
}

/// Where the cell's mounts belong to a user namespace of its own, into that.
fn enter_user(plan: &Plan, mounts: BorrowedFd<'_>) -> Result<()> {
    let own = plan.steps.iter().any(|step| {
        matches!(step, Step::Clone { namespaces } if namespaces.contains(&crate::plan::step::Namespace::User))
    });
    if own { namespace::setns(namespace::owner_of(mounts)?.as_fd(), libc::CLONE_NEWUSER) } else { Ok(()) }
}

/// A path of the cell, which has to be one in a place, by its root.
fn in_place(plan: &Plan, path: &Path) -> Result<CString> {
    let places = plan.steps.iter().find_map(|step| match step {
        Step::OpenPlaces { paths } => Some(paths),
        _ => None,
    });
    match places.into_iter().flatten().any(|place| path.starts_with(place)) {
        true => relative(path),
        false => Err(Errno(libc::EXDEV)),
    }
}

/// Mounts a tree, and looks whether it is what is there now.
fn attach(root: &Root, tree: &OwnedFd, target: &Path, access: Access) -> Result<()> {
    mount::attach(tree.as_fd(), root.open(target)?.as_fd())?;
    let seen = root.open(target)?;
    let identity = |fd: &OwnedFd| -> io::Result<_> {
        let meta = File::from(fd.try_clone()?).metadata()?;
        Ok((meta.dev(), meta.ino()))
    };
    let same = identity(tree)? == identity(&seen)?;
    match same && (access.write || mount::is_read_only(seen.as_fd())?) {
        true => Ok(()),
        false => Err(Errno(libc::EPROTO)),
    }
}
