//! Lets a program of a cell listen where Landlock holds no ports (before Linux 6.7): the filter refuses listen(2), and what is behind
//! the program's descriptor is looked at, and made to listen, here.
//!
//! A process of its own does it and ends: who closes a socket last may have to wait for as long as its owner likes (`SO_LINGER`,
//! socket(7)), but for a process that ends.
//!
//! Neighbours: `memory` brings the request to the launcher, `watch::listens` makes it. Never: lets anything listen elsewhere; a socket
//! that changed its place meanwhile is shut down.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::memory::{self, Found, Memory};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, Result, notify, socket};

/// A listen(2) that waits for its answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The kernel's name for the call.
    pub id: u64,
    /// The thread that made it.
    pub thread: u32,
    /// The socket's descriptor in its process.
    pub descriptor: i32,
    /// The most connections that wait.
    pub queue: i32,
    /// TCP ports at which it may be.
    pub ports: Vec<u16>,
}

impl Attempt {
    /// Has the launcher do it, where this process may not. Where the socket is, if it is not to listen there.
    ///
    /// # Errors
    /// Of listen(2), and what there is of it without a launcher (as for [`Memory::ask`]).
    pub fn make(&self, memory: Option<&Memory>, listener: BorrowedFd<'_>) -> Result<Option<String>> {
        let request = postcard::to_allocvec(self).map_err(|_unwritable| Errno(libc::EPROTO))?;
        let Found { bytes, .. } = match memory {
            Some(memory) => memory.have_done(&request, listener)?,
            None => answer(&request, listener)?,
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|place| !place.is_empty()))
    }

    fn listen(&self, listener: BorrowedFd<'_>) -> Result<Option<String>> {
        let taken = notify::take_descriptor(self.thread, self.descriptor)?;
        // Else it may be a socket of somebody who came to the same number.
        if !notify::still_waits(listener, self.id) {
            return Err(Errno(libc::ESRCH));
        }
        let (taken, elsewhere) = self.elsewhere(taken)?;
        if elsewhere.is_some() {
            return Ok(elsewhere);
        }
        socket::listen(taken.as_fd(), self.queue)?;
        // One that listens stays where it is.
        let (taken, elsewhere) = self.elsewhere(taken)?;
        if elsewhere.is_some() {
            socket::shutdown(taken.as_fd())?;
        }
        Ok(elsewhere)
    }

    /// Where a socket is, unless it is one of TCP or UDP at one of the ports.
    fn elsewhere(&self, socket: OwnedFd) -> Result<(OwnedFd, Option<String>)> {
        let socket = TcpListener::from(socket);
        let elsewhere = match socket.local_addr() {
            Ok(at) => (!self.ports.contains(&at.port())).then(|| at.to_string()),
            // A socket of another family: those that a cell can make are connected.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(Errno(libc::EINVAL)),
            Err(error) => return Err(error.into()),
        };
        Ok((socket.into(), elsewhere))
    }
}

/// Does what was asked for.
///
/// # Errors
/// As for [`Attempt::make`]; `EPROTO` for what is no request.
pub(super) fn answer(request: &[u8], listener: BorrowedFd<'_>) -> Result<Found> {
    let broken = Errno(libc::EPROTO);
    let attempt: Attempt = postcard::from_bytes(request).map_err(|_foreign| broken)?;
    let (ours, theirs) = socket::pair()?;
    match process::clone3(0, None)? {
        Cloned::Child => {
            let place = attempt.listen(listener).map(Option::unwrap_or_default);
            let found = place.map(|place| Found { bytes: place.into_bytes(), directory: None });
            process::exit_now(i32::from(memory::reply(theirs.as_fd(), found).is_err()))
        }
        Cloned::Parent(pid, _pidfd) => {
            drop(theirs);
            process::wait(pid)?;
            let mut answer = [0; memory::LONGEST];
            let (count, _) = socket::receive(ours.as_fd(), &mut answer)?.ok_or(broken)?;
            memory::found(answer.get(..count).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_may_listen_at_its_ports_alone() {
        let at = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = at.local_addr().unwrap();
        let place = |ports: &[u16], socket: OwnedFd| {
            let attempt = Attempt { id: 0, thread: 0, descriptor: 0, queue: 0, ports: ports.to_vec() };
            attempt.elsewhere(socket).map(|(_, elsewhere)| elsewhere)
        };
        let other = TcpStream::connect(address).unwrap();
        let there = other.local_addr().unwrap().to_string();
        assert_eq!(place(&[1, address.port()], at.try_clone().unwrap().into()), Ok(None));
        assert_eq!(place(&[1], at.into()), Ok(Some(address.to_string())));
        assert_eq!(place(&[address.port()], other.into()), Ok(Some(there)));
        assert_eq!(place(&[1], UnixStream::pair().unwrap().0.into()), Err(Errno(libc::EINVAL)));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(place(&[1], file.into()), Err(Errno(libc::ENOTSOCK)));
    }
}
