//! Runs plans: the launcher makes cells, init builds each from inside and stays its pid 1.
//!
//! Neighbours: takes a [`crate::plan::Plan`], gives a running cell to `watch`. Never: reads a profile, decides, retries.
//!
//! ```text
//! launcher: spawn ── Clone, CreateCgroup ──► child: init ── every later step ── Verify ──► report Ready ── Exec
//!    │                                          │ a step fails: report Failed, exit            │
//!    └── waits for it, gives status and CPU      └── reaps until the payload ends, reports Exited, exits
//! ```

pub mod cell;
pub mod cgroup;
pub mod changes;
mod confine;
mod doors;
pub mod early;
pub mod handover;
mod hint;
pub(crate) mod idmap;
mod init;
pub mod memory;
pub(crate) mod overlay;

pub mod launcher;
pub mod orphans;
pub mod outside;
pub mod own;
pub mod places;
pub mod private;
pub mod ready;
pub mod reserve;
mod root;
pub mod spawn;
pub mod supervisor;
mod traces;

mod verify;

use serde::{Deserialize, Serialize};

use crate::outcome::Receipt;
use crate::plan::doors::Listens;
use crate::sys::Errno;
use crate::sys::process::Exit;

/// A step of a launch that failed. Nothing of the cell is left when this is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("step `{step}` failed on `{object}`")]
pub struct LaunchError {
    /// The step's name, as `explain` shows it.
    pub step: String,
    /// Path, name or value that it was about.
    pub object: String,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

impl LaunchError {
    pub(crate) fn new(step: &str, object: impl Into<String>, errno: Errno) -> Self {
        Self { step: step.to_owned(), object: object.into(), errno }
    }

    /// Init ended before it had built the cell, and could not say why: it was killed.
    pub(crate) fn unfinished() -> Self {
        Self::new("verify", "init ended before it had built the cell", Errno(libc::ECHILD))
    }

    /// Another cell, or another program, has the place by which this host was to reach the cell.
    pub(crate) fn is_taken(&self) -> bool {
        (self.step.as_str(), self.errno.0) == ("listen-outside", libc::EADDRINUSE)
    }

    /// What to do about it, where the step and the errno tell.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        hint::hint(&self.step, &self.object, self.errno.0).map(str::to_owned)
    }
}

/// What init tells over its channel, one message each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A step failed; the cell is gone. Before `Ready`: nothing of the payload ran. After it: exec failed.
    Failed(LaunchError),
    /// Overlays are mounted. Carries a descriptor of what is written to them.
    Changes(Kept),
    /// What may still be mounted in this cell goes in here. Carries a descriptor of its mount namespace.
    Namespace,
    /// Carries one of its private root, mounted nowhere and writable.
    Places,
    /// The filter is on. Carries the descriptor by which it tells of what it refuses; from here on somebody must answer.
    Listener,
    /// Carries a socket that listens in the cell's network namespace. These come before any other report.
    Door(Listens),
    /// Every layer was verified; exec is next. Carries a descriptor of the scratch directory if there is one.
    Ready {
        /// What was seen.
        receipt: Receipt,
        /// How often Landlock has refused something to init, which looked whether it does.
        denials: u32,
    },
    /// The payload ended.
    Exited {
        /// How.
        exit: Exit,
        /// Init is the only process left, and is about to end: the counters of the cell are final.
        alone: bool,
    },
}

/// What tells whether the host is still what the cell's overlays were made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Device and inode of each directory of the host, in the order of the plan.
    pub beneath: Vec<(u64, u64)>,
    /// When they were mounted: seconds and nanoseconds of the clock that dates files.
    pub since: (i64, i64),
}

/// The longest message that init sends.
pub const REPORT_LIMIT: usize = 32 * 1024;
