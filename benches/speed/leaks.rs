//! A thousand calls in one session, and what there is afterwards that was not there before.
//!
//! Neighbours: `relay` holds the session. Never: counts what other processes make: only the session's own family, and
//! names that toolcell gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use toolcell::host::{Facts, cgroups};
use toolcell::launch::cgroup::PREFIX;

use crate::measure::{self, Result, Row};
use crate::relay::{Session, behind, run};

const CALLS: u64 = 1000;
/// How long the last cells may take to be gone, and the next spare ones to be there.
const SETTLE: Duration = Duration::from_secs(5);

/// What a session holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    processes: usize,
    mounts: usize,
    cgroups: usize,
    files: usize,
}

/// A process and all below it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        at += 1;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

fn entries(directory: &Path, prefix: &str) -> usize {
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(prefix)).count()
}

/// Processes that end while they are looked at count as gone.
fn held(pid: u32, parents: &[PathBuf]) -> Result<Held> {
    let all = family(pid);
    // The size of the directory is their number (Linux 6.2), and can be had of any process.
    let size = |pid| usize::try_from(fs::metadata(format!("/proc/{pid}/fd")).ok()?.len()).ok();
    let descriptors = all.iter().filter_map(size).sum();
    Ok(Held {
        descriptors,
        processes: all.len(),
        mounts: fs::read_to_string(format!("/proc/{pid}/mountinfo"))?.lines().count(),
        cgroups: parents.iter().map(|parent| entries(parent, PREFIX)).sum(),
        files: [std::env::temp_dir(), PathBuf::from("/dev/shm")]
            .iter()
            .map(|place| entries(place, "toolcell"))
            .sum(),
    })
}

/// The count once it has stopped to change; the session makes and removes cells of its own accord between calls.
fn settled(pid: u32, parents: &[PathBuf], wanted: Option<&Held>) -> Result<Held> {
    let end = Instant::now() + SETTLE;
    loop {
        let before = held(pid, parents)?;
        measure::rest(Duration::from_millis(200));
        let after = held(pid, parents)?;
        if Instant::now() > end || (before == after && wanted.is_none_or(|wanted| *wanted == after)) {
            return Ok(after);
        }
    }
}

pub(crate) fn rows(toolcell: &Path, files: &Path) -> Result<Vec<Row>> {
    let mut started = run(toolcell);
    started.args(["--spares", "1", "--"]).arg(files.join("server"));
    let mut rows = of_session(&mut behind(toolcell, files), "")?;
    rows.extend(of_session(&mut started, ", with started servers")?);
    Ok(rows)
}

fn of_session(command: &mut Command, how: &str) -> Result<Vec<Row>> {
    let parents: Vec<PathBuf> = Facts::gather().cgroup.iter().flat_map(cgroups::parents).collect();
    let mut session = Session::start(command)?;
    session.call("small")?;
    let before = settled(session.pid(), &parents, None)?;
    for _ in 0..CALLS {
        session.call("small")?;
    }
    let after = settled(session.pid(), &parents, Some(&before))?;
    session.end()?;
    let left = |what: &str, before: usize, after: usize| {
        let more = u64::try_from(after.saturating_sub(before)).unwrap_or(u64::MAX);
        measure::amount(&format!("{what} more after {CALLS} calls{how}"), more, 0, "")
    };
    Ok(vec![
        left("descriptors", before.descriptors, after.descriptors),
        left("processes", before.processes, after.processes),
        left("mounts", before.mounts, after.mounts),
        left("cgroups", before.cgroups, after.cgroups),
        left("temporary files", before.files, after.files),
    ])
}
