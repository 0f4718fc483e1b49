//! What a refused call was after, in words: from its registers, and which of them point to texts and addresses.
//!
//! Neighbours: `groups` has the reasons; `watch` reads what they point to, for the record only. Never: decides; looks behind a
//! pointer.

use super::table::name;

/// What one call tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The system call's name.
    pub operation: &'static str,
    /// What its registers say, if they say something.
    pub object: String,
    /// The registers that point to a text: a path, or a name.
    pub texts: &'static [usize],
    /// What points to an address that it was to go to.
    pub destination: Option<Destination>,
}

/// Where a call has the address of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// This register points to it.
    Register(usize),
    /// This register points to a message's header (`struct msghdr`), which begins with the pointer.
    Header(usize),
}

/// Calls that are about an address.
const DESTINATIONS: &[(&str, Destination)] = &[
    ("connect", Destination::Register(1)),
    ("bind", Destination::Register(1)),
    ("sendto", Destination::Register(4)),
    ("sendmsg", Destination::Header(1)),
    ("sendmmsg", Destination::Header(1)),
];

/// Calls whose registers point to texts.
const TEXTS: &[(&[usize], &[&str])] = &[
    (&[0, 1], &["mount", "pivot_root", "add_key", "request_key"]),
    (
        &[0],
        &[
            "umount2",
            "chroot",
            "fsopen",
            "chmod",
            "creat",
            "open",
            "mknod",
            "acct",
            "swapon",
            "swapoff",
            "delete_module",
            "sethostname",
            "setdomainname",
            "mq_open",
        ],
    ),
    (
        &[1],
        &[
            "open_tree",
            "open_tree_attr",
            "mount_setattr",
            "fspick",
            "openat",
            "fchmodat",
            "fchmodat2",
            "mknodat",
            "name_to_handle_at",
            "fanotify_mark",
            "quotactl",
        ],
    ),
    (&[1, 3], &["move_mount"]),
];

/// Calls that one register says enough of, and what it holds.
const REGISTERS: &[(&str, usize, &str)] = &[
    ("clone", 0, "flags"),
    ("unshare", 0, "flags"),
    ("setns", 1, "type"),
    ("ioctl", 1, "request"),
    ("prctl", 0, "option"),
    ("arch_prctl", 0, "option"),
    ("bpf", 0, "command"),
    ("keyctl", 0, "command"),
    ("personality", 0, "persona"),
    ("fchmod", 1, "mode"),
];

/// Socket families that programs ask for, by number (`linux/socket.h`).
const FAMILIES: &[(u64, &str)] = &[
    (0, "AF_UNSPEC"),
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (10, "AF_INET6"),
    (15, "AF_KEY"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (29, "AF_CAN"),
    (30, "AF_TIPC"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (40, "AF_VSOCK"),
    (44, "AF_XDP"),
];

/// ptrace(2)'s ways in.
const REQUESTS: &[(u64, &str)] = &[(0, "PTRACE_TRACEME"), (16, "PTRACE_ATTACH"), (0x4206, "PTRACE_SEIZE")];

/// What the call with this number and these registers was after.
#[must_use]
pub fn attempt(number: u32, arguments: &[u64; 6]) -> Attempt {
    let operation = name(number).unwrap_or("unknown");
    // The kernel takes the low half of an `int`.
    let [first, second, third, ..] = arguments.map(|argument| argument & u64::from(u32::MAX));
    let texts = TEXTS.iter().find(|(_, calls)| calls.contains(&operation)).map_or(&[][..], |(at, _)| at);
    let object = match operation {
        "socket" | "socketpair" => {
            let family = named(FAMILIES, first, "family");
            // Of these two it was the type or the protocol that was refused.
            if matches!(first, 1 | 2 | 10) && (operation == "socketpair" || first != 1) {
                format!("{family} type {} protocol {third}", second & 0xf)
            } else {
                family
            }
        }
        "ptrace" => format!("{} of process {second}", named(REQUESTS, first, "request")),
        "process_vm_readv" | "process_vm_writev" | "kcmp" | "move_pages" | "migrate_pages" => {
            format!("process {first}")
        }
        "prlimit64" => format!("process {first}, limit {second}"),
        "setpriority" => format!("kind {first}, id {second}"),
        "sendto" | "sendmsg" | "sendmmsg" => "MSG_FASTOPEN".to_owned(),
        _ => REGISTERS
            .iter()
            .find(|(call, _, _)| *call == operation)
            .map_or_else(String::new, |(_, at, what)| {
                format!("{what} {:#x}", arguments.get(*at).unwrap_or(&0) & u64::from(u32::MAX))
            }),
    };
    let destination = DESTINATIONS.iter().find(|(call, _)| *call == operation).map(|(_, at)| *at);
    Attempt { operation, object, texts, destination }
}

fn named(names: &[(u64, &str)], value: u64, what: &str) -> String {
    let known = names.iter().find(|(number, _)| *number == value);
    known.map_or_else(|| format!("{what} {value}"), |(_, name)| (*name).to_owned())
}
