//! What npm is told, and what its lock file says.
//!
//! Neighbours: `commands::install` starts npm in a cell. Never: takes a package that is not of a registry, or a word of a package's
//! own for more than a name of what came in its archive.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::package::Package;
use super::seal;
use crate::lock::Pinned;

/// What npm reads in the directory of a tree, and what it writes there.
pub const MANIFEST: &str = "package.json";
const LOCK: &str = "package-lock.json";
/// All that a tree has of what npm has written.
pub const MODULES: &str = "node_modules";
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
    /// The same, whatever npm has made a hash of.
    #[error("`{name}` does not come from the registry, but from `{place}`")]
    Elsewhere {
        /// Of the package.
        name: String,
        /// As another package, or npm, writes it.
        place: String,
    },
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
    /// Where it differs from that of its directory.
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    dependencies: Map<String, Value>,
    #[serde(default)]
    optional_dependencies: Map<String, Value>,
    #[serde(default)]
    peer_dependencies: Map<String, Value>,
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
    /// Packages whose archives brought install scripts, and the directories that have them.
    pub scripted: BTreeMap<String, Vec<String>>,
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
    let (mut packages, mut scripted) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for (place, locked) in &lock.packages {
        let Some(below) = place.strip_prefix(MODULES).and_then(|rest| rest.strip_prefix('/')) else {
            // The directory itself. Another one beside `node_modules` would be a workspace.
            if place.is_empty() { continue } else { return Err(Untaken::NoIntegrity(place.clone())) }
        };
        let integrity = match &locked.integrity {
            Some(integrity) if !locked.link => integrity.clone(),
            None if locked.is_part() && !locked.link => String::new(),
            _ => return Err(Untaken::NoIntegrity(named(place).to_owned())),
        };
        lock.is_of_registry(place, locked)?;
        if locked.has_install_script {
            scripted.entry(lock.archive(place)).or_default().push(place.clone());
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

impl Locked {
    /// It came in the archive of the package around it.
    const fn is_part(&self) -> bool {
        self.in_bundle && self.integrity.is_none()
    }
}

impl Lock {
    /// Did npm take a package, and what that one asks for, from the registry by name and version?
    fn is_of_registry(&self, place: &str, locked: &Locked) -> Result<(), Untaken> {
        let elsewhere = |name: &str, place: &str| {
            Err(Untaken::Elsewhere { name: name.to_owned(), place: place.to_owned() })
        };
        match &locked.resolved {
            Some(address) if !address.starts_with("https://") && !address.starts_with("http://") => {
                return elsewhere(named(place), address);
            }
            _ => {}
        }
        // What came in an archive, npm did not ask anybody for.
        let there = |name: &str| {
            self.packages.iter().any(|(place, locked)| named(place) == name && !locked.is_part())
        };
        let Locked { dependencies, optional_dependencies, peer_dependencies, .. } = locked;
        let mut wanted = [dependencies, optional_dependencies, peer_dependencies].into_iter().flatten();
        match wanted.find(|(name, version)| !version.as_str().is_some_and(is_version) && there(name)) {
            Some((name, version)) => elsewhere(name, version.as_str().unwrap_or_default()),
            None => Ok(()),
        }
    }

    /// The package in whose archive a directory came, by the name that the registry has for it.
    fn archive(&self, mut place: &str) -> String {
        loop {
            let locked = self.packages.get(place);
            match place.rsplit_once("/node_modules/") {
                Some((around, _)) if locked.is_some_and(Locked::is_part) => place = around,
                _ => {
                    let name = locked.and_then(|locked| locked.name.clone());
                    return name.unwrap_or_else(|| named(place).to_owned());
                }
            }
        }
    }
}

/// The name of the directory of a package.
fn named(place: &str) -> &str {
    place.rsplit_once("node_modules/").map_or(place, |(_, name)| name)
}

/// A version, a tag or a range, also of a package of another name; not an address, a path or a repository.
fn is_version(text: &str) -> bool {
    text.starts_with("npm:") || !text.contains([':', '/'])
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
        let places = ["node_modules/@s/a/node_modules/c", "node_modules/c"].map(str::to_owned);
        assert_eq!(found.scripted, [("c".to_owned(), places.to_vec())].into());
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
    fn what_a_package_names_by_another_place_than_the_registry_is_not_taken() {
        let package: Package = "npm:@s/a".parse().unwrap();
        for (version, right) in [
            ("^1 || >=2 <3", true),
            ("npm:@s/other@^1", true),
            ("latest", true),
            ("https://a.example/c.tgz", false),
            ("git+ssh://a.example/c", false),
            ("user/c", false),
            ("file:../c", false),
            ("../c", false),
        ] {
            for kind in ["dependencies", "optionalDependencies", "peerDependencies"] {
                let asks = format!(r#""{kind}": {{ "c": "{version}", "none": "user/none" }}, "bin": {{ "a""#);
                let read = read(&LOCKED.replace(r#""bin": { "a""#, &asks), &package);
                let refused = matches!(&read, Err(Untaken::Elsewhere { name, place }) if name == "c" && place == version);
                assert_eq!((read.is_ok(), refused), (right, !right), "{version}");
            }
        }
        for (address, right) in
            [("https://a.example/c.tgz", true), ("git+ssh://a.example/c", false), ("file:../c", false)]
        {
            let resolved = format!(r#""version": "2.0.0", "resolved": "{address}","#);
            let read = read(&LOCKED.replace(r#""version": "2.0.0","#, &resolved), &package);
            assert_eq!(read.is_ok(), right, "{address}");
        }
    }

    #[test]
    fn scripts_are_of_the_package_whose_archive_they_came_in() {
        let package: Package = "npm:@s/a".parse().unwrap();
        let scripted = |from: &str, to: &str| {
            let found = read(&LOCKED.replace(from, to), &package).unwrap();
            found
                .scripted
                .into_iter()
                .map(|(name, places)| format!("{name} {}", places.join(" ")))
                .collect::<Vec<_>>()
        };
        let alias = scripted(r#""integrity": "sha512-d","#, r#""name": "d", "integrity": "sha512-d","#);
        assert_eq!(alias, ["c node_modules/c", "d node_modules/@s/a/node_modules/c"]);
        let part = scripted(r#""integrity": "sha512-d","#, r#""inBundle": true, "name": "d","#);
        assert_eq!(part, ["@s/a node_modules/@s/a/node_modules/c", "c node_modules/c"]);
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
