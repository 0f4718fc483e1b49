//! The keys of an authorization server (RFC 7517): from a file, or by HTTPS from an address of the configuration.
//!
//! | | read |
//! |---|---|
//! | a file | when it has changed |
//! | an address | when nothing is known, when what is known is old, and for a key that is not known, but seldom |
//!
//! Neighbours: [`super::jwt`] asks for a key; [`super::fetch`] gets what is at an address. Never: takes an address from a
//! token, or goes on with keys that could not be confirmed for too long.

use std::cell::RefCell;
use std::error::Error as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::base64::{Form, decode};
use super::fetch::{FetchError, Place};
use crate::policy::config::access::jwt::{Jwt as Rules, Keys};

/// What was fetched is fetched again after this.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// And counts no longer than this, if it cannot be.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Between two fetches, whatever asks for them.
const SELDOM: Duration = Duration::from_secs(30);
/// The largest file.
const LARGEST: u64 = 256 * 1024;

/// Why keys cannot be had.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read the keys in `{}`", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It holds no keys.
    #[error("no key of a kind that is accepted is in {0}")]
    NoKey(String),
    /// The address, or what proves who answers there, is not usable.
    #[error("cannot fetch keys from `{0}`")]
    Fetch(String, #[source] FetchError),
}

/// How a token is signed. There is none with a key that both sides have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn of_rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }

    /// The curve's name, and how signatures on it are checked.
    fn of_curve(self) -> Option<(&'static str, &'static dyn VerificationAlgorithm)> {
        Some(match self {
            Self::Es256 => ("P-256", &signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => ("P-384", &signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => ("Ed25519", &signature::ED25519),
            _ => return None,
        })
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    kid: Option<String>,
    alg: Option<String>,
    public: Public,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Curve { name: String, point: Vec<u8> },
}

/// A key as it is written.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let key: Written = serde_json::from_value(value).ok()?;
        let verifies = key.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        if key.purpose.as_deref().is_some_and(|purpose| purpose != "sig") || !verifies {
            return None;
        }
        let bytes = |text: &Option<String>| decode(text.as_ref()?.as_bytes(), Form::Url);
        let public = match (key.kty.as_str(), key.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(&key.n)?, e: bytes(&key.e)? },
            ("EC", Some(name @ ("P-256" | "P-384"))) => {
                let point = [&[4], bytes(&key.x)?.as_slice(), bytes(&key.y)?.as_slice()].concat();
                Public::Curve { name: name.to_owned(), point }
            }
            ("OKP", Some("Ed25519")) => Public::Curve { name: "Ed25519".to_owned(), point: bytes(&key.x)? },
            _ => return None,
        };
        Some(Self { kid: key.kid, alg: key.alg, public })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let named = self.alg.as_deref().is_none_or(|alg| Algorithm::named(alg) == Some(algorithm));
        named
            && match &self.public {
                Public::Rsa { .. } => algorithm.of_rsa().is_some(),
                Public::Curve { name, .. } => algorithm.of_curve().is_some_and(|(curve, _)| curve == name),
            }
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], code: &[u8]) -> bool {
        match (&self.public, algorithm.of_rsa(), algorithm.of_curve()) {
            (Public::Rsa { n, e }, Some(parameters), _) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, code).is_ok()
            }
            (Public::Curve { point, .. }, _, Some((_, how))) => {
                UnparsedPublicKey::new(how, point).verify(message, code).is_ok()
            }
            _ => false,
        }
    }
}

/// The keys in a document. What is of another kind is left out.
fn read(text: &[u8]) -> Vec<Key> {
    let document: Value = serde_json::from_slice(text).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    keys.into_iter().filter_map(Key::read).collect()
}

/// The keys that count.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    known: RefCell<Known>,
    /// One fetch at a time.
    fetching: Mutex<()>,
    notice: Notice,
}

/// Tells the operator what no client is told.
pub(super) struct Notice(pub(super) Box<dyn Fn(&str)>);

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notice")
    }
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Address(Place),
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<Rc<Key>>,
    /// What of the file changes with it.
    stamp: Option<[i64; 5]>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Jwks {
    pub(super) fn new(rules: &Rules, notice: Notice) -> Result<Self, SourceError> {
        let source = match &rules.keys {
            Keys::File(path) => Source::File(path.clone()),
            Keys::Url(url) => Source::Address(
                Place::new(url, rules.ca.as_deref())
                    .map_err(|error| SourceError::Fetch(url.clone(), error))?,
            ),
        };
        let this = Self { source, known: RefCell::default(), fetching: Mutex::new(()), notice };
        if let Source::File(path) = &this.source {
            this.reread(path).map_err(|error| SourceError::File(path.clone(), error))?;
            if this.known.borrow().keys.is_empty() {
                return Err(SourceError::NoKey(format!("`{}`", path.display())));
            }
        }
        Ok(this)
    }

    /// The key that a token names, or the only one there is for its algorithm.
    pub(super) async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Rc<Key>, String> {
        match &self.source {
            Source::File(path) => {
                if let Err(error) = self.reread(path) {
                    self.known.borrow_mut().keys.clear();
                    return Err(format!("the keys cannot be read: {error}"));
                }
            }
            Source::Address(place) => self.refresh(place, kid).await,
        }
        self.find(kid, algorithm).ok_or_else(|| "the token's key is not known".to_owned())
    }

    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Rc<Key>> {
        let known = self.known.borrow();
        let named = |key: &&Rc<Key>| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
        let mut fit = known.keys.iter().filter(named).filter(|key| key.fits(algorithm));
        let first = fit.next()?;
        // A token that names none could mean either of two.
        (fit.next().is_none()).then(|| Rc::clone(first))
    }

    fn reread(&self, path: &Path) -> io::Result<()> {
        let metadata = std::fs::metadata(path)?;
        let bits = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
        let stamp = [
            bits(metadata.ino()),
            bits(metadata.size()),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
        ];
        if self.known.borrow().stamp == Some(stamp) {
            return Ok(());
        }
        if !metadata.is_file() || metadata.size() > LARGEST {
            return Err(io::Error::other("it is no file, or too large"));
        }
        let keys = read(&std::fs::read(path)?).into_iter().map(Rc::new).collect();
        *self.known.borrow_mut() = Known { keys, stamp: Some(stamp), fetched: None, tried: None };
        Ok(())
    }

    fn due(&self, kid: Option<&str>) -> bool {
        let known = self.known.borrow();
        let now = Instant::now();
        let old = known.fetched.is_none_or(|at| now - at >= FRESH);
        let unknown = kid.is_some_and(|kid| !known.keys.iter().any(|key| key.kid.as_deref() == Some(kid)));
        (old || unknown) && known.tried.is_none_or(|at| now - at >= SELDOM)
    }

    async fn refresh(&self, place: &Place, kid: Option<&str>) {
        if self.due(kid) {
            let _one = self.fetching.lock().await;
            // Whoever had it meanwhile may have fetched.
            if self.due(kid) {
                self.known.borrow_mut().tried = Some(Instant::now());
                let got =
                    place.get().await.map(|text| read(&text).into_iter().map(Rc::new).collect::<Vec<_>>());
                match got {
                    Ok(keys) if !keys.is_empty() => {
                        let mut known = self.known.borrow_mut();
                        known.keys = keys;
                        known.fetched = Some(Instant::now());
                    }
                    Ok(_none) => (self.notice.0)(&SourceError::NoKey(format!("`{place}`")).to_string()),
                    Err(error) => {
                        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
                        (self.notice.0)(&format!("cannot fetch keys from `{place}`: {error}{cause}"));
                    }
                }
            }
        }
        let mut known = self.known.borrow_mut();
        if known.fetched.is_some_and(|at| at.elapsed() >= KEPT) {
            known.keys.clear();
        }
    }
}
