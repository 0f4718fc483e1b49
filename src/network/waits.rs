//! Who waits for its door and hangs up meanwhile: nobody would hear what comes of it, and another can have its place.
//!
//! ```text
//! waits ──let in──► served
//!   └──the other end is gone──► left, with what it has said
//! ```
//!
//! A program that has only said all it wants to say is still there: it may hear the answer. Of a socket with a path the kernel tells
//! the one from the other. Of TCP it does when the connection was reset, or when the other end, asked whether it is there, is no more: a
//! minute after it was closed.
//!
//! Neighbours: `accept` and `keep` have who waits, `gate` lets in. Never: reads a byte of a connection.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;

use crate::sys::readiness;

/// Seconds after each of which the other end of a TCP connection that waits is asked whether it is there.
pub(super) const ASKED: i32 = 5;

/// What comes of waiting, and the socket that does; `None`, if its other end was gone before.
pub(super) async fn while_there<T>(
    socket: OwnedFd,
    waits: impl Future<Output = T>,
) -> io::Result<Option<(OwnedFd, T)>> {
    let watched = readiness::readable(socket)?;
    tokio::select! {
        biased;
        came = waits => Ok(Some((watched.into_inner(), came))),
        // Whether there is room to write is not watched, so that this is told of the end alone.
        _gone = watched.ready(Interest::WRITABLE) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::time::timeout;

    use super::*;
    use crate::sys::socket;

    const PATIENCE: Duration = Duration::from_secs(50);

    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, other)
    }

    async fn is_left(socket: impl Into<OwnedFd>) -> bool {
        timeout(PATIENCE, while_there(socket.into(), pending::<()>())).await.unwrap().unwrap().is_none()
    }

    /// Whatever else happens to the socket, it is waited for, and nothing of it is read.
    async fn stays(socket: impl Into<OwnedFd>, events: impl FnOnce()) -> OwnedFd {
        let waits = async {
            events();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        while_there(socket.into(), waits).await.unwrap().unwrap().0
    }

    #[tokio::test]
    async fn who_is_gone_is_not_waited_for() {
        let (mine, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"said").unwrap();
        drop(other);
        assert!(is_left(mine).await);
        let (mine, mut other) = tcp();
        other.write_all(b"said").unwrap();
        SockRef::from(&other).set_linger(Some(Duration::ZERO)).unwrap();
        drop(other);
        assert!(is_left(mine).await);
    }

    /// The kernel forgets a connection that was closed after a minute; here, sooner.
    #[tokio::test]
    async fn who_has_closed_a_connection_is_asked_for_in_vain() {
        let (mine, mut other) = tcp();
        socket::keep_alive(mine.as_fd(), 1).unwrap();
        other.write_all(b"said").unwrap();
        socket::set_at(other.as_fd(), (libc::IPPROTO_TCP, libc::TCP_LINGER2), &1_i32).unwrap();
        drop(other);
        assert!(is_left(mine).await);
    }

    #[tokio::test]
    async fn who_has_said_all_is_waited_for() {
        let (mine, mut other) = UnixStream::pair().unwrap();
        let mine = stays(mine, || {
            other.write_all(b"said").unwrap();
            other.shutdown(Shutdown::Write).unwrap();
        });
        let mut said = String::new();
        UnixStream::from(mine.await).read_to_string(&mut said).unwrap();
        assert_eq!(said, "said");
        let (mine, mut other) = tcp();
        socket::keep_alive(mine.as_fd(), 1).unwrap();
        let mine = stays(mine, || {
            other.write_all(b"more").unwrap();
            other.shutdown(Shutdown::Write).unwrap();
        });
        TcpStream::from(mine.await).read_to_string(&mut said).unwrap();
        assert_eq!(said, "saidmore");
    }
}
