//! The porter: a process that keeps the doors of all cells of one supervisor, which itself opens no socket any more.
//!
//! It is started before the supervisor is confined, and only if a policy lets something out. It executes this program anew, so that
//! nothing of the holder's memory is in it, neither keys nor an environment; it has no privilege, no file but what resolving names
//! takes, and starts no program. What it reads are bytes of cells and of those whom they reach.
//!
//! ```text
//! holder ── doors of a cell, a channel ──► porter      over the channel: sockets ──►, ◄── events, and its end ──►
//!    └── closes the socket ──► porter ends
//! ```
//!
//! Neighbours: `commands` start it, `launch` and `watch` hold its channels. Never: speaks to the client, init or the launcher.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use tokio::io::Interest;

use super::{MESSAGE_LIMIT, keep};
use crate::plan::doors::{Doors, Listens};
use crate::policy::network::Network;
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, Result, descriptor, readiness, socket};

/// The subcommand by which this program is one.
pub const SUBCOMMAND: &str = "keep-doors";
/// The number of the porter's socket.
const SOCKET: i32 = 3;
/// Threads that resolve names, of all cells together: `keep` lets each have a few, so that some that wait for a name server that is
/// silent do not keep others from theirs. They are started when there is need.
const THREADS: usize = 64;

/// The holder's end. Dropping it ends the porter.
#[derive(Debug)]
pub struct Porter {
    socket: OwnedFd,
    pid: libc::pid_t,
}

impl Porter {
    /// Starts it for doors of these policies. The process must still have one thread.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn start<'n>(networks: impl IntoIterator<Item = &'n Network>) -> Result<Self> {
        let sockets: BTreeSet<&str> = networks
            .into_iter()
            .flat_map(|network| &network.unix)
            .map(|socket| socket.path.as_str())
            .collect();
        let (ours, theirs) = socket::pair()?;
        match process::clone3(0, None)? {
            Cloned::Child => {
                let _failed = detach(theirs).map(|()| {
                    let mut porter = Command::new("/proc/self/exe");
                    porter.arg0("toolcell").arg(SUBCOMMAND).args(sockets).env_clear().exec()
                });
                process::exit_now(1)
            }
            Cloned::Parent(pid, _pidfd) => Ok(Self { socket: ours, pid }),
        }
    }

    /// A channel for the doors of a new cell.
    ///
    /// # Errors
    /// The kernel's errno; `EPIPE` when the porter is gone.
    pub fn open(&self, doors: &Doors) -> Result<OwnedFd> {
        let bytes = postcard::to_allocvec(doors).map_err(|_unwritable| Errno(libc::EPROTO))?;
        let (ours, theirs) = socket::pair()?;
        socket::send(self.socket.as_fd(), &bytes, &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// The process, for who ends others.
    #[must_use]
    pub const fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

/// The porter itself. `confine` is what it gives up, but for what doors to sockets with these paths take.
///
/// # Errors
/// The kernel's errno; `EBADF` when nobody has started it for cells.
pub fn main(sockets: &[PathBuf], confine: fn(&[PathBuf]) -> Result<()>) -> Result<()> {
    process::set_name(c"toolcell-doors");
    if !descriptor::is_open(SOCKET) {
        return Err(Errno(libc::EBADF));
    }
    // Two sockets for each connection, of all cells: as many as the administrator lets a process have.
    process::setrlimit(libc::RLIMIT_NOFILE, u64::MAX)?;
    confine(sockets)?;
    serve(descriptor::adopt(SOCKET))
}

/// Hands a socket of the cell over.
///
/// # Errors
/// The kernel's errno; `EPIPE` when the porter is gone.
pub fn hand_over(channel: &OwnedFd, listens: Listens, socket: &OwnedFd) -> Result<()> {
    let bytes = postcard::to_allocvec(&listens).map_err(|_unwritable| Errno(libc::EPROTO))?;
    socket::send(channel.as_fd(), &bytes, &[socket.as_fd()])
}

impl Drop for Porter {
    fn drop(&mut self) {
        let _gone = socket::shutdown(self.socket.as_fd()).is_err();
        let _reaped = process::wait(self.pid).is_ok();
    }
}

/// Away from all that the holder has open, from its terminal, and from whoever could read memory.
fn detach(socket: OwnedFd) -> Result<()> {
    process::setsid()?;
    process::setrlimit(libc::RLIMIT_CORE, 1)?;
    descriptor::keep_alone(socket, SOCKET, false)
}

fn serve(socket: OwnedFd) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build()?;
    let served = runtime.block_on(async {
        let socket = readiness::readable(socket)?;
        let mut buffer = vec![0; MESSAGE_LIMIT];
        let mut cells = tokio::task::JoinSet::new();
        loop {
            let received = socket.async_io(Interest::READABLE, |socket| {
                socket::receive(socket.as_fd(), &mut buffer).map_err(std::io::Error::from)
            });
            let received = tokio::select! {
                received = received => received,
                Some(_ended) = cells.join_next() => continue,
            };
            match received {
                Ok(Some((count, descriptors))) => {
                    let doors: Doors = postcard::from_bytes(buffer.get(..count).unwrap_or_default())
                        .map_err(|_foreign| Errno(libc::EPROTO))?;
                    let Some(channel) = descriptors.into_iter().next() else { continue };
                    descriptor::set_nonblocking(channel.as_fd(), true)?;
                    cells.spawn(keep::keep(doors, readiness::ready(channel)?));
                }
                Ok(None) => return Ok(()),
                Err(error) if keep::broken(&error) => return Ok(()),
                // A cell whose channel got lost has no doors.
                Err(error) if Errno::from_io(&error) == Errno(libc::EMSGSIZE) => {}
                Err(error) => return Err(Errno::from_io(&error)),
            }
        }
    });
    // A thread that still resolves a name must not keep the process.
    runtime.shutdown_background();
    served
}
