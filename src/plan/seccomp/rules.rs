//! What a call is answered with, and the rules that look at a call's arguments.
//!
//! Neighbours: `groups` gives each call an [`Entry`], `tree` turns it into instructions.
//! Never: looks behind a pointer. Another thread can change that memory after the check, so a call whose danger lies
//! there is refused as not implemented instead, and libc uses the older one.

/// An error that a refused call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    /// Refused: the answer for a call that is known and not allowed.
    Perm,
    /// Not there: for calls that programs try first and have an older way instead of.
    Nosys,
    /// What the kernel says of an option that it does not know.
    Noprotoopt,
    /// What the kernel says of a protocol that it was built without.
    Protonosupport,
    /// What the kernel says of a socket type that a family does not have.
    Socktnosupport,
    /// What the kernel says where TCP Fast Open is switched off.
    Opnotsupp,
    /// What the kernel says of a family that it was built without.
    Afnosupport,
}

impl Errno {
    /// The kernel's number (`asm-generic/errno.h`).
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Nosys => 38,
            Self::Noprotoopt => 92,
            Self::Protonosupport => 93,
            Self::Socktnosupport => 94,
            Self::Opnotsupp => 95,
            Self::Afnosupport => 97,
        }
    }

    /// The kernel's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Perm => "EPERM",
            Self::Nosys => "ENOSYS",
            Self::Noprotoopt => "ENOPROTOOPT",
            Self::Protonosupport => "EPROTONOSUPPORT",
            Self::Socktnosupport => "ESOCKTNOSUPPORT",
            Self::Opnotsupp => "EOPNOTSUPP",
            Self::Afnosupport => "EAFNOSUPPORT",
        }
    }
}

/// What the kernel does with a call once nothing more is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It runs.
    Allow,
    /// It returns this error and does nothing.
    Refuse(Errno),
    /// It returns `ENOSYS`, unless a filter below this one has an answer of its own: every answer but "it runs" goes before.
    Yield,
    /// The whole process dies: nothing honest makes this call.
    Kill,
}

/// What the filter does with one system call number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The same for every call.
    Always(Action),
    /// It depends on the arguments.
    Arguments(&'static Rule),
}

/// Half of a 64-bit argument: classic BPF loads 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The low half: all that the kernel reads of an `int`.
    Low(u8),
    /// The high half, which matters for pointers only.
    High(u8),
}

/// Holds if the masked word is one of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    /// What is read.
    pub(super) word: Word,
    /// The bits that count.
    pub(super) mask: u32,
    /// The values that pass.
    pub(super) values: &'static [u32],
}

/// If all tests hold, this is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clause {
    /// All must hold.
    pub(super) when: &'static [Test],
    /// The answer.
    pub(super) then: Action,
}

/// Clauses in order; the first that holds answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it lets through, for people.
    pub(super) text: &'static str,
    /// In order.
    pub(super) clauses: &'static [Clause],
    /// If none holds.
    pub(super) otherwise: Action,
}

const ALL: u32 = u32::MAX;
const PERM: Action = Action::Refuse(Errno::Perm);

/// The low half of an argument, whole, is one of the values.
const fn is(argument: u8, values: &'static [u32]) -> Test {
    Test { word: Word::Low(argument), mask: ALL, values }
}

/// The masked low half of an argument is one of the values.
const fn bits(argument: u8, mask: u32, values: &'static [u32]) -> Test {
    Test { word: Word::Low(argument), mask, values }
}

/// If all tests hold, the call runs.
const fn allow(when: &'static [Test]) -> Clause {
    Clause { when, then: Action::Allow }
}

/// If all tests hold, the call returns the error.
const fn refuse(when: &'static [Test], errno: Errno) -> Clause {
    Clause { when, then: Action::Refuse(errno) }
}

/// Every `CLONE_NEW*` flag of clone(2). `CLONE_NEWTIME` is not one: its bit is part of the exit signal there.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// clone(2): the kernel takes the low half of the flags only.
pub(super) const CLONE: Rule = Rule {
    text: "processes and threads, without a CLONE_NEW* flag",
    clauses: &[allow(&[bits(0, NEW_NAMESPACES, &[0])])],
    otherwise: PERM,
};

/// clone(2) of a thread.
pub(super) const THREAD: Rule = Rule {
    text: "threads, without a CLONE_NEW* flag",
    clauses: &[allow(&[bits(0, CLONE_THREAD | NEW_NAMESPACES, &[CLONE_THREAD])])],
    otherwise: PERM,
};
const CLONE_THREAD: u32 = 0x1_0000;

/// mmap(2) and mprotect(2) without `PROT_EXEC`.
pub(super) const NOT_EXECUTABLE: Rule =
    Rule { text: "memory that is not executable", clauses: &[allow(&[bits(2, 4, &[0])])], otherwise: PERM };

/// prctl(2) `PR_SET_NAME`.
pub(super) const NAME: Rule =
    Rule { text: "naming the thread", clauses: &[allow(&[is(0, &[15])])], otherwise: PERM };

/// ioctl(2): the kernel takes the request as 32 bits, so a value with high bits set must not slip by.
pub(super) const IOCTL: Rule = Rule {
    text: "every request but TIOCSTI and TIOCLINUX, which type into the terminal",
    clauses: &[refuse(&[is(1, &[0x5412, 0x541c])], Errno::Perm)],
    otherwise: Action::Allow,
};

/// fcntl(2): the command is an `int`.
pub(super) const FCNTL: Rule = Rule {
    text: "every command but F_SETLEASE and F_SETDELEG",
    clauses: &[refuse(&[is(1, &[1024, 1040])], Errno::Perm)],
    otherwise: Action::Allow,
};

/// `AF_INET` and `AF_INET6`.
const INTERNET: Test = is(0, &[2, 10]);
/// The type without the flags `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const TYPE: u32 = 0xf;

/// socket(2). The errors are those of a kernel without the feature, for which programs are prepared.
pub(super) const SOCKET: Rule = Rule {
    text: "AF_INET and AF_INET6 with TCP or UDP; no other family (AF_UNIX, AF_NETLINK, …), type or protocol (MPTCP, SCTP, ICMP, …)",
    clauses: &[
        allow(&[INTERNET, bits(1, TYPE, &[1]), is(2, &[0, 6])]),
        allow(&[INTERNET, bits(1, TYPE, &[2]), is(2, &[0, 17])]),
        refuse(&[INTERNET, bits(1, TYPE, &[1, 2])], Errno::Protonosupport),
        refuse(&[INTERNET], Errno::Socktnosupport),
    ],
    otherwise: Action::Refuse(Errno::Afnosupport),
};

/// The same for the process that keeps doors, where some lead to sockets with a path.
pub(super) const SOCKET_OR_PATH: Rule = Rule {
    text: "AF_INET and AF_INET6 with TCP or UDP, and AF_UNIX with SOCK_STREAM",
    clauses: &[
        allow(&[INTERNET, bits(1, TYPE, &[1]), is(2, &[0, 6])]),
        allow(&[INTERNET, bits(1, TYPE, &[2]), is(2, &[0, 17])]),
        allow(&[is(0, &[1]), bits(1, TYPE, &[1])]),
    ],
    otherwise: Action::Refuse(Errno::Afnosupport),
};

/// socketpair(2): a datagram end can send to any path socket without `connect` and `socket`.
pub(super) const SOCKETPAIR: Rule = Rule {
    text: "AF_UNIX with SOCK_STREAM or SOCK_SEQPACKET, which stay connected to each other",
    clauses: &[allow(&[is(0, &[1]), bits(1, TYPE, &[1, 5])]), refuse(&[is(0, &[1])], Errno::Socktnosupport)],
    otherwise: Action::Refuse(Errno::Afnosupport),
};

/// `SOL_SOCKET`.
const OF_SOCKETS: Test = is(1, &[1]);

/// setsockopt(2) of a cell with doors to sockets with a path. A socket that lingers, passed along through one and given up, keeps
/// the process waiting that lets go of it last; `SO_PASSPIDFD` asks for descriptors of processes outside.
pub(super) const SETSOCKOPT: Rule = Rule {
    text: "every option but SO_LINGER and SO_PASSPIDFD",
    clauses: &[refuse(&[OF_SOCKETS, is(2, &[13, 76])], Errno::Noprotoopt)],
    otherwise: Action::Allow,
};

/// getsockopt(2) of such a cell: `SO_PEERPIDFD` of what is connected to a process outside is a descriptor of that.
pub(super) const GETSOCKOPT: Rule = Rule {
    text: "every option but SO_PEERPIDFD",
    clauses: &[refuse(&[OF_SOCKETS, is(2, &[77])], Errno::Noprotoopt)],
    otherwise: Action::Allow,
};

/// setsockopt(2) of a supervisor.
pub(super) const NO_RIGHTS: Rule = Rule {
    text: "SO_PASSRIGHTS, by which descriptors are refused",
    clauses: &[allow(&[OF_SOCKETS, is(2, &[83])])],
    otherwise: PERM,
};

/// `MSG_FASTOPEN` connects while sending, where Landlock's rule on `connect` does not look. The error is the one of a host
/// with Fast Open switched off, after which programs connect first.
const FASTOPEN: u32 = 0x2000_0000;

/// sendto(2) and sendmmsg(2).
pub(super) const SEND_FLAGS_FOURTH: Rule = Rule {
    text: "every message without MSG_FASTOPEN",
    clauses: &[allow(&[bits(3, FASTOPEN, &[0])])],
    otherwise: Action::Refuse(Errno::Opnotsupp),
};

/// sendmsg(2).
pub(super) const SEND_FLAGS_THIRD: Rule = Rule {
    text: "every message without MSG_FASTOPEN",
    clauses: &[allow(&[bits(2, FASTOPEN, &[0])])],
    otherwise: Action::Refuse(Errno::Opnotsupp),
};

/// prctl(2).
pub(super) const PRCTL: Rule = Rule {
    text: "options that name, read, or narrow the process itself",
    clauses: &[allow(&[is(
        0,
        &[
            1,           // PR_SET_PDEATHSIG
            2,           // PR_GET_PDEATHSIG
            3,           // PR_GET_DUMPABLE
            4,           // PR_SET_DUMPABLE
            7,           // PR_GET_KEEPCAPS
            15,          // PR_SET_NAME
            16,          // PR_GET_NAME
            21,          // PR_GET_SECCOMP
            23,          // PR_CAPBSET_READ
            27,          // PR_GET_SECUREBITS
            29,          // PR_SET_TIMERSLACK
            30,          // PR_GET_TIMERSLACK
            36,          // PR_SET_CHILD_SUBREAPER
            37,          // PR_GET_CHILD_SUBREAPER
            38,          // PR_SET_NO_NEW_PRIVS
            39,          // PR_GET_NO_NEW_PRIVS
            41,          // PR_SET_THP_DISABLE
            42,          // PR_GET_THP_DISABLE
            52,          // PR_GET_SPECULATION_CTRL
            65,          // PR_SET_MDWE
            66,          // PR_GET_MDWE
            0x4155_5856, // PR_GET_AUXV
            0x5356_4d41, // PR_SET_VMA
        ],
    )])],
    otherwise: PERM,
};

/// personality(2): `READ_IMPLIES_EXEC` and `ADDR_NO_RANDOMIZE` weaken the programs that are started next.
pub(super) const PERSONALITY: Rule = Rule {
    text: "reading it, and setting the ordinary one",
    clauses: &[allow(&[is(0, &[0, ALL])])],
    otherwise: PERM,
};

/// prlimit64(2): the second clause holds for a null pointer, which changes nothing.
pub(super) const PRLIMIT: Rule = Rule {
    text: "one's own limits; those of another process can be read, not set",
    clauses: &[
        allow(&[is(0, &[0])]),
        allow(&[is(2, &[0]), Test { word: Word::High(2), mask: ALL, values: &[0] }]),
    ],
    otherwise: PERM,
};

/// setpriority(2): `PRIO_PROCESS` of 0 is the caller.
pub(super) const SETPRIORITY: Rule = Rule {
    text: "one's own priority; not that of another process, group or user",
    clauses: &[allow(&[is(0, &[0]), is(1, &[0])])],
    otherwise: PERM,
};

/// `S_ISUID` and `S_ISGID`.
const SET_ID: u32 = 0o6000;
/// `S_IFMT`, of which 0 and `S_IFREG` make a file and `S_IFIFO` a pipe.
const KIND: u32 = 0o170_000;
const FILE_OR_PIPE: &[u32] = &[0, 0o100_000, 0o010_000];
/// `O_CREAT` and `__O_TMPFILE`, without which the kernel does not read the mode.
const CREATES: u32 = 0o100 | 0o20_000_000;
const SET_ID_TEXT: &str = "every mode without the set-user-ID and set-group-ID bits";

/// chmod(2), fchmod(2), creat(2).
pub(super) const MODE_SECOND: Rule =
    Rule { text: SET_ID_TEXT, clauses: &[allow(&[bits(1, SET_ID, &[0])])], otherwise: PERM };

/// fchmodat(2), fchmodat2(2).
pub(super) const MODE_THIRD: Rule =
    Rule { text: SET_ID_TEXT, clauses: &[allow(&[bits(2, SET_ID, &[0])])], otherwise: PERM };

/// open(2).
pub(super) const OPEN: Rule = Rule {
    text: "everything but making a file with the set-user-ID or set-group-ID bit",
    clauses: &[allow(&[bits(1, CREATES, &[0])]), allow(&[bits(2, SET_ID, &[0])])],
    otherwise: PERM,
};

/// openat(2).
pub(super) const OPENAT: Rule = Rule {
    text: "everything but making a file with the set-user-ID or set-group-ID bit",
    clauses: &[allow(&[bits(2, CREATES, &[0])]), allow(&[bits(3, SET_ID, &[0])])],
    otherwise: PERM,
};

/// mknod(2).
pub(super) const MKNOD: Rule = Rule {
    text: "files and named pipes without the set-user-ID and set-group-ID bits; no devices and sockets",
    clauses: &[allow(&[bits(1, KIND, FILE_OR_PIPE), bits(1, SET_ID, &[0])])],
    otherwise: PERM,
};

/// mknodat(2).
pub(super) const MKNODAT: Rule = Rule {
    text: "files and named pipes without the set-user-ID and set-group-ID bits; no devices and sockets",
    clauses: &[allow(&[bits(2, KIND, FILE_OR_PIPE), bits(2, SET_ID, &[0])])],
    otherwise: PERM,
};

/// execveat(2): `AT_EMPTY_PATH` executes a descriptor.
pub(super) const EXECVEAT: Rule = Rule {
    text: "programs by path, not by descriptor (AT_EMPTY_PATH)",
    clauses: &[allow(&[bits(4, 0x1000, &[0])])],
    otherwise: PERM,
};
