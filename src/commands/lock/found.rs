//! What a server is, without a word of its own: its command, its profiles, its files; and the lock that `run` holds it to.
//!
//! Neighbours: `commands::run` and `commands::lock` look through here, so that both see the same. Never: writes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::super::compose::Surroundings;
use super::super::install::store_failed;
use super::super::run::Served;
use crate::cli::{RunArgs, Server as Typed};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::probe::child;
use crate::host::program;
use crate::host::runtime::Runtime;
use crate::lock::{Guard, LockFile, Package, Part, Profile, Server, parse};
use crate::policy::Policy;
use crate::policy::add::Additions;
use crate::policy::config::Lock;
use crate::policy::files::FilesError;
use crate::policy::print::to_toml;
use crate::session::{self, Untouched};
use crate::sys::Errno;
use crate::text::{quoted, quoted_path};

#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("there is no lock file `{}`", .0.display())]
    Missing(PathBuf),
    #[error("`{}` cannot be used", .0.display())]
    Unreadable(PathBuf, #[source] crate::lock::NotALock),
    #[error("`{}` has no server `{}`", .0.display(), .1)]
    NoServer(PathBuf, String),
    #[error("cannot start the process that hashes the program")]
    Hash(#[source] Errno),
}

fn not_hashed(errno: Errno) -> Failure {
    let hint = "end other processes of this user, or allow more: see `ulimit -u` for processes, `ulimit -n` for open \
                files, and the limits of the cgroup";
    Failure::new(Ending::Other, LockError::Hash(errno)).hint(Some(hint.to_owned()))
}

fn files_failed(error: FilesError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Configuration, error).hint(hint)
}

/// The lock file of a command line: the one that was typed, else the one beside the configuration.
pub(in crate::commands) fn path(typed: Option<&PathBuf>, surroundings: &Surroundings) -> Option<PathBuf> {
    let typed = typed.map(|path| surroundings.world.cwd.join(path));
    typed.or_else(|| surroundings.library.lock_file())
}

/// Reads a lock file. `None`: there is none.
pub(in crate::commands) fn read(
    surroundings: &Surroundings,
    path: &Path,
) -> Result<Option<LockFile>, Failure> {
    let Some(text) = surroundings.library.lock(path).map_err(files_failed)? else { return Ok(None) };
    parse(&text).map(Some).map_err(|error| {
        let error = LockError::Unreadable(path.to_path_buf(), error);
        let hint = "take back what was done to the file, or remove it and write it anew with `toolcell lock`";
        Failure::new(Ending::Configuration, error).hint(Some(hint.to_owned()))
    })
}

/// Command and profiles of a server.
pub(in crate::commands) fn surroundings_of(
    surroundings: &Surroundings,
    served: &Served,
    additions: &Additions,
) -> Result<(Server, Vec<Policy>), Failure> {
    let mut server = Server { command: served.command.clone(), state: served.states(), ..Server::default() };
    let mut policies = Vec::new();
    for name in served.profiles() {
        let policy = surroundings.policy(name, additions)?;
        server.profiles.insert(name.to_owned(), Profile { text: to_toml(&policy) });
        policies.push(policy);
    }
    // What a tool is tried under may be changed by nobody either; but no file of the program is left out because of it.
    if let Some(tried) = served.guarding.tried().filter(|tried| !server.profiles.contains_key(*tried)) {
        let policy = surroundings.policy(tried, &Additions::default())?;
        server.profiles.insert(tried.to_owned(), Profile { text: to_toml(&policy) });
    }
    Ok((server, policies))
}

/// The package that a server's program lies in, where toolcell has fetched it.
pub(in crate::commands) fn package(
    surroundings: &Surroundings,
    runtime: &Runtime,
) -> Result<Option<Package>, Failure> {
    let Some(store) = &surroundings.store else { return Ok(None) };
    for path in &runtime.own {
        if let Some(stored) = store.around(path).map_err(store_failed)? {
            return Ok(Some(stored.entry.package()));
        }
    }
    Ok(None)
}

/// The files of a server's program.
pub(in crate::commands) fn program(
    surroundings: &Surroundings,
    runtime: &Runtime,
    policies: &[Policy],
    lock: &Path,
    logs: &[PathBuf],
) -> Result<Vec<Part>, Failure> {
    let left_out = left_out(surroundings, runtime, policies, lock, logs);
    program::parts(&runtime.own, &left_out).map_err(|error| {
        let hint = "move the server into a directory of its own, or grant what it writes with `write`";
        Failure::new(Ending::Configuration, error).hint(Some(hint.to_owned()))
    })
}

/// What lies among a program's files and is none of them.
fn left_out(
    surroundings: &Surroundings,
    runtime: &Runtime,
    policies: &[Policy],
    lock: &Path,
    logs: &[PathBuf],
) -> Vec<PathBuf> {
    let library = &surroundings.library;
    // What a tool may write is data, and what toolcell writes itself is no part of a program.
    let written = policies.iter().flat_map(|policy| &policy.filesystem.write).map(|rule| rule.path.as_path());
    let replaced = [library.tokens_file(), library.nonces_file(), Some(lock.to_path_buf())];
    let mut own: Vec<PathBuf> = replaced.into_iter().flatten().collect();
    // What takes the place of one of these lies beside it, until it is whole.
    own.extend(
        own.clone().into_iter().map(|path| {
            PathBuf::from([path.as_os_str(), OsStr::new(".new")].into_iter().collect::<OsString>())
        }),
    );
    let own = own.iter().chain(logs).map(PathBuf::as_path).chain(library.config_file());
    let hidden = runtime.hide.iter().map(|hidden| hidden.path.as_path());
    written.chain(hidden).chain(own).map(real).collect()
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_missing| path.to_path_buf())
}

/// What `run` holds a server to. `None`: there is no lock file, and none is asked for.
pub(in crate::commands) fn lock(
    args: &RunArgs,
    surroundings: &Surroundings,
    served: &Served,
    additions: &Additions,
    runtime: &Runtime,
    (log, logs): (&Path, &[PathBuf]),
) -> Result<Option<(session::Lock, PathBuf)>, Failure> {
    let Some(path) = path(args.lock.as_ref(), surroundings).filter(|_| !args.lists_only) else {
        return Ok(None);
    };
    let write = || {
        let named =
            args.lock.as_ref().map(|path| format!(" --lock {}", quoted_path(path))).unwrap_or_default();
        match &args.server {
            Typed::Configured { config, .. } | Typed::Several { config, .. } => {
                format!("toolcell lock --config {}{named} {}", quoted_path(config), quoted(&served.name))
            }
            Typed::Command(_) => {
                let words: Vec<_> = served.command.iter().map(|word| quoted(word)).collect();
                format!("toolcell lock{named} -- {}", words.join(" "))
            }
        }
    };
    let Some(file) = read(surroundings, &path)? else {
        if args.lock.is_none() && served.lock == Lock::IfThere {
            return Ok(None);
        }
        return Err(Failure::new(Ending::Configuration, LockError::Missing(path)).hint(Some(write())));
    };
    let shown = path.display().to_string();
    let Some(guard) = Guard::new(&shown, &file, &served.name) else {
        let error = LockError::NoServer(path, served.name.clone());
        return Err(Failure::new(Ending::Configuration, error).hint(Some(write())));
    };
    let (mut found, policies) = surroundings_of(surroundings, served, additions)?;
    found.package = package(surroundings, runtime)?;
    let whole = guard.surroundings(&found);
    // Before they are hashed, so that no change comes between.
    let left_out = left_out(surroundings, runtime, &policies, &path, logs);
    let files = Untouched::new(&runtime.own, left_out, real(log));
    // Beside the rest of the start, and the server's own; the first call waits for it.
    let program = child::begin(|| {
        program(surroundings, runtime, &policies, &path, logs).map_err(|failure| failure.render(false))
    });
    let program = program.map_err(not_hashed)?;
    Ok(Some((session::Lock { guard, whole, program, files }, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_for_the_hashes_is_told_with_a_way_on() {
        insta::assert_snapshot!(not_hashed(Errno(libc::EAGAIN)).render(false), @r"
        error: cannot start the process that hashes the program
          caused by: try again (EAGAIN)
        hint: end other processes of this user, or allow more: see `ulimit -u` for processes, `ulimit -n` for open files, and the limits of the cgroup
        ");
    }
}
