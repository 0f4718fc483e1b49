//! Collects the paths that a cell must see, keeps them minimal, and refuses the ones that would show too much.
//!
//! Neighbours: `finder` and its helpers add to it; [`View::finish`] gives sorted lists. Never: shows a home directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{Files, Resolved};
use super::{Needed, World};
use crate::policy::path::is_within;

/// Directories that are shared by so much that showing one whole is never "what the program needs".
const SHARED: [&str; 22] = [
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/nix",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/snap",
    "/srv",
    "/sys",
    "/tmp",
    "/usr/local/etc",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/tmp",
    "/var/cache",
];
/// Directories of a home directory that are shared in the same way; one level further down is a program's own.
const SHARED_AT_HOME: [&str; 14] = [
    ".cache",
    ".config",
    ".local",
    ".local/bin",
    ".local/lib",
    ".local/share",
    ".local/state",
    ".npm",
    ".var",
    "bin",
    "Desktop",
    "Documents",
    "Downloads",
    "snap",
];
/// Directories of a home directory that hold secrets: nothing in them is ever shown.
const SECRET_AT_HOME: [&str; 16] = [
    ".aws",
    ".azure",
    ".claude",
    ".config/gcloud",
    ".config/gh",
    ".docker",
    ".gnupg",
    ".kube",
    ".local/share/keyrings",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pypirc",
    ".ssh",
    ".git-credentials",
];
/// Kernel file systems: nothing in them is a program's own file.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Files beside a server's source that it does not need and that hold credentials.
const PRIVATE_BESIDE_SOURCE: [&str; 9] = [
    ".env",
    ".env.development",
    ".env.local",
    ".env.production",
    ".git",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".yarnrc.yml",
];

/// The view while it is being found.
#[derive(Debug)]
pub(super) struct View<'a> {
    world: &'a World,
    home: Option<PathBuf>,
    needed: BTreeMap<PathBuf, (bool, String)>,
    /// What of it is neither the system's nor an interpreter's.
    own: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    hide: BTreeMap<PathBuf, (bool, String)>,
}

impl<'a> View<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let home =
            world.home.as_deref().and_then(|home| world.files.resolve(home).ok()).map(|home| home.real);
        Self {
            world,
            home,
            needed: BTreeMap::new(),
            own: BTreeSet::new(),
            links: BTreeMap::new(),
            hide: BTreeMap::new(),
        }
    }

    fn files(&self) -> &'a Files {
        &self.world.files
    }

    /// Adds a path of the program's own and the links that lead to it. `None`: it does not exist, or it would show too much.
    pub(super) fn want(&mut self, path: &Path, why: &str) -> Option<PathBuf> {
        let real = self.want_shared(path, why)?;
        self.own.insert(real.clone());
        Some(real)
    }

    /// The same for what is the system's or an interpreter's.
    pub(super) fn want_shared(&mut self, path: &Path, why: &str) -> Option<PathBuf> {
        let found = self.files().resolve(path).ok()?;
        if self.shows_too_much(&found) {
            return None;
        }
        self.links.extend(found.links);
        self.needed.entry(found.real.clone()).or_insert_with(|| (found.meta.is_dir(), why.to_owned()));
        Some(found.real)
    }

    /// Adds the links that lead to a path which something else in the view holds.
    pub(super) fn want_links(&mut self, found: &Resolved) {
        self.links.extend(found.links.iter().cloned());
    }

    /// Makes a path in the cell lead to another program than on the host.
    pub(super) fn stand_in(&mut self, path: &Path, program: &Path) {
        self.links.insert(path.to_path_buf(), program.to_path_buf());
    }

    /// Adds a directory of a server's own source, without the secrets that lie beside it.
    pub(super) fn want_source(&mut self, directory: &Path, why: &str) -> Option<PathBuf> {
        let real = self.want(directory, why)?;
        for name in PRIVATE_BESIDE_SOURCE {
            let path = real.join(name);
            let Ok(found) = self.files().resolve(&path) else { continue };
            let why = "it may hold credentials, and starting the program does not need it";
            self.hide(&found, why);
        }
        Some(real)
    }

    /// Covers what a path leads to, if the view shows it in the end.
    pub(super) fn hide(&mut self, found: &Resolved, why: &str) {
        self.hide.entry(found.real.clone()).or_insert_with(|| (found.meta.is_dir(), why.to_owned()));
    }

    /// True for a directory that must not be shown whole, and for anything in a secret place.
    pub(super) fn shows_too_much(&self, found: &Resolved) -> bool {
        let path = &found.real;
        if KERNEL.iter().any(|top| is_within(path, Path::new(top))) {
            return true;
        }
        if let Some(below) = self.home.as_ref().and_then(|home| path.strip_prefix(home).ok())
            && SECRET_AT_HOME.iter().any(|secret| below.starts_with(secret))
        {
            return true;
        }
        found.meta.is_dir() && self.shared(path)
    }

    /// True for a directory that belongs to more than one program: a home directory, `/tmp`, `~/.config`, …
    pub(super) fn shared(&self, path: &Path) -> bool {
        let at_home = self.home.as_ref().is_some_and(|home| {
            is_within(home, path)
                || path.strip_prefix(home).is_ok_and(|below| {
                    SHARED_AT_HOME.iter().any(|name| below == Path::new(name))
                        || SECRET_AT_HOME.iter().any(|name| Path::new(name).starts_with(below))
                })
        });
        let linuxbrew = path.starts_with("/home/linuxbrew/.linuxbrew");
        at_home
            || SHARED.iter().any(|name| path.as_os_str() == *name)
            || (path.parent() == Some(Path::new("/home")) && !linuxbrew)
    }

    /// Is this path, free of links, inside what is shown so far?
    pub(super) fn shows(&self, real: &Path) -> bool {
        self.needed.keys().any(|above| is_within(real, above))
    }

    /// Would a directory of this path, free of links, hold anything in the cell?
    pub(super) fn reaches(&self, real: &Path) -> bool {
        let mut others = self.needed.keys().chain(self.links.keys());
        self.shows(real) || others.any(|path| is_within(path, real) && path.parent() == Some(real))
    }

    /// What any program that is not static needs: the system's libraries and programs.
    pub(super) fn want_system(&mut self) {
        if self.needed.contains_key(Path::new("/usr")) {
            return;
        }
        self.want_shared(Path::new("/usr"), "system programs and libraries");
        for name in ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"] {
            self.want_shared(Path::new(name), "system programs and libraries");
        }
        for name in ["/etc/ld.so.cache", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path"] {
            self.want_shared(Path::new(name), "where the loader finds libraries");
        }
        self.want_shared(
            Path::new("/etc/alternatives"),
            "programs and libraries of the system are links through it",
        );
    }

    /// The lists, sorted, without entries that another one already holds.
    pub(super) fn finish(self) -> Lists {
        let wanted: Vec<PathBuf> = self.needed.keys().cloned().collect();
        let mut view: Vec<Needed> = Vec::new();
        for (path, (directory, why)) in self.needed {
            if !view.last().is_some_and(|above| is_within(&path, &above.path)) {
                view.push(Needed { path, directory, why });
            }
        }
        let shown = |path: &Path| view.iter().any(|needed| is_within(path, &needed.path));
        let links = self.links.into_iter().filter(|(path, _)| !shown(path)).collect();
        let mut hide: Vec<Needed> = Vec::new();
        for (path, (directory, why)) in self.hide {
            // What was wanted by its own name stays, such as a file of settings named on the command line.
            let named = wanted.iter().any(|other| is_within(other, &path));
            let covered = hide.last().is_some_and(|above| is_within(&path, &above.path));
            if shown(&path) && !named && !covered {
                hide.push(Needed { path, directory, why });
            }
        }
        let mut own: Vec<PathBuf> = Vec::new();
        for path in self.own {
            if !own.last().is_some_and(|above| path.starts_with(above)) {
                own.push(path);
            }
        }
        Lists { view, own, links, hide }
    }
}

/// What [`View::finish`] gives.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) view: Vec<Needed>,
    pub(super) own: Vec<PathBuf>,
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    pub(super) hide: Vec<Needed>,
}
