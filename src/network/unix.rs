//! Doors to sockets of the host's that have a path: one end of a pair is in the cell, the other comes here when a program connects it.
//!
//! ```text
//! program in the cell ── end of a pair ──► here ── path, component by component ──a socket──► connect ──► relay
//!                                                       └──a link, another kind, a place that anybody can take──► refused
//! ```
//!
//! Neighbours: `watch::sockets` hands the ends in, `keep` calls this. Never: follows a link, connects to another file than the one it
//! looked at, or passes on descriptors: bytes are read, and what came with them is closed by the kernel.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::carry::End;
use super::keep::{Cell, PATIENCE};
use super::{Event, refused, relay};
use crate::outcome::{ClosedBy, Connection, Violation};
use crate::sys::{Errno, descriptor, identity};

/// How long is waited before a socket whose queue is full is tried again.
const FULL: Duration = Duration::from_millis(10);

/// Why a socket is not connected to.
#[derive(Debug, PartialEq, Eq)]
enum Barred {
    /// Nothing listens there, or it may not be reached.
    Nobody,
    /// It could be somebody else's.
    Wrong(&'static str),
}

impl Cell {
    /// A program has connected an end of a pair to this door.
    pub(super) async fn serve_socket(&self, nth: usize, inner: UnixStream) {
        let Some(path) = self.doors.network.unix.get(nth).map(|socket| socket.path.clone()) else { return };
        let began = Instant::now();
        let opened = tokio::select! {
            opened = connect(&path) => Some(opened),
            () = self.ended() => None,
        };
        let mut connection = Connection {
            to: path.clone(),
            address: None,
            up: 0,
            down: 0,
            duration_us: 0,
            closed_by: ClosedBy::Unreachable,
        };
        match opened {
            Some(Ok(outer)) => {
                let passed = relay::pass(self, End::Unix(inner), End::Unix(outer), Vec::new()).await;
                connection.up = passed.up;
                connection.down = passed.down;
                connection.closed_by = passed.closed_by;
                if let Some(violation) = passed.violation {
                    self.refuse(violation).await;
                }
            }
            None => connection.closed_by = ClosedBy::End,
            Some(Err(Barred::Nobody)) => drop(inner),
            Some(Err(Barred::Wrong(why))) => {
                let rule = format!("`allow-unix` in `[network]`: {why}");
                self.refuse(Violation { ..refused("connect", path, rule) }).await;
                return drop(inner);
            }
        }
        connection.duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tell(&Event::Closed(connection)).await;
    }
}

/// Looks at what is there now, and connects to just that.
async fn connect(path: &str) -> Result<UnixStream, Barred> {
    let socket = find(path, identity::effective().0)?;
    // By the descriptor: the name may lead elsewhere by now.
    let place = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let connected = async {
        loop {
            match UnixStream::connect(&place).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep_until(Instant::now() + FULL).await
                }
                connected => return connected,
            }
        }
    };
    match timeout(PATIENCE, connected).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) | Err(_) => Err(Barred::Nobody),
    }
}

/// The socket at this path, of which nobody but root and this user decides who it is.
fn find(path: &str, user: u32) -> Result<OwnedFd, Barred> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let open = |from: Option<&OwnedFd>, name: &str| {
        let name = CString::new(name).map_err(|_nul| Barred::Nobody)?;
        let opened = match from {
            Some(from) => descriptor::open_at(from.as_fd(), &name, flags),
            None => descriptor::open_at(descriptor::working_directory(), &name, flags),
        };
        match opened {
            Ok(found) => {
                let about = File::from(found.try_clone().map_err(|_full| Barred::Nobody)?).metadata();
                Ok((found, about.map_err(|_unreadable| Barred::Nobody)?))
            }
            Err(Errno(libc::ELOOP | libc::ENOTDIR)) => Err(Barred::Wrong("a symbolic link is on the way")),
            Err(_) => Err(Barred::Nobody),
        }
    };
    let (mut place, mut about): (OwnedFd, Metadata) = open(None, "/")?;
    for name in path.split('/').skip(1) {
        if !about.is_dir() {
            return Err(Barred::Wrong(if about.is_symlink() {
                "a symbolic link is on the way"
            } else {
                "what is on the way is no directory"
            }));
        }
        let shared = about.mode() & 0o002 != 0;
        if shared && about.mode() & 0o1000 == 0 {
            return Err(Barred::Wrong("everybody can put another socket in its place"));
        }
        (place, about) = open(Some(&place), name)?;
        // What is in such a directory is moved by its owner only, but was made there by anybody.
        if shared && ![0, user].contains(&about.uid()) {
            return Err(Barred::Wrong(
                "it is another user's, in a directory in which everybody can make one",
            ));
        }
    }
    match about.file_type() {
        kind if kind.is_socket() => Ok(place),
        kind if kind.is_symlink() => Err(Barred::Wrong("it is a symbolic link")),
        _ => Err(Barred::Wrong("it is no socket")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_else_can_have_put_there_is_connected_to() {
        let user = identity::effective().0;
        let base = std::env::temp_dir().canonicalize().unwrap();
        let base = base.join(format!("toolcell-unix-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let at = |name: &str| base.join(name).to_str().unwrap().to_owned();
        let _listener = UnixListener::bind(at("s")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink(at("s"), at("link")).unwrap();
        symlink(&base, at("directory")).unwrap();
        fs::create_dir(at("open")).unwrap();
        let _other = UnixListener::bind(at("open/s")).unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        let look = |name: &str, user| find(&at(name), user).map(drop);
        assert_eq!(look("s", user), Ok(()));
        assert_eq!(look("none", user), Err(Barred::Nobody));
        assert_eq!(look("file", user), Err(Barred::Wrong("it is no socket")));
        assert_eq!(look("link", user), Err(Barred::Wrong("it is a symbolic link")));
        assert_eq!(look("directory/s", user), Err(Barred::Wrong("a symbolic link is on the way")));
        assert_eq!(look("file/s", user), Err(Barred::Wrong("what is on the way is no directory")));
        assert_eq!(look("open/s", user), Err(Barred::Wrong("everybody can put another socket in its place")));
        fs::set_permissions(at("open"), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(look("open/s", user), Ok(()));
        if user != 0 {
            let told = "it is another user's, in a directory in which everybody can make one";
            assert_eq!(look("open/s", user + 1), Err(Barred::Wrong(told)));
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
