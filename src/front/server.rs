//! Listens, takes connections, and ends in order.
//!
//! ```text
//! Serving ──signal──► Closing: nothing is accepted, requests in work are answered, streams without one end
//!                        └──all answered, or GRACE──► Closed: children get the end of their input, and leave
//! ```
//!
//! Neighbours: [`super::endpoint`] answers requests, [`super::io`] cuts off who does not read. Never: reads a message.

use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::auth::Auth;
use super::child::Start;
use super::endpoint::Front;
use super::hosts::Hosts;
use super::io::Deadlines;
use super::marks::Marks;
use super::session::Sessions;
use super::shared::Shared;
use crate::network::wire::Patient;

/// Connections that are open at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// How long the head of a request may take, and a connection be idle.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes of a head, and its headers.
const LONGEST_HEAD: usize = 32 * 1024;
const MOST_HEADERS: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in work have to be answered when the front closes.
const GRACE: Duration = Duration::from_secs(10);
/// Between two tries to accept when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the first child has to answer.
const START: Duration = Duration::from_secs(60);

/// What a front needs.
#[derive(Debug)]
pub struct Options {
    /// How children are started.
    pub start: Start,
    /// With what children know the front's word.
    pub key: Vec<u8>,
    /// Whose requests are for us.
    pub hosts: Hosts,
    /// How requests show who sends them; without it, everybody may send.
    pub auth: Option<Auth>,
    /// Certificate and key; without them, plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Sessions of legacy clients at once.
    pub sessions: usize,
    /// How long one may be idle.
    pub idle: Duration,
    /// Randomness.
    pub random: File,
}

/// Why nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The first child did not answer; it has said why.
    #[error("the process that answers requests does not start")]
    NoChild,
}

/// Serves until `stop` is ready. `ready` is called when requests are taken.
///
/// # Errors
/// Nothing can be served.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    stop: impl Future<Output = ()>,
    up: impl FnOnce(),
) -> Result<(), ServeError> {
    LocalSet::new().run_until(run(listener, options, stop, up)).await
}

async fn run(
    listener: TcpListener,
    options: Options,
    stop: impl Future<Output = ()>,
    up: impl FnOnce(),
) -> Result<(), ServeError> {
    let closing = watch::Sender::new(false);
    let shared = Shared::new(options.start.clone());
    let sessions = Sessions::new(options.start, options.sessions, options.idle);
    let front = Rc::new(Front {
        hosts: options.hosts,
        auth: options.auth,
        key: options.key,
        shared: Rc::clone(&shared),
        sessions: Rc::clone(&sessions),
        random: options.random,
        closing: closing.subscribe(),
        health: Mutex::new(None),
        marks: Marks::default(),
    });
    let mut stop = pin!(stop);
    // What cannot work is found out now, and not by the first client.
    let starts = tokio::select! {
        biased;
        () = &mut stop => None,
        answers = shared.answers(Instant::now() + START) => Some(answers),
    };
    if starts == Some(true) {
        up();
        let tls = options.tls.map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::select! {
            biased;
            () = &mut stop => {}
            () = accept(&listener, &front, tls.as_ref(), &places, &closing) => {}
        }
        drop(listener);
        closing.send_replace(true);
        // Every connection holds one until it is closed.
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        drop(timeout_at(Instant::now() + GRACE, places.acquire_many(all)).await);
    }
    tokio::join!(shared.close(), sessions.close());
    if starts == Some(false) { Err(ServeError::NoChild) } else { Ok(()) }
}

async fn accept(
    listener: &TcpListener,
    front: &Rc<Front>,
    tls: Option<&TlsAcceptor>,
    places: &Arc<Semaphore>,
    closing: &watch::Sender<bool>,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    sleep_until(Instant::now() + PAUSE).await;
                }
                continue;
            }
        };
        let (front, tls, closing) = (Rc::clone(front), tls.cloned(), closing.subscribe());
        spawn_local(async move {
            take(stream, front, tls, closing).await;
            drop(place);
        });
    }
}

async fn take(stream: TcpStream, front: Rc<Front>, tls: Option<TlsAcceptor>, closing: watch::Receiver<bool>) {
    // Events are small, and each is to arrive when it is sent.
    let _as_it_is = stream.set_nodelay(true).is_err();
    match tls {
        None => connection(stream, front, closing).await,
        Some(tls) => {
            let handshake = timeout_at(Instant::now() + HANDSHAKE, tls.accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                connection(stream, front, closing).await;
            }
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    front: Rc<Front>,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let front = Rc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(Deadlines)
            .header_read_timeout(HEAD)
            .max_headers(MOST_HEADERS)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(Patient::new(stream), service)
    );
    tokio::select! {
        // What a client does wrong on its connection is the end of that.
        _ended = &mut connection => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await.is_ok();
}
