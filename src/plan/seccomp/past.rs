//! Calls that act on what Landlock does not guard, on this host or on any: refused where they would be free.
//!
//! Neighbours: `plan::build` denies them in its plans, `why` and `watch` say so. Never: looks at what a profile says of calls.

use std::borrow::Cow;

use crate::policy::Syscalls;

/// Does this ABI of Landlock hold TCP ports? Linux 6.7 has the first one.
#[must_use]
pub const fn holds_ports(landlock_abi: u32) -> bool {
    landlock_abi >= 4
}

/// Calls that are refused because this ABI of Landlock would let a cell listen at every port. None is to listen at one there.
#[must_use]
pub const fn unheld(landlock_abi: u32) -> &'static [&'static str] {
    if holds_ports(landlock_abi) { &[] } else { &["listen"] }
}

/// What a policy says of calls, and that these are refused.
#[must_use]
pub fn denying<'a>(syscalls: &'a Syscalls, names: &[&str]) -> Cow<'a, Syscalls> {
    let mut denying = Cow::Borrowed(syscalls);
    if !names.is_empty() {
        denying.to_mut().deny.extend(names.iter().map(|name| (*name).to_owned()));
    }
    denying
}

/// Calls that are refused where Landlock is the only wall around the host's files and processes, by name. A filter cannot
/// look at paths, and a descriptor says nothing of what was granted: a file that may only be read can be opened, and then
/// changed in its mode, owner, times and attributes by `fchmod` and the like. So all of them are refused, in the scratch
/// directory too.
pub const PAST_LANDLOCK: &[&str] = &[
    // Mode, owner, times, attributes.
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "file_setattr",
    // What happens in directories that were not granted.
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    // Other processes of the same user.
    "sched_setaffinity",
];

/// The same for the host's network and sockets, unless that network is the cell's: there is no namespace that has others.
pub const PAST_LANDLOCK_OUTSIDE: &[&str] = &["socket", "connect", "bind", "listen", "accept", "accept4"];
