//! What a node script needs: the package that it belongs to, and the `node_modules` that its imports are looked up in.
//!
//! Neighbours: `finder` calls it for each script. Never: reads what a package declares; the directories decide.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::view::View;

const MODULES: &str = "node_modules";
/// More linked packages than a workspace has.
const MAX_LINKED: usize = 256;

/// Adds what a script at `real`, free of links, needs; false when only the file itself can be shown.
pub(super) fn want(files: &Files, view: &mut View<'_>, real: &Path) -> bool {
    if let Some(root) = modules_around(real) {
        want_modules(files, view, &root);
        return true;
    }
    let Some(directory) = real.parent() else { return false };
    let own = directory.ancestors().take_while(|above| !view.shared(above));
    let package = own.clone().find(|above| files.is_file(&above.join("package.json")));
    let root = package.unwrap_or(directory);
    let why =
        if package.is_some() { "package that the script belongs to" } else { "directory of the script" };
    let above: Vec<PathBuf> =
        root.ancestors().take_while(|above| !view.shared(above)).map(|a| a.join(MODULES)).collect();
    let shown = view.want_source(root, why).is_some();
    for modules in above.into_iter().filter(|modules| files.is_dir(modules)) {
        want_modules(files, view, &modules);
    }
    shown
}

/// Adds the `node_modules` in which a package named on the command line is found from `directory`.
pub(super) fn want_package(files: &Files, view: &mut View<'_>, directory: &Path, name: &str) -> bool {
    let found = directory.ancestors().map(|above| above.join(MODULES)).find(|modules| {
        name.split('/').all(|part| !part.is_empty() && part != "..")
            && files.is_dir(&modules.join(package_part(name)))
    });
    if let Some(modules) = &found {
        want_modules(files, view, modules);
    }
    found.is_some()
}

/// `@scope/name` of `@scope/name/file`, `name` of `name/file`.
fn package_part(name: &str) -> PathBuf {
    name.split('/').take(if name.starts_with('@') { 2 } else { 1 }).collect()
}

/// The outermost `node_modules` that a path lies in.
pub(super) fn modules_around(real: &Path) -> Option<PathBuf> {
    real.ancestors()
        .filter(|above| above.file_name() == Some(OsStr::new(MODULES)))
        .last()
        .map(Path::to_path_buf)
}

/// The package of the outermost `node_modules` that a path lies in.
pub(super) fn package_around(real: &Path) -> Option<PathBuf> {
    let modules = modules_around(real)?;
    let inside = real.strip_prefix(&modules).ok()?.to_str()?;
    Some(modules.join(package_part(inside)))
}

/// Adds a `node_modules`, and the packages that are only links in it (workspaces, `npm link`).
fn want_modules(files: &Files, view: &mut View<'_>, modules: &Path) {
    let Some(root) = view.want(modules, "packages that the script imports") else { return };
    let mut linked = 0;
    let mut scopes = vec![root.clone()];
    while let Some(directory) = scopes.pop() {
        for (name, link) in files.entries(&directory) {
            let path = directory.join(&name);
            if name.as_encoded_bytes().starts_with(b"@") && directory == root {
                scopes.push(path);
                continue;
            }
            if linked >= MAX_LINKED || !link {
                continue;
            }
            let Ok(found) = files.resolve(&path) else { continue };
            if found.real.starts_with(&root) || !found.meta.is_dir() {
                continue;
            }
            linked += 1;
            let target = modules_around(&found.real);
            match target {
                Some(other) => view.want(&other, "packages that a linked package imports"),
                None => view.want_source(&path, "package that is linked into `node_modules`"),
            };
        }
    }
}
