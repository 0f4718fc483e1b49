//! Checkpoints: how many records a log has and their hash, signed by the key of the installation.
//!
//! A checkpoint is a record of the log itself, and its line is kept in a second file beside the log, so that a log
//! whose end is cut off is told from one that ends there.
//!
//! Neighbours: `audit::log` writes both, `audit::verify` compares them. Never: does I/O.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Link};
use super::key::{Key, Public, is_signed};
use super::record::SCHEMA;
use super::stamp::rfc3339;
use crate::policy::tokens::{from_hex, to_hex};

/// The record in which the key's holder vouches for all records before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`SCHEMA`]
    pub schema: String,
    /// `checkpoint`
    pub event: String,
    /// When, in UTC by RFC 3339.
    pub time: String,
    /// How many records there are before this one: the number of the last.
    pub count: u64,
    /// The hash of that one.
    pub head: String,
    /// The public key.
    pub key: String,
    /// The signature of [`message`].
    pub signature: String,
}

impl Checkpoint {
    /// Vouches for all records up to a place.
    #[must_use]
    pub fn new(link: &Link, key: &Key, now: SystemTime) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            event: "checkpoint".to_owned(),
            time: rfc3339(now),
            count: link.number,
            head: to_hex(&link.hash),
            key: to_hex(&key.public()),
            signature: to_hex(&key.sign(message(link).as_bytes())),
        }
    }

    /// What it vouches for, if it says so in the form in which it is written.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        Some(Link { number: self.count, hash: array::<{ size_of::<Hash>() }>(&self.head)? })
    }

    /// Who vouches, if the signature is that key's.
    #[must_use]
    pub fn signer(&self) -> Option<Public> {
        let key = array(&self.key)?;
        let signature = array(&self.signature)?;
        is_signed(message(&self.link()?).as_bytes(), &key, &signature).then_some(key)
    }
}

/// The text that is signed for a place.
fn message(link: &Link) -> String {
    format!("toolcell.checkpoint/1 {} {}", link.number, to_hex(&link.hash))
}

fn array<const N: usize>(hex: &str) -> Option<[u8; N]> {
    from_hex(hex)?.try_into().ok()
}

/// The file beside a log that has the line of its last checkpoint.
#[must_use]
pub fn beside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".checkpoint");
    name.into()
}
