//! The private root: tmpfs, binds, scratch, /proc, pivot. Every path is opened component by component with no
//! symbolic link followed, on the host's side and on the cell's.
//!
//! Neighbours: `launch::init` runs these steps in order. Never: mounts by a path that the kernel resolves on its own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::init::State;
use super::{LaunchError, overlay, places};
use crate::plan::step::{Access, CHANGES, EMPTIED, EMPTY_DIRECTORY, EMPTY_FILE, Kind, Step};
use crate::sys::mount::{self, Beneath, attr};
use crate::sys::{Errno, Result, descriptor};

/// The root under construction.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// The empty file that was made last, as the bind after it wants it for its target.
    made: Option<(PathBuf, OwnedFd)>,
}

/// A path as the kernel takes it.
pub(super) fn text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))
}

/// The same, relative to the root directory.
pub(super) fn relative(path: &Path) -> Result<CString> {
    text(match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => return Err(Errno(libc::EINVAL)),
    })
}

/// `O_PATH` on an absolute path of the host, no link followed.
pub(super) fn open_path(path: &Path, flags: i32) -> Result<OwnedFd> {
    let cwd = descriptor::working_directory();
    mount::open_without_links(cwd, &text(path)?, libc::O_PATH | flags, 0, Beneath::Plain)
}

/// `O_PATH` on a directory of the host.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    open_path(path, libc::O_DIRECTORY)
}

pub(super) fn run(step: &Step, state: &mut State<'_>) -> std::result::Result<(), LaunchError> {
    let object = match step {
        Step::MakeDirectory { path, .. }
        | Step::MakeFile { path, .. }
        | Step::RewriteFile { path, .. }
        | Step::MakeSymlink { path, .. }
        | Step::MakeSocket { path }
        | Step::Hide { path, .. }
        | Step::MountScratch { path, .. } => path.to_string_lossy().into_owned(),
        Step::Bind { source, .. } | Step::MountOverlay { source, .. } => {
            source.to_string_lossy().into_owned()
        }
        Step::MountChanges { .. } | Step::DetachChanges { .. } => CHANGES.to_owned(),
        Step::MountProc => "/proc".to_owned(),
        Step::OpenPlaces { paths } => {
            paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        }
        _ => "/".to_owned(),
    };
    mount_step(step, state).map_err(|errno| LaunchError::new(step.name(), object, errno))
}

fn mount_step(step: &Step, state: &mut State<'_>) -> Result<()> {
    match step {
        Step::IsolateMounts => return mount::make_slave(),
        Step::MountRoot => {
            state.root = Some(Root::new()?);
            return Ok(());
        }
        Step::OpenPlaces { .. } => {
            let root = state.root.as_ref().ok_or(Errno(libc::EINVAL))?;
            return places::open(root, state);
        }
        _ => {}
    }
    let root = state.root.as_mut().ok_or(Errno(libc::EINVAL))?;
    let made = root.made.take();
    match step {
        Step::MakeDirectory { path, mode } => {
            mount::make_directory(root.directory.as_fd(), &relative(path)?, *mode)
        }
        Step::MakeFile { path, content, mode } => root.make_file(path, content, *mode),
        Step::RewriteFile { path, content } => root.rewrite_file(path, content),
        Step::MakeSymlink { path, target } => {
            mount::make_symlink(&text(target)?, root.directory.as_fd(), &relative(path)?)
        }
        Step::MakeSocket { path } => mount::make_socket(root.directory.as_fd(), &relative(path)?),
        Step::Bind { source, target, kind, access, devices, owner } => {
            let idmap = match owner {
                Some(owner) => Some(state.prepared.idmaps.get(*owner).ok_or(Errno(libc::EINVAL))?),
                None => None,
            };
            let tree = cut(source, *kind, attributes(*access, *devices), idmap)?;
            let target = match made {
                Some((path, file)) if path == *target => file,
                _ => root.open(target)?,
            };
            mount::attach(tree.as_fd(), target.as_fd())
        }
        Step::Hide { path, emptied } => root.hide(path, *emptied),
        Step::MountScratch { path, size, inodes, execute } => {
            let access = Access { write: true, execute: *execute, names: false };
            let scratch = memory(*size, *inodes, c"1777", attributes(access, false))?;
            mount::attach(scratch.as_fd(), root.open(path)?.as_fd())?;
            state.scratch = Some(scratch);
            Ok(())
        }
        Step::MountChanges { size, inodes } => overlay::begin(state, *size, *inodes),
        Step::MountOverlay { source, target, access, owner, .. } => {
            overlay::mount(state, source, target, attributes(*access, false), *owner)
        }
        Step::DetachChanges { review } => overlay::end(state, *review),
        Step::MountProc => {
            let options = [(c"subset", c"pid"), (c"hidepid", c"invisible")];
            let proc = mount::new_filesystem(c"proc", &options, attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
            mount::attach(proc.as_fd(), root.open(Path::new("/proc"))?.as_fd())
        }
        Step::PivotRoot => {
            mount::pivot_into(root.directory.as_fd())?;
            mount::set_attributes(root.directory.as_fd(), attr::RDONLY, false, None)
        }
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// A tree of the host, mounted nowhere yet.
pub(super) fn cut(
    source: &Path,
    kind: Kind,
    attributes: u64,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let flags = if kind == Kind::Directory { libc::O_DIRECTORY } else { 0 };
    let tree = mount::clone_tree(open_path(source, flags)?.as_fd())?;
    mount::set_attributes(tree.as_fd(), attributes, true, idmap)?;
    Ok(tree)
}

/// A tmpfs with room for so much, mounted nowhere yet.
pub(super) fn memory(size: u64, inodes: u64, mode: &CStr, attributes: u64) -> Result<OwnedFd> {
    let number = |value: u64| CString::new(value.to_string()).map_err(|_nul| Errno(libc::EINVAL));
    let (size, inodes) = (number(size)?, number(inodes)?);
    let options = [(c"size", size.as_c_str()), (c"nr_inodes", inodes.as_c_str()), (c"mode", mode)];
    mount::new_filesystem(c"tmpfs", &options, attributes)
}

/// Mount attributes can only be added to those of the host's mount, never taken away.
pub(super) const fn attributes(access: Access, devices: bool) -> u64 {
    let mut bits = attr::NOSUID;
    if !devices {
        bits |= attr::NODEV;
    }
    if !access.write {
        bits |= attr::RDONLY;
    }
    if !access.execute {
        bits |= attr::NOEXEC;
    }
    bits
}

impl Root {
    /// An empty tmpfs on top of the namespace's root, held by descriptor: the host's tree stays reachable
    /// beneath it by path until the pivot.
    fn new() -> Result<Self> {
        let options = [(c"size", c"1m"), (c"nr_inodes", c"8192"), (c"mode", c"0755")];
        let directory = mount::new_filesystem(c"tmpfs", &options, attr::NOSUID | attr::NODEV)?;
        mount::attach(directory.as_fd(), open_directory(Path::new("/"))?.as_fd())?;
        Ok(Self { directory, made: None })
    }

    /// That of a cell which is there already, for who is in its mount namespace.
    pub(super) fn of_here() -> Result<Self> {
        Ok(Self { directory: open_directory(Path::new("/"))?, made: None })
    }

    /// The same tmpfs, mounted nowhere: it stays writable when the root is not any more.
    pub(super) fn once_more(&self) -> Result<OwnedFd> {
        mount::clone_mount(self.directory.as_fd())
    }

    /// Covers what is there with nothing.
    pub(super) fn hide(&self, path: &Path, emptied: bool) -> Result<()> {
        let covered = self.open(path)?;
        let empty = match descriptor::is_directory(covered.as_fd())? {
            true if emptied => EMPTIED,
            true => EMPTY_DIRECTORY,
            false => EMPTY_FILE,
        };
        let tree = mount::clone_tree(self.open(Path::new(empty))?.as_fd())?;
        mount::set_attributes(tree.as_fd(), attributes(Access::default(), false), false, None)?;
        mount::attach(tree.as_fd(), covered.as_fd())
    }

    /// `O_PATH` on a path of the cell, no link followed.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        mount::open_without_links(
            self.directory.as_fd(),
            &relative(path)?,
            libc::O_PATH | libc::O_NOFOLLOW,
            0,
            Beneath::InRoot,
        )
    }

    fn make_file(&mut self, path: &Path, content: &str, mode: u32) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = mount::open_without_links(
            self.directory.as_fd(),
            &relative(path)?,
            flags,
            mode,
            Beneath::InRoot,
        )?;
        write_all(&file, content)?;
        debug_assert!(file.as_raw_fd() > 2, "the child still has its three pipes");
        if content.is_empty() {
            self.made = Some((path.to_owned(), file));
        }
        Ok(())
    }

    /// The root is still writable, and the file this process's own.
    fn rewrite_file(&self, path: &Path, content: &str) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_NOFOLLOW;
        let file =
            mount::open_without_links(self.directory.as_fd(), &relative(path)?, flags, 0, Beneath::InRoot)?;
        write_all(&file, content)
    }
}

fn write_all(file: &OwnedFd, content: &str) -> Result<()> {
    let mut rest = content.as_bytes();
    while !rest.is_empty() {
        let written = descriptor::write(file.as_fd(), rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}
