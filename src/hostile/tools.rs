//! The list of tools: name, words, arguments, probe.
//!
//! Neighbours: `hostile` lists and finds them here; the probes are in the files beside. Never: tries anything.

use serde_json::{Map, Value, json};

use super::report::{Call, Probed};
use super::{answers, files, kernel, network, processes, programs, resources};

/// One tool.
pub(super) struct Tool {
    name: &'static str,
    pub(super) description: &'static str,
    arguments: &'static [Argument],
    pub(super) run: fn(&mut Call<'_>) -> Probed,
}

/// An argument's name, JSON type, and whether it must be there.
type Argument = (&'static str, &'static str, bool);

/// A text that must be given.
const fn text(name: &'static str) -> Argument {
    (name, "string", true)
}

/// A number that may be given.
const fn number(name: &'static str) -> Argument {
    (name, "integer", false)
}

/// The process to reach for.
const PID: Argument = ("pid", "integer", true);

/// One line of the list.
const fn tool(
    name: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    run: fn(&mut Call<'_>) -> Probed,
) -> Tool {
    Tool { name, description, arguments, run }
}

/// Every tool.
const TOOLS: &[Tool] = &[
    tool("harmless", "Gives back a text", &[text("text")], answers::harmless),
    tool("read_ssh_key", "Reads a private key in the home directory", &[text("path")], files::read_ssh_key),
    tool(
        "read_by_detour",
        "Reads a file through `..`, links and /proc",
        &[text("path")],
        files::read_by_detour,
    ),
    tool("read_password_hashes", "Opens /etc/shadow", &[], files::read_password_hashes),
    tool("write_shell_rc", "Adds a line to a shell's start file", &[text("path")], files::write_shell_rc),
    tool("plant_hook", "Makes a file that the host would execute", &[text("path")], files::plant_hook),
    tool(
        "write_through_link",
        "Writes through a symbolic link of its own",
        &[text("directory"), text("path")],
        files::write_through_link,
    ),
    tool("leave_setuid", "Leaves a set-user-id file behind", &[text("directory")], files::leave_setuid),
    tool("make_device", "Makes a device node", &[text("directory")], files::make_device),
    tool("open_by_handle", "Opens a directory by number", &[], files::open_by_handle),
    tool(
        "write_core_pattern",
        "Opens the setting that names a program the kernel runs",
        &[],
        files::write_core_pattern,
    ),
    tool("write_cgroup", "Opens the file that moves a process out of its limits", &[], files::write_cgroup),
    tool(
        "run_dropped_program",
        "Runs a program it has just written",
        &[text("directory")],
        programs::run_dropped_program,
    ),
    tool("run_from_memory", "Runs a program that is in no file system", &[], programs::run_from_memory),
    tool("become_root", "Asks to be root", &[], programs::become_root),
    tool("i386_call", "Calls the kernel through the 32-bit entry", &[], programs::i386_call),
    tool("x32_call", "Calls the kernel with the x32 bit", &[], programs::x32_call),
    tool("kill_process", "Ends a process of the host", &[PID], processes::kill_process),
    tool("trace_process", "Attaches to a process as a debugger", &[PID], processes::trace_process),
    tool("read_memory", "Reads the memory of a process", &[PID], processes::read_memory),
    tool("take_descriptor", "Takes an open file out of a process", &[PID], processes::take_descriptor),
    tool("read_environments", "Reads the environment of other processes", &[], processes::read_environments),
    tool("read_keys", "Looks for keys in its own environment", &[], processes::read_keys),
    tool("identify_host", "Asks for the name of the machine", &[], processes::identify_host),
    tool(
        "daemonise",
        "Leaves a process behind",
        &[text("name"), number("milliseconds")],
        processes::daemonise,
    ),
    tool("call_home_tcp", "Connects to a listener", &[text("address")], network::call_home_tcp),
    tool("call_home_udp", "Sends a datagram", &[text("address")], network::call_home_udp),
    tool(
        "read_metadata_address",
        "Connects to the clouds' metadata address",
        &[],
        network::read_metadata_address,
    ),
    tool(
        "connect_path_socket",
        "Connects to a socket in the file system",
        &[text("path")],
        network::connect_path_socket,
    ),
    tool(
        "connect_abstract_socket",
        "Connects to a socket that has no file",
        &[text("name")],
        network::connect_abstract_socket,
    ),
    tool("open_raw_socket", "Opens a raw socket", &[], network::open_raw_socket),
    tool(
        "open_crypto_socket",
        "Opens a socket of the kernel's cryptography",
        &[],
        network::open_crypto_socket,
    ),
    tool(
        "open_netlink_socket",
        "Opens a socket that configures the network",
        &[],
        network::open_netlink_socket,
    ),
    tool("mount", "Mounts a file system", &[], kernel::mount),
    tool("open_filesystem", "Mounts a file system by the new calls", &[], kernel::open_filesystem),
    tool("unshare_user", "Makes a user namespace", &[], kernel::unshare_user),
    tool("read_keyring", "Looks up the session keyring", &[], kernel::read_keyring),
    tool("io_uring", "Sets up a ring whose operations no filter sees", &[], kernel::io_uring),
    tool("bpf", "Gives the kernel a map for programs", &[], kernel::bpf),
    tool("perf", "Opens a performance counter", &[], kernel::perf),
    tool("userfaultfd", "Asks to handle page faults", &[], kernel::userfaultfd),
    tool("load_module", "Loads a kernel module", &[], kernel::load_module),
    tool("rename_host", "Sets the host name", &[], kernel::rename_host),
    tool("type_into_terminal", "Types into a terminal", &[], kernel::type_into_terminal),
    tool("fork_bomb", "Makes processes", &[number("limit")], resources::fork_bomb),
    tool("memory_bomb", "Takes memory", &[number("limit")], resources::memory_bomb),
    tool("spin", "Keeps processors busy", &[number("threads"), number("milliseconds")], resources::spin),
    tool(
        "fill_scratch",
        "Fills the directory it may write to",
        &[text("directory"), number("limit")],
        resources::fill_scratch,
    ),
    tool("fill_descriptors", "Opens files and closes none", &[number("limit")], resources::fill_descriptors),
    tool(
        "endless_output",
        "Writes without end and without a newline",
        &[number("limit")],
        resources::endless_output,
    ),
    tool("hang", "Does not answer", &[number("milliseconds"), ("deaf", "boolean", false)], resources::hang),
    tool("forge_answer", "Answers another call", &[text("id")], answers::forge_answer),
    tool("answer_twice", "Answers its own call twice", &[], answers::answer_twice),
    tool("send_rubbish", "Writes what is no message", &[text("mark")], answers::send_rubbish),
];

/// The tool of that name.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// The tools as `tools/list` gives them.
pub(super) fn list() -> Vec<Value> {
    TOOLS.iter().map(definition).collect()
}

/// One tool's definition.
fn definition(tool: &Tool) -> Value {
    let properties: Map<String, Value> =
        tool.arguments.iter().map(|(name, kind, _)| ((*name).to_owned(), json!({"type": kind}))).collect();
    let required: Vec<_> =
        tool.arguments.iter().filter(|(_, _, required)| *required).map(|(name, _, _)| *name).collect();
    json!({
        "name": tool.name,
        "description": tool.description,
        "inputSchema": {"type": "object", "properties": properties, "required": required},
        "outputSchema": {
            "type": "object",
            "properties": {
                "attempt": {"type": "string"},
                "outcome": {"type": "string", "enum": ["done", "blocked", "escaped"]},
                "operation": {"type": "string"},
                "object": {"type": "string"},
                "errno": {"type": ["string", "null"]},
                "saw": {"type": "string"},
            },
            "required": ["attempt", "outcome", "operation", "object", "errno", "saw"],
        },
    })
}
