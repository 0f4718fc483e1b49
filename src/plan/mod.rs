//! The ordered list of plain steps that builds one cell. Two equal inputs give the same plan, byte for byte.
//!
//! Neighbours: takes a [`crate::policy::Policy`] and [`crate::host`] facts, gives a [`Plan`] to `launch` and `explain`.
//! Never: reads clock, files, environment or kernel.

pub mod build;
pub mod doors;
pub mod explain;
mod limited;
pub mod lost;
mod overlays;
pub mod places;
pub mod prelude;
pub mod review;
mod rung;
pub mod seccomp;
pub mod shown;
pub mod step;
pub mod why;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use step::Step;

use crate::host::NoCgroup;
use crate::host::probe::Failed;
use crate::policy::Floor;
use crate::policy::mode::HOST;

/// What the launcher runs for one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The rung that these steps amount to.
    pub floor: Floor,
    /// In order.
    pub steps: Vec<Step>,
}

/// A plan, or the end of one, as [`Plan::read`] takes it, from one process to another of the same program: not a format
/// to be kept.
///
/// # Errors
/// None that the types allow.
pub fn written(floor: Floor, steps: &[Step]) -> postcard::Result<Vec<u8>> {
    postcard::to_allocvec(&(floor, steps))
}

impl Plan {
    /// What [`written`] was given.
    ///
    /// # Errors
    /// The bytes are none of its.
    pub fn read(bytes: &[u8]) -> postcard::Result<Self> {
        postcard::from_bytes(bytes).map(|(floor, steps)| Self { floor, steps })
    }
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host is below the floor.
    #[error("this host reaches the floor `{}`, the profile asks for `{}`", reached.name(), wanted.name())]
    Floor {
        /// What the policy accepts at least.
        wanted: Floor,
        /// What there is.
        reached: Floor,
        /// What is missing.
        #[source]
        why: NoCgroup,
    },
    /// No Landlock at all.
    #[error("this kernel has no Landlock, or does not name it in its `lsm=` list")]
    NoLandlock,
    /// The only rung that this host reaches needs a newer one.
    #[error("without namespaces, Landlock's ABI must be 6 or newer, and this kernel has {abi}")]
    OldLandlock {
        /// What there is.
        abi: u32,
    },
    /// The profile's network is the host's, and its floor does not say that this is accepted.
    #[error("the profile's network is the host's, and its floor `{}` asks for one of the cell's own", wanted.name())]
    HostNetwork {
        /// What the policy accepts at least.
        wanted: Floor,
    },
    /// The host's network has sockets that only a newer one keeps out of reach.
    #[error("in the host's network, Landlock's ABI must be 6 or newer, and this kernel has {abi}")]
    OldScope {
        /// What there is.
        abi: u32,
    },
    /// The only rung that this host reaches cannot take something out of what is granted.
    #[error("without a private root, `{}` cannot be {what} than the grant above it allows", path.display())]
    NeedsRoot {
        /// Which path.
        path: PathBuf,
        /// In what.
        what: &'static str,
        /// Why there is no private root.
        failed: Failed,
    },
    /// The only rung that this host reaches cannot protect what the host would run from a writable directory.
    #[error(
        "without a private root, what the host would run from a writable directory cannot be protected: {}",
        first_of(names)
    )]
    Unprotected {
        /// What would stay open to the tool.
        names: Vec<PathBuf>,
        /// Why there is no private root.
        failed: Failed,
    },
    /// The only rung that this host reaches has no overlays.
    #[error("without a private root, what is written to `{}` can only go there directly", path.display())]
    NoOverlay {
        /// Which path.
        path: PathBuf,
        /// Why there is no private root.
        failed: Failed,
    },
    /// The only rung that this host reaches has no place for what a server keeps.
    #[error("without a private root, there is no place in a cell for what its server keeps (`persist`)")]
    NoPersist {
        /// Why there is no private root.
        failed: Failed,
    },
    /// The only rung that this host reaches has no doors.
    #[error("without a network namespace, `{destination}` cannot be the only way out")]
    NoDoors {
        /// The first destination.
        destination: String,
        /// Why there is no such namespace.
        failed: Failed,
    },
    /// The only rung that this host reaches has no ports of the cell's own.
    #[error("without a network namespace, port {port} would be the host's and not the cell's")]
    NoListen {
        /// The first port.
        port: u16,
        /// Why there is no such namespace.
        failed: Failed,
    },
    /// What would keep a program to its ports is not in this kernel.
    #[error(
        "Landlock of this kernel (ABI {abi}) holds no ports, and a program could listen at others than {port}"
    )]
    OldPorts {
        /// The first port.
        port: u16,
        /// What there is.
        abi: u32,
    },
    /// More destinations than a cell can have doors.
    #[error("the policy has {count} destinations, and a cell can have {most}")]
    TooManyDoors {
        /// How many there are.
        count: usize,
        /// How many there can be.
        most: usize,
    },
    /// More is said of doors than can be told for one cell.
    #[error("what `[network]` lets out takes {size} bytes to tell, and that of one cell can take {most}")]
    LargeDoors {
        /// How many it takes.
        size: usize,
        /// How many it can.
        most: usize,
    },
    /// An address of a kind that this host does not have.
    #[error("this host has no IPv6, and so no cell can have a door at `{destination}`")]
    NoIpv6 {
        /// Which.
        destination: String,
    },
    /// A file is granted for writing where writes do not go to the host.
    #[error("`{}` is a file, and what is written to a single file can only go there directly", path.display())]
    FileDirect {
        /// Which.
        path: PathBuf,
    },
    /// A system call that is unknown, or that no profile can allow.
    #[error("cannot compile the system call filter")]
    Syscall(#[source] seccomp::BadSyscall),
    /// A path is granted and denied by the same name.
    #[error("`{}` is granted and denied at once", path.display())]
    GrantedAndDenied {
        /// Which.
        path: PathBuf,
    },
}

fn first_of(names: &[PathBuf]) -> String {
    let first = names.first().map(|name| format!("`{}`", name.display())).unwrap_or_default();
    match names.len() {
        0 | 1 => first,
        all => format!("{first} and {} more", all - 1),
    }
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Floor { why, .. } => Some(why.hint.clone()),
            Self::NoLandlock => {
                Some("boot with `landlock` in `lsm=`; `toolcell doctor` shows the list".to_owned())
            }
            Self::OldLandlock { .. } => Some(
                "Linux 6.12 and newer have it; or let this host make namespaces: see `toolcell doctor`"
                    .to_owned(),
            ),
            Self::HostNetwork { wanted } => Some(format!(
                "to accept that, write `floor = \"{accepted}\"` at the top of the profile, or type `--floor {accepted}`; to have doors \
                 instead, take `{HOST}` out of `[network]`",
                accepted = wanted.with_host_network().name()
            )),
            Self::OldScope { .. } => Some(format!(
                "Linux 6.12 and newer have it; or take `{HOST}` out of `[network]` and name in `allow` what is to be reached"
            )),
            Self::NeedsRoot { failed, .. } => Some(format!(
                "grant narrower directories, or let this host make namespaces ({} failed: {}): see `toolcell doctor`",
                failed.call, failed.errno
            )),
            Self::Unprotected { names, failed } => Some(format!(
                "let this host make namespaces ({} failed: {}): see `toolcell doctor`; or leave these names to the tool: \
                 `write = [{}]` in `[filesystem]`",
                failed.call,
                failed.errno,
                names.iter().map(|name| why::optional(name)).collect::<Vec<_>>().join(", ")
            )),
            Self::NoOverlay { failed, .. } => Some(format!(
                "let this host make namespaces ({} failed: {}): see `toolcell doctor`; or set `writes = \"direct\"` in `[filesystem]`",
                failed.call, failed.errno
            )),
            Self::NoPersist { failed } => Some(format!(
                "let this host make namespaces ({} failed: {}): see `toolcell doctor`; or take `persist` out of the configuration",
                failed.call, failed.errno
            )),
            Self::NoDoors { failed, .. } => Some(format!(
                "let this host make namespaces ({} failed: {}): see `toolcell doctor`; or take `allow` and `allow-unix` out of `[network]`",
                failed.call, failed.errno
            )),
            Self::NoListen { failed, .. } => Some(format!(
                "let this host make namespaces ({} failed: {}): see `toolcell doctor`; or take `listen` out of `[network]`",
                failed.call, failed.errno
            )),
            Self::OldPorts { .. } => {
                Some("Linux 6.7 and newer hold them; or take `listen` out of `[network]`".to_owned())
            }
            Self::TooManyDoors { .. } => Some(
                "split the tools over several profiles, or write a pattern such as `*.example.com:443`"
                    .to_owned(),
            ),
            Self::LargeDoors { .. } => Some(
                "write fewer `paths`: `*` stands for any one part, `**` at the end for all below; or split the tools over several profiles"
                    .to_owned(),
            ),
            Self::NoIpv6 { .. } => Some("allow the host by its name".to_owned()),
            Self::FileDirect { .. } => Some(
                "grant the directory that it is in, or set `writes = \"direct\"` in `[filesystem]`"
                    .to_owned(),
            ),
            Self::Syscall(error) => error.hint(),
            Self::GrantedAndDenied { path } => {
                Some(format!("take `{}` out of either the grant or `deny`", path.display()))
            }
        }
    }
}
