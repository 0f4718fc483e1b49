//! Facts about this host that a plan needs: read once, handed over as values.
//!
//! Neighbours: `plan` takes [`Facts`] and [`view::Seen`] paths; `host::runtime` finds what a program needs to start.
//! Never: decides.

pub mod bounded;
mod bus;
pub mod cgroups;
mod delegation;
pub mod denials;
pub mod lands;
pub mod narrow;
pub mod probe;
pub mod program;
pub mod reach;
pub mod runtime;
mod scope;
pub mod view;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

pub use denials::Untold;

use crate::sys::{identity, landlock, process};

/// What a plan may depend on.
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
    pub cgroup: Result<Cgroup, NoCgroup>,
    /// Why no cell can have namespaces and a private root, if that was tried and failed.
    pub no_namespaces: Option<probe::Failed>,
    /// Whether what Landlock refuses can be read, or why not.
    pub denials: Result<(), Untold>,
    /// Where directories of cells without a private root are made.
    pub temporary: PathBuf,
}

/// Where the cell's cgroup directories can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// cgroup v1: controller name and the directory to make the cell's own in, one a hierarchy.
    V1(Vec<(String, PathBuf)>),
    /// cgroup v2: the directory whose controllers are enabled for children.
    V2(PathBuf),
}

/// Why no cgroup can be made, and what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NoCgroup {
    /// The reason, naming the directory and the errno.
    pub why: String,
    /// The call that failed, if one did.
    pub failed: Option<probe::Failed>,
    /// The remedy.
    pub hint: String,
}

/// First of the ids that a toolcell started by root gives its payloads: far above those that systems assign
/// (its documentation of user ids leaves `0x7000_0000` to `0x7ffd_ffff` free), one id a supervisor, so that two supervisors' payloads are strangers.
const PAYLOADS_OF_ROOT: u32 = 0x7000_0000;

impl Facts {
    /// Reads the facts. Nothing is changed on the host but the place of this process in cgroup v2: in a cgroup delegated
    /// to it alone it moves to a leaf; where none is delegated, it asks the user's systemd for one. Children that it
    /// has by then stay where they are.
    #[must_use]
    pub fn gather() -> Self {
        let (uid, gid) = identity::effective();
        let payload = if uid == 0 {
            let own = PAYLOADS_OF_ROOT + process::pid();
            (own, own)
        } else {
            (uid, gid)
        };
        Self {
            uid,
            gid,
            payload,
            landlock_abi: landlock::abi(),
            cgroup: cgroups::find(),
            no_namespaces: None,
            denials: Err(Untold::NotAsked),
            temporary: temporary(uid),
        }
    }

    /// Opens what tells of Landlock's refusals, for who writes them down.
    ///
    /// # Errors
    /// Why there is nothing to be told.
    pub fn follow_denials(&mut self) -> Result<OwnedFd, Untold> {
        let opened = denials::follow(self.landlock_abi);
        self.denials = opened.as_ref().map(|_socket| ()).map_err(Clone::clone);
        opened
    }

    /// Tries namespaces and the private root in children of their own, for a policy that accepts to do without.
    pub fn try_namespaces(&mut self) {
        self.no_namespaces = probe::namespaces(self).err();
    }
}

/// Where directories of cells without a private root are made: the user's own runtime directory, if there is one. The payload of root is somebody else, who
/// could not reach into root's.
fn temporary(uid: u32) -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| uid != 0).map(PathBuf::from);
    let private = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.uid() == uid && found.mode() & 0o777 == 0o700)
    };
    let parent = own.filter(private).unwrap_or_else(|| PathBuf::from("/tmp"));
    fs::canonicalize(&parent).unwrap_or(parent)
}
