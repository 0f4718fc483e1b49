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

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::commands::quiet;
use crate::exit_codes::Ending;
use crate::host::probe::child;
use crate::host::runtime::Runtime;
use crate::launch::LaunchError;
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::plan::why::Operation;
use crate::sys::process::Exit;
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

/// Tries in a cell of this plan, in which this program is the payload.
///
/// # Errors
/// The cell could not be built, or did not end as it should.
pub(super) fn prove(
    mut plan: Plan,
    prover: &Runtime,
    operation: Operation,
    path: &str,
) -> std::result::Result<Result<()>, LaunchError> {
    for step in &mut plan.steps {
        if let Step::Exec { program, argv, cwd, .. } = step {
            program.clone_from(&prover.program);
            let words = ["toolcell", COMMAND, operation.name(), path];
            *argv = words.map(str::to_owned).to_vec();
            *cwd = "/".into();
        }
    }
    let broken = |errno: Errno| Err(LaunchError::new("clone", "a child to try in", errno));
    let answer = child::fork(|| {
        let passed = quiet::run(plan, TIME)?;
        match (passed.failed, passed.exit) {
            (Some(error), _) => Err(error),
            (None, Some(Exit::Code(code))) => Ok(code),
            (None, exit) => Err(LaunchError::new("exec", format!("{exit:?}"), Errno(libc::EPROTO))),
        }
    });
    answer.unwrap_or_else(broken).map(|code| if code == 0 { Ok(()) } else { Err(Errno(code)) })
}

/// In the cell: the exit status is the errno, or 0.
pub(in crate::commands) fn try_it(operation: &str, path: &Path) -> Ending {
    let tried = match operation {
        "read" => read(path),
        "write" => write(path),
        _ => execute(path),
    };
    tried.map_or_else(|errno| Ending::Exited(u8::try_from(errno.0).unwrap_or(u8::MAX)), |()| Ending::Success)
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
