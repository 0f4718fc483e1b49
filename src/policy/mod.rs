//! A profile resolved: inherited, merged, validated. Values only; no file and no TOML type is in them.
//!
//! Neighbours: `policy::resolve` makes a [`Policy`] of profiles; `plan` turns a policy and host facts into steps.
//! Never: does I/O outside `policy::files`, the one reader; knows JSON-RPC; touches the kernel.
//!
//! Where rules nest, the longest path decides: `read` within `write` cannot be written. `deny` is above all
//! of them: what lies beneath it is hidden, and a grant beneath it is a mistake.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod add;
pub mod address;
pub mod bounds;
mod built_in;
pub mod check;
pub mod config;
pub mod connect;
pub mod door;
pub mod files;
pub mod http;
pub mod limits;
pub mod listen;
mod literal;
pub mod mistakes;
pub mod mode;
pub mod network;
pub mod path;
pub mod pattern;
pub mod pointer;
pub mod print;
pub mod profile;
pub mod resolve;
pub mod source;
pub mod syscalls;
mod tighten;
pub mod tokens;
mod toml_file;
pub mod traps;
pub mod units;
pub mod unix_socket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use toml_file::Source;

/// What a tool may see, reach and use. Every list that is empty allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The profile's name, as it stands in records and messages.
    pub name: String,
    /// One sentence: what the profile is for.
    pub description: String,
    /// What is visible, and how.
    pub filesystem: Filesystem,
    /// What the cell may use up.
    pub limits: Limits,
    /// Changes to the default system call list.
    pub syscalls: Syscalls,
    /// What the payload's environment holds.
    pub environment: Environment,
    /// How a call is written down.
    pub audit: Audit,
    /// The weakest isolation that is accepted; below it the call is refused.
    pub floor: Floor,
    /// What the record tells of refusals.
    #[serde(default)]
    pub observe: Observe,
    /// What can be reached over the network.
    #[serde(default)]
    pub network: network::Network,
}

/// What the record tells of refusals, beyond limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observe {
    /// System calls that the filter refuses.
    #[default]
    Calls,
    /// These, and files that the cell lacks: each `open` takes longer for it.
    Files,
}

impl Observe {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Calls, Self::Files];

    /// The name in a profile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Files => "files",
        }
    }
}

/// A path in a rule, absolute and with variables replaced, and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// Absolute path on the host, the same inside the cell; not yet resolved through symbolic links.
    pub path: PathBuf,
    /// Why the rule exists; empty for a rule typed on the command line.
    pub why: String,
    /// Where the rule comes from, e.g. "profile `node`" or "`--read`".
    pub origin: String,
    /// A missing path is skipped when true, and an error when false.
    pub optional: bool,
}

/// The `[filesystem]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Readable, not writable, not executable.
    pub read: Vec<PathRule>,
    /// Readable and writable, not executable.
    pub write: Vec<PathRule>,
    /// Readable and executable (programs and the libraries they map).
    pub execute: Vec<PathRule>,
    /// Directories of which the names can be read and no file: what a call's arguments make of `read`.
    #[serde(default)]
    pub list: Vec<PathRule>,
    /// Hidden although a grant above it would show it.
    pub deny: Vec<PathRule>,
    /// Size in bytes of the private `/tmp`, gone with the cell. Zero: no `/tmp`.
    pub scratch: u64,
    /// Files in it can be executed: the profile names `/tmp` in `execute`. The host's own `/tmp` is never granted.
    #[serde(default)]
    pub scratch_execute: bool,
    /// Where what is written to `write` goes.
    #[serde(default)]
    pub writes: Writes,
}

/// Where what a tool writes to a granted directory goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    /// To the directory.
    #[default]
    Direct,
    /// To memory of the cell, gone with it.
    Discard,
    /// To memory of the cell; after success, what changed is checked and done to the directory, or not at all.
    Review,
    /// The same, when a person has agreed to it.
    Ask,
}

impl Writes {
    /// Every choice.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Discard, Self::Review, Self::Ask];

    /// The name in a profile and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Discard => "discard",
            Self::Review => "review",
            Self::Ask => "ask",
        }
    }

    /// Is what changed checked and done after success?
    #[must_use]
    pub const fn is_reviewed(self) -> bool {
        matches!(self, Self::Review | Self::Ask)
    }

    /// Is a granted directory one that the cell cannot change itself?
    #[must_use]
    pub const fn overlays(self) -> bool {
        !matches!(self, Self::Direct)
    }
}

/// The `[limits]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory for the whole cell, page cache and tmpfs included (cgroup).
    pub memory: u64,
    /// Thousandths of one CPU: 500 is half a core (cgroup).
    pub cpu: u32,
    /// Processes and threads together (cgroup).
    pub tasks: u32,
    /// Wall-clock time for one call.
    pub time: Duration,
    /// Bytes that one call may write to stdout.
    pub output: u64,
    /// Open descriptors in one process (`RLIMIT_NOFILE`).
    pub open_files: u32,
    /// Bytes of one file that is written (`RLIMIT_FSIZE`).
    pub file_size: u64,
}

/// The `[syscalls]` section, on top of the built-in allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscalls {
    /// Names added to the allow-list.
    pub allow: Vec<String>,
    /// Names taken from it; wins over `allow`.
    pub deny: Vec<String>,
}

/// The `[environment]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Names of variables copied from the supervisor's environment, if set there.
    pub pass: Vec<String>,
    /// Variables set to a fixed value; wins over `pass`.
    pub set: BTreeMap<String, String>,
}

/// The `[audit]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// JSON Pointers (RFC 6901) into the call's parameters whose values are replaced in the record;
    /// the empty pointer `""` replaces all of them.
    pub redact: Vec<String>,
}

/// A rung of the ladder of isolation. Beside each rung is another, of cells that are in the host's network and have all else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// No namespaces: Landlock, seccomp, resource limits of the process.
    Landlock,
    /// Everything but the cgroup limits.
    NoCgroup,
    /// Every layer.
    Full,
    /// Every layer, but the network is the host's.
    HostNetwork,
    /// The same without the cgroup limits.
    HostNetworkNoCgroup,
    /// The same without namespaces.
    HostNetworkLandlock,
}

impl Floor {
    /// Rungs with a network of the cell's own, strongest first: what a host can give without being asked for less.
    pub const OWN_NETWORK: [Self; 3] = [Self::Full, Self::NoCgroup, Self::Landlock];

    /// All rungs, those with a network of the cell's own first.
    pub const ALL: [Self; 6] = [
        Self::Full,
        Self::NoCgroup,
        Self::Landlock,
        Self::HostNetwork,
        Self::HostNetworkNoCgroup,
        Self::HostNetworkLandlock,
    ];

    /// The name used in profiles, options and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoCgroup => "no-cgroup",
            Self::Landlock => "landlock",
            Self::HostNetwork => "host-network",
            Self::HostNetworkNoCgroup => "host-network-no-cgroup",
            Self::HostNetworkLandlock => "host-network-landlock",
        }
    }

    /// The same, with a network of the cell's own.
    #[must_use]
    pub const fn with_own_network(self) -> Self {
        match self {
            Self::Full | Self::HostNetwork => Self::Full,
            Self::NoCgroup | Self::HostNetworkNoCgroup => Self::NoCgroup,
            Self::Landlock | Self::HostNetworkLandlock => Self::Landlock,
        }
    }

    /// The same, in the host's network.
    #[must_use]
    pub const fn with_host_network(self) -> Self {
        match self {
            Self::Full | Self::HostNetwork => Self::HostNetwork,
            Self::NoCgroup | Self::HostNetworkNoCgroup => Self::HostNetworkNoCgroup,
            Self::Landlock | Self::HostNetworkLandlock => Self::HostNetworkLandlock,
        }
    }

    /// Is the network the cell's own, or is none needed to be?
    #[must_use]
    pub const fn has_own_network(self) -> bool {
        matches!(self, Self::Full | Self::NoCgroup | Self::Landlock)
    }

    /// Without a private root, and without a namespace at all?
    #[must_use]
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::Landlock | Self::HostNetworkLandlock)
    }

    /// Is a cell on this rung good enough for who names this floor? Who accepts the host's network accepts no less of anything
    /// else by that, and the other way round.
    #[must_use]
    pub const fn accepts(self, rung: Self) -> bool {
        let least = match self {
            Self::Full | Self::HostNetwork => matches!(rung.with_own_network(), Self::Full),
            Self::NoCgroup | Self::HostNetworkNoCgroup => !rung.is_bare(),
            Self::Landlock | Self::HostNetworkLandlock => true,
        };
        least && (rung.has_own_network() || !self.has_own_network())
    }
}

#[cfg(test)]
mod tests;
