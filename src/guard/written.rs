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
    key: Option<Key>,
    owner: u32,
    bounds: Bounds,
    open: Option<(Arc<Log>, Option<Signer>)>,
    notice: Option<String>,
}

impl Written {
    pub(super) const fn new(path: PathBuf, key: Option<Key>, owner: u32, bounds: Bounds) -> Self {
        Self { path, key, owner, bounds, open: None, notice: None }
    }

    fn open(&mut self) -> Result<&(Arc<Log>, Option<Signer>), LogError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let log = Arc::new(Log::open_within(&self.path, self.owner, self.bounds)?);
                // What cannot be signed now is signed by the session's next checkpoint.
                let signer = Signer::start(Arc::clone(&log), self.key.clone(), |_later| {});
                let failed = signer.as_ref().err();
                self.notice =
                    failed.map(|error| format!("what the guard records is not signed by it: {error}"));
                (log, signer.ok())
            }
        };
        Ok(self.open.insert(open))
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

    /// What a person should know, once.
    pub(super) fn notice(&mut self) -> Option<String> {
        self.notice.take()
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
