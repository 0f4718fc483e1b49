//! Points out arguments that name something on the host which the cell will not have.
//!
//! Neighbours: `commands` call it once the grants are known. Never: grants anything.

use std::path::{Component, Path, PathBuf};

use super::World;
use crate::arguments::percent;

/// One remark for each argument that names an existing path outside of `visible`, the paths that the cell has with all
/// that is in them.
#[must_use]
pub fn unseen_arguments(argv: &[String], visible: &[PathBuf], world: &World) -> Vec<String> {
    let roots: Vec<PathBuf> = visible
        .iter()
        .map(|path| world.files.resolve(path).map_or_else(|_missing| path.clone(), |found| found.real))
        .collect();
    let mut remarks: Vec<String> = Vec::new();
    for argument in argv.iter().skip(1) {
        for path in named(argument, world) {
            let Ok(found) = world.files.resolve(&path) else { continue };
            let kernel = ["/dev", "/proc", "/sys"].iter().any(|top| found.real.starts_with(top));
            if kernel || found.real == Path::new("/") || roots.iter().any(|root| found.real.starts_with(root))
            {
                continue;
            }
            let up = path.components().any(|part| part == Component::ParentDir);
            let shown = if up { found.real.display() } else { path.display() };
            let remark = format!(
                "`{shown}` exists on the host but not in the cell: add `--read {shown}` or `--write {shown}`"
            );
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    remarks
}

/// The absolute paths that an argument may stand for.
fn named(argument: &str, world: &World) -> Vec<PathBuf> {
    let value = argument.split_once('=').map(|(_, value)| value);
    let whole = Some(argument).filter(|text| !text.starts_with('-'));
    [whole, value]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .filter_map(|text| path_of(text, world))
        .collect()
}

fn path_of(text: &str, world: &World) -> Option<PathBuf> {
    if text.starts_with("file:") {
        return file_url(text);
    }
    // A client passes arguments without a shell, so a tilde reaches the server, and many expand it themselves.
    if let Some(rest) = text.strip_prefix("~/") {
        return Some(world.home.as_ref()?.join(rest));
    }
    if text.contains("://") {
        return None;
    }
    let joined = world.cwd.join(text);
    Some(joined.components().collect())
}

/// The path of a `file:` URL of this host.
pub(super) fn file_url(url: &str) -> Option<PathBuf> {
    percent::of_file_url(url).map(PathBuf::from)
}
