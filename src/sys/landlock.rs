//! Landlock (landlock(7)): rulesets, path rules, restriction.
//!
//! Neighbours: `launch::init`, `host`. Never: lowers what is asked to what an ABI has; the caller passes the ABI.
//!
//! The `landlock` crate is built around best effort by ABI; here a right is either handled or the launch fails,
//! and the whole is one ruleset, so the three calls are made directly.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{Errno, Result, check, check_fd};

/// The first ABI whose refusals can be logged.
pub const LOGGED: u32 = 7;

/// The newest ABI whose every right is known here. The kernel keeps older ones as they were, so a newer kernel is asked
/// for this one.
pub const NEWEST: u32 = 11;

/// `struct landlock_ruleset_attr`, as of ABI 6. ABI 10 adds masks of what not to log, which are left out: a refusal that
/// is not logged is of use to nobody.
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

#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
}

/// `LANDLOCK_ACCESS_NET_*`
const NET_BIND_TCP: u64 = 1;
const NET_CONNECT_TCP: u64 = 1 << 1;
const NET_BIND_UDP: u64 = 1 << 2;
const NET_CONNECT_SEND_UDP: u64 = 1 << 3;

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
    pub const RESOLVE_UNIX: u64 = 1 << 16;

    /// Those that apply to a file; the rest are for directories and give `EINVAL` on a file.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

    /// Every right on files that an ABI handles: the last two are `IOCTL_DEV` (ABI 5) and `RESOLVE_UNIX` (ABI 9).
    #[must_use]
    pub const fn handled(abi: u32) -> u64 {
        let bits = match abi {
            0 => 0,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            5..=8 => 16,
            _ => 17,
        };
        (1 << bits) - 1
    }
}

/// `LANDLOCK_ACCESS_NET_*`: bind and connect for TCP (ABI 4), bind and connect or send for UDP (ABI 10).
const fn handled_net(abi: u32) -> u64 {
    match abi {
        0..=3 => 0,
        4..=9 => 0b11,
        _ => 0b1111,
    }
}

const LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 0b01;

const LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF: u32 = 1 << 2;

/// `LANDLOCK_SCOPE_*`: abstract sockets and signals (ABI 6).
const fn scoped(abi: u32) -> u64 {
    if abi >= 6 { 0b11 } else { 0 }
}

/// The ABI to use; 0 when Landlock is not built in or not enabled at boot (`lsm=`).
#[must_use]
pub fn abi() -> u32 {
    version().unwrap_or(0)
}

/// The newest ABI that the running kernel and this program know, or why there is none.
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
    u32::try_from(answer).map(|abi| abi.min(NEWEST)).map_err(|_overflow| Errno(libc::EOVERFLOW))
}

/// A ruleset that handles every right of an ABI and allows none.
///
/// # Errors
/// The kernel's errno.
pub fn create_ruleset(abi: u32) -> Result<OwnedFd> {
    create_for(abi, scoped(abi))
}

/// The same, but signals go out: for a process that ends others.
///
/// # Errors
/// The kernel's errno.
pub fn create_ruleset_with_signals(abi: u32) -> Result<OwnedFd> {
    create_for(abi, scoped(abi) & LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
}

/// The same, but without a word about the network, and no signal goes out: for a process that connects.
///
/// # Errors
/// The kernel's errno.
pub fn create_ruleset_with_network(abi: u32) -> Result<OwnedFd> {
    create_with(abi, 0, scoped(abi))
}

fn create_for(abi: u32, scoped: u64) -> Result<OwnedFd> {
    create_with(abi, handled_net(abi), scoped)
}

fn create_with(abi: u32, handled_access_net: u64, scoped: u64) -> Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs: access::handled(abi), handled_access_net, scoped };
    let size = match abi {
        0..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<RulesetAttr>(),
    };
    create(&attr, size)
}

fn create(attr: &RulesetAttr, size: usize) -> Result<OwnedFd> {
    let size = size.min(size_of::<RulesetAttr>());
    // SAFETY: the kernel reads `size` bytes of `attr`, which has at least as many.
    let fd =
        check_fd(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::from_ref(attr), size, 0) })?;
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

/// Lets connections be made to this TCP port; before ABI 4 nothing is refused there.
///
/// # Errors
/// The kernel's errno.
pub fn add_door(ruleset: BorrowedFd<'_>, abi: u32, port: u16) -> Result<()> {
    add_port(ruleset, NET_CONNECT_TCP & handled_net(abi), port)
}

/// Lets a program listen at this TCP port; before ABI 4 nothing is refused there.
///
/// # Errors
/// The kernel's errno.
pub fn add_listener(ruleset: BorrowedFd<'_>, abi: u32, port: u16) -> Result<()> {
    add_port(ruleset, NET_BIND_TCP & handled_net(abi), port)
}

/// Lets a resolver be asked at this port: over TCP, and over UDP (ABI 10), for which a socket takes any free port itself.
///
/// # Errors
/// The kernel's errno.
pub fn add_resolver(ruleset: BorrowedFd<'_>, abi: u32, port: u16) -> Result<()> {
    add_port(ruleset, (NET_CONNECT_TCP | NET_CONNECT_SEND_UDP) & handled_net(abi), port)?;
    add_port(ruleset, NET_BIND_UDP & handled_net(abi), 0)
}

fn add_port(ruleset: BorrowedFd<'_>, rights: u64, port: u16) -> Result<()> {
    const LANDLOCK_RULE_NET_PORT: u32 = 2;
    if rights == 0 {
        return Ok(());
    }
    let attr = NetPortAttr { allowed_access: rights, port: port.into() };
    // SAFETY: for this rule type the kernel reads a net_port attribute, which `attr` is.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_NET_PORT,
            &raw const attr,
            0,
        )
    })
    .map(drop)
}

/// A ruleset whose only effect is that the processes in it send no signal outside (ABI 6). Moving files between
/// directories is refused by every ruleset that does not allow it, so `root`, the root directory, gets that right.
///
/// # Errors
/// The kernel's errno.
pub fn create_signal_scope(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs: access::REFER, handled_access_net: 0, scoped: 0b10 };
    let ruleset = create(&attr, size_of::<RulesetAttr>())?;
    add_path(ruleset.as_fd(), root, access::REFER)?;
    Ok(ruleset)
}

/// Restricts the calling thread for good; needs `no_new_privs`, which `LANDLOCK_RESTRICT_SELF_NO_NEW_PRIVS` (ABI 11) would
/// set too. `LANDLOCK_RESTRICT_SELF_TSYNC` (ABI 8) would take other threads along; the callers have none.
///
/// # Errors
/// The kernel's errno; `E2BIG` after 16 layers.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    restrict(ruleset, 0)
}

/// The same (ABI 7), and what is refused is logged after the next execve(2) too, where auditing is on. What domains below this
/// one refuse is not: those are made by who is to be watched.
///
/// # Errors
/// The kernel's errno; `EINVAL` before ABI 7.
pub fn restrict_self_logging(ruleset: BorrowedFd<'_>) -> Result<()> {
    const LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON: u32 = 1 << 1;
    restrict(ruleset, LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON | LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF)
}

/// The same (ABI 7), and nothing is logged, neither of this domain nor of those below it: what nobody reads for a cell, the
/// cell could only fill the host's log with.
///
/// # Errors
/// The kernel's errno; `EINVAL` before ABI 7.
pub fn restrict_self_quietly(ruleset: BorrowedFd<'_>) -> Result<()> {
    const LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF: u32 = 1;
    restrict(ruleset, LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF | LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF)
}

fn restrict(ruleset: BorrowedFd<'_>, flags: u32) -> Result<()> {
    // SAFETY: the call takes integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a proxy on the loopback is no door where Landlock is the only wall: a rule has a port and no address.
    #[test]
    fn a_port_that_may_be_connected_to_is_that_port_of_every_address() {
        let Ok(abi @ 4..) = version() else { return };
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = door.local_addr().unwrap().port();
        let other = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let confined = || {
            crate::sys::process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).unwrap();
            let ruleset = create_ruleset(abi).unwrap();
            add_door(ruleset.as_fd(), abi, port).unwrap();
            restrict_self(ruleset.as_fd()).unwrap();
            let reached = [&door, &other, &closed]
                .map(|listener| std::net::TcpStream::connect(listener.local_addr().unwrap()));
            reached.map(|reached| reached.err().and_then(|error| error.raw_os_error()))
        };
        let reached = std::thread::scope(|scope| scope.spawn(confined).join().unwrap());
        assert_eq!(reached, [None, None, Some(libc::EACCES)]);
    }

    /// The kernel refuses a right that it does not know, and one in a field that it does not know as too long, so the
    /// numbers of the running one are exact.
    #[test]
    fn what_an_abi_handles_is_what_the_kernel_takes() {
        let Ok(abi) = version() else { return };
        create_ruleset(abi).unwrap();
        if abi < NEWEST
            && (access::handled(NEWEST), handled_net(NEWEST)) != (access::handled(abi), handled_net(abi))
        {
            let expected = if abi < 4 { libc::E2BIG } else { libc::EINVAL };
            assert_eq!(create_ruleset(NEWEST).unwrap_err(), Errno(expected));
        }
    }
}
