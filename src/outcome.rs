//! Neutral values about how a cell ended: status, usage, violations, receipt.
//!
//! Neighbours: made by `launch` and `watch`, read by `mcp`, `commands` and `audit`. Never: does I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Floor;

/// How one call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Status {
    /// The server answered with a result, or the command exited with 0.
    Completed,
    /// The server answered with an error or `isError`, or the command exited otherwise.
    Failed {
        /// What it said, short, or the exit status.
        detail: String,
    },
    /// A limit stopped the call.
    Limit {
        /// Which one.
        limit: Limit,
    },
    /// The client cancelled the call, went away, or did not answer the server's question.
    Cancelled,
    /// The call was refused before a payload ran.
    Refused {
        /// The step or rule that refused, and why.
        detail: String,
    },
    /// The payload ended, or broke the protocol, without an answer.
    Died {
        /// Exit status or signal, or what it did instead of answering.
        detail: String,
    },
}

/// A limit of the `[limits]` or `[filesystem]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// `limits.memory`
    Memory,
    /// `limits.cpu`
    Cpu,
    /// `limits.tasks`
    Tasks,
    /// `limits.time`
    Time,
    /// `limits.output`
    Output,
    /// `limits.open-files`
    OpenFiles,
    /// `limits.file-size`
    FileSize,
    /// `filesystem.scratch`
    Scratch,
}

impl Limit {
    /// The key's name in a profile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Tasks => "tasks",
            Self::Time => "time",
            Self::Output => "output",
            Self::OpenFiles => "open-files",
            Self::FileSize => "file-size",
            Self::Scratch => "scratch",
        }
    }

    /// The section of a profile that holds the key.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Scratch => "filesystem",
            Self::Memory
            | Self::Cpu
            | Self::Tasks
            | Self::Time
            | Self::Output
            | Self::OpenFiles
            | Self::FileSize => "limits",
        }
    }
}

/// What a cell used, read after its last process was gone. `None`: the host could not count it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds of CPU, user and system, of all processes of the cell.
    pub cpu_us: Option<u64>,
    /// Microseconds the cell waited because of its CPU limit.
    pub throttled_us: Option<u64>,
    /// Highest memory use in bytes.
    pub memory_peak: Option<u64>,
    /// Highest number of processes and threads.
    pub tasks_peak: Option<u64>,
    /// Bytes in use in the scratch directory at the end.
    pub scratch_used: Option<u64>,
    /// Bytes sent to the payload's stdin.
    pub bytes_in: u64,
    /// Bytes read from the payload's stdout.
    pub bytes_out: u64,
    /// Wall-clock microseconds from the request to launch to the last process gone.
    pub wall_us: u64,
}

/// Where this host reaches a port of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The port in the cell.
    pub port: u16,
    /// An address and port of the loopback, or the path of a socket.
    pub at: String,
}

impl Reached {
    /// One sentence for who is to connect.
    #[must_use]
    pub fn words(&self) -> String {
        format!("port {} of the cell is reached at {}", self.port, self.at)
    }
}

/// What went through the doors of a call's cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Each connection that is over, the first of them.
    pub connections: Vec<Connection>,
    /// How many more there were.
    pub left_out: u64,
    /// Bytes that all of them sent.
    pub up: u64,
    /// Bytes that all of them were sent.
    pub down: u64,
    /// Where ports of the cell were reached.
    #[serde(default)]
    pub listens: Vec<Reached>,
}

/// One connection through a door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The door: `HOST:PORT`, the host as it was asked for; of one into the cell, `port PORT`.
    pub to: String,
    /// Of one into the cell: where on this host it began.
    #[serde(default)]
    pub from: Option<String>,
    /// The address and port that it led to, or of who came into the cell; `null` when nobody was there.
    pub address: Option<String>,
    /// Bytes from the cell.
    pub up: u64,
    /// Bytes to the cell.
    pub down: u64,
    /// How long it took, from the cell's connect on, in microseconds.
    pub duration_us: u64,
    /// Who ended it.
    pub closed_by: ClosedBy,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// The cell was the first to end it.
    Cell,
    /// The other side was.
    Destination,
    /// The door ended it, after an answer of its own or because nothing came in time.
    Door,
    /// It had passed as many bytes, or lasted as long, as the policy lets it.
    Limit,
    /// The cell was over.
    End,
    /// It never led anywhere: the name was not found, or nobody answered.
    Unreachable,
}

impl ClosedBy {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Destination => "destination",
            Self::Door => "door",
            Self::Limit => "limit",
            Self::End => "end",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What a call that is narrowed has of what its profile grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// `read`, `write`, `execute`, `list` or `connect`.
    pub access: String,
    /// The path; with `connect`, the destination.
    pub path: String,
    /// Which words of the call say so, as a JSON Pointer into its parameters, in which `*` is every element of an array; `null`: the
    /// profile, of which this is left.
    pub by: Option<String>,
}

/// What a call did to the directories whose writes are reviewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What became of it.
    pub verdict: Verdict,
    /// File by file, the first of them.
    pub files: Vec<Change>,
    /// How many more there are.
    pub left_out: u64,
}

/// What became of a call's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of them were done to the directories.
    Applied,
    /// None of them was.
    Refused,
    /// The host failed on the way: some were.
    Partly,
}

/// One file that a call added, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// The path on the host; of a directory, with `/` at its end.
    pub path: String,
    /// Its size afterwards, in bytes.
    pub size: u64,
}

/// How a file is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}

impl ChangeKind {
    /// The word in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// Which layer refused or limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// User, mount, pid, net, ipc, uts, cgroup and time namespaces.
    Namespaces,
    /// The private root: what was not granted does not exist.
    Root,
    /// Landlock rules.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// Capabilities, securebits and `no_new_privs`.
    Capabilities,
    /// cgroup controllers.
    Cgroup,
    /// Resource limits of a process.
    Rlimit,
    /// The wall-clock limit.
    Deadline,
    /// The cap on output.
    Output,
    /// The rules of MCP and JSON-RPC.
    Protocol,
    /// Who may call what: identities and roles of the configuration.
    Access,
    /// What a call's arguments must be, and a result's structured content.
    Arguments,
    /// What keeps a tool out that was refused too much.
    Quarantine,
    /// What was accepted of a server in `toolcell.lock`.
    Lock,
    /// What of a call's changes may be done to the host.
    Review,
    /// The doors: the only ways out of the cell's network namespace.
    Network,
}

impl Layer {
    /// The name used in records, explanations and the receipt.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Capabilities => "capabilities",
            Self::Cgroup => "cgroup",
            Self::Rlimit => "rlimit",
            Self::Deadline => "deadline",
            Self::Output => "output",
            Self::Protocol => "protocol",
            Self::Access => "access",
            Self::Arguments => "arguments",
            Self::Quarantine => "quarantine",
            Self::Lock => "lock",
            Self::Review => "review",
            Self::Network => "network",
        }
    }
}

/// How a violation is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The kernel counted or signalled it.
    Kernel,
    /// The supervisor saw it on the wire or by its own clock.
    Supervisor,
    /// The payload's own words; it may be wrong, or lie.
    Reported,
}

/// One thing refused or one limit hit. Every text in it may stem from the cell and is escaped when written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which layer refused.
    pub layer: Layer,
    /// The limit, when it is one.
    pub limit: Option<Limit>,
    /// What was tried: `allocate`, `fork`, `write`, `answer`, …
    pub operation: String,
    /// On what: a path, an id, an address; empty when there is none.
    pub object: String,
    /// The errno's name as the payload saw it, if it saw one.
    pub errno: Option<String>,
    /// How often.
    pub count: u64,
    /// The limit's value in bytes, tasks, thousandths of a CPU or microseconds.
    pub value: Option<u64>,
    /// The peak in the same unit.
    pub peak: Option<u64>,
    /// The rule, e.g. "`limits.memory` of profile `default`".
    pub rule: String,
    /// The TOML that would allow it, or `None` when nothing should.
    pub allow: Option<String>,
    /// How it is known.
    pub evidence: Evidence,
    /// When it was first seen, in microseconds after the cell was ready; `None` when nobody saw when.
    #[serde(default)]
    pub first_us: Option<u64>,
    /// When it was last seen, in the same way.
    #[serde(default)]
    pub last_us: Option<u64>,
}

impl Violation {
    /// What toolcell itself has seen once, by a rule of its own and no limit.
    #[must_use]
    pub fn of_toolcell(layer: Layer, operation: &str, rule: String) -> Self {
        Self {
            layer,
            limit: None,
            operation: operation.to_owned(),
            object: String::new(),
            errno: None,
            count: 1,
            value: None,
            peak: None,
            rule,
            allow: None,
            evidence: Evidence::Supervisor,
            first_us: None,
            last_us: None,
        }
    }

    /// A refused attempt in one sentence, without a full stop; for what is no limit.
    #[must_use]
    pub fn sentence(&self) -> String {
        let about = if self.object.is_empty() { String::new() } else { format!(" ({})", self.object) };
        let errno = self.errno.as_ref().map_or_else(String::new, |errno| format!(" with {errno}"));
        let times = if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        format!("`{}`{about} was refused{errno}, {times}, by {}", self.operation, self.rule)
    }
}

/// One secret that a call's tool got, or was to get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name in the configuration.
    pub name: String,
    /// How the tool gets it: `env NAME` or `file PATH`.
    pub into: String,
    /// `fresh`, `due`, `overdue` or `unreadable`.
    pub state: String,
    /// How old it was, in seconds, where anything tells.
    pub age_s: Option<u64>,
    /// How old it may be, in seconds, if that is limited.
    pub max_age_s: Option<u64>,
    /// Where it was found in what the tool said, and taken out.
    #[serde(default)]
    pub redacted: Vec<Redaction>,
}

/// A secret that was taken out of what a tool said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// `exact`, `line`, `json`, `base64`, `hex`, `url`, or `part` of one of these.
    pub form: String,
    /// `result`, `error`, a method such as `notifications/progress`, `stdout`, `stderr`, `violation`, `parameters`.
    pub place: String,
    /// How often.
    pub count: u64,
}

/// How much of what a layer refused stands in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// All of it.
    Complete,
    /// Some of it: more may have been refused than stands there with what it was about.
    Sampled,
    /// The layer tells nobody but the payload: that nothing is in the record means nothing.
    Blind,
}

/// When a cell was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Built {
    /// For the call, after its `started` record.
    #[default]
    OnDemand,
    /// Before the call, up to but not including the start of its payload.
    Ahead,
    /// For the session of the client: other calls may have run in it.
    Session,
    /// Before the call, with its server started and stopped until then.
    Spare,
}

/// What was really enforced for one call, verified from inside the cell by init before exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The rung that the verified layers amount to.
    pub floor: Floor,
    /// When the cell was built, and its layers verified.
    #[serde(default)]
    pub cell: Built,
    /// Layer name → what was seen, e.g. `seccomp` → "filter, 1 program".
    pub layers: BTreeMap<String, String>,
    /// Layer name → whether the record has all that the layer refused.
    #[serde(default)]
    pub coverage: BTreeMap<String, Coverage>,
    /// Layer name → why its coverage is no better, where that is the host's doing.
    #[serde(default)]
    pub reasons: BTreeMap<String, String>,
}
