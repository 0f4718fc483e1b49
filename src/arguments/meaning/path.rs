//! `path`: an absolute path that lies within given directories, wherever `..` and links lead it.
//!
//! Neighbours: `arguments::meaning`. Never: tells of a path outside whether it exists.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::{Reader, Unmeant, World, listed};

/// Bytes of a path, as the kernel has it.
const MOST: usize = 4096;

/// The directories.
#[derive(Debug)]
pub(in crate::arguments) struct Within(Vec<PathBuf>);

impl Within {
    pub(super) fn read(reader: &mut Reader<'_>, value: &Value) -> Option<Self> {
        let members = reader.table(value, &["within"])?;
        let mut roots = Vec::new();
        for (at, text) in reader.texts(members, "within")? {
            match plain(&text) {
                Ok(path) if path.components().all(|part| part != Component::ParentDir) => roots.push(path),
                Ok(_) => reader.mistake(at, "must have no `..`", None),
                Err(told) => reader.mistake(at, told, None),
            }
        }
        Some(Self(roots))
    }

    pub(super) fn judge(&self, text: &str, world: &dyn World) -> Result<(), Unmeant> {
        let path = plain(text).map_err(Unmeant::new)?;
        let outside = || {
            let shown: Vec<String> = self.0.iter().map(|root| root.display().to_string()).collect();
            let directory = lexical(&path).and_then(|path| path.parent().map(Path::to_owned));
            Unmeant {
                told: format!("must lie within {}", listed(shown.iter().map(String::as_str))),
                wider: directory.map(|directory| {
                    let mut all = shown.clone();
                    all.push(directory.display().to_string());
                    json!({"within": all})
                }),
            }
        };
        // As it reads, for who only looks at the text; and as it leads, for who opens it.
        let reads = lexical(&path).is_some_and(|path| self.0.iter().any(|root| path.starts_with(root)));
        if !reads {
            return Err(outside());
        }
        let leads = world.lands(&path).ok_or_else(outside)?;
        let roots = self.0.iter().filter_map(|root| world.lands(root));
        if roots.into_iter().any(|root| leads.starts_with(root)) { Ok(()) } else { Err(outside()) }
    }
}

/// An absolute path without control characters.
fn plain(text: &str) -> Result<PathBuf, &'static str> {
    if text.len() > MOST {
        return Err("must be a path of at most 4096 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("must be a path without control characters");
    }
    if !text.starts_with('/') {
        return Err("must be an absolute path, which begins with `/`");
    }
    Ok(PathBuf::from(text))
}

/// The path with `..` taken for the directory above in the text. `None` above the root.
fn lexical(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.file_name()?;
                out.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir | Component::Normal(_) => out.push(part),
        }
    }
    Some(out)
}
