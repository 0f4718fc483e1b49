//! What an entry of the store is, and the name that follows from it.
//!
//! Neighbours: `store` keeps it beside the files. Never: looks at them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::package::Registry;
use crate::lock::{Package, Part, Pinned, hash};

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The package's name in its registry, as `npm:NAME`.
    pub name: String,
    /// The version of the package itself.
    pub version: String,
    /// Its programs, by name: paths below the tree.
    pub programs: BTreeMap<String, String>,
    /// The one that is run when none is named.
    pub main: Option<String>,
    /// The interpreter that it was made for, where there is one.
    pub interpreter: Option<String>,
    /// Packages whose install scripts, or builds, were allowed.
    pub scripts: Vec<String>,
    /// What the cells that made it could reach.
    pub reached: Vec<String>,
    /// Everything in it.
    pub packages: Vec<Pinned>,
    /// Hashes of the files as they lie there.
    pub parts: Vec<Part>,
    /// How much it holds.
    pub bytes: u64,
}

impl Entry {
    /// What a lock keeps of it beside its files.
    #[must_use]
    pub fn package(&self) -> Package {
        let Self { name, version, scripts, packages, .. } = self.clone();
        Package { name, version, scripts, packages }
    }
}

/// The name of the directory of an entry: by what the archives hold, for whom, and whose scripts ran.
#[must_use]
pub fn id(registry: Registry, interpreter: Option<&str>, scripts: &[String], packages: &[Pinned]) -> String {
    let mut packages: Vec<&Pinned> = packages.iter().collect();
    packages.sort();
    let mut digest = Sha256::new();
    let mut field = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    field(registry.name());
    field(interpreter.unwrap_or_default());
    for script in scripts {
        field(script);
    }
    for Pinned { name, version, integrity } in packages {
        field("");
        field(name);
        field(version);
        field(integrity);
    }
    // Short enough for the first line of a script (`BINPRM_BUF_SIZE`, and the 127 bytes that pip keeps to).
    hash(digest).replace("sha256:", "").chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_what_it_holds_in_whatever_order() {
        let pinned = |name: &str, integrity: &str| Pinned {
            name: name.to_owned(),
            version: "1".to_owned(),
            integrity: integrity.to_owned(),
        };
        let of = |packages: &[Pinned]| id(Registry::Npm, None, &[], packages);
        let (a, b) = (pinned("a", "sha512-x"), pinned("b", "sha512-y"));
        let both = of(&[a.clone(), b.clone()]);
        assert_eq!(both, of(&[b.clone(), a.clone()]));
        for other in [
            of(std::slice::from_ref(&a)),
            of(&[a.clone(), pinned("b", "sha512-z")]),
            id(Registry::Pypi, None, &[], &[a.clone(), b.clone()]),
            id(Registry::Npm, Some("/usr/bin/node"), &[], &[a.clone(), b.clone()]),
            id(Registry::Npm, None, &["a".to_owned()], &[a, b]),
        ] {
            assert_ne!(both, other);
        }
        assert_eq!(both.len(), 40, "{both}");
    }
}
