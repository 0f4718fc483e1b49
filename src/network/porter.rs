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

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;

use super::upstream::Trust;
use super::{MESSAGE_LIMIT, Told, keep};
use crate::plan::doors::{Doors, Listens};
use crate::policy::network::Network;
use crate::sys::process::{self, Cloned};
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, Result, descriptor, readiness, socket};

/// The subcommand by which this program is one.
pub const SUBCOMMAND: &str = "keep-doors";
/// The number of the porter's socket.
const SOCKET: i32 = 3;
/// Threads that resolve names, of all cells together: `keep` lets each have a few, so that some that wait for a name server that is
/// silent do not keep others from theirs. They are started when there is need.
const THREADS: usize = 64;

/// What a holder says; a descriptor comes along.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Order<'a> {
    /// Keep the doors of a cell, with this channel.
    Keep(Cow<'a, Doors>),
    /// Read certificates of authorities, for doors whose profile names the file like this.
    Trust(Option<Cow<'a, Path>>),
}

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
        let (ours, theirs) = socket::pair()?;
        self.tell(&Order::Keep(Cow::Borrowed(doors)), theirs.as_fd())?;
        Ok(ours)
    }

    /// Has it trust whom the certificates in a file prove, at doors whose profile names the file like this.
    ///
    /// # Errors
    /// The kernel's errno; `EPIPE` when the porter is gone.
    pub fn trust(&self, named: Option<&Path>, file: &File) -> Result<()> {
        self.tell(&Order::Trust(named.map(Cow::Borrowed)), file.as_fd())
    }

    fn tell(&self, order: &Order<'_>, descriptor: BorrowedFd<'_>) -> Result<()> {
        let bytes = postcard::to_allocvec(order).map_err(|_unwritable| Errno(libc::EPROTO))?;
        socket::send(self.socket.as_fd(), &bytes, &[descriptor])
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
    let told = Told::Listens(listens);
    let bytes = postcard::to_allocvec(&told).map_err(|_unwritable| Errno(libc::EPROTO))?;
    socket::send(channel.as_fd(), &bytes, &[socket.as_fd()])
}

/// Hands over what the door at this place of the policy's puts in.
///
/// # Errors
/// As for [`hand_over`].
pub fn give(channel: &OwnedFd, place: usize, value: &[u8]) -> Result<()> {
    let place = u32::try_from(place).map_err(|_none| Errno(libc::EPROTO))?;
    let told = postcard::to_allocvec(&Told::Credential(place)).map_err(|_unwritable| Errno(libc::EPROTO))?;
    let mut message = Wiped::with_room(told.len() + value.len());
    message.extend(&told);
    message.extend(value);
    socket::send(channel.as_fd(), &message, &[])
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
        let mut trust = Arc::new(Trust::default());
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
                    let order: Order<'_> = postcard::from_bytes(buffer.get(..count).unwrap_or_default())
                        .map_err(|_foreign| Errno(libc::EPROTO))?;
                    let Some(descriptor) = descriptors.into_iter().next() else { continue };
                    match order {
                        Order::Keep(doors) => {
                            descriptor::set_nonblocking(descriptor.as_fd(), true)?;
                            let channel = readiness::ready(descriptor)?;
                            cells.spawn(keep::keep(doors.into_owned(), channel, Arc::clone(&trust)));
                        }
                        // Before there is a cell.
                        Order::Trust(named) => {
                            let named = named.map(Cow::into_owned);
                            Arc::make_mut(&mut trust).learn(named, File::from(descriptor));
                        }
                    }
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
