//! The launcher's side of ports of a cell that this host can reach: sockets that listen on the host, made before the cell is.
//!
//! Init is a copy of the launcher and hands them over, with sockets of the cell's own by which each connection goes on
//! (`launch::doors`). Here they are closed as soon as init is there.
//!
//! Neighbours: `launch::spawn` runs the step and holds what is made. Never: listens where another host comes to; makes a socket in a
//! directory in which another user could put one in its place; takes the place of one at which somebody listens.

use std::fs::Metadata;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::outcome::Reached;
use crate::plan::step::At;
use crate::sys::{Errno, identity, process};

/// No permission for anybody but the owner.
const MASK: libc::mode_t = 0o177;

/// What listens for one cell.
#[derive(Debug, Default)]
pub struct Outside {
    sockets: Vec<OwnedFd>,
    listening: Vec<Reached>,
    /// Sockets with a path, removed when this is dropped: which file it was.
    made: Vec<(PathBuf, u64)>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        for (path, inode) in &self.made {
            if std::fs::symlink_metadata(path).is_ok_and(|now| now.ino() == *inode) {
                let _gone = std::fs::remove_file(path).is_err();
            }
        }
    }
}

impl Outside {
    /// Listens at a place, for this port of the cell.
    pub(super) fn open(&mut self, port: u16, at: &At) -> Result<(), LaunchError> {
        let failed = |object: String| move |errno| LaunchError::new("listen-outside", object, errno);
        let socket = match at {
            At::Any => bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            At::Address(address) => bind(*address),
            At::Path(path) => {
                let user = identity::effective().0;
                private(Path::new(path), user)
                    .map_err(|(why, errno)| failed(format!("{path}: {why}"))(errno))?;
                self.bind_path(path).map(|socket| (socket, path.clone()))
            }
        };
        let (socket, at) = socket.map_err(|error| failed(at.to_string())(Errno::from(error)))?;
        self.sockets.push(socket);
        self.listening.push(Reached { port, at });
        Ok(())
    }

    fn bind_path(&mut self, path: &str) -> io::Result<OwnedFd> {
        // This process has one thread.
        let before = process::umask(MASK);
        let bound = UnixListener::bind(path).or_else(|error| match is_left(path) {
            true => std::fs::remove_file(path).and_then(|()| UnixListener::bind(path)),
            false => Err(error),
        });
        process::umask(before);
        let bound = bound?;
        self.made.push((PathBuf::from(path), std::fs::symlink_metadata(path)?.ino()));
        Ok(bound.into())
    }

    /// Where the cell is reached.
    #[must_use]
    pub fn listening(&self) -> &[Reached] {
        &self.listening
    }

    /// The sockets, which are not this process's any more.
    pub(super) fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }
}

/// Is there a socket that was left by who was killed? It is asked of the kernel first, so that nobody who lives is connected to for
/// nothing; where that knows nothing of it, as of sockets of other network namespaces, by connecting.
fn is_left(path: &str) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let listed = |bound: Vec<u8>| {
        let bound = String::from_utf8_lossy(&bound);
        bound.lines().any(|line| line.strip_suffix(path).is_some_and(|rest| rest.ends_with(' ')))
    };
    let is_free = std::fs::read("/proc/net/unix").is_ok_and(|bound| !listed(bound));
    is_socket
        && is_free
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn bind(address: SocketAddr) -> io::Result<(OwnedFd, String)> {
    let socket = TcpListener::bind(address)?;
    let bound = socket.local_addr()?.to_string();
    Ok((socket.into(), bound))
}

/// Nobody but this user and root decides what is at a path in this directory.
fn private(path: &Path, user: u32) -> Result<(), (&'static str, Errno)> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for (nth, directory) in above.iter().enumerate() {
        let found = std::fs::symlink_metadata(directory);
        let found = found.map_err(|error| ("its directory", Errno::from(error)))?;
        judge(&found, nth == 0, user).map_err(|why| (why, Errno(libc::EPERM)))?;
    }
    Ok(())
}

fn judge(found: &Metadata, holds_it: bool, user: u32) -> Result<(), &'static str> {
    let (owner, mode) = (found.uid(), found.mode());
    if !found.is_dir() {
        return Err("what is on the way is no directory, or a symbolic link");
    }
    if holds_it && owner != user {
        return Err("its directory is not this user's");
    }
    if ![0, user].contains(&owner) {
        return Err("a directory on the way is another user's");
    }
    // In a sticky directory what is this user's or root's stays in its place.
    match mode & 0o022 != 0 && (holds_it || mode & 0o1000 == 0) {
        true => Err("other users can put something in its place"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_socket_is_made_for_this_user_alone_where_nobody_else_can_and_goes_with_the_cell() {
        let base = std::env::temp_dir().canonicalize().unwrap();
        let base = base.join(format!("toolcell-outside-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| base.join(name).to_str().unwrap().to_owned();
        let mut outside = Outside::default();
        outside.open(8080, &At::Path(at("s"))).unwrap();
        let made = fs::symlink_metadata(at("s")).unwrap();
        assert!(made.file_type().is_socket());
        assert_eq!((made.mode() & 0o777, made.uid()), (0o600, identity::effective().0));
        assert_eq!(outside.listening(), [Reached { port: 8080, at: at("s") }]);
        // What is there already is somebody's.
        let again = Outside::default().open(8080, &At::Path(at("s"))).unwrap_err();
        assert_eq!((again.errno, again.object), (Errno(libc::EADDRINUSE), at("s")));
        assert!(fs::symlink_metadata(at("s")).is_ok());
        // One at which nobody listens any more was left by who was killed.
        std::mem::take(&mut outside.made);
        drop(outside);
        assert!(fs::symlink_metadata(at("s")).is_ok());
        let mut outside = Outside::default();
        outside.open(8080, &At::Path(at("s"))).unwrap();
        UnixStream::connect(at("s")).unwrap();
        drop(outside);
        assert!(fs::symlink_metadata(at("s")).is_err());
        // One that was replaced meanwhile stays.
        let mut outside = Outside::default();
        outside.open(8080, &At::Path(at("s"))).unwrap();
        fs::rename(at("s"), at("away")).unwrap();
        fs::write(at("s"), "").unwrap();
        drop(outside);
        assert!(fs::symlink_metadata(at("s")).unwrap().is_file());
        for (name, mode) in [("open", 0o777), ("group", 0o770), ("sticky", 0o1777)] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
            let refused = Outside::default().open(1, &At::Path(at(&format!("{name}/s")))).unwrap_err();
            assert_eq!(refused.errno, Errno(libc::EPERM), "{refused}");
            assert!(refused.object.ends_with("other users can put something in its place"), "{refused}");
        }
        fs::create_dir(at("open/mine")).unwrap();
        let refused = Outside::default().open(1, &At::Path(at("open/mine/s"))).unwrap_err();
        assert!(refused.object.ends_with("other users can put something in its place"), "{refused}");
        symlink(&base, at("link")).unwrap();
        let refused = Outside::default().open(1, &At::Path(at("link/s2"))).unwrap_err();
        assert!(refused.object.contains("symbolic link"), "{refused}");
        let missing = Outside::default().open(1, &At::Path(at("none/s"))).unwrap_err();
        assert_eq!(missing.errno, Errno(libc::ENOENT));
        let user = identity::effective().0;
        assert_eq!(private(&base.join("s2"), user), Ok(()));
        let other = private(&base.join("s2"), user + 1).unwrap_err();
        assert_eq!(other.0, "its directory is not this user's");
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_port_is_on_the_loopback_and_has_one_owner() {
        let mut outside = Outside::default();
        outside.open(8080, &At::Any).unwrap();
        let at: SocketAddr = outside.listening()[0].at.parse().unwrap();
        assert!(at.ip().is_loopback() && at.port() != 0);
        let taken = Outside::default().open(8080, &At::Address(at)).unwrap_err();
        assert_eq!((taken.errno, taken.object), (Errno(libc::EADDRINUSE), at.to_string()));
        drop(outside.take());
        let mut next = Outside::default();
        next.open(8080, &At::Address(at)).unwrap();
    }
}
