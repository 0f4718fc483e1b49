//! The built-in answer to every system call, in groups with the reason for each: the list is its own documentation.
//!
//! Neighbours: `table` has the numbers, `rules` the arguments, `mod` lays a profile's `[syscalls]` on top.
//! Never: leaves a call of the table out, or names one twice; a test holds both.

use super::rules::{self, Action, Entry, Errno};

/// Calls that have one answer for one reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Why, as a sentence that reads on after "allowed:" or "refused:".
    pub(super) why: &'static str,
    /// The answer.
    pub(super) entry: Entry,
    /// By name.
    pub(super) names: &'static [&'static str],
}

const ALLOW: Entry = Entry::Always(Action::Allow);
const PERM: Entry = Entry::Always(Action::Refuse(Errno::Perm));
const NOSYS: Entry = Entry::Always(Action::Refuse(Errno::Nosys));

/// What a cell with doors to sockets with a path has instead, whatever its profile says: it holds one end of a pair, and a process
/// outside the other.
pub(super) const OF_SOCKETS: &[Group] = &[
    Group {
        why: "with a door to a socket, one that lingers can hold up who keeps the door, and a pidfd leads out",
        entry: Entry::Arguments(&rules::SETSOCKOPT),
        names: &["setsockopt"],
    },
    Group {
        why: "with a door to a socket, a pidfd of who has its other end leads out",
        entry: Entry::Arguments(&rules::GETSOCKOPT),
        names: &["getsockopt"],
    },
];

/// Every call of the table, each in one group.
#[rustfmt::skip]
pub(super) const GROUPS: &[Group] = &[
    // Allowed.
    Group { why: "reading and writing what is open", entry: ALLOW, names: &[
        "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek",
        "close", "close_range", "dup", "dup2", "dup3", "flock", "fsync", "fdatasync", "sync_file_range", "syncfs",
        "ftruncate", "fallocate", "fadvise64", "readahead", "sendfile", "copy_file_range", "splice", "tee", "pipe", "pipe2",
    ] },
    Group { why: "files by name: mounts and Landlock decide which exist", entry: ALLOW, names: &[
        "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
        "statfs", "fstatfs", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "truncate",
        "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat",
        "chown", "fchown", "lchown", "fchownat", "umask", "utime", "utimes", "futimesat", "utimensat", "file_getattr",
        "setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr",
        "removexattr", "lremovexattr", "fremovexattr", "setxattrat", "getxattrat", "listxattrat", "removexattrat",
        "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    ] },
    Group { why: "waiting for events", entry: ALLOW, names: &[
        "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
        "eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create", "timerfd_settime", "timerfd_gettime",
    ] },
    Group { why: "one's own memory, executable memory included: node, .NET and Java compile while they run", entry: ALLOW, names: &[
        "mmap", "mprotect", "munmap", "brk", "mremap", "msync", "mincore", "madvise", "mseal", "memfd_create",
        "mlock", "mlock2", "munlock", "mlockall", "munlockall", "pkey_mprotect", "pkey_alloc", "pkey_free", "map_shadow_stack",
    ] },
    Group { why: "where one's own memory lies on several nodes: .NET's collector asks and sets it", entry: ALLOW, names: &[
        "get_mempolicy", "set_mempolicy", "mbind",
    ] },
    Group { why: "starting, waiting for and ending processes and threads", entry: ALLOW, names: &[
        "fork", "vfork", "execve", "exit", "exit_group", "wait4", "waitid", "pidfd_open", "set_tid_address",
        "set_robust_list", "get_robust_list", "rseq", "rseq_slice_yield", "membarrier", "arch_prctl", "restart_syscall",
        "futex", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue",
    ] },
    Group { why: "signals: the pid namespace, or Landlock's signal scope, holds them inside the cell", entry: ALLOW, names: &[
        "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal",
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend", "sigaltstack", "pause",
    ] },
    Group { why: "who and what one is", entry: ALLOW, names: &[
        "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
        "getpgid", "getpgrp", "getsid", "setpgid", "setsid", "capget", "uname", "sysinfo", "getcpu", "getrusage", "times",
        "getrlimit", "setrlimit", "getpriority", "ioprio_get",
    ] },
    Group { why: "the kernel lets a process without capabilities become only what it is, and servers that drop privileges stop when this fails", entry: ALLOW, names: &[
        "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "capset",
    ] },
    Group { why: "reading the clocks and one's own timers", entry: ALLOW, names: &[
        "time", "gettimeofday", "clock_gettime", "clock_getres", "nanosleep", "clock_nanosleep", "alarm", "getitimer", "setitimer",
        "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete",
    ] },
    Group { why: "scheduling that only asks, gives way, or chooses among the cell's processors", entry: ALLOW, names: &[
        "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr",
        "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval",
    ] },
    Group { why: "sockets that `socket` let be made: the network namespace, Landlock and the doors decide where they reach", entry: ALLOW, names: &[
        "connect", "accept", "accept4", "bind", "listen", "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt",
        "recvfrom", "recvmsg", "recvmmsg",
    ] },
    Group { why: "randomness", entry: ALLOW, names: &["getrandom"] },
    Group { why: "a program that narrows itself further", entry: ALLOW, names: &[
        "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
    ] },
    Group { why: "the kernel's own trampolines for probes that an administrator set; refusing them breaks the probed program", entry: ALLOW, names: &[
        "uretprobe", "uprobe",
    ] },

    // By argument.
    Group { why: "a lease makes whoever opens the file, on the host too, wait for its holder (45 s, `lease-break-time`)", entry: Entry::Arguments(&rules::FCNTL), names: &["fcntl"] },
    Group { why: "no namespaces inside the cell: they open kernel code that is otherwise for administrators", entry: Entry::Arguments(&rules::CLONE), names: &["clone"] },
    Group { why: "no typing into a terminal in the user's name", entry: Entry::Arguments(&rules::IOCTL), names: &["ioctl"] },
    Group { why: "neither a read-only mount nor Landlock before ABI 9 stops a connection to a path socket (`allow-unix` in `[network]` makes a door to one, where the network is the cell's own), Landlock's TCP rules stop none over MPTCP, and the other families are kernel surface", entry: Entry::Arguments(&rules::SOCKET), names: &["socket"] },
    Group { why: "one end of a datagram pair can send to path sockets", entry: Entry::Arguments(&rules::SOCKETPAIR), names: &["socketpair"] },
    Group { why: "Fast Open connects past Landlock's rule on `connect`", entry: Entry::Arguments(&rules::SEND_FLAGS_FOURTH), names: &["sendto", "sendmmsg"] },
    Group { why: "Fast Open connects past Landlock's rule on `connect`", entry: Entry::Arguments(&rules::SEND_FLAGS_THIRD), names: &["sendmsg"] },
    Group { why: "some options rewrite the process for the kernel, open it to a tracer, or install a filter", entry: Entry::Arguments(&rules::PRCTL), names: &["prctl"] },
    Group { why: "other personalities switch off protections of the next program", entry: Entry::Arguments(&rules::PERSONALITY), names: &["personality"] },
    Group { why: "without a pid namespace other processes of the same user are the host's", entry: Entry::Arguments(&rules::PRLIMIT), names: &["prlimit64"] },
    Group { why: "without a pid namespace other processes of the same user are the host's", entry: Entry::Arguments(&rules::SETPRIORITY), names: &["setpriority"] },
    Group { why: "a set-user-ID file left in a writable directory is a way up for whoever runs it outside", entry: Entry::Arguments(&rules::MODE_SECOND), names: &["chmod", "fchmod", "creat"] },
    Group { why: "a set-user-ID file left in a writable directory is a way up for whoever runs it outside", entry: Entry::Arguments(&rules::MODE_THIRD), names: &["fchmodat", "fchmodat2"] },
    Group { why: "a set-user-ID file left in a writable directory is a way up for whoever runs it outside", entry: Entry::Arguments(&rules::OPEN), names: &["open"] },
    Group { why: "a set-user-ID file left in a writable directory is a way up for whoever runs it outside", entry: Entry::Arguments(&rules::OPENAT), names: &["openat"] },
    Group { why: "no device nodes, and no set-user-ID file", entry: Entry::Arguments(&rules::MKNOD), names: &["mknod"] },
    Group { why: "no device nodes, and no set-user-ID file", entry: Entry::Arguments(&rules::MKNODAT), names: &["mknodat"] },
    Group { why: "a program in a memfd is seen by no path rule; `/proc/self/fd/N` remains, and so does code mapped executable, so this is a hurdle and not a boundary", entry: Entry::Arguments(&rules::EXECVEAT), names: &["execveat"] },

    // Not there, so that programs use the older call.
    Group { why: "its flags lie behind a pointer that no filter can look at; libc falls back to `clone`", entry: NOSYS, names: &["clone3"] },
    Group { why: "its mode lies behind a pointer, and could set the set-user-ID bit; programs fall back to `openat`", entry: NOSYS, names: &["openat2"] },
    Group { why: "they name mounts and namespaces, sources on the host included; programs fall back to /proc", entry: NOSYS, names: &["statmount", "listmount", "listns"] },
    Group { why: "the kernel has no code for them", entry: NOSYS, names: &[
        "uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "getpmsg", "putpmsg", "afs_syscall",
        "tuxcall", "security", "set_thread_area", "get_thread_area", "lookup_dcookie", "epoll_ctl_old", "epoll_wait_old", "vserver",
    ] },

    // Refused.
    Group { why: "mounts are made before the payload runs, and never after", entry: PERM, names: &[
        "mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "move_mount", "mount_setattr",
        "fsopen", "fsconfig", "fsmount", "fspick",
    ] },
    Group { why: "namespaces are made before the payload runs, and never after", entry: PERM, names: &["unshare", "setns"] },
    Group { why: "reads, writes or compares other processes", entry: PERM, names: &[
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
        "move_pages", "migrate_pages",
    ] },
    Group { why: "a large and often broken part of the kernel; libuv and others do without", entry: PERM, names: &[
        "io_uring_setup", "io_uring_enter", "io_uring_register",
    ] },
    Group { why: "programs that run in the kernel, and tracing of it", entry: PERM, names: &["bpf", "perf_event_open"] },
    Group { why: "stops the kernel in the middle of an access, which makes other bugs usable", entry: PERM, names: &["userfaultfd"] },
    Group { why: "a filter of one's own only adds kernel surface, and one with a listener takes the only place that a process tree has for it", entry: PERM, names: &["seccomp"] },
    Group { why: "keys of the user, and a part of the kernel that has no namespace", entry: PERM, names: &["add_key", "request_key", "keyctl"] },
    Group { why: "opens files by handle, past every path rule", entry: PERM, names: &["name_to_handle_at", "open_by_handle_at"] },
    Group { why: "watches or decides on whole file systems", entry: PERM, names: &["fanotify_init", "fanotify_mark"] },
    Group { why: "the machine's modules, kernel image, power and swap", entry: PERM, names: &[
        "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
    ] },
    Group { why: "the machine's clock", entry: PERM, names: &["settimeofday", "clock_settime", "adjtimex", "clock_adjtime"] },
    Group { why: "the machine's names, log, terminals, quota and accounting", entry: PERM, names: &[
        "sethostname", "setdomainname", "syslog", "vhangup", "acct", "quotactl", "quotactl_fd",
    ] },
    Group { why: "ports and segments of the processor", entry: PERM, names: &["iopl", "ioperm", "modify_ldt"] },
    Group { why: "shared by number and without any path: on a host without an ipc namespace for the cell they are the host's; shared memory by `mmap` and `memfd_create` is there", entry: PERM, names: &[
        "shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop", "msgget", "msgsnd", "msgrcv", "msgctl",
        "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    ] },
    Group { why: "scheduling classes change the share of other processes, or whom they run before", entry: PERM, names: &[
        "sched_setparam", "sched_setscheduler", "sched_setattr", "ioprio_set",
    ] },
    Group { why: "flushes every file system of the machine; `fsync` and `syncfs` are there", entry: PERM, names: &["sync"] },
    Group { why: "groups and file system ids, which a process without capabilities cannot change", entry: PERM, names: &["setgroups", "setfsuid", "setfsgid"] },
    Group { why: "memory that cannot be reclaimed or looked at", entry: PERM, names: &["memfd_secret"] },
    Group { why: "tells what is in the machine's page cache, which other cells share", entry: PERM, names: &["cachestat"] },
    Group { why: "the kernel's own asynchronous files, which only databases use; glibc and libuv use threads", entry: PERM, names: &[
        "io_setup", "io_destroy", "io_getevents", "io_pgetevents", "io_submit", "io_cancel",
    ] },
    Group { why: "rarely used, and a building block of past kernel exploits", entry: PERM, names: &[
        "vmsplice", "remap_file_pages", "set_mempolicy_home_node", "file_setattr",
    ] },
    Group { why: "old questions about file systems and security modules that no program in a cell needs answered", entry: PERM, names: &[
        "ustat", "sysfs", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules",
    ] },
];
