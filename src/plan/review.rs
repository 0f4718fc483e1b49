//! What of a cell's changes may be done to the host. Pure: what was found, in the cell's memory and on the host, comes as values.
//!
//! Neighbours: `launch::changes` finds it, and does what is allowed. Never: looks at a file, or lets a part of the changes pass
//! without the rest.

use std::path::{Path, PathBuf};

use super::why;
use crate::outcome::{Change, ChangeKind, Layer, Violation};
use crate::policy::traps;
use crate::text::{escape, is_dangerous};

/// The most names that the changes of one call can have.
pub const NAMES_MOST: usize = 4096;
/// The most directories that one can lie in.
pub const DEPTH_MOST: usize = 64;
/// The longest name of a file, with the directories above it, in bytes.
pub const PATH_MOST: usize = 1024;
/// Bits of a mode that are no permission: set-user-ID, set-group-ID, sticky.
const SPECIAL: u32 = 0o7000;
const SET_GROUP: u32 = 0o2000;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Other,
}

/// What the cell left under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What it is.
    pub kind: Kind,
    /// Its mode without the kind.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
}

/// What the host has under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    /// What it is.
    pub kind: Kind,
    /// Its mode without the kind.
    pub mode: u32,
    /// It changed after the cell was built over it.
    pub later: bool,
}

/// One name that the cell wrote, or below one that it removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Below the directory that is granted.
    pub path: PathBuf,
    /// `None`: it is gone.
    pub now: Option<Now>,
    /// `None`: the host has nothing there.
    pub was: Option<Was>,
    /// Both are alike to the last byte, as after a write of what was there.
    pub same: bool,
    /// The directory above has its set-group-ID bit on the host, so that what is made in it has it too.
    pub in_group: bool,
}

/// The rules of one directory that is granted.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'r> {
    /// The directory.
    pub grant: &'r Path,
    /// Names below it that the host would run, or that are granted with less.
    pub kept: &'r [PathBuf],
    /// Names below it that are denied.
    pub denied: &'r [PathBuf],
    /// Names below it that grants of their own leave to the tool.
    pub left: &'r [PathBuf],
}

/// Why nothing of a call's changes is done to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// What would have been done.
    pub operation: &'static str,
    /// To which path.
    pub path: PathBuf,
    /// The rule, as in a sentence that ends in "by".
    pub rule: String,
    /// The TOML that would allow it, if anything may.
    pub allow: Option<String>,
}

impl Objection {
    /// Something other than one name.
    #[must_use]
    pub fn of_all(path: &Path, rule: String, allow: Option<String>) -> Self {
        Self { operation: "change", path: path.to_owned(), rule, allow }
    }

    /// As it stands in the record.
    #[must_use]
    pub fn violation(&self) -> Violation {
        Violation {
            object: escape(&self.path.to_string_lossy()).into_owned(),
            allow: self.allow.clone(),
            ..Violation::of_toolcell(Layer::Review, self.operation, self.rule.clone())
        }
    }
}

/// What is to be done about one name; nothing where it is as it was. `has` tells which paths below the grant are directories
/// on the host.
///
/// # Errors
/// Why it may not be done.
pub fn judge(
    found: &Found,
    rules: Rules<'_>,
    has: &dyn Fn(&Path) -> bool,
) -> Result<Option<Change>, Objection> {
    let path = rules.grant.join(&found.path);
    let Some((kind, size)) = change(found).map_err(|(operation, why)| Objection {
        operation,
        path: path.clone(),
        rule: of_review(why),
        allow: None,
    })?
    else {
        return Ok(None);
    };
    let operation = match kind {
        ChangeKind::Added => "add",
        ChangeKind::Changed => "change",
        ChangeKind::Deleted => "delete",
    };
    let objection = |rule, allow| Objection { operation, path: path.clone(), rule, allow };
    // What is shown must be what is done.
    let Some(text) = path.to_str().filter(|text| !text.chars().any(is_dangerous)) else {
        return Err(objection(of_review("whose names are text that can be shown"), None));
    };
    if found.path.as_os_str().len() > PATH_MOST {
        return Err(objection(of_review("whose names have no more than 1024 bytes"), None));
    }
    let within = |names: &[PathBuf]| names.iter().find(|name| found.path.starts_with(name)).cloned();
    if let Some(denied) = within(rules.denied) {
        let denied = rules.grant.join(denied);
        return Err(objection(format!("`deny` of `{}`", escape(&denied.to_string_lossy())), None));
    }
    let kept = within(rules.kept).or_else(|| traps::on_the_way(rules.grant, &found.path, rules.left, has));
    if let Some(kept) = kept {
        let kept = rules.grant.join(kept);
        let rule = format!("the protection of `{}`", escape(&kept.to_string_lossy()));
        return Err(objection(rule, Some(why::spelled_out(&kept))));
    }
    if found.was.is_some_and(|was| was.later && was.kind != Kind::Directory) {
        return Err(objection(
            of_review("which changes nothing that the host changed since the call began"),
            None,
        ));
    }
    let directory =
        [found.now.map(|now| now.kind), found.was.map(|was| was.kind)].contains(&Some(Kind::Directory));
    let path = if directory { format!("{text}/") } else { text.to_owned() };
    Ok(Some(Change { kind, path, size }))
}

fn of_review(what: &str) -> String {
    format!("`filesystem.writes = \"review\"`, {what}")
}

type Refused = (&'static str, &'static str);

/// What kind of change it is, and the size of what is there then.
fn change(found: &Found) -> Result<Option<(ChangeKind, u64)>, Refused> {
    const NO_LINK: &str = "which makes no symbolic link";
    const NO_OTHER: &str = "which makes no device, pipe or socket";
    const NO_BITS: &str = "which sets no set-user-ID, set-group-ID or sticky bit";
    const NO_KIND: &str = "which makes no directory of a file, and no file of a directory";
    const NO_MODE: &str = "which leaves modes of directories as they are";
    let Some(now) = found.now else {
        return Ok(found.was.map(|_| (ChangeKind::Deleted, 0)));
    };
    let operation = if found.was.is_some() { "change" } else { "add" };
    let refused = |why| Err((operation, why));
    let was = found.was;
    match now.kind {
        _ if found.same => Ok(None),
        Kind::Link => refused(NO_LINK),
        Kind::Other => refused(NO_OTHER),
        Kind::File | Kind::Directory
            if was.is_some_and(|was| (was.kind == Kind::Directory) != (now.kind == Kind::Directory)) =>
        {
            refused(NO_KIND)
        }
        Kind::File if now.mode & SPECIAL != 0 => refused(NO_BITS),
        Kind::File if was.is_some() => Ok(Some((ChangeKind::Changed, now.size))),
        Kind::File => Ok(Some((ChangeKind::Added, now.size))),
        Kind::Directory => match was {
            Some(was) if was.mode == now.mode => Ok(None),
            Some(_) => refused(NO_MODE),
            // The host gives the bit itself, or does not.
            None if now.mode & SPECIAL & !SET_GROUP != 0 => refused(NO_BITS),
            None if now.mode & SET_GROUP != 0 && !found.in_group => refused(NO_BITS),
            None => Ok(Some((ChangeKind::Added, 0))),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::File, Kind::Directory, Kind::Link, Kind::Other])
    }

    fn found() -> impl Strategy<Value = Found> {
        let names =
            ["a", "b", ".VSCode", ".git", "hooks", "config", "secret", "home", "x\u{1b}", "x\u{202e}y"];
        let path = prop::collection::vec(prop::sample::select(names.to_vec()), 1..5);
        let mode = prop_oneof![0..0o1000_u32, 0..0o10000_u32];
        let now =
            (kind(), mode.clone(), any::<u64>()).prop_map(|(kind, mode, size)| Now { kind, mode, size });
        let was = (kind(), mode, any::<bool>()).prop_map(|(kind, mode, later)| Was { kind, mode, later });
        let (now, was) = (prop::option::of(now), prop::option::of(was));
        (path, now, was, prop::bool::weighted(0.1), any::<bool>()).prop_map(
            |(path, now, was, same, in_group)| {
                // Two that are alike are two.
                let same = same && now.is_some() && was.is_some();
                Found { path: path.iter().collect(), now, was, same, in_group }
            },
        )
    }

    proptest! {
        /// Whatever is found: what may be done makes or changes files and directories only, where nothing is protected.
        #[test]
        fn what_may_be_done_is_harmless(found in found(), repository in any::<bool>()) {
            let (kept, denied) = (["home/a".into()], ["secret".into()]);
            let rules = Rules { grant: Path::new("/w"), kept: &kept, denied: &denied, left: &[] };
            let has = |path: &Path| repository && path.ends_with(".git");
            let Ok(Some(change)) = judge(&found, rules, &has) else { return Ok(()) };
            prop_assert!(!found.same && (found.now.is_some() || found.was.is_some()));
            prop_assert!(!change.path.chars().any(is_dangerous));
            prop_assert!(found.was.is_none_or(|was| !was.later || was.kind == Kind::Directory));
            let parts: Vec<_> = found.path.iter().map(|part| part.to_str().unwrap()).collect();
            prop_assert!(!parts.contains(&".VSCode") && parts[0] != "secret" && !found.path.starts_with("home/a"));
            for (at, _) in parts.iter().enumerate().filter(|(_, part)| **part == ".git") {
                prop_assert!(repository && parts.get(at + 1).is_some_and(|next| !["hooks", "config"].contains(next)));
            }
            match found.now {
                None => prop_assert_eq!(change.kind, ChangeKind::Deleted),
                Some(now) => {
                    prop_assert_eq!(change.kind == ChangeKind::Added, found.was.is_none());
                    prop_assert!(matches!(now.kind, Kind::File | Kind::Directory));
                    prop_assert!(now.mode & 0o5000 == 0);
                    prop_assert!(now.mode & SET_GROUP == 0 || now.kind == Kind::Directory && found.in_group);
                    prop_assert!(found.was.is_none_or(|was| (was.kind == Kind::Directory) == (now.kind == Kind::Directory)));
                }
            }
        }
    }
}
