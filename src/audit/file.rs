//! Opens the files that records go to, and refuses one that somebody else could have put there or can read.
//!
//! Neighbours: `audit::log` appends to what [`open_private`] gives; `commands::exec` fills a [`Report`].
//! Never: follows a symbolic link at the end of a path; changes a file before it is known to be the right one.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::line::to_line;
use super::record::Finished;
use crate::text::quoted_path;

/// Permission bits of a file that is made.
const MODE: u32 = 0o600;

/// Why a file for records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be opened or looked at.
    #[error("cannot open `{}`", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory for it could not be made.
    #[error("cannot make the directory `{}`", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory, a device, a FIFO, a socket.
    #[error("`{}` is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// It has another name as well, under which it may be something else.
    #[error("`{}` is hard-linked under {links} names", .path.display())]
    Linked {
        /// Which.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// It belongs to another user.
    #[error("`{}` belongs to user {owner}, not to user {expected}", .path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it has to be.
        expected: u32,
    },
    /// Other users can read or write it.
    #[error("`{}` has mode {mode:04o}: others can read or write it", .path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The report could not be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl FileError {
    /// Whether nothing is there, and nothing can be made there.
    #[must_use]
    pub fn is_no_place(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Directory { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
            ),
            Self::NotRegular(_)
            | Self::Linked { .. }
            | Self::Owner { .. }
            | Self::Mode { .. }
            | Self::Write { .. } => false,
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open { path, source } if source.kind() == io::ErrorKind::NotFound => path
                .parent()
                .map(|parent| format!("make its directory: mkdir -p -m 700 {}", quoted_path(parent))),
            Self::Open { source, .. } if source.raw_os_error() == Some(libc::ELOOP) => {
                Some("it is a symbolic link: name the file it points to".to_owned())
            }
            Self::Mode { path, .. } => Some(format!("chmod 600 {}", quoted_path(path))),
            Self::NotRegular(_) | Self::Linked { .. } | Self::Owner { .. } => {
                Some("name a file that does not exist yet; it is made with mode 0600".to_owned())
            }
            Self::Open { .. } | Self::Directory { .. } | Self::Write { .. } => None,
        }
    }
}

/// Where toolcell keeps what is its own, from `XDG_STATE_HOME` and `HOME`; `None` when neither says where. A relative
/// path in them counts as unset, as the XDG specification has it.
#[must_use]
pub fn state_directory(xdg_state_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute(xdg_state_home).or_else(|| Some(absolute(home)?.join(".local/state")))?;
    Some(state.join("toolcell"))
}

/// The name in it of the log of `run`, if nobody says otherwise.
pub const LOG: &str = "audit.jsonl";
/// The name in it of the key that signs.
pub const KEY: &str = "audit.key";

/// Makes the directories above a file, as far as they are missing, for their owner only.
///
/// # Errors
/// When one cannot be made.
pub fn make_directory_for(file: &Path) -> Result<(), FileError> {
    let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| FileError::Directory { path: directory.to_owned(), source })
}

/// Opens a log, or a copy of one, to read it.
///
/// # Errors
/// When it cannot be opened, or is not a regular file.
pub fn open_to_read(path: &Path) -> Result<File, FileError> {
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(FileError::NotRegular(path.to_owned())),
    }
}

/// Opens a file to read and to write or append to, makes it if it is missing, and checks that only `owner` can read and
/// write it.
///
/// # Errors
/// When it cannot be opened, or is not such a file.
pub fn open_private(path: &Path, owner: u32, append: bool) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    let (file, metadata) = open(options.read(true).write(true).append(append), path, owner)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode });
    }
    Ok(file)
}

/// Opens or makes a regular file of this owner. `O_NONBLOCK` means nothing for one, and keeps a FIFO that waits
/// in its place from blocking the open.
fn open(options: &mut OpenOptions, path: &Path, owner: u32) -> Result<(File, Metadata), FileError> {
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    let flags = libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = options.create(true).mode(MODE).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(FileError::NotRegular(path));
    }
    if metadata.uid() != owner {
        return Err(FileError::Owner { path, owner: metadata.uid(), expected: owner });
    }
    if metadata.nlink() != 1 {
        return Err(FileError::Linked { path, links: metadata.nlink() });
    }
    Ok((file, metadata))
}

/// The file of a report. That of `exec --report` is opened before the cell exists, so that nothing in the cell can put a
/// link in its place.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    file: File,
}

impl Report {
    /// Opens the file and empties it. `owner` is the user whose file it has to be.
    ///
    /// # Errors
    /// When it cannot be opened, or is not a plain file of this user.
    pub fn create(path: &Path, owner: u32) -> Result<Self, FileError> {
        let (file, _) = open(OpenOptions::new().write(true), path, owner)?;
        let path = path.to_owned();
        match file.set_len(0) {
            Ok(()) => Ok(Self { path, file }),
            Err(source) => Err(FileError::Write { path, source }),
        }
    }

    /// Writes the record, as one line like those of the log.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub fn write(self, record: &Finished) -> Result<(), FileError> {
        match to_line(record) {
            Ok(line) => self.write_text(&line),
            Err(error) => Err(FileError::Write { path: self.path, source: error.into() }),
        }
    }

    /// Writes a text as it is.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub fn write_text(mut self, text: &[u8]) -> Result<(), FileError> {
        self.file.write_all(text).map_err(|source| FileError::Write { path: self.path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::super::test_directory::TestDirectory;
    use super::*;

    #[test]
    fn a_log_that_is_made_is_for_its_owner_only() {
        let directory = TestDirectory::new();
        let path = directory.path.join("a/b/log");
        make_directory_for(&path).unwrap();
        let file = open_private(&path, directory.owner, true).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(directory.path.join("a")).unwrap().mode() & 0o7777, 0o700);
        open_private(&path, directory.owner, true).unwrap();
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        fs::write(&path, "").unwrap();
        for mode in [0o604, 0o602, 0o640, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = open_private(&path, directory.owner, true).unwrap_err();
            assert!(matches!(error, FileError::Mode { mode: found, .. } if found == mode));
            assert!(error.hint().unwrap().starts_with("chmod 600 '"));
        }
    }

    #[test]
    fn only_an_own_plain_file_without_another_name_is_taken() {
        let directory = TestDirectory::new();
        let at = |name: &str| directory.path.join(name);
        let refused = |path: &Path| {
            let log = open_private(path, directory.owner, true).unwrap_err();
            let report = Report::create(path, directory.owner).unwrap_err();
            assert_eq!(log.to_string(), report.to_string());
            log
        };
        fs::write(at("file"), "kept").unwrap();
        fs::set_permissions(at("file"), Permissions::from_mode(0o600)).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("missing"), at("dangling")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();

        assert!(refused(&at("link")).hint().unwrap().contains("symbolic link"));
        assert!(refused(&at("dangling")).hint().unwrap().contains("symbolic link"));
        assert!(!at("missing").exists());
        assert!(matches!(refused(&at("socket")), FileError::Open { .. }));
        assert!(matches!(refused(&directory.path), FileError::Open { .. }));
        assert!(matches!(refused(Path::new("/dev/null")), FileError::NotRegular(_)));
        assert!(refused(&at("no/such/directory")).hint().unwrap().contains("mkdir -p -m 700"));
        let stranger = open_private(&at("file"), directory.owner + 1, true).unwrap_err();
        assert!(matches!(stranger, FileError::Owner { .. }));

        fs::hard_link(at("file"), at("other-name")).unwrap();
        assert!(matches!(refused(&at("file")), FileError::Linked { links: 2, .. }));
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "kept");
    }

    #[test]
    fn a_fifo_in_the_place_of_the_file_does_not_block() {
        let directory = TestDirectory::new();
        let path = directory.path.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(open_private(&path, directory.owner, true), Err(FileError::NotRegular(_))));
        assert!(matches!(Report::create(&path, directory.owner), Err(FileError::Open { .. })));
    }

    #[test]
    fn the_default_is_in_the_state_directory() {
        let path = |xdg: Option<&str>, home: Option<&str>| {
            state_directory(xdg.map(OsStr::new), home.map(OsStr::new)).map(|path| path.display().to_string())
        };
        assert_eq!(path(Some("/s"), Some("/h")).unwrap(), "/s/toolcell");
        assert_eq!(path(None, Some("/h")).unwrap(), "/h/.local/state/toolcell");
        assert_eq!(path(Some("relative"), Some("/h")).unwrap(), "/h/.local/state/toolcell");
        assert_eq!(path(Some(""), Some("")), None);
        assert_eq!(path(None, None), None);
    }
}
