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
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream as TokioStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::carry::End;
use super::gate::Gate;
use super::keep::{Cell, PATIENCE};
use super::{Event, refused, relay};
use crate::outcome::{ClosedBy, Connection, Violation};
use crate::sys::{Errno, descriptor, identity, socket};

/// How long a socket whose queue is full is waited for before it is looked at again.
const FULL: Duration = Duration::from_millis(10);

/// Looks of all cells at once: the other threads are for names.
static AT_ONCE: Semaphore = Semaphore::const_new(16);

/// Why a socket is not connected to.
#[derive(Debug, PartialEq, Eq)]
enum Barred {
    /// Whoever listens there has a full queue.
    Full,
    /// Nothing listens there, or does not answer.
    Nobody,
    /// It could be somebody else's.
    Wrong(&'static str),
}

/// Why there is nobody at the other end.
enum Unopened {
    Barred(Barred),
    /// It took longer than a connection may last.
    Late,
    /// The cell is over.
    Over,
}

impl Cell {
    /// A program has connected an end of a pair to this door.
    pub(super) async fn serve_socket(&self, nth: usize, gate: &Gate, inner: TokioStream) {
        let Some(path) = self.doors.network.unix.get(nth).map(|socket| socket.path.clone()) else { return };
        let began = Instant::now();
        let until = gate.until(began);
        let opened = tokio::select! {
            opened = self.open_socket(&path) => opened.map_err(Unopened::Barred),
            () = self.ended() => Err(Unopened::Over),
            () = relay::late(until) => Err(Unopened::Late),
        };
        let mut connection = Connection {
            to: path.clone(),
            from: None,
            address: None,
            up: 0,
            down: 0,
            duration_us: 0,
            closed_by: ClosedBy::Unreachable,
        };
        match opened {
            Ok(outer) => {
                let passed =
                    relay::pass(self, (gate, until), End::Unix(inner), End::Unix(outer), Vec::new()).await;
                connection.up = passed.up;
                connection.down = passed.down;
                connection.closed_by = passed.closed_by;
                if let Some(violation) = passed.violation {
                    self.refuse(violation).await;
                }
            }
            Err(Unopened::Over) => connection.closed_by = ClosedBy::End,
            Err(Unopened::Late) => {
                connection.closed_by = ClosedBy::Limit;
                self.refuse(gate.late()).await;
                drop(inner);
            }
            Err(Unopened::Barred(Barred::Nobody | Barred::Full)) => drop(inner),
            Err(Unopened::Barred(Barred::Wrong(why))) => {
                let rule = format!("`allow-unix` in `[network]`: {why}");
                self.refuse(Violation { ..refused("connect", path, rule) }).await;
                return drop(inner);
            }
        }
        connection.duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tell(&Event::Closed(connection)).await;
    }

    /// A look at a file system that is stuck takes a thread, and keeps its place among the cell's and among all for as long.
    async fn open_socket(&self, path: &str) -> Result<TokioStream, Barred> {
        let opened = async {
            loop {
                let of_few = Arc::clone(&self.lookups).acquire_owned().await;
                let of_all = AT_ONCE.acquire().await;
                let path = path.to_owned();
                let tried = spawn_blocking(move || {
                    let tried = try_once(&path);
                    drop((of_few, of_all));
                    tried
                });
                match tried.await.map_err(|_ended| Barred::Nobody)? {
                    Err(Barred::Full) => {}
                    tried => return tried,
                }
            }
        };
        let stream = timeout(PATIENCE, opened).await.map_err(|_late| Barred::Nobody)??;
        let stream = stream.set_nonblocking(true).and_then(|()| TokioStream::from_std(stream));
        stream.map_err(|_full| Barred::Nobody)
    }
}

/// Looks at what is there now, and connects to just that; it waits for no longer than one that is full takes.
fn try_once(path: &str) -> Result<UnixStream, Barred> {
    let socket = find(path, identity::effective().0)?;
    // By the descriptor: the name may lead elsewhere by now.
    let place =
        CString::new(format!("/proc/self/fd/{}", socket.as_raw_fd())).map_err(|_nul| Barred::Nobody)?;
    match socket::connect(&place, FULL) {
        Ok(stream) => Ok(stream.into()),
        Err(errno) => Err(barred(errno)),
    }
}

fn barred(errno: Errno) -> Barred {
    match errno {
        Errno(libc::ETIMEDOUT) => Barred::Full,
        Errno(libc::EACCES | libc::EPERM) => Barred::Wrong(
            "toolcell's user may not connect to it (EACCES), or its directory was made anew since toolcell was started",
        ),
        Errno(libc::ELOOP | libc::ENOTDIR) => Barred::Wrong("a symbolic link is on the way"),
        Errno(_) => Barred::Nobody,
    }
}

/// The socket at this path, of which nobody but root and this user decides who it is.
fn find(path: &str, user: u32) -> Result<OwnedFd, Barred> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let open = |from: Option<&OwnedFd>, name: &str| {
        let name = CString::new(name).map_err(|_nul| Barred::Nobody)?;
        let from = from.map_or(descriptor::working_directory(), OwnedFd::as_fd);
        let found = descriptor::open_at(from, &name, flags).map_err(barred)?;
        let about = found.try_clone().and_then(|found| File::from(found).metadata());
        Ok((found, about.map_err(|unreadable| barred(Errno::from_io(&unreadable)))?))
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
    use crate::plan::doors::Doors;
    use crate::policy::network::Network;
    use crate::policy::unix_socket::UnixSocket;
    use crate::sys::readiness;

    /// Nobody else waits while a place is looked at, and one whose queue is full is tried until it is not.
    #[tokio::test]
    async fn a_socket_is_looked_for_beside_the_others_work() {
        let path = std::env::temp_dir().canonicalize().unwrap();
        let path = path.join(format!("toolcell-full-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        socket::listen(listener.as_fd(), 0).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let _first = UnixStream::connect(&path).unwrap();
        let unix = vec![UnixSocket::new(&path, "", "").unwrap()];
        let doors = Doors::of(&Network { unix, ..Network::default() }, false).unwrap();
        let (_theirs, channel) = socket::pair().unwrap();
        let cell = Cell::new(doors, readiness::ready(channel).unwrap(), Arc::default());
        let room = async {
            let began = Instant::now();
            tokio::time::sleep_until(began + 5 * FULL).await;
            assert!(began.elapsed() < 100 * FULL, "{:?}", began.elapsed());
            listener.accept().unwrap()
        };
        let (_stream, opened) = tokio::join!(room, cell.open_socket(&path));
        opened.unwrap();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_may_not_be_connected_to_is_told_from_what_nobody_listens_at() {
        let told = |errno| barred(Errno(errno));
        assert!(matches!(told(libc::EACCES), Barred::Wrong(why) if why.contains("may not connect")));
        assert_eq!((told(libc::ECONNREFUSED), told(libc::ENOENT)), (Barred::Nobody, Barred::Nobody));
    }

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
