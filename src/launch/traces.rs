//! What a cell leaves on the host, as the supervisor takes it away.
//!
//! Neighbours: `launch::supervisor` has one for each cell; the launcher takes away what it can itself. Never: removes it while a
//! process of the cell is left.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::cgroup::CellCgroup;
use super::{private, reserve};
use crate::sys::readiness;

/// What a cell leaves on the host until it is removed: here when dropped, if it was not before.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) cgroup: Option<CellCgroup>,
    pub(super) reserved: Vec<PathBuf>,
    pub(super) private: Option<PathBuf>,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
        // The launcher gives the names back itself; what is left here is left by one that was killed.
        reserve::release(&self.reserved);
        if let Some(private) = self.private.take() {
            private::remove(&private);
        }
    }
}

/// Removes what a killed cell leaves, once its last process is gone.
pub(super) async fn clear(pidfd: OwnedFd, traces: Traces) {
    if let Ok(pidfd) = readiness::readable(pidfd) {
        let _ended = pidfd.readable().await.is_ok();
    }
    drop(traces);
}
