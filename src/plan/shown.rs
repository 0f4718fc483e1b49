//! What a path means in the cell that a plan builds, by its name alone.
//!
//! Neighbours: `watch` asks about files that a cell opened; `why` answers the same with the host at hand. Never: follows
//! a link, or looks at the host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Plan;
use super::step::{Access, Step};

/// What a path of the cell is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Something is there, or can be made there.
    There,
    /// Something is there, or could be, that cannot be changed.
    ReadOnly {
        /// The path on the host.
        source: PathBuf,
        /// The tree in which nothing can be changed.
        tree: PathBuf,
        /// Around that tree everything can be changed.
        protected: bool,
    },
    /// Covered, although the tree around it is shown.
    Hidden,
    /// In something covered in which nothing is found.
    Emptied,
    /// No step puts anything there.
    Not,
}

#[derive(Debug)]
enum Kind {
    /// Shown by itself.
    Made,
    /// Shown with all that is below: scratch, what can be written, and links, which lead elsewhere.
    Tree,
    /// The same, read only, from this path of the host.
    ReadOnly(PathBuf),
    Hidden,
    /// Hidden, and nothing is found in it.
    Emptied,
}

/// The names of a cell with a private root.
#[derive(Debug)]
pub struct Names(HashMap<PathBuf, Kind>);

impl Names {
    /// Of a plan; `None` without a private root, where every name is the host's.
    #[must_use]
    pub fn of(plan: &Plan) -> Option<Self> {
        let mut names = HashMap::from([(PathBuf::from("/"), Kind::Made)]);
        let mut private = false;
        for step in &plan.steps {
            let (path, kind) = match step {
                Step::MountRoot => {
                    private = true;
                    continue;
                }
                // Devices can be written to on a mount that is read only.
                Step::Bind {
                    source, target, access: Access { write: false, .. }, devices: false, ..
                } => (target, Kind::ReadOnly(source.clone())),
                Step::MakeDirectory { path, .. } | Step::MakeFile { path, .. } => (path, Kind::Made),
                Step::Bind { target: path, .. }
                | Step::MountOverlay { target: path, .. }
                | Step::MakeSymlink { path, .. }
                | Step::MountScratch { path, .. } => (path, Kind::Tree),
                Step::Hide { path, emptied: false } => (path, Kind::Hidden),
                Step::Hide { path, emptied: true } => (path, Kind::Emptied),
                _ => continue,
            };
            names.insert(path.clone(), kind);
        }
        private.then_some(Self(names))
    }

    /// What an absolute path without `.` and `..` is.
    #[must_use]
    pub fn look(&self, path: &Path) -> Shown {
        let mut shown = None;
        for above in path.ancestors() {
            match (self.0.get(above), &mut shown) {
                (Some(Kind::Hidden), _) => return Shown::Hidden,
                (Some(Kind::Emptied), _) if above == path => return Shown::Hidden,
                (Some(Kind::Emptied), _) => return Shown::Emptied,
                (Some(Kind::Made), _) if above != path => {}
                (Some(Kind::ReadOnly(source)), None) => {
                    let rest = path.strip_prefix(above).unwrap_or(path);
                    // Joined with nothing, a file would be asked for as a directory.
                    let source = if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) };
                    shown = Some(Shown::ReadOnly { source, tree: above.to_owned(), protected: false });
                }
                (Some(Kind::Tree), Some(Shown::ReadOnly { protected, .. })) => *protected = true,
                (Some(_), None) => shown = Some(Shown::There),
                _ => {}
            }
        }
        match shown {
            Some(shown) => shown,
            None if path.strip_prefix("/proc").is_ok_and(of_processes) => Shown::There,
            None => Shown::Not,
        }
    }
}

/// The cell's `/proc` shows processes only.
fn of_processes(rest: &Path) -> bool {
    let first = rest.iter().next().map(|name| name.to_string_lossy());
    first.is_none_or(|name| matches!(&*name, "self" | "thread-self") || name.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::step;
    use super::*;
    use crate::policy::Floor;

    #[test]
    fn the_narrowest_tree_decides_and_what_is_hidden_in_it() {
        let bind = |target: &str, write| Step::Bind {
            source: format!("/host{target}").into(),
            target: target.into(),
            kind: step::Kind::Directory,
            access: Access { write, ..Access::default() },
            devices: false,
            owner: None,
        };
        let mut steps = vec![
            Step::MountRoot,
            Step::MakeDirectory { path: "/home".into(), mode: 0o755 },
            bind("/home/w", true),
            bind("/home/w/r", false),
            bind("/data", false),
            Step::Hide { path: "/home/w/secret".into(), emptied: false },
            Step::Hide { path: "/home/w/npm".into(), emptied: true },
            Step::MakeSymlink { path: "/bin".into(), target: "usr/bin".into() },
            Step::MountScratch { path: "/tmp".into(), size: 1, inodes: 1, execute: false },
            Step::MountProc,
        ];
        let names = Names::of(&Plan { floor: Floor::Full, steps: steps.clone() }).unwrap();
        let read_only = |tree: &str, source: &str, protected| Shown::ReadOnly {
            tree: tree.into(),
            source: source.into(),
            protected,
        };
        for (path, shown) in [
            ("/", Shown::There),
            ("/home", Shown::There),
            ("/home/w/x", Shown::There),
            ("/home/w/r", read_only("/home/w/r", "/host/home/w/r", true)),
            ("/home/w/r/x", read_only("/home/w/r", "/host/home/w/r/x", true)),
            ("/data/x", read_only("/data", "/host/data/x", false)),
            ("/home/w/secret", Shown::Hidden),
            ("/home/w/secret/x", Shown::Hidden),
            ("/home/w/secrets", Shown::There),
            ("/home/w/npm", Shown::Hidden),
            ("/home/w/npm/x/y", Shown::Emptied),
            ("/home/x", Shown::Not),
            ("/bin/sh", Shown::There),
            ("/tmp/x", Shown::There),
            ("/proc/self/fd", Shown::There),
            ("/proc/1/environ", Shown::There),
            ("/proc/sys/kernel", Shown::Not),
        ] {
            assert_eq!(names.look(Path::new(path)), shown, "{path}");
        }
        steps.remove(0);
        assert!(Names::of(&Plan { floor: Floor::Landlock, steps }).is_none());
    }
}
