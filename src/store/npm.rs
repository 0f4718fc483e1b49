//! What npm is told, and what its lock file says.
//!
//! Neighbours: `commands::install` starts npm in a cell. Never: takes a package that is not of a registry, or a word of a package's
//! own for more than a name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::entry::Pinned;
use super::package::Package;
use super::seal;

/// What npm reads in the directory of a tree, and what it writes there.
pub const MANIFEST: &str = "package.json";
const LOCK: &str = "package-lock.json";
const MODULES: &str = "node_modules";
/// What Node has compiled of them, for its next start (`NODE_COMPILE_CACHE`, since Node 22.1).
pub const COMPILED: &str = "node_modules/.toolcell-compiled";
/// The variable that says where.
pub const COMPILE_CACHE: &str = "NODE_COMPILE_CACHE";
/// Of a lock file.
const MOST: u64 = 64 << 20;

/// Options under which npm fetches and starts nothing of what it fetched.
pub const INSTALL: [&str; 8] = [
    "install",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--omit=dev",
    "--install-links",
    "--loglevel=error",
];

/// Why what npm did is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// The lock file.
    #[error("cannot read what npm wrote of the packages")]
    Unread(#[source] std::io::Error),
    /// Not the form that npm 7 and newer write.
    #[error("what npm wrote of the packages has no form that toolcell knows")]
    Form(#[source] serde_json::Error),
    /// It is of a repository, a directory, an address.
    #[error("`{0}` does not come from the registry: it has no hash of its archive")]
    NoIntegrity(String),
    /// It is not there at all.
    #[error("npm did not install `{0}`")]
    Missing(String),
}

#[derive(Debug, Deserialize)]
struct Lock {
    packages: BTreeMap<String, Locked>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Locked {
    version: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    has_install_script: bool,
    #[serde(default)]
    bin: Map<String, Value>,
}

/// What an installed tree holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the package itself.
    pub version: String,
    /// Its programs and where they are below the tree.
    pub programs: BTreeMap<String, String>,
    /// The one that `npx` would run.
    pub main: Option<String>,
    /// Everything.
    pub packages: Vec<Pinned>,
    /// Packages that have install scripts.
    pub scripted: Vec<String>,
}

/// What makes npm install the packages.
#[must_use]
pub fn manifest(package: &Package) -> String {
    let wanted = package.requirements().map(|one| {
        let version = if one.version.is_empty() { "latest" } else { &one.version };
        (one.name.clone(), Value::from(version))
    });
    json!({ "private": true, "dependencies": wanted.collect::<Map<_, _>>() }).to_string()
}

/// Reads what npm did in the directory of a tree.
///
/// # Errors
/// It is not what was asked for.
pub fn found(tree: &Path, package: &Package) -> Result<Found, Untaken> {
    read(&seal::text(&tree.join(LOCK), MOST).map_err(Untaken::Unread)?, package)
}

fn read(text: &str, package: &Package) -> Result<Found, Untaken> {
    let lock: Lock = serde_json::from_str(text).map_err(Untaken::Form)?;
    let (mut packages, mut scripted) = (Vec::new(), Vec::new());
    for (place, locked) in &lock.packages {
        let Some(below) = place.strip_prefix(MODULES).and_then(|rest| rest.strip_prefix('/')) else {
            // The directory itself. Another one beside `node_modules` would be a workspace.
            if place.is_empty() { continue } else { return Err(Untaken::NoIntegrity(place.clone())) }
        };
        let name = below.rsplit_once("node_modules/").map_or(below, |(_, name)| name);
        let integrity = match &locked.integrity {
            Some(integrity) if !locked.link => integrity.clone(),
            // It came in the archive of the package around it.
            None if locked.in_bundle && !locked.link => String::new(),
            _ => return Err(Untaken::NoIntegrity(name.to_owned())),
        };
        if locked.has_install_script && !scripted.contains(&name.to_owned()) {
            scripted.push(name.to_owned());
        }
        let version = locked.version.clone().unwrap_or_default();
        packages.push(Pinned { name: below.to_owned(), version, integrity });
    }
    let mut programs = BTreeMap::new();
    for one in package.requirements() {
        let place = format!("{MODULES}/{}", one.name);
        let locked = lock.packages.get(&place).ok_or_else(|| Untaken::Missing(one.name.clone()))?;
        let names = locked.bin.keys().filter(|name| is_program(name));
        programs.extend(names.map(|name| (name.clone(), format!("{MODULES}/.bin/{name}"))));
    }
    let itself = lock.packages.get(&format!("{MODULES}/{}", package.main.name));
    let bare = package.main.name.rsplit('/').next().unwrap_or_default();
    let own: Vec<&String> = itself.iter().flat_map(|locked| locked.bin.keys()).collect();
    let main = match own.as_slice() {
        [only] => Some((*only).clone()),
        several => several.iter().find(|name| name.as_str() == bare).map(|name| (*name).clone()),
    };
    let version = itself.and_then(|locked| locked.version.clone()).unwrap_or_default();
    Ok(Found { version, main: main.filter(|name| programs.contains_key(name)), programs, packages, scripted })
}

/// A name that is one file in `node_modules/.bin`.
fn is_program(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKED: &str = r#"{ "lockfileVersion": 3, "packages": {
        "": { "dependencies": { "@s/a": "latest" } },
        "node_modules/@s/a": { "version": "1.0.0", "integrity": "sha512-a", "bin": { "a": "cli.js", "b": "b.js" } },
        "node_modules/c": { "version": "2.0.0", "integrity": "sha512-c", "hasInstallScript": true },
        "node_modules/@s/a/node_modules/c": { "version": "1.0.0", "integrity": "sha512-d", "hasInstallScript": true },
        "node_modules/c/node_modules/e": { "version": "1.0.0", "inBundle": true }
    } }"#;

    #[test]
    fn a_lock_file_says_versions_hashes_programs_and_scripts() {
        let package: Package = "npm:@s/a".parse().unwrap();
        let found = read(LOCKED, &package).unwrap();
        assert_eq!((found.version.as_str(), found.main.as_deref()), ("1.0.0", Some("a")));
        assert_eq!(found.programs["b"], "node_modules/.bin/b");
        assert_eq!(found.scripted, ["c"]);
        let pinned: Vec<String> =
            found.packages.iter().map(|p| format!("{} {} {}", p.name, p.version, p.integrity)).collect();
        assert_eq!(
            pinned,
            [
                "@s/a 1.0.0 sha512-a",
                "@s/a/node_modules/c 1.0.0 sha512-d",
                "c 2.0.0 sha512-c",
                "c/node_modules/e 1.0.0 "
            ]
        );
    }

    #[test]
    fn what_has_no_hash_or_is_not_there_is_not_taken() {
        let package: Package = "npm:@s/a".parse().unwrap();
        let without = LOCKED.replace(r#""integrity": "sha512-c", "#, "");
        assert!(matches!(read(&without, &package), Err(Untaken::NoIntegrity(name)) if name == "c"));
        let linked = LOCKED.replace(r#""version": "2.0.0", "#, r#""link": true, "#);
        assert!(matches!(read(&linked, &package), Err(Untaken::NoIntegrity(name)) if name == "c"));
        let beside = LOCKED.replace("node_modules/c\"", "../c\"");
        assert!(matches!(read(&beside, &package), Err(Untaken::NoIntegrity(name)) if name == "../c"));
        let other: Package = "npm:other".parse().unwrap();
        assert!(matches!(read(LOCKED, &other), Err(Untaken::Missing(name)) if name == "other"));
    }

    #[test]
    fn the_program_of_a_package_is_the_one_that_npx_would_run() {
        let package: Package = "npm:@s/a".parse().unwrap();
        let main = |bin: &str| {
            let text = LOCKED.replace(r#"{ "a": "cli.js", "b": "b.js" }"#, bin);
            read(&text, &package).unwrap().main
        };
        assert_eq!(main(r#"{ "x": "cli.js" }"#).as_deref(), Some("x"));
        assert_eq!(main(r#"{ "x": "cli.js", "y": "y.js" }"#), None);
        assert_eq!(main(r#"{ "../../x": "cli.js" }"#), None);
        assert_eq!(main("{}"), None);
    }
}
