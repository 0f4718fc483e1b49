//! More raw system calls that the hostile server tries, each in a child: those that reach a part of the kernel which a
//! tool has no business with, and those that act on files, keys and memory of others.
//!
//! Neighbours: `hostile`; `attack` makes the children. Never: used to build or guard a cell; changes anything that
//! outlives the child.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::attack::{self, End, in_child};
use super::descriptor::{self, Interest};
use super::filter::{self, Instruction};
use super::{Errno, Result, check, check_fd, process, socket};

/// A call that is made with these arguments. Its permission is checked first; what comes then is success, or an error
/// that says that there was nothing to do.
struct Probe {
    name: &'static str,
    number: libc::c_long,
    arguments: [Argument; 5],
    nothing_to_do: &'static [i32],
}

/// An argument of a call.
#[derive(Clone, Copy)]
enum Argument {
    Number(libc::c_long),
    Text(&'static CStr),
}

const NONE: Argument = Argument::Number(0);
const NOWHERE: Argument = Argument::Text(c"/toolcell-none");
const ROOT: Argument = Argument::Text(c"/");
const HERE: Argument = Argument::Number(libc::AT_FDCWD as libc::c_long);

const fn probe(
    name: &'static str,
    number: libc::c_long,
    arguments: [Argument; 5],
    nothing_to_do: &'static [i32],
) -> Probe {
    Probe { name, number, arguments, nothing_to_do }
}

const fn number(value: libc::c_long) -> Argument {
    Argument::Number(value)
}

const PROBES: &[Probe] = &[
    // The root in place of itself: newer kernels look for the paths before the permission, so they have to be there.
    probe("pivot_root", libc::SYS_pivot_root, [ROOT, ROOT, NONE, NONE, NONE], &[libc::EBUSY, libc::EINVAL]),
    probe("chroot", libc::SYS_chroot, [ROOT, NONE, NONE, NONE, NONE], &[]),
    // OPEN_TREE_CLONE
    probe("open_tree", libc::SYS_open_tree, [HERE, ROOT, number(1), NONE, NONE], &[]),
    probe(
        "kexec_file_load",
        libc::SYS_kexec_file_load,
        [number(-1), number(-1), NONE, NONE, NONE],
        &[libc::EBADF],
    ),
    // No magic number is zero.
    probe("reboot", libc::SYS_reboot, [NONE, NONE, NONE, NONE, NONE], &[libc::EINVAL]),
    probe("swapon", libc::SYS_swapon, [NOWHERE, NONE, NONE, NONE, NONE], &[libc::ENOENT]),
    probe("acct", libc::SYS_acct, [NOWHERE, NONE, NONE, NONE, NONE], &[libc::ENOENT]),
    // Q_GETINFO of user quotas; the device is looked for before the permission.
    probe("quotactl", libc::SYS_quotactl, [number(0x8000_0500), NOWHERE, NONE, NONE, NONE], &[libc::ENOENT]),
    // Neither a time nor a zone.
    probe("settimeofday", libc::SYS_settimeofday, [NONE, NONE, NONE, NONE, NONE], &[]),
    // The port that only counts the steps of a boot.
    probe("ioperm", libc::SYS_ioperm, [number(0x80), number(1), number(1), NONE, NONE], &[]),
    // ADDR_NO_RANDOMIZE
    probe("personality", libc::SYS_personality, [number(0x0004_0000), NONE, NONE, NONE, NONE], &[]),
    // KEY_SPEC_PROCESS_KEYRING, which ends with the child.
    probe(
        "add_key",
        libc::SYS_add_key,
        [Argument::Text(c"user"), Argument::Text(c"toolcell"), Argument::Text(c"x"), number(1), number(-2)],
        &[],
    ),
    // PR_SET_TSC to PR_TSC_ENABLE, which it is.
    probe("prctl", libc::SYS_prctl, [number(26), number(1), NONE, NONE, NONE], &[]),
    probe("fanotify_init", libc::SYS_fanotify_init, [NONE, NONE, NONE, NONE, NONE], &[]),
];

/// Makes the call of this name, in a child; `None` if there is none.
#[must_use]
pub fn reach(name: &str) -> Option<Result<End>> {
    let probe = PROBES.iter().find(|probe| probe.name == name)?;
    Some(in_child(|| {
        let value = |argument: Argument| match argument {
            Argument::Number(number) => number,
            Argument::Text(text) => text.as_ptr() as libc::c_long,
        };
        let [a, b, c, d, e] = probe.arguments.map(value);
        // SAFETY: every pointer among the arguments is to a NUL-terminated literal, and each call of the list takes a
        // pointer to one, an integer or a null pointer in its place. The child ends afterwards.
        passed(unsafe { libc::syscall(probe.number, a, b, c, d, e) }, probe.nothing_to_do)
    }))
}

/// A result in which these errnos mean that the permission was granted and there was nothing to do.
fn passed(value: libc::c_long, nothing_to_do: &[i32]) -> Result<()> {
    match check(value) {
        Err(errno) if !nothing_to_do.contains(&errno.0) => Err(errno),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// clone3(2) with a new user namespace behind the pointer, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn clone_user_namespace() -> Result<End> {
    in_child(|| match process::clone3(process::namespace_bits(libc::CLONE_NEWUSER), None)? {
        process::Cloned::Child => process::exit_now(0),
        process::Cloned::Parent(pid, _) => process::wait(pid).map(drop),
    })
}

/// setns(2) to the namespace that the caller is in already, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn join_namespace() -> Result<End> {
    in_child(|| {
        let own = File::open("/proc/self/ns/uts").map_err(|error| Errno::from_io(&error))?;
        // SAFETY: setns takes a descriptor, which `own` is, and flags.
        check(unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWUTS) }.into()).map(drop)
    })
}

/// A user and a mount namespace of one's own and a mount in them, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn mount_in_own_namespace() -> Result<End> {
    in_child(|| {
        process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        let (kind, target) = (c"tmpfs".as_ptr(), c"/proc".as_ptr());
        // SAFETY: mount wants NUL-terminated strings, which these literals are, and data that may be null.
        check(unsafe { libc::mount(kind, target, kind, 0, std::ptr::null()) }.into()).map(drop)
    })
}

/// seccomp(2): a filter that allows everything, with a listener, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn install_listener() -> Result<End> {
    in_child(|| {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        let allow = Instruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
        filter::install_observing(&[allow]).map(drop)
    })
}

/// ioctl TIOCLINUX on standard input. `ENOTTY` comes from what it is no request to, and `EPERM` from a terminal.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn paste_into_console() -> Result<End> {
    in_child(|| {
        let subcode = 3_u8;
        // SAFETY: TIOCLINUX reads one byte to know what is wanted, to which the pointer points.
        passed(unsafe { libc::ioctl(0, libc::TIOCLINUX, &raw const subcode) }.into(), &[libc::ENOTTY])
    })
}

/// setrlimit(2): lets a crash write a core of a mebibyte, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn allow_core() -> Result<End> {
    in_child(|| {
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        // SAFETY: setrlimit reads an rlimit, which `limit` is for as long as the call takes.
        check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }.into()).map(drop)
    })
}

/// mlock(2) of so many bytes, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn lock_memory(bytes: usize) -> Result<End> {
    in_child(|| {
        let held = vec![1_u8; bytes];
        // SAFETY: mlock reads no memory; the range is that of a live vector.
        check(unsafe { libc::mlock(held.as_ptr().cast(), held.len()) }.into()).map(drop)
    })
}

/// Uses so many bytes of stack, after setrlimit(2) of its size to as much as the hard limit allows, in a child. `SIGSEGV` ends it where
/// the stack may not grow.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn grow_stack(bytes: usize) -> Result<End> {
    in_child(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit writes an rlimit, which `limit` is for as long as the call takes.
        check(unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) }.into())?;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads an rlimit, which `limit` is for as long as the call takes.
        check(unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) }.into())?;
        // SAFETY: SIG_DFL is a valid disposition; the handler that it replaces only has words for what is an answer here.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        descend((&raw const limit).addr(), bytes);
        Ok(())
    })
}

/// Calls itself until it is so many bytes below an address of the stack.
fn descend(top: usize, bytes: usize) -> u8 {
    let frame = std::hint::black_box([1_u8; 4096]);
    let deep_enough = top.abs_diff((&raw const frame).addr()) >= bytes;
    let below = if deep_enough { 0 } else { descend(top, bytes) };
    // Used after the call, so that it is there through the call.
    below ^ std::hint::black_box(&frame)[0]
}

/// `process_vm_writev(2)`: one byte to address 0 of another process, where nothing is. `EFAULT` comes only after the
/// permission was granted, and counts as success.
///
/// # Errors
/// The kernel's errno.
pub fn write_memory(pid: i32) -> Result<()> {
    let byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    // SAFETY: one local and one remote element are announced and given; the local one points to a live byte that is
    // only read, and the remote one is an address in the other process.
    let written = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    passed(written.try_into().unwrap_or(-1), &[libc::EFAULT])
}

/// kcmp(2): does a process share its memory with itself?
///
/// # Errors
/// The kernel's errno.
pub fn compare_process(pid: i32) -> Result<()> {
    const VM: libc::c_long = 1;
    let pid = libc::c_long::from(pid);
    // SAFETY: kcmp takes integers only.
    check(unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, VM, 0_usize, 0_usize) }).map(drop)
}

/// utimensat(2): the file was modified now.
///
/// # Errors
/// The kernel's errno.
pub fn set_modified_now(path: &CStr) -> Result<()> {
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
    ];
    // SAFETY: utimensat wants a NUL-terminated path, which `path` is, and two times, which `times` has.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) }.into()).map(drop)
}

/// truncate(2).
///
/// # Errors
/// The kernel's errno.
pub fn truncate(path: &CStr) -> Result<()> {
    // SAFETY: truncate wants a NUL-terminated path, which `path` is.
    check(unsafe { libc::truncate(path.as_ptr(), 0) }.into()).map(drop)
}

/// setxattr(2) of an attribute in the user's own space, or of file capabilities that grant nothing.
///
/// # Errors
/// The kernel's errno.
pub fn set_attribute(path: &CStr, capabilities: bool) -> Result<()> {
    // VFS_CAP_REVISION_2 and four empty words of permitted and inheritable capabilities.
    const EMPTY: [u32; 5] = [0x0200_0000, 0, 0, 0, 0];
    let name = if capabilities { c"security.capability" } else { c"user.toolcell" };
    // SAFETY: setxattr wants NUL-terminated strings, which both are, and reads as many bytes as `EMPTY` has.
    check(
        unsafe {
            libc::setxattr(path.as_ptr(), name.as_ptr(), EMPTY.as_ptr().cast(), size_of_val(&EMPTY), 0)
        }
        .into(),
    )
    .map(drop)
}

/// `FS_IOC_SETFLAGS` to the flags that the file has already.
///
/// # Errors
/// The kernel's errno.
pub fn set_flags(file: BorrowedFd<'_>) -> Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: FS_IOC_GETFLAGS writes an integer no longer than the c_long that lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) }.into())?;
    // SAFETY: FS_IOC_SETFLAGS reads an integer no longer than the c_long that lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) }.into()).map(drop)
}

/// renameat2(2) with `RENAME_EXCHANGE`.
///
/// # Errors
/// The kernel's errno.
pub fn exchange(one: &CStr, other: &CStr) -> Result<()> {
    let here = libc::AT_FDCWD;
    // SAFETY: renameat2 wants NUL-terminated paths, which both are, relative to the working directory, and flags.
    check(unsafe { libc::renameat2(here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE) }.into())
        .map(drop)
}

/// mmap(2) of a file's first page, to be executed, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn map_executable(file: BorrowedFd<'_>) -> Result<End> {
    in_child(|| {
        let access = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: mmap with a null address takes any place, and touches nothing that exists.
        let place =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if place == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
    })
}

/// sendmsg(2) of standard output over the socket that standard input may be.
///
/// # Errors
/// The kernel's errno; `ENOTSOCK` when it is none.
pub fn pass_descriptor() -> Result<()> {
    let (input, output) = (io::stdin(), io::stdout());
    socket::send(input.as_fd(), b"!", &[output.as_fd()])
}

/// Stops the caller. A child lets it go on after what `wait` takes.
///
/// # Errors
/// The errno of pipe, fork or waitpid.
pub fn stop_itself(wait: impl FnOnce()) -> Result<End> {
    let itself = process::pid().cast_signed();
    let (reader, writer) = io::pipe()?;
    let let_go_on = || {
        // The child must not be stopped with its parent.
        wait();
        // A signal that comes before the stop is lost, so it is sent until the parent says that it goes on.
        loop {
            // SAFETY: kill takes integers only.
            check(unsafe { libc::kill(itself, libc::SIGCONT) }.into())?;
            let mut said = [Interest { fd: Some(reader.as_fd()), events: libc::POLLIN, ready: 0 }];
            if descriptor::poll(&mut said, Some(Duration::from_millis(10)))? {
                return Ok(());
            }
        }
    };
    attack::beside(let_go_on, || {
        // SAFETY: raise takes an integer.
        unsafe { libc::raise(libc::SIGSTOP) };
        // There is a reader, and room for a byte.
        let _told = (&writer).write(b"!");
    })
}

/// shmget(2) of a segment that exists already.
///
/// # Errors
/// The kernel's errno.
pub fn find_segment(key: i32) -> Result<()> {
    // SAFETY: shmget takes integers only.
    check(unsafe { libc::shmget(key, 0, 0) }.into()).map(drop)
}

/// `mq_open(2)` of a queue that exists already, closed again.
///
/// # Errors
/// The kernel's errno.
pub fn find_queue(name: &CStr) -> Result<()> {
    // SAFETY: the call wants a NUL-terminated name and flags, and returns a new descriptor; without O_CREAT it looks at
    // nothing else.
    let queue = check_fd(unsafe {
        libc::syscall(libc::SYS_mq_open, name.as_ptr(), libc::O_RDONLY, 0_usize, 0_usize)
    })?;
    // SAFETY: the call above has made this descriptor, and nothing owns it.
    check(unsafe { libc::close(queue) }.into()).map(drop)
}
