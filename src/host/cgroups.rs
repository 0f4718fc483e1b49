//! Finds where a cell's cgroup can be made: v2 below a delegated or privileged directory, or in a scope asked of the
//! user's systemd; v1 below the own ones.
//!
//! Neighbours: `host::Facts`; `host::scope` asks; `launch::cgroup` makes the directories. Never: enables a controller
//! outside a cgroup that this process has to itself.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::delegation::{self, Obstacle};
use super::probe::Failed;
use super::probe::clues::Clues;
use super::scope::{self, Refused};
use super::{Cgroup, NoCgroup};
use crate::launch::cgroup;
use crate::sys::{Errno, attribute, descriptor, identity, kernel_file, mount, process};

/// The controllers that a full cell needs.
pub const NEEDED: [&str; 3] = ["memory", "pids", "cpu"];

/// One line of `/proc/self/mountinfo` that is a cgroup mount.
struct Hierarchy {
    mount: PathBuf,
    root: String,
    /// v1: the options, among them the controllers. v2: none.
    options: Option<String>,
}

/// What is in the way.
struct Closed {
    why: String,
    failed: Option<Failed>,
    obstacle: Obstacle,
}

impl From<Closed> for NoCgroup {
    fn from(Closed { why, failed, obstacle }: Closed) -> Self {
        let read_only = failed.as_ref().is_some_and(|failed| failed.errno.0 == libc::EROFS);
        let obstacle = if read_only { Obstacle::ReadOnly } else { obstacle };
        Self { why, failed, hint: delegation::remedy(&obstacle, &Clues::read()) }
    }
}

/// Where, or why not.
///
/// # Errors
/// The directory that cannot be used and the kernel's answer.
pub fn find() -> Result<Cgroup, NoCgroup> {
    let read = |path: &str| {
        kernel_file::read(path).map_err(|error| {
            let failed = Failed::new("open", path, Errno::from(error));
            let why = format!("cannot read `{path}`: {}", failed.errno);
            Closed { why, failed: Some(failed), obstacle: Obstacle::NoHierarchy }
        })
    };
    let membership = read("/proc/self/cgroup")?;
    if let Some(Ok(found)) = find_v1(&usual(), &membership) {
        return Ok(found);
    }
    let hierarchies = hierarchies(&read("/proc/self/mountinfo")?);
    // A controller lives in one hierarchy only: where v1 has all three, v2 has none of them.
    if let Some(over_v1) = find_v1(&hierarchies, &membership) {
        return over_v1.map_err(NoCgroup::from);
    }
    let unified = hierarchies.iter().find(|h| h.options.is_none());
    match unified.and_then(|h| Some((h, own(h, v2_path(&membership)?)))) {
        Some((hierarchy, directory)) => {
            let found = find_v2(&directory).or_else(|closed| in_scope(hierarchy, closed));
            found.map_err(NoCgroup::from)
        }
        None => Err(Closed {
            why: "no hierarchy with the controllers memory, pids and cpu is mounted".to_owned(),
            failed: None,
            obstacle: Obstacle::NoHierarchy,
        }
        .into()),
    }
}

/// The directories that cells are made in.
pub fn parents(cgroup: &Cgroup) -> Vec<PathBuf> {
    match cgroup {
        Cgroup::V1(hierarchies) => hierarchies.iter().map(|(_, parent)| parent.clone()).collect(),
        Cgroup::V2(parent) => vec![parent.clone()],
    }
}

fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, rest) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let root = mount.next()?.to_owned();
            let point = PathBuf::from(mount.next()?);
            let mut rest = rest.split(' ');
            let options = match rest.next()? {
                "cgroup2" => None,
                "cgroup" => Some(rest.nth(1)?.to_owned()),
                _ => return None,
            };
            Some(Hierarchy { mount: point, root, options })
        })
        .collect()
}

/// The hierarchies of v1 that are where they usually are: each whole, under the name of its one controller. While the table of
/// mounts is read, which says the same of any other place, no init of this host can mount.
fn usual() -> Vec<Hierarchy> {
    const ROOT_INODE: u64 = 1;
    let at_usual_place = |controller: &str| {
        let mount = Path::new("/sys/fs/cgroup").join(controller);
        let found =
            fs::symlink_metadata(&mount).ok().filter(|found| found.is_dir() && found.ino() == ROOT_INODE);
        let kind = CString::new(mount.as_os_str().as_bytes()).ok().and_then(|path| mount::kind(&path).ok());
        let (root, options) = ("/".to_owned(), Some(controller.to_owned()));
        (found.is_some() && kind?.cgroup).then_some(Hierarchy { mount, root, options })
    };
    NEEDED.into_iter().filter_map(at_usual_place).collect()
}

fn v2_path(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The own directory in a hierarchy, also where a container shows only a part of it.
fn own(hierarchy: &Hierarchy, path: &str) -> PathBuf {
    let below = path.strip_prefix(hierarchy.root.trim_end_matches('/')).unwrap_or(path);
    match below.trim_start_matches('/') {
        "" => hierarchy.mount.clone(),
        below => hierarchy.mount.join(below),
    }
}

/// Every controller has a v1 hierarchy whose own directory can be written to; `None` when one has no hierarchy.
fn find_v1(hierarchies: &[Hierarchy], membership: &str) -> Option<Result<Cgroup, Closed>> {
    let mut found = Vec::new();
    let mut refused = None;
    for controller in NEEDED {
        let has = |list: &str| list.split(',').any(|name| name == controller);
        let hierarchy = hierarchies.iter().find(|h| h.options.as_deref().is_some_and(has))?;
        let path = membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            parts.next().is_some_and(has).then(|| parts.next()).flatten()
        })?;
        let directory = own(hierarchy, path);
        if let Err(errno) = descriptor::writable(&directory) {
            refused.get_or_insert(Failed::new("mkdir", &directory.to_string_lossy(), errno));
        }
        found.push((controller.to_owned(), directory));
    }
    let Some(failed) = refused else { return Some(Ok(Cgroup::V1(found))) };
    let why = format!("cannot make a cgroup in `{}`: {}", failed.object, failed.errno);
    let directories = found.into_iter().map(|(_, directory)| directory).collect();
    Some(Err(Closed { why, failed: Some(failed), obstacle: Obstacle::V1(directories) }))
}

fn lists(directory: &Path, file: &str) -> bool {
    kernel_file::read(directory.join(file))
        .is_ok_and(|list| NEEDED.iter().all(|needed| list.split_whitespace().any(|have| have == *needed)))
}

/// The name of a scope asked of systemd: this process's, and no cell's.
fn scope_name() -> String {
    format!("{}.scope", cgroup::cell_name(0))
}

/// Was this directory asked of systemd by a toolcell?
pub fn is_asked_for(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(cgroup::PREFIX) && name.ends_with(".scope")
}

/// An ordinary user's systemd is asked for what the host has not given.
fn in_scope(hierarchy: &Hierarchy, closed: Closed) -> Result<Cgroup, Closed> {
    let (uid, _) = identity::effective();
    let Some(bus) = scope::bus_of(uid).filter(|_| uid != 0) else { return Err(closed) };
    let unit = scope_name();
    scope::ask(&bus, uid, &unit).map_err(|Refused { failed, said }| {
        let said = said.unwrap_or_else(|| failed.errno.to_string());
        let why = format!("{}; the user's systemd was asked for a scope, and gave none: {said}", closed.why);
        Closed { why, failed: Some(failed), obstacle: Obstacle::Scope }
    })?;
    let membership = kernel_file::read("/proc/self/cgroup").unwrap_or_default();
    let own = own(hierarchy, v2_path(&membership).unwrap_or("/"));
    if own.file_name() != Some(OsStr::new(&unit)) {
        let why = format!("systemd said that this process is in `{unit}`, and it is in `{}`", own.display());
        return Err(Closed { why, failed: None, obstacle: Obstacle::Scope });
    }
    find_v2(&own)
}

/// What systemd arranges by itself, and delegates to nobody: a slice, and the service of a user's manager.
fn is_of_systemd(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".slice") || name.starts_with("user@")
}

/// The own directory if it gives the controllers to its children or, marked as delegated and without another process,
/// can be made to; else the nearest above that does; else the own one unmarked, if it lets itself be arranged.
fn find_v2(own: &Path) -> Result<Cgroup, Closed> {
    let gives = |directory: &Path| {
        lists(directory, "cgroup.subtree_control")
            && descriptor::writable(directory).is_ok()
            && descriptor::writable(&directory.join("cgroup.procs")).is_ok()
    };
    if gives(own) {
        return Ok(Cgroup::V2(own.to_owned()));
    }
    let arrangeable = lists(own, "cgroup.controllers") && delegated(own) && alone(own);
    if arrangeable && let Ok(found) = take_over(own) {
        return Ok(found);
    }
    let root = identity::effective().0 == 0;
    let mut above = own.ancestors().skip(1).take_while(|d| d.join("cgroup.controllers").exists());
    if let Some(directory) = above.find(|d| (root || !is_of_systemd(d)) && gives(d)) {
        return Ok(Cgroup::V2(directory.to_owned()));
    }
    if !lists(own, "cgroup.controllers") {
        let why = format!("`{}` has not all of the controllers memory, pids and cpu", own.display());
        return Err(Closed { why, failed: None, obstacle: Obstacle::V2Controllers });
    }
    take_over(own).map_err(|(call, path, errno)| {
        let (why, obstacle) = match errno.0 {
            libc::EBUSY => {
                (format!("other processes live in the cgroup `{}`", own.display()), Obstacle::V2Busy)
            }
            _ => (format!("cannot use {} `{}`: {errno}", kind(own), own.display()), Obstacle::V2),
        };
        Closed { why, failed: Some(Failed::new(call, &path.to_string_lossy(), errno)), obstacle }
    })
}

/// What a cgroup is called that this process finds itself in.
fn kind(own: &Path) -> &'static str {
    let name = own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("session-") && name.ends_with(".scope") {
        "the login session's scope, which systemd keeps for itself,"
    } else {
        "the cgroup"
    }
}

/// Is this process the only one of the cgroup? One of another pid namespace is listed as 0.
fn alone(own: &Path) -> bool {
    let pid = process::pid().to_string();
    kernel_file::read(own.join("cgroup.procs")).is_ok_and(|list| list.lines().eq([pid.as_str()]))
}

/// Is it this unit's own to arrange? The service manager of the host marks what it delegates; that of a user cannot,
/// but a scope with nobody else in it was made for this process. Being able to write says less: root may write to every
/// cgroup, a user to all of those that his service manager arranges.
fn delegated(own: &Path) -> bool {
    let marked = || {
        File::open(own).is_ok_and(|directory| {
            [c"user.delegate", c"trusted.delegate"]
                .iter()
                .any(|name| attribute::is_set(directory.as_fd(), name))
        })
    };
    let scope_of_user = identity::effective().0 != 0 && own.extension().is_some_and(|kind| kind == "scope");
    scope_of_user || marked()
}

/// In a cgroup delegated to this process: into a leaf, then the controllers for all below.
fn take_over(own: &Path) -> Result<Cgroup, (&'static str, PathBuf, Errno)> {
    let at = |call: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| (call, path, Errno::from(error))
    };
    // Named like a cell that there is never: when this process is gone, the next one sweeps it away.
    let leaf = own.join(cgroup::cell_name(u64::MAX));
    match fs::create_dir(&leaf) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("mkdir", own)(error)),
    }
    if let Err(error) = fs::write(leaf.join("cgroup.procs"), "0") {
        let _reported_below = fs::remove_dir(&leaf).is_err();
        return Err(at("write", &leaf)(error));
    }
    let control = own.join("cgroup.subtree_control");
    match fs::write(&control, "+memory +pids +cpu") {
        Ok(()) => Ok(Cgroup::V2(own.to_owned())),
        Err(error) => {
            // Others live in this cgroup too, so it is not this process's to arrange: back, and say so.
            fs::write(own.join("cgroup.procs"), "0").map_err(at("write", own))?;
            fs::remove_dir(&leaf).map_err(at("rmdir", &leaf))?;
            Err(at("write", &control)(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_keeps_is_known_by_its_name() {
        let path = Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope");
        assert!(kind(path).contains("session"));
        assert!(is_of_systemd(Path::new("/c/app.slice")) && is_of_systemd(Path::new("/c/user@1000.service")));
        let own = path.with_file_name("toolcell-1-2-0-3.scope");
        assert!(is_asked_for(&own) && !is_of_systemd(&own) && kind(&own) == "the cgroup");
    }

    #[test]
    fn a_hybrid_host_shows_both_kinds() {
        let found = hierarchies(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
             32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 /docker/abc /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].options.as_deref(), Some("rw,cpu,cpuacct"));
        assert_eq!(own(&found[1], "/docker/abc/leaf"), Path::new("/sys/fs/cgroup/unified/leaf"));
    }
}
