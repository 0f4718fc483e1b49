//! Works out, from a command line, the read-only view that the program itself needs to start.
//!
//! Neighbours: `commands` call it and hand [`Runtime`] to `plan`; the files below do one kind of runtime each.
//! Never: runs the program or anything else, and never shows a home directory or another shared directory whole.

mod arguments;
mod elf;
mod files;
mod finder;
mod interpreter;
mod libraries;
mod managers;
mod node;
mod places;
mod python;
mod runners;
mod script;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, io};

pub use arguments::unseen_arguments;
pub use files::Files;

/// What a command needs, found and not configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program: absolute, existing, as it is to be executed in the cell. It may be a symbolic link: a virtual
    /// environment is found by the path that its interpreter was started with.
    pub program: PathBuf,
    /// The whole argument list. The first is the name as it was typed, or the program's path when that name would
    /// mean another file in the cell.
    pub argv: Vec<String>,
    /// Host paths that the cell must see at the same place, each readable and executable, with the reason.
    /// Sorted; none lies inside another.
    pub view: Vec<Needed>,
    /// What of these the program has for itself, be it in the system's directories: neither the system's nor an
    /// interpreter's. Sorted; none lies inside another.
    pub own: Vec<PathBuf>,
    /// Symbolic links to recreate in the cell's root: path → target as it stands in the link.
    /// None lies inside an entry of `view`.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Paths inside `view` that are to be covered, unless a grant of the policy shows them: programs that install
    /// other programs, and credentials beside a server's source.
    pub hide: Vec<Needed>,
    /// Directories for the cell's `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// Variables that tell the program where its own parts are; a profile's own value wins.
    pub environment: BTreeMap<String, String>,
    /// The working directory on which relative arguments depend. The cell must have a directory there, which may be
    /// empty but for what `view` and the grants put into it.
    pub cwd: Option<PathBuf>,
    /// Remarks for the person: what was not found, and which option to add.
    pub hints: Vec<String>,
}

impl Runtime {
    /// What is read when it starts and is not the system's: the program, by the name that it is started with and as it is, and
    /// what it has for itself.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let real = self.program.canonicalize().ok();
        let mut files: Vec<PathBuf> =
            self.own.iter().cloned().chain([self.program.clone()]).chain(real).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// One path and why it is needed, or hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Absolute, free of symbolic links.
    pub path: PathBuf,
    /// A directory with all that is in it, or a file.
    pub directory: bool,
    /// E.g. "base of the virtual environment", "interpreter named in the script's first line".
    pub why: String,
}

/// What finding depends on.
#[derive(Debug, Clone)]
pub struct World {
    /// Where files are looked up.
    pub files: Files,
    /// `PATH`, if it is set.
    pub path: Option<String>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The variables by which version managers choose a version.
    pub variables: BTreeMap<String, String>,
}

impl World {
    /// This host and this process.
    ///
    /// # Errors
    /// When the working directory does not exist any more.
    pub fn of_process() -> io::Result<Self> {
        let names = [
            "GOENV_VERSION",
            "NODENV_VERSION",
            "PYENV_VERSION",
            "RBENV_VERSION",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "DOTNET_ROOT",
        ];
        let variables =
            names.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))).collect();
        Ok(Self {
            files: Files::of_host(),
            path: env::var("PATH").ok(),
            home: env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
            cwd: env::current_dir()?,
            variables,
        })
    }
}

/// Why there is nothing to run. Shells and this program exit with 127 for the first, with 126 for the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No such program.
    #[error("cannot find the program `{name}`")]
    Missing {
        /// As it was typed.
        name: String,
        /// The directories, or the one path, that were looked at.
        searched: Vec<PathBuf>,
    },
    /// There is a file, but the kernel would not execute it.
    #[error("cannot execute `{}`: {reason}", path.display())]
    NotExecutable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The program is there, and could never work in a cell.
    #[error("cannot start `{name}` in a cell: {reason}")]
    Unsuitable {
        /// The program's name.
        name: String,
        /// Why not.
        reason: String,
        /// What to run instead.
        hint: String,
    },
}

impl NotFound {
    /// The exact next thing to do, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { searched, .. } if searched.is_empty() => {
                Some("`PATH` names no directory: name the program by its whole path".to_owned())
            }
            Self::Missing { searched, .. } => {
                let places: Vec<String> =
                    searched.iter().map(|path| format!("`{}`", path.display())).collect();
                Some(format!("searched {}", places.join(", ")))
            }
            Self::NotExecutable { path, reason } if reason == finder::NO_EXECUTE_BIT => {
                Some(format!("make it executable: chmod +x '{}'", path.display()))
            }
            Self::NotExecutable { .. } => None,
            Self::Unsuitable { hint, .. } => Some(hint.clone()),
        }
    }
}

/// Finds what a command, the program's name first, needs to start.
///
/// # Errors
/// When there is no such program, or it cannot be executed in a cell.
pub fn find(command: &[String], world: &World) -> Result<Runtime, NotFound> {
    finder::Finder::new(world).find(command)
}
