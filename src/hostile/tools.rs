//! The list of tools: name, words, arguments, probe.
//!
//! Neighbours: `hostile` lists and finds them here; the probes are in the files beside. Never: tries anything.

use serde_json::{Map, Value, json};

use super::report::{Call, Probed};
use super::{
    answers, detours, files, kernel, network, processes, programs, resolver, resources, review, traps,
};

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

/// The directory that may be given; else it is the one for temporary files.
const SCRATCH: Argument = ("directory", "string", false);

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
    tool("make_device", "Makes a device node", &[SCRATCH], files::make_device),
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
        &[SCRATCH],
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
    tool("call_home_by_mptcp", "Connects by several paths", &[text("address")], network::call_home_by_mptcp),
    tool("call_home_by_sendto", "Connects by sendto(2)", &[text("address")], network::call_home_by_sendto),
    tool("call_home_by_sendmsg", "Connects by sendmsg(2)", &[text("address")], network::call_home_by_sendmsg),
    tool(
        "call_home_by_sendmmsg",
        "Connects by sendmmsg(2)",
        &[text("address")],
        network::call_home_by_sendmmsg,
    ),
    tool("call_home_udp", "Sends a datagram", &[text("address")], network::call_home_udp),
    tool("call_home_by_dns", "Sends a question for a name", &[text("address")], resolver::call_home_by_dns),
    tool(
        "call_home_by_dns_over_tcp",
        "Sends one over a connection",
        &[text("address")],
        resolver::call_home_by_dns_over_tcp,
    ),
    tool(
        "call_home_by_service",
        "Asks a local service for a name",
        &[text("path")],
        resolver::call_home_by_service,
    ),
    tool(
        "call_home_by_resolver",
        "Asks whoever resolves names on this host",
        &[text("address")],
        resolver::call_home_by_resolver,
    ),
    tool(
        "read_metadata_address",
        "Connects to the clouds' metadata address",
        &[text("address")],
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
        &[SCRATCH, number("limit")],
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
    tool("read_secrets", "Looks for keys in the home", &[text("directory")], detours::read_secrets),
    tool(
        "read_by_spelling",
        "Reads a file under other spellings",
        &[text("path")],
        detours::read_by_spelling,
    ),
    tool(
        "read_by_process",
        "Reads a file below another process's directory",
        &[PID, text("path")],
        detours::read_by_process,
    ),
    tool("read_descriptors", "Reads files that it did not open", &[], detours::read_descriptors),
    tool("reopen_stdio", "Opens its own output again as a file", &[], detours::reopen_stdio),
    tool(
        "read_by_hard_link",
        "Reads a file by a second name",
        &[text("directory"), text("path")],
        detours::read_by_hard_link,
    ),
    tool(
        "exchange_file",
        "Exchanges a file for its own",
        &[text("directory"), text("path")],
        detours::exchange_file,
    ),
    tool("plant_traps", "Writes what a host runs or trusts", &[text("directory")], detours::plant_traps),
    tool("preload_into_all", "Puts a library into every program", &[], detours::preload_into_all),
    tool("add_to_traps", "Adds to what a host trusts there", &[text("directory")], traps::add_to_traps),
    tool("replace_traps", "Moves what a host trusts away", &[text("directory")], traps::replace_traps),
    tool("rename_to_traps", "Renames to what a host trusts", &[text("directory")], traps::rename_to_traps),
    tool("link_traps", "Links what a host trusts elsewhere", &[text("directory")], traps::link_traps),
    tool(
        "leave_deep_traps",
        "Leaves what a host trusts deeper down",
        &[text("directory")],
        review::leave_deep_traps,
    ),
    tool("leave_link", "Leaves a link", &[text("directory"), text("path")], review::leave_link),
    tool("leave_pipe", "Leaves a named pipe", &[text("directory")], review::leave_pipe),
    tool("leave_device", "Leaves a device node", &[text("directory")], review::leave_device),
    tool("leave_file", "Leaves an ordinary file", &[text("directory")], review::leave_file),
    tool(
        "leave_deceiving_name",
        "Leaves a name that shows as another",
        &[text("directory")],
        review::leave_deceiving_name,
    ),
    tool("append", "Adds to a file", &[text("path")], detours::append),
    tool("empty_file", "Empties a file by opening it", &[text("path")], detours::empty_file),
    tool("truncate_file", "Empties a file", &[text("path")], detours::truncate_file),
    tool("change_mode", "Changes a file's permissions", &[text("path")], detours::change_mode),
    tool("change_owner", "Changes a file's owner", &[text("path")], detours::change_owner),
    tool("change_times", "Changes a file's times", &[text("path")], detours::change_times),
    tool("change_attribute", "Sets an attribute of a file", &[text("path")], detours::change_attribute),
    tool("change_flags", "Sets the flags of a file", &[text("path")], detours::change_flags),
    tool("look_at_file", "Asks whether a file is there", &[text("path")], detours::look_at_file),
    tool(
        "leave_capabilities",
        "Leaves a file with capabilities behind",
        &[text("directory")],
        detours::leave_capabilities,
    ),
    tool("change_itself", "Changes the program that it is", &[], detours::change_itself),
    tool("map_dropped_code", "Maps a file it has written as code", &[SCRATCH], detours::map_dropped_code),
    tool("write_kernel_settings", "Opens settings of the kernel", &[], files::write_kernel_settings),
    tool("read_machine_id", "Opens what tells one machine from another", &[], files::read_machine_id),
    tool("call_kernel", "Makes a call for administrators", &[text("name")], kernel::call_kernel),
    tool("clone_user", "Makes a user namespace by clone3", &[], kernel::clone_user),
    tool("join_namespace", "Joins a namespace", &[], kernel::join_namespace),
    tool(
        "mount_in_own_namespace",
        "Mounts as root of its own namespace",
        &[],
        kernel::mount_in_own_namespace,
    ),
    tool("install_listener", "Answers system calls of others", &[], kernel::install_listener),
    tool("paste_into_console", "Pastes into a console", &[], kernel::paste_into_console),
    tool("see_process", "Looks whether a process is there", &[PID], processes::see_process),
    tool("write_memory", "Writes into the memory of a process", &[PID], processes::write_memory),
    tool("open_memory", "Opens the memory of a process", &[PID], processes::open_memory),
    tool("read_first_process", "Reads the environment of process 1", &[], processes::read_first_process),
    tool("read_arguments", "Reads the command line of a process", &[PID], processes::read_arguments),
    tool("compare_process", "Compares what a process holds", &[PID], processes::compare_process),
    tool("allow_core", "Lets a crash write its memory", &[], processes::allow_core),
    tool("open_ping_socket", "Opens a socket for echo requests", &[], network::open_ping_socket),
    tool("open_unusual_sockets", "Opens sockets of every other family", &[], network::open_unusual_sockets),
    tool("listen", "Waits for connections", &[], network::listen),
    tool("pass_descriptor", "Hands out an open file", &[], network::pass_descriptor),
    tool("find_segment", "Looks for shared memory", &[number("key")], network::find_segment),
    tool("find_queue", "Opens a message queue", &[text("name")], network::find_queue),
    tool("stop_itself", "Stops itself", &[number("milliseconds")], resources::stop_itself),
    tool("lock_memory", "Locks memory", &[number("limit")], resources::lock_memory),
    tool("fill_memory_files", "Fills files without a name", &[number("limit")], resources::fill_memory_files),
    tool("fill_names", "Makes empty files", &[SCRATCH, number("limit")], resources::fill_names),
    tool("fill_pipes", "Fills pipes", &[number("limit")], resources::fill_pipes),
    tool("fill_sockets", "Fills sockets", &[number("limit")], resources::fill_sockets),
    tool("grow_stack", "Calls itself ever deeper", &[number("limit")], resources::grow_stack),
    tool("grow_file", "Makes one file very large", &[SCRATCH, number("limit")], resources::grow_file),
    tool("flood_messages", "Writes messages without end", &[number("limit")], resources::flood_messages),
    tool("flood_errors", "Writes to standard error", &[number("limit")], resources::flood_errors),
    tool("ask_client", "Asks the client", &[text("mark")], answers::ask_client),
    tool(
        "send_malformed",
        "Answers in ways that parsers differ on",
        &[text("mark"), text("id")],
        answers::send_malformed,
    ),
    tool("inject_into_log", "Writes lines into the log", &[text("mark")], answers::inject_into_log),
];

/// The tool of that name.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// The name of each tool.
pub fn tool_names() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|tool| tool.name)
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
