//! Hashes the files that a program is made of, so that a change of them is seen before they run.
//!
//! Covered is what the program has for itself: its script, the directory around it, `node_modules`, a virtual environment, the
//! user's packages. Not covered are the interpreter, the system's libraries and programs, what a profile grants for writing, and
//! what is hidden from the cell. A package in `node_modules` or `site-packages` has a hash of its own, so that a difference names it.
//!
//! Neighbours: `host::runtime` says which files these are, `lock` compares. Never: follows a link, reads a pipe or a device, or
//! asks a package manager what should be there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::lock::{Part, hash};

/// Files, directories and links of one program, at most.
const MOST_FILES: u64 = 200_000;
/// Bytes of one program, at most.
const MOST_BYTES: u64 = 4 << 30;
/// Directories in directories.
const DEEPEST: u32 = 128;
/// Of a `package.json`.
const MANIFEST: u64 = 1 << 20;

/// Why a program has no hash.
#[derive(Debug, thiserror::Error)]
pub enum Unhashed {
    /// A file or directory cannot be read.
    #[error("cannot read `{}` of the program", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// There is more than is looked at when a session starts.
    #[error("`{}` holds more than {MOST_FILES} files or {} GiB, too much to look at for each session", .0.display(), MOST_BYTES >> 30)]
    TooMuch(PathBuf),
}

#[derive(Debug, Default)]
struct Group {
    digest: Sha256,
    files: u64,
}

struct Walk<'a> {
    groups: BTreeMap<PathBuf, Group>,
    left_out: &'a [PathBuf],
    files: u64,
    bytes: u64,
}

/// The parts of a program that lies at these paths, free of links; without what is `left_out`.
///
/// # Errors
/// Something cannot be read, or there is too much of it.
pub fn parts(own: &[PathBuf], left_out: &[PathBuf]) -> Result<Vec<Part>, Unhashed> {
    let mut walk = Walk { groups: BTreeMap::new(), left_out, files: 0, bytes: 0 };
    for path in own {
        walk.visit(path, path, 0).map_err(|error| error.into_unhashed(path))?;
    }
    let part = |(path, group): (PathBuf, Group)| Part {
        version: version(&path, left_out),
        path: path.to_string_lossy().into_owned(),
        files: group.files,
        hash: hash(group.digest),
    };
    Ok(walk.groups.into_iter().map(part).collect())
}

enum Failed {
    At(PathBuf, io::Error),
    TooMuch,
}

impl Failed {
    fn into_unhashed(self, root: &Path) -> Unhashed {
        match self {
            Self::At(path, error) => Unhashed::Read(path, error),
            Self::TooMuch => Unhashed::TooMuch(root.to_path_buf()),
        }
    }
}

impl Walk<'_> {
    /// Adds a path to a group, and all that is below it to that or to groups of their own.
    fn visit(&mut self, path: &Path, group: &Path, depth: u32) -> Result<(), Failed> {
        if self.left_out.iter().any(|out| path == out) {
            return Ok(());
        }
        let at = |error| Failed::At(path.to_path_buf(), error);
        self.files += 1;
        if self.files > MOST_FILES || depth > DEEPEST {
            return Err(Failed::TooMuch);
        }
        let meta = fs::symlink_metadata(path).map_err(at)?;
        let inside = path.strip_prefix(group).unwrap_or(path).as_os_str().as_bytes();
        let executable = if meta.permissions().mode() & 0o111 == 0 { b'f' } else { b'x' };
        let (kind, content) = if meta.is_symlink() {
            (b'l', Sha256::digest(fs::read_link(path).map_err(at)?.as_os_str().as_bytes()).to_vec())
        } else if meta.is_file() {
            (executable, self.content(path).map_err(at)?.to_vec())
        } else if meta.is_dir() {
            (b'd', Vec::new())
        } else {
            (b's', Vec::new())
        };
        if self.bytes > MOST_BYTES {
            return Err(Failed::TooMuch);
        }
        let into = self.groups.entry(group.to_path_buf()).or_default();
        into.files += 1;
        into.digest.update((inside.len() as u64).to_le_bytes());
        into.digest.update(inside);
        into.digest.update([kind]);
        into.digest.update(&content);
        if !meta.is_dir() {
            return Ok(());
        }
        let entries: io::Result<Vec<PathBuf>> =
            fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut entries = entries.map_err(at)?;
        entries.sort();
        for entry in entries {
            let package = if !is_package(group) && is_package(&entry) { &entry } else { group };
            self.visit(&entry, package, depth + 1)?;
        }
        Ok(())
    }

    fn content(&mut self, path: &Path) -> io::Result<[u8; 32]> {
        let mut file = open(path)?;
        let mut digest = Sha256::new();
        let mut room = vec![0; 128 * 1024];
        loop {
            let count = file.read(&mut room)?;
            digest.update(room.get(..count).unwrap_or_default());
            self.bytes = self.bytes.saturating_add(count as u64);
            if count == 0 || self.bytes > MOST_BYTES {
                return Ok(digest.finalize().into());
            }
        }
    }
}

/// Opens a file that may have become a link or a pipe by now.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Is this the root of a package in one of these directories?
fn is_package(path: &Path) -> bool {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.as_bytes().to_vec());
    let (parent, above) = (name(path.parent()), name(path.parent().and_then(Path::parent)));
    let holds = |name: &Option<Vec<u8>>| matches!(name.as_deref(), Some(b"node_modules" | b"site-packages"));
    let own_scope = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"@"));
    holds(&parent) && !own_scope || parent.is_some_and(|name| name.starts_with(b"@")) && holds(&above)
}

/// What the package says of itself, in a file that its hash covers.
fn version(path: &Path, left_out: &[PathBuf]) -> Option<String> {
    let manifest = path.join("package.json");
    if left_out.contains(&manifest) {
        return None;
    }
    let file = open(&manifest).ok()?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let mut text = String::new();
    file.take(MANIFEST).read_to_string(&mut text).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(value.get("version")?.as_str()?.chars().filter(|c| !c.is_control()).take(64).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("toolcell-program-{}-{name}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            for (file, text) in [
                ("server/index.js", "main"),
                ("server/node_modules/zod/package.json", "{\"version\":\"4.1.0\"}"),
                ("server/node_modules/zod/lib/index.js", "zod"),
                ("server/node_modules/zod/node_modules/deep/index.js", "deep"),
                ("server/node_modules/@scope/a/index.js", "a"),
                ("server/node_modules/@scope/b/index.js", "b"),
                ("server/node_modules/.bin/run", "run"),
                ("server/data/file", "data"),
            ] {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            symlink("../index.js", path.join("server/data/link")).unwrap();
            Self(path)
        }

        fn parts(&self) -> Vec<Part> {
            parts(&[self.0.join("server")], &[]).unwrap()
        }

        fn changed(&self, before: &[Part]) -> Vec<String> {
            let now = self.parts();
            let names =
                |part: &Part| part.path.strip_prefix(&format!("{}/", self.0.display())).unwrap().to_owned();
            now.iter().filter(|part| !before.contains(part)).map(names).collect()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_change_of_anything_is_seen_and_names_the_package() {
        let tree = Tree::new("change");
        let before = tree.parts();
        assert_eq!(before, tree.parts());
        assert_eq!(before.len(), 5);
        assert_eq!(
            before.iter().find(|part| part.path.ends_with("zod")).unwrap().version.as_deref(),
            Some("4.1.0")
        );
        let at = |name: &str| tree.0.join("server").join(name);
        let seen = |what: &str, package: &str, change: &dyn Fn(), back: &dyn Fn()| {
            change();
            assert_eq!(tree.changed(&before), [package], "{what}");
            back();
            assert!(tree.changed(&before).is_empty(), "{what}, taken back");
        };
        let write = |name: &'static str, text: &'static str| {
            move |tree: &Tree| fs::write(tree.0.join("server").join(name), text).unwrap()
        };
        let (change, back) = (write("index.js", "mais"), write("index.js", "main"));
        seen("a byte", "server", &|| change(&tree), &|| back(&tree));
        let (change, back) =
            (write("node_modules/zod/lib/index.js", "zoe"), write("node_modules/zod/lib/index.js", "zod"));
        seen("a package's byte", "server/node_modules/zod", &|| change(&tree), &|| back(&tree));
        let (change, back) = (
            write("node_modules/zod/node_modules/deep/index.js", "x"),
            write("node_modules/zod/node_modules/deep/index.js", "deep"),
        );
        seen("a package's own package", "server/node_modules/zod", &|| change(&tree), &|| back(&tree));
        let (change, back) =
            (write("node_modules/@scope/b/index.js", "x"), write("node_modules/@scope/b/index.js", "b"));
        seen("a package with a scope", "server/node_modules/@scope/b", &|| change(&tree), &|| back(&tree));
        seen("a new file", "server", &|| fs::write(at("data/new"), "").unwrap(), &|| {
            fs::remove_file(at("data/new")).unwrap()
        });
        seen("a new directory", "server", &|| fs::create_dir(at("data/more")).unwrap(), &|| {
            fs::remove_dir(at("data/more")).unwrap()
        });
        let mode = |mode: u32| fs::set_permissions(at("index.js"), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let before = tree.parts();
        mode(0o755);
        assert_eq!(tree.changed(&before), ["server"]);
        mode(0o644);
        fs::remove_file(at("data/link")).unwrap();
        symlink("../other.js", at("data/link")).unwrap();
        assert_eq!(tree.changed(&before), ["server"], "where a link leads");
    }

    #[test]
    fn two_names_are_not_taken_for_one() {
        let tree = Tree::new("names");
        let before = tree.parts();
        fs::rename(tree.0.join("server/index.js"), tree.0.join("server/indexjs")).unwrap();
        assert_eq!(tree.changed(&before), ["server"]);
    }

    #[test]
    fn what_is_left_out_may_change() {
        let tree = Tree::new("out");
        let data = [tree.0.join("server/data")];
        let own = [tree.0.join("server")];
        let before = parts(&own, &data).unwrap();
        fs::write(tree.0.join("server/data/file"), "other").unwrap();
        assert_eq!(parts(&own, &data).unwrap(), before);
        assert_ne!(parts(&own, &[]).unwrap(), before);
    }

    #[test]
    fn a_version_is_read_from_a_file_that_the_hash_covers_and_nothing_else() {
        let tree = Tree::new("version");
        let manifest = tree.0.join("server/node_modules/zod/package.json");
        let version = |left_out: &[PathBuf]| {
            let (own, left_out) = ([tree.0.join("server")], left_out.to_vec());
            // A pipe that is waited for must fail the test, and not hold it.
            let (done, found) = std::sync::mpsc::channel();
            std::thread::spawn(move || done.send(parts(&own, &left_out).unwrap()));
            let parts = found.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits");
            parts.into_iter().find(|part| part.path.ends_with("zod")).unwrap().version
        };
        assert_eq!(version(&[]).as_deref(), Some("4.1.0"));
        assert_eq!(version(std::slice::from_ref(&manifest)), None, "it is left out");
        let elsewhere = tree.0.join("elsewhere.json");
        fs::rename(&manifest, &elsewhere).unwrap();
        symlink(&elsewhere, &manifest).unwrap();
        assert_eq!(version(&[]), None, "a link");
        fs::remove_file(&manifest).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&manifest).status().unwrap().success());
        assert_eq!(version(&[]), None, "a pipe");
    }

    #[test]
    fn a_new_package_is_a_part_of_its_own() {
        let tree = Tree::new("new");
        let before = tree.parts();
        fs::create_dir(tree.0.join("server/node_modules/evil")).unwrap();
        assert_eq!(tree.changed(&before), ["server/node_modules/evil"]);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let missing = std::env::temp_dir().join("toolcell-program-missing");
        assert!(matches!(parts(&[missing], &[]), Err(Unhashed::Read(..))));
    }
}
