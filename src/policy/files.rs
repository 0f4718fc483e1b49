//! Finds and opens profiles and the configuration: the one reader of files in this stage.
//!
//! Neighbours: `policy::resolve` and `policy::config` read the texts. Never: opens a file that someone other than
//! the operator can change, lets a profile of one's own take the place of a built-in one.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::add::{AddError, Additions};
pub use super::built_in::BUILT_IN;
use super::config::{self, Config};
use super::mistakes::{Mistakes, closest};
use super::profile::{World, is_name};
use super::resolve::resolve;
use super::syscalls::SyscallName;
use super::tokens::{self, Secret, Token};
use super::{Policy, Source, built_in};
use crate::text::quoted_path;

/// The name of a lock file beside a configuration.
pub const LOCK: &str = "toolcell.lock";
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;
/// The same of a lock file, which a program writes.
const LARGEST_LOCK: u64 = 32 << 20;

/// Why a profile or configuration cannot be used.
#[derive(Debug, Error)]
pub enum FilesError {
    /// No profile has this name.
    #[error("no profile `{name}`")]
    NoProfile {
        /// The name.
        name: String,
        /// One that may have been meant, or where profiles are looked for.
        hint: String,
    },
    /// A profile of one's own is called like a built-in one.
    #[error("`{}` has the name of a built-in profile", .0.display())]
    Shadows(PathBuf),
    /// Two files are called alike.
    #[error("profile `{name}` is there twice: `{}` and `{}`", .first.display(), .second.display())]
    Twice {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The file's name cannot be a profile's name.
    #[error("`{}` is not called like a profile", .0.display())]
    Misnamed(PathBuf),
    /// The file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else can change the file.
    #[error("`{}` can be changed by others: {why}", .path.display())]
    Unsafe {
        /// The file, or the directory it lies in.
        path: PathBuf,
        /// Owner or mode.
        why: String,
        /// The command that mends it.
        hint: String,
    },
    /// The text has mistakes.
    #[error("`{name}` cannot be used")]
    Mistakes {
        /// The profile or file.
        name: String,
        /// All of them.
        source: Mistakes,
    },
    /// An option cannot be added to the profile.
    #[error("cannot add to profile `{name}`")]
    Add {
        /// The profile.
        name: String,
        /// Why.
        source: AddError,
    },
    /// A tool could change what it is judged by.
    #[error("`write` of `{}` would let a tool change `{}`, from which its own policy is read", .grant.display(), .file.display())]
    OwnPolicy {
        /// The grant's path.
        grant: PathBuf,
        /// The file or directory.
        file: PathBuf,
    },
    /// A tool could change whom doors trust.
    #[error("`write` of `{}` would let a tool change `{}`, by which doors prove who answers", .grant.display(), .file.display())]
    Trusted {
        /// The grant's path.
        grant: PathBuf,
        /// The file of certificates.
        file: PathBuf,
    },
    /// A tool could sign requests, or let them in again.
    #[error("a tool sees `{}` and in it `{}`, with whose keys it could sign requests", .shown.display(), .file.display())]
    SigningKeys {
        /// What is granted, or needed to start the server.
        shown: PathBuf,
        /// The file of keys.
        file: PathBuf,
    },
    /// A tool could read what only some tools are given.
    #[error("a tool sees `{}` and in it `{}`, from which secret `{name}` is read", .shown.display(), .file.display())]
    SecretShown {
        /// The secret.
        name: String,
        /// What is granted, or needed to start the server.
        shown: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// A tool sees what toolcell writes of tools.
    #[error("a tool sees `{}` and in it `{}`, which toolcell writes", .shown.display(), .file.display())]
    Written {
        /// What is granted, or needed to start the server.
        shown: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// A tool could change what toolcell starts.
    #[error("`write` of `{}` would let a tool change `{}`, which toolcell starts outside of every cell", .grant.display(), .file.display())]
    Started {
        /// The grant's path.
        grant: PathBuf,
        /// The program, or a file that it is given.
        file: PathBuf,
    },
    /// A tool could have a door lead to another socket.
    #[error("`write = [\"{}\"]` ({write}) would let a tool put another socket in the place of that of `{key} = [\"{socket}\"]` ({allow})", .grant.display())]
    SocketMoved {
        /// The path that may be written to.
        grant: PathBuf,
        /// Where that line is.
        write: String,
        /// By which line it is one.
        key: &'static str,
        /// The path of the socket.
        socket: String,
        /// Where that line is.
        allow: String,
    },
    /// Others could sign requests.
    #[error("`{}` has mode {mode:04o}: others can read its signing keys", .path.display())]
    Readable {
        /// The file of keys.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FilesError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoProfile { hint, .. } | Self::Unsafe { hint, .. } => Some(hint.clone()),
            Self::Shadows(_) => Some("give the file another name, and `extends` the built-in one".to_owned()),
            Self::Twice { .. } => Some("remove or rename one of the two".to_owned()),
            Self::Misnamed(_) => Some(
                "call it NAME.toml, with a name made of `a` to `z`, `0` to `9`, `-`, `_` and `.`".to_owned(),
            ),
            Self::Add { source, .. } => source.hint(),
            Self::OwnPolicy { grant, file } | Self::Trusted { grant, file } => {
                Some(own_policy_hint(grant, file))
            }
            Self::SigningKeys { file, .. } => Some(format!(
                "move the configuration, and `{}` with it, to a directory that no server is in and no grant shows",
                file.display()
            )),
            Self::Written { file, .. } | Self::Started { file, .. } => {
                Some(format!("move `{}` to a directory that no grant shows", file.display()))
            }
            Self::SocketMoved { .. } => Some(
                "have the socket in a directory that no tool of the server may write to, or set `writes = \"review\"` in `[filesystem]`"
                    .to_owned(),
            ),
            Self::SecretShown { file, .. } => Some(format!(
                "move `{}` to a directory that no server is in and no grant shows, or `deny` the directory it is in",
                file.display()
            )),
            Self::Readable { path, .. } => Some(format!("chmod 600 {}", quoted_path(path))),
            Self::Read { source, .. } => match source.raw_os_error() {
                Some(libc::ENOENT) => Some("correct the path: there is no such file".to_owned()),
                Some(libc::EACCES) => {
                    Some("let this user read the file, and search the directories above it".to_owned())
                }
                _ => None,
            },
            Self::Mistakes { .. } => None,
        }
    }
}

/// What moves a file out of reach: only what lies directly in the granted directory can be hidden for certain,
/// because the directories between could be renamed together with what hides in them.
fn own_policy_hint(grant: &Path, file: &Path) -> String {
    let directly = file.strip_prefix(grant).ok().and_then(|rest| rest.components().next());
    match directly {
        Some(name) => format!("move it elsewhere, or write `deny = [\"{}\"]`", grant.join(name).display()),
        None => "move it elsewhere".to_owned(),
    }
}

/// The user's directory of profiles: `$XDG_CONFIG_HOME/toolcell/profiles`, or below `~/.config`.
#[must_use]
pub fn user_directory(xdg_config_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    // The XDG base directory specification has relative paths ignored.
    let base = xdg_config_home.filter(|path| path.is_absolute()).map(Path::to_path_buf);
    base.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".config")))
        .map(|base| base.join("toolcell/profiles"))
}

/// One line of `profile list`.
#[derive(Debug)]
pub struct Listed {
    /// The profile's name.
    pub name: String,
    /// Its file; `None` for a built-in one.
    pub path: Option<PathBuf>,
    /// What it resolves to, or why it does not.
    pub policy: Result<Policy, FilesError>,
}

/// Where profiles are.
#[derive(Debug, Clone)]
pub struct Library {
    uid: u32,
    config: Option<PathBuf>,
    user: Option<PathBuf>,
}

/// Does a person mean a file by this, and not the name of a profile?
#[must_use]
pub fn is_file(name_or_file: &str) -> bool {
    name_or_file.contains('/') || name_or_file.ends_with(".toml")
}

impl Library {
    /// Profiles that are built in, near the file of `--config`, and in the user's own directory. `uid` is the
    /// operator's user id.
    #[must_use]
    pub fn new(uid: u32, config: Option<&Path>, user: Option<&Path>) -> Self {
        let config = config.map(real);
        Self { uid, config, user: user.map(Path::to_path_buf) }
    }

    /// Directories that hold nothing but profiles.
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let near = self.config.as_deref().and_then(Path::parent).map(|directory| directory.join("profiles"));
        near.into_iter().chain(self.user.clone())
    }

    /// Profiles by name in those directories, and with `beside` next to the configuration file as well.
    fn files(&self, beside: bool) -> BTreeMap<String, Vec<PathBuf>> {
        let next_to = self.config.as_deref().and_then(Path::parent).filter(|_| beside).map(Path::to_path_buf);
        let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for directory in self.directories().chain(next_to) {
            // A directory that is not there, or cannot be listed, holds no profile that could be opened.
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if let Some(name) = name_of(&path)
                    && self.config.as_ref() != Some(&path)
                    && self.tokens_file().as_ref() != Some(&path)
                {
                    files.entry(name).or_default().push(path);
                }
            }
        }
        files.values_mut().for_each(|paths| paths.sort());
        files
    }

    /// The names of all profiles.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let built_in = BUILT_IN.iter().map(|(name, _)| (*name).to_owned());
        built_in.chain(self.files(true).into_keys()).collect()
    }

    /// Every built-in profile, and every one in the directories of profiles. Next to the configuration file any
    /// TOML file may lie, so what is there is found by its name only.
    #[must_use]
    pub fn list(&self, world: World<'_>, known: &dyn Fn(&str) -> SyscallName) -> Vec<Listed> {
        let built_in = BUILT_IN.iter().map(|(name, _)| ((*name).to_owned(), None));
        let own = self
            .files(false)
            .into_iter()
            .flat_map(|(name, paths)| paths.into_iter().map(move |path| (name.clone(), Some(path))));
        let listed = built_in.chain(own).map(|(name, path)| {
            let policy = match &path {
                Some(path) => self.file(path),
                None => self.find(&name),
            };
            let policy =
                policy.and_then(|source| self.resolve(&source, world, known).map(|(policy, _)| policy));
            Listed { name, path, policy }
        });
        listed.collect()
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// There is none, there are two, or it is not safe to read.
    pub fn find(&self, name: &str) -> Result<Source, FilesError> {
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        let files = self.files(true).remove(name).unwrap_or_default();
        match (built_in, files.as_slice()) {
            (Some((name, text)), []) => {
                Ok(Source { name: (*name).to_owned(), path: None, text: (*text).to_owned() })
            }
            (Some(_), [own, ..]) => Err(FilesError::Shadows(own.clone())),
            (None, [own]) => self.file(own),
            (None, [first, second, ..]) => {
                Err(FilesError::Twice { name: name.to_owned(), first: first.clone(), second: second.clone() })
            }
            (None, []) => {
                let names = self.names();
                let hint = match (closest(name, names.iter().map(String::as_str)), &self.user) {
                    (Some(meant), _) => format!("did you mean `{meant}`?"),
                    (None, Some(user)) => format!("profiles of your own lie in `{}`", user.display()),
                    (None, None) => "`toolcell profile list` names all there are".to_owned(),
                };
                Err(FilesError::NoProfile { name: name.to_owned(), hint })
            }
        }
    }

    /// The profile in a file.
    ///
    /// # Errors
    /// It is called like a built-in one, cannot be read, or is not safe to read.
    pub fn file(&self, path: &Path) -> Result<Source, FilesError> {
        let name = name_of(path).ok_or_else(|| FilesError::Misnamed(path.to_path_buf()))?;
        if BUILT_IN.iter().any(|(known, _)| *known == name) {
            return Err(FilesError::Shadows(path.to_path_buf()));
        }
        self.open(path, name, LARGEST)
    }

    /// The profile that a person means: a name, or a file when there is a slash or `.toml` in it.
    ///
    /// # Errors
    /// As [`Library::find`] and [`Library::file`].
    pub fn pick(&self, name_or_file: &str) -> Result<Source, FilesError> {
        if is_file(name_or_file) { self.file(Path::new(name_or_file)) } else { self.find(name_or_file) }
    }

    /// What a profile, by name or file, resolves to with options added.
    ///
    /// # Errors
    /// Everything that is wrong with the profile or the options; a policy that lets a tool change its own policy.
    pub fn load(
        &self,
        name_or_file: &str,
        world: World<'_>,
        known: &dyn Fn(&str) -> SyscallName,
        additions: &Additions,
    ) -> Result<Policy, FilesError> {
        let source = self.pick(name_or_file)?;
        let (policy, files) = self.resolve(&source, world, known)?;
        let policy = policy
            .with(additions)
            .map_err(|source| FilesError::Add { name: name_or_file.to_owned(), source })?;
        self.protect(&policy, files)?;
        Self::keep_sockets(std::iter::once(&policy))?;
        Ok(policy)
    }

    /// The file of `--config`.
    ///
    /// # Errors
    /// It cannot be read, is not safe to read, or has mistakes.
    pub fn config(&self) -> Result<Config, FilesError> {
        let Some(path) = &self.config else { return Ok(Config::default()) };
        let source = self.open(path, String::new(), LARGEST)?;
        config::parse(&source, &self.names())
            .map_err(|source| FilesError::Mistakes { name: path.display().to_string(), source })
    }

    /// The file of `--config`, if one was named.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Where the hashes of tokens are: beside the file of `--config`.
    #[must_use]
    pub fn tokens_file(&self) -> Option<PathBuf> {
        self.config.as_deref().and_then(Path::parent).map(|directory| directory.join("tokens.toml"))
    }

    /// The tokens; none where the file does not exist.
    ///
    /// # Errors
    /// It cannot be read, is not safe to read, or has mistakes.
    pub fn tokens(&self) -> Result<Vec<Token>, FilesError> {
        self.tokens_and_text().map(|(tokens, _text)| tokens)
    }

    /// The same with the text of the file, for a process that may not open it.
    ///
    /// # Errors
    /// As [`Library::tokens`].
    pub fn tokens_and_text(&self) -> Result<(Vec<Token>, String), FilesError> {
        let path = self.tokens_file().filter(|path| fs::symlink_metadata(path).is_ok());
        let Some(path) = path else { return Ok(Default::default()) };
        let source = self.open(&path, String::new(), LARGEST)?;
        let tokens = tokens::parse(&source)
            .map_err(|source| FilesError::Mistakes { name: path.display().to_string(), source })?;
        if tokens.iter().any(|token| matches!(token.secret, Secret::Signing(_))) {
            let metadata = fs::metadata(&path);
            let mode =
                metadata.map_err(|source| FilesError::Read { path: path.clone(), source })?.mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(FilesError::Readable { path, mode });
            }
        }
        Ok((tokens, source.text))
    }

    /// Where what was accepted of the servers is: beside the file of `--config`.
    #[must_use]
    pub fn lock_file(&self) -> Option<PathBuf> {
        self.config.as_deref().and_then(Path::parent).map(|directory| directory.join(LOCK))
    }

    /// The text of a lock file. `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not safe to read.
    pub fn lock(&self, path: &Path) -> Result<Option<String>, FilesError> {
        match fs::symlink_metadata(path) {
            // What stands in its place while a cell runs that could make it.
            Ok(found) if found.is_dir() => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(_) | Err(_) => {}
        }
        self.open(path, String::new(), LARGEST_LOCK).map(|source| Some(source.text))
    }

    /// Where the nonces of signed requests are: beside the tokens.
    #[must_use]
    pub fn nonces_file(&self) -> Option<PathBuf> {
        self.tokens_file().map(|path| path.with_file_name("nonces"))
    }

    /// Loads what a profile extends, and resolves it; with the files that were read.
    fn resolve(
        &self,
        source: &Source,
        world: World<'_>,
        known: &dyn Fn(&str) -> SyscallName,
    ) -> Result<(Policy, Vec<PathBuf>), FilesError> {
        if source.path.is_none()
            && let Some(policy) = built_in::policy(&source.name)
        {
            return Ok((policy, Vec::new()));
        }
        let mut sources: BTreeMap<String, Source> = BUILT_IN
            .iter()
            .map(|(name, text)| {
                let name = (*name).to_owned();
                (name.clone(), Source { name, path: None, text: (*text).to_owned() })
            })
            .collect();
        let mut files: Vec<PathBuf> = source.path.clone().into_iter().collect();
        // A built-in profile extends built-in ones only, and those are in `sources` already.
        let mut next = source.path.is_some().then(|| source.clone());
        while let Some(child) = next.take() {
            let (profile, _) = super::profile::read(&child, world, known);
            let Some(parent) = profile.extends.map(|extends| extends.value) else { break };
            if parent == source.name || sources.get(&parent).is_some_and(|known| known.path.is_some()) {
                break;
            }
            match self.find(&parent) {
                Ok(found) => {
                    files.extend(found.path.clone());
                    sources.insert(parent, found.clone());
                    next = Some(found);
                }
                // The one who extends it is told so, at the place where it does.
                Err(FilesError::NoProfile { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        let policy = resolve(source, &sources, world, known)
            .map_err(|mistakes| FilesError::Mistakes { name: source.name.clone(), source: mistakes })?;
        Ok((policy, files))
    }

    fn open(&self, path: &Path, name: String, most: u64) -> Result<Source, FilesError> {
        let (path, file) = self.open_safe(path)?;
        let text = read_text(file, most).map_err(|source| FilesError::Read { path: path.clone(), source })?;
        Ok(Source { name, path: Some(path), text })
    }

    /// Opens a file that nobody else can change; with its path free of links.
    ///
    /// # Errors
    /// It cannot be read, or is not safe to read.
    pub fn open_safe(&self, path: &Path) -> Result<(PathBuf, File), FilesError> {
        let failed = |source| FilesError::Read { path: path.to_path_buf(), source };
        let path = fs::canonicalize(path).map_err(failed)?;
        // Non-blocking, so that a FIFO in the file's place cannot hold the start up.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        let mut places = vec![(path.clone(), metadata)];
        if let Some(directory) = path.parent() {
            places.push((directory.to_path_buf(), fs::metadata(directory).map_err(failed)?));
        }
        self.safe(&places)?;
        Ok((path, file))
    }

    /// Refuses what others can change: a file, and the directory in which it could be replaced, which a sticky bit forbids. A group
    /// that has one member today may have more tomorrow, so that it counts as others.
    fn safe(&self, places: &[(PathBuf, fs::Metadata)]) -> Result<(), FilesError> {
        for (path, metadata) in places {
            let owner = metadata.uid();
            if owner != self.uid && owner != 0 {
                let why = format!("it belongs to user {owner}");
                let hint = format!("chown {} {}", self.uid, quoted_path(path));
                return Err(FilesError::Unsafe { path: path.clone(), why, hint });
            }
        }
        let mode = |metadata: &fs::Metadata| metadata.mode() & 0o7777;
        let open: Vec<_> = places
            .iter()
            .map(|(path, metadata)| (path, mode(metadata), metadata.is_dir() && mode(metadata) & 0o1000 != 0))
            .filter(|(_, mode, sticky)| mode & 0o022 != 0 && !sticky)
            .collect();
        let Some((path, mode, _)) = open.first() else { return Ok(()) };
        // One command for all that is in the way.
        let to_whom = match open.iter().fold(0, |bits, (_, mode, _)| bits | mode) & 0o022 {
            0o020 => "g",
            0o002 => "o",
            _ => "go",
        };
        let shown: String = open.iter().map(|(path, ..)| format!(" {}", quoted_path(path))).collect();
        let (why, hint) = (format!("its mode is {mode:04o}"), format!("chmod {to_whom}-w{shown}"));
        Err(FilesError::Unsafe { path: (*path).clone(), why, hint })
    }
}

/// The name of the profile in a file.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".toml")?;
    is_name(name).then(|| name.to_owned())
}

fn read_text(file: File, most: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("larger than {}MiB", most >> 20)));
    }
    Ok(text)
}

/// A path free of symbolic links as far as it exists, and as it is written beyond.
fn real(path: &Path) -> PathBuf {
    let mut existing = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = fs::canonicalize(&existing) {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (existing.file_name().map(ToOwned::to_owned), existing.parent().map(Path::to_path_buf)) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                existing = parent;
            }
            (_, _) => return path.to_path_buf(),
        }
    }
}
