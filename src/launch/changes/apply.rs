//! Does the changes that may be done. Everything that can fail for want of room or rights is done first, under names that
//! nobody looks for; then each file gets its own name by one rename.
//!
//! Neighbours: `mod` has judged the changes. Never: follows a link, replaces what the host changed meanwhile, or leaves a file
//! half written under its name.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::{Identity, Layer, Review, Seen, look, metadata, open_below, split};
use crate::outcome::ChangeKind;
use crate::plan::review::Kind;
use crate::sys::mount::{self, Beneath};
use crate::sys::{Errno, Result, identity, process, tree};

/// The host refused a change.
pub(super) struct Failed {
    pub(super) path: PathBuf,
    pub(super) errno: Errno,
    /// Others had been made by then, for good.
    pub(super) done: bool,
}

/// A thread that is another on the file system, until this is dropped.
struct Acting {
    own: (u32, u32),
    other: bool,
}

impl Acting {
    /// As the owner of what was granted, where this process is somebody who may be.
    fn of(layer: &Layer<'_>) -> Result<Self> {
        let own = identity::effective();
        let acting = Self { own, other: layer.owner.is_some() };
        if let Some((uid, gid)) = layer.owner {
            identity::act_on_files_as(uid, gid)?;
        }
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if self.other {
            let (uid, gid) = self.own;
            let _kept_less = identity::act_on_files_as(uid, gid).is_err();
        }
    }
}

/// One change with its places.
struct Item<'r, 'p> {
    layer: &'r Layer<'p>,
    seen: &'r Seen,
    kind: ChangeKind,
    number: usize,
}

impl Item<'_, '_> {
    fn is_directory(&self) -> bool {
        let found = &self.seen.found;
        let kind = found.now.map(|now| now.kind).or(found.was.map(|was| was.kind));
        kind == Some(Kind::Directory)
    }

    fn failed(&self, done: bool) -> impl FnOnce(Errno) -> Failed {
        let path = self.layer.rules.grant.join(&self.seen.found.path);
        move |errno| Failed { path, errno, done }
    }

    /// The open directory on the host, and the name in it.
    fn place(&self) -> Result<(OwnedFd, CString)> {
        let (above, name) = split(&self.seen.found.path)?;
        let above = open_below(self.layer.host.as_fd(), &above, libc::O_PATH | libc::O_DIRECTORY)?;
        Ok((above, name))
    }

    fn temporary(&self) -> Result<CString> {
        let name = format!(".toolcell-{}-{}", process::pid(), self.number);
        CString::new(name).map_err(|_nul| Errno(libc::EINVAL))
    }

    fn mode(&self) -> u32 {
        self.seen.found.now.map_or(0, |now| now.mode & 0o777)
    }

    /// Makes the directory, or the file under a name of ours.
    fn prepare(&self) -> Result<()> {
        let source = match self.is_directory() {
            true => None,
            false => Some(self.layer.file(&self.layer.upper, &self.seen.found.path)?),
        };
        let _acting = Acting::of(self.layer)?;
        let (above, name) = self.place()?;
        let Some(source) = source else { return mount::make_directory(above.as_fd(), &name, 0o700) };
        let name = self.temporary()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = mount::open_without_links(above.as_fd(), &name, flags, 0o600, Beneath::SameMount)?;
        let filled = self.fill(source, File::from(file));
        if filled.is_err() {
            let _gone = tree::remove(above.as_fd(), &name, false).is_err();
        }
        filled
    }

    fn fill(&self, mut source: File, mut file: File) -> Result<()> {
        let copied = io::copy(&mut source, &mut file)?;
        if self.seen.found.now.map(|now| now.size) != Some(copied) {
            return Err(Errno(libc::EIO));
        }
        let own = file.metadata()?;
        if let Some(Identity { owner: (uid, gid), .. }) = self.seen.was
            && (own.uid(), own.gid()) != (uid, gid)
        {
            fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(file.set_permissions(Permissions::from_mode(self.mode()))?)
    }

    /// Takes back what `prepare` made.
    fn take_back(&self) -> Result<()> {
        let _acting = Acting::of(self.layer)?;
        let (above, name) = self.place()?;
        match self.is_directory() {
            true => tree::remove(above.as_fd(), &name, true),
            false => tree::remove(above.as_fd(), &self.temporary()?, false),
        }
    }

    /// Is what the host has under the name still what was looked at?
    fn look_again(&self) -> Result<()> {
        if self.kind == ChangeKind::Added && self.is_directory() {
            return Ok(());
        }
        let (above, _) = self.place()?;
        let name = self.seen.found.path.file_name().ok_or(Errno(libc::EINVAL))?;
        let now = look(above.as_fd(), Path::new(name))?.map(|(_, now)| Identity::of(&now));
        // Of a directory that is deleted, what is in it counts, and rmdir(2) looks at that itself.
        match now == self.seen.was || now.is_some() && self.is_directory() {
            true => Ok(()),
            false => Err(Errno(libc::ESTALE)),
        }
    }

    /// The change itself.
    fn finish(&self) -> Result<()> {
        self.look_again()?;
        let _acting = Acting::of(self.layer)?;
        let (above, name) = self.place()?;
        match self.kind {
            ChangeKind::Deleted => tree::remove(above.as_fd(), &name, self.is_directory()),
            ChangeKind::Added | ChangeKind::Changed if self.is_directory() => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let made = open_below(above.as_fd(), Path::new(name.to_str().unwrap_or_default()), flags)?;
                let bits = metadata(made.as_fd())?.mode() & 0o7000;
                Ok(File::from(made).set_permissions(Permissions::from_mode(self.mode() | bits))?)
            }
            kind => tree::rename(above.as_fd(), &self.temporary()?, &name, kind == ChangeKind::Added),
        }
    }
}

/// Does all of it.
pub(super) fn all(review: &Review<'_>) -> std::result::Result<(), Failed> {
    let items: Vec<Item<'_, '_>> = review
        .changes
        .iter()
        .enumerate()
        .filter_map(|(number, (layer, place, change))| {
            let layer = review.layers.get(*layer)?;
            Some(Item { layer, seen: layer.found.get(*place)?, kind: change.kind, number })
        })
        .collect();
    // Found from the top down: a directory is made before what is in it.
    let (deleted, made): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.kind == ChangeKind::Deleted);
    let mut prepared = Vec::new();
    let mut ready = Ok(());
    for item in &made {
        if let Err(errno) = item.prepare() {
            ready = Err(item.failed(false)(errno));
            break;
        }
        prepared.push(*item);
    }
    let ready =
        ready.and_then(|()| items.iter().try_for_each(|item| item.look_again().map_err(item.failed(false))));
    if let Err(failed) = ready {
        take_back(&prepared);
        return Err(failed);
    }
    let files = made.iter().filter(|item| !item.is_directory());
    // From the bottom up: a directory is emptied before it is deleted, and gets its mode when it is full.
    let directories = made.iter().rev().filter(|item| item.is_directory());
    let mut done = false;
    for item in files.chain(deleted.iter().rev()).chain(directories) {
        if let Err(errno) = item.finish() {
            // What has its name stays, and what has not goes; a directory goes if it is empty.
            take_back(&prepared);
            return Err(item.failed(done)(errno));
        }
        done = true;
    }
    Ok(())
}

fn take_back(prepared: &[&Item<'_, '_>]) {
    for item in prepared.iter().rev() {
        let _not_there_any_more = item.take_back().is_err();
    }
}
