//! Makes what a package manager wrote read-only, after a look at what it is: files, directories, and links that stay inside.
//!
//! Neighbours: `store` keeps the result. Never: follows a link. No process but this one can reach the files any more.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Directories in directories.
const DEEPEST: u32 = 128;
/// Permission bits that are left.
const FILE: u32 = 0o444;
const PROGRAM: u32 = 0o555;

/// What a tree may not hold.
#[derive(Debug, thiserror::Error)]
pub enum Unsealed {
    /// A link that leads out of it.
    #[error("`{}` is a link to `{}`, outside of the package", .0.display(), .1.display())]
    Outside(PathBuf, PathBuf),
    /// A pipe, a socket, a device.
    #[error("`{}` is neither a file nor a directory nor a link", .0.display())]
    Special(PathBuf),
    /// Directories in directories without end.
    #[error("`{}` lies deeper than {DEEPEST} directories", .0.display())]
    Deep(PathBuf),
    /// A file or directory.
    #[error("cannot make `{}` read-only", .0.display())]
    File(PathBuf, #[source] io::Error),
}

/// Makes a tree read-only, and gives its bytes. `outside` are links to what is not in it that it may have, and where each leads.
///
/// # Errors
/// It holds what no package has to hold, or a mode cannot be changed.
pub fn seal(tree: &Path, outside: &[(PathBuf, PathBuf)]) -> Result<u64, Unsealed> {
    visit(tree, tree, outside, 0)
}

fn visit(tree: &Path, path: &Path, outside: &[(PathBuf, PathBuf)], depth: u32) -> Result<u64, Unsealed> {
    let at = |error| Unsealed::File(path.to_path_buf(), error);
    if depth > DEEPEST {
        return Err(Unsealed::Deep(path.to_path_buf()));
    }
    let meta = fs::symlink_metadata(path).map_err(at)?;
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(at)?;
        let known = outside.iter().any(|(link, leads)| link == path && *leads == target);
        return match known || stays(tree, path, &target) {
            true => Ok(0),
            false => Err(Unsealed::Outside(path.to_path_buf(), target)),
        };
    }
    if meta.is_file() {
        let mode = if meta.permissions().mode() & 0o111 == 0 { FILE } else { PROGRAM };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at)?;
        return Ok(meta.len());
    }
    if !meta.is_dir() {
        return Err(Unsealed::Special(path.to_path_buf()));
    }
    // What the package manager left closed to its owner can be looked into.
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(at)?;
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(at)? {
        bytes += visit(tree, &entry.map_err(at)?.path(), outside, depth + 1)?;
    }
    fs::set_permissions(path, Permissions::from_mode(PROGRAM)).map_err(at)?;
    Ok(bytes)
}

/// Does a link lead to a place within the tree? Only by its words: what a link on its way leads to is looked at for itself. A way up
/// behind a name would start where that one leads.
fn stays(tree: &Path, link: &Path, target: &Path) -> bool {
    let Some(below) = link.parent().and_then(|parent| parent.strip_prefix(tree).ok()) else { return false };
    let way_up = |part: &Component<'_>| matches!(part, Component::CurDir | Component::ParentDir);
    let up = target.components().take_while(way_up).filter(|part| *part == Component::ParentDir).count();
    up <= below.components().count()
        && target.components().skip_while(way_up).all(|part| matches!(part, Component::Normal(_)))
}

/// Removes what is at this path, and all that is below it however it is closed, and however deep: of each directory those in it are
/// moved up first.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    open(path)?;
    let mut moved = 0_u64;
    loop {
        let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        if entries.is_empty() {
            return fs::remove_dir(path);
        }
        for entry in entries {
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            open(&entry.path())?;
            for below in fs::read_dir(entry.path())? {
                let below = below?;
                if !below.file_type()?.is_dir() {
                    fs::remove_file(below.path())?;
                    continue;
                }
                open(&below.path())?;
                let free = (moved..).map(|number| (number, path.join(number.to_string())));
                let mut free = free.skip_while(|(_, free)| fs::symlink_metadata(free).is_ok());
                if let Some((number, free)) = free.next() {
                    fs::rename(below.path(), free)?;
                    moved = number + 1;
                }
            }
            fs::remove_dir(entry.path())?;
        }
    }
}

/// Lets its owner change a directory, which nothing else reaches.
fn open(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// The text of a file that is no link and not longer than this.
pub(super) fn text(path: &Path, most: u64) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let mut text = String::new();
    if file.take(most + 1).read_to_string(&mut text)? as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_within_stays_and_others_do_not() {
        let stays = |link: &str, target: &str| stays(Path::new("/t"), Path::new(link), Path::new(target));
        assert!(stays("/t/a/.bin/x", "../x/cli.js"));
        assert!(stays("/t/a/b/x", "./../../c/d"));
        for (link, target) in [
            ("/t/a/x", "../../y"),
            ("/t/x", ".."),
            ("/t/x", "/etc/passwd"),
            ("/t/x", "a/../../b"),
            ("/t/x", "a/../b"),
            ("/t/c/x", "a/.."),
            ("/u/x", "y"),
        ] {
            assert!(!stays(link, target), "{link} {target}");
        }
    }
}
