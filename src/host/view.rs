//! Looks at the paths of a policy on the host: where they really lie, what they are, whose they are.
//!
//! Neighbours: takes rules of a policy and of `host::runtime`, gives [`Seen`] to `plan`. Never: changes anything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::runtime::Files;
use crate::launch::reserve;
use crate::plan::step::{Access, Kind};
use crate::policy::path::grantable;
use crate::policy::{Filesystem, PathRule};
use crate::sys::Errno;

/// A path that exists on the host and is to be seen, or hidden, in the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is in the cell.
    pub target: PathBuf,
    /// Where it is on the host, every symbolic link resolved.
    pub source: PathBuf,
    /// Tree or file.
    pub kind: Kind,
    /// What it allows.
    pub access: Access,
    /// Owner and group on disk.
    pub owner: (u32, u32),
    /// Granted to the tool, not needed by the program: files in it are the payload's own even under root.
    pub data: bool,
    /// Everybody may read it, so that the payload needs no right of its owner's.
    pub public: bool,
    /// Why it is there, for `explain`.
    pub why: String,
}

/// Where programs lie that every user of a host may run. Elsewhere, such as in root's home, a program's files may be
/// closed to others, and cells of root could not run it without being given its owner's view.
const OF_THE_SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/nix"];

/// A rule whose path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use `{path}` ({origin})")]
pub struct Unusable {
    /// The path as the rule names it.
    pub path: String,
    /// Where the rule is.
    pub origin: String,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

impl Unusable {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        (self.errno.0 == libc::ENOENT).then(|| {
            format!(
                "create `{}` first, correct the rule, or mark it `optional = true` in the profile",
                self.path
            )
        })
    }
}

/// Everything that a policy grants and denies, as it is on the host now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Granted.
    pub granted: Vec<Seen>,
    /// Hidden; those that exist.
    pub hidden: Vec<Seen>,
    /// Denied names that do not exist now.
    pub absent: Vec<PathRule>,
}

/// Directories of the system whose files are for every user by their purpose. A file in them that is closed to others,
/// such as a private key beside the certificates, stays closed to the payload.
const FOR_EVERYBODY: [&str; 7] = [
    "/etc/alternatives",
    "/etc/crypto-policies",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
];

/// Looks at one path; `None` when it is optional and missing.
fn look(files: &Files, rule: &PathRule, access: Access, data: bool) -> Result<Option<Seen>, Unusable> {
    let failed = |error: std::io::Error| Unusable {
        path: rule.path.to_string_lossy().into_owned(),
        origin: rule.origin.clone(),
        errno: Errno::from(error),
    };
    let found = match files.resolve(&rule.path) {
        Ok(found) => found,
        Err(error) if rule.optional && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let (source, metadata) = (found.real, found.meta);
    // A link must not lead to what cannot be granted by name.
    if data && let Err(error) = grantable(&source) {
        return Err(Unusable {
            errno: Errno(libc::EPERM),
            origin: format!("{}: {error}", rule.origin),
            path: source.to_string_lossy().into_owned(),
        });
    }
    let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
    let readable = metadata.mode() & 0o004 != 0;
    let by_purpose = if data {
        FOR_EVERYBODY.iter().any(|directory| source == Path::new(directory))
    } else {
        OF_THE_SYSTEM.iter().any(|directory| source.starts_with(directory))
    };
    let shared = kind == Kind::File || by_purpose;
    Ok(Some(Seen {
        target: rule.path.clone(),
        source,
        kind,
        access,
        owner: (metadata.uid(), metadata.gid()),
        data,
        public: shared && readable && !access.write,
        why: if rule.why.is_empty() {
            rule.origin.clone()
        } else {
            format!("{} ({})", rule.why, rule.origin)
        },
    }))
}

/// Looks at every path rule of a policy.
///
/// # Errors
/// The first rule whose path is missing or cannot be looked at.
pub fn of_policy(files: &Files, filesystem: &Filesystem) -> Result<View, Unusable> {
    let mut view = View::default();
    let lists = [
        (&filesystem.read, Access { write: false, execute: false }),
        (&filesystem.write, Access { write: true, execute: false }),
        (&filesystem.execute, Access { write: false, execute: true }),
    ];
    for (rules, access) in lists {
        for rule in rules {
            view.granted.extend(look(files, rule, access, true)?);
        }
    }
    for rule in &filesystem.deny {
        let optional = PathRule { optional: true, ..rule.clone() };
        match look(files, &optional, Access { write: false, execute: false }, true)? {
            Some(seen) if !reserve::is_reserved(&seen.source) => view.hidden.push(seen),
            // `optional` in a `deny`: only while the name exists.
            _ if !rule.optional => view.absent.push(rule.clone()),
            _ => {}
        }
    }
    Ok(view)
}

/// Looks at what a program needs.
///
/// # Errors
/// A path that vanished since it was found.
pub fn of_runtime(files: &Files, needed: &[super::runtime::Needed]) -> Result<Vec<Seen>, Unusable> {
    let access = Access { write: false, execute: true };
    let mut seen = Vec::new();
    for item in needed {
        let rule = PathRule {
            path: item.path.clone(),
            why: item.why.clone(),
            origin: "found from the command".to_owned(),
            optional: false,
        };
        seen.extend(look(files, &rule, access, false)?);
    }
    Ok(seen)
}

/// Does the cell have this directory, and what is in it?
pub fn shows_directory<'a>(wanted: &Path, view: impl IntoIterator<Item = &'a Seen>) -> bool {
    view.into_iter().any(|seen| seen.kind == Kind::Directory && wanted.starts_with(&seen.target))
}
