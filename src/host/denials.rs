//! Whether what Landlock refuses is logged, and can be read here; else why not, and what to do about it.
//!
//! Neighbours: `watch::denials` reads what is opened here. Never: switches auditing on: that is for the whole host.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::landlock::LOGGED;
use crate::sys::{Errno, audit};

/// The kernel answers from a thread of its own.
const PATIENCE: Duration = Duration::from_millis(200);

/// Why Landlock's refusals cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Untold {
    #[error("they are read only for a record")]
    NotAsked,
    #[error("Landlock logs what it refuses from ABI {LOGGED} on (Linux 6.15), and this kernel has {abi}")]
    Old { abi: u32 },
    #[error("this kernel has no audit subsystem")]
    NoAudit,
    #[error(
        "reading the host's audit records takes CAP_AUDIT_READ and CAP_AUDIT_CONTROL in its initial namespaces"
    )]
    NotAllowed,
    #[error("auditing is off on this host")]
    Off,
    #[error("this host panics when an audit record is lost, which a tool could bring about")]
    Panics,
    #[error("the audit subsystem cannot be asked: {0}")]
    Failed(Errno),
}

impl Untold {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Off => Some(
                "boot with `audit=1`, or for now, as root:\n  auditctl -e 1\nauditing is for the whole host, and takes time",
            ),
            Self::Panics => Some("as root:\n  auditctl -f 1"),
            Self::NotAllowed => Some("start toolcell as root, and not in a container"),
            Self::Old { .. } => Some("a newer kernel"),
            Self::NoAudit => Some("a kernel with CONFIG_AUDIT"),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }
}

/// Looks at what auditing is set to, and opens what tells of it.
///
/// # Errors
/// Why there is nothing to be told.
pub(super) fn follow(abi: u32) -> Result<OwnedFd, Untold> {
    if abi < LOGGED {
        return Err(Untold::Old { abi });
    }
    let status = audit::status(PATIENCE).map_err(refused)?;
    match status {
        audit::Status { enabled: false, .. } => Err(Untold::Off),
        audit::Status { panics: true, .. } => Err(Untold::Panics),
        audit::Status { .. } => audit::follow().map_err(refused),
    }
}

const fn refused(errno: Errno) -> Untold {
    match errno.0 {
        libc::EPROTONOSUPPORT => Untold::NoAudit,
        // In a user namespace the kernel says that nobody is there.
        libc::EPERM | libc::ECONNREFUSED => Untold::NotAllowed,
        _ => Untold::Failed(errno),
    }
}
