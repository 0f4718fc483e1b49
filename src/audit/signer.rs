//! Signs and syncs the log behind the calls: a thread that is woken by the first record after a checkpoint.
//!
//! ```text
//! idle ──a record──► waiting ──so many records, so long, or the end──► signing ──► idle
//! ```
//!
//! Neighbours: `commands::run` tells it of each record, `audit::log` does the work. Never: keeps a call waiting.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::key::Key;
use super::log::{Log, LogError};

/// Records after which a checkpoint is made at once.
const RECORDS: u64 = 256;
/// How long a record waits for its checkpoint at most.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    waiting: u64,
    any: bool,
    closing: bool,
}

/// What is told of a failure.
type Failed = dyn Fn(&LogError) + Send + Sync;

/// The thread. When this is dropped, what waits is signed first; nobody waits for the disk then.
pub struct Signer {
    shared: Arc<(Mutex<State>, Condvar)>,
    work: Arc<Work>,
}

/// What the thread works on.
struct Work {
    log: Arc<Log>,
    key: Option<Key>,
    failed: Box<Failed>,
}

impl Work {
    fn sign(&self) -> Result<(), LogError> {
        self.key.as_ref().map_or(Ok(()), |key| self.log.sign(key))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signer").field("key", &self.work.key).finish_non_exhaustive()
    }
}

impl Signer {
    /// Starts the thread. Without a key it only syncs. What fails is told by `failed`, and tried again later.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        log: Arc<Log>,
        key: Option<Key>,
        failed: impl Fn(&LogError) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let work = Arc::new(Work { log, key, failed: Box::new(failed) });
        let (own, its) = (Arc::clone(&shared), Arc::clone(&work));
        std::thread::Builder::new().name("signer".to_owned()).spawn(move || {
            while wait(&own) {
                if let Err(error) = its.sign().and_then(|()| its.log.sync()) {
                    (its.failed)(&error);
                }
            }
        })?;
        Ok(Self { shared, work })
    }

    /// There is one more record.
    pub fn recorded(&self) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        state.any = true;
        if state.waiting == 1 || state.waiting == RECORDS {
            changed.notify_one();
        }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let (state, changed) = &*self.shared;
        let any = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.closing = true;
            state.any
        };
        changed.notify_one();
        // The thread may be waiting for the disk, and who waits for the end of the session has no time for that. What is
        // signed already is not signed again.
        if let Err(error) = if any { self.work.sign() } else { Ok(()) } {
            (self.work.failed)(&error);
        }
    }
}

/// Waits until there is something to sign. `false`: nothing more will come, and whoever closes signs what is left.
fn wait((state, changed): &(Mutex<State>, Condvar)) -> bool {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    while state.waiting == 0 && !state.closing {
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let deadline = Instant::now() + PATIENCE;
    while state.waiting < RECORDS && !state.closing {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        (state, _) = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
    }
    state.waiting = 0;
    !state.closing
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_directory::TestDirectory;
    use super::*;

    #[test]
    fn many_records_are_signed_at_once_and_the_rest_at_the_end() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Arc::new(Log::open(&path, directory.owner).unwrap());
        let key = Key::at(&directory.path.join("key"), directory.owner).unwrap();
        let signer = Signer::start(Arc::clone(&log), Some(key), |error| panic!("{error}")).unwrap();
        let write = |records| {
            for _ in 0..records {
                log.write(&json!({"event": "started"})).unwrap();
                signer.recorded();
            }
        };
        let counts = || -> Vec<u64> {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.filter_map(|line| line["count"].as_u64()).collect()
        };
        write(RECORDS);
        let bound = Instant::now() + PATIENCE - Duration::from_secs(1);
        while counts().is_empty() {
            assert!(Instant::now() < bound);
            std::thread::yield_now();
        }
        write(3);
        drop(signer);
        assert_eq!(counts(), [RECORDS, RECORDS + 4]);
    }

    #[test]
    fn what_waits_is_not_signed_twice_and_nothing_is_not_signed() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let log = Arc::new(Log::open(&path, directory.owner).unwrap());
        let key = || Some(Key::at(&directory.path.join("key"), directory.owner).unwrap());
        drop(Signer::start(Arc::clone(&log), key(), |error| panic!("{error}")).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        log.write(&json!({"event": "started"})).unwrap();
        log.sign(&key().unwrap()).unwrap();
        log.sign(&key().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
