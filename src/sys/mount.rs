//! Mounts: the descriptor-based API of Linux 5.2 to 5.12, and `pivot_root` (`mount_namespaces(7)`).
//!
//! Neighbours: `launch::root`. Never: resolves a path that it was not given.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr;

use super::{Errno, Result, check, check_fd};

/// `struct mount_attr` (linux/mount.h).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_*`
#[expect(missing_docs, reason = "the names are the kernel's and documented in mount_setattr(2)")]
pub mod attr {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
    pub const IDMAP: u64 = 0x0010_0000;
}

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = check_fd(result)?;
    // SAFETY: every caller passes the result of a call that returns a new descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// mount(2) with `MS_REC | MS_SLAVE` on `/`: nothing mounted from here on is seen outside this namespace.
///
/// # Errors
/// The kernel's errno.
pub fn make_slave() -> Result<()> {
    let root = c"/";
    // SAFETY: a propagation change reads only the target, a NUL-terminated text; the rest may be null.
    check(libc::c_long::from(unsafe {
        libc::mount(ptr::null(), root.as_ptr(), ptr::null(), libc::MS_REC | libc::MS_SLAVE, ptr::null())
    }))
    .map(drop)
}

/// A new file system of `kind` with options, mounted nowhere yet (fsopen, fsconfig, fsmount). An option with an empty
/// value is a flag.
///
/// # Errors
/// The kernel's errno.
pub fn new_filesystem(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<OwnedFd> {
    new_filesystem_by_call(kind, options, attributes).map_err(|(_call, errno)| errno)
}

/// The same, for who wants to know which of the three calls failed.
///
/// # Errors
/// The call's name and the kernel's errno.
pub fn new_filesystem_by_call(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: u64,
) -> std::result::Result<OwnedFd, (&'static str, Errno)> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_SET_FLAG: u32 = 0;
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    let of = |call| move |errno| (call, errno);
    // SAFETY: fsopen reads a NUL-terminated text.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) });
    let context = context.map_err(of("fsopen"))?;
    for (key, value) in options {
        let (command, value) = match value.is_empty() {
            true => (FSCONFIG_SET_FLAG, ptr::null()),
            false => (FSCONFIG_SET_STRING, value.as_ptr()),
        };
        // SAFETY: SET_STRING reads two NUL-terminated texts; SET_FLAG reads the first and wants the second to be null.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0)
        })
        .map_err(of("fsconfig"))?;
    }
    // SAFETY: CMD_CREATE wants null key and value.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            ptr::null::<u8>(),
            ptr::null::<u8>(),
            0,
        )
    })
    .map_err(of("fsconfig"))?;
    // SAFETY: fsmount takes integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
        .map_err(of("fsmount"))
}

/// `open_tree(2)` with `OPEN_TREE_CLONE`: a copy of the mount at an open path, and of those below it.
///
/// # Errors
/// The kernel's errno.
pub fn clone_tree(source: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_tree(source, libc::AT_RECURSIVE)
}

/// The same without what is mounted below.
///
/// # Errors
/// The kernel's errno.
pub fn clone_mount(source: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_tree(source, 0)
}

fn open_tree(source: BorrowedFd<'_>, flags: libc::c_int) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: u32 = 1;
    let flags = OPEN_TREE_CLONE | (libc::O_CLOEXEC | libc::AT_EMPTY_PATH | flags).cast_unsigned();
    // SAFETY: the path is an empty NUL-terminated text.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) })
}

/// `mount_setattr(2)` on an open mount, and with `recursive` on those below it: sets attributes, and maps ids when a
/// user namespace is given.
///
/// # Errors
/// The kernel's errno; `EINVAL` for a file system that cannot map ids.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    recursive: bool,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attributes = MountAttr {
        attr_set: set | if idmap.is_some() { attr::IDMAP } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: idmap.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: the path is an empty NUL-terminated text; the kernel reads `size` bytes of `attributes`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 },
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// `move_mount(2)`: attaches an open mount at an open path.
///
/// # Errors
/// The kernel's errno.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are empty NUL-terminated texts; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Takes an attached mount out of this namespace by an open path of it (umount2(2) with `MNT_DETACH`); who has it open goes on
/// having it. Needs the host's `/proc`.
///
/// # Errors
/// The kernel's errno.
pub fn detach(mount: BorrowedFd<'_>) -> Result<()> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let path = path.map_err(|_nul| Errno(libc::EINVAL))?;
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })).map(drop)
}

/// Makes the mount at `root` the root of this namespace and lets go of the old one: the old root ends up
/// mounted over the new one for a moment, and is then detached.
///
/// # Errors
/// The kernel's errno.
pub fn pivot_into(root: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: fchdir takes a descriptor.
    check(libc::c_long::from(unsafe { libc::fchdir(root.as_raw_fd()) }))?;
    let here = c".";
    // SAFETY: both arguments are NUL-terminated texts.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) })?;
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::umount2(here.as_ptr(), libc::MNT_DETACH) }))?;
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::chdir(c"/".as_ptr()) })).map(drop)
}

/// `struct open_how` (openat2(2)).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// How a path may be resolved.
#[derive(Debug, Clone, Copy)]
pub enum Beneath {
    /// The directory is the root of every step, `..` and absolute paths included.
    InRoot,
    /// From the directory as usual.
    Plain,
    /// Below the directory, and on its mount.
    SameMount,
}

/// openat2(2) that follows no symbolic and no magic link in any component.
///
/// # Errors
/// The kernel's errno; `ELOOP` when a component is a link.
pub fn open_without_links(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    mode: u32,
    beneath: Beneath,
) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()),
        mode: u64::from(mode),
        resolve: libc::RESOLVE_NO_SYMLINKS
            | libc::RESOLVE_NO_MAGICLINKS
            | match beneath {
                Beneath::InRoot => libc::RESOLVE_IN_ROOT,
                Beneath::Plain => 0,
                Beneath::SameMount => libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV,
            },
    };
    // SAFETY: the path is a NUL-terminated text; the kernel reads `size` bytes of `how`.
    owned(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })
}

/// mkdirat(2).
///
/// # Errors
/// The kernel's errno.
pub fn make_directory(directory: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::mkdirat(directory.as_raw_fd(), path.as_ptr(), mode) })).map(drop)
}

/// mknodat(2) of a socket that nobody listens at, for everybody.
///
/// # Errors
/// The kernel's errno.
pub fn make_socket(directory: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe {
        libc::mknodat(directory.as_raw_fd(), path.as_ptr(), libc::S_IFSOCK | 0o666, 0)
    }))
    .map(drop)
}

/// symlinkat(2).
///
/// # Errors
/// The kernel's errno.
pub fn make_symlink(target: &CStr, directory: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: both are NUL-terminated texts.
    check(libc::c_long::from(unsafe {
        libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), path.as_ptr())
    }))
    .map(drop)
}

/// Bytes in use, and in all, of the file system an open path is on (fstatfs(2)).
///
/// # Errors
/// The kernel's errno.
pub fn space(path: BorrowedFd<'_>) -> Result<Space> {
    // SAFETY: statfs is a plain C struct for which all zeroes is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live and of the type that fstatfs fills.
    check(libc::c_long::from(unsafe { libc::fstatfs(path.as_fd().as_raw_fd(), &raw mut stat) }))?;
    let block = u64::try_from(stat.f_bsize).unwrap_or(0);
    Ok(Space {
        used: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(block),
        total: stat.f_blocks.saturating_mul(block),
        inodes_free: stat.f_ffree,
    })
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// A path of a table of mounts (`proc_pid_mountinfo(5)`): white space and backslashes stand there as `\ooo`.
#[must_use]
pub fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// What is mounted at a path (statfs(2), statvfs(3)).
///
/// # Errors
/// The kernel's errno.
pub fn kind(path: &CStr) -> Result<Mounted> {
    // SAFETY: statfs is a plain C struct for which all zeroes is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated text; `stat` is live and of the type that statfs fills.
    check(libc::c_long::from(unsafe { libc::statfs(path.as_ptr(), &raw mut stat) }))?;
    // SAFETY: statvfs is a plain C struct for which all zeroes is a value.
    let mut flags: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated text; `flags` is live and of the type that statvfs fills.
    check(libc::c_long::from(unsafe { libc::statvfs(path.as_ptr(), &raw mut flags) }))?;
    let read_only = flags.f_flag & libc::ST_RDONLY != 0;
    let (tmpfs, overlay) = (stat.f_type == libc::TMPFS_MAGIC, stat.f_type == libc::OVERLAYFS_SUPER_MAGIC);
    Ok(Mounted { tmpfs, overlay, cgroup: stat.f_type == libc::CGROUP_SUPER_MAGIC, read_only })
}

/// Can nothing be changed through the mount that an open path is on (fstatvfs(3))?
///
/// # Errors
/// The kernel's errno.
pub fn is_read_only(path: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: statvfs is a plain C struct for which all zeroes is a value.
    let mut flags: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `flags` is live and of the type that fstatvfs fills.
    check(libc::c_long::from(unsafe { libc::fstatvfs(path.as_raw_fd(), &raw mut flags) }))?;
    Ok(flags.f_flag & libc::ST_RDONLY != 0)
}

/// The kind of a mount, as far as anybody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounted {
    /// A tmpfs.
    pub tmpfs: bool,
    /// An overlay.
    pub overlay: bool,
    /// A hierarchy of cgroup v1.
    pub cgroup: bool,
    /// Nothing on it can be changed through this mount.
    pub read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_read_as_it_is() {
        assert_eq!(unescaped(r"/a\040b\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescaped(r"/a\0"), PathBuf::from(r"/a\0"));
    }
}
