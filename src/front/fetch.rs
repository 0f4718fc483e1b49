//! Gets one small document by HTTPS from a fixed address.
//!
//! Neighbours: [`super::jwks`] wants it. Never: follows a redirect, speaks without TLS, reads more than [`LARGEST`] bytes,
//! or takes longer than [`BOUND`].

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::answer::Content;
use crate::network::roots::{self, RootsError};
use crate::network::wire::Patient;

/// How long it may take, and how large the document may be.
const BOUND: Duration = Duration::from_secs(5);
const LARGEST: usize = 256 * 1024;

/// Why nothing can be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The address is of another form.
    #[error("it is no address like `https://HOST[:PORT]/PATH`")]
    Form,
    /// Its host has no name that a certificate could have.
    #[error("its host is no name")]
    Name(#[source] InvalidDnsNameError),
    /// There are no certificates to compare with.
    #[error("nothing proves who answers there; name a file of certificates with `jwks-ca`")]
    Roots(#[source] RootsError),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    /// The exchange failed.
    #[error("the exchange failed")]
    Http(#[source] hyper::Error),
    /// It was answered with something else than a document.
    #[error("it was answered with status {0}")]
    Status(StatusCode),
    /// The document is too large, or took too long.
    #[error("it is too large, or takes too long")]
    Bound,
}

/// An address, and what proves who answers there.
#[derive(Debug)]
pub(super) struct Place {
    host: String,
    port: u16,
    /// `HOST[:PORT]` as it was written.
    authority: String,
    path: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority, self.path)
    }
}

impl Place {
    pub(super) fn new(url: &str, authorities: Option<&Path>) -> Result<Self, FetchError> {
        let uri: hyper::Uri =
            url.parse().map_err(|_invalid: hyper::http::uri::InvalidUri| FetchError::Form)?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(FetchError::Form);
        };
        if authority.as_str().contains('@') {
            return Err(FetchError::Form);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(FetchError::Name)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self {
            port: authority.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
            host,
            path,
            name,
            tls: client(authorities)?,
        })
    }

    pub(super) async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let bounded = timeout_at(Instant::now() + BOUND, self.unbounded());
        bounded.await.unwrap_or(Err(FetchError::Bound))
    }

    async fn unbounded(&self) -> Result<Vec<u8>, FetchError> {
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(FetchError::Connection)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), stream);
        let stream = tls.await.map_err(FetchError::Connection)?;
        let (mut sender, connection) =
            http1::handshake::<_, Content>(Patient::new(stream)).await.map_err(FetchError::Http)?;
        let request = Request::get(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(ACCEPT, "application/json")
            .body(Content::Empty)
            .map_err(|_invalid: hyper::http::Error| FetchError::Form)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(FetchError::Http)?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let mut body = response.into_body();
            let mut document = Vec::new();
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let data =
                    frame.map_err(FetchError::Http)?.into_data().unwrap_or_else(|_trailers| Bytes::new());
                if document.len() + data.len() > LARGEST {
                    return Err(FetchError::Bound);
                }
                document.extend_from_slice(&data);
            }
            Ok(document)
        };
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        // A server may end its connection with its document, and not in order: what counts is whether that is whole.
        tokio::select! {
            biased;
            document = &mut exchange => return document,
            _ended = &mut connection => {}
        }
        exchange.await
    }
}

fn client(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
    roots::client_of(authorities).map_err(FetchError::Roots)
}
