//! Probes that leave in a writable directory what a review is to keep from the host, and leave it: whoever looks at the
//! directory afterwards sees whether it came through.
//!
//! Neighbours: `hostile::tools` lists them; `traps` has what is refused while it runs. Never: leaves anything that does harm.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::files::LINE;
use super::report::{Call, Probed, errno};
use crate::sys::{Errno, attack};

/// What the host would run or trust, below a directory of the tool's own.
const DEEP: &[&str] =
    &["own/.vscode/tasks.json", "own/.git/hooks/pre-commit", "own/deeper/.mcp.json", "own/.ENVRC"];
/// A name that shows as another one: it turns the direction of what follows.
const DECEIVING: &str = "own-\u{202e}txt.sh";

/// Makes a file, and the directories above it.
fn leave(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(LINE)
}

/// A report on what was left in the directory.
fn left(call: &Call<'_>, operation: &str, result: Result<(), Errno>) -> Probed {
    let directory = call.path("directory")?;
    Ok(call.tried(operation, directory.to_string_lossy(), result.map(|()| "left".to_owned())))
}

/// Leaves names that are protected in the directory itself, deeper down, and an ordinary file beside them.
pub(super) fn leave_deep_traps(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    let made = DEEP.iter().chain(&["own/notes"]).try_for_each(|name| leave(&directory.join(name)));
    left(call, "write", made.map_err(|error| errno(&error)))
}

/// Leaves a link to what is the host's.
pub(super) fn leave_link(call: &mut Call<'_>) -> Probed {
    let (directory, path) = (call.path("directory")?, call.path("path")?);
    let made = symlink(path, directory.join("own-link"));
    left(call, "symlink", made.map_err(|error| errno(&error)))
}

/// Leaves a named pipe, at which whoever opens it waits.
pub(super) fn leave_pipe(call: &mut Call<'_>) -> Probed {
    let path = call.path("directory")?.join("own-pipe");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    left(call, "mknod", attack::make_pipe(&name))
}

/// Leaves a device node.
pub(super) fn leave_device(call: &mut Call<'_>) -> Probed {
    let path = call.path("directory")?.join("own-device");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    left(call, "mknod", attack::make_device(&name))
}

/// Leaves a file with which nothing is wrong.
pub(super) fn leave_file(call: &mut Call<'_>) -> Probed {
    let made = leave(&call.path("directory")?.join("own/notes"));
    left(call, "write", made.map_err(|error| errno(&error)))
}

/// Leaves a file whose name shows as another one.
pub(super) fn leave_deceiving_name(call: &mut Call<'_>) -> Probed {
    let made = leave(&call.path("directory")?.join(DECEIVING));
    left(call, "write", made.map_err(|error| errno(&error)))
}
