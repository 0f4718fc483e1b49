//! What Landlock refuses to the cells of a supervisor, which come and go: one socket tells of all of them.
//!
//! Neighbours: `denials` keeps what is told; `launch::supervisor` has a [`Listened`] for each cell. Never: opens the socket.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::denials::{Cell, Domains};
use crate::outcome::{Layer, Receipt, Violation};
use crate::sys::{Result, readiness};

/// The socket, and what it told.
#[derive(Debug)]
struct Listener {
    socket: AsyncFd<OwnedFd>,
    domains: Mutex<Domains>,
}

/// What tells of all cells, or why nothing does. Copies share it.
#[derive(Debug, Clone)]
pub struct Listening(std::result::Result<Arc<Listener>, Arc<str>>);

/// One cell's share; its number is forgotten when it is dropped.
#[derive(Debug)]
pub struct Listened {
    listening: Listening,
    cell: Cell,
}

impl Listening {
    /// To a socket of `sys::audit::follow`, unless there is a reason why there is none.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn start(socket: std::result::Result<OwnedFd, String>) -> Result<Self> {
        Ok(Self(match socket {
            Ok(socket) => Ok(Listener::start(socket)?),
            Err(why) => Err(Arc::from(why)),
        }))
    }

    /// For a cell with this init.
    #[must_use]
    pub fn of(&self, init: libc::pid_t) -> Listened {
        if let Ok(listener) = &self.0 {
            listener.lock().expect(init);
        }
        Listened { listening: self.clone(), cell: Cell { init, own: 0, began: Instant::now() } }
    }
}

impl Listener {
    /// Reads from here on, beside everything else, so that little waits in the kernel.
    fn start(socket: OwnedFd) -> Result<Arc<Self>> {
        let domains = Mutex::new(Domains::default());
        let listener = Arc::new(Self { socket: readiness::readable(socket)?, domains });
        let own = Arc::clone(&listener);
        tokio::spawn(async move { while own.hear().await.is_ok() {} });
        Ok(listener)
    }

    fn lock(&self) -> MutexGuard<'_, Domains> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for records and takes them. Whoever else waits sees them too.
    async fn hear(&self) -> std::io::Result<()> {
        let mut ready = self.socket.readable().await?;
        while self.lock().read(self.socket.get_ref().as_fd()) {
            yield_now().await;
        }
        // Of what came since it was found to be empty the runtime knows better.
        ready.clear_ready();
        Ok(())
    }
}

impl Listened {
    /// The cell is ready, and so often has Landlock refused something to init.
    pub fn ready(&mut self, own: u32) {
        self.cell.own = own;
        self.begin();
    }

    /// Times in the record count from here.
    pub fn begin(&mut self) {
        self.cell.began = Instant::now();
    }

    /// What the payload was refused so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.listening.0.as_ref().map(|listener| listener.lock().violations(self.cell)).unwrap_or_default()
    }

    /// What it was refused until it ended, which it has: after the kernel has told all of it, or was waited for long enough. The
    /// receipt says which.
    pub async fn conclude(&self, receipt: &mut Receipt) -> Vec<Violation> {
        match &self.listening.0 {
            Ok(listener) => {
                self.over(listener).await;
                listener.lock().confess(self.cell, receipt);
            }
            Err(why) => {
                receipt.reasons.insert(Layer::Landlock.name().to_owned(), why.as_ref().to_owned());
            }
        }
        self.violations()
    }

    async fn over(&self, listener: &Listener) {
        let began = Instant::now();
        loop {
            let Some(patience) = listener.lock().patience(self.cell.init) else { return };
            let left = patience.saturating_sub(began.elapsed());
            match timeout(left, listener.hear()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        if let Ok(listener) = &self.listening.0 {
            listener.lock().forget(self.cell.init);
        }
    }
}
