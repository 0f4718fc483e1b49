//! Proves an answer of `profile why`: a cell is built, and the thing is tried in it without changing anything.
//!
//! Neighbours: `why` composes the plan; this program itself is what runs in the cell ([`try_it`]). Never: creates, truncates,
//! changes or executes what it is asked about.
//!
//! | asked for | tried |
//! |---|---|
//! | read | open(2) for reading of a file or directory; else faccessat(2) |
//! | write | open(2) for writing of a file, without `O_CREAT` and `O_TRUNC`; faccessat(2) of a directory |
//! | write, nothing there | faccessat(2) of the directory that it would be made in, where a link leads |
//! | exec | execveat(2) with `AT_EXECVE_CHECK`; faccessat(2) on a kernel older than 6.14 |
//! | connect | connect(2), by the cell's `/etc/hosts` where it is a name; nobody outside is asked |
//! | syscall | the call in a child, with no argument that means anything |

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::commands::quiet;
use crate::exit_codes::Ending;
use crate::host::probe::child;
use crate::host::runtime::Runtime;
use crate::launch::LaunchError;
use crate::outcome::{Coverage, Layer};
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::policy::Policy;
use crate::sys::process::Exit;
use crate::sys::trial::{self, Trial};
use crate::sys::{Errno, Result, descriptor, process};

/// More than a launch takes on the slowest host.
const TIME: Duration = Duration::from_secs(30);

/// The hidden command that runs in the cell.
pub(in crate::commands) const COMMAND: &str = "try-access";

/// Adds this program to what a command needs to be seen.
pub(super) fn with_prover(runtime: &Runtime, prover: &Runtime) -> Runtime {
    let mut both = runtime.clone();
    for needed in &prover.view {
        if !both.view.iter().any(|known| needed.path.starts_with(&known.path)) {
            both.view.push(needed.clone());
        }
    }
    both
}

/// How the trial of a call whose process was killed is told. No errno is as large.
const KILLED: u8 = 200;
/// And that it could not be made in a process of its own, for which the profile refuses what that takes.
const UNTRIED: u8 = 201;

/// What was met with in the cell.
#[derive(Debug)]
pub(super) struct Met {
    /// Nothing where it could not be tried.
    pub(super) outcome: Option<Trial>,
    /// Calls that the filter refused, by name.
    pub(super) refused: Vec<String>,
    /// Somebody was told of them.
    pub(super) heard: bool,
}

/// Tries in a cell of this plan, in which this program is the payload.
///
/// # Errors
/// The cell could not be built, or did not end as it should.
pub(super) fn prove(
    mut plan: Plan,
    prover: &Runtime,
    policy: &Policy,
    operation: &str,
    what: &str,
) -> std::result::Result<Met, LaunchError> {
    for step in &mut plan.steps {
        if let Step::Exec { program, argv, cwd, .. } = step {
            program.clone_from(&prover.program);
            let words = ["toolcell", COMMAND, operation, what];
            *argv = words.map(str::to_owned).to_vec();
            *cwd = "/".into();
        }
    }
    let broken = |errno: Errno| Err(LaunchError::new("clone", "a child to try in", errno));
    let answer = child::fork(|| {
        let passed = quiet::run(plan, TIME)?;
        let heard = passed.receipt.as_ref().and_then(|receipt| receipt.coverage.get(Layer::Seccomp.name()));
        let heard = heard.is_some_and(|coverage| *coverage != Coverage::Blind);
        let refused = passed.refusals.iter().flat_map(|refusals| refusals.violations(policy));
        let refused = refused.filter(|one| one.layer == Layer::Seccomp).map(|one| one.operation);
        match (passed.failed, passed.exit) {
            (Some(error), _) => Err(error),
            (None, Some(Exit::Code(code))) => Ok((code, refused.collect::<Vec<_>>(), heard)),
            (None, exit) => Err(LaunchError::new("exec", format!("{exit:?}"), Errno(libc::EPROTO))),
        }
    });
    let (code, refused, heard) = answer.unwrap_or_else(broken)?;
    let outcome = match code {
        0 => Some(Trial::Ran),
        code if code == i32::from(UNTRIED) => None,
        code if code == i32::from(KILLED) => Some(Trial::Killed),
        code => Some(Trial::Failed(Errno(code))),
    };
    Ok(Met { outcome, refused, heard })
}

/// In the cell: the exit status is the errno, 0, [`KILLED`] or [`UNTRIED`].
pub(in crate::commands) fn try_it(operation: &str, path: &Path) -> Ending {
    let text = path.to_str().unwrap_or_default();
    let tried = match operation {
        "read" => read(path),
        "write" => write(path),
        "connect" => connect(text),
        "syscall" => match text.parse().map_err(|_no_number| Errno(libc::EINVAL)).and_then(trial::call) {
            Ok(Trial::Ran) => Ok(()),
            Ok(Trial::Failed(errno)) => Err(errno),
            Ok(Trial::Killed) => return Ending::Exited(KILLED),
            Err(_) => return Ending::Exited(UNTRIED),
        },
        _ => execute(path),
    };
    tried.map_or_else(|errno| Ending::Exited(u8::try_from(errno.0).unwrap_or(u8::MAX)), |()| Ending::Success)
}

/// To an address and port, or a name and port, of which the cell's `/etc/hosts` knows the address or nobody does.
fn connect(at: &str) -> Result<()> {
    let known = |name: &str, port| {
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        hosts.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let address: IpAddr = words.next()?.parse().ok()?;
            words.any(|word| word == name).then(|| SocketAddr::new(address, port))
        })
    };
    let named = || at.rsplit_once(':').and_then(|(name, port)| known(name, port.parse().ok()?));
    let address = at.parse().ok().or_else(named).ok_or(Errno(libc::ENOENT))?;
    TcpStream::connect(address).map(drop).map_err(Errno::from)
}

fn open(path: &Path, write: bool) -> Result<()> {
    // Non-blocking, should the name mean something else by now.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path);
    opened.map(drop).map_err(Errno::from)
}

fn read(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(Errno::from)?;
    if metadata.is_file() || metadata.is_dir() {
        open(path, false)
    } else {
        descriptor::access(path, libc::R_OK)
    }
}

fn write(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => open(path, true),
        Ok(_) => descriptor::writable(path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path);
            match fs::read_link(path) {
                // A file is made where a link leads. Links in a circle are no missing file.
                Ok(target) => write(&directory.join(target)),
                Err(_no_link) => descriptor::access(directory, libc::W_OK | libc::X_OK),
            }
        }
        Err(error) => Err(Errno::from(error)),
    }
}

fn execute(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
    match process::may_execute(&name) {
        // Which is true of a directory that can be entered, too; execve(2) answers so for one.
        Err(Errno(libc::EINVAL)) if path.is_dir() => Err(Errno(libc::EACCES)),
        Err(Errno(libc::EINVAL)) => descriptor::access(path, libc::X_OK),
        answer => answer,
    }
}
