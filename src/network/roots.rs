//! The certificates of authorities by which it is proved who answers at the other end of a TLS connection.
//!
//! Neighbours: `upstream` and the front speak TLS, `commands` see to it at the start that there are some. Never: takes one from a cell.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Where systems keep the certificates of those whom they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A file of them is not longer.
const LONGEST: u64 = 8 << 20;

/// Why nobody can be proved to be anybody.
#[derive(Debug, Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the certificates of authorities in `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are no certificates to compare with.
    #[error("no certificates of authorities are in `{}`", .0.display())]
    NoAuthority(PathBuf),
    /// The system has none where they are looked for.
    #[error("this host has no file with certificates of authorities")]
    NoBundle,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Where they are, if nobody names a file.
///
/// # Errors
/// They are nowhere.
pub fn of_host() -> Result<PathBuf, RootsError> {
    BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(RootsError::NoBundle)
}

/// A file that has some, at its beginning.
///
/// # Errors
/// Why it has none.
pub fn checked(path: &Path, mut file: File) -> Result<File, RootsError> {
    if read(&mut file).is_empty() {
        return Err(RootsError::NoAuthority(path.to_owned()));
    }
    file.rewind().map_err(|source| RootsError::Read { path: path.to_owned(), source })?;
    Ok(file)
}

/// TLS with whom those in a file prove, or those whom the host trusts.
///
/// # Errors
/// There are none, or TLS cannot be set up.
pub fn client_of(named: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let path = named.map_or_else(of_host, |path| Ok(path.to_owned()))?;
    // Non-blocking, so that a FIFO in the file's place cannot hold the start up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let file = file.map_err(|source| RootsError::Read { path: path.clone(), source })?;
    client(&mut checked(&path, file)?)
}

/// Those in a file; what is none of them is left out.
fn read(file: &mut File) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_reader_iter(BufReader::new(file.take(LONGEST)));
    roots.add_parsable_certificates(found.flatten());
    roots
}

/// TLS with whom these prove.
///
/// # Errors
/// TLS cannot be set up.
pub fn client(file: &mut File) -> Result<Arc<ClientConfig>, RootsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(RootsError::Tls)?.with_root_certificates(read(file)).with_no_client_auth();
    Ok(Arc::new(config))
}
