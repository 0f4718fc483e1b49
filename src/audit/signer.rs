//! Signs and syncs the log behind the calls: a thread that is woken by the first record after a checkpoint.
//!
//! ```text
//! idle ──a record──► waiting ──so many records, so long, or the end──► signing ──► idle
//! ```
//!
//! Neighbours: `commands::run` tells it of each record, `audit::log` does the work. Never: keeps a call waiting.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
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
    closing: bool,
}

/// The thread. When this is dropped, what waits is signed first.
#[derive(Debug)]
pub struct Signer {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Signer {
    /// Starts the thread. Without a key it only syncs. What fails is told by `failed`, and tried again later.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        log: Arc<Log>,
        key: Option<Key>,
        failed: impl Fn(&LogError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("signer".to_owned()).spawn(move || {
            while let Some(end) = wait(&own) {
                let signed = key.as_ref().map_or(Ok(()), |key| log.sign(key));
                // A disk may take its time, and who waits for the end of the session has none.
                let synced = signed.and_then(|()| if end { Ok(()) } else { log.sync() });
                if let Err(error) = synced {
                    failed(&error);
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// There is one more record.
    pub fn recorded(&self) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        if state.waiting == 1 || state.waiting == RECORDS {
            changed.notify_one();
        }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so.
            drop(thread.join());
        }
    }
}

/// Waits until there is something to sign, and says whether that is the last. `None`: there is nothing, and will not be.
fn wait((state, changed): &(Mutex<State>, Condvar)) -> Option<bool> {
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
    (std::mem::take(&mut state.waiting) > 0).then_some(state.closing)
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
