//! The guard's way to the audit log: a writer of its own, beside the session's, with its own checkpoints.
//!
//! Neighbours: `guard::process` records by it, and hands the session the log that is at its path. Never: shares a
//! descriptor with the session, whose lock it would share too.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::audit::{Bounds, Key, Log, LogError, Signer};

/// The log, opened when it is first needed.
#[derive(Debug)]
pub(super) struct Written {
    path: PathBuf,
    key: Option<PathBuf>,
    owner: u32,
    bounds: Bounds,
    open: Option<(Arc<Log>, Option<Signer>)>,
}

impl Written {
    pub(super) const fn new(path: PathBuf, key: Option<PathBuf>, owner: u32, bounds: Bounds) -> Self {
        Self { path, key, owner, bounds, open: None }
    }

    fn open(&mut self) -> Result<&(Arc<Log>, Option<Signer>), LogError> {
        if self.open.is_none() {
            let log = Arc::new(Log::open_within(&self.path, self.owner, self.bounds)?);
            // The session has read the key already; without it the records are chained and not signed.
            let key = self.key.as_ref().and_then(|path| Key::at(path, self.owner).ok());
            // What cannot be signed now is signed by the session's next checkpoint.
            let signer = Signer::start(Arc::clone(&log), key, |_later| {}).ok();
            self.open = Some((log, signer));
        }
        match &self.open {
            Some(open) => Ok(open),
            None => Err(LogError::Busy(self.path.clone())),
        }
    }

    /// Appends a record.
    pub(super) fn write(&mut self, record: &impl Serialize) -> Result<(), LogError> {
        let (log, signer) = self.open()?;
        log.write(record)?;
        if let Some(signer) = signer {
            signer.recorded();
        }
        Ok(())
    }

    /// The log that is at its path now, for somebody else to write to.
    pub(super) fn current(&self) -> Result<File, LogError> {
        Log::fresh(&self.path, self.owner, self.bounds)
    }

    /// Signs what was written.
    pub(super) fn finish(&mut self) {
        self.open = None;
    }
}
