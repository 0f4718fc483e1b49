//! Landlock (landlock(7)): rulesets, path rules, restriction.
//!
//! Neighbours: `launch::init`, `host`. Never: lowers what is asked to what an ABI has; the caller passes the ABI.
//!
//! The `landlock` crate is built around best effort by ABI; here a right is either handled or the launch fails,
//! and the whole is one ruleset, so the three calls are made directly.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{Errno, Result, check, check_fd};

/// `struct landlock_ruleset_attr`, as of ABI 6.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_ACCESS_FS_*`
pub mod access {
    #![expect(missing_docs, reason = "the names are the kernel's and documented in landlock(7)")]
    pub const EXECUTE: u64 = 1;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REMOVE_DIR: u64 = 1 << 4;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_DIR: u64 = 1 << 7;
    pub const MAKE_REG: u64 = 1 << 8;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const MAKE_FIFO: u64 = 1 << 10;
    pub const MAKE_SYM: u64 = 1 << 12;
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;

    /// Those that apply to a file; the rest are for directories and give `EINVAL` on a file.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

    /// Every right that an ABI handles.
    #[must_use]
    pub const fn handled(abi: u32) -> u64 {
        let bits = match abi {
            0 => 0,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << bits) - 1
    }
}

/// The ABI of the running kernel; 0 when Landlock is not built in or not enabled at boot (`lsm=`).
#[must_use]
pub fn abi() -> u32 {
    version().unwrap_or(0)
}

/// The ABI of the running kernel, or why there is none.
///
/// # Errors
/// `ENOSYS` when Landlock is not built in, `EOPNOTSUPP` when it was not enabled at boot (`lsm=`).
pub fn version() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with the version flag the kernel wants a null attribute of size 0 and writes nothing.
    let answer = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })?;
    u32::try_from(answer).map_err(|_overflow| Errno(libc::EOVERFLOW))
}

/// A ruleset that handles every file right, TCP bind and connect (ABI 4), abstract sockets and signals (ABI 6).
///
/// # Errors
/// The kernel's errno.
pub fn create_ruleset(abi: u32) -> Result<OwnedFd> {
    let attr = RulesetAttr {
        handled_access_fs: access::handled(abi),
        handled_access_net: if abi >= 4 { 3 } else { 0 },
        scoped: if abi >= 6 { 3 } else { 0 },
    };
    let size = match abi {
        0..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<RulesetAttr>(),
    };
    // SAFETY: the kernel reads `size` bytes of `attr`, which has at least as many.
    let fd = check_fd(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0) })?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `rights` on `path` and beneath it.
///
/// # Errors
/// The kernel's errno; `EINVAL` for a directory right on a file.
pub fn add_path(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, rights: u64) -> Result<()> {
    const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
    let attr = PathBeneathAttr { allowed_access: rights, parent_fd: path.as_raw_fd() };
    // SAFETY: for this rule type the kernel reads a packed path_beneath attribute, which `attr` is.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const attr,
            0,
        )
    })
    .map(drop)
}

/// Restricts the calling thread for good; needs `no_new_privs`.
///
/// # Errors
/// The kernel's errno; `E2BIG` after 16 layers.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the call takes integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
