//! Probes inside a writable directory that go for what the host runs or trusts there: by its name, by the name of what it lies
//! in, and by a link in its place.
//!
//! Neighbours: `hostile::tools` lists them. Never: leaves names of its own behind where it was refused.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::files::LINE;
use super::report::{Call, Probed, errno};
use crate::sys::Errno;

/// Files that a host runs or trusts in a directory that somebody works in, a repository included.
pub const GRANTED: &[&str] = &[
    ".git/hooks/pre-commit",
    ".git/config",
    ".git/config.worktree",
    ".git/commondir",
    ".git/modules/own/config",
    ".git/worktrees/own/commondir",
    ".github/workflows/own.yml",
    ".gitlab-ci.yml",
    ".mcp.json",
    ".claude/settings.json",
    ".cursor/mcp.json",
    ".vscode/tasks.json",
    ".idea/workspace.xml",
    ".envrc",
    ".npmrc",
    ".cargo/config.toml",
    ".husky/pre-commit",
    "toolcell.lock",
];

/// The part of such a file's path that is protected: what lies in the directory, or in its repository.
pub fn guarded(name: &str) -> &str {
    let skipped = if name.starts_with(".git/") { ".git/".len() } else { 0 };
    let end = name.get(skipped..).and_then(|rest| rest.find('/')).map_or(name.len(), |at| skipped + at);
    name.get(..end).unwrap_or(name)
}

/// Tries one thing with each name; one refusal if it was never done. What a name is can refuse it as well (`EISDIR`), and
/// that says less than a mount.
fn each(call: &Call<'_>, operation: &str, mut attempt: impl FnMut(&str) -> io::Result<()>) -> Probed {
    let (mut done, mut refusal) = (0, Errno(libc::ENOENT));
    for name in GRANTED {
        match attempt(name) {
            Ok(()) => done += 1,
            Err(_) if matches!(refusal, Errno(libc::EBUSY | libc::EROFS)) => {}
            Err(error) => refusal = errno(&error),
        }
    }
    let saw = if done == 0 { Err(refusal) } else { Ok(format!("{done} of {}", GRANTED.len())) };
    Ok(call.tried(operation, call.path("directory")?.to_string_lossy(), saw))
}

/// Adds a line to a file, and makes the file and what it lies in if they are not there.
fn add(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().append(true).create(true).open(path)?.write_all(LINE)
}

/// Adds to all of them, or makes them.
pub(super) fn add_to_traps(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    each(call, "write", |name| add(&directory.join(name)))
}

/// Moves what is protected, or the repository around it, out of the way and puts its own there.
pub(super) fn replace_traps(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    each(call, "rename", |name| {
        let own = directory.join(name);
        let moved = directory.join(format!("toolcell-moved-{}", name.replace('/', "-")));
        let replace = |old: &Path, own: &Path| {
            fs::rename(old, &moved)?;
            add(own)
        };
        let replaced = replace(&directory.join(guarded(name)), &own);
        match name.split_once('/') {
            Some((above, _)) if replaced.is_err() => replace(&directory.join(above), &own),
            _ => replaced,
        }
    })
}

/// Renames a file, a directory and a link of its own to the names.
pub(super) fn rename_to_traps(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    let own = directory.join("toolcell-own");
    each(call, "rename", |name| {
        let trap = directory.join(guarded(name));
        add(&own)?;
        fs::rename(&own, &trap).or_else(|_refused| {
            fs::remove_file(&own)?;
            let renamed = fs::create_dir(&own).and_then(|()| fs::rename(&own, &trap));
            renamed.inspect_err(|_refused| fs::remove_dir(&own).unwrap_or_default())
        })
    })
}

/// Puts a link to what it may write in place of each of them.
pub(super) fn link_traps(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    let own = directory.join("toolcell-link");
    each(call, "symlink", |name| {
        let trap = directory.join(guarded(name));
        symlink("toolcell-own", &trap).or_else(|_there| {
            symlink("toolcell-own", &own)?;
            let renamed = fs::rename(&own, &trap);
            renamed.inspect_err(|_refused| fs::remove_file(&own).unwrap_or_default())
        })
    })
}
