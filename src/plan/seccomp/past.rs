//! Calls that act on what Landlock does not guard: refused where it is the only wall around the host's files and
//! processes.
//!
//! Neighbours: `plan::build` denies them in a plan without a private root. Never: applies where there is one.

/// By name. A filter cannot look at paths, and a descriptor says nothing of what was granted: a file that may only be read
/// can be opened, and then changed in its mode, owner, times and attributes by `fchmod` and the like. So all of them are
/// refused, in the scratch directory too.
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
    // The host's network and sockets: there is no namespace that has others.
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    // Other processes of the same user.
    "sched_setaffinity",
];
