//! What toolcell's own processes give up once they have started, for good.
//!
//! | | supervisor of `run` | launcher | `exec`, which is its own launcher |
//! |---|---|---|---|
//! | `no_new_privs`, not dumpable | before it reads from the client | from its start | before the cell |
//! | capabilities of root | for looking and removing | for making cells | for making cells |
//! | seccomp | what it needs, and nothing else | all but what no cell may | as the launcher, from its start |
//! | Landlock | counters and remains of cells | – | – |
//!
//! A front (`serve`, or one client of several servers) has the first line alone.
//! The guard is confined like a launcher. The process that keeps doors has no capability, a filter of its own and the files by
//! which names are resolved.
//!
//! What a launcher clones inherits both. In a Landlock domain nothing can be mounted; and of what a filter above the cell's
//! refuses with an error, the cell's does not tell (seccomp(2): an error wins over a notification). So a launcher's filter
//! answers with `SECCOMP_RET_TRACE`, which is `ENOSYS` and gives way to every refusal of the cell's.
//!
//! Neighbours: `commands` call it, and `launch::launcher` for itself. Never: is called with a
//! second thread running.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{LaunchError, reserve};
use crate::plan::Plan;
use crate::plan::seccomp::own;
use crate::plan::step::Step;
use crate::sys::capability::{self, cap};
use crate::sys::landlock::{self, access};
use crate::sys::{Errno, Result, filter, process};

/// What making a cell takes: mounts, namespaces (and `SYS_CHROOT` to enter one that is there), ids and their maps (`SETFCAP` for the one of root), other users' files and
/// processes, limits, and in its network namespace addresses and any port.
const OF_LAUNCHER: u64 = cap::CHOWN
    | cap::DAC_OVERRIDE
    | cap::DAC_READ_SEARCH
    | cap::FOWNER
    | cap::FSETID
    | cap::KILL
    | cap::SETGID
    | cap::SETUID
    | cap::SETPCAP
    | cap::NET_ADMIN
    | cap::NET_BIND_SERVICE
    | cap::SYS_PTRACE
    | cap::SYS_CHROOT
    | cap::SYS_ADMIN
    | cap::SYS_RESOURCE
    | cap::SETFCAP;

/// Looking at what is granted, removing what is left, ending a payload of another user's, pipes past a user's share.
const OF_SUPERVISOR: u64 =
    cap::DAC_OVERRIDE | cap::DAC_READ_SEARCH | cap::FOWNER | cap::KILL | cap::SYS_RESOURCE;

/// For a launcher, before it clones anything: all its cells are to stand below the same filters.
///
/// # Errors
/// The kernel's errno; `EPROTO` when the filter had no effect.
pub fn filter_launcher() -> Result<()> {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    filter::install(&filter::assemble(&own::launcher()))?;
    match filter::adjust_no_clock() {
        // Below a filter that refuses it too, as in a container, the error may be that one's.
        Err(Errno(errno)) if errno != libc::EFAULT => Ok(()),
        _ => Err(Errno(libc::EPROTO)),
    }
}

/// For a launcher that has its filter, before its first cell.
///
/// # Errors
/// The kernel's errno.
pub fn confine_launcher() -> Result<()> {
    close_up(OF_LAUNCHER)
}

/// For a process in front of supervisors, which has none of root's work to do: strangers' bytes come to it, nobody looks at it, and
/// nothing that it starts gains privileges. What it starts is dumpable until it says otherwise itself.
///
/// # Errors
/// The kernel's errno.
pub fn confine_front() -> Result<()> {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    process::prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// For the guard, which may open files and start the program that is told of alerts; that gains no privileges either.
///
/// # Errors
/// The kernel's errno.
pub fn confine_guard() -> Result<()> {
    filter_launcher()?;
    close_up(OF_SUPERVISOR)
}

/// For the porter, which reads what resolving names takes, and has no privilege at all. Modules by which libc would resolve names in
/// other ways are libraries of the host, and not loaded. `sockets` are those with a path to which doors lead.
///
/// # Errors
/// The kernel's errno.
pub fn confine_porter(sockets: &[PathBuf]) -> Result<()> {
    close_up(0)?;
    let abi = landlock::version()?;
    let ruleset = landlock::create_ruleset_with_network(abi)?;
    // It is often a link to what a service of the host writes anew.
    let led = std::fs::canonicalize("/etc/resolv.conf").ok();
    let led = led.as_deref().and_then(Path::parent).filter(|above| above.parent().is_some());
    for path in [Path::new("/etc")].into_iter().chain(led) {
        let rights = (access::READ_FILE | access::READ_DIR) & access::handled(abi);
        landlock::add_path(ruleset.as_fd(), open_path(path)?.as_fd(), rights)?;
    }
    for socket in sockets {
        // Whoever listens there may come later, and make the socket anew. One whose directory is not there has none: a rule for one
        // above it would let all that lies below be connected to.
        let place = socket.parent().and_then(|above| open_path(above).ok());
        let rights = access::RESOLVE_UNIX & access::handled(abi);
        if let Some(place) = place.filter(|_| rights != 0) {
            landlock::add_path(ruleset.as_fd(), place.as_fd(), rights)?;
        }
    }
    landlock::restrict_self(ruleset.as_fd())?;
    filter::install(&filter::assemble(&own::porter(!sockets.is_empty())))
}

/// No program that this process starts gains privileges, and nobody but root reads its memory or traces it.
fn close_up(capabilities: u64) -> Result<()> {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    capability::keep(capabilities)?;
    // Last: giving up capabilities may set it. Files in /proc/self belong to root from here on.
    process::prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// For the supervisor, after its launcher was started and what it reads of profiles was read. `plans` are those of its
/// cells: what they leave on the host can be read and removed.
///
/// # Errors
/// The layer that could not be put on, or had no effect.
pub fn confine_supervisor<'p>(
    plans: impl IntoIterator<Item = &'p Plan>,
) -> std::result::Result<(), LaunchError> {
    let failed = |layer: &'static str| move |errno| LaunchError::new(layer, "the supervisor", errno);
    close_up(OF_SUPERVISOR).map_err(failed("no-new-privileges"))?;
    let abi = landlock::version().map_err(failed("landlock"))?;
    let ruleset = landlock::create_ruleset_with_signals(abi).map_err(failed("landlock"))?;
    let allow = |place: BorrowedFd<'_>, rights| {
        landlock::add_path(ruleset.as_fd(), place, rights & access::handled(abi))
    };
    // They are opened anew, so that non-blocking mode stays this process's own. Pipes without a name need no right.
    for (stream, right) in
        [(io::stdin().as_fd(), access::READ_FILE), (io::stdout().as_fd(), access::WRITE_FILE)]
    {
        match allow(stream, right) {
            Ok(()) | Err(Errno(libc::EBADFD)) => {}
            Err(errno) => return Err(failed("landlock")(errno)),
        }
    }
    // Names can be looked at anywhere, so they may be listed too: grants and what holds a name's place are looked for.
    let names = (PathBuf::from("/"), access::READ_DIR);
    for (path, rights) in plans.into_iter().flat_map(remains).chain([names]) {
        let place = open_path(&path).map_err(Errno::from);
        place
            .and_then(|place| allow(place.as_fd(), rights))
            .map_err(|errno| LaunchError::new("landlock", path.to_string_lossy(), errno))?;
    }
    landlock::restrict_self(ruleset.as_fd()).map_err(failed("landlock"))?;
    if !File::open("/proc/self/status").is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)) {
        return Err(failed("landlock")(Errno(libc::EPROTO)));
    }
    filter::install(&filter::assemble(&own::supervisor())).map_err(failed("seccomp"))?;
    match process::prctl(libc::PR_SET_DUMPABLE, 1) {
        Err(Errno(libc::EPERM)) => Ok(()),
        _ => Err(failed("seccomp")(Errno(libc::EPROTO))),
    }
}

/// Where cells of a plan leave what the supervisor reads or removes: counters always, the rest when the launcher is gone.
fn remains(plan: &Plan) -> Vec<(PathBuf, u64)> {
    let mut places = Vec::new();
    for step in &plan.steps {
        match step {
            Step::CreateCgroup { directories, .. } => places.extend(
                directories.iter().map(|made| (made.parent.clone(), access::READ_FILE | access::REMOVE_DIR)),
            ),
            Step::ReserveName { path, .. } => {
                let there = path.ancestors().find(|path| path.is_dir() && !reserve::is_vacant(path));
                let rights = access::READ_FILE | access::REMOVE_DIR | access::REMOVE_FILE;
                places.extend(there.map(|path| (path.to_owned(), rights)));
            }
            Step::MakePrivateDirectory { parent, .. } => {
                places.push((parent.clone(), access::REMOVE_DIR | access::REMOVE_FILE));
            }
            _ => {}
        }
    }
    places
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::{env, fs, thread};

    use super::*;
    use crate::plan::step::CgroupDirectory;
    use crate::sys::{attack, descriptor};

    type Attempt = fn(i32) -> Result<()>;

    /// Both layers are a thread's own, so the rest of the test's process stays as it is.
    fn as_supervisor<T: Send>(plan: &Plan, look: impl FnOnce() -> T + Send) -> T {
        let confined = || {
            confine_supervisor([plan]).unwrap();
            look()
        };
        thread::scope(|scope| scope.spawn(confined).join().unwrap())
    }

    fn errno<T>(result: io::Result<T>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan { floor: serde_json::from_str("\"full\"").unwrap(), steps }
    }

    #[test]
    fn a_supervisor_starts_no_program_and_reaches_no_process_or_network() {
        let own = process::pid().cast_signed();
        let attempts: [(&str, Attempt); 8] = [
            ("execve", |_| Err(Errno::from(Command::new("/bin/true").exec()))),
            ("fork", |_| process::fork().map(drop)),
            ("socket", |_| attack::socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
            ("unix socket", |_| attack::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
            ("pidfd_open", |pid| process::pidfd_open(pid).map(drop)),
            ("process_vm_readv", attack::read_memory),
            ("mount", |_| attack::mount()),
            ("unshare", |_| process::unshare(0)),
        ];
        as_supervisor(&plan(vec![]), || {
            for (name, attempt) in attempts {
                assert_eq!(attempt(own), Err(Errno(libc::EPERM)), "{name}");
            }
            // What it does need.
            thread::Builder::new().spawn(|| ()).unwrap().join().unwrap();
            assert!(descriptor::pipe().is_ok() && descriptor::anonymous_file().is_ok());
        });
    }

    #[test]
    fn a_porter_connects_and_reads_what_resolves_names_and_nothing_else() {
        let place = env::temp_dir().join(format!("toolcell-porter-{}", process::pid()));
        fs::write(&place, "data").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let confined = || {
            confine_porter(&[]).unwrap();
            assert!(fs::read("/etc/passwd").is_ok() && std::net::TcpStream::connect(address).is_ok());
            let (refused, no_rights) = (Some(libc::EPERM), Some(libc::EACCES));
            assert_eq!(errno(fs::read(&place)), no_rights);
            assert_eq!(errno(fs::write("/etc/toolcell-porter", "")), no_rights);
            assert_eq!(errno(fs::remove_file(&place)), refused);
            assert_eq!(errno(std::net::TcpListener::bind("127.0.0.1:0").map(drop)), refused);
            assert_eq!(errno::<()>(Err(Command::new("/bin/true").exec())), refused);
            assert_eq!(attack::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), Err(Errno(libc::EAFNOSUPPORT)));
        };
        thread::scope(|scope| scope.spawn(confined).join().unwrap());
        fs::remove_file(&place).unwrap();
    }

    #[test]
    fn a_porter_with_doors_to_sockets_connects_to_those_beside_them_and_nothing_else() {
        let place = env::temp_dir().join(format!("toolcell-porter-sockets-{}", process::pid()));
        let of = |name: &str| place.join(name);
        for name in ["door", "other"] {
            fs::create_dir_all(of(name)).unwrap();
        }
        let _listening = ["door/s", "other/s"].map(|name| UnixListener::bind(of(name)).unwrap());
        // The right is one that the kernel knows since ABI 9.
        let known = access::handled(landlock::version().unwrap()) & access::RESOLVE_UNIX != 0;
        let confined = || {
            confine_porter(&[of("door/s"), of("none/s")]).unwrap();
            let connect = |name: &str| errno(UnixStream::connect(of(name)));
            assert_eq!(connect("door/s"), None);
            assert_eq!(connect("other/s"), known.then_some(libc::EACCES));
            let refused = Some(libc::EPERM);
            assert_eq!(errno(UnixListener::bind(of("none"))), refused);
            assert_eq!(errno(fs::read_dir(of("door"))), Some(libc::EACCES));
            assert_eq!(errno(fs::remove_file(of("door/s"))), refused);
            assert_eq!(errno::<()>(Err(Command::new("/bin/true").exec())), refused);
            let datagrams = attack::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
            assert_eq!(datagrams, Err(Errno(libc::EAFNOSUPPORT)));
        };
        thread::scope(|scope| scope.spawn(confined).join().unwrap());
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_supervisor_opens_and_removes_only_what_cells_leave() {
        let place = env::temp_dir().join(format!("toolcell-own-{}", process::pid()));
        let (parent, denied) = (place.join("parent"), place.join("grant"));
        for directory in [parent.join("cell"), parent.join("other/deep"), denied.clone()] {
            fs::create_dir_all(directory).unwrap();
        }
        let left = denied.join("left");
        fs::DirBuilder::new().mode(0o1700).create(&left).unwrap();
        assert!(reserve::is_vacant(&left));
        fs::write(parent.join("cell/counter"), "1").unwrap();
        let made = CgroupDirectory { parent: parent.clone(), controllers: vec![], settings: vec![] };
        let steps = vec![
            Step::ReserveName { path: left.join("name"), content: None },
            Step::CreateCgroup { directories: vec![made], unified: true },
        ];
        let mut log = File::options().append(true).create(true).open(place.join("log")).unwrap();
        as_supervisor(&plan(steps), || {
            use std::io::Write as _;
            let refused = Some(libc::EACCES);
            assert_eq!(errno(fs::read(place.join("log"))), refused);
            assert_eq!(errno(fs::write(place.join("new"), "")), refused);
            assert_eq!(errno(fs::write(parent.join("cell/counter"), "")), refused);
            assert_eq!(errno(fs::remove_file(parent.join("cell/counter"))), refused);
            assert_eq!(errno(fs::rename(parent.join("cell"), parent.join("else"))), Some(libc::EPERM));
            // What is there can be looked at, what is open stays so, and what is left goes.
            assert!(fs::symlink_metadata(place.join("log")).is_ok() && fs::read_dir(&place).is_ok());
            log.write_all(b"record").unwrap();
            assert_eq!(fs::read(parent.join("cell/counter")).unwrap(), b"1");
            fs::remove_dir(parent.join("other/deep")).unwrap();
            fs::remove_dir(&left).unwrap();
            assert_eq!(errno(fs::remove_dir(&denied)), refused);
        });
        fs::remove_dir_all(&place).unwrap();
    }
}
