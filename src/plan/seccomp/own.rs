//! The filters of toolcell's own processes. A supervisor's: what it needs while it serves, and nothing else. A launcher's, which
//! stands above those of all its cells: everything but what neither making a cell nor any cell can need.
//!
//! Neighbours: `launch::own` installs them; `mod` refuses a profile that allows what a launcher's filter does not. Never:
//! depends on a profile or a plan.

use super::rules::{self, Action, Entry, Errno};
use super::table::{TABLE, in_order, listed};
use super::{Group, Instruction, ranges, tree};

const ALLOW: Entry = Entry::Always(Action::Allow);
const PERM: Entry = Entry::Always(Action::Refuse(Errno::Perm));
const NOSYS: Entry = Entry::Always(Action::Refuse(Errno::Nosys));

/// Everything that a supervisor may call. It starts no program, opens no socket, makes no process and no mount, and signals
/// by descriptor only what the launcher gave it descriptors of.
#[rustfmt::skip]
pub(super) const SUPERVISOR: &[Group] = &[
    Group { why: "what is open: the client, cells, the launcher, the log", entry: ALLOW, names: &[
        "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "dup", "fcntl", "flock", "ftruncate", "fdatasync",
        "recvfrom", "recvmsg", "sendto", "sendmsg", "shutdown", "getsockopt", "getsockname", "getpeername",
    ] },
    Group { why: "a channel for the doors of a cell", entry: Entry::Arguments(&rules::SOCKETPAIR), names: &["socketpair"] },
    Group { why: "no descriptors at an end that a cell has the other of", entry: Entry::Arguments(&rules::NO_RIGHTS), names: &["setsockopt"] },
    Group { why: "pipes for a cell, and the file that a plan goes over in", entry: ALLOW, names: &["pipe2", "memfd_create"] },
    Group { why: "what grants are on the host now: Landlock lets nothing be opened but the counters of cells", entry: ALLOW, names: &[
        "open", "openat", "openat2", "stat", "fstat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "access", "faccessat", "faccessat2",
        "getcwd", "getdents64", "statfs", "fstatfs",
    ] },
    Group { why: "being told that a server's files have changed", entry: ALLOW, names: &["inotify_init1", "inotify_add_watch"] },
    Group { why: "what a cell left, where Landlock grants its removal", entry: ALLOW, names: &["rmdir", "unlink", "unlinkat"] },
    Group { why: "no set-user-ID file", entry: Entry::Arguments(&rules::MODE_SECOND), names: &["chmod", "fchmod"] },
    Group { why: "no set-user-ID file", entry: Entry::Arguments(&rules::MODE_THIRD), names: &["fchmodat", "fchmodat2"] },
    Group { why: "waiting", entry: ALLOW, names: &[
        "poll", "ppoll", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "futex", "sched_yield", "nanosleep", "clock_nanosleep", "restart_syscall",
        "clock_gettime", "gettimeofday", "getrandom",
    ] },
    Group { why: "memory that is not executable", entry: Entry::Arguments(&rules::NOT_EXECUTABLE), names: &["mmap", "mprotect"] },
    Group { why: "memory", entry: ALLOW, names: &["munmap", "mremap", "madvise", "brk"] },
    Group { why: "a thread that reads what cannot be polled", entry: Entry::Arguments(&rules::THREAD), names: &["clone"] },
    Group { why: "its flags lie behind a pointer; libc falls back to `clone`", entry: NOSYS, names: &["clone3"] },
    Group { why: "a thread's beginning and end", entry: ALLOW, names: &[
        "set_robust_list", "rseq", "sched_getaffinity", "sigaltstack", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "exit", "exit_group",
    ] },
    Group { why: "the thread's name", entry: Entry::Arguments(&rules::NAME), names: &["prctl"] },
    Group { why: "who one is", entry: ALLOW, names: &["getpid", "gettid", "getuid", "geteuid", "getgid", "getegid"] },
    Group { why: "one's own limits", entry: Entry::Arguments(&rules::PRLIMIT), names: &["prlimit64"] },
    Group { why: "no typing into a terminal in the user's name", entry: Entry::Arguments(&rules::IOCTL), names: &["ioctl"] },
    Group { why: "cells, by the descriptors that came with them, and the end of the launcher", entry: ALLOW, names: &[
        "pidfd_send_signal", "wait4", "waitid",
    ] },
];

/// Everything that the process which keeps doors may call. It starts no program, signals nobody, and changes no file.
#[rustfmt::skip]
pub(super) const PORTER: &[Group] = &[
    Group { why: "connections, of cells and to where they lead", entry: ALLOW, names: &[
        "connect", "accept", "accept4", "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt",
        "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg",
        "read", "write", "readv", "writev", "close", "dup", "fcntl", "lseek", "pread64",
    ] },
    Group { why: "bytes that the kernel moves from one connection to the other", entry: ALLOW, names: &["pipe2", "splice"] },
    Group { why: "TCP, and UDP to resolve names; libc does without what is refused", entry: Entry::Arguments(&rules::SOCKET), names: &["socket"] },
    Group { why: "what names are resolved by: Landlock lets nothing else be opened", entry: ALLOW, names: &[
        "open", "openat", "stat", "fstat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "access", "faccessat", "faccessat2",
        "getcwd", "getdents64", "uname",
    ] },
    Group { why: "waiting", entry: ALLOW, names: &[
        "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "futex", "sched_yield", "nanosleep",
        "clock_nanosleep", "restart_syscall", "clock_gettime", "gettimeofday", "getrandom",
    ] },
    Group { why: "memory that is not executable: no library is loaded", entry: Entry::Arguments(&rules::NOT_EXECUTABLE), names: &["mmap", "mprotect"] },
    Group { why: "memory", entry: ALLOW, names: &["munmap", "mremap", "madvise", "brk"] },
    Group { why: "threads that resolve names", entry: Entry::Arguments(&rules::THREAD), names: &["clone"] },
    Group { why: "its flags lie behind a pointer; libc falls back to `clone`", entry: NOSYS, names: &["clone3"] },
    Group { why: "a thread's beginning and end", entry: ALLOW, names: &[
        "set_robust_list", "rseq", "sched_getaffinity", "sigaltstack", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "exit", "exit_group",
    ] },
    Group { why: "the thread's name", entry: Entry::Arguments(&rules::NAME), names: &["prctl"] },
    Group { why: "who one is", entry: ALLOW, names: &["getpid", "gettid", "getuid", "geteuid", "getgid", "getegid"] },
    Group { why: "one's own limits", entry: Entry::Arguments(&rules::PRLIMIT), names: &["prlimit64"] },
    Group { why: "no typing into a terminal in the user's name", entry: Entry::Arguments(&rules::IOCTL), names: &["ioctl"] },
];

/// For the process that keeps doors. `paths`: some of them lead to sockets with a path.
#[must_use]
pub fn porter(paths: bool) -> Vec<Instruction> {
    static GROUP_OF: [Option<&Group>; TABLE.len()] = in_order(PORTER);
    tree::program(&ranges(NOSYS, &GROUP_OF, |_, group| match group {
        Some(Group { names: ["socket"], .. }) if paths => Entry::Arguments(&rules::SOCKET_OR_PATH),
        group => group.map_or(PERM, |group| group.entry),
    }))
}

/// For a supervisor that has started.
#[must_use]
pub fn supervisor() -> Vec<Instruction> {
    static GROUP_OF: [Option<&Group>; TABLE.len()] = in_order(SUPERVISOR);
    tree::program(&ranges(NOSYS, &GROUP_OF, |_, group| group.map_or(PERM, |group| group.entry)))
}

/// What no launcher calls and no cell may, whatever its profile says. `keyctl` is not among them, because init leaves the
/// user's keyring by it, nor are calls whose use inside a cell is the cell's own affair.
#[rustfmt::skip]
pub(super) const NEVER: &[&str] = &[
    // The machine's.
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",
    "acct", "quotactl", "quotactl_fd", "vhangup", "iopl", "ioperm",
    // Programs of one's own in the kernel, and its insides.
    "bpf", "perf_event_open", "userfaultfd",
    // Past every path rule, and past every filter.
    "open_by_handle_at",
    "io_uring_setup", "io_uring_enter", "io_uring_register",
];

/// For a launcher, before its first cell. What it refuses it leaves to a cell's own filter to refuse, which has an error
/// and a record for it.
#[must_use]
pub fn launcher() -> Vec<Instruction> {
    static REFUSED: [bool; TABLE.len()] = listed(NEVER);
    tree::program(&ranges(ALLOW, &REFUSED, |_, refused| match refused {
        true => Entry::Always(Action::Yield),
        false => ALLOW,
    }))
}
