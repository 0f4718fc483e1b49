//! What goes back over HTTP: one JSON object, or a stream of events that ends with the answer.
//!
//! Neighbours: [`super::endpoint`] makes them, hyper sends them. Never: reads a message, or waits for a reader: what is
//! taken from the queue is what hyper has asked for.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::queue::{Event, Line};
use super::session::Held;
use super::shared::Pending;
use crate::mcp::envelope::{INTERNAL_ERROR, Id};

/// A stream on which nothing happens gets a comment this often, so that what is between does not close it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A response.
pub(super) type Answer = Response<Content>;

/// The body of a response.
pub(super) enum Content {
    Empty,
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}

/// From where events come; dropped, nobody hears of them any more.
#[derive(Debug)]
pub(super) enum Source {
    Shared(Pending),
    Session(Held),
}

impl Source {
    pub(super) async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::Shared(pending) => pending.events.poll_recv(cx),
            Self::Session(held) => held.events.poll_recv(cx),
        }
    }
}

/// A stream of server-sent events.
pub(super) struct Events {
    source: Option<Source>,
    first: Option<Event>,
    /// For what has no answer of its own: the id that an answer in its place carries.
    id: Option<Id>,
    quiet: Pin<Box<Sleep>>,
    /// The stream ends when the front does, if it has no answer to wait for.
    closing: Option<Closing>,
    /// What was handed to hyper last keeps its place until hyper wants more.
    sent: Option<Line>,
}

type Closing = Pin<Box<dyn Future<Output = ()>>>;

impl Events {
    pub(super) fn new(source: Source, first: Option<Event>, id: Option<Id>) -> Self {
        let quiet = Box::pin(sleep_until(Instant::now() + KEEP_ALIVE));
        Self { source: Some(source), first, id, quiet, closing: None, sent: None }
    }

    /// One on which there is nothing.
    pub(super) fn ended() -> Self {
        let quiet = Box::pin(sleep_until(Instant::now()));
        Self { source: None, first: None, id: None, quiet, closing: None, sent: None }
    }

    /// Ends it when the front closes.
    pub(super) fn until(mut self, mut closing: watch::Receiver<bool>) -> Self {
        self.closing = Some(Box::pin(async move { drop(closing.wait_for(|closing| *closing).await) }));
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.sent = None;
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let next = match self.first.take() {
            Some(event) => Poll::Ready(Some(event)),
            None => source.poll(cx),
        };
        match next {
            Poll::Ready(Some(Event::Note(line))) => {
                self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
                Poll::Ready(Some(self.event(line)))
            }
            Poll::Ready(Some(Event::Answer(line, _))) => {
                self.source = None;
                Poll::Ready(Some(self.event(line)))
            }
            Poll::Ready(Some(Event::Lost)) => {
                self.source = None;
                let lost = self.id.take().map(|id| event(&lost(&id)));
                Poll::Ready(lost)
            }
            // The client did not read, or the session is over.
            Poll::Ready(None) => {
                self.source = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                if let Some(closing) = &mut self.closing
                    && closing.as_mut().poll(cx).is_ready()
                {
                    self.source = None;
                    return Poll::Ready(None);
                }
                match self.quiet.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
                        Poll::Ready(Some(Bytes::from_static(b":\n\n")))
                    }
                }
            }
        }
    }

    fn event(&mut self, line: Line) -> Bytes {
        let bytes = event(&line.bytes);
        self.sent = Some(line);
        bytes
    }
}

fn event(line: &[u8]) -> Bytes {
    Bytes::from([b"event: message\ndata: ", line, b"\n\n"].concat())
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(None) => true,
            Self::Whole(Some(_)) => false,
            Self::Events(events) => events.source.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

fn answer(status: StatusCode, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    // What one client got is for no other, and never a page.
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A status alone.
pub(super) fn status(status: StatusCode) -> Answer {
    answer(status, Content::Empty)
}

/// JSON as it is.
pub(super) fn json(status: StatusCode, bytes: Vec<u8>) -> Answer {
    let mut answer = answer(status, Content::Whole(Some(Bytes::from(bytes))));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A stream.
pub(super) fn events(events: Events) -> Answer {
    let mut answer = answer(StatusCode::OK, Content::Events(Box::new(events)));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// An error of the front's own, for a request whose id is known or not.
pub(super) fn error(status: StatusCode, id: Option<&Id>, code: i32, message: &str) -> Answer {
    json(status, error_line(id, code, message))
}

fn error_line(id: Option<&Id>, code: i32, message: &str) -> Vec<u8> {
    let mut error = json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}});
    if let (Some(id), Some(error)) = (id, error.as_object_mut()) {
        let id = match id {
            Id::Number(number) => json!(number),
            Id::Text(text) => json!(text),
        };
        error.insert("id".to_owned(), id);
    }
    error.to_string().into_bytes()
}

/// The answer to a request whose child has ended.
pub(super) fn lost(id: &Id) -> Vec<u8> {
    let told = "the process that worked on this request has ended; it may have had its effects, and was not sent again";
    error_line(Some(id), INTERNAL_ERROR, told)
}

/// With a header more.
pub(super) fn with(mut answer: Answer, name: HeaderName, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}
