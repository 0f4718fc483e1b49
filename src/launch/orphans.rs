//! Processes that a killed init leaves where there is no pid namespace that ends with it: they come to the launcher, which
//! is a subreaper then, and are ended here.
//!
//! Neighbours: `launch::launcher` and `commands::exec` call it when an init has ended. Never: touches a process that is
//! not a child of this one.

use std::fs;

use crate::sys::{kernel_file, process};

/// The children of this process, zombies included.
#[must_use]
pub fn children() -> Vec<libc::pid_t> {
    let own = process::pid().to_string();
    let is_child = |pid: &libc::pid_t| {
        // Field 4; field 2 is the name in parentheses and may hold anything, so count from its end.
        let stat = kernel_file::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_whitespace().nth(1)) == Some(own.as_str())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

/// Kills and waits for every child but those named, until there is no other.
pub fn end(keep: &[libc::pid_t]) {
    loop {
        let orphans: Vec<_> = children().into_iter().filter(|pid| !keep.contains(pid)).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in &orphans {
            let _ended_already = process::kill(*pid).is_err();
        }
        for pid in &orphans {
            let _reaped = process::wait(*pid).is_ok();
        }
    }
}
