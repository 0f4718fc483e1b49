//! Is there something of this name on the host? Asked about names that a cell chose, so that asking must have no effect.
//!
//! Neighbours: `files` asks, for the record. Never: follows a link, waits for another machine, or makes the host mount
//! something: only names on file systems of this kernel's own are looked for.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sys::descriptor;
use crate::sys::mount::{self, Beneath, open_without_links};

/// File systems that answer by themselves (`/proc/filesystems`).
const LOCAL: &[&str] = &[
    "bcachefs", "btrfs", "cgroup", "cgroup2", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "iso9660",
    "overlay", "proc", "ramfs", "rootfs", "squashfs", "sysfs", "tmpfs", "vfat", "xfs", "zfs",
];

/// The host's mounts; one that comes later is not looked into.
#[derive(Debug)]
pub(super) struct Host {
    mounts: Vec<(PathBuf, bool)>,
}

impl Host {
    /// The host with this table of mounts. Without one nothing is found.
    pub(super) fn new(table: &str) -> Self {
        Self { mounts: table.lines().filter_map(mount).collect() }
    }

    /// Is an absolute path without `.` and `..` there?
    pub(super) fn has(&self, path: &Path) -> bool {
        let above = || self.mounts.iter().filter(|(place, _)| path.starts_with(place));
        if above().any(|(_, local)| !local) {
            return false;
        }
        let Some((place, _)) = above().max_by_key(|(place, _)| place.as_os_str().len()) else { return false };
        let rest = path.strip_prefix(place).unwrap_or(path);
        let found = open(descriptor::working_directory(), place, Beneath::Plain);
        rest.as_os_str().is_empty()
            || found.and_then(|place| open(place.as_fd(), rest, Beneath::SameMount)).is_some()
    }
}

fn open(directory: BorrowedFd<'_>, path: &Path, beneath: Beneath) -> Option<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    open_without_links(directory, &path, libc::O_PATH | libc::O_NOFOLLOW, 0, beneath).ok()
}

/// A line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`): where, and whether its file system is local.
fn mount(line: &str) -> Option<(PathBuf, bool)> {
    let (mount, source) = line.split_once(" - ")?;
    let place = mount.split(' ').nth(4)?;
    let kind = source.split(' ').next()?;
    Some((mount::unescaped(place), LOCAL.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_local_file_systems_only() {
        let host = Host::new(&std::fs::read_to_string("/proc/self/mountinfo").unwrap());
        assert!(host.has(Path::new("/")) && host.has(Path::new("/proc/sys")));
        assert!(!host.has(Path::new("/no/such/name")) && !host.has(Path::new("/proc/self/stat/x")));
        let line = |kind: &str| format!("36 35 98:0 / / rw,noatime master:1 - {kind} /dev/root rw");
        for (kind, found) in [("ext4", true), ("nfs4", false), ("autofs", false), ("fuse.sshfs", false)] {
            let host = Host::new(&line(kind));
            assert_eq!(host.has(Path::new("/etc/passwd")), found, "{kind}");
        }
        assert_eq!(mount::unescaped("/a\\040b\\134c\\"), Path::new("/a b\\c\\"));
    }

    #[test]
    fn a_mount_in_between_that_is_not_known_is_not_entered() {
        // The table knows of the root alone.
        assert!(!Host::new("1 1 0:1 / / rw - ext4 none rw").has(Path::new("/proc/version")));
    }
}
