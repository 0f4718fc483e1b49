//! Addresses that a cell tries to reach, or to be reached at: what is no door is refused at once, and noted.
//!
//! ```text
//! told ──► address read from memory ──a door, or none──► the call goes on, and the kernel decides
//!                     │             └──no door──► refused as by a host without a route, noted
//!                     └─ a path, where the cell has doors to some ──► `sockets`, and the kernel does not see the call
//! ```
//!
//! Nothing rests on this: behind it there is a network namespace with nothing but a loopback, and Landlock. An address that its
//! owner changes meanwhile is refused there, and not noted.
//!
//! Neighbours: `refusals` hands on the calls; `plan::doors` knows the doors. Never: lets a call run that would be refused
//! otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::notes::{Note, Notes};
use super::refusals::noted;
use super::sockets::{self, Answer, Sockets};
use crate::launch::memory::{Found, Memory, Question};
use crate::outcome::{Layer, Violation};
use crate::plan::doors::{DNS, Doors, RESOLVER};
use crate::plan::step::{Attempts, Step};
use crate::plan::{Plan, seccomp};
use crate::policy::address::plain;
use crate::policy::http::Http;
use crate::policy::network::{Destination, allow_line};
use crate::policy::{listen, unix_socket};
use crate::sys::notify::{self, Notification};
use crate::sys::{Errno, Result};

/// The rule on what is no TCP.
const UDP: &str = "the cell's network namespace: doors lead over TCP alone";
/// Calls of one cell whose addresses are read.
const MOST_READ: u64 = 1 << 18;
/// The call by which a program says where it is reached.
const BIND: &str = "bind";
/// The one by which a datagram is sent to an address.
const SENDTO: &str = "sendto";
/// Refusals of one cell that are answered at once.
const AT_ONCE: u64 = 1024;

/// Somebody whom a cell tried to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reached {
    object: String,
    allow: Option<String>,
    operation: &'static str,
    errno: Errno,
    /// Where it is another than that no door leads there.
    rule: Option<String>,
}

/// Those of one cell.
#[derive(Debug)]
pub(super) struct Connects {
    doors: Doors,
    sockets: Option<Sockets>,
    /// TCP ports at which a program may listen, where Landlock holds all others.
    listens: Option<Vec<u16>>,
    notes: Notes<Reached>,
    read: u64,
    refused: u64,
}

impl Connects {
    /// Of a plan that has attempts told.
    pub(super) fn of(plan: &Plan, channel: Option<OwnedFd>) -> Option<Self> {
        let told = |step: &Step| matches!(step, Step::Seccomp { attempts: Attempts::All, .. });
        plan.steps.iter().find(|step| told(step))?;
        let doors = plan.steps.iter().find_map(|step| match step {
            Step::OpenDoors { doors } => Some(Doors::clone(doors)),
            _ => None,
        });
        let doors = doors.unwrap_or_default();
        let sockets = channel.filter(|_| !doors.network.unix.is_empty()).map(Sockets::new);
        let listens = plan.steps.iter().find_map(|step| match step {
            Step::Landlock { abi, ports: Some(ports), .. } if seccomp::holds_ports(*abi) => {
                Some(ports.listen.clone())
            }
            _ => None,
        });
        Some(Self { doors, sockets, listens, notes: Notes::new(), read: 0, refused: 0 })
    }

    /// Answers a call that is made to reach an address.
    ///
    /// # Errors
    /// The kernel's errno for the answer.
    pub(super) fn answer(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        memory: Option<&Memory>,
        now: Duration,
    ) -> Result<()> {
        let found = match self.look(call, memory) {
            // The kernel would say of an end of a pair that it is connected. Of a descriptor that is none it says so.
            Some(Err(errno)) if errno != Errno(libc::ENOENT) && self.decides(call) => {
                return notify::refuse(listener, call.id, errno);
            }
            found => found.and_then(Result::ok).filter(|_| notify::still_waits(listener, call.id)),
        };
        let reached = match found {
            // What an end of a pair, or any other socket, says to such an address is no connection.
            None => return notify::proceed(listener, call.id),
            Some(found) => match self.connect_path(call, &found) {
                Some(Answer::Connected) => return notify::succeed(listener, call.id),
                Some(Answer::Fails(errno)) => return notify::refuse(listener, call.id, errno),
                Some(Answer::NoDoor(path)) => no_path(path),
                None => match self.reached(call, &found) {
                    Some(reached) => self.with_protocol(reached, listener, call, memory),
                    None => return notify::proceed(listener, call.id),
                },
            },
        };
        self.refuse(listener, call, reached, now)
    }

    fn refuse(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        reached: Reached,
        now: Duration,
    ) -> Result<()> {
        let errno = reached.errno;
        self.refused = self.refused.saturating_add(1);
        self.notes.add(reached, now);
        notify::refuse(listener, call.id, errno)
    }

    /// What was noted is in a record.
    pub(super) fn forget(&mut self) {
        self.notes.clear();
    }

    /// Nothing is noted.
    pub(super) const fn is_empty(&self) -> bool {
        self.notes.noted.is_empty()
    }

    /// Many were told: who goes on like that waits now and then.
    pub(super) fn is_flood(&self) -> bool {
        self.refused > AT_ONCE || self.read >= if self.has_doors() { MOST_READ } else { AT_ONCE }
    }

    /// Is there anybody to reach?
    pub(super) fn has_doors(&self) -> bool {
        self.doors.network.is_open()
    }

    /// Answers a call that makes a unix socket, if some of the doors are of that kind.
    pub(super) fn hand_in(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        refused: Option<i32>,
        now: Duration,
    ) -> Option<Result<()>> {
        let sockets = self.sockets.as_mut().filter(|_| Sockets::makes(call, refused))?;
        self.read += 1;
        Some(match sockets.hand_in(listener, call) {
            Ok(()) => Ok(()),
            Err(errno @ Errno(libc::ENFILE)) => {
                let rule = format!("sockets of a cell that wait to be connected: {} at once", sockets::MOST);
                let (object, operation) = ("AF_UNIX".to_owned(), "socket");
                let crowded = Reached { object, allow: None, operation, errno, rule: Some(rule) };
                self.refuse(listener, call, crowded, now)
            }
            Err(errno) => notify::refuse(listener, call.id, errno),
        })
    }

    /// Does this call connect what only an answer from here connects? An address of the internet is told by its length.
    fn decides(&self, call: &Notification) -> bool {
        let [_, _, length, ..] = call.arguments;
        self.connects_paths(call) && !matches!(length & u64::from(u32::MAX), 16 | 28)
    }

    fn connects_paths(&self, call: &Notification) -> bool {
        self.sockets.is_some() && seccomp::name(call.number) == Some("connect")
    }

    /// The address of this call, and with it what is behind the descriptor that it connects, if that matters. Nothing where it is
    /// not read.
    fn look(&mut self, call: &Notification, memory: Option<&Memory>) -> Option<Result<Found>> {
        // Of a path nothing is known but by reading; who goes on is slowed down.
        if self.read >= MOST_READ && !self.connects_paths(call) {
            return None;
        }
        self.read += 1;
        let with_socket = with_socket(call)?;
        let question = Question { directory: None, ..with_socket };
        Some(match seccomp::name(call.number) {
            // Without it no socket of the cell is connected.
            Some("connect") if self.sockets.is_some() => with_socket.look_by_all_means(memory),
            Some(BIND | SENDTO) => with_socket.look_by(memory),
            _ => question.look_by(memory),
        })
    }

    /// What becomes of a connection to a path; nothing, if it is none.
    fn connect_path(&mut self, call: &Notification, found: &Found) -> Option<Answer> {
        let [_, _, length, ..] = call.arguments;
        if !self.connects_paths(call) {
            return None;
        }
        let sockets = self.sockets.as_mut()?;
        let path = sockets::path(&found.bytes, length & u64::from(u32::MAX))?;
        Some(sockets.connect(&self.doors, found.directory.as_deref(), path))
    }

    /// Whom this call would reach, if no door leads there.
    fn reached(&self, call: &Notification, found: &Found) -> Option<Reached> {
        let at = socket_address(&found.bytes)?;
        if seccomp::name(call.number) == Some(BIND) {
            return self.bound(at, found);
        }
        let at = SocketAddr::new(meant(at.ip()), at.port());
        let over_udp = seccomp::name(call.number) == Some(SENDTO);
        // A connection of TCP takes what is sent by it wherever it is said to go.
        if over_udp && matches!(protocol(found), Some("TCP" | "TCPv6")) {
            return None;
        }
        let door = match over_udp {
            true => self.doors.has_names() && at == SocketAddr::new(IpAddr::V4(RESOLVER), DNS),
            // A socket of UDP is connected, to a door's port or to port 0, to learn by which address something would be reached.
            false => self.doors.is_door(at.ip(), at.port()) || at.port() == 0,
        };
        // Whoever talks to himself over UDP without a connection reaches nobody else.
        if door || over_udp && at.ip().is_loopback() && !self.has_doors() {
            return None;
        }
        let errno = if at.ip().is_loopback() { libc::ECONNREFUSED } else { libc::ENETUNREACH };
        let operation = seccomp::name(call.number).unwrap_or("connect");
        let object = at.to_string();
        let instead = self.doors.ended_at(at.ip(), at.port()).map(Http::address);
        let ends = instead.map(|address| format!("TLS ends at the door: the way to it is `{address}`"));
        let rule = ends.or_else(|| over_udp.then(|| UDP.to_owned()));
        let allowed = rule.is_none() && object.parse::<Destination>().is_ok();
        let allow = allowed.then(|| allow_line(&object));
        Some(Reached { object, allow, operation, errno: Errno(errno), rule })
    }

    /// No line makes a door for UDP; a socket of that is connected like one of TCP.
    fn with_protocol(
        &self,
        reached: Reached,
        listener: BorrowedFd<'_>,
        call: &Notification,
        memory: Option<&Memory>,
    ) -> Reached {
        if reached.allow.is_none() || self.is_flood() {
            return reached;
        }
        let found = with_socket(call).and_then(|question| question.look_by(memory).ok());
        let found = found.filter(|_| notify::still_waits(listener, call.id));
        match found.as_ref().and_then(protocol) {
            Some("UDP" | "UDPv6") => Reached { allow: None, rule: Some(UDP.to_owned()), ..reached },
            _ => reached,
        }
    }

    /// Where a program would be reached, if it may not be: over TCP, as Landlock would find.
    fn bound(&self, at: SocketAddr, found: &Found) -> Option<Reached> {
        // A program that has the kernel choose a port finds out what this host has, and no line allows it.
        let listens = self.listens.as_ref().filter(|_| at.port() != 0)?;
        if !matches!(protocol(found), Some("TCP" | "TCPv6")) || listens.contains(&at.port()) {
            return None;
        }
        Some(Reached {
            object: at.to_string(),
            allow: listen::allow_line(at.port()),
            operation: BIND,
            errno: Errno(libc::EACCES),
            rule: Some("`listen` in `[network]`: no program listens at another port".to_owned()),
        })
    }

    pub(super) fn violations(&self) -> impl Iterator<Item = Violation> {
        let others = (self.notes.others > 0).then(|| Violation {
            operation: "other connections".to_owned(),
            count: self.notes.others,
            ..of_network()
        });
        self.notes.noted.iter().map(violation).chain(others)
    }
}

fn of_network() -> Violation {
    Violation {
        layer: Layer::Network,
        rule: "the cell's network namespace: no door leads there".to_owned(),
        ..super::refusals::blank()
    }
}

/// The address of a call, and the descriptor of its socket.
fn with_socket(call: &Notification) -> Option<Question> {
    let address = *call.arguments.get(seccomp::reaches(call.number)?)?;
    let [connected, ..] = call.arguments;
    let descriptor = u32::try_from(connected & u64::from(u32::MAX)).ok()?.cast_signed();
    Some(Question { pid: call.pid, address, directory: Some(descriptor) })
}

/// What speaks through the socket that was found.
fn protocol(found: &Found) -> Option<&str> {
    let behind = found.directory.as_deref()?.to_str()?;
    Some(behind.strip_prefix("socket:[")?.split_once("] ")?.1)
}

/// The kernel takes no address for the own loopback.
const fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// A socket with a path to which no door leads.
fn no_path(path: String) -> Reached {
    let (allow, rule) = match unix_socket::allow_line(&path) {
        Ok(line) => (Some(line), None),
        Err(why) => (None, Some(format!("`allow-unix` in `[network]`: {why}; {}", why.hint()))),
    };
    Reached { object: path, allow, operation: "connect", errno: Errno(libc::EACCES), rule }
}

fn violation(note: &Note<Reached>) -> Violation {
    let Reached { object, allow, operation, errno, rule } = &note.what;
    let Violation { layer, rule: no_door, .. } = of_network();
    Violation {
        layer,
        rule: rule.clone().unwrap_or(no_door),
        operation: (*operation).to_owned(),
        allow: allow.clone(),
        object: object.clone(),
        ..noted(note, *errno)
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
pub(super) fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(plain(address), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::Network;
    use crate::policy::unix_socket::UnixSocket;
    use crate::sys::{process, socket};

    #[test]
    fn a_path_is_read_whatever_was_read_before_and_one_that_cannot_be_is_no_connection() {
        let unix = vec![UnixSocket::new("/run/a", "", "").unwrap()];
        let doors = Doors::of(&Network { unix, ..Network::default() }, false).unwrap();
        let (channel, _theirs) = socket::pair().unwrap();
        let sockets = Some(Sockets::new(channel));
        let mut connects =
            Connects { doors, sockets, listens: None, notes: Notes::new(), read: MOST_READ, refused: 0 };
        let text = b"a text";
        let address = u64::try_from(text.as_ptr().addr()).unwrap();
        let mut call = Notification::default();
        (call.pid, call.number) = (process::pid(), seccomp::number("connect").unwrap());
        call.arguments = [0, address, 110, 0, 0, 0];
        assert!(connects.look(&call, None).unwrap().unwrap().bytes.starts_with(text));
        call.arguments = [0, 8, 110, 0, 0, 0];
        assert_eq!(connects.look(&call, None), Some(Err(Errno(libc::EFAULT))));
        assert!(connects.decides(&call));
        call.arguments = [0, 8, 16, 0, 0, 0];
        assert!(!connects.decides(&call), "an address of the internet");
        connects.sockets = None;
        call.arguments = [0, address, 110, 0, 0, 0];
        assert!(!connects.decides(&call) && connects.look(&call, None).is_none());
    }

    #[test]
    fn a_path_that_no_line_allows_alone_is_refused_with_the_reason() {
        let refused = |path: &str| {
            let Reached { allow, rule, .. } = no_path(path.to_owned());
            (allow, rule.unwrap_or_default())
        };
        assert!(refused("/run/a").0.is_some());
        for (path, why) in [
            ("a", "`a` is no path from the root"),
            ("@a", "`@a` is no path from the root"),
            ("/run/docker.sock", "who reaches it is root on this host; if that is what you want, say why"),
        ] {
            let (allow, rule) = refused(path);
            assert!(allow.is_none() && rule.contains(why), "{path}: {rule}");
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let four = [2, 0, 1, 187, 10, 0, 0, 5, 0, 0];
        assert_eq!(socket_address(&four), Some("10.0.0.5:443".parse().unwrap()));
        let mut six = vec![10, 0, 0, 80, 0, 0, 0, 0];
        six.extend("::ffff:10.0.0.5".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(socket_address(&six), Some("10.0.0.5:80".parse().unwrap()));
        for bytes in [&four[..7], &six[..23], &[1, 0, 0, 0, 0, 0, 0, 0], &[]] {
            assert_eq!(socket_address(bytes), None);
        }
    }
}
