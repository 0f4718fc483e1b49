//! Overlays: directories of the host that the cell cannot change, with what it writes in memory over them.
//!
//! The kernel takes the parts of an overlay by path and, before Linux 6.15, from mounts of this namespace only. So both are staged
//! in the private root, named by descriptors of them, and detached when the overlay has them.
//!
//! Neighbours: `launch::root` runs these steps; `changes` reads what was written when the cell has ended. Never: mounts a
//! directory of the host in a way that it can be written to.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::init::{State, tell};
use super::root::{memory, open_directory};
use super::{Kept, Report};
use crate::plan::step::{BENEATH, CHANGES, Step};
use crate::sys::mount::{self, Beneath, attr};
use crate::sys::{Errno, Result};

/// What cells write to overlays, and what these lie over.
#[derive(Debug)]
pub(super) struct Changes {
    memory: OwnedFd,
    beneath: Vec<(u64, u64)>,
}

/// What of an overlay lies where in the memory, by its number.
pub(super) fn upper(number: usize) -> String {
    format!("{number}/upper")
}

pub(super) fn begin(state: &mut State<'_>, size: u64, inodes: u64) -> Result<()> {
    let root = state.root.as_ref().ok_or(Errno(libc::EINVAL))?;
    let memory = memory(size, inodes, c"0700", attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    mount::attach(memory.as_fd(), root.open(Path::new(CHANGES))?.as_fd())?;
    state.changes = Some(Changes { memory, beneath: Vec::new() });
    Ok(())
}

pub(super) fn mount(
    state: &mut State<'_>,
    source: &Path,
    target: &Path,
    attributes: u64,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let missing = Errno(libc::EINVAL);
    let root = state.root.as_ref().ok_or(missing)?;
    let changes = state.changes.as_mut().ok_or(missing)?;
    let source_directory = open_directory(source)?;
    covers_nothing(source)?;
    let tree = mount::clone_mount(source_directory.as_fd())?;
    let idmap = owner.map(|owner| state.prepared.idmaps.get(owner).ok_or(missing)).transpose()?;
    let nothing = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    mount::set_attributes(tree.as_fd(), nothing, false, idmap)?;
    mount::attach(tree.as_fd(), root.open(Path::new(BENEATH))?.as_fd())?;
    let beneath = root.open(Path::new(BENEATH))?;
    let number = changes.beneath.len();
    let made = |name: &str| -> Result<OwnedFd> {
        let name = CString::new(name).map_err(|_nul| missing)?;
        mount::make_directory(changes.memory.as_fd(), &name, 0o700)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        mount::open_without_links(changes.memory.as_fd(), &name, flags, 0, Beneath::SameMount)
    };
    made(&number.to_string())?;
    let (upper, work) = (File::from(made(&upper(number))?), made(&format!("{number}/work"))?);
    let below = File::from(source_directory).metadata()?;
    // The overlay takes owner and mode of its topmost directory from here.
    let payload = state.prepared.plan.steps.iter().find_map(|step| match step {
        Step::SetIds { uid, gid } => Some((*uid, *gid)),
        _ => None,
    });
    if let Some((uid, gid)) = payload {
        fchown(&upper, Some(uid), Some(gid))?;
    }
    upper.set_permissions(Permissions::from_mode(below.mode() & 0o7777))?;
    let overlay = overlay(beneath.as_fd(), upper.as_fd(), work.as_fd(), payload.is_none(), attributes)?;
    mount::attach(overlay.as_fd(), root.open(target)?.as_fd())?;
    mount::detach(beneath.as_fd())?;
    changes.beneath.push((below.dev(), below.ino()));
    Ok(())
}

/// A new overlay, mounted nowhere yet. Directories of the lower layer cannot be renamed in it (`EXDEV`), and every file that
/// changes is in the upper one whole.
///
/// # Errors
/// The kernel's errno.
pub(crate) fn overlay(
    lower: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
    own_attributes: bool,
    attributes: u64,
) -> Result<OwnedFd> {
    let place = |fd: BorrowedFd<'_>| {
        CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_nul| Errno(libc::EINVAL))
    };
    let (lower, upper, work) = (place(lower)?, place(upper)?, place(work)?);
    let mut options = vec![
        (c"lowerdir", lower.as_c_str()),
        (c"upperdir", upper.as_c_str()),
        (c"workdir", work.as_c_str()),
        (c"redirect_dir", c"nofollow"),
        (c"metacopy", c"off"),
        (c"index", c"off"),
    ];
    // Without privilege over the host, the kernel's own notes are attributes of the user's.
    if own_attributes {
        options.push((c"userxattr", c""));
    }
    mount::new_filesystem(c"overlay", &options, attributes)
}

/// An overlay shows what lies beneath a mount, which the host does not.
fn covers_nothing(source: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let inside = table.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| {
        let point = mount::unescaped(point);
        point != source && point.starts_with(source)
    });
    if inside { Err(Errno(libc::EBUSY)) } else { Ok(()) }
}

pub(super) fn end(state: &mut State<'_>, review: bool) -> Result<()> {
    let Changes { memory, beneath } = state.changes.take().ok_or(Errno(libc::EINVAL))?;
    if review {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let kept = Kept { beneath, since: (seconds, since.subsec_nanos().into()) };
        tell(&state.channel, &Report::Changes(kept), Some(&memory))?;
    }
    mount::detach(memory.as_fd())
}
