//! Lines on their way to a client, counted: what nobody reads takes a bounded amount of memory.
//!
//! Neighbours: [`super::shared`] and [`super::session`] put lines in, [`super::answer`] sends them. Never: drops a line in
//! silence: a client that does not read loses its whole stream.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Lines that one stream may be behind.
const LINES: usize = 8;

/// A line, and its place in the budget until it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// What a stream gets.
#[derive(Debug)]
pub(super) enum Event {
    /// A notification, or a request of the server.
    Note(Line),
    /// The answer, and the code of its error.
    Answer(Line, Option<i64>),
    /// There will be none: the child has ended.
    Lost,
}

/// Bytes that may wait.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    most: u32,
}

impl Budget {
    pub(super) fn new(most: u32) -> Self {
        Self { bytes: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))), most }
    }

    /// Waits until there is room for a line. One that is longer than all there is takes all.
    pub(super) async fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most);
        Arc::clone(&self.bytes).acquire_many_owned(permits).await.ok()
    }

    pub(super) async fn line(&self, bytes: Vec<u8>) -> Option<Line> {
        let place = self.place(bytes.len()).await?;
        Some(Line { bytes, _place: place })
    }
}

/// A stream's two ends.
pub(super) fn stream() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(LINES)
}

/// Lines on their way to a child, in the order in which they were put in.
#[derive(Debug)]
pub(super) struct Outbox {
    lines: mpsc::UnboundedSender<Posted>,
    budget: Budget,
}

/// A line for a child. What the front says by itself takes no place, as it is short and there is one for each request at most.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) line: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Outbox {
    pub(super) fn new(budget: Budget) -> (Rc<Self>, mpsc::UnboundedReceiver<Posted>) {
        let (lines, receiver) = mpsc::unbounded_channel();
        (Rc::new(Self { lines, budget }), receiver)
    }

    /// Puts a client's line in, when there is room. `false`: nobody reads any more.
    pub(super) async fn put(&self, line: Vec<u8>) -> bool {
        let Some(place) = self.budget.place(line.len()).await else { return false };
        self.lines.send(Posted { line, _place: Some(place) }).is_ok()
    }

    /// Puts a line of the front's own in. A child that does not read any more needs none.
    pub(super) fn tell(&self, line: Vec<u8>) {
        drop(self.lines.send(Posted { line, _place: None }));
    }
}
