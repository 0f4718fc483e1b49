//! Counts what a demonstration left behind, by looking at the host before and after.
//!
//! Neighbours: `demo::run`. Never: removes anything.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::stage::Stage;
use crate::sys::descriptor::{self, Interest};
use crate::sys::process;

/// How long a process may take that has no reason to stay.
const PATIENCE: Duration = Duration::from_secs(1);
/// How deep below the cgroup mount cells can be.
const DEPTH: u32 = 12;
/// How the names of toolcell's own directories and files begin.
const PREFIX: &str = "toolcell-";

/// What there was before, and who makes what comes.
#[derive(Debug)]
pub(super) struct Before {
    mounts: BTreeSet<String>,
    /// The processes of the wrapped server that make cells: what they make bears their process id.
    makers: BTreeSet<u32>,
}

/// What there is now and was not before.
#[derive(Debug)]
pub(super) struct Left {
    /// Process id and name.
    pub(super) processes: Vec<String>,
    /// Lines of mountinfo.
    pub(super) mounts: Vec<String>,
    /// Directories.
    pub(super) cgroups: Vec<String>,
    /// Paths.
    pub(super) files: Vec<String>,
}

impl Left {
    /// Is it nothing at all?
    pub(super) fn is_nothing(&self) -> bool {
        [&self.processes, &self.mounts, &self.cgroups, &self.files].iter().all(|list| list.is_empty())
    }
}

/// Looks before anything is started.
pub(super) fn before() -> io::Result<Before> {
    Ok(Before { mounts: mounts()?, makers: BTreeSet::new() })
}

impl Before {
    /// Looks who makes cells, once the wrapped server has answered.
    pub(super) fn makers(&mut self) -> io::Result<()> {
        self.makers = descendants()?.into_iter().map(|(pid, _)| pid).collect();
        Ok(())
    }
}

/// Looks again. The stage is still there; what it made itself is not counted.
pub(super) fn since(before: &Before, stage: &Stage) -> io::Result<Left> {
    let shown = |found: BTreeSet<PathBuf>| {
        let ours = found.into_iter().filter(|path| is_made_by(&before.makers, path));
        ours.map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    for (pid, _) in descendants()? {
        wait_for_end(pid);
    }
    let mut files = shown(files());
    files.extend(stage.planted()?);
    Ok(Left {
        processes: descendants()?.into_iter().map(|(pid, name)| format!("{pid} {name}")).collect(),
        mounts: mounts()?.difference(&before.mounts).cloned().collect(),
        cgroups: shown(cgroups()),
        files,
    })
}

/// Waits for a process that may be about to end: the launcher tidies up behind the supervisor.
fn wait_for_end(pid: u32) {
    let Ok(process) = process::pidfd_open(pid.cast_signed()) else { return };
    let mut ended = [Interest { fd: Some(process.as_fd()), events: libc::POLLIN, ready: 0 }];
    descriptor::poll(&mut ended, Some(PATIENCE)).unwrap_or_default();
}

/// The mounts of this process's namespace that a cell could have made: of the kinds that it mounts, and binds, which
/// show the kind of what they bind, of things with toolcell's name. Others mount and unmount meanwhile.
fn mounts() -> io::Result<BTreeSet<String>> {
    let of_a_cell = |line: &&str| {
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        matches!(kind, Some("tmpfs" | "proc")) || line.contains(PREFIX)
    };
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter(of_a_cell).map(str::to_owned).collect())
}

/// Every cgroup directory.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), DEPTH, &mut found);
    found
}

/// Does something bear toolcell's name, and the process id of one of these? Other toolcells that run meanwhile have their
/// own. A maker's own scope is systemd's, which removes it some time after the last process is gone; what a cell left in it is
/// seen for itself.
fn is_made_by(makers: &BTreeSet<u32>, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".scope") {
        return false;
    }
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    rest.split('-').next().and_then(|pid| pid.parse().ok()).is_some_and(|pid: u32| makers.contains(&pid))
}

/// Collects the directories below one.
fn walk(directory: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Some(below) = depth.checked_sub(1) else { return };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), below, found);
        found.insert(entry.path());
    }
}

/// What is where temporary things are.
fn files() -> BTreeSet<PathBuf> {
    let temporary = std::env::temp_dir();
    let places = [temporary.as_path(), Path::new("/run"), Path::new("/dev/shm"), Path::new("/var/tmp")];
    let entries = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The living processes that descend from this one, with their names. As it is the subreaper, a process that outlives its parent stays
/// among them.
fn descendants() -> io::Result<Vec<(u32, String)>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let mut fields = tail.split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
        let name = head.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        if let (Some(state), Some(parent)) = (state, parent) {
            parents.push((pid, parent, state != "Z", name));
        }
    }
    let mut family = BTreeSet::from([std::process::id()]);
    loop {
        let size = family.len();
        let children = parents.iter().filter(|(_, parent, ..)| family.contains(parent)).map(|(pid, ..)| *pid);
        let children: Vec<u32> = children.collect();
        family.extend(children);
        if family.len() == size {
            break;
        }
    }
    let itself = std::process::id();
    let living =
        parents.into_iter().filter(|(pid, _, lives, _)| *lives && *pid != itself && family.contains(pid));
    Ok(living.map(|(pid, _, _, name)| (pid, name)).collect())
}

/// The process ids of those that bear this name.
pub(super) fn named(name: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_in_the_makers_scope_is_left_behind_and_the_scope_is_not() {
        let made = |path: &str| is_made_by(&BTreeSet::from([42]), Path::new(path));
        let scope = "/sys/fs/cgroup/user.slice/toolcell-42-0-1-2.scope";
        assert!(!made(scope));
        assert!(made(&format!("{scope}/toolcell-42-7")));
        assert!(!made(&format!("{scope}/toolcell-43-7")));
        assert!(!made("/tmp/toolcell-other"));
    }
}
