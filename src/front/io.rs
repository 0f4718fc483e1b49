//! hyper's deadlines in the runtime, by which it bounds how long a request's head may take.
//!
//! Neighbours: [`super::server`] hands them to hyper. Never: waits for anything else.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};

use hyper::rt::Timer;
use tokio::time::{Instant, Sleep, sleep_until};

/// hyper's deadlines in the runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines;

struct Deadline(Pin<Box<Sleep>>);

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Deadline {}

impl Timer for Deadlines {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Deadline(Box::pin(sleep_until(Instant::now() + duration))))
    }

    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Deadline(Box::pin(sleep_until(deadline.into()))))
    }
}
