//! Unix sockets of a cell whose policy has doors to some: the filter refuses to make any, is answered here instead, and what a
//! program gets is one end of a pair, which can be connected to nothing else.
//!
//! ```text
//! socket(AF_UNIX) ──refused, told──► an end of a pair is put in; the other waits here
//! connect(it, path) ──told──door──► the other end goes to who keeps doors; the call succeeds
//!                          └──no door──► refused, noted
//! ```
//!
//! Nothing rests on memory that its owner may change: an end of a pair is connected, so whatever the kernel is made to read as its
//! address, it answers that. A path that is read decides only which door this end gets, of those that the policy has.
//!
//! Neighbours: `connects` reads addresses and notes refusals; `network::unix` takes the ends. Never: lets the cell have a socket that
//! the kernel would connect; holds more ends than a bounded number.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::network::porter;
use crate::plan::doors::{Doors, Listens};
use crate::plan::seccomp;
use crate::policy::unix_socket;
use crate::sys::descriptor::{self, Interest};
use crate::sys::notify::{self, Notification};
use crate::sys::{Errno, Result, socket};

/// Ends that wait to be connected: each is a descriptor of the supervisor's.
pub(super) const MOST: usize = 32;

/// Those of one cell.
#[derive(Debug)]
pub(super) struct Sockets {
    /// To who keeps the doors.
    channel: OwnedFd,
    /// By the number of the cell's end in the kernel.
    waiting: HashMap<u64, OwnedFd>,
}

/// What becomes of a connect(2) to a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has succeeded.
    Connected,
    /// It fails, and nothing was refused.
    Fails(Errno),
    /// No door leads to this path.
    NoDoor(String),
}

impl Sockets {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self { channel, waiting: HashMap::new() }
    }

    /// Is this a call that makes what there can be a door for? Of one that a profile denies the error is another.
    pub(super) fn makes(call: &Notification, refused: Option<i32>) -> bool {
        const TYPE: u64 = 0xf;
        let [family, kind, protocol, ..] = call.arguments.map(|register| register & u64::from(u32::MAX));
        refused == Some(libc::EAFNOSUPPORT)
            && seccomp::name(call.number) == Some("socket")
            && family == 1
            && kind & TYPE == 1
            && protocol <= 1
    }

    /// Puts an end into the cell, which is what the call returns.
    ///
    /// # Errors
    /// What the call returns instead.
    pub(super) fn hand_in(&mut self, listener: BorrowedFd<'_>, call: &Notification) -> Result<()> {
        const NONBLOCK: u64 = 0o4000;
        const CLOEXEC: u64 = 0o2_000_000;
        if self.waiting.len() >= MOST {
            self.waiting.retain(|_, end| !is_over(end));
        }
        if self.waiting.len() >= MOST {
            return Err(Errno(libc::ENFILE));
        }
        let [_, kind, ..] = call.arguments;
        let (theirs, ours) = socket::stream_pair()?;
        socket::refuse_descriptors(ours.as_fd())?;
        descriptor::set_nonblocking(theirs.as_fd(), kind & NONBLOCK != 0)?;
        let number =
            File::from(theirs.try_clone().map_err(Errno::from)?).metadata().map_err(Errno::from)?.ino();
        notify::hand_in(listener, call.id, theirs.as_fd(), kind & CLOEXEC != 0)?;
        self.waiting.insert(number, ours);
        Ok(())
    }

    /// A program connects what `link` says is behind its descriptor, to the address in these bytes.
    pub(super) fn connect(&mut self, doors: &Doors, link: Option<&Path>, path: String) -> Answer {
        let path = unix_socket::plain(&path);
        let Some(nth) = doors.network.unix.iter().position(|socket| socket.path == path) else {
            return Answer::NoDoor(path);
        };
        let link = link.and_then(Path::to_str);
        let number = link.and_then(|link| link.strip_prefix("socket:[")?.split_once(']')?.0.parse().ok());
        let Some(end) = number.and_then(|number: u64| self.waiting.remove(&number)) else {
            return Answer::Fails(Errno(libc::EISCONN));
        };
        let nth = u16::try_from(nth).unwrap_or(u16::MAX);
        match porter::hand_over(&self.channel, Listens::Socket(nth), &end) {
            Ok(()) => Answer::Connected,
            Err(_gone) => Answer::Fails(Errno(libc::ECONNREFUSED)),
        }
    }
}

/// Nobody has the other end any more.
fn is_over(end: &OwnedFd) -> bool {
    let mut interest = [Interest { fd: Some(end.as_fd()), events: 0, ready: 0 }];
    descriptor::poll(&mut interest, Some(Duration::ZERO)).is_ok_and(|told| told)
}

/// The path of `struct sockaddr_un`, of an abstract name what it is with an `@` before it; of one without a name, nothing. `length` is
/// what the call says.
pub(super) fn path(bytes: &[u8], length: u64) -> Option<String> {
    const UNIX: u16 = 1;
    let (family, rest) = bytes.split_first_chunk()?;
    let rest = rest.get(..usize::try_from(length).ok()?.checked_sub(size_of_val(family))?.min(rest.len()))?;
    if u16::from_ne_bytes(*family) != UNIX {
        return None;
    }
    let (mark, name) = match rest {
        [0, name @ ..] => ("@", name),
        name => ("", name),
    };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = String::from_utf8_lossy(name.get(..end)?);
    (!name.is_empty()).then(|| format!("{mark}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::Network;
    use crate::policy::unix_socket::UnixSocket;

    #[test]
    fn a_path_is_read_as_the_kernel_reads_it() {
        let address = |path: &[u8]| [&1_u16.to_ne_bytes()[..], path].concat();
        assert_eq!(path(&address(b"/run/a\0rest"), 110).as_deref(), Some("/run/a"));
        assert_eq!(path(&address(b"/run/abc"), 2 + 6).as_deref(), Some("/run/a"));
        assert_eq!(path(&address(b"\0abstract"), 11).as_deref(), Some("@abstract"));
        assert_eq!(path(&address(b"/run/a"), 2), None);
        assert_eq!(path(&address(b"/run/a"), 1), None);
        assert_eq!(path(&[2, 0, b'/', b'a'], 4), None);
        assert_eq!(path(&[1], 110), None);
    }

    #[test]
    fn an_end_goes_to_its_door_once_and_to_no_other() {
        let (channel, theirs) = socket::pair().unwrap();
        let (inner, ours) = socket::stream_pair().unwrap();
        let mut sockets = Sockets::new(channel);
        sockets.waiting.insert(7, ours);
        let unix = vec![UnixSocket::new("/run/a", "", "").unwrap()];
        let doors = Doors::of(&Network { unix, ..Network::default() }, false).unwrap();
        let mut connect =
            |link: &str, path: &str| sockets.connect(&doors, Some(Path::new(link)), path.to_owned());
        assert_eq!(connect("socket:[7]", "/run/b"), Answer::NoDoor("/run/b".to_owned()));
        assert_eq!(connect("socket:[8]", "/run/a"), Answer::Fails(Errno(libc::EISCONN)));
        assert_eq!(connect("/dev/null", "/run/a"), Answer::Fails(Errno(libc::EISCONN)));
        assert_eq!(connect("socket:[7]", "/var/run/a"), Answer::Connected);
        assert_eq!(connect("socket:[7]", "/run/a"), Answer::Fails(Errno(libc::EISCONN)));
        let (count, ends) = socket::receive(theirs.as_fd(), &mut [0; 64]).unwrap().unwrap();
        assert!(count > 0 && ends.len() == 1);
        assert!(!is_over(&ends[0]));
        drop(inner);
        assert!(is_over(&ends[0]));
    }
}
