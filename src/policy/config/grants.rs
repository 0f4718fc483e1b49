//! `grants` of a tool: which of its arguments say what its cell sees.
//!
//! Neighbours: `policy::config` reads the rest of the file, `host::narrow` applies them to a call. Never: looks at the
//! file system.

use std::path::PathBuf;

use super::super::path::{PathError, grantable, normal};
use super::super::pointer::Pointer;
use super::super::toml_file::{TomlFile, Value};
use super::super::units::parse_size;

/// The keys of an entry.
pub const KEYS: &[&str] = &["argument", "access", "within", "max-file-size"];

/// What an argument's path may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Readable.
    Read,
    /// Readable and writable.
    Write,
    /// A directory's names, and those of what is in it, without what the files hold.
    List,
}

impl Use {
    /// Its name in an entry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
        }
    }
}

/// One entry: the paths in an argument are all that a call sees of some directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentGrant {
    /// Where the path stands, or several.
    pub argument: Pointer,
    /// What for.
    pub access: Use,
    /// The directories, of which nothing else is seen.
    pub within: Vec<PathBuf>,
    /// Bytes of a file, at most.
    pub largest: Option<u64>,
}

pub(super) fn read(file: &mut TomlFile<'_>, value: &Value<'_>) -> Vec<ArgumentGrant> {
    let mut grants = Vec::new();
    for item in file.items(value, "`grants`") {
        grants.extend(entry(file, item));
    }
    grants
}

fn entry(file: &mut TomlFile<'_>, item: &Value<'_>) -> Option<ArgumentGrant> {
    let table = file.table(item, "an item of `grants`")?;
    let (mut argument, mut access, mut within, mut largest) = (None, None, None, None);
    for (key, _, value) in file.entries(table, "an item of `grants`", KEYS) {
        match key {
            "argument" => argument = pointer(file, value),
            "access" => access = purpose(file, value),
            "within" => within = directories(file, value),
            _ => largest = size(file, value),
        }
    }
    for key in KEYS.iter().take(3).filter(|key| !table.contains_key(**key)) {
        file.mistake(&item.span(), &format!("an item of `grants` without `{key}`"), None);
    }
    if access == Some(Use::List) && table.contains_key("max-file-size") {
        let hint = Some("with `\"list\"` no file is read or written");
        file.mistake(&item.span(), "`max-file-size` says nothing of a list", hint);
    }
    Some(ArgumentGrant { argument: argument?, access: access?, within: within?, largest })
}

fn pointer(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Pointer> {
    let text = file.text(value, "`argument`")?;
    let pointer = Pointer::parse(text);
    if let Err(hint) = pointer {
        file.mistake(&value.span(), &format!("`{text}` is no JSON Pointer into the arguments"), Some(hint));
    }
    pointer.ok()
}

fn purpose(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Use> {
    match file.text(value, "`access`")? {
        "read" => Some(Use::Read),
        "write" => Some(Use::Write),
        "list" => Some(Use::List),
        other => {
            let message = format!("`{other}` is no kind of access");
            let hint = match other {
                "connect" => {
                    "a cell has no network; what a URL must be is said by `url` in the tool's `arguments`"
                }
                _ => "write \"read\", \"write\" or \"list\"",
            };
            file.mistake(&value.span(), &message, Some(hint));
            None
        }
    }
}

fn directories(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for item in file.items(value, "`within`") {
        let text = file.text(item, "an item of `within`")?;
        match normal(text).and_then(|path| grantable(&path).map(|()| path)) {
            Ok(path) => paths.push(path),
            Err(error) => {
                let hint = if matches!(error, PathError::Relative(_)) {
                    Some("write the whole path; variables stand for nothing here".to_owned())
                } else {
                    error.hint()
                };
                file.mistake(&item.span(), &error.to_string(), hint.as_deref());
            }
        }
    }
    Some(paths)
}

fn size(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<u64> {
    let text = file.text(value, "`max-file-size`")?;
    let size = parse_size(text);
    if let Err(error) = &size {
        file.mistake(&value.span(), &error.to_string(), None);
    }
    size.ok()
}
