//! Addresses that a cell with doors tries to reach: what is no door is refused at once, and noted.
//!
//! ```text
//! told ──► address read from memory ──a door, or none──► the call goes on, and the kernel decides
//!                                   └──no door──► refused as by a host without a route, noted
//! ```
//!
//! Nothing rests on this: behind it there is a network namespace with nothing but a loopback, and Landlock. An address that its
//! owner changes meanwhile is refused there, and not noted.
//!
//! Neighbours: `refusals` hands on the calls; `plan::doors` knows the doors. Never: lets a call run that would be refused
//! otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::notes::{Note, Notes};
use super::refusals::noted;
use crate::launch::memory::{Memory, Question};
use crate::outcome::{Layer, Violation};
use crate::plan::doors::Doors;
use crate::plan::step::Step;
use crate::plan::{Plan, seccomp};
use crate::policy::address::plain;
use crate::policy::network::{Destination, allow_line};
use crate::sys::notify::{self, Notification};
use crate::sys::{Errno, Result};

/// Calls of one cell whose addresses are read.
const MOST_READ: u64 = 1 << 18;
/// Refusals of one cell that are answered at once.
const AT_ONCE: u64 = 1024;

/// Somebody whom a cell tried to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reached {
    at: SocketAddr,
    operation: &'static str,
    errno: Errno,
}

/// Those of one cell.
#[derive(Debug)]
pub(super) struct Connects {
    doors: Doors,
    notes: Notes<Reached>,
    read: u64,
    refused: u64,
}

impl Connects {
    /// Of a plan that has attempts told.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let told = |step: &Step| matches!(step, Step::Seccomp { connects: true, .. });
        plan.steps.iter().find(|step| told(step))?;
        plan.steps.iter().find_map(|step| match step {
            Step::OpenDoors { doors } => {
                Some(Self { doors: Doors::clone(doors), notes: Notes::new(), read: 0, refused: 0 })
            }
            _ => None,
        })
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
        let reached = if self.read < MOST_READ { self.reached(call, memory) } else { None };
        let Some(reached) = reached.filter(|_| notify::still_waits(listener, call.id)) else {
            return notify::proceed(listener, call.id);
        };
        let errno = reached.errno;
        self.refused = self.refused.saturating_add(1);
        self.notes.add(reached, now);
        notify::refuse(listener, call.id, errno)
    }

    /// Nothing is noted.
    pub(super) const fn is_empty(&self) -> bool {
        self.notes.noted.is_empty()
    }

    /// Many were told: who goes on like that waits now and then.
    pub(super) const fn is_flood(&self) -> bool {
        self.refused > AT_ONCE || self.read >= MOST_READ
    }

    /// Whom this call would reach, if no door leads there.
    fn reached(&mut self, call: &Notification, memory: Option<&Memory>) -> Option<Reached> {
        let address = *call.arguments.get(seccomp::reaches(call.number)?)?;
        self.read += 1;
        let found = Question { pid: call.pid, address, directory: None }.look_by(memory).ok()?;
        let at = socket_address(&found.bytes)?;
        // A socket of UDP is connected to port 0 to learn by which address something would be reached.
        if at.ip().is_unspecified() || self.doors.is_door(at.ip(), at.port()) || at.port() == 0 {
            return None;
        }
        let errno = if at.ip().is_loopback() { libc::ECONNREFUSED } else { libc::ENETUNREACH };
        let operation = seccomp::name(call.number).unwrap_or("connect");
        Some(Reached { at, operation, errno: Errno(errno) })
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

fn violation(note: &Note<Reached>) -> Violation {
    let Reached { at, operation, errno } = &note.what;
    let Violation { layer, rule, .. } = of_network();
    let object = at.to_string();
    let allow = object.parse::<Destination>().is_ok();
    Violation {
        layer,
        rule,
        operation: (*operation).to_owned(),
        allow: allow.then(|| allow_line(&object)),
        object,
        ..noted(note, *errno)
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
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
