//! The cell's cgroup: made with its limits before the clone, read and removed after the last process is gone.
//!
//! Neighbours: `launch::spawn` makes it, `watch` reads it, `host` finds its parent and sweeps what a killed supervisor
//! left. Never: moves a process that toolcell did not start.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LaunchError;
use super::launcher::Weight;
use crate::plan::step::CgroupDirectory;
use crate::sys::{Errno, descriptor, kernel_file, process};

/// Every directory of ours starts so; the process id of its maker and that process's start time follow.
pub const PREFIX: &str = "toolcell-";

/// The directories of one cell: one on v2, one a hierarchy on v1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCgroup {
    /// Directory and the controllers that live in it.
    pub directories: Vec<(PathBuf, Vec<String>)>,
    /// cgroup v2?
    pub unified: bool,
}

impl CellCgroup {
    /// Makes the directories and writes every setting; removes what it made when one fails.
    ///
    /// # Errors
    /// The file that could not be made or written.
    pub fn create(wanted: &[CgroupDirectory], unified: bool, name: &str) -> Result<Self, LaunchError> {
        let mut made = Self { directories: Vec::new(), unified };
        for directory in wanted {
            if let Err(error) = made.create_one(directory, name) {
                made.remove();
                return Err(error);
            }
        }
        Ok(made)
    }

    fn create_one(&mut self, wanted: &CgroupDirectory, name: &str) -> Result<(), LaunchError> {
        let failed = |path: &Path, error: std::io::Error| {
            LaunchError::new("create-cgroup", path.to_string_lossy(), Errno::from(error))
        };
        let path = wanted.parent.join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, error))?;
        self.directories.push((path.clone(), wanted.controllers.clone()));
        for setting in &wanted.settings {
            let file = path.join(&setting.file);
            match OpenOptions::new().write(true).open(&file).and_then(|f| write_once(&f, &setting.value)) {
                Ok(()) => {}
                Err(error) if setting.optional && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&file, error)),
            }
        }
        Ok(())
    }

    /// v1: the open `tasks` of each directory, for the child to write itself into. Not `cgroup.procs`: that one stops
    /// every fork of the host to move a whole process, and waits an RCU grace period (10 ms) for it; one thread that
    /// moves itself needs neither, and init has no other thread.
    ///
    /// # Errors
    /// The file that could not be opened.
    pub(super) fn join_descriptors(&self) -> Result<Vec<OwnedFd>, LaunchError> {
        if self.unified {
            return Ok(Vec::new());
        }
        self.directories
            .iter()
            .map(|(path, _)| {
                let file = path.join("tasks");
                OpenOptions::new().write(true).open(&file).map(OwnedFd::from).map_err(|error| {
                    LaunchError::new("create-cgroup", file.to_string_lossy(), Errno::from(error))
                })
            })
            .collect()
    }

    /// v2: the directory that clone3 puts the child into.
    pub(super) fn directory_descriptor(&self) -> Option<OwnedFd> {
        if !self.unified {
            return None;
        }
        let (path, _) = self.directories.first()?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
        options.open(path).ok().map(OwnedFd::from)
    }

    /// v2: the calling process enters.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        self.directories.iter().try_for_each(|(path, _)| Ok(fs::write(path.join("cgroup.procs"), "0")?))
    }

    /// Content of a file of a controller, if the kernel has it.
    #[must_use]
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        let (path, _) = self.directories.iter().find(|(_, list)| list.iter().any(|c| c == controller))?;
        kernel_file::read(path.join(file)).ok()
    }

    /// What its processes hold now, in bytes, the cache of files that they read first included.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let file = if self.unified { "memory.current" } else { "memory.usage_in_bytes" };
        self.read("memory", file)?.trim().parse().ok()
    }

    /// Sets its share of the processors against its neighbours'.
    ///
    /// # Errors
    /// The kernel's errno.
    pub(super) fn weigh(&self, weight: Weight) -> Result<(), Errno> {
        let Some((path, _)) = self.directories.iter().find(|(_, list)| list.iter().any(|c| c == "cpu"))
        else {
            return Ok(());
        };
        // The usual values are the kernel's (Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-design-CFS.rst).
        let (file, value) = match (self.unified, weight) {
            (true, Weight::Tenth) => ("cpu.weight", "10"),
            (true, Weight::Usual) => ("cpu.weight", "100"),
            (false, Weight::Tenth) => ("cpu.shares", "102"),
            (false, Weight::Usual) => ("cpu.shares", "1024"),
        };
        let file = OpenOptions::new().write(true).open(path.join(file))?;
        Ok(write_once(&file, value)?)
    }

    /// Kills what is in them, where no pid namespace has done so.
    pub fn kill(&self) {
        self.directories.iter().for_each(|(path, _)| kill_members(path));
    }

    /// Is one of the directories still there?
    pub(super) fn is_there(&self) -> bool {
        self.directories.iter().any(|(path, _)| path.exists())
    }

    /// Removes the directories. Call it when the last process is dead; a directory that stays busy for a second
    /// is left to the next start's sweep, and its path returned.
    pub fn remove(&self) -> Vec<PathBuf> {
        self.directories
            .iter()
            .filter(|(path, _)| !remove_directory(path))
            .map(|(path, _)| path.clone())
            .collect()
    }
}

/// A cgroup file takes each value in one write(2).
fn write_once(mut file: &File, value: &str) -> std::io::Result<()> {
    std::io::Write::write_all(&mut file, value.as_bytes())
}

/// rmdir(2), tried again while the kernel still lets go of the last process: no event tells when on v1.
fn remove_directory(path: &Path) -> bool {
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if descriptor::poll(&mut [], Some(Duration::from_millis(5))).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    false
}

/// The name for a cell's directories: who made it, when that process started, which cell, and the pid namespace in
/// which the process id means something.
#[must_use]
pub fn cell_name(number: u64) -> String {
    let pid = process::pid();
    let start = start_time(pid).ok().flatten().unwrap_or(0);
    format!("{PREFIX}{pid}-{start}-{number}-{}", pid_namespace().unwrap_or(0))
}

/// The inode of this process's pid namespace, if `/proc` is of it: its process ids are looked up there. A container may
/// share the cgroup directory, not the process ids.
fn pid_namespace() -> Option<u64> {
    let own = fs::read_link("/proc/self").ok()?;
    let same = own.to_str()?.parse() == Ok(process::pid());
    same.then(|| fs::metadata("/proc/self/ns/pid").ok().map(|metadata| metadata.ino())).flatten()
}

/// Clock ticks from boot to the start of a process: tells a process from a later one of the same id. `None` when there is
/// no such process, which one that cannot be looked at may well be.
fn start_time(pid: u32) -> std::io::Result<Option<u64>> {
    let stat = match kernel_file::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Field 22; field 2 is the name in parentheses and may hold anything, so count from its end.
    let field = || stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok();
    field().map(Some).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// Is it the name of a cell whose maker lived in this pid namespace and is gone?
pub(super) fn is_abandoned(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { return false };
    let mut parts = rest.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start)), Some(Ok(_)), Some(Ok(namespace))) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(pid) = u32::try_from(pid) else { return false };
    // Zero: its maker could not tell.
    start != 0
        && pid_namespace() == Some(namespace)
        && start_time(pid).is_ok_and(|found| found != Some(start))
}

/// Ends and removes the cells beneath `parent` whose maker is gone. Returns what it removed.
pub fn sweep(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !is_abandoned(&name) {
            continue;
        }
        let path = entry.path();
        kill_members(&path);
        if remove_directory(&path) {
            removed.push(path);
        }
    }
    removed
}

fn kill_members(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let Ok(list) = kernel_file::read(path.join("cgroup.procs")) else { return };
    for pid in list.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()).filter(|pid| *pid > 0) {
        // A member that is gone by now is what is wanted; one that cannot be killed keeps the directory busy.
        let _gone = process::kill(pid).is_err();
    }
}
