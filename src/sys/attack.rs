//! The raw system calls that the hostile server tries. Each leaves nothing behind when it succeeds: it acts on
//! something of its own, or is shaped so that the kernel checks the permission and then finds nothing to do.
//!
//! Neighbours: `hostile`, which has one thread and says what each attempt means. Never: used to build or guard a cell.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{Errno, Result, check, check_fd};

/// How a child that tried something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Ends the process without running anything else of it: a child must never return into its parent's code.
fn leave(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Ends a child that would unwind out of its body.
struct NeverUnwind;

impl Drop for NeverUnwind {
    fn drop(&mut self) {
        leave(125)
    }
}

/// fork(2); the child runs `body` and exits with what it returns. Gives the child's id.
fn fork(body: impl FnOnce() -> i32) -> Result<libc::pid_t> {
    // SAFETY: fork has no arguments. In a process with more threads the child could find a lock held for ever;
    // the hostile server has one thread, and a child that hangs only fails its own probe.
    let pid = check_fd(unsafe { libc::fork() }.into())?;
    if pid == 0 {
        let _guard = NeverUnwind;
        leave(body())
    }
    Ok(pid)
}

/// waitpid(2) for one child.
fn wait(pid: libc::pid_t) -> Result<End> {
    let mut status = 0;
    // SAFETY: waitpid wants a pointer to a c_int that it may write: `status` is one and lives through the call.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into())?;
    if libc::WIFSIGNALED(status) {
        Ok(End::Signal(libc::WTERMSIG(status)))
    } else {
        Ok(End::Exit(libc::WEXITSTATUS(status)))
    }
}

/// Runs `body` in a child, so that neither its effects nor a deadly signal reach the caller.
/// The child's exit status is 0, or the errno that `body` returned.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn in_child(body: impl FnOnce() -> Result<()>) -> Result<End> {
    wait(fork(|| body().map_or_else(|errno| errno.0, |()| 0))?)
}

/// Runs `other` in a child and `body` here, and waits for the child, whose exit status is 0 or an errno.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn beside(other: impl FnOnce() -> Result<()>, body: impl FnOnce()) -> Result<End> {
    let child = fork(|| other().map_or_else(|errno| errno.0, |()| 0))?;
    body();
    wait(child)
}

/// Makes children until `limit` or a refusal; each lives until the caller has stopped counting or is dead.
/// Gives how many there were, and the refusal.
///
/// # Errors
/// The errno of pipe.
pub fn fork_many(limit: u64) -> Result<(u64, Option<Errno>)> {
    let (reader, writer) = io::pipe()?;
    let mut children = Vec::new();
    let mut refusal = None;
    for _ in 0..limit {
        let held_open = writer.try_clone()?;
        let mut end_of_parent = reader.try_clone()?;
        let parents = (writer.as_raw_fd(), held_open.as_raw_fd());
        let child = fork(move || {
            drop(held_open);
            close(parents.0);
            end_of_parent.read(&mut [0]).map_or(1, |_none| 0)
        });
        match child {
            Ok(pid) => children.push(pid),
            Err(errno) => {
                refusal = Some(errno);
                break;
            }
        }
    }
    drop(writer);
    let count = u64::try_from(children.len()).unwrap_or(u64::MAX);
    for pid in children {
        wait(pid)?;
    }
    Ok((count, refusal))
}

/// close(2) of a number that no Rust value is going to use again.
fn close(raw: libc::c_int) {
    // SAFETY: close takes an integer. The callers give a descriptor that a call has just made and nothing owns, or
    // are children that leave through `_exit`, so that no owner of the number closes or uses it afterwards.
    unsafe { libc::close(raw) };
}

/// Leaves a daemon behind: forked twice, in a session of its own, named `name`, with stdio closed.
/// It runs `body` and exits. Returns once it lives.
///
/// # Errors
/// The errno of the call that failed, as far as it is known here.
pub fn daemonise(name: &CStr, body: impl FnOnce()) -> Result<()> {
    let (mut started, mut starting) = io::pipe()?;
    let middle = fork(move || {
        // SAFETY: setsid has no arguments.
        if unsafe { libc::setsid() } == -1 {
            return Errno::last().0;
        }
        let daemon = fork(move || {
            // SAFETY: PR_SET_NAME wants a NUL-terminated name, which `name` is.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
            for stdio in 0..3 {
                close(stdio);
            }
            if starting.write_all(b"!").is_err() {
                return 1;
            }
            drop(starting);
            body();
            0
        });
        daemon.map_or_else(|errno| errno.0, |_pid| 0)
    })?;
    let mut byte = [0];
    let lives = started.read(&mut byte)? == 1;
    match wait(middle)? {
        End::Exit(0) if lives => Ok(()),
        End::Exit(errno) if errno != 0 => Err(Errno(errno)),
        End::Exit(_) | End::Signal(_) => Err(Errno(libc::ECHILD)),
    }
}

/// From now on SIGTERM does nothing to this process.
pub fn ignore_sigterm() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of anybody is replaced in this process.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// ptrace(2): seizes a process; from a child of its own, whose end lets it go again unharmed.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn trace(pid: i32) -> Result<End> {
    in_child(|| {
        const NOTHING: libc::c_ulong = 0;
        // SAFETY: PTRACE_SEIZE takes a process id, no address, and options, of which there are none.
        check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, NOTHING, NOTHING) }).map(drop)
    })
}

/// `pidfd_getfd(2)`: takes the standard output of another process, and closes it again.
///
/// # Errors
/// The kernel's errno.
pub fn take_descriptor(pid: i32) -> Result<()> {
    // SAFETY: pidfd_open takes integers only.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0_usize) };
    // SAFETY: pidfd_open returns a new descriptor, or −1.
    let process = unsafe { owned(process) }?;
    let number = libc::c_long::from(process.as_raw_fd());
    // SAFETY: pidfd_getfd takes integers only.
    close_again(unsafe { libc::syscall(libc::SYS_pidfd_getfd, number, 1_usize, 0_usize) })
}

/// `process_vm_readv(2)`: one byte at address 0 of another process, where nothing is. `EFAULT` comes only after
/// the permission was granted, and counts as success.
///
/// # Errors
/// The kernel's errno.
pub fn read_memory(pid: i32) -> Result<()> {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    // SAFETY: one local and one remote element are announced and given; the local one points to a live byte,
    // and the remote one is read as an address in the other process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    passed(read.cast_signed_long(), &[libc::EFAULT])
}

/// `ssize_t` as the `long` it is on every 64-bit target.
trait SignedLong {
    fn cast_signed_long(self) -> libc::c_long;
}

impl SignedLong for libc::ssize_t {
    fn cast_signed_long(self) -> libc::c_long {
        libc::c_long::try_from(self).unwrap_or(-1)
    }
}

/// A result in which these errnos mean that the permission was granted and there was nothing to do.
fn passed(value: libc::c_long, harmless: &[i32]) -> Result<()> {
    match check(value) {
        Ok(_) => Ok(()),
        Err(errno) if harmless.contains(&errno.0) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Closes the descriptor that a system call returned, if it did.
fn close_again(value: libc::c_long) -> Result<()> {
    close(check_fd(value)?);
    Ok(())
}

/// The descriptor that a system call returned.
///
/// # Safety
/// `value` is the fresh result of a call that returns −1 or a new descriptor that nobody owns yet.
unsafe fn owned(value: libc::c_long) -> Result<OwnedFd> {
    let raw = check_fd(value)?;
    // SAFETY: by this function's own requirement `raw` is open and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// mount(2) of a file system type that does not exist. `ENODEV` comes only after the permission was granted.
///
/// # Errors
/// The kernel's errno.
pub fn mount() -> Result<()> {
    let (none, root, kind) = (c"none".as_ptr(), c"/".as_ptr(), c"toolcell-none".as_ptr());
    // SAFETY: mount wants NUL-terminated strings, which these literals are, and data that may be null.
    passed(unsafe { libc::mount(none, root, kind, 0, std::ptr::null()) }.into(), &[libc::ENODEV])
}

/// fsopen(2): a file system context for a tmpfs that is never mounted.
///
/// # Errors
/// The kernel's errno.
pub fn open_filesystem() -> Result<()> {
    // SAFETY: fsopen wants a NUL-terminated string and flags, and returns a new descriptor.
    close_again(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0_usize) })
}

/// unshare(2) in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn unshare(flags: libc::c_int) -> Result<End> {
    in_child(|| {
        // SAFETY: unshare takes flags only, and acts on the child alone.
        check(unsafe { libc::unshare(flags) }.into()).map(drop)
    })
}

/// keyctl(2): the id of the session keyring, which is not made if there is none.
///
/// # Errors
/// The kernel's errno.
pub fn session_keyring() -> Result<i64> {
    const GET_KEYRING_ID: libc::c_long = 0;
    const SESSION: libc::c_long = -3;
    // SAFETY: KEYCTL_GET_KEYRING_ID takes integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION, 0_usize) })
}

/// `io_uring_setup(2)` with one entry, closed again.
///
/// # Errors
/// The kernel's errno.
pub fn io_uring() -> Result<()> {
    let mut parameters = [0_u32; 30];
    // SAFETY: io_uring_setup wants a zeroed io_uring_params (120 bytes) that it may write: `parameters` has that
    // size and lives through the call; the result is a new descriptor.
    close_again(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_usize, parameters.as_mut_ptr()) })
}

/// bpf(2): an array map of one element, closed again.
///
/// # Errors
/// The kernel's errno.
pub fn bpf() -> Result<()> {
    const MAP_CREATE: usize = 0;
    let mut attributes = [0_u32; 32];
    for (slot, value) in attributes.iter_mut().zip([2, 4, 4, 1]) {
        *slot = value;
    }
    // SAFETY: BPF_MAP_CREATE reads as many bytes of bpf_attr as announced: `attributes` has that size, begins with
    // type, key size, value size and number of elements, and is zero beyond; the result is a new descriptor.
    close_again(unsafe {
        libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes))
    })
}

/// `perf_event_open(2)`: a software clock on the caller itself, closed again.
///
/// # Errors
/// The kernel's errno.
pub fn perf() -> Result<()> {
    const SOFTWARE: u64 = 1;
    const SIZE: u64 = 64;
    const DISABLED_USER_ONLY: u64 = 1 | 1 << 5 | 1 << 6;
    let attributes: [u64; 8] = [SOFTWARE | SIZE << 32, 0, 0, 0, 0, DISABLED_USER_ONLY, 0, 0];
    let (itself, any_cpu, no_group): (libc::c_long, libc::c_long, libc::c_long) = (0, -1, -1);
    // SAFETY: perf_event_open reads the 64 bytes that the attributes announce as their size, which `attributes`
    // has; the result is a new descriptor.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), itself, any_cpu, no_group, 0_usize)
    };
    close_again(event)
}

/// userfaultfd(2) for faults of user code only, closed again.
///
/// # Errors
/// The kernel's errno.
pub fn userfaultfd() -> Result<()> {
    const USER_MODE_ONLY: usize = 1;
    // SAFETY: userfaultfd takes flags only and returns a new descriptor.
    close_again(unsafe { libc::syscall(libc::SYS_userfaultfd, USER_MODE_ONLY) })
}

/// `finit_module(2)` with a descriptor that is none. `EBADF` comes only after the permission was granted.
///
/// # Errors
/// The kernel's errno.
pub fn load_module() -> Result<()> {
    const NONE: libc::c_long = -1;
    // SAFETY: finit_module wants a descriptor number, a NUL-terminated string and flags.
    let value = unsafe { libc::syscall(libc::SYS_finit_module, NONE, c"".as_ptr(), 0_usize) };
    passed(value, &[libc::EBADF])
}

/// sethostname(2) to the name that the host has already.
///
/// # Errors
/// The kernel's errno.
pub fn set_host_name(same: &str) -> Result<()> {
    // SAFETY: sethostname reads `len` bytes from the pointer, which is what `same` has.
    check(unsafe { libc::sethostname(same.as_ptr().cast(), same.len()) }.into()).map(drop)
}

/// setresuid(2) to root, in a child.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn become_root() -> Result<End> {
    in_child(|| {
        // SAFETY: setresuid takes integers only, and acts on the child alone.
        check(unsafe { libc::setresuid(0, 0, 0) }.into()).map(drop)
    })
}

/// mknod(2): a device node for `/dev/null` at `path`; the caller removes it.
///
/// # Errors
/// The kernel's errno.
pub fn make_device(path: &CStr) -> Result<()> {
    let null = libc::makedev(1, 3);
    // SAFETY: mknod wants a NUL-terminated path, which `path` is.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, null) }.into()).map(drop)
}

/// mknod(2): a named pipe at `path`.
///
/// # Errors
/// The kernel's errno.
pub fn make_pipe(path: &CStr) -> Result<()> {
    // SAFETY: mknod wants a NUL-terminated path, which `path` is.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFIFO | 0o600, 0) }.into()).map(drop)
}

/// socket(2), closed again.
///
/// # Errors
/// The kernel's errno.
pub fn socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Result<()> {
    // SAFETY: socket takes integers only and returns a new descriptor.
    close_again(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }.into())
}

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
struct FileHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; 128],
}

/// `open_by_handle_at(2)`: opens `directory` by number instead of by name, and closes it again.
///
/// # Errors
/// The kernel's errno.
pub fn open_by_handle(directory: BorrowedFd<'_>) -> Result<()> {
    let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount_id: libc::c_int = 0;
    let number = libc::c_long::from(directory.as_raw_fd());
    let flags = i64::from(libc::AT_EMPTY_PATH);
    // SAFETY: name_to_handle_at writes at most `bytes` into the handle, which has that room, and one c_int;
    // both live through the call. The path is a NUL-terminated literal.
    check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            number,
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            flags,
        )
    })?;
    let flags = i64::from(libc::O_RDONLY | libc::O_CLOEXEC);
    // SAFETY: open_by_handle_at reads the handle that the call above has filled; the result is a new descriptor.
    close_again(unsafe { libc::syscall(libc::SYS_open_by_handle_at, number, &raw mut handle, flags) })
}

/// `memfd_create(2)` and execveat(2): runs `program`, an ELF image, from memory in a child.
///
/// # Errors
/// The errno of what came before the child.
pub fn run_from_memory(program: &[u8]) -> Result<End> {
    // SAFETY: memfd_create wants a NUL-terminated name and flags, and returns a new descriptor.
    let memory = unsafe { libc::memfd_create(c"toolcell-probe".as_ptr(), 0) };
    // SAFETY: memfd_create returns a new descriptor, or −1.
    let memory = unsafe { owned(memory.into()) }?;
    let number = libc::c_long::from(memory.as_raw_fd());
    let mut file = File::from(memory);
    file.write_all(program)?;
    in_child(|| {
        let argv = [c"probe".as_ptr(), std::ptr::null()];
        let environment = [std::ptr::null::<libc::c_char>()];
        let flags = i64::from(libc::AT_EMPTY_PATH);
        // SAFETY: execveat wants a NUL-terminated path and two null-terminated arrays of NUL-terminated strings;
        // all of them live through the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_execveat,
                number,
                c"".as_ptr(),
                argv.as_ptr(),
                environment.as_ptr(),
                flags,
            )
        })
        .map(drop)
    })
}

/// TIOCSTI on a terminal of its own, made in a child; where none can be made, on standard input.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn type_into_terminal() -> Result<End> {
    in_child(|| {
        let terminals =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
        match terminals {
            Ok(master) => type_into_own(master),
            Err(_no_terminals) => push_byte(0),
        }
    })
}

/// Makes the other side of `master` the controlling terminal and types into it. The child keeps both open to its
/// end: closing the master would hang it up.
fn type_into_own(master: File) -> Result<()> {
    let master = master.into_raw_fd();
    let unlocked: libc::c_int = 0;
    // SAFETY: setsid has no arguments.
    check(unsafe { libc::setsid() }.into())?;
    // SAFETY: TIOCSPTLCK reads one c_int, which `unlocked` is.
    check(unsafe { libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor, which nothing else uses.
    let slave =
        check_fd(unsafe { libc::ioctl(master, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY) }.into())?;
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(slave, libc::TIOCSCTTY, 0) }.into())?;
    push_byte(slave)
}

/// ioctl TIOCSTI with one byte.
fn push_byte(terminal: libc::c_int) -> Result<()> {
    let byte = b'#';
    // SAFETY: TIOCSTI reads one byte, to which the pointer points.
    check(unsafe { libc::ioctl(terminal, libc::TIOCSTI, &raw const byte) }.into()).map(drop)
}

/// getpid through the i386 entry, in a child, which a filter may kill.
///
/// # Errors
/// The errno of fork or waitpid, `ENOSYS` on another architecture.
#[cfg(target_arch = "x86_64")]
pub fn i386_call() -> Result<End> {
    in_child(|| {
        let mut register: u32 = 20;
        // SAFETY: `int 0x80` with 20 in eax is getpid of the i386 table: it has no arguments, touches no memory and
        // returns in eax. The 64-bit kernel keeps every other register but r8–r11, which are given as lost.
        unsafe {
            std::arch::asm!(
                "int 0x80",
                inlateout("eax") register,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                options(nostack),
            );
        }
        let value = register.cast_signed();
        if value < 0 { Err(Errno(-value)) } else { Ok(()) }
    })
}

/// getpid through the i386 entry: there is none on this architecture.
///
/// # Errors
/// Always `ENOSYS`.
#[cfg(not(target_arch = "x86_64"))]
pub fn i386_call() -> Result<End> {
    Err(Errno(libc::ENOSYS))
}

/// getpid with the x32 bit set, in a child, which a filter may kill.
///
/// # Errors
/// The errno of fork or waitpid.
pub fn x32_call() -> Result<End> {
    const X32: libc::c_long = 0x4000_0000;
    in_child(|| {
        // SAFETY: getpid has no arguments in any table; an unknown number is refused.
        check(unsafe { libc::syscall(X32 | libc::SYS_getpid) }).map(drop)
    })
}
