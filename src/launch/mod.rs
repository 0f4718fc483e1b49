//! Runs plans: the launcher makes cells, init builds each from inside and stays its pid 1.
//!
//! Neighbours: takes a [`crate::plan::Plan`], gives a running cell to `watch`. Never: reads a profile, decides, retries.
//!
//! ```text
//! launcher: spawn ── Clone, CreateCgroup ──► child: init ── every later step ── Verify ──► report Ready ── Exec
//!    │                                          │ a step fails: report Failed, exit            │
//!    └── waits for it, gives status and CPU      └── reaps until the payload ends, reports Exited, exits
//! ```

pub mod cell;
pub mod cgroup;
pub mod changes;
mod confine;
mod doors;
pub mod early;
pub mod handover;
pub(crate) mod idmap;
mod init;
pub mod memory;
pub(crate) mod overlay;

pub mod launcher;
pub mod orphans;
pub mod outside;
pub mod own;
pub mod places;
pub mod private;
pub mod ready;
pub mod reserve;
mod root;
pub mod spawn;
pub mod supervisor;
mod traces;

mod verify;

use serde::{Deserialize, Serialize};

use crate::outcome::Receipt;
use crate::plan::doors::Listens;
use crate::sys::Errno;
use crate::sys::process::Exit;

/// A step of a launch that failed. Nothing of the cell is left when this is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("step `{step}` failed on `{object}`")]
pub struct LaunchError {
    /// The step's name, as `explain` shows it.
    pub step: String,
    /// Path, name or value that it was about.
    pub object: String,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

impl LaunchError {
    pub(crate) fn new(step: &str, object: impl Into<String>, errno: Errno) -> Self {
        Self { step: step.to_owned(), object: object.into(), errno }
    }

    /// Init ended before it had built the cell, and could not say why: it was killed.
    pub(crate) fn unfinished() -> Self {
        Self::new("verify", "init ended before it had built the cell", Errno(libc::ECHILD))
    }

    /// Another cell, or another program, has the place by which this host was to reach the cell.
    pub(crate) fn is_taken(&self) -> bool {
        (self.step.as_str(), self.errno.0) == ("listen-outside", libc::EADDRINUSE)
    }

    /// What to do about it, where the step and the errno tell.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        use libc::{
            EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, EMSGSIZE,
            ENODEV, ENOENT, ENOSPC, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, EPIPE, EPROTO, EROFS, ESTALE,
        };
        let text = match (self.step.as_str(), self.errno.0) {
            ("clone" | "unshare-user", ENOSPC) => {
                "this host allows no more user namespaces: `sysctl user.max_user_namespaces` must be above 0 \
                 (as root: `sysctl -w user.max_user_namespaces=15000`)"
            }
            ("clone" | "unshare-user" | "map-ids", EPERM | EACCES)
            | ("isolate-mounts" | "mount-root", EACCES | EPERM) => {
                "this host keeps unprivileged processes from making namespaces. In a container: its seccomp or AppArmor \
                 profile refuses them. On Ubuntu 23.10 and newer: give toolcell's own path an AppArmor profile with \
                 `userns,`. On Debian with `kernel.unprivileged_userns_clone`: set it to 1. `toolcell doctor` names it"
            }
            ("mount-overlay", EBUSY) => {
                "something is mounted within this directory, and an overlay would show what lies beneath it: grant the directories \
                 beside it one by one, or set `writes = \"direct\"` in `[filesystem]`"
            }
            ("mount-overlay", EACCES | EINVAL | ENODEV | EOPNOTSUPP | EPERM) => {
                "this kernel makes no overlay here for this user: that takes Linux 5.11, for cells of root 5.19, and a file system \
                 that can be the lower layer of one; see `toolcell doctor`, or set `writes = \"direct\"` in `[filesystem]`"
            }
            ("review" | "apply", ESTALE) => {
                "the host changed meanwhile what the call was to change; look at it, and make the call again"
            }
            ("apply", EACCES | EPERM | EROFS) => {
                "whoever owns the directory that was granted may not change this; grant a narrower one"
            }
            ("mount-proc", EPERM) => {
                "the host's /proc is partly masked (as containers do), so the kernel refuses a fresh one; run toolcell \
                 outside the container, or give the container an unmasked /proc"
            }
            ("bind", ENOENT) => "the path vanished since the plan was made; check the grants of the profile",
            ("bind", ELOOP) => {
                "a directory on the way became a symbolic link since the plan was made; somebody is changing the tree \
                 under toolcell. Look at it before you start again"
            }
            ("bind", EINVAL) => {
                "the file system of this path cannot map file owners (idmapped mounts): ext4, xfs and btrfs can, tmpfs since \
                 Linux 6.3, NFS and 9p cannot. Keep the data on one that can, or start toolcell as an ordinary user who \
                 may use the path"
            }
            ("reserve-name", EACCES | EPERM | EROFS) => {
                "the name must not come to exist, by a `deny` of the profile or because the host would run it, and toolcell may \
                 not make a place for it: make its directory writable, grant a narrower one, mark the `deny` as `optional = true`, \
                 or leave the name to the tool: `write = [{ path = \"…\", optional = true }]` in `[filesystem]`"
            }
            ("bind", ENOSYS) => "this needs Linux 5.12 or newer (mount_setattr)",
            ("create-cgroup" | "join-cgroup", EACCES | EPERM | EROFS) => {
                "this user may not make cgroups here; start toolcell in a delegated scope: \
                 `systemd-run --user --scope -p Delegate=yes -- toolcell …`, or accept fewer limits with `--floor no-cgroup`, or with \
                 `floor = \"no-cgroup\"` in the profile"
            }
            ("create-cgroup", EBUSY) => {
                "the cgroup holds processes of its own, so it cannot have children with limits; start toolcell in a scope \
                 of its own: `systemd-run --user --scope -p Delegate=yes -- toolcell …`"
            }
            ("clone" | "exec", EAGAIN) => {
                "no more processes are allowed here: see `ulimit -u` and `limits.tasks`"
            }
            ("seccomp", _) => {
                "the kernel must have CONFIG_SECCOMP_FILTER, and nothing around toolcell, such as a container, may refuse \
                 seccomp(2); see `toolcell doctor`"
            }
            ("landlock", _) => {
                "Landlock must be built in and named in the kernel's `lsm=` list; see `toolcell doctor`"
            }
            ("listen-outside", libc::EADDRINUSE) => {
                "somebody listens there already, or what is there is no socket: one cell at a time can have a place. Leave `at` out of \
                 `listen`, so that each gets a port of its own; or let all calls share one cell by `state = \"session\"`"
            }
            ("listen-outside", EPERM) => {
                "give the path of a socket in a directory that is this user's, and in which no other user can write, such as \
                 `/run/user/UID`"
            }
            ("listen-outside", EACCES) => {
                "this user may not listen there: ports below 1024 are root's, and the directory of a socket must be one to write to"
            }
            ("listen-outside", ENOENT) => "make the directory for the socket first",
            ("listen-outside", EADDRNOTAVAIL | EAFNOSUPPORT) => {
                "this host has no such address on its loopback: write `127.0.0.1`"
            }
            ("secrets", EEXIST | ENOTDIR | EISDIR) => {
                "something of the cell or of another secret has that place already: give the secret a file of its own in \
                 `into` of `[secrets.NAME]`"
            }
            ("secrets", ENOSPC) => {
                "the tool's scratch directory has no room for the file of the secret: give its profile a larger `scratch`"
            }
            // Init and the supervisor are one program, and their messages nobody else's.
            ("secrets", EPROTO | EMSGSIZE | EPIPE) => return None,
            ("secrets", _) => {
                "the file of a secret must be one that can be made in the tool's scratch directory; see `into` in \
                 `[secrets.NAME]`"
            }
            ("verify", EBUSY) => {
                "a listener of somebody else's filter stands above toolcell, as in some containers, and then no socket can be handed to a \
                 cell: start toolcell outside of it, or take `allow-unix` out of `[network]`"
            }
            ("open-doors", EPIPE | libc::ECONNRESET) => {
                "the process that keeps the doors was ended, and no other takes its place: start toolcell again"
            }
            ("open-doors", EPERM | EACCES) => {
                "the cell's own network namespace takes no address or port from its init: in a container, its seccomp or AppArmor \
                 profile refuses that; see `toolcell doctor`"
            }
            ("open-doors", EADDRNOTAVAIL | EAFNOSUPPORT | EOPNOTSUPP) => {
                "this kernel lets no address of that family be put on a loopback; allow the host by its name"
            }
            ("exec", ENOENT) => {
                "the program, or the interpreter or loader it names, is not visible in the cell; `toolcell profile explain \
                 PROFILE -- COMMAND` shows what is"
            }
            ("exec", EACCES) => {
                "the program is not executable where it lies; `execute = [\"…\"]` in `[filesystem]` grants that, \
                 `read` and `write` do not"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What init tells over its channel, one message each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A step failed; the cell is gone. Before `Ready`: nothing of the payload ran. After it: exec failed.
    Failed(LaunchError),
    /// Overlays are mounted. Carries a descriptor of what is written to them.
    Changes(Kept),
    /// What may still be mounted in this cell goes in here. Carries a descriptor of its mount namespace.
    Namespace,
    /// Carries one of its private root, mounted nowhere and writable.
    Places,
    /// The filter is on. Carries the descriptor by which it tells of what it refuses; from here on somebody must answer.
    Listener,
    /// Carries a socket that listens in the cell's network namespace. These come before any other report.
    Door(Listens),
    /// Every layer was verified; exec is next. Carries a descriptor of the scratch directory if there is one.
    Ready {
        /// What was seen.
        receipt: Receipt,
        /// How often Landlock has refused something to init, which looked whether it does.
        denials: u32,
    },
    /// The payload ended.
    Exited {
        /// How.
        exit: Exit,
        /// Init is the only process left, and is about to end: the counters of the cell are final.
        alone: bool,
    },
}

/// What tells whether the host is still what the cell's overlays were made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Device and inode of each directory of the host, in the order of the plan.
    pub beneath: Vec<(u64, u64)>,
    /// When they were mounted: seconds and nanoseconds of the clock that dates files.
    pub since: (i64, i64),
}

/// The longest message that init sends.
pub const REPORT_LIMIT: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_socket_can_be_handed_in_it_is_said_why() {
        let error = LaunchError::new("verify", "the listener of the filter", Errno(libc::EBUSY));
        assert!(error.hint().unwrap().contains("take `allow-unix` out of `[network]`"));
    }

    #[test]
    fn what_keeps_a_secret_from_its_file_has_a_way_on() {
        let hint = |errno| LaunchError::new("secrets", "/tmp/a", Errno(errno)).hint().unwrap_or_default();
        assert!(hint(libc::EEXIST).contains("a file of its own in `into` of `[secrets.NAME]`"));
        assert_eq!(hint(libc::ENOTDIR), hint(libc::EEXIST));
        assert!(hint(libc::ENOSPC).contains("a larger `scratch`"));
        assert!(hint(libc::EROFS).contains("in the tool's scratch directory"));
    }
}
