//! `grants` of a tool: which of its arguments say what its cell sees, and what it reaches.
//!
//! Neighbours: `policy::config` reads the rest of the file, `host::narrow` and `policy::connect` apply them to a call. Never: looks at the
//! file system.

use std::path::PathBuf;

use super::super::network::Destination;
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

/// One entry with `connect`: of the doors of its profile, a call has those to hosts in an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectGrant {
    /// Where the URL or host stands, or several.
    pub argument: Pointer,
    /// Where they may lead.
    pub within: Vec<Destination>,
}

/// All entries of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Those of paths.
    pub paths: Vec<ArgumentGrant>,
    /// Those of destinations.
    pub connect: Vec<ConnectGrant>,
}

impl Grants {
    /// Is nothing said?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.connect.is_empty()
    }
}

pub(super) fn read(file: &mut TomlFile<'_>, value: &Value<'_>) -> Grants {
    let mut grants = Grants::default();
    for item in file.items(value, "`grants`") {
        entry(file, item, &mut grants);
    }
    grants
}

/// What an argument is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Path(Use),
    Connect,
}

fn entry(file: &mut TomlFile<'_>, item: &Value<'_>, grants: &mut Grants) -> Option<()> {
    let table = file.table(item, "an item of `grants`")?;
    let (mut argument, mut access, mut within, mut largest) = (None, None, None, None);
    for (key, _, value) in file.entries(table, "an item of `grants`", KEYS) {
        match key {
            "argument" => argument = pointer(file, value),
            "access" => access = purpose(file, value),
            "within" => within = Some(value),
            _ => largest = size(file, value),
        }
    }
    for key in KEYS.iter().take(3).filter(|key| !table.contains_key(**key)) {
        file.mistake(&item.span(), &format!("an item of `grants` without `{key}`"), None);
    }
    let bounds_nothing = match access {
        Some(Purpose::Path(Use::List)) => Some(("a list", "with `\"list\"` no file is read or written")),
        Some(Purpose::Connect) => {
            Some(("a connection", "`up` and `down` of a profile's `[network]` bound bytes"))
        }
        Some(Purpose::Path(Use::Read | Use::Write)) | None => None,
    };
    if let Some((what, hint)) = bounds_nothing.filter(|_| table.contains_key("max-file-size")) {
        file.mistake(&item.span(), &format!("`max-file-size` says nothing of {what}"), Some(hint));
    }
    if access == Some(Purpose::Connect) {
        let within = within.map(|value| destinations(file, value));
        grants.connect.push(ConnectGrant { argument: argument?, within: within? });
        return Some(());
    }
    let within = within.and_then(|value| directories(file, value));
    if let Some(Purpose::Path(access)) = access {
        grants.paths.push(ArgumentGrant { argument: argument?, access, within: within?, largest });
    }
    Some(())
}

fn pointer(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Pointer> {
    let text = file.text(value, "`argument`")?;
    let pointer = Pointer::parse(text);
    if let Err(hint) = pointer {
        file.mistake(&value.span(), &format!("`{text}` is no JSON Pointer into the arguments"), Some(hint));
    }
    pointer.ok()
}

fn purpose(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Purpose> {
    match file.text(value, "`access`")? {
        "read" => Some(Purpose::Path(Use::Read)),
        "write" => Some(Purpose::Path(Use::Write)),
        "list" => Some(Purpose::Path(Use::List)),
        "connect" => Some(Purpose::Connect),
        other => {
            let hint = "write \"read\", \"write\", \"list\" or \"connect\"";
            file.mistake(&value.span(), &format!("`{other}` is no kind of access"), Some(hint));
            None
        }
    }
}

fn destinations(file: &mut TomlFile<'_>, value: &Value<'_>) -> Vec<Destination> {
    let mut found = Vec::new();
    for item in file.items(value, "`within`") {
        let Some(text) = file.text(item, "an item of `within`") else { continue };
        match text.parse::<Destination>() {
            Ok(destination) => found.push(destination),
            Err(error) => file.mistake(&item.span(), &error.to_string(), error.hint().as_deref()),
        }
    }
    found
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
