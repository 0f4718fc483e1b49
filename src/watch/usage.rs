//! Reads the kernel's counters of a cell and turns limits that were hit into violations.
//!
//! Neighbours: `launch::cgroup` holds the directories. Never: guesses: a counter that the host lacks stays `None`.

use std::os::fd::BorrowedFd;

use crate::launch::cgroup::CellCgroup;
use crate::outcome::{Evidence, Layer, Limit, Usage, Violation};
use crate::policy::Policy;
use crate::policy::limits::toml_line_that_raises;
use crate::sys::mount;
use crate::sys::process::Exit;

/// The counters of one cell that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Its cgroup, if it had one; still there.
    pub cgroup: Option<&'a CellCgroup>,
    /// Its scratch directory, if it had one.
    pub scratch: Option<BorrowedFd<'a>>,
    /// CPU time of all its processes, from wait4(2).
    pub cpu_us: Option<u64>,
    /// How the payload ended.
    pub exit: Option<Exit>,
}

/// Reads everything. Bytes and wall-clock time are the caller's to fill in.
#[must_use]
pub fn collect(ended: &Ended<'_>, policy: &Policy) -> (Usage, Vec<Violation>) {
    let mut usage = Usage { cpu_us: ended.cpu_us, ..Usage::default() };
    let mut violations = Vec::new();
    if let Some(cgroup) = ended.cgroup {
        memory(cgroup, policy, &mut usage, &mut violations);
        tasks(cgroup, policy, &mut usage, &mut violations);
        cpu(cgroup, policy, &mut usage, &mut violations);
    }
    scratch(ended.scratch, policy, &mut usage, &mut violations);
    if ended.exit == Some(Exit::Signal(libc::SIGXFSZ)) {
        let seen = Seen { count: 1, peak: None, operation: "write", errno: "EFBIG", layer: Layer::Rlimit };
        violations.push(hit(policy, Limit::FileSize, policy.limits.file_size, &seen));
    }
    (usage, violations)
}

/// What the kernel said about one limit.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// How often.
    pub count: u64,
    /// The peak, if it is counted.
    pub peak: Option<u64>,
    /// What the payload did.
    pub operation: &'static str,
    /// What it got, or the signal.
    pub errno: &'static str,
    /// Which layer.
    pub layer: Layer,
}

/// A violation for a limit, with the rule and the TOML line that would raise it.
#[must_use]
pub fn hit(policy: &Policy, limit: Limit, value: u64, seen: &Seen) -> Violation {
    Violation {
        layer: seen.layer,
        limit: Some(limit),
        operation: seen.operation.to_owned(),
        object: String::new(),
        errno: (!seen.errno.is_empty()).then(|| seen.errno.to_owned()),
        count: seen.count,
        value: Some(value),
        peak: seen.peak,
        rule: format!("`{}.{}` of profile `{}`", limit.section(), limit.name(), policy.name),
        allow: Some(toml_line_that_raises(limit, policy, seen.peak)),
        evidence: Evidence::Kernel,
        first_us: None,
        last_us: None,
    }
}

/// The violation of a limit that the supervisor enforces itself: time or output.
#[must_use]
pub fn stopped(policy: &Policy, limit: Limit, bytes_out: u64) -> Violation {
    let time = limit == Limit::Time;
    let (operation, layer) = if time { ("run", Layer::Deadline) } else { ("write", Layer::Output) };
    let seen = Seen { count: 1, peak: (!time).then_some(bytes_out), operation, errno: "SIGKILL", layer };
    Violation { evidence: Evidence::Supervisor, ..hit(policy, limit, policy.limit(limit), &seen) }
}

/// The number after `key` in a file of `key value` lines.
fn keyed(text: Option<&str>, key: &str) -> Option<u64> {
    text?.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

fn memory(cgroup: &CellCgroup, policy: &Policy, usage: &mut Usage, violations: &mut Vec<Violation>) {
    let (peak, events, file) = if cgroup.unified {
        ("memory.peak", "memory.events", "oom_kill")
    } else {
        ("memory.max_usage_in_bytes", "memory.oom_control", "oom_kill")
    };
    usage.memory_peak = number(cgroup.read("memory", peak));
    let events = cgroup.read("memory", events);
    let kills = keyed(events.as_deref(), file).unwrap_or(0);
    if kills > 0 {
        // v2 ends the cell as one: `oom_kill` counts its processes, which say nothing about how often.
        let groups = keyed(events.as_deref(), "oom_group_kill").filter(|groups| *groups > 0);
        let seen = Seen {
            count: groups.unwrap_or(kills),
            peak: usage.memory_peak,
            operation: "allocate",
            errno: "SIGKILL",
            layer: Layer::Cgroup,
        };
        violations.push(hit(policy, Limit::Memory, policy.limits.memory, &seen));
    }
}

fn tasks(cgroup: &CellCgroup, policy: &Policy, usage: &mut Usage, violations: &mut Vec<Violation>) {
    usage.tasks_peak = number(cgroup.read("pids", "pids.peak"));
    let refused = keyed(cgroup.read("pids", "pids.events").as_deref(), "max").unwrap_or(0);
    if refused > 0 {
        let seen = Seen {
            count: refused,
            peak: usage.tasks_peak,
            operation: "fork",
            errno: "EAGAIN",
            layer: Layer::Cgroup,
        };
        violations.push(hit(policy, Limit::Tasks, policy.limits.tasks.into(), &seen));
    }
}

fn cpu(cgroup: &CellCgroup, policy: &Policy, usage: &mut Usage, violations: &mut Vec<Violation>) {
    let stat = cgroup.read("cpu", "cpu.stat");
    let stat = stat.as_deref();
    // v2 counts microseconds, v1 nanoseconds.
    usage.throttled_us =
        keyed(stat, "throttled_usec").or_else(|| keyed(stat, "throttled_time").map(|ns| ns / 1000));
    if let Some(used) = keyed(stat, "usage_usec") {
        usage.cpu_us = Some(used);
    }
    let periods = keyed(stat, "nr_throttled").unwrap_or(0);
    if periods > 0 {
        let seen = Seen { count: periods, peak: None, operation: "compute", errno: "", layer: Layer::Cgroup };
        violations.push(hit(policy, Limit::Cpu, policy.limits.cpu.into(), &seen));
    }
}

/// tmpfs counts no refused writes; what is full at the end was hit.
fn scratch(
    scratch: Option<BorrowedFd<'_>>,
    policy: &Policy,
    usage: &mut Usage,
    violations: &mut Vec<Violation>,
) {
    let Some(space) = scratch.and_then(|fd| mount::space(fd).ok()) else { return };
    usage.scratch_used = Some(space.used);
    if space.used >= space.total || space.inodes_free == 0 {
        let seen = Seen {
            count: 1,
            peak: Some(space.used),
            operation: "write",
            errno: "ENOSPC",
            layer: Layer::Root,
        };
        violations.push(hit(policy, Limit::Scratch, policy.filesystem.scratch, &seen));
    }
}
