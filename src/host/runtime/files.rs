//! Looks at files below one root directory, following symbolic links itself and remembering them.
//!
//! Neighbours: every other file of `host::runtime` reads through it; tests give it a small tree as root.
//! Never: writes, blocks on a pipe or device, or reads more than it was told to.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;
/// More components than a path can have that the kernel accepts.
const MAX_COMPONENTS: usize = 4096;

/// The file tree that paths are looked up in. It remembers every name that it has looked at, so a process that
/// runs on lets it [`Files::forget`] them before each plan it makes.
#[derive(Debug, Clone)]
pub struct Files {
    /// The directory that stands for `/`, if it is another one.
    root: Option<PathBuf>,
    /// By path free of links; texts, because a path is slow to compare.
    known: RefCell<HashMap<OsString, Name>>,
    /// Directories by the path that they were asked for with: most lookups are of several names in a few of them.
    directories: RefCell<HashMap<OsString, Way>>,
}

/// Where the directory part of a path leads, and the links on the way.
#[derive(Debug, Clone)]
struct Way {
    real: PathBuf,
    links: Vec<(PathBuf, PathBuf)>,
}

/// What a name whose parents are no links was found to be.
#[derive(Debug, Clone)]
enum Name {
    Link(PathBuf),
    Other(Metadata),
    /// The kernel's errno.
    Unreachable(i32),
}

/// Where a path leads.
#[derive(Debug)]
pub struct Resolved {
    /// Free of symbolic links.
    pub real: PathBuf,
    /// Every link that was followed: its own path, free of links but for itself, and its target as it stands.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// What is at `real`.
    pub meta: Metadata,
}

impl Resolved {
    /// A regular file with an execute bit.
    pub(super) fn executable(&self) -> bool {
        self.meta.is_file() && self.meta.permissions().mode() & 0o111 != 0
    }
}

impl Files {
    /// The files of this host.
    #[must_use]
    pub fn of_host() -> Self {
        Self { root: None, known: RefCell::default(), directories: RefCell::default() }
    }

    /// The files below a directory, as if it were `/`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: Some(root.to_path_buf()), ..Self::of_host() }
    }

    /// From here on, every name is looked at anew.
    pub fn forget(&self) {
        self.known.borrow_mut().clear();
        self.directories.borrow_mut().clear();
    }

    /// Looks at one name, the first time it is asked for.
    fn look(&self, path: &Path) -> io::Result<Name> {
        if let Some(name) = self.known.borrow().get(path.as_os_str()) {
            return Ok(name.clone());
        }
        let host = self.at(path);
        let name = match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_symlink() => Name::Link(fs::read_link(&host)?),
            Ok(meta) => Name::Other(meta),
            Err(error) => Name::Unreachable(error.raw_os_error().ok_or(error)?),
        };
        self.known.borrow_mut().insert(path.as_os_str().to_owned(), name.clone());
        Ok(name)
    }

    /// Is there a symbolic link at a path whose parents are none?
    #[must_use]
    pub fn is_link(&self, path: &Path) -> bool {
        matches!(self.look(path), Ok(Name::Link(_)))
    }

    fn at<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        match &self.root {
            None => Cow::Borrowed(path),
            Some(root) => Cow::Owned(root.join(path.strip_prefix("/").unwrap_or(path))),
        }
    }

    /// Walks an absolute path as the kernel would, with this tree's root as `/`.
    ///
    /// # Errors
    /// The kernel's answer for the first name that cannot be looked at.
    pub fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        let split = split(path);
        let way = split.and_then(|(parent, _)| self.directories.borrow().get(parent).cloned());
        let mut asked = split.filter(|_| way.is_none()).map(|(parent, _)| parent);
        let (mut todo, Way { mut real, mut links }) = match (way, split) {
            (Some(way), Some((_, name))) => {
                let next = joined(&way.real, name);
                match self.look(&next)? {
                    Name::Other(meta) => return Ok(Resolved { real: next, links: way.links, meta }),
                    Name::Unreachable(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Name::Link(_) => (VecDeque::from([name.to_owned()]), way),
                }
            }
            _ => (parts(path), Way { real: PathBuf::from("/"), links: Vec::new() }),
        };
        let mut last = None;
        let mut seen = 0_usize;
        while let Some(part) = todo.pop_front() {
            seen += 1;
            if todo.is_empty()
                && let Some(directory) = asked.take()
            {
                let way = Way { real: real.clone(), links: links.clone() };
                self.directories.borrow_mut().insert(directory.to_owned(), way);
            }
            if seen > MAX_COMPONENTS {
                return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
            }
            if part == ".." {
                real.pop();
                last = None;
                continue;
            }
            let next = joined(&real, &part);
            let target = match self.look(&next)? {
                Name::Other(meta) => {
                    real = next;
                    last = Some(meta);
                    continue;
                }
                Name::Unreachable(errno) => return Err(io::Error::from_raw_os_error(errno)),
                Name::Link(target) => target,
            };
            if links.len() >= MAX_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
            last = None;
            links.push((next, target));
        }
        // The way may end in `..`, or in a link to `/`.
        let meta = match last {
            Some(meta) => meta,
            None => fs::symlink_metadata(self.at(&real))?,
        };
        Ok(Resolved { real, links, meta })
    }

    /// The nearest directory above a path that leads nowhere, as it leads, and what would be below it.
    pub(in crate::host) fn nearest<'p>(&self, path: &'p Path) -> Option<(PathBuf, &'p Path)> {
        let above = path.ancestors().skip(1).find_map(|above| Some((above, self.resolve(above).ok()?)));
        let (above, found) = above?;
        Some((found.real, path.strip_prefix(above).ok()?))
    }

    /// Those of the names that the directory has. Quicker than [`Files::resolve`], where most are not there.
    pub(super) fn those_in<'n>(&self, directory: &Path, names: &[&'n str]) -> Vec<&'n str> {
        let Ok(found) = self.resolve(directory) else { return Vec::new() };
        let directory = self.at(&found.real);
        let there = |name: &&&str| fs::symlink_metadata(joined(&directory, OsStr::new(name))).is_ok();
        names.iter().filter(there).copied().collect()
    }

    /// The target of a symbolic link, or `None` for anything else.
    pub(super) fn link(&self, path: &Path) -> Option<PathBuf> {
        let parent = self.resolve(path.parent()?).ok()?.real;
        fs::read_link(self.at(&parent.join(path.file_name()?))).ok()
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.resolve(path).is_ok_and(|found| found.meta.is_file())
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.resolve(path).is_ok_and(|found| found.meta.is_dir())
    }

    /// Opens a regular file and nothing else.
    pub(super) fn open(&self, path: &Path) -> io::Result<Opened> {
        let found = self.resolve(path)?;
        // Without blocking, because the path may have become a pipe since it was looked at.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.at(&found.real))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Opened(file))
    }

    /// The first `limit` bytes of a regular file.
    pub(super) fn head(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(limit.min(4096)).unwrap_or(4096));
        self.open(path)?.0.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The first 64 KiB of a file as text; empty when there is no such file.
    pub(super) fn text(&self, path: &Path) -> String {
        self.head(path, 64 * 1024)
            .map_or_else(|_missing| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }

    /// At most 4096 names of a directory, sorted; empty when there is no such directory.
    pub(super) fn names(&self, directory: &Path) -> Vec<OsString> {
        self.entries(directory).into_iter().map(|(name, _)| name).collect()
    }

    /// As [`Files::names`], each with whether it is a symbolic link.
    pub(super) fn entries(&self, directory: &Path) -> Vec<(OsString, bool)> {
        let Ok(found) = self.resolve(directory) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(self.at(&found.real)) else { return Vec::new() };
        let mut names: Vec<(OsString, bool)> = entries
            .take(MAX_COMPONENTS)
            .filter_map(Result::ok)
            .map(|entry| (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_symlink())))
            .collect();
        names.sort();
        names
    }
}

/// A file that is read at offsets.
#[derive(Debug)]
pub(super) struct Opened(File);

impl Opened {
    /// Up to `length` bytes at `offset`; fewer at the end of the file or on an error.
    pub(super) fn at(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Some(from) = u64::try_from(filled).ok().and_then(|done| offset.checked_add(done)) else {
                break;
            };
            match self.0.read_at(rest, from) {
                Ok(0) | Err(_) => break,
                Ok(count) => filled += count,
            }
        }
        bytes.truncate(filled);
        bytes
    }
}

/// A name in a directory. As [`Path::join`], which looks at more than there is to be seen in a name.
fn joined(directory: &Path, name: &OsStr) -> PathBuf {
    let mut path = OsString::with_capacity(directory.as_os_str().len() + 1 + name.len());
    path.push(directory);
    if !path.as_encoded_bytes().ends_with(b"/") {
        path.push("/");
    }
    path.push(name);
    PathBuf::from(path)
}

/// The directory part of an absolute path and the name behind it. `None`, where that is not an ordinary one.
fn split(path: &Path) -> Option<(&OsStr, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
    let (parent, name) = (bytes.get(..slash.max(1))?, bytes.get(slash + 1..)?);
    let ordinary = !matches!(name, b"" | b"." | b"..");
    ordinary.then(|| (OsStr::from_bytes(parent), OsStr::from_bytes(name)))
}

/// The names of a path and its `..`, without `/` and `.`.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}
