//! Walks a path as a process in the cell of a plan would, without a cell: binds, hidden names, links, what is there.
//!
//! Neighbours: takes a plan, gives [`Reach`] to `plan::why`, which judges it. Never: opens a file, decides.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::plan::Plan;
use crate::plan::step::{Access, Step};
use crate::sys::Errno;

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;

/// What a path is in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing of that name: neither granted nor made.
    NotShown,
    /// Covered by the plan, at this path of the cell.
    Hidden(PathBuf),
    /// Made by toolcell in the private root.
    Made,
    /// A node of the cell's `/dev`.
    Device,
    /// Within the `/proc` of the cell's own processes.
    Proc,
    /// Within the private scratch directory.
    Scratch,
    /// Shown from the host.
    Bound {
        /// Where the mount is in the cell.
        mount: PathBuf,
        /// The file on the host.
        source: PathBuf,
        /// What the mount allows.
        access: Access,
    },
    /// The host itself does not let the caller look: this is its answer.
    Unknown(Errno),
}

/// Where a path leads in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The path in the cell, every link followed as far as it is shown.
    pub path: PathBuf,
    /// What is there.
    pub place: Place,
    /// Something of that name exists there when the cell starts.
    pub exists: bool,
    /// It is a regular file with an execute bit.
    pub program: bool,
    /// A host path whose mode closes it to everybody but its owner, which the payload may not be.
    pub closed: Option<PathBuf>,
}

/// Follows an absolute path through a plan's root. `owner` is whose files the payload may use as its own.
#[must_use]
pub fn walk(plan: &Plan, path: &Path, owner: u32) -> Reach {
    let mut todo = parts(path);
    let mut reach =
        Reach { path: PathBuf::from("/"), place: Place::Made, exists: true, program: false, closed: None };
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            reach.path.pop();
            todo = parts(&reach.path).into_iter().chain(todo).collect();
            reach.path = PathBuf::from("/");
            reach.place = Place::Made;
            continue;
        }
        let next = reach.path.join(&name);
        let step = enter(plan, &reach.place, &next);
        reach.path = next;
        match step {
            Entered::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    reach.place = Place::Unknown(Errno(libc::ELOOP));
                    break;
                }
                let from = reach.path.parent().unwrap_or(Path::new("/")).join(target);
                todo = parts(&from).into_iter().chain(todo).collect();
                reach.path = PathBuf::from("/");
                reach.place = Place::Made;
            }
            Entered::At(place, metadata) => {
                let last = todo.is_empty();
                if let (Place::Bound { source, access, .. }, Some(metadata)) = (&place, &metadata) {
                    let wanted = if !last {
                        0o001
                    } else if access.write {
                        0o006
                    } else {
                        0o004
                    };
                    if metadata.uid() != owner && metadata.mode() & wanted != wanted && reach.closed.is_none()
                    {
                        reach.closed = Some(source.clone());
                    }
                }
                reach.program = metadata.as_ref().is_some_and(|m| m.is_file() && m.mode() & 0o111 != 0);
                reach.exists = metadata.is_some() || !matches!(place, Place::Bound { .. });
                reach.place = place;
            }
            Entered::Nothing(place) => {
                reach.path.extend(&todo);
                reach.exists = false;
                reach.place = match place {
                    Place::Bound { mount, source, access } => {
                        let source = todo.iter().fold(source, |source, name| source.join(name));
                        Place::Bound { mount, source, access }
                    }
                    other => other,
                };
                break;
            }
        }
    }
    reach
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

enum Entered {
    At(Place, Option<Metadata>),
    Link(PathBuf),
    Nothing(Place),
}

/// One component further: what the plan puts there, else what the place above holds.
fn enter(plan: &Plan, above: &Place, next: &Path) -> Entered {
    let mut found = None;
    // A later step covers an earlier one.
    for step in &plan.steps {
        match step {
            Step::Hide { path, .. } if path == next => {
                return Entered::Nothing(Place::Hidden(path.clone()));
            }
            Step::Bind { source, target, access, devices, .. } if target == next => {
                found = Some(if *devices {
                    Entered::At(Place::Device, None)
                } else {
                    on_host(target.clone(), source.clone(), *access, true)
                });
            }
            Step::MountOverlay { source, target, access, .. } if target == next => {
                found = Some(on_host(target.clone(), source.clone(), *access, true));
            }
            Step::MountScratch { path, .. } if path == next => {
                found = Some(Entered::At(Place::Scratch, None));
            }
            Step::MountProc if next == Path::new("/proc") => {
                found = Some(Entered::At(Place::Proc, None));
            }
            Step::MakeSymlink { path, target } if path == next => found = Some(Entered::Link(target.clone())),
            Step::MakeDirectory { path, .. } | Step::MakeFile { path, .. } if path == next => {
                found = Some(Entered::At(Place::Made, None));
            }
            _ => {}
        }
    }
    found.unwrap_or_else(|| match above {
        Place::Bound { mount, source, access } => {
            let name = next.file_name().unwrap_or_default();
            on_host(mount.clone(), source.join(name), *access, false)
        }
        Place::Scratch => Entered::Nothing(Place::Scratch),
        Place::Proc => Entered::At(Place::Proc, None),
        Place::Made | Place::Device | Place::NotShown => Entered::Nothing(Place::NotShown),
        Place::Hidden(path) => Entered::Nothing(Place::Hidden(path.clone())),
        Place::Unknown(errno) => Entered::Nothing(Place::Unknown(*errno)),
    })
}

/// What the host has; a mount's own source was resolved when the plan was made.
fn on_host(mount: PathBuf, source: PathBuf, access: Access, is_mount: bool) -> Entered {
    match fs::symlink_metadata(&source) {
        Ok(metadata) if metadata.is_symlink() && !is_mount => match fs::read_link(&source) {
            Ok(target) => Entered::Link(target),
            Err(error) => Entered::Nothing(Place::Unknown(Errno::from(error))),
        },
        Ok(metadata) => Entered::At(Place::Bound { mount, source, access }, Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Entered::Nothing(Place::Bound { mount, source, access })
        }
        Err(error) => Entered::Nothing(Place::Unknown(Errno::from(error))),
    }
}
