//! Counts what a demonstration left behind, by looking at the host before and after.
//!
//! Neighbours: `demo::run`. Never: removes anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::stage::Stage;

/// How deep below the cgroup mount cells can be.
const DEPTH: u32 = 12;
/// How the names of toolcell's own directories and files begin.
const PREFIX: &str = "toolcell-";
/// How the names of this and other demonstrations' directories begin.
const DEMONSTRATION: &str = "toolcell-demo-";

/// What there was before.
#[derive(Debug)]
pub(super) struct Before {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
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
    Ok(Before { mounts: mounts()?, cgroups: cgroups(), files: files() })
}

/// Looks again. The stage is still there; what it made itself is not counted.
pub(super) fn since(before: &Before, stage: &Stage) -> io::Result<Left> {
    let new = |now: BTreeSet<PathBuf>, then: &BTreeSet<PathBuf>| {
        now.difference(then).map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    let mut files = new(files(), &before.files);
    files.extend(planted(stage)?);
    Ok(Left {
        processes: descendants()?,
        mounts: mounts()?.difference(&before.mounts).cloned().collect(),
        cgroups: new(cgroups(), &before.cgroups),
        files,
    })
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

/// Every cgroup directory that a toolcell made and left.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), DEPTH, &mut found);
    found.retain(|path| is_abandoned(path));
    found
}

/// Does a directory bear toolcell's name, and the process id of a maker that is gone? Cells of another toolcell that
/// runs meanwhile come and go, and are not this demonstration's.
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let maker = rest.split('-').find(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    maker.is_none_or(|pid| !Path::new("/proc").join(pid).exists())
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

/// Entries with toolcell's name where temporary things are.
fn files() -> BTreeSet<PathBuf> {
    let temporary = std::env::temp_dir();
    let places = [temporary.as_path(), Path::new("/run"), Path::new("/dev/shm"), Path::new("/var/tmp")];
    let entries = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let is_ours = |name: &str| name.starts_with(PREFIX) && !name.starts_with(DEMONSTRATION);
    entries.filter(|entry| is_ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// What attackers made in the places of the stage, the granted one included.
fn planted(stage: &Stage) -> io::Result<Vec<String>> {
    let mut planted = Vec::new();
    for place in ["workspace", "home/.git/hooks"] {
        for entry in fs::read_dir(stage.path(place))? {
            planted.push(entry?.path().display().to_string());
        }
    }
    Ok(planted)
}

/// The living processes that descend from this one. As it is the subreaper, a process that outlives its parent stays
/// among them.
pub(super) fn descendants() -> io::Result<Vec<String>> {
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
    Ok(living.map(|(pid, _, _, name)| format!("{pid} {name}")).collect())
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
