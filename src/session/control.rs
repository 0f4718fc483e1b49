//! Tells a request that it is to stop: because its client has cancelled it, or because the session is over.
//!
//! Neighbours: [`super::Session`] makes one for each request, [`super::call`] and [`super::catalogue`] listen. Never: ends a cell.

use tokio::sync::{oneshot, watch};

/// Why a request is to stop.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client's notification, with its newline.
    Cancelled(Vec<u8>),
    /// The session is over.
    Gone,
}

/// Tells a request to stop.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) cancel: Option<oneshot::Receiver<Vec<u8>>>,
    pub(super) gone: watch::Receiver<bool>,
}

impl Control {
    pub(super) async fn stop(&mut self) -> Stop {
        tokio::select! {
            biased;
            () = gone(&mut self.gone) => Stop::Gone,
            note = cancelled(&mut self.cancel) => Stop::Cancelled(note),
        }
    }

    pub(super) async fn gone(&mut self) {
        gone(&mut self.gone).await;
    }
}

pub(super) async fn gone(gone: &mut watch::Receiver<bool>) {
    // The sender lives in the session, which every task holds.
    drop(gone.wait_for(|gone| *gone).await);
}

async fn cancelled(cancel: &mut Option<oneshot::Receiver<Vec<u8>>>) -> Vec<u8> {
    if let Some(receiver) = cancel {
        let note = receiver.await;
        *cancel = None;
        if let Ok(note) = note {
            return note;
        }
    }
    std::future::pending().await
}
