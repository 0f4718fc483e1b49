//! What a Python interpreter needs: its virtual environment, that one's base, the user's packages.
//!
//! Neighbours: `finder` calls it for each interpreter. Never: runs Python, or shows what a
//! package only refers to: any package can refer to any path.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::node;
use super::view::View;

/// The longest chain of links from a virtual environment's interpreter to the real one.
const MAX_HOPS: usize = 16;
/// More remarks than this are not read.
const MAX_HINTS: usize = 16;

/// Adds all that the interpreter at `path`, really at `real`, reads. Gives the user's package directory's parent
/// when the interpreter would look there, which it must be told by `PYTHONUSERBASE`.
pub(super) fn want(
    files: &Files,
    view: &mut View<'_>,
    hints: &mut Vec<String>,
    path: &Path,
    real: &Path,
    home: Option<&Path>,
) -> Option<PathBuf> {
    want_prefix(files, view, hints, real);
    if let Some(root) = environment(files, path) {
        want_environment(files, view, hints, &root);
        return None;
    }
    let base = home?.join(".local");
    let name = real.file_name()?.to_str().filter(|name| name.contains('.'))?;
    let packages = base.join("lib").join(name).join("site-packages");
    view.want(&packages, "packages that the user installed for this interpreter")?;
    hint_linked(files, view, hints, &packages);
    Some(base)
}

/// Adds a virtual environment, if the program at `path` lies in one.
pub(super) fn want_around(files: &Files, view: &mut View<'_>, hints: &mut Vec<String>, path: &Path) {
    if let Some(root) = environment(files, path) {
        want_environment(files, view, hints, &root);
    }
}

/// The virtual environment that the path, or a link on its way, lies in. A package of node has none: its author would choose by it
/// what of the host is shown.
fn environment(files: &Files, path: &Path) -> Option<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_HOPS {
        let directory = path.parent()?.to_path_buf();
        let root = [directory.parent(), Some(directory.as_path())]
            .into_iter()
            .flatten()
            .find(|root| is_environment(files, root));
        if let Some(root) = root {
            return Some(root.to_path_buf());
        }
        path = directory.join(files.link(&path)?);
    }
    None
}

fn is_environment(files: &Files, root: &Path) -> bool {
    let settings = root.join("pyvenv.cfg");
    let found = files.resolve(&settings).ok().filter(|found| found.meta.is_file());
    found.is_some_and(|found| {
        [&settings, &found.real].into_iter().all(|path| node::modules_around(path).is_none())
    })
}

fn want_environment(files: &Files, view: &mut View<'_>, hints: &mut Vec<String>, root: &Path) {
    if view.want(root, "virtual environment").is_none() {
        // Made right in a directory that is shared: its parts do as well.
        for part in ["pyvenv.cfg", "bin", "lib", "lib64"] {
            view.want(&root.join(part), "virtual environment");
        }
    }
    let configuration = files.text(&root.join("pyvenv.cfg"));
    let home = configuration.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| PathBuf::from(value.trim()))
    });
    if let Some(home) = home.filter(|home| home.is_absolute()) {
        let base =
            ["python3", "python", "pypy3"].iter().find_map(|name| files.resolve(&home.join(name)).ok());
        if let Some(found) = base {
            view.want_links(&found);
            want_prefix(files, view, hints, &found.real);
        }
    }
    for packages in site_packages(files, root) {
        hint_linked(files, view, hints, &packages);
    }
}

/// Adds the installation that an interpreter, free of links, belongs to.
fn want_prefix(files: &Files, view: &mut View<'_>, hints: &mut Vec<String>, real: &Path) {
    const WHY: &str = "installation of the Python interpreter";
    let Some(prefix) = real.parent().and_then(Path::parent) else { return };
    let libraries = prefix.join("lib");
    let own: Vec<PathBuf> = files
        .names(&libraries)
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| ["python", "pypy", "libpython"].iter().any(|start| name.starts_with(start)))
        .map(|name| libraries.join(name))
        .collect();
    if own.is_empty() || prefix.starts_with("/usr") {
        return;
    }
    if view.want_shared(prefix, WHY).is_none() {
        for path in own {
            view.want_shared(&path, WHY);
        }
    }
    for packages in site_packages(files, prefix) {
        hint_linked(files, view, hints, &packages);
    }
}

fn site_packages(files: &Files, root: &Path) -> Vec<PathBuf> {
    let libraries = root.join("lib");
    files.names(&libraries).into_iter().map(|name| libraries.join(name).join("site-packages")).collect()
}

/// Points out source directories that a package directory only refers to ("editable" installations).
fn hint_linked(files: &Files, view: &View<'_>, hints: &mut Vec<String>, packages: &Path) {
    let mut point_out = |source: &Path| {
        let Ok(found) = files.resolve(source) else { return };
        let hint = format!(
            "a package in `{}` is installed in editable form, its source is `{1}`: add `--read {1}`",
            packages.display(),
            source.display()
        );
        if !view.shows(&found.real) && hints.len() < MAX_HINTS && !hints.contains(&hint) {
            hints.push(hint);
        }
    };
    for name in files.names(packages).into_iter().filter_map(|name| name.into_string().ok()) {
        let path = packages.join(&name);
        if name.ends_with(".pth") {
            for line in files.text(&path).lines().map(str::trim).filter(|line| line.starts_with('/')) {
                point_out(Path::new(line));
            }
        } else if name.ends_with(".dist-info")
            && let Some(source) = editable_source(&files.text(&path.join("direct_url.json")))
        {
            point_out(&source);
        }
    }
}

/// The source directory that a `direct_url.json` (PEP 610) names.
fn editable_source(text: &str) -> Option<PathBuf> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("dir_info")?.get("editable")?.as_bool().filter(|editable| *editable)?;
    super::arguments::file_url(value.get("url")?.as_str()?)
}
