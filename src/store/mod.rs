//! What was fetched once: packages of npm and PyPI, each in a directory of its own, which is named by the hashes of all that is in it.
//!
//! ```text
//! names/HASH        which entry a package's name and version stand for, as it was typed
//! ENTRY/entry.json  what it is, written last: without it there is no entry
//! ENTRY/tree        the files, read-only
//! work-PID          what is being fetched
//! lock              held by who changes something; an entry's directory by who runs from it
//! ```
//!
//! Neighbours: `commands::install` fills it through cells; `commands::compose` runs what is in it. Never: fetches, or starts a
//! program.

mod entry;
pub mod npm;
pub mod package;
pub mod pypi;
pub mod runner;
mod seal;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use entry::{Entry, id};
pub use package::Package;
pub use seal::{Unsealed, seal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::host::program;
use crate::lock::{Part, hash};

/// What an entry's files are below.
pub const TREE: &str = "tree";
const ENTRY: &str = "entry.json";
const NAMES: &str = "names";
const LOCK: &str = "lock";
const WORK: &str = "work-";
/// What a file's name ends with until it is whole.
const FRESH: &str = ".new";
/// Of a file that toolcell wrote here.
const MOST: u64 = 64 << 20;

/// The directory that holds them.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What keeps a store from being used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of it.
    #[error("cannot use `{}` of the store", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Others could have written it.
    #[error("the store `{}` is not a directory of this user's alone", .0.display())]
    Shared(PathBuf),
    /// It is not what toolcell writes.
    #[error("`{}` of the store is not as toolcell writes it", .0.display())]
    Broken(PathBuf, #[source] serde_json::Error),
    /// Its files cannot be looked at.
    #[error("cannot look at an entry of the store")]
    Unhashed(#[from] program::Unhashed),
    /// A server runs from it.
    #[error("`{}` of the store is in use", .0.display())]
    InUse(PathBuf),
}

impl StoreError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::File(..) => "it must be in a directory of your own; name one in `XDG_DATA_HOME`".to_owned(),
            Self::Shared(path) => format!("make it yours alone: `chmod 700 {}`", path.display()),
            Self::Broken(..) | Self::Unhashed(_) => {
                "install the package again: what differs is replaced; `toolcell store gc` removes what cannot be read".to_owned()
            }
            Self::InUse(_) => "end the servers that run from it, and do it again".to_owned(),
        }
    }
}

/// What a typed name stands for.
#[derive(Debug, Serialize, Deserialize)]
struct Name {
    package: String,
    entry: String,
}

/// An entry that is in the store.
#[derive(Debug)]
pub struct Stored {
    /// Its directory's name.
    pub id: String,
    /// Where its files are.
    pub tree: PathBuf,
    /// What it is.
    pub entry: Entry,
}

impl Stored {
    /// The path of one of its programs; without a name that of the package's own.
    #[must_use]
    pub fn program(&self, name: Option<&str>) -> Option<PathBuf> {
        let name = name.or(self.entry.main.as_deref())?;
        self.entry.programs.get(name).map(|path| self.tree.join(path))
    }

    /// Are its files what was installed?
    #[must_use]
    pub fn is_as_installed(&self) -> bool {
        Store::verify(self).is_ok_and(|found| found == Verified::Same)
    }

    /// Variables for its programs.
    #[must_use]
    pub fn environment(&self) -> Option<(String, String)> {
        let compiled = self.tree.join(npm::COMPILED);
        compiled.is_dir().then(|| (npm::COMPILE_CACHE.to_owned(), compiled.to_string_lossy().into_owned()))
    }
}

/// Keeps an entry in the store, as long as it lives.
#[derive(Debug)]
pub struct Hold {
    _directory: File,
}

/// An entry among the others.
#[derive(Debug)]
pub struct Listed {
    /// What it is.
    pub stored: Stored,
    /// The packages, as they were typed, that it stands for.
    pub packages: Vec<String>,
    /// When one of them was last asked for.
    pub used: Option<SystemTime>,
}

/// How an entry is found to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Verified {
    /// As it was installed.
    Same,
    /// These parts of it are not, by their paths.
    Differs(Vec<String>),
}

/// What a collection took away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries.
    pub entries: Vec<String>,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
    /// Entries that would have gone, if no server ran from them.
    pub in_use: Vec<String>,
}

impl Store {
    /// The store below a directory for data (`XDG_DATA_HOME`), which need not exist.
    #[must_use]
    pub fn at(data: &Path) -> Self {
        Self { root: data.join("toolcell/store") }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes what is missing of it, and keeps other processes from changing it as long as the result lives. `waits` is told that
    /// one of them does so now.
    ///
    /// # Errors
    /// It is not this user's alone, or cannot be made.
    pub fn lock(&self, owner: u32, waits: impl FnOnce()) -> Result<Locked<'_>, StoreError> {
        let names = self.root.join(NAMES);
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |error| StoreError::File(path, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&names).map_err(at(&names))?;
        self.is_own(owner)?;
        let path = self.root.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(at(&path))?;
        if let Err(error) = file.try_lock() {
            if matches!(error, TryLockError::WouldBlock) {
                waits();
            }
            file.lock().map_err(at(&path))?;
        }
        Ok(Locked { store: self, _file: file })
    }

    fn is_own(&self, owner: u32) -> Result<(), StoreError> {
        let found =
            fs::symlink_metadata(&self.root).map_err(|error| StoreError::File(self.root.clone(), error))?;
        let own = found.is_dir() && found.uid() == owner && found.mode() & 0o077 == 0;
        if own { Ok(()) } else { Err(StoreError::Shared(self.root.clone())) }
    }

    /// What stands for a package, and stays as long as it is held.
    ///
    /// # Errors
    /// The store is not this user's alone, or broken.
    pub fn find(&self, package: &Package, owner: u32) -> Result<Option<(Stored, Hold)>, StoreError> {
        let path = self.name(package);
        let Some(name): Option<Name> = read(&path)? else { return Ok(None) };
        self.is_own(owner)?;
        let Some(hold) = self.claim(&name.entry, File::try_lock_shared)? else { return Ok(None) };
        let Some(stored) = self.stored(&name.entry)? else { return Ok(None) };
        // When it was last asked for is what the collection goes by.
        let file = File::open(&path).map_err(|error| StoreError::File(path.clone(), error))?;
        file.set_modified(SystemTime::now()).map_err(|error| StoreError::File(path, error))?;
        Ok(Some((stored, hold)))
    }

    /// Locks an entry's directory; `None`: it is not there, or others have it.
    fn claim(
        &self,
        id: &str,
        lock: impl FnOnce(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Hold>, StoreError> {
        let path = self.root.join(id);
        let at = |error| StoreError::File(path.clone(), error);
        let options = libc::O_NOFOLLOW | libc::O_DIRECTORY;
        let directory = match OpenOptions::new().read(true).custom_flags(options).open(&path) {
            Err(error) if is_nothing(&error) => return Ok(None),
            directory => directory.map_err(at)?,
        };
        match lock(&directory) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(at(error)),
        }
        // Until then another process could have removed it, and made it anew.
        let locked = directory.metadata().map_err(at)?;
        let same = fs::symlink_metadata(&path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino()));
        Ok(same.then_some(Hold { _directory: directory }))
    }

    fn name(&self, package: &Package) -> PathBuf {
        self.root.join(NAMES).join(hash(Sha256::new_with_prefix(package.to_string())).replace(':', "-"))
    }

    /// Can it be read that this is a whole entry?
    fn is_whole(&self, id: &str) -> Result<bool, StoreError> {
        match self.stored(id) {
            Err(StoreError::Broken(..)) => Ok(false),
            stored => stored.map(|stored| stored.is_some()),
        }
    }

    /// An entry by its directory's name.
    ///
    /// # Errors
    /// It is broken.
    pub fn stored(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let directory = self.root.join(id);
        let entry = read(&directory.join(ENTRY))?;
        Ok(entry.map(|entry| Stored { id: id.to_owned(), tree: directory.join(TREE), entry }))
    }

    /// The entry that a path lies in.
    ///
    /// # Errors
    /// It is broken.
    pub fn around(&self, path: &Path) -> Result<Option<Stored>, StoreError> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_missing| path.to_path_buf());
        let (root, path) = (real(&self.root), real(path));
        let id = path.strip_prefix(root).ok().and_then(|below| below.iter().next()?.to_str());
        id.map_or(Ok(None), |id| self.stored(id))
    }

    /// Every entry.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let names = self.names()?;
        let mut list = Vec::new();
        for id in self.directories()? {
            let Some(stored) = self.stored(&id)? else { continue };
            let mine = || names.iter().filter(|(_, name, _)| name.entry == id);
            let packages = mine().map(|(_, name, _)| name.package.clone()).collect();
            list.push(Listed { stored, packages, used: mine().map(|(_, _, used)| *used).max() });
        }
        Ok(list)
    }

    /// Of entries, and of what is half done.
    fn directories(&self) -> Result<Vec<String>, StoreError> {
        let is_directory =
            |name: &String| fs::symlink_metadata(self.root.join(name)).is_ok_and(|found| found.is_dir());
        Ok(entries(&self.root)?.into_iter().filter(|name| name != NAMES && is_directory(name)).collect())
    }

    fn names(&self) -> Result<Vec<(PathBuf, Name, SystemTime)>, StoreError> {
        let directory = self.root.join(NAMES);
        let mut names = Vec::new();
        for file in entries(&directory)?.into_iter().filter(|file| !file.ends_with(FRESH)) {
            let path = directory.join(file);
            let name = match read::<Name>(&path) {
                Err(StoreError::Broken(..)) => None,
                name => name?,
            };
            let Some(name) = name else { continue };
            let used = fs::symlink_metadata(&path).and_then(|found| found.modified());
            names.push((path.clone(), name, used.map_err(|error| StoreError::File(path, error))?));
        }
        Ok(names)
    }

    /// Compares an entry's files with what was installed.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn verify(stored: &Stored) -> Result<Verified, StoreError> {
        let now = parts(&stored.tree, &stored.tree)?;
        let was = &stored.entry.parts;
        let other = now.iter().filter(|part| !was.contains(part)).map(|part| part.path.clone());
        let gone = was
            .iter()
            .filter(|part| !now.iter().any(|now| now.path == part.path))
            .map(|part| part.path.clone());
        let mut differs: Vec<String> = other.chain(gone).collect();
        differs.sort();
        Ok(if differs.is_empty() { Verified::Same } else { Verified::Differs(differs) })
    }
}

/// The hashes of files of an entry, by paths below its tree.
///
/// # Errors
/// They cannot be read.
pub fn parts(of: &Path, tree: &Path) -> Result<Vec<Part>, program::Unhashed> {
    let below = |part: Part| {
        let path = Path::new(&part.path).strip_prefix(tree).map(|path| path.to_string_lossy().into_owned());
        Part { path: path.unwrap_or(part.path), ..part }
    };
    Ok(program::parts(&[of.to_path_buf()], &[])?.into_iter().map(below).collect())
}

/// A store that nobody else changes.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    _file: File,
}

impl Locked<'_> {
    /// A directory to fetch into, empty.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn work(&self) -> Result<PathBuf, StoreError> {
        let path = self.store.root.join(format!("{WORK}{}", std::process::id()));
        remove(&path)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| StoreError::File(path.clone(), error))?;
        Ok(path)
    }

    /// Where the files of an entry go, empty.
    ///
    /// # Errors
    /// It cannot be made, or a server runs from what is there.
    pub fn place(&self, id: &str) -> Result<PathBuf, StoreError> {
        let path = self.store.root.join(id);
        let claimed = self.store.claim(id, File::try_lock)?;
        if claimed.is_none() && fs::symlink_metadata(&path).is_ok() {
            return Err(StoreError::InUse(path));
        }
        remove(&path)?;
        let tree = path.join(TREE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&tree)
            .map_err(|error| StoreError::File(tree.clone(), error))?;
        Ok(tree)
    }

    /// Says that an entry is whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(&self, id: &str, entry: &Entry) -> Result<(), StoreError> {
        write(&self.store.root.join(id).join(ENTRY), entry)
    }

    /// Lets a package's name stand for an entry.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn assign(&self, package: &Package, id: &str) -> Result<(), StoreError> {
        write(&self.store.name(package), &Name { package: package.to_string(), entry: id.to_owned() })
    }

    /// Removes a directory in the store.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        remove(path)
    }

    /// Removes what is half done or cannot be read, names that were not asked for since then, and entries that no name stands for;
    /// but nothing from which a server runs.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn collect(&self, unused: Option<Duration>) -> Result<Collected, StoreError> {
        let now = SystemTime::now();
        let old = |used: SystemTime| {
            unused.is_some_and(|unused| now.duration_since(used).is_ok_and(|since| since >= unused))
        };
        let (mut named, mut kept) = (Vec::new(), Vec::new());
        let mut collected = Collected::default();
        for (path, Name { entry, .. }, used) in self.store.names()? {
            if !self.store.is_whole(&entry)? {
                continue;
            }
            if old(used) {
                if self.store.claim(&entry, File::try_lock)?.is_some() {
                    continue;
                }
                collected.in_use.push(entry.clone());
            }
            named.push(entry);
            kept.push(path);
        }
        let names = self.store.root.join(NAMES);
        for path in
            entries(&names)?.into_iter().map(|file| names.join(file)).filter(|path| !kept.contains(path))
        {
            remove(&path)?;
        }
        let mut failed = None;
        for id in self.store.directories()?.into_iter().filter(|id| !named.contains(id)) {
            let Some(_claimed) = self.store.claim(&id, File::try_lock)? else {
                collected.in_use.push(id);
                continue;
            };
            let stored = self.store.stored(&id).unwrap_or_default();
            match remove(&self.store.root.join(&id)) {
                Ok(()) => {
                    collected.bytes += stored.map_or(0, |stored| stored.entry.bytes);
                    collected.entries.push(id);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        collected.in_use.sort();
        collected.in_use.dedup();
        failed.map_or(Ok(collected), Err)
    }
}

/// Names in a directory of toolcell's own, sorted; none where there is no directory.
fn entries(directory: &Path) -> Result<Vec<String>, StoreError> {
    let at = |error| StoreError::File(directory.to_path_buf(), error);
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        names.extend(entry.map_err(at)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StoreError> {
    match seal::text(path, MOST) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| StoreError::Broken(path.to_path_buf(), error)),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(StoreError::File(path.to_path_buf(), error)),
    }
}

/// Whole, or not at all.
fn write(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let at = |error| StoreError::File(path.to_path_buf(), error);
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(FRESH);
    let text =
        serde_json::to_vec_pretty(value).map_err(|error| StoreError::Broken(path.to_path_buf(), error))?;
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&fresh).map_err(at)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(at)?;
    fs::rename(&fresh, path).map_err(at)
}

/// With all that is below it, what makes it an entry first: half of one is none.
fn remove(path: &Path) -> Result<(), StoreError> {
    for path in [&path.join(ENTRY), path] {
        if let Err(error) = seal::remove(path)
            && fs::symlink_metadata(path).is_ok()
        {
            return Err(StoreError::File(path.to_path_buf(), error));
        }
    }
    Ok(())
}

/// There is no such file, and there cannot be one.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

#[cfg(test)]
mod tests;
