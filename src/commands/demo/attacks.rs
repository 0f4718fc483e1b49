//! The attacks of a demonstration, in order: tool, arguments, the sign of an escape, and what should stand in its way.
//!
//! Neighbours: `demo::run` makes one call for each, `judge` reads the sign. Never: does anything itself.

use serde_json::{Value, json};

use super::stage::{HOOK, Stage};
use crate::outcome::Limit;

/// How an escape shows from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The planted secret is in what came back.
    Secret,
    /// The home directory is not as it was made.
    AsMade,
    /// A set-user-id file is in the workspace.
    NoSetuid,
    /// The marker process is gone.
    MarkerLives,
    /// The host's name is in what came back.
    HostName,
    /// The daemon is among the processes of the host.
    NoDaemon,
    /// A listener was called.
    Silence,
    /// The victim's call got another answer than its own, or more than one.
    VictimUnharmed,
    /// The call got more than one answer.
    OneAnswer,
    /// The mark came through to the client.
    NoMark,
    /// The probe got to its own bound.
    Limit,
    /// There is none: the probe's word, and that the layer was verified to be on.
    Word,
}

impl Sign {
    /// Is the attack one on the protocol?
    pub(super) const fn is_protocol(self) -> bool {
        matches!(self, Self::VictimUnharmed | Self::OneAnswer | Self::NoMark)
    }
}

/// What should stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    /// Only what was granted exists.
    View,
    /// Nothing that was written can be executed.
    Execute,
    /// Privileges are gone for good.
    Privilege,
    /// The system call is not in the list.
    Call,
    /// Only the cell's own processes can be named.
    Processes,
    /// Every process of a cell ends with its call.
    End,
    /// The environment holds only what was passed.
    Environment,
    /// The host's names are not the cell's.
    Names,
    /// There is no network but the cell's own.
    Network,
    /// The rules of MCP.
    Protocol,
    /// A limit.
    Limit(Limit),
}

/// The tool's arguments; the flag says that there is no cell.
type Arguments = fn(&Stage, bool) -> Value;

/// One attack.
#[derive(Debug)]
pub(super) struct Attack {
    /// The heading it stands under.
    pub(super) class: &'static str,
    /// What it tries, in at most 29 characters.
    pub(super) title: &'static str,
    /// The tool of the hostile server.
    pub(super) tool: &'static str,
    /// What the tool is given.
    pub(super) arguments: Arguments,
    /// How an escape shows.
    pub(super) sign: Sign,
    /// What should stop it.
    pub(super) wall: Wall,
}

/// One line of the list.
const fn attack(
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
fn none(_stage: &Stage, _bare: bool) -> Value {
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

/// The hook that is not there.
fn hook(stage: &Stage, _bare: bool) -> Value {
    json!({"path": stage.path(HOOK)})
}

/// The granted directory.
fn workspace(stage: &Stage, _bare: bool) -> Value {
    json!({"directory": stage.path("workspace")})
}

/// The directory for temporary files.
fn scratch(_stage: &Stage, _bare: bool) -> Value {
    json!({"directory": SCRATCH})
}

/// The marker process.
fn marker(stage: &Stage, _bare: bool) -> Value {
    json!({"pid": stage.marker()})
}

/// How far a probe goes by itself: in a cell a few times the limit, so that a limit that fails hurts nobody; without
/// a cell only so far that the machine does not notice.
const fn bound(bare: bool, small: u64, large: u64) -> u64 {
    if bare { small } else { large }
}

/// The directory of a cell for temporary files.
const SCRATCH: &str = "/tmp";

const FILES: &str = "Files";
const PROGRAMS: &str = "Programs and privileges";
const PROCESSES: &str = "Processes and secrets";
const NETWORK: &str = "Network and sockets";
const KERNEL: &str = "Kernel";
const RESOURCES: &str = "Resources";
const PROTOCOL: &str = "Protocol";

/// All attacks.
pub(super) const ATTACKS: &[Attack] = &[
    attack(FILES, "read an ssh private key", "read_ssh_key", key, Sign::Secret, Wall::View),
    attack(FILES, "read it by .., links, /proc", "read_by_detour", key, Sign::Secret, Wall::View),
    attack(FILES, "open the password hashes", "read_password_hashes", none, Sign::Word, Wall::View),
    attack(FILES, "write a shell rc file", "write_shell_rc", rc, Sign::AsMade, Wall::View),
    attack(FILES, "write it through a link", "write_through_link", rc, Sign::AsMade, Wall::View),
    attack(FILES, "plant a git hook", "plant_hook", hook, Sign::AsMade, Wall::View),
    attack(FILES, "leave a set-user-id file", "leave_setuid", workspace, Sign::NoSetuid, Wall::Call),
    attack(FILES, "make a device node", "make_device", scratch, Sign::Word, Wall::Call),
    attack(FILES, "open a directory by handle", "open_by_handle", none, Sign::Word, Wall::Call),
    attack(FILES, "write the core_pattern", "write_core_pattern", none, Sign::Word, Wall::View),
    attack(FILES, "leave its cgroup", "write_cgroup", none, Sign::Word, Wall::View),
    attack(PROGRAMS, "run a program it dropped", "run_dropped_program", scratch, Sign::Word, Wall::Execute),
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
    attack(
        PROCESSES,
        "daemonise and stay",
        "daemonise",
        |stage, _| json!({"name": stage.daemon()}),
        Sign::NoDaemon,
        Wall::End,
    ),
    attack(
        NETWORK,
        "call home over TCP",
        "call_home_tcp",
        |stage, _| json!({"address": stage.tcp()}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(
        NETWORK,
        "call home over UDP",
        "call_home_udp",
        |stage, _| json!({"address": stage.udp()}),
        Sign::Silence,
        Wall::Network,
    ),
    attack(NETWORK, "read the metadata address", "read_metadata_address", none, Sign::Word, Wall::Network),
    attack(
        NETWORK,
        "talk to an agent's socket",
        "connect_path_socket",
        |stage, _| json!({"path": stage.path("home/agent.sock")}),
        Sign::Silence,
        Wall::View,
    ),
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
    attack(KERNEL, "mount a file system", "mount", none, Sign::Word, Wall::Call),
    attack(KERNEL, "mount by the new calls", "open_filesystem", none, Sign::Word, Wall::Call),
    attack(KERNEL, "make a user namespace", "unshare_user", none, Sign::Word, Wall::Call),
    attack(KERNEL, "read the session keyring", "read_keyring", none, Sign::Word, Wall::Call),
    attack(KERNEL, "set up io_uring", "io_uring", none, Sign::Word, Wall::Call),
    attack(KERNEL, "use bpf", "bpf", none, Sign::Word, Wall::Call),
    attack(KERNEL, "open a perf counter", "perf", none, Sign::Word, Wall::Call),
    attack(KERNEL, "handle page faults", "userfaultfd", none, Sign::Word, Wall::Call),
    attack(KERNEL, "load a kernel module", "load_module", none, Sign::Word, Wall::Call),
    attack(KERNEL, "set the host name", "rename_host", none, Sign::Word, Wall::Call),
    attack(KERNEL, "type into the terminal", "type_into_terminal", none, Sign::Word, Wall::Call),
    attack(
        RESOURCES,
        "fork bomb",
        "fork_bomb",
        |_, bare| json!({"limit": bound(bare, 8, 500)}),
        Sign::Limit,
        Wall::Limit(Limit::Tasks),
    ),
    attack(
        RESOURCES,
        "memory bomb",
        "memory_bomb",
        |_, bare| json!({"limit": bound(bare, 8 << 20, 512 << 20)}),
        Sign::Limit,
        Wall::Limit(Limit::Memory),
    ),
    attack(
        RESOURCES,
        "fill the scratch disk",
        "fill_scratch",
        |_, bare| json!({"directory": SCRATCH, "limit": bound(bare, 1 << 20, 64 << 20)}),
        Sign::Limit,
        Wall::Limit(Limit::Scratch),
    ),
    attack(
        RESOURCES,
        "open files without end",
        "fill_descriptors",
        |_, bare| json!({"limit": bound(bare, 16, 100_000)}),
        Sign::Limit,
        Wall::Limit(Limit::OpenFiles),
    ),
    attack(
        RESOURCES,
        "write without end",
        "endless_output",
        |_, bare| json!({"limit": bound(bare, 1 << 16, 1 << 30)}),
        Sign::Limit,
        Wall::Limit(Limit::Output),
    ),
    attack(
        RESOURCES,
        "spin in four threads",
        "spin",
        |_, bare| json!({"milliseconds": bound(bare, 10, 60_000)}),
        Sign::Limit,
        Wall::Limit(Limit::Time),
    ),
    attack(
        RESOURCES,
        "hang, deaf to SIGTERM",
        "hang",
        |_, bare| json!({"milliseconds": bound(bare, 10, 60_000), "deaf": true}),
        Sign::Limit,
        Wall::Limit(Limit::Time),
    ),
    attack(
        PROTOCOL,
        "forge another call's answer",
        "forge_answer",
        |stage, _| json!({"id": stage.victim()}),
        Sign::VictimUnharmed,
        Wall::Protocol,
    ),
    attack(PROTOCOL, "answer twice", "answer_twice", none, Sign::OneAnswer, Wall::Protocol),
    attack(
        PROTOCOL,
        "send what is no message",
        "send_rubbish",
        |stage, _| json!({"mark": stage.secret()}),
        Sign::NoMark,
        Wall::Protocol,
    ),
];
