//! Processes: clone3, vfork and exec, wait, pidfd, signals, sessions, limits.
//!
//! Neighbours: `launch`. Never: chooses flags or names by itself.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

pub use super::image::Image;
use super::{Errno, Result, check, check_fd};

/// `struct clone_args` (linux/sched.h), version 2: 88 bytes, with `cgroup`.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of [`clone3`] returned.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller: the child's id in the caller's pid namespace, and a descriptor for it.
    Parent(libc::pid_t, OwnedFd),
}

/// clone3(2) without shared memory, like a fork, with `CLONE_PIDFD`; `cgroup` adds `CLONE_INTO_CGROUP`. Where clone3 is
/// hidden and neither is asked for, clone(2).
///
/// # Errors
/// The kernel's errno.
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: namespaces | flag(libc::CLONE_PIDFD),
        exit_signal: flag(libc::SIGCHLD),
        ..CloneArgs::default()
    };
    if let Some(directory) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = flag(directory.as_raw_fd());
    }
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    // SAFETY: clone3 wants a pointer to clone_args and its size: `args` is one, initialised, and lives
    // through the call. `pidfd` points to a live c_int. Without CLONE_VM the child has a copy of memory
    // and its own stack; the callers are single-threaded, so no lock is held by a thread the child lacks.
    let cloned = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) });
    let pid = match cloned {
        // Filters of containers hide clone3, whose flags they cannot see; without flags beyond these two clone does.
        Err(Errno(libc::ENOSYS)) if args.flags == flag(libc::CLONE_PIDFD) => {
            let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
            // SAFETY: without CLONE_VM and with a null stack clone is like fork, for which the callers are as above;
            // with CLONE_PIDFD the kernel stores a descriptor where the third argument points, to a live c_int.
            check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) })?
        }
        answer => answer?,
    };
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: with CLONE_PIDFD a successful clone stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent(libc::pid_t::try_from(pid).map_err(|_overflow| Errno(libc::EOVERFLOW))?, pidfd))
}

/// fork(2), for the host's probes: it works also where clone3(2) is refused. `None` in the child.
///
/// # Errors
/// The kernel's errno.
pub fn fork() -> Result<Option<libc::pid_t>> {
    // SAFETY: fork takes nothing. The child may run ordinary code only if no lock was held by another thread;
    // the callers are single-threaded.
    let pid = unsafe { libc::fork() };
    check(libc::c_long::from(pid))?;
    Ok((pid != 0).then_some(pid))
}

/// A flag or descriptor that libc types as `c_int`, as the u64 that `clone_args` holds.
fn flag(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// clone(2) `CLONE_NEW*` bits as clone3 takes them.
#[must_use]
pub fn namespace_bits(flags: libc::c_int) -> u64 {
    flag(flags)
}

/// unshare(2).
///
/// # Errors
/// The kernel's errno.
pub fn unshare(flags: libc::c_int) -> Result<()> {
    // SAFETY: unshare takes an integer and touches no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// What [`spawn`]'s child works on, in memory that parent and child share until exec.
struct Shared<'a> {
    image: &'a Image,
    scope: Option<i32>,
    ignored: u64,
    untold: bool,
    errno: i32,
}

/// Starts `image` as a child, as vfork(2) and execve(2) would: the caller sleeps until exec has
/// happened or failed, so no page table is copied. Signals are at their defaults in the program, if those that the caller
/// ignores are in `ignored`, signal N as bit N-1. With a `scope`, a Landlock ruleset, the child enters it and is killed
/// when the caller ends. `untold`: by execveat(2).
///
/// # Errors
/// The errno of clone, or of what runs the program.
pub fn spawn(
    image: &Image,
    scope: Option<BorrowedFd<'_>>,
    ignored: u64,
    untold: bool,
) -> Result<libc::pid_t> {
    const STACK: usize = 32 * 1024;
    let mut stack = vec![0_u64; STACK / 8];
    let scope = scope.map(|ruleset| ruleset.as_raw_fd());
    let mut shared = Shared { image, scope, ignored, untold, errno: 0 };
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: clone wants the top of a stack that stays mapped: `stack` outlives the call, and CLONE_VFORK
    // keeps this thread asleep until the child has left it by exec or exit. `run` matches the signature.
    // `shared` outlives the call for the same reason, and only the child touches it meanwhile.
    let pid = unsafe {
        libc::clone(
            run,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut shared).cast(),
        )
    };
    if pid == -1 {
        return Err(Errno::last());
    }
    // SAFETY: `shared` is alive and initialised; the child that wrote to it behind the compiler's back is past exec.
    let errno = unsafe { ptr::read_volatile(&raw const shared.errno) };
    if errno == 0 {
        return Ok(pid);
    }
    wait(pid)?;
    Err(Errno(errno))
}

/// The child of [`spawn`]: only system calls, nothing that allocates or locks.
extern "C" fn run(argument: *mut libc::c_void) -> libc::c_int {
    let shared = argument.cast::<Shared<'_>>();
    // SAFETY: `argument` is the `Shared` of `spawn`, alive while its thread sleeps.
    let ignored = unsafe { (*shared).ignored };
    // What has a handler gets its default back by execve. Not signal(3): it refuses those that libc uses itself.
    let default = [0_u64; 4];
    for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        // SAFETY: rt_sigaction reads a kernel sigaction, of which all zeroes is SIG_DFL; the old one is not asked for. A
        // refusal (SIGKILL, SIGSTOP) changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, ptr::null::<u64>(), 8) };
    }
    let mask: u64 = 0;
    // SAFETY: rt_sigprocmask reads 8 bytes of `mask` and writes nothing, as the old set is null.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, ptr::null::<u64>(), 8)
    };
    // SAFETY: as above.
    let image = unsafe { (*shared).image };
    // SAFETY: as above.
    let scope = unsafe { (*shared).scope };
    let entered = scope.map_or(Ok(()), |ruleset| die_with_parent().and_then(|()| enter(ruleset)));
    if entered.is_ok() {
        // SAFETY: as above.
        execute(image, unsafe { (*shared).untold });
    }
    let errno = entered.err().unwrap_or_else(Errno::last).0;
    // SAFETY: `shared` is as above, so the address of its field is inside it.
    let slot = unsafe { &raw mut (*shared).errno };
    // SAFETY: the parent sleeps and nobody else reads the field.
    unsafe { ptr::write_volatile(slot, errno) };
    exit_now(127)
}

/// `landlock_restrict_self(2)`, without anything that allocates.
fn enter(ruleset: i32) -> Result<()> {
    // SAFETY: the call takes integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
}

/// execve(2), or execveat(2), of which no listener is told. Returns only when it fails.
fn execute(image: &Image, untold: bool) {
    let (path, argv, envp) = image.pointers();
    if untold {
        // SAFETY: path, argv and envp are NUL-terminated texts and null-terminated arrays owned by `image`.
        unsafe { libc::syscall(libc::SYS_execveat, libc::AT_FDCWD, path, argv, envp, 0) };
    } else {
        // SAFETY: as above.
        unsafe { libc::execve(path, argv, envp) };
    }
}

/// _exit(2): no destructor, no buffer of the parent's is flushed a second time.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit does not return and needs nothing.
    unsafe { libc::_exit(status) }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Exit status.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

impl Exit {
    fn from_wait(status: libc::c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

static TERMINATED: AtomicBool = AtomicBool::new(false);
static ALONE: AtomicBool = AtomicBool::new(false);

/// Kills as well: a signal that comes between a look at the flag and a wait must not be waited out.
extern "C" fn note_termination(_signal: libc::c_int) {
    TERMINATED.store(true, Ordering::Relaxed);
    if ALONE.load(Ordering::Relaxed) {
        // SAFETY: kill takes integers, and may be called in a signal handler.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Stops every other process, or lets it go on. A process that is being made gets the signal before it runs.
extern "C" fn pause_or_resume(signal: libc::c_int) {
    let told = if signal == PAUSE { libc::SIGSTOP } else { libc::SIGCONT };
    // SAFETY: kill takes integers, and may be called in a signal handler.
    unsafe { libc::kill(-1, told) };
}

/// Makes a process that has noticed [`notice_termination`] stop all others. The lower number of the two: where both are pending, this was
/// told first, because nothing is stopped again before it has gone on.
pub const PAUSE: libc::c_int = libc::SIGUSR1;
/// and let them go on.
pub const RESUME: libc::c_int = libc::SIGUSR2;

/// From here on SIGTERM interrupts [`wait_unless_terminated`]. Without a handler, pid 1 of a namespace never gets it.
/// `alone` says that whatever this process can signal is its own to kill, by a pid namespace or a Landlock domain; then [`PAUSE`] and [`RESUME`]
/// are heard, too.
///
/// # Errors
/// The kernel's errno.
pub fn notice_termination(alone: bool) -> Result<()> {
    ALONE.store(alone, Ordering::Relaxed);
    let handle = |signal, handler: extern "C" fn(libc::c_int)| {
        // SAFETY: sigaction is a plain C struct for which all zeroes is a value: no flags, hence no restart, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        // Of two that are pending the kernel begins with the lower number; unless that keeps the other away, it is
        // interrupted by it before its first instruction, and what was told last is done first (signal(7)).
        for other in [PAUSE, RESUME] {
            // SAFETY: the mask is live, and both are numbers of signals.
            unsafe { libc::sigaddset(&raw mut action.sa_mask, other) };
        }
        // SAFETY: `action` is live; what the handlers do is safe at any point; no old action is asked for.
        check(libc::c_long::from(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }))
    };
    if alone {
        handle(PAUSE, pause_or_resume)?;
        handle(RESUME, pause_or_resume)?;
    }
    handle(libc::SIGTERM, note_termination).map(drop)
}

/// Any child, as [`wait`]; `None` once SIGTERM has come.
///
/// # Errors
/// The kernel's errno; `ECHILD` when there is no child left.
pub fn wait_unless_terminated() -> Result<Option<Reaped>> {
    loop {
        if TERMINATED.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match wait_once(-1, 0) {
            Err(Errno(libc::EINTR)) => {}
            answer => return answer,
        }
    }
}

/// Has this process no child, dead ones aside, which are reaped?
#[must_use]
pub fn is_alone() -> bool {
    loop {
        match wait_once(-1, libc::WNOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(errno) => return errno == Errno(libc::ECHILD),
        }
    }
}

/// `kill(2)` of -1 with SIGKILL: every process of the pid namespace but the caller.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn kill_all_others() -> Result<()> {
    // SAFETY: kill takes integers.
    check(libc::c_long::from(unsafe { libc::kill(-1, libc::SIGKILL) })).map(drop)
}

/// A reaped child.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    /// Which.
    pub pid: libc::pid_t,
    /// How it ended.
    pub exit: Exit,
    /// CPU time in microseconds, of it and of all it had waited for.
    pub cpu_us: u64,
}

/// wait4(2) for one child (`pid > 0`) or any (`-1`), blocking.
///
/// # Errors
/// The kernel's errno; `EINTR` is tried again.
pub fn wait(pid: libc::pid_t) -> Result<Reaped> {
    loop {
        match wait_once(pid, 0) {
            Ok(Some(reaped)) => return Ok(reaped),
            Ok(None) | Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `None` when there is none to be reaped yet and `options` do not wait.
fn wait_once(pid: libc::pid_t, options: libc::c_int) -> Result<Option<Reaped>> {
    let mut status: libc::c_int = 0;
    // SAFETY: rusage is a plain C struct for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right type.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, libc::__WALL | options, &raw mut usage) };
    if reaped == -1 {
        return Err(Errno::last());
    }
    if reaped == 0 {
        return Ok(None);
    }
    let microseconds = |t: libc::timeval| {
        u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0)
    };
    let cpu_us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
    Ok(Some(Reaped { pid: reaped, exit: Exit::from_wait(status), cpu_us }))
}

/// `pidfd_open(2)`.
///
/// # Errors
/// The kernel's errno.
pub fn pidfd_open(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers.
    let fd = check_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(2)`.
///
/// # Errors
/// The kernel's errno; `ESRCH` when the process is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> Result<()> {
    // SAFETY: a null siginfo is allowed; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Does a process of this id exist (kill(2) with signal 0)?
#[must_use]
pub fn exists(pid: libc::pid_t) -> bool {
    // SAFETY: kill takes integers; signal 0 sends nothing.
    let answer = check(libc::c_long::from(unsafe { libc::kill(pid, 0) }));
    answer.is_ok() || answer == Err(Errno(libc::EPERM))
}

/// pause(2): sleeps until a signal.
pub fn pause() {
    // SAFETY: pause takes nothing.
    unsafe { libc::pause() };
}

/// kill(2) with SIGKILL.
///
/// # Errors
/// The kernel's errno.
pub fn kill(pid: libc::pid_t) -> Result<()> {
    // SAFETY: kill takes integers.
    check(libc::c_long::from(unsafe { libc::kill(pid, libc::SIGKILL) })).map(drop)
}

/// setsid(2).
///
/// # Errors
/// `EPERM` when the caller leads a process group.
pub fn setsid() -> Result<()> {
    // SAFETY: setsid takes nothing.
    check(libc::c_long::from(unsafe { libc::setsid() })).map(drop)
}

/// umask(2): the mask that was.
pub fn umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: umask takes an integer and cannot fail.
    unsafe { libc::umask(mask) }
}

/// keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING` with no name: a new, empty session keyring.
///
/// # Errors
/// `ENOSYS` on a kernel without keyrings.
pub fn join_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is written.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// setrlimit(2), soft and hard at once; never raises a hard limit that is lower already.
///
/// # Errors
/// The kernel's errno.
pub fn setrlimit(resource: libc::__rlimit_resource_t, value: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit.
    check(libc::c_long::from(unsafe { libc::getrlimit(resource, &raw mut limit) }))?;
    let value = value.min(limit.rlim_max);
    limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `limit` is a live rlimit.
    check(libc::c_long::from(unsafe { libc::setrlimit(resource, &raw const limit) })).map(drop)
}

/// prctl(2) with integer arguments only.
///
/// # Errors
/// The kernel's errno.
pub fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<libc::c_long> {
    // SAFETY: the options that callers pass take integers; the unused arguments are zero as the kernel wants.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, value, 0, 0, 0) })
}

/// prctl(2) `PR_SET_PDEATHSIG` with SIGKILL. The kernel forgets it when ids change or capabilities are gained.
///
/// # Errors
/// The kernel's errno.
pub fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(libc::SIGKILL.cast_unsigned())).map(drop)
}

/// prctl(2) `PR_SET_PDEATHSIG` with SIGTERM, for a process that has something to end before itself.
///
/// # Errors
/// The kernel's errno.
pub fn hear_of_parents_end() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(libc::SIGTERM.cast_unsigned())).map(drop)
}

/// May the parent be signalled (kill(2) with signal 0)?
///
/// # Errors
/// The kernel's errno.
pub fn signal_parent() -> Result<()> {
    // SAFETY: getppid takes nothing and cannot fail.
    let parent = unsafe { libc::getppid() };
    // SAFETY: kill takes integers.
    check(libc::c_long::from(unsafe { libc::kill(parent, 0) })).map(drop)
}

/// prctl(2) `PR_SET_CHILD_SUBREAPER`: a descendant whose parent ends becomes a child of the caller.
///
/// # Errors
/// The kernel's errno.
pub fn become_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// prctl(2) `PR_SET_NAME`: the name in `/proc/PID/comm`, at most 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: the pointer is to a NUL-terminated text; the kernel reads at most 16 bytes of it and stops at NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Overwrites the environment and argument texts of this process image, as `/proc/PID/environ` and `cmdline` show them.
/// Call it only where nothing will read the environment or the arguments again.
pub fn wipe_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: `environ` is libc's own variable; the caller is single-threaded, so nobody changes it meanwhile.
    let list = unsafe { environ };
    if list.is_null() {
        return;
    }
    let mut index = 0;
    loop {
        // SAFETY: the array ends with a null pointer, at which the loop stops, so `index` stays within it.
        let slot = unsafe { list.add(index) };
        // SAFETY: `slot` is within the array, its terminating null included.
        let text = unsafe { *slot };
        if text.is_null() {
            break;
        }
        // SAFETY: each entry is a NUL-terminated text in writable memory (the stack that execve made, or malloc's).
        let length = unsafe { libc::strlen(text) };
        // SAFETY: as above: `length` bytes from `text` are ours and writable.
        unsafe { ptr::write_bytes(text, 0, length) };
        index += 1;
    }
    // SAFETY: the first slot exists (it may be the null itself); from now on the environment reads as empty.
    unsafe { *list = ptr::null_mut() };
}

/// getppid(2) is 0 when the parent is outside the pid namespace; getpid(2) is 1 for init.
#[must_use]
pub fn pid() -> u32 {
    std::process::id()
}

/// sethostname(2).
///
/// # Errors
/// The kernel's errno.
pub fn sethostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe one live text; the kernel copies it.
    check(libc::c_long::from(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })).map(drop)
}

/// chdir(2).
///
/// # Errors
/// The kernel's errno.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is a NUL-terminated text.
    check(libc::c_long::from(unsafe { libc::chdir(path.as_ptr()) })).map(drop)
}

/// execveat(2) with `AT_EXECVE_CHECK`: everything that the kernel asks before it runs a program, and nothing is run.
///
/// # Errors
/// Why it may not be executed; `EINVAL` from a kernel older than 6.14.
pub fn may_execute(path: &CStr) -> Result<()> {
    const AT_EXECVE_CHECK: libc::c_int = 0x10000;
    let argv = [path.as_ptr(), ptr::null()];
    let environment = [ptr::null::<libc::c_char>()];
    // SAFETY: path, argv and environment are live, NUL-terminated texts and null-terminated lists of such; with this
    // flag the call returns, and an older kernel refuses the flag.
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            libc::AT_FDCWD,
            path.as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            AT_EXECVE_CHECK,
        )
    })
    .map(drop)
}
