//! The other side of a door at which TLS ends: TLS with the host, and requests written anew for it.
//!
//! Neighbours: `ended` says what is asked, `roots` proves who answers. Never: takes a byte of framing from a cell, follows a redirect, or
//! speaks without TLS.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::head::Framing;
use super::roots;
use super::wire::Patient;

/// How long it may take until both sides have agreed on TLS.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much of what a host sends as is kept until the cell takes it; the head of an answer has to fit.
const BUFFER: usize = 64 * 1024;

/// Whom doors trust: by the file that a profile names, or by that of the host.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust(HashMap<Option<PathBuf>, Arc<ClientConfig>>);

impl Trust {
    /// What is in a file, which is read now and not again. One that cannot be used is trusted in nothing.
    pub(super) fn learn(&mut self, named: Option<PathBuf>, mut file: File) {
        if let Ok(config) = roots::client(&mut file) {
            self.0.insert(named, config);
        }
    }

    /// For a door.
    pub(super) fn of(&self, named: &Option<PathBuf>) -> Option<Arc<ClientConfig>> {
        self.0.get(named).map(Arc::clone)
    }
}

/// A request's body was cut off.
#[derive(Debug, Error)]
#[error("the request ended before its end")]
pub(super) struct Cut;

/// The body of a request, in pieces as they come; `None` is its end.
#[derive(Debug)]
pub(super) struct Upload {
    pieces: mpsc::Receiver<Option<Bytes>>,
    /// What is left of it, if that was told.
    left: Option<u64>,
    over: bool,
}

/// A body that is framed like this, and where its pieces are put.
pub(super) fn upload(framing: Framing) -> (mpsc::Sender<Option<Bytes>>, Upload) {
    // One at a time: what the host does not take is not read from the cell.
    let (sender, pieces) = mpsc::channel(1);
    let left = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    (sender, Upload { pieces, left, over: left == Some(0) })
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Some(piece)) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.left = self.left.map(|left| left.saturating_sub(length));
                Some(Ok(Frame::data(piece)))
            }
            Some(None) => {
                self.over = true;
                None
            }
            None => Some(Err(Cut)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A connection to a host. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Upstream {
    sender: SendRequest<Upload>,
    task: AbortHandle,
}

/// Why nobody can be asked.
#[derive(Debug)]
pub(super) enum NoUpstream {
    /// It is not the host, or nobody can tell.
    Unproved(String),
    /// It is no server.
    Broken(String),
}

impl Upstream {
    /// Agrees on TLS with who answers, who must be the host.
    pub(super) async fn open(
        stream: TcpStream,
        host: &str,
        trusted: Arc<ClientConfig>,
    ) -> Result<Self, NoUpstream> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| NoUpstream::Unproved(error.to_string()))?;
        let _only_slower = stream.set_nodelay(true).is_err();
        let tls = match timeout(PATIENCE, TlsConnector::from(trusted).connect(name, stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                let proof = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                return Err(match proof {
                    Some(rustls::Error::InvalidCertificate(_)) => NoUpstream::Unproved(error.to_string()),
                    _ => NoUpstream::Broken(error.to_string()),
                });
            }
            Err(_late) => return Err(NoUpstream::Broken("it took too long to agree on TLS".to_owned())),
        };
        let opened = http1::Builder::new().max_buf_size(BUFFER).handshake(Patient::new(tls)).await;
        let (sender, connection) = opened.map_err(|error| NoUpstream::Broken(error.to_string()))?;
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender, task })
    }

    /// Can another request be sent?
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks.
    pub(super) async fn send(&mut self, request: Request<Upload>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next piece of an answer's body; `None` at its end.
pub(super) async fn next(body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Headers behind a body are nobody's.
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}
