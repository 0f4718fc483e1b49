//! Finds the shared libraries of a program that lie outside the system's own directories.
//!
//! Neighbours: `finder` calls it for each dynamic program; `elf` reads each object. Never: follows the system's libraries
//! any further, since the view holds those directories whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::files::Files;
use super::view::View;

/// More objects than a real program loads.
const MAX_OBJECTS: usize = 256;

/// Adds every library that the object at `real` needs; gives the names that are nowhere.
pub(super) fn want(files: &Files, view: &mut View<'_>, real: &Path, object: Elf) -> Vec<String> {
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut todo = vec![(real.to_path_buf(), object)];
    let standard = standard_places();
    let mut configured: Option<Vec<PathBuf>> = None;
    while let Some((path, object)) = todo.pop() {
        let origin = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let own: Vec<PathBuf> = object.search.iter().filter_map(|entry| expand(entry, &origin)).collect();
        for name in object.needed {
            if seen.len() >= MAX_OBJECTS || name.contains('/') {
                continue;
            }
            let in_one =
                |places: &[PathBuf]| places.iter().find_map(|place| files.resolve(&place.join(&name)).ok());
            let found = in_one(&own)
                .or_else(|| in_one(&standard))
                .or_else(|| in_one(configured.get_or_insert_with(|| configured_places(files))));
            let Some(found) = found else {
                missing.insert(name);
                continue;
            };
            if !seen.insert(found.real.clone()) || system(&found.real) {
                continue;
            }
            // The program says where to look, and the program may be hostile: only a library can be brought in so.
            let library = files
                .open(&found.real)
                .ok()
                .and_then(|file| elf::read(&|offset, length| file.at(offset, length)).ok());
            let Some(library) = library else {
                missing.insert(name);
                continue;
            };
            let directory = found.real.parent().unwrap_or(Path::new("/"));
            let beside =
                real.parent().and_then(Path::parent).is_some_and(|prefix| directory.parent() == Some(prefix));
            let whole = beside && directory.file_name().is_some_and(|n| n == "lib" || n == "lib64");
            let shown = (whole.then(|| view.want(directory, "libraries of the program"))).flatten();
            if shown.is_none() && view.want(&found.real, "library of the program").is_none() {
                missing.insert(name);
                continue;
            }
            view.want_links(&found);
            todo.push((found.real, library));
        }
    }
    missing.into_iter().collect()
}

fn system(real: &Path) -> bool {
    ["/usr", "/lib", "/lib64", "/lib32"].iter().any(|top| real.starts_with(top))
}

fn expand(entry: &str, origin: &Path) -> Option<PathBuf> {
    let origin = origin.to_str()?;
    let path = PathBuf::from(entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
    path.is_absolute().then_some(path)
}

/// Where the loader looks after the program's own list.
fn standard_places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"].map(PathBuf::from).into();
    for triple in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        places.extend(["/lib", "/usr/lib"].map(|top| Path::new(top).join(triple)));
    }
    places
}

/// Where the host's settings of the loader send it.
fn configured_places(files: &Files) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let parts = Path::new("/etc/ld.so.conf.d");
    let texts = files.names(parts).into_iter().map(|name| files.text(&parts.join(name)));
    for text in std::iter::once(files.text(Path::new("/etc/ld.so.conf"))).chain(texts) {
        places.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    places
}
