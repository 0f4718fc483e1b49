//! Finds what a cell left in the upper directory of an overlay, beside what the host has under the same names.
//!
//! A name that the overlay took away is a character device 0/0; a directory that hides what the host has of it says so by an
//! attribute. Whatever else there is is what it looks like.
//!
//! Neighbours: `mod` judges what is found. Never: opens what is no directory or regular file, or goes on without a bound.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Identity, Layer, Seen, is_gone, kind, look, metadata, open_below};
use crate::plan::review::{DEPTH_MOST, Found, Kind, NAMES_MOST, Now, Objection, Was};
use crate::sys::{Errno, attribute, tree};

/// Why there is nothing to judge.
pub(super) enum Stop {
    /// There is too much of it.
    Objection(Objection),
    /// This cannot be looked at.
    Failed(PathBuf, Errno),
}

struct Walk<'w, 'p> {
    layer: &'w mut Layer<'p>,
    since: (i64, i64),
    room: &'w mut usize,
}

/// Fills in what was found in a layer. `room`: how many names there may be.
pub(super) fn layer(layer: &mut Layer<'_>, since: (i64, i64), room: &mut usize) -> Result<(), Stop> {
    let copy = |fd: &std::os::fd::OwnedFd| {
        fd.try_clone().map_err(|error| Stop::Failed(PathBuf::new(), Errno::from_io(&error)))
    };
    let (upper, host) = (copy(&layer.upper)?, copy(&layer.host)?);
    let top = Path::new("");
    let of = |fd: BorrowedFd<'_>| metadata(fd).map_err(|errno| Stop::Failed(top.to_owned(), errno));
    let (now, was) = (of(upper.as_fd())?, of(host.as_fd())?);
    let mut walk = Walk { layer, since, room };
    walk.note(top, Some(now_of(&now)), Some(&was), false, false);
    walk.directory(top, upper.as_fd(), Some(host.as_fd()), false)
}

fn now_of(metadata: &std::fs::Metadata) -> Now {
    Now { kind: kind(metadata), mode: metadata.mode() & 0o7777, size: metadata.size() }
}

impl Walk<'_, '_> {
    fn objection(&self, path: &Path, what: &str) -> Stop {
        let rule = format!("`filesystem.writes = \"review\"`, {what}");
        Stop::Objection(Objection::of_all(&self.layer.rules.grant.join(path), rule, None))
    }

    fn note(
        &mut self,
        path: &Path,
        now: Option<Now>,
        was: Option<&std::fs::Metadata>,
        same: bool,
        in_group: bool,
    ) {
        let later = |was: &std::fs::Metadata| (was.ctime(), was.ctime_nsec()) > self.since;
        let found = Found {
            path: path.to_owned(),
            now,
            was: was.map(|was| Was { kind: kind(was), mode: was.mode() & 0o7777, later: later(was) }),
            same,
            in_group,
        };
        self.layer.found.push(Seen { found, was: was.map(Identity::of) });
    }

    /// The names in a directory, if there is room for them.
    fn names(&mut self, path: &Path, directory: BorrowedFd<'_>) -> Result<Vec<OsString>, Stop> {
        if path.iter().count() >= DEPTH_MOST {
            return Err(self.objection(path, &format!("which goes {DEPTH_MOST} directories deep")));
        }
        let names = tree::names(directory, *self.room);
        let mut names = names.map_err(|errno| Stop::Failed(path.to_owned(), errno))?;
        let Some(room) = self.room.checked_sub(names.len()) else {
            return Err(self.objection(path, &format!("which changes no more than {NAMES_MOST} names")));
        };
        *self.room = room;
        names.sort();
        Ok(names)
    }

    fn directory(
        &mut self,
        path: &Path,
        upper: BorrowedFd<'_>,
        host: Option<BorrowedFd<'_>>,
        in_group: bool,
    ) -> Result<(), Stop> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |errno| Stop::Failed(path, errno)
        };
        let names = self.names(path, upper)?;
        for name in &names {
            let inner = path.join(name);
            let failed = || failed(&inner);
            let Some((entry, now)) = look(upper, Path::new(name)).map_err(failed())? else { continue };
            let below = host.map(|host| look(host, Path::new(name))).transpose().map_err(failed())?.flatten();
            if is_gone(&now) {
                if let Some((entry, was)) = &below {
                    self.gone(&inner, entry.as_fd(), was)?;
                }
                continue;
            }
            let was = below.as_ref().map(|(_, was)| was);
            let same = match below.as_ref().filter(|(_, was)| alike(&now, was)) {
                None => false,
                Some((old, _)) if now.is_symlink() => {
                    let link = |fd: BorrowedFd<'_>| tree::link(fd).map_err(failed());
                    link(entry.as_fd())? == link(old.as_fd())?
                }
                Some(_) if now.is_file() => self.equal(&inner).map_err(failed())?,
                Some(_) => false,
            };
            self.note(&inner, Some(now_of(&now)), was, same, in_group);
            if !now.is_dir() {
                continue;
            }
            let open =
                open_below(upper, Path::new(name), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW);
            let open = open.map_err(failed())?;
            let below = below.as_ref().filter(|(_, was)| was.is_dir());
            let group = below.map_or(in_group, |(_, was)| was.mode() & 0o2000 != 0);
            self.directory(&inner, open.as_fd(), below.map(|(entry, _)| entry.as_fd()), group)?;
            let hides = attribute::is(open.as_fd(), self.layer.hides, b'y').map_err(failed())?;
            if let (true, Some((entry, _))) = (hides, below) {
                self.hidden(&inner, entry.as_fd(), Some(open.as_fd()))?;
            }
        }
        Ok(())
    }

    /// What the host has in a directory and the other one has not.
    fn hidden(&mut self, path: &Path, host: BorrowedFd<'_>, but: Option<BorrowedFd<'_>>) -> Result<(), Stop> {
        for name in self.names(path, host)? {
            let (inner, name) = (path.join(&name), Path::new(&name));
            let failed = |errno| Stop::Failed(inner.clone(), errno);
            if but.map(|but| look(but, name)).transpose().map_err(failed)?.flatten().is_some() {
                continue;
            }
            if let Some((entry, was)) = look(host, name).map_err(failed)? {
                self.gone(&inner, entry.as_fd(), &was)?;
            }
        }
        Ok(())
    }

    /// A name that is gone, with all that was below it.
    fn gone(&mut self, path: &Path, host: BorrowedFd<'_>, was: &std::fs::Metadata) -> Result<(), Stop> {
        self.note(path, None, Some(was), false, false);
        if was.is_dir() {
            self.hidden(path, host, None)?;
        }
        Ok(())
    }

    /// Do both sides hold the same bytes under this name?
    fn equal(&self, path: &Path) -> Result<bool, Errno> {
        let Ok(mut host) = self.layer.file(&self.layer.host, path) else { return Ok(false) };
        let mut upper = self.layer.file(&self.layer.upper, path)?;
        let (mut one, mut other) = ([0; 16 * 1024], [0; 16 * 1024]);
        loop {
            let (here, there) = (fill(&mut upper, &mut one)?, fill(&mut host, &mut other)?);
            if one.get(..here) != other.get(..there) {
                return Ok(false);
            }
            if here == 0 {
                return Ok(true);
            }
        }
    }
}

/// Before their content is compared.
fn alike(now: &std::fs::Metadata, was: &std::fs::Metadata) -> bool {
    kind(now) == kind(was)
        && match kind(now) {
            Kind::File => (now.mode(), now.size()) == (was.mode(), was.size()),
            Kind::Link => true,
            Kind::Directory | Kind::Other => false,
        }
}

/// As much as there is room for, or as is left.
fn fill(file: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
