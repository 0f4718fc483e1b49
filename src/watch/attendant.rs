//! Answers a cell's refused calls beside everything else that the supervisor does.
//!
//! Neighbours: `refusals` answers and notes; `launch::supervisor` has one for each cell. Never: outlives its cell: what
//! nobody answers any more, the kernel refuses with `ENOSYS`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, sleep_until};

use super::refusals::{Look, Refusals};
use crate::sys::{Result, readiness};

/// A cell's refused calls, and the task that answers them. Dropping it ends the task.
#[derive(Debug)]
pub struct Attendant {
    refusals: Arc<Mutex<Refusals>>,
    task: Option<AbortHandle>,
}

impl Attendant {
    /// Of a cell that has not handed over its listener yet, and may never.
    #[must_use]
    pub fn new(refusals: Refusals) -> Self {
        Self { refusals: Arc::new(Mutex::new(refusals)), task: None }
    }

    /// Has the calls of this listener answered from here on.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn listen(&mut self, listener: OwnedFd) -> Result<()> {
        lock(&self.refusals).meet(listener.as_fd());
        let task = attend(readiness::readable(listener)?, Arc::clone(&self.refusals));
        self.task = Some(tokio::spawn(task).abort_handle());
        Ok(())
    }

    /// What was noted.
    pub fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.refusals)
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn lock(refusals: &Mutex<Refusals>) -> MutexGuard<'_, Refusals> {
    refusals.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn attend(listener: AsyncFd<OwnedFd>, refusals: Arc<Mutex<Refusals>>) {
    // What the runtime knows was so after the last look: there is no other thread that could have asked the kernel before it.
    let mut known = true;
    while let Ok(mut ready) = listener.readable().await {
        let mut told = known && ready.ready() & Ready::READABLE == Ready::READABLE;
        // First, so that a call which comes during the look is an event of its own.
        ready.clear_ready();
        known = true;
        loop {
            let look = lock(&refusals).look(listener.get_ref().as_fd(), told);
            match look {
                Look::Idle => break,
                Look::Again(Duration::ZERO) => yield_now().await,
                Look::Again(pause) => sleep_until(Instant::now() + pause).await,
                Look::Gone => return,
            }
            // The runtime may have asked the kernel meanwhile, and what it was told be answered by the next look.
            (told, known) = (false, false);
        }
    }
}
