//! Connections into a cell: what comes to a socket on this host goes on to a port at the cell's own loopback.
//!
//! ```text
//! a program of this host ──► accept ── a socket that was made in the cell ──► connect to 127.0.0.1:PORT there ──► relay ──► closed
//!                                              ▲                                   └─nobody listens──► reset        │
//!                                              └── disconnected, for the next one ◄─────────────────────────────────┘
//! ```
//!
//! This process is not in the cell's network namespace, and cannot make a socket there: init has made as many as there can be
//! connections at once, before it gave up its privileges.
//!
//! Neighbours: `keep` hands the sockets over, `relay` passes bytes. Never: connects one of them to an address but the cell's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::carry::End;
use super::gate::{Gate, WAITED};
use super::keep::{Cell, PATIENCE};
use super::limit::Limit;
use super::{Event, relay};
use crate::outcome::{ClosedBy, Connection};
use crate::policy::listen::At;
use crate::sys::{Errno, network};

/// How long nothing is accepted when that has failed.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether a side has taken all that it was sent.
const LOOK: Duration = Duration::from_millis(10);

/// The sockets of a cell by which its ports are reached.
#[derive(Debug)]
pub(super) struct Inside {
    free: Arc<Semaphore>,
    four: Mutex<Vec<OwnedFd>>,
    six: Mutex<Vec<OwnedFd>>,
}

impl Default for Inside {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(0)), four: Mutex::default(), six: Mutex::default() }
    }
}

impl Inside {
    fn of(&self, six: bool) -> &Mutex<Vec<OwnedFd>> {
        if six { &self.six } else { &self.four }
    }

    /// One more. Those of IPv4 count: where there is IPv6, there are as many of it.
    pub(super) fn add(&self, six: bool, socket: OwnedFd) {
        self.put(six, socket);
        if !six {
            self.free.add_permits(1);
        }
    }

    fn put(&self, six: bool, socket: OwnedFd) {
        self.of(six).lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    }

    fn take(&self, six: bool) -> Option<OwnedFd> {
        self.of(six).lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Connects to a port of the cell's; the socket comes back by [`Self::leave`].
    async fn connect(&self, port: u16) -> Option<(TcpStream, OwnedFd, bool)> {
        for six in [false, true] {
            let Some(socket) = self.take(six) else { continue };
            let at = if six { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
            let connected = async {
                let copy = StdTcpStream::from(socket.try_clone()?);
                TcpSocket::from_std_stream(copy).connect(SocketAddr::new(at, port)).await
            };
            match timeout(PATIENCE, connected).await {
                Ok(Ok(stream)) => return Some((stream, socket, six)),
                Ok(Err(_)) | Err(_) => self.renew(six, socket),
            }
        }
        None
    }

    /// The connection is over: what was sent last is waited for, and the socket is as new.
    async fn leave(&self, six: bool, socket: OwnedFd) {
        let until = Instant::now() + PATIENCE;
        while network::is_leaving(socket.as_fd()).unwrap_or(false) && Instant::now() < until {
            sleep_until(Instant::now() + LOOK).await;
        }
        self.renew(six, socket);
    }

    fn renew(&self, six: bool, socket: OwnedFd) {
        // One that cannot be used again is given up, and its place with it.
        match network::disconnect(socket.as_fd()) {
            Ok(()) => self.put(six, socket),
            Err(Errno(_)) => drop(socket),
        }
    }
}

/// What listens on the host.
#[derive(Debug)]
enum Outside {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Outside {
    fn new(at: &At, socket: OwnedFd) -> io::Result<Self> {
        match at {
            At::Path(_) => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
            At::Any | At::Address(_) => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
        }
    }

    /// The next one who comes, and its address if it has one.
    async fn accept(&self) -> io::Result<(End, Option<String>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((stream.into(), Some(peer.to_string())))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _unnamed)| (stream.into(), None)),
        }
    }
}

/// Takes who comes to this of the policy's ports. While there is no socket for another one, they wait in the kernel; but for one,
/// which is here.
pub(super) async fn accept(
    cell: &Arc<Cell>,
    nth: usize,
    socket: OwnedFd,
    at_work: &mpsc::Sender<()>,
) -> io::Result<()> {
    let Some(listen) = cell.doors.network.listen.get(nth) else { return Ok(()) };
    let outside = Outside::new(&listen.at, socket)?;
    let from = match &outside {
        Outside::Tcp(listener) => listener.local_addr()?.to_string(),
        Outside::Unix(_) => listen.at.to_string(),
    };
    let to = format!("port {}", listen.port);
    let gate = cell.gates.of_port(&cell.doors.network, listen);
    loop {
        let Ok((outer, address)) = outside.accept().await else {
            // Whatever is short may be there again, and who gave up meanwhile is nobody.
            sleep_until(Instant::now() + PAUSE).await;
            continue;
        };
        let admitted = cell.admit_in_line(&gate).await;
        let place = match Arc::clone(&cell.inside.free).try_acquire_owned() {
            Ok(place) => place,
            Err(_full) => {
                cell.refuse(Limit::Inside(cell.doors.network.connections_inside()).crowded(WAITED)).await;
                Arc::clone(&cell.inside.free).acquire_owned().await.map_err(io::Error::other)?
            }
        };
        let connection = Connection {
            to: to.clone(),
            from: Some(from.clone()),
            address,
            up: 0,
            down: 0,
            duration_us: 0,
            closed_by: ClosedBy::Unreachable,
        };
        let (cell, gate) = (Arc::clone(cell), Arc::clone(&gate));
        let (at_work, port) = (at_work.clone(), listen.port);
        tokio::spawn(async move {
            cell.serve_inward((port, &gate), outer, connection, place).await;
            drop((admitted, at_work));
        });
    }
}

impl Cell {
    async fn serve_inward(
        &self,
        (port, gate): (u16, &Gate),
        outer: End,
        mut connection: Connection,
        place: OwnedSemaphorePermit,
    ) {
        let began = Instant::now();
        let until = gate.until(began);
        // A socket of the cell's that is given up half-way would be lost: its time is looked at when it is connected.
        let opened = tokio::select! {
            opened = self.inside.connect(port) => opened.ok_or(ClosedBy::Unreachable),
            () = self.ended() => Err(ClosedBy::End),
        };
        let used = match opened {
            Ok((inner, socket, six)) => {
                let passed = relay::pass(self, (gate, until), inner, outer, Vec::new()).await;
                connection.up = passed.up;
                connection.down = passed.down;
                connection.closed_by = passed.closed_by;
                if let Some(violation) = passed.violation {
                    self.refuse(violation).await;
                }
                Some((six, socket))
            }
            Err(closed_by) => {
                connection.closed_by = closed_by;
                outer.reset();
                None
            }
        };
        connection.duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tell(&Event::Closed(connection)).await;
        if let Some((six, socket)) = used {
            tokio::select! {
                () = self.inside.leave(six, socket) => {}
                () = self.ended() => {}
            }
        }
        drop(place);
    }
}
