//! Takes what comes to the TCP ports of a cell: each connection leads to a door, to the resolver, or nowhere.
//!
//! Neighbours: `keep` starts it for each port and serves doors, `gate` lets in. Never: reads a byte of a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::gate::{Entry, Few, Gate, Place, Turn};
use super::keep::{Cell, Target, reset};
use super::waits::{ASKED, while_there};
use super::{refused, resolver};
use crate::outcome::Violation;
use crate::plan::doors::{DNS, RESOLVER, TRIED};
use crate::policy::address::plain;
use crate::policy::network::allow_line;
use crate::sys::socket;

/// How long nothing is accepted when this process has no room for another descriptor.
const NO_ROOM: Duration = Duration::from_millis(50);

/// What a connection has come to.
#[derive(Debug)]
enum Reached {
    /// A door.
    Door(Target),
    /// The cell's resolver.
    Resolver,
    /// What init tries.
    Tried,
    /// None.
    Nowhere(SocketAddr),
}

/// While there is no room for another connection, who connects waits in the kernel, of which it has a bounded place; but for one
/// at each port, which is here, and for a few that wait for their door, by a limit of its own or by the section's `rate`: so many
/// at one door, and so many in a cell.
pub(super) async fn accept(
    cell: &Arc<Cell>,
    listener: &TcpListener,
    at_work: &mpsc::Sender<()>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                sleep_until(Instant::now() + NO_ROOM).await;
                continue;
            }
            // It was given up before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let Ok(local) = stream.local_addr() else { continue };
        let (cell, at_work) = (Arc::clone(cell), at_work.clone());
        let (reached, place) = match cell.reached(local) {
            Reached::Door(target) => match target.gate.enter(Instant::now()) {
                Entry::In(place) => (Reached::Door(target), place),
                Entry::Waits(turn, one_of_few, violation) => {
                    tokio::spawn(async move {
                        cell.refuse(*violation).await;
                        let _hung_up = cell.serve_in_turn(stream, target, (turn, one_of_few)).await.is_err();
                        drop(at_work);
                    });
                    continue;
                }
                Entry::Full(violation) => {
                    cell.refuse(*violation).await;
                    reset(stream);
                    continue;
                }
            },
            other => (other, None),
        };
        let slot = cell.slot().await?;
        tokio::spawn(async move {
            cell.serve(stream, reached).await;
            drop((slot, place, at_work));
        });
    }
}

impl Cell {
    /// Has one wait; `None`, if too many do.
    pub(super) async fn admit(&self, gate: &Arc<Gate>) -> Option<Place> {
        match gate.enter(Instant::now()) {
            Entry::In(place) => Some(place),
            Entry::Waits(turn, one_of_few, violation) => {
                self.refuse(*violation).await;
                let place = turn.come().await;
                drop(one_of_few);
                Some(place)
            }
            Entry::Full(violation) => {
                self.refuse(*violation).await;
                None
            }
        }
    }

    /// The same where those behind it wait in the kernel.
    pub(super) async fn admit_in_line(&self, gate: &Arc<Gate>) -> Place {
        match gate.enter_in_line(Instant::now()) {
            Ok(place) => place,
            Err((turn, violation)) => {
                self.refuse(*violation).await;
                turn.come().await
            }
        }
    }

    /// What is at this address of the cell's.
    fn reached(&self, local: SocketAddr) -> Reached {
        let (address, port) = (plain(local.ip()), local.port());
        if (address, port) == (IpAddr::V4(RESOLVER), DNS) {
            return Reached::Resolver;
        }
        if address == IpAddr::V4(TRIED) && self.doors.door_at(address, port).is_none() {
            return Reached::Tried;
        }
        self.target(address, port)
            .map_or_else(|| Reached::Nowhere(SocketAddr::new(address, port)), Reached::Door)
    }

    /// One that has to wait until its door lets it in.
    async fn serve_in_turn(
        &self,
        stream: TcpStream,
        target: Target,
        (turn, one_of_few): (Turn, Few),
    ) -> io::Result<()> {
        let began = Instant::now();
        let socket = OwnedFd::from(stream.into_std()?);
        socket::keep_alive(socket.as_fd(), ASKED)?;
        let enter = async {
            let place = turn.come().await;
            let slot = self.slot().await;
            drop(one_of_few);
            slot.map(|slot| (slot, place))
        };
        let waited = tokio::select! {
            waited = while_there(socket, enter) => waited?,
            () = self.ended() => return Ok(()),
        };
        let Some((socket, held)) = waited else {
            self.left(target.to(), began).await;
            return Ok(());
        };
        let held = held?;
        let stream = TcpStream::from_std(socket.into())?;
        self.serve_door(stream, &target).await;
        drop(held);
        Ok(())
    }

    async fn serve(&self, stream: TcpStream, reached: Reached) {
        match reached {
            Reached::Door(target) => self.serve_door(stream, &target).await,
            Reached::Resolver => {
                tokio::select! {
                    _given_up = resolver::answer_tcp(self, stream) => {}
                    () = self.ended() => {}
                }
            }
            Reached::Tried => {}
            Reached::Nowhere(at) => {
                let object = at.to_string();
                let (allow, rule) = match self.doors.ended_at(at.ip(), at.port()) {
                    Some(http) => {
                        (None, format!("TLS ends at the door: the way to it is `{}`", http.address()))
                    }
                    None => (Some(allow_line(&object)), "the doors: none leads there".to_owned()),
                };
                self.refuse(Violation { allow, ..refused("connect", object, rule) }).await;
                reset(stream);
            }
        }
    }
}
