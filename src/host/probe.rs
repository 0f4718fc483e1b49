//! Finds out by trying which parts of a cell this host gives to this process, each in a child of its own.
//!
//! Neighbours: `commands::doctor` runs it; `probe::causes` says why a part is missing. Never: concludes anything from
//! a version number, changes the host.

pub mod causes;
pub mod child;
pub mod clues;
mod kernel;
pub mod repairs;

use serde::{Deserialize, Serialize};

use super::{Cgroup, Facts, cgroups};
use crate::launch::LaunchError;
use crate::sys::Errno;

/// A part of a cell that a host has or lacks on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A user namespace with one id mapped, and no further one below it.
    UserNamespace,
    /// A mount namespace, the descriptor-based mount calls, and `pivot_root`.
    MountNamespace,
    /// Files of one owner seen as another's (only for cells started by root).
    IdmappedMounts,
    /// Writes that stay in the cell (only for profiles whose `writes` is not `direct`).
    Overlay,
    /// Directories of the host's, removed in an overlay with what is in them.
    OverlayRemovals,
    /// A pid namespace with a `/proc` of its own.
    PidNamespace,
    /// A network namespace whose loopback is up.
    NetNamespace,
    /// Addresses and ports of one's own in it (only for profiles with `[network]`).
    Doors,
    /// IPC, UTS, time and cgroup namespaces.
    OtherNamespaces,
    /// Giving up every capability for good.
    Capabilities,
    /// Landlock.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// Opening without following links.
    Openat2,
    /// Closing every inherited descriptor.
    CloseRange,
    /// Process descriptors.
    Pidfd,
    /// Limits for memory, tasks and CPU.
    Cgroup,
}

impl Part {
    /// All, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::UserNamespace,
        Self::MountNamespace,
        Self::IdmappedMounts,
        Self::Overlay,
        Self::OverlayRemovals,
        Self::PidNamespace,
        Self::NetNamespace,
        Self::Doors,
        Self::OtherNamespaces,
        Self::Capabilities,
        Self::Landlock,
        Self::Seccomp,
        Self::Openat2,
        Self::CloseRange,
        Self::Pidfd,
        Self::Cgroup,
    ];

    /// The key in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::IdmappedMounts => "idmapped-mounts",
            Self::Overlay => "overlay",
            Self::OverlayRemovals => "overlay-removals",
            Self::PidNamespace => "pid-namespace",
            Self::NetNamespace => "net-namespace",
            Self::Doors => "doors",
            Self::OtherNamespaces => "other-namespaces",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Openat2 => "openat2",
            Self::CloseRange => "close_range",
            Self::Pidfd => "pidfd",
            Self::Cgroup => "cgroup",
        }
    }

    /// The part that a step of a launch rests on.
    #[must_use]
    pub fn of_step(step: &str) -> Option<Self> {
        Some(match step {
            "clone" | "map-ids" | "unshare-user" | "forbid-user-namespaces" => Self::UserNamespace,
            "isolate-mounts" | "mount-root" | "mount-scratch" | "pivot-root" => Self::MountNamespace,
            "mount-changes" | "mount-overlay" | "detach-changes" => Self::Overlay,
            "mount-proc" => Self::PidNamespace,
            "loopback-up" => Self::NetNamespace,
            "open-doors" => Self::Doors,
            "set-hostname" => Self::OtherNamespaces,
            "drop-capabilities" => Self::Capabilities,
            "landlock" => Self::Landlock,
            "seccomp" | "no-new-privileges" => Self::Seccomp,
            "create-cgroup" | "join-cgroup" => Self::Cgroup,
            _ => return None,
        })
    }
}

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its name.
    pub call: String,
    /// What it was about; empty when the name says it all.
    pub object: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Failed {
    pub(crate) fn new(call: &str, object: &str, errno: Errno) -> Self {
        Self { call: call.to_owned(), object: object.to_owned(), errno }
    }
}

/// What was found about one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It works.
    There {
        /// Version or place; may be empty.
        detail: String,
    },
    /// It does not.
    Missing {
        /// The call that failed, if one did.
        failed: Option<Failed>,
        /// Why it is missing.
        cause: String,
        /// What to type.
        fix: String,
    },
    /// It could not be tried, because it needs this part.
    Needs(Part),
    /// This caller's cells do without.
    NotNeeded,
}

/// What to do about a step of a launch that failed: the cause on this host where it is the host that refuses and shows why, else
/// what the step alone tells.
#[must_use]
pub fn hint(error: &LaunchError) -> Option<String> {
    causes::hint(error, clues::Clues::of_process())
}

/// Tries every part as the caller, who has these facts.
#[must_use]
pub fn run(facts: &Facts, clues: &clues::Clues) -> Vec<(Part, State)> {
    let caller = kernel::Caller { root: facts.uid == 0, payload: facts.payload };
    let mut found: Vec<(Part, State)> = Vec::new();
    for part in Part::ALL {
        let state = if part == Part::Cgroup { cgroup(facts) } else { try_part(caller, part, clues, &found) };
        found.push((part, state));
    }
    found
}

/// Tries what a cell with namespaces and a private root rests on.
///
/// # Errors
/// The first call that fails.
pub(super) fn namespaces(facts: &Facts) -> Result<(), Failed> {
    let caller = kernel::Caller { root: facts.uid == 0, payload: facts.payload };
    let parts = [
        Part::UserNamespace,
        Part::MountNamespace,
        Part::PidNamespace,
        Part::NetNamespace,
        Part::OtherNamespaces,
    ];
    parts.into_iter().try_for_each(|part| kernel::probe(caller, part).map(drop))
}

fn try_part(caller: kernel::Caller, part: Part, clues: &clues::Clues, found: &[(Part, State)]) -> State {
    // A cell of an ordinary user has its user namespace first, and everything else through it.
    let rests_on_user = matches!(
        part,
        Part::MountNamespace
            | Part::Overlay
            | Part::OverlayRemovals
            | Part::PidNamespace
            | Part::NetNamespace
            | Part::Doors
            | Part::OtherNamespaces
            | Part::Capabilities
    );
    if part == Part::IdmappedMounts && !caller.root {
        return State::NotNeeded;
    }
    let lacks = |part| found.iter().any(|(p, s)| *p == part && !matches!(s, State::There { .. }));
    if rests_on_user && !caller.root && lacks(Part::UserNamespace) {
        return State::Needs(Part::UserNamespace);
    }
    if part == Part::OverlayRemovals && lacks(Part::Overlay) {
        return State::Needs(Part::Overlay);
    }
    match kernel::probe(caller, part) {
        Ok(detail) => State::There { detail },
        Err(failed) => {
            let causes::Explanation { cause, fix } = causes::explain(part, &failed, clues);
            State::Missing { failed: Some(failed), cause, fix }
        }
    }
}

fn cgroup(facts: &Facts) -> State {
    match &facts.cgroup {
        Ok(Cgroup::V1(hierarchies)) => {
            let mut places: Vec<_> = hierarchies.iter().map(|(_, path)| path.display().to_string()).collect();
            places.dedup();
            State::There { detail: format!("v1, in {}", places.join(", ")) }
        }
        Ok(Cgroup::V2(path)) => {
            let asked = if cgroups::is_asked_for(path) { "a scope asked of systemd, " } else { "" };
            State::There { detail: format!("v2, in {asked}{}", path.display()) }
        }
        Err(none) => {
            State::Missing { failed: none.failed.clone(), cause: none.why.clone(), fix: none.hint.clone() }
        }
    }
}
