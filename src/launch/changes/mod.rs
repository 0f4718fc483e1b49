//! What a cell wrote to its overlays, when its last process is gone: looked at from outside, and done to the host whole or not at
//! all.
//!
//! ```text
//! read ──► judge ──a name may not be changed──► refused
//!            │ all may
//!         prepare ──the host refuses──► taken back, refused
//!            │ every directory and, under names of its own, every file is there
//!          look again ──the host changed──► taken back, refused
//!            │
//!         rename each over its name, delete what is gone
//! ```
//!
//! Everything in the cell's memory is hostile, and nothing of it is opened that is no regular file or directory. On the host no
//! link is followed, and what is done is done as the owner of the directory that was granted.
//!
//! Neighbours: `plan::review` judges, `read` finds, `apply` does; `commands::exec` and `launch::launcher` call it. Never: runs while
//! a process of the cell is left.

mod apply;
mod read;

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kept, LaunchError, overlay, root};
use crate::outcome::{Change, Changes, Verdict, Violation};
use crate::plan::Plan;
use crate::plan::review::{self, Found, Kind, Objection, Rules};
use crate::plan::step::Step;
use crate::sys::mount::{self, Beneath};
use crate::sys::{Errno, Result};

/// Changes that are told one by one, and reasons against them.
const TOLD_MOST: usize = 48;
/// Bytes of a path that is told.
const TEXT_MOST: usize = 256;

/// One overlay.
#[derive(Debug)]
struct Layer<'p> {
    rules: Rules<'p>,
    /// Whose the files are that a payload of root makes.
    owner: Option<(u32, u32)>,
    upper: OwnedFd,
    host: OwnedFd,
    /// By which attribute the overlay says that a directory hides the host's. A tool can set the one of the other kind.
    hides: &'static CStr,
    found: Vec<Seen>,
}

/// One name, and what the host's file was when it was looked at.
#[derive(Debug)]
struct Seen {
    found: Found,
    was: Option<Identity>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    place: (u64, u64),
    owner: (u32, u32),
    size: u64,
    times: [(i64, i64); 2],
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            owner: (metadata.uid(), metadata.gid()),
            size: metadata.size(),
            times: [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())],
        }
    }
}

/// What was found, and what may be done about it.
#[derive(Debug)]
pub struct Review<'p> {
    layers: Vec<Layer<'p>>,
    /// By layer and place in it.
    changes: Vec<(usize, usize, Change)>,
    objections: Vec<Objection>,
}

/// Content of one file before and after; what is no regular file, or is too long to be shown, is left out.
#[derive(Debug)]
pub struct Contents {
    /// On the host.
    pub before: Option<Vec<u8>>,
    /// In the cell.
    pub after: Option<Vec<u8>>,
}

impl<'p> Review<'p> {
    /// Looks at what a cell of this plan left in its memory.
    ///
    /// # Errors
    /// What cannot be looked at.
    pub fn of(plan: &'p Plan, memory: BorrowedFd<'_>, kept: &Kept) -> std::result::Result<Self, LaunchError> {
        let mut review = Self { layers: Vec::new(), changes: Vec::new(), objections: Vec::new() };
        let mut room = review::NAMES_MOST;
        let mut bytes = 0_u64;
        let overlays = plan.steps.iter().filter_map(|step| match step {
            Step::MountOverlay { source, owner, kept, denied, left, .. } => {
                Some((Rules { grant: source, kept, denied, left }, *owner))
            }
            _ => None,
        });
        let as_root = plan.steps.iter().any(|step| matches!(step, Step::SetIds { .. }));
        let hides = if as_root { c"trusted.overlay.opaque" } else { c"user.overlay.opaque" };
        for (number, (rules, owner)) in overlays.enumerate() {
            let failed = |errno| LaunchError::new("review", rules.grant.to_string_lossy(), errno);
            let mut layer = Layer::open(number, (rules, owner, hides), memory, kept).map_err(failed)?;
            match read::layer(&mut layer, kept.since, &mut room) {
                Ok(()) => {}
                Err(read::Stop::Objection(objection)) => {
                    review.objections.push(objection);
                    break;
                }
                Err(read::Stop::Failed(path, errno)) => {
                    let path = rules.grant.join(path);
                    return Err(LaunchError::new("review", path.to_string_lossy(), errno));
                }
            }
            for (place, seen) in layer.found.iter().enumerate() {
                match review::judge(&seen.found, rules, &|path| layer.has_directory(path)) {
                    Ok(None) => {}
                    Ok(Some(change)) => {
                        bytes = bytes.saturating_add(change.size);
                        review.changes.push((number, place, change));
                    }
                    Err(objection) => review.objections.push(objection),
                }
            }
            review.layers.push(layer);
        }
        let most = plan.steps.iter().find_map(|step| match step {
            Step::MountChanges { size, .. } => Some(*size),
            _ => None,
        });
        // Names of one file in the cell are files of their own on the host.
        if let Some(most) = most.filter(|most| bytes > *most) {
            let rule = format!("`filesystem.writes = \"review\"`, which writes no more than {most} bytes");
            let grant = review.layers.first().map_or(Path::new("/"), |layer| layer.rules.grant);
            review.objections.push(Objection::of_all(grant, rule, None));
        }
        Ok(review)
    }

    /// May all of it be done?
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.objections.is_empty()
    }

    /// The changes that were found, with what became of them.
    #[must_use]
    pub fn told(&self, verdict: Verdict) -> Changes {
        let told = self
            .changes
            .iter()
            .take(TOLD_MOST)
            .map(|(_, _, change)| Change { path: cut(&change.path), ..change.clone() });
        let left_out = self.changes.len().saturating_sub(TOLD_MOST);
        Changes { verdict, files: told.collect(), left_out: u64::try_from(left_out).unwrap_or(u64::MAX) }
    }

    /// All of the changes, each with what the file holds before and after, as far as it has no more than `most` bytes.
    pub fn contents(&self, most: u64) -> impl Iterator<Item = (&Change, Contents)> {
        self.changes.iter().filter_map(move |(layer, place, change)| {
            let layer = self.layers.get(*layer)?;
            let path = &layer.found.get(*place)?.found.path;
            let text = |root: &OwnedFd| {
                let file = layer.file(root, path).ok()?;
                let mut bytes = Vec::new();
                file.take(most.saturating_add(1)).read_to_end(&mut bytes).ok()?;
                (bytes.len() as u64 <= most).then_some(bytes)
            };
            Some((change, Contents { before: text(&layer.host), after: text(&layer.upper) }))
        })
    }

    /// Why it may not be done: the first reasons.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let told = self.objections.iter().take(8).map(Objection::violation);
        told.map(|told| Violation { object: cut(&told.object), rule: cut(&told.rule), ..told }).collect()
    }

    /// Does all of it, if all may be done; what became of it.
    ///
    /// # Errors
    /// The file that the host refused to change, and whether others were changed by then.
    pub fn apply(&self) -> std::result::Result<Changes, (Changes, LaunchError)> {
        if !self.is_allowed() {
            return Ok(self.told(Verdict::Refused));
        }
        match apply::all(self) {
            Ok(()) => Ok(self.told(Verdict::Applied)),
            Err(apply::Failed { path, errno, done }) => {
                let verdict = if done { Verdict::Partly } else { Verdict::Refused };
                Err((self.told(verdict), LaunchError::new("apply", path.to_string_lossy(), errno)))
            }
        }
    }
}

/// What became of a cell's changes, for who cannot look.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reviewed {
    /// What they are, as far as they could be looked at.
    pub changes: Option<Changes>,
    /// Why none is done.
    pub violations: Vec<Violation>,
    /// What failed.
    pub error: Option<LaunchError>,
}

impl Reviewed {
    /// Looks, and does it if all may be done and it is not only to be looked at.
    pub(super) fn of(plan: &Plan, memory: BorrowedFd<'_>, kept: &Kept, look: bool) -> Self {
        let review = match Review::of(plan, memory, kept) {
            Ok(review) => review,
            Err(error) => return Self::failed(error),
        };
        let done = if look { Ok(review.told(Verdict::Refused)) } else { review.apply() };
        let (changes, error) = match done {
            Ok(changes) => (changes, None),
            Err((changes, error)) => (changes, Some(error)),
        };
        Self { changes: Some(changes), violations: review.violations(), error }
    }

    /// Nothing could be looked at.
    #[must_use]
    pub const fn failed(error: LaunchError) -> Self {
        Self { changes: None, violations: Vec::new(), error: Some(error) }
    }

    /// Was all of it done?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.verdict == Verdict::Applied)
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).take_while(|at| *at <= TEXT_MOST).last() {
        Some(at) if text.len() > TEXT_MOST => format!("{}…", text.get(..at).unwrap_or_default()),
        _ => text.to_owned(),
    }
}

impl<'p> Layer<'p> {
    fn open(
        number: usize,
        (rules, owner, hides): (Rules<'p>, Option<(u32, u32)>, &'static CStr),
        memory: BorrowedFd<'_>,
        kept: &Kept,
    ) -> Result<Self> {
        let upper = open_below(memory, Path::new(&overlay::upper(number)), libc::O_DIRECTORY | libc::O_PATH)?;
        let host = root::open_directory(rules.grant)?;
        let metadata = metadata(host.as_fd())?;
        match kept.beneath.get(number) {
            Some(place) if *place == (metadata.dev(), metadata.ino()) => {
                Ok(Self { rules, owner, upper, host, hides, found: Vec::new() })
            }
            // Another directory has its name.
            _ => Err(Errno(libc::ESTALE)),
        }
    }

    /// Is this a directory on the host, as far as the cell wrote below it?
    fn has_directory(&self, path: &Path) -> bool {
        let found = self.found.iter().find(|seen| seen.found.path == path);
        found.and_then(|seen| seen.found.was).is_some_and(|was| was.kind == Kind::Directory)
    }

    /// A regular file of either side.
    fn file(&self, root: &OwnedFd, path: &Path) -> Result<File> {
        let file = open_below(root.as_fd(), path, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK)?;
        let file = File::from(file);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(Errno(libc::EINVAL)),
        }
    }
}

/// Below a directory and on its mount, no link followed. What is no file or directory is opened by `O_PATH` only.
fn open_below(directory: BorrowedFd<'_>, path: &Path, flags: libc::c_int) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    mount::open_without_links(directory, &root::text(path)?, flags, 0, Beneath::SameMount)
}

/// What a name stands for, itself and not what it may lead to.
fn look(directory: BorrowedFd<'_>, name: &Path) -> Result<Option<(OwnedFd, Metadata)>> {
    match open_below(directory, name, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(found) => {
            let metadata = metadata(found.as_fd())?;
            Ok(Some((found, metadata)))
        }
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn metadata(fd: BorrowedFd<'_>) -> Result<Metadata> {
    Ok(File::from(fd.try_clone_to_owned()?).metadata()?)
}

fn kind(metadata: &Metadata) -> Kind {
    let found = metadata.file_type();
    match () {
        () if found.is_file() => Kind::File,
        () if found.is_dir() => Kind::Directory,
        () if found.is_symlink() => Kind::Link,
        () => Kind::Other,
    }
}

/// How an overlay says that a name is gone.
fn is_gone(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// The directory of a name, and the name.
fn split(path: &Path) -> Result<(PathBuf, CString)> {
    let (above, name) = path.parent().zip(path.file_name()).ok_or(Errno(libc::EINVAL))?;
    Ok((above.to_owned(), root::text(Path::new(name))?))
}

#[cfg(test)]
mod tests;
