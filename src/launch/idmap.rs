//! User namespaces that only serve idmapped mounts: they let an unprivileged payload of a toolcell started by root
//! use files as their owner does, without being that owner.
//!
//! Neighbours: `launch::spawn` makes them before the clone, `launch::root` attaches them to binds. Never: has a
//! process in it that runs anything.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::init::tie_to;
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, Result};

type Ids = (u32, u32);

/// One namespace for each owner on disk.
#[derive(Debug, Default)]
pub(super) struct IdMaps(Vec<(Ids, OwnedFd)>);

impl IdMaps {
    pub(super) fn add(&mut self, owner: Ids, payload: Ids) -> Result<()> {
        if self.get(owner).is_none() {
            self.0.push((owner, namespace(owner, payload)?));
        }
        Ok(())
    }

    /// Takes one that was made elsewhere.
    pub(super) fn put(&mut self, owner: Ids, namespace: OwnedFd) {
        self.0.push((owner, namespace));
    }

    pub(super) fn owners(&self) -> Vec<Ids> {
        self.0.iter().map(|(owner, _)| *owner).collect()
    }

    pub(super) fn get(&self, owner: Ids) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(ids, _)| *ids == owner).map(|(_, fd)| fd.as_fd())
    }
}

/// Files of `owner` become the payload's; everybody else's stay whose they are.
fn map(owner: u32, payload: u32) -> String {
    let mut lines = format!("{owner} {payload} 1\n");
    // The ranges around both numbers, each to itself: an id that is in no range could not even be looked at.
    let (low, high) = (owner.min(payload), owner.max(payload));
    for (first, end) in [(0, low), (low + 1, high), (high.saturating_add(1), u32::MAX)] {
        if first < end {
            lines.push_str(&format!("{first} {first} {}\n", end - first));
        }
    }
    lines
}

/// Makes a user namespace with the two maps by way of a child that does nothing but exist.
pub(crate) fn namespace(owner: Ids, payload: Ids) -> Result<OwnedFd> {
    let parent = process::pidfd_open(process::pid().cast_signed())?;
    // The child inherits it, and without it only who may trace can open a process's namespaces.
    let dumpable = process::prctl(libc::PR_GET_DUMPABLE, 0)?;
    process::prctl(libc::PR_SET_DUMPABLE, 1)?;
    let cloned = process::clone3(process::namespace_bits(libc::CLONE_NEWUSER), None);
    // Not in the child, which stays as it was cloned.
    let reset = match cloned {
        Ok(Cloned::Child) => Ok(0),
        _ => process::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable == 1)),
    };
    let (pid, pidfd) = match cloned? {
        Cloned::Child => {
            if tie_to(parent.as_fd()).is_err() {
                process::exit_now(1);
            }
            // Until the parent kills it; no signal has a handler here, so it does not return.
            process::pause();
            process::exit_now(1)
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    let made = (|| -> Result<OwnedFd> {
        reset?;
        fs::write(format!("/proc/{pid}/uid_map"), map(owner.0, payload.0))?;
        fs::write(format!("/proc/{pid}/gid_map"), map(owner.1, payload.1))?;
        Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
    })();
    match process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno(libc::ESRCH)) => {}
        Err(errno) => return Err(errno),
    }
    process::wait(pid)?;
    made
}

#[cfg(test)]
mod tests {
    use super::map;

    #[test]
    fn everyone_but_the_owner_stays_who_he_is() {
        assert_eq!(map(0, 5), "0 5 1\n1 1 4\n6 6 4294967289\n");
        assert_eq!(map(7, 5), "7 5 1\n0 0 5\n6 6 1\n8 8 4294967287\n");
    }
}
