//! Looks at the paths of a policy on the host: where they really lie, what they are, whose they are.
//!
//! Neighbours: takes rules of a policy and of `host::runtime`, gives [`Seen`] to `plan`. Never: changes anything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::runtime::Files;
use crate::launch::reserve;
use crate::plan::step::{Access, Kind};
use crate::policy::path::{OF_THE_SYSTEM, grantable, is_within};
use crate::policy::traps::{self, Protected};
use crate::policy::{Filesystem, PathRule};
use crate::sys::{Errno, descriptor, identity};

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

/// To be read only.
const READ: Access = Access { write: false, execute: false, names: false };

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
        match self.errno.0 {
            libc::ENOENT => Some(format!(
                "create `{}` first, correct the rule, or mark it `optional = true` in the profile",
                self.path
            )),
            libc::ELOOP => Some(format!(
                "a tool could replace the link `{}`: put what it leads to in its place, or grant a narrower directory",
                self.path
            )),
            _ => None,
        }
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
    /// What the host would run or trust in a writable directory, to be read-only.
    pub protected: Vec<Seen>,
    /// The same names where they do not exist now, and what stands in for each.
    pub vacant: Vec<(Seen, Option<&'static str>)>,
}

/// What else decides how the paths of a policy are looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around<'a> {
    /// The user's home directory.
    pub home: Option<&'a Path>,
    /// What cells of other policies may write to.
    pub written: &'a [PathBuf],
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

/// The first of these links that a cell could have made.
fn of_a_cell(files: &Files, links: &[(PathBuf, PathBuf)], written: &[PathBuf]) -> Option<PathBuf> {
    let beneath = |link: &Path, directory: &Path| link != directory && link.starts_with(directory);
    let within = |link: &Path| {
        written.iter().any(|path| files.resolve(path).is_ok_and(|directory| beneath(link, &directory.real)))
    };
    links.iter().map(|(link, _)| link).find(|link| within(link)).cloned()
}

/// Looks at one path; `None` when it is optional and missing. No link is followed that lies in what is `written`.
fn look(
    files: &Files,
    rule: &PathRule,
    access: Access,
    data: bool,
    written: &[PathBuf],
) -> Result<Option<Seen>, Unusable> {
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
    if let Some(link) = of_a_cell(files, &found.links, written) {
        let path = link.to_string_lossy().into_owned();
        return Err(Unusable { path, origin: rule.origin.clone(), errno: Errno(libc::ELOOP) });
    }
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
        FOR_EVERYBODY.iter().any(|directory| source.as_os_str() == *directory)
    } else {
        // Elsewhere, such as in root's home, a program's files may be closed to others, and cells of root could not run it
        // without being given its owner's view.
        OF_THE_SYSTEM.iter().any(|directory| is_within(&source, Path::new(directory)))
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

/// Looks at every path rule of a policy, and at the names that are protected without one.
///
/// # Errors
/// The first rule whose path is missing, cannot be looked at, or leads through a link that a cell could have made.
pub fn of_policy(files: &Files, filesystem: &Filesystem, around: Around<'_>) -> Result<View, Unusable> {
    let mut view = View::default();
    let lists = [
        (&filesystem.read, READ),
        (&filesystem.write, Access { write: true, ..READ }),
        (&filesystem.execute, Access { execute: true, ..READ }),
        (&filesystem.list, Access { names: true, ..READ }),
    ];
    let own = filesystem.write.iter().map(|rule| rule.path.clone());
    let written: Vec<PathBuf> = own.chain(around.written.iter().cloned()).collect();
    for (rules, access) in lists {
        for rule in rules {
            view.granted.extend(look(files, rule, access, true, &written)?);
        }
    }
    for rule in &filesystem.deny {
        let optional = PathRule { optional: true, ..rule.clone() };
        // A link does not take a name out of what is denied.
        match look(files, &optional, READ, true, &[])? {
            Some(seen) if !reserve::is_vacant(&seen.source) => view.hidden.push(seen),
            // `optional` in a `deny`: only while the name exists.
            _ if !rule.optional => view.absent.push(rule.clone()),
            _ => {}
        }
    }
    for grant in &filesystem.write {
        let Ok(directory) = files.resolve(&grant.path) else { continue };
        let is_git = directory.real.file_name().is_some_and(|name| name == traps::GIT);
        let has = |names: &[&str]| names.iter().all(|name| files.resolve(&directory.real.join(name)).is_ok());
        let mut names = traps::in_grant(&grant.path, around.home);
        // The parts by which git knows either (gitrepository-layout(5)). A tool can make them: they add names, and take none away.
        if is_git || has(&["HEAD", "objects", "refs"]) {
            names.extend(traps::in_repository(&grant.path));
        } else if has(&["HEAD", "commondir", "gitdir"]) {
            names.extend(traps::in_linked(&grant.path));
        }
        for name in names {
            protect(files, filesystem, name, &mut view)?;
        }
    }
    Ok(view)
}

/// What the host would run is read-only where it exists, and cannot come to exist where it does not.
fn protect(files: &Files, filesystem: &Filesystem, name: Protected, view: &mut View) -> Result<(), Unusable> {
    let Protected { rule, content } = name;
    let Some((parent, last)) = rule.path.parent().zip(rule.path.file_name()) else { return Ok(()) };
    let Ok(directory) = files.resolve(parent) else { return Ok(()) };
    if !directory.meta.is_dir() || !traps::applies(filesystem, &rule.path) {
        return Ok(());
    }
    let source = directory.real.join(last);
    if files.is_link(&source) {
        let path = source.to_string_lossy().into_owned();
        return Err(Unusable { path, origin: rule.origin, errno: Errno(libc::ELOOP) });
    }
    match look(files, &rule, READ, true, &[])? {
        Some(seen) if !reserve::is_vacant(&seen.source) => {
            if view.hidden.iter().any(|hidden| seen.source.starts_with(&hidden.source)) {
                return Ok(());
            }
            if seen.kind == Kind::Directory && last == traps::GIT {
                for inner in traps::in_repository(&rule.path) {
                    protect(files, filesystem, inner, view)?;
                }
            } else {
                // It is its owner's as what lies around it: git asks whose the file is that leads to a repository.
                view.protected.push(Seen { public: false, ..seen });
            }
        }
        // Where toolcell may not make a place for the name, neither may the tool make the name: it is the same user.
        _ => {
            let owner = identity::effective();
            let may_be_made = match descriptor::writable(&directory.real) {
                Ok(()) => true,
                // Whoever owns a directory can open it to himself.
                Err(errno) => errno.0 != libc::EROFS && directory.meta.uid() == owner.0,
            };
            if may_be_made {
                let kind = if content.is_some() { Kind::File } else { Kind::Directory };
                let why = format!("{} ({})", rule.why, rule.origin);
                let stand_in = Seen {
                    target: rule.path,
                    source,
                    kind,
                    access: READ,
                    owner,
                    data: true,
                    public: false,
                    why,
                };
                view.vacant.push((stand_in, content));
            }
        }
    }
    Ok(())
}

/// Looks at what a program needs.
///
/// # Errors
/// A path that vanished since it was found.
pub fn of_runtime(files: &Files, needed: &[super::runtime::Needed]) -> Result<Vec<Seen>, Unusable> {
    let access = Access { execute: true, ..READ };
    let mut seen = Vec::new();
    for item in needed {
        let rule = PathRule {
            path: item.path.clone(),
            why: item.why.clone(),
            origin: "found from the command".to_owned(),
            optional: false,
        };
        seen.extend(look(files, &rule, access, false, &[])?);
    }
    Ok(seen)
}

/// Does the cell have this directory, and what is in it?
pub fn shows_directory<'a>(wanted: &Path, view: impl IntoIterator<Item = &'a Seen>) -> bool {
    view.into_iter().any(|seen| seen.kind == Kind::Directory && wanted.starts_with(&seen.target))
}
