//! Facts about this host that a plan needs: read once, handed over as values.
//!
//! Neighbours: `plan` takes [`Facts`]; `host::runtime` finds what a program needs to start. Never: decides.

pub mod runtime;

use std::path::PathBuf;

/// One host fact each; what a plan may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Effective user id of the supervisor.
    pub uid: u32,
    /// Effective group id of the supervisor.
    pub gid: u32,
    /// User and group id of the payload on the host: the user's own, or an unprivileged one when started by root.
    pub payload: (u32, u32),
    /// Landlock ABI, 0 when there is none.
    pub landlock_abi: u32,
    /// cgroup limits: where, or why not.
    pub cgroup: Result<Cgroup, String>,
    /// Namespaces and mounts: usable, or which step failed and how.
    pub namespaces: Result<(), String>,
}

/// Where the cell's cgroup directories can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// cgroup v1: controller name and the directory to make the cell's own in, one a hierarchy.
    V1(Vec<(String, PathBuf)>),
    /// cgroup v2: the directory whose controllers are enabled for children.
    V2(PathBuf),
}
