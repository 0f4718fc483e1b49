//! How much a server keeps from call to call. It is measured when the session begins and behind each of its cells; over its bound
//! nothing of the server is run any more.
//!
//! Neighbours: [`super::call`] asks before it starts a cell, and has it measured behind. Never: removes anything; follows a link.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::outcome::{Layer, Limit, Violation};
use crate::policy::limits;
use crate::text::escape;

/// Names that are counted; who has more has too many.
const NAMES_MOST: u64 = 65_536;
/// What a name takes at least, whatever is in it.
const NAME: u64 = 1024;

/// The directory of one server.
#[derive(Debug)]
pub struct Persist {
    directory: PathBuf,
    /// Its table in the configuration.
    table: String,
    quota: u64,
    /// What was in it when it was looked at.
    held: RefCell<Result<u64, String>>,
}

impl Persist {
    /// A directory in which so many bytes may be.
    #[must_use]
    pub fn new(directory: PathBuf, table: String, quota: u64) -> Self {
        let held = RefCell::new(measure(&directory));
        Self { directory, table, quota, held }
    }

    /// Looks again, behind a cell.
    pub(super) fn look(&self) {
        *self.held.borrow_mut() = measure(&self.directory);
    }

    /// Why nothing may be started, if there is more in it than may be.
    pub(super) fn refusal(&self) -> Option<(String, Violation)> {
        let shown = escape(&self.directory.to_string_lossy()).into_owned();
        let rule = format!("`{}.persist`", self.table);
        let print = |bytes| limits::print(Limit::Scratch, bytes);
        let (why, held) = match &*self.held.borrow() {
            Ok(held) if *held <= self.quota => return None,
            Ok(held) => (
                format!("it keeps {} in `{shown}`, and may keep {}", print(*held), print(self.quota)),
                Some(*held),
            ),
            Err(why) => (format!("what it keeps in `{shown}` cannot be measured: {why}"), None),
        };
        let more = held.and_then(|held| held.checked_next_power_of_two());
        let allow = more.map(|more| format!("[{}]\npersist = \"{}\"", self.table, print(more)));
        let mut detail = format!("nothing of this server is run: {why}; remove something there");
        if let Some(allow) = &allow {
            detail = format!("{detail}, or allow more:\n{allow}");
        }
        let violation = Violation {
            object: shown,
            value: Some(self.quota),
            peak: held,
            allow,
            ..Violation::of_toolcell(Layer::Root, "persist", rule)
        };
        Some((detail, violation))
    }
}

/// Bytes on the disk, of files and of their names.
fn measure(top: &Path) -> Result<u64, String> {
    let (mut held, mut names) = (0_u64, 0_u64);
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        let failed = |error: io::Error| format!("`{}`: {error}", escape(&directory.to_string_lossy()));
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            names += 1;
            if names > NAMES_MOST {
                return Err(format!("there are more than {NAMES_MOST} names"));
            }
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                // A cell that runs takes it away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            held = held.saturating_add(found.blocks().saturating_mul(512)).saturating_add(NAME);
            if found.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_and_names_count_and_what_a_link_leads_to_does_not() {
        let top = PathBuf::from(format!("/var/tmp/toolcell-persist-{}", std::process::id()));
        fs::create_dir_all(top.join("deep")).unwrap();
        let persist = Persist::new(top.clone(), "servers.a".to_owned(), 1 << 20);
        assert!(persist.refusal().is_none());
        symlink("/usr", top.join("link")).unwrap();
        persist.look();
        assert!(persist.refusal().is_none());
        fs::write(top.join("deep/file"), vec![b'x'; 2 << 20]).unwrap();
        assert!(persist.refusal().is_none(), "before it is looked at");
        persist.look();
        let (told, violation) = persist.refusal().unwrap();
        assert!(told.contains("and may keep 1MiB"), "{told}");
        assert_eq!(violation.allow.as_deref(), Some("[servers.a]\npersist = \"4MiB\""));
        assert_eq!((violation.value, violation.rule.as_str()), (Some(1 << 20), "`servers.a.persist`"));
        fs::remove_dir_all(&top).unwrap();
        persist.look();
        assert!(persist.refusal().unwrap().0.contains("cannot be measured"));
    }
}
