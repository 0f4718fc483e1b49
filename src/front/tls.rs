//! Certificate and key of the server.
//!
//! Neighbours: `commands::serve` names the files. Never: makes a certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use thiserror::Error;

/// Why TLS cannot be offered.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file holds no certificate that can be read.
    #[error("cannot read the certificates in `{}`", .0.display())]
    Certificates(PathBuf, #[source] pem::Error),
    /// It holds none at all.
    #[error("no certificate is in `{}`", .0.display())]
    None(PathBuf),
    /// The file holds no key that can be read.
    #[error("cannot read the key in `{}`", .0.display())]
    Key(PathBuf, #[source] pem::Error),
    /// They do not belong together, or cannot be used.
    #[error("certificate and key cannot be used together")]
    Together(#[source] rustls::Error),
}

/// TLS 1.2 and 1.3 with a chain of certificates and its key, both PEM.
///
/// # Errors
/// They cannot be read or used.
pub fn server(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |error| TlsError::Certificates(certificates.to_owned(), error);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    if chain.is_empty() {
        return Err(TlsError::None(certificates.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key(key.to_owned(), error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Together)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Together)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
