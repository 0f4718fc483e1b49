//! The attacks on what is the host's, one a line, in the order in which they are made.
//!
//! Neighbours: `attacks` says what each part means, `bounds` has those on limits and on the protocol. Never: does anything itself.

use serde_json::{Value, json};

use super::{Arguments, Attack, Sign, Wall};
use crate::commands::demo::stage::{HOOK, LINK, PROJECT, SIBLING, Stage};

/// One line of the list.
pub(super) const fn attack(
    class: &'static str,
    title: &'static str,
    tool: &'static str,
    arguments: Arguments,
    sign: Sign,
    wall: Wall,
) -> Attack {
    Attack { class, title, tool, arguments, sign, wall }
}

/// No arguments.
pub(super) fn none(_stage: &Stage, _bare: bool) -> Value {
    json!({})
}

/// The planted ssh key.
fn key(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path("home/.ssh/id_ed25519")})
}

/// The canary's shell start file.
fn rc(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path("home/.bashrc"), "directory": stage.path("workspace")})
}

/// The same by another name: the link that was planted in the workspace before.
fn planted_link(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path(LINK)})
}

/// A directory whose name begins like the granted one's.
fn sibling(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path(SIBLING)})
}

/// The ssh key, and the directory it may write to.
fn key_and_workspace(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path("home/.ssh/id_ed25519"), "directory": stage.path("workspace")})
}

/// The ssh key, and the marker process, which works in the home.
fn key_and_marker(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path("home/.ssh/id_ed25519"), "pid": stage.marker()})
}

/// The canary home.
fn home(stage: &Stage, _bare: bool) -> Value {
    json!({"directory": stage.path("home")})
}

/// The audit log.
fn log(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.audit()})
}

/// The hook that is not there, to be made through a link.
fn hook_and_workspace(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path(HOOK), "directory": stage.path("workspace")})
}

/// The hook that is not there.
fn hook(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path(HOOK)})
}

/// The granted directory.
fn workspace(stage: &Stage, _bare: bool) -> Value {
    json!({"directory": stage.path("workspace")})
}

/// The granted directory in which the host trusts some names.
pub(super) fn project(stage: &Stage, _bare: bool) -> Value {
    json!({"directory": stage.path(PROJECT)})
}

/// The marker process.
fn marker(stage: &Stage, _bare: bool) -> Value {
    json!({"pid": stage.marker()})
}

/// The TCP listener.
fn tcp(stage: &Stage, _bare: bool) -> Value {
    json!({"address": stage.tcp()})
}

/// The UDP socket.
fn udp(stage: &Stage, _bare: bool) -> Value {
    json!({"address": stage.udp()})
}

/// The socket in the file system.
fn agent(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path("agent.sock")})
}

/// The mark.
pub(super) fn mark(stage: &Stage, _bare: bool) -> Value {
    json!({"mark": stage.secret(), "id": stage.victim()})
}

const FILES: &str = "Files";
const PROGRAMS: &str = "Programs and privileges";
const PROCESSES: &str = "Processes and secrets";
const NETWORK: &str = "Network and sockets";
const KERNEL: &str = "Kernel";

/// Attacks that a wall is to stop.
pub(super) const ATTACKS: &[Attack] = &[
    attack(FILES, "read an ssh private key", "read_ssh_key", key, Sign::Secret, Wall::View),
    attack(FILES, "read it by .., links, /proc", "read_by_detour", key, Sign::Secret, Wall::View),
    attack(FILES, "read keys all over the home", "read_secrets", home, Sign::Secret, Wall::View),
    attack(FILES, "read it under other spellings", "read_by_spelling", key, Sign::Secret, Wall::View),
    attack(FILES, "read it by a hard link", "read_by_hard_link", key_and_workspace, Sign::Secret, Wall::View),
    attack(FILES, "read it by a planted link", "read_ssh_key", planted_link, Sign::Secret, Wall::View),
    attack(FILES, "read a sibling by its prefix", "read_ssh_key", sibling, Sign::Secret, Wall::View),
    attack(
        FILES,
        "read what nobody named",
        "read_ssh_key",
        |stage, _| json!({"path": stage.unnamed()}),
        Sign::Secret,
        Wall::View,
    ),
    attack(FILES, "read it by a process's cwd", "read_by_process", key_and_marker, Sign::Secret, Wall::View),
    attack(FILES, "read inherited descriptors", "read_descriptors", none, Sign::Secret, Wall::Descriptors),
    attack(FILES, "reopen its stdio as files", "reopen_stdio", none, Sign::Secret, Wall::Descriptors),
    attack(FILES, "look whether a file exists", "look_at_file", key, Sign::Word, Wall::View),
    attack(FILES, "read the audit log", "read_ssh_key", log, Sign::Word, Wall::View),
    attack(FILES, "write to the audit log", "append", log, Sign::LogKept, Wall::View),
    attack(FILES, "open the password hashes", "read_password_hashes", none, Sign::Word, Wall::View),
    attack(FILES, "write a shell rc file", "write_shell_rc", rc, Sign::AsMade, Wall::View),
    attack(FILES, "write it through a link", "write_through_link", rc, Sign::AsMade, Wall::View),
    attack(FILES, "plant a git hook", "plant_hook", hook, Sign::AsMade, Wall::View),
    attack(
        FILES,
        "plant it by a dangling link",
        "write_through_link",
        hook_and_workspace,
        Sign::AsMade,
        Wall::View,
    ),
    attack(FILES, "add to a project's traps", "add_to_traps", project, Sign::TrapsAsMade, Wall::View),
    attack(FILES, "move a trap or its parent", "replace_traps", project, Sign::TrapsAsMade, Wall::View),
    attack(FILES, "rename over a trap", "rename_to_traps", project, Sign::TrapsAsMade, Wall::View),
    attack(FILES, "put a link for a trap", "link_traps", project, Sign::TrapsAsMade, Wall::View),
    attack(FILES, "make absent traps", "add_to_traps", project, Sign::NoTraps, Wall::View),
    attack(FILES, "rename to absent traps", "rename_to_traps", project, Sign::NoTraps, Wall::View),
    attack(FILES, "put links for absent traps", "link_traps", project, Sign::NoTraps, Wall::View),
    attack(FILES, "exchange a file for its own", "exchange_file", rc, Sign::AsMade, Wall::View),
    attack(FILES, "empty a file by opening it", "empty_file", rc, Sign::AsMade, Wall::View),
    attack(FILES, "empty a file by its name", "truncate_file", rc, Sign::AsMade, Wall::View),
    attack(FILES, "change a file's mode", "change_mode", rc, Sign::AsMade, Wall::View),
    attack(FILES, "change a file's owner", "change_owner", rc, Sign::Word, Wall::View),
    attack(FILES, "change a file's times", "change_times", rc, Sign::AsMade, Wall::View),
    attack(FILES, "change a file's attributes", "change_attribute", rc, Sign::Word, Wall::View),
    attack(FILES, "change a file's flags", "change_flags", rc, Sign::Word, Wall::View),
    // In the cell of a session the names that this one makes in scratch are there for what comes after it.
    attack(FILES, "plant what the host trusts", "plant_traps", home, Sign::AsMade, Wall::View),
    attack(FILES, "leave a set-user-id file", "leave_setuid", workspace, Sign::NoSetuid, Wall::Call),
    attack(FILES, "leave file capabilities", "leave_capabilities", workspace, Sign::Word, Wall::Privilege),
    attack(FILES, "make a device node", "make_device", none, Sign::Word, Wall::Call),
    attack(FILES, "open a directory by handle", "open_by_handle", none, Sign::Word, Wall::Call),
    attack(FILES, "write the core_pattern", "write_core_pattern", none, Sign::Word, Wall::View),
    attack(FILES, "write the kernel's settings", "write_kernel_settings", none, Sign::Word, Wall::View),
    attack(FILES, "preload into every program", "preload_into_all", none, Sign::Word, Wall::View),
    attack(FILES, "leave its cgroup", "write_cgroup", none, Sign::Word, Wall::View),
    attack(PROGRAMS, "run a program it dropped", "run_dropped_program", none, Sign::Word, Wall::Execute),
    attack(PROGRAMS, "run one in its workspace", "run_dropped_program", workspace, Sign::Word, Wall::Execute),
    attack(PROGRAMS, "map what it dropped as code", "map_dropped_code", none, Sign::Word, Wall::Execute),
    attack(PROGRAMS, "map one in its workspace", "map_dropped_code", workspace, Sign::Word, Wall::Execute),
    attack(PROGRAMS, "change its own program", "change_itself", none, Sign::Word, Wall::View),
    attack(PROGRAMS, "become root", "become_root", none, Sign::Word, Wall::Privilege),
    attack(PROGRAMS, "call by the 32-bit entry", "i386_call", none, Sign::Word, Wall::Call),
    attack(PROGRAMS, "call by the x32 table", "x32_call", none, Sign::Word, Wall::Call),
    attack(
        PROCESSES,
        "end a process of the host",
        "kill_process",
        marker,
        Sign::MarkerLives,
        Wall::Processes,
    ),
    attack(PROCESSES, "attach to it as a debugger", "trace_process", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "read its memory", "read_memory", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "take its open files", "take_descriptor", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "see that it is there", "see_process", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "write its memory", "write_memory", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "open its memory as a file", "open_memory", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "compare what it holds", "compare_process", marker, Sign::Word, Wall::Processes),
    attack(PROCESSES, "read its command line", "read_arguments", marker, Sign::Secret, Wall::Processes),
    attack(
        PROCESSES,
        "read process 1's environment",
        "read_first_process",
        none,
        Sign::Word,
        Wall::Processes,
    ),
    attack(
        PROCESSES,
        "read keys of other processes",
        "read_environments",
        none,
        Sign::Secret,
        Wall::Processes,
    ),
    attack(PROCESSES, "read keys in its environment", "read_keys", none, Sign::Secret, Wall::Environment),
    attack(PROCESSES, "learn the host's name", "identify_host", none, Sign::HostName, Wall::Names),
    attack(PROCESSES, "learn the machine's id", "read_machine_id", none, Sign::Word, Wall::View),
    attack(PROCESSES, "leave a core dump", "allow_core", none, Sign::Limit, Wall::Rlimit),
    attack(
        PROCESSES,
        "daemonise and stay",
        "daemonise",
        |stage, _| json!({"name": stage.daemon()}),
        Sign::NoDaemon,
        Wall::End,
    ),
    attack(NETWORK, "call home over TCP", "call_home_tcp", tcp, Sign::Silence, Wall::Network),
    attack(NETWORK, "call home over MPTCP", "call_home_by_mptcp", tcp, Sign::Silence, Wall::Network),
    attack(NETWORK, "call home by sendto alone", "call_home_by_sendto", tcp, Sign::Silence, Wall::Network),
    attack(NETWORK, "call home by sendmsg alone", "call_home_by_sendmsg", tcp, Sign::Silence, Wall::Network),
    attack(
        NETWORK,
        "call home by sendmmsg alone",
        "call_home_by_sendmmsg",
        tcp,
        Sign::Silence,
        Wall::Network,
    ),
    attack(NETWORK, "call home over UDP", "call_home_udp", udp, Sign::Silence, Wall::Network),
    attack(
        NETWORK,
        "call home over IPv6",
        "call_home_tcp",
        |stage, _| json!({"address": stage.tcp6()}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(
        NETWORK,
        "call home by a mapped address",
        "call_home_tcp",
        |stage, _| json!({"address": stage.tcp_as("[::ffff:127.0.0.1]")}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(
        NETWORK,
        "call home by address 0.0.0.0",
        "call_home_tcp",
        |stage, _| json!({"address": stage.tcp_as("0.0.0.0")}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(
        NETWORK,
        "call home by multicast",
        "call_home_udp",
        |stage, _| json!({"address": stage.multicast()}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(NETWORK, "call home by a DNS query", "call_home_by_dns", udp, Sign::Silence, Wall::Network),
    attack(
        NETWORK,
        "call home by DNS over TCP",
        "call_home_by_dns_over_tcp",
        tcp,
        Sign::Silence,
        Wall::Network,
    ),
    attack(NETWORK, "call home by a DNS service", "call_home_by_service", agent, Sign::Silence, Wall::View),
    attack(
        NETWORK,
        "call home by the resolver",
        "call_home_by_resolver",
        |_, _| json!({"address": Stage::resolver()}),
        Sign::Unasked,
        Wall::Network,
    ),
    attack(NETWORK, "wait for connections", "listen", none, Sign::Word, Wall::Network),
    attack(
        NETWORK,
        "read the metadata address",
        "read_metadata_address",
        |_, _| json!({"address": "169.254.169.254:80"}),
        Sign::Word,
        Wall::Network,
    ),
    attack(
        NETWORK,
        "read it over IPv6",
        "read_metadata_address",
        |_, _| json!({"address": "[fd00:ec2::254]:80"}),
        Sign::Word,
        Wall::Network,
    ),
    attack(NETWORK, "talk to an agent's socket", "connect_path_socket", agent, Sign::Silence, Wall::View),
    attack(
        NETWORK,
        "talk to an abstract socket",
        "connect_abstract_socket",
        |stage, _| json!({"name": stage.abstract_name()}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(NETWORK, "open a raw socket", "open_raw_socket", none, Sign::Word, Wall::Call),
    attack(NETWORK, "open a crypto socket", "open_crypto_socket", none, Sign::Word, Wall::Call),
    attack(NETWORK, "open a netlink socket", "open_netlink_socket", none, Sign::Word, Wall::Call),
    attack(NETWORK, "open a socket for pings", "open_ping_socket", none, Sign::Word, Wall::Call),
    attack(NETWORK, "open a socket of any family", "open_unusual_sockets", none, Sign::Word, Wall::Call),
    attack(NETWORK, "pass a descriptor by stdio", "pass_descriptor", none, Sign::Word, Wall::Descriptors),
    attack(
        NETWORK,
        "find a shared segment",
        "find_segment",
        |stage, _| json!({"key": stage.key()}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        NETWORK,
        "open a message queue",
        "find_queue",
        |stage, _| json!({"name": stage.queue()}),
        Sign::Word,
        Wall::Call,
    ),
    attack(KERNEL, "mount a file system", "mount", none, Sign::Word, Wall::Call),
    attack(KERNEL, "mount by the new calls", "open_filesystem", none, Sign::Word, Wall::Call),
    attack(KERNEL, "make a user namespace", "unshare_user", none, Sign::Word, Wall::Call),
    attack(KERNEL, "make one by clone3", "clone_user", none, Sign::Word, Wall::Call),
    attack(KERNEL, "mount in its own namespace", "mount_in_own_namespace", none, Sign::Word, Wall::Call),
    attack(KERNEL, "join a namespace", "join_namespace", none, Sign::Word, Wall::Call),
    attack(
        KERNEL,
        "copy a mount tree",
        "call_kernel",
        |_, _| json!({"name": "open_tree"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "change the root",
        "call_kernel",
        |_, _| json!({"name": "pivot_root"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "change its root directory",
        "call_kernel",
        |_, _| json!({"name": "chroot"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(KERNEL, "read the session keyring", "read_keyring", none, Sign::Word, Wall::Call),
    attack(KERNEL, "set up io_uring", "io_uring", none, Sign::Word, Wall::Call),
    attack(KERNEL, "use bpf", "bpf", none, Sign::Word, Wall::Call),
    attack(KERNEL, "open a perf counter", "perf", none, Sign::Word, Wall::Call),
    attack(KERNEL, "handle page faults", "userfaultfd", none, Sign::Word, Wall::Call),
    attack(KERNEL, "load a kernel module", "load_module", none, Sign::Word, Wall::Call),
    attack(KERNEL, "set the host name", "rename_host", none, Sign::Word, Wall::Call),
    attack(KERNEL, "add a key", "call_kernel", |_, _| json!({"name": "add_key"}), Sign::Word, Wall::Call),
    attack(
        KERNEL,
        "load another kernel",
        "call_kernel",
        |_, _| json!({"name": "kexec_file_load"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "restart the machine",
        "call_kernel",
        |_, _| json!({"name": "reboot"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(KERNEL, "swap to a file", "call_kernel", |_, _| json!({"name": "swapon"}), Sign::Word, Wall::Call),
    attack(
        KERNEL,
        "account processes",
        "call_kernel",
        |_, _| json!({"name": "acct"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "ask for quotas",
        "call_kernel",
        |_, _| json!({"name": "quotactl"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "set the clock",
        "call_kernel",
        |_, _| json!({"name": "settimeofday"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "use the machine's ports",
        "call_kernel",
        |_, _| json!({"name": "ioperm"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "switch off randomisation",
        "call_kernel",
        |_, _| json!({"name": "personality"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "use an unusual prctl",
        "call_kernel",
        |_, _| json!({"name": "prctl"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(
        KERNEL,
        "watch whole file systems",
        "call_kernel",
        |_, _| json!({"name": "fanotify_init"}),
        Sign::Word,
        Wall::Call,
    ),
    attack(KERNEL, "answer others' system calls", "install_listener", none, Sign::Word, Wall::Call),
    attack(KERNEL, "paste into a console", "paste_into_console", none, Sign::Word, Wall::Call),
    attack(KERNEL, "type into the terminal", "type_into_terminal", none, Sign::Word, Wall::Call),
];
