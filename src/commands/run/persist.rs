//! The directory that a server keeps from call to call: below toolcell's own, one for each server.
//!
//! Neighbours: `run` asks for it, `compose` shows it to the server's cells, `session::persist` measures it. Never: uses a directory
//! that others can write to.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::view::Seen;
use crate::plan::step::{Access, Kind, PERSIST};
use crate::policy::print::key;
use crate::session::persist::Persist;
use crate::sys::identity;

#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`, which `{server}` is to keep", path.display())]
struct Unusable {
    path: PathBuf,
    server: String,
    #[source]
    source: io::Error,
}

/// The directory of a server, made if it is not there, and how much may be in it.
pub(super) fn prepare(server: &str, quota: u64) -> Result<(Seen, Persist), Failure> {
    let directory = crate::commands::audit::state_directory().ok_or_else(|| {
        Failure::new(
            Ending::Configuration,
            "nothing says where toolcell's own directory is, which `persist` needs",
        )
        .hint(Some("name a directory of your own in `XDG_STATE_HOME`".to_owned()))
    })?;
    let path = directory.join("persist").join(server);
    let made = make(&path).map_err(|source| {
        Failure::new(
            Ending::Configuration,
            Unusable { path: path.clone(), server: server.to_owned(), source },
        )
        .hint(Some(format!(
            "it must be a directory of your own that nobody else can use: `chmod 700 {}`",
            path.display()
        )))
    })?;
    let (source, owner) = made;
    let seen = Seen {
        target: PathBuf::from(PERSIST),
        source: source.clone(),
        kind: Kind::Directory,
        access: Access { write: true, ..Access::default() },
        owner,
        data: true,
        public: false,
        why: format!("what `{server}` keeps"),
    };
    Ok((seen, Persist::new(source, format!("servers.{}", key(server)), quota)))
}

fn make(path: &Path) -> io::Result<(PathBuf, (u32, u32))> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    // A link that lies there is not followed.
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.uid() != identity::effective().0 || found.mode() & 0o077 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok((fs::canonicalize(path)?, (found.uid(), found.gid())))
}
