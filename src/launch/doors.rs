//! Init's side of doors: puts addresses on the cell's `lo`, listens there, and hands the sockets over.
//!
//! The sockets belong to the cell's network namespace wherever they are held, so who accepts on them outside speaks with the
//! cell, and what that connects by itself goes out from the host.
//!
//! Neighbours: `launch::init` runs it while it still may bind to every port; `network` has the sockets in the end. Never:
//! keeps one: the payload could get at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use super::init::{State, tell};
use super::{LaunchError, Report};
use crate::plan::doors::{DNS, Doors, GIVEN_OUT_BITS, GIVEN_OUT_SIX, Listens, RESOLVER, TRIED};
use crate::sys::netlink::Routes;
use crate::sys::{Errno, Result, network};

pub(super) fn open(doors: &Doors, state: &mut State<'_>) -> std::result::Result<(), LaunchError> {
    let failed = |object: String| move |errno| LaunchError::new("open-doors", object, errno);
    if !doors.put.is_empty() || doors.gives_out_six() {
        let routes = Routes::open().map_err(failed("lo".to_owned()))?;
        for address in &doors.put {
            routes.add_to_loopback(*address).map_err(failed(address.to_string()))?;
        }
        if doors.gives_out_six() {
            let first = Ipv6Addr::from_bits(GIVEN_OUT_SIX);
            let object = format!("{first}/{GIVEN_OUT_BITS}");
            routes.route_to_loopback(first, GIVEN_OUT_BITS).map_err(failed(object))?;
        }
    }
    let outside = std::mem::take(&mut state.outside);
    let hand_over = |listens, socket: OwnedFd| tell(&state.channel, &Report::Door(listens), Some(&socket));
    for port in &doors.ports {
        // One socket for every address of both families: who accepts asks which one it was.
        let any =
            if doors.six { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let socket = listen(SocketAddr::new(any, *port));
        socket
            .and_then(|socket| hand_over(Listens::Port(*port), socket))
            .map_err(failed(format!("port {port}")))?;
    }
    let resolver = || {
        let at = SocketAddr::new(IpAddr::V4(RESOLVER), DNS);
        hand_over(Listens::ResolverUdp, UdpSocket::bind(at)?.into())?;
        // A door of that port has it for every address.
        if doors.ports.contains(&DNS) { Ok(()) } else { hand_over(Listens::ResolverTcp, listen(at)?) }
    };
    if doors.has_names() {
        resolver().map_err(failed("the resolver".to_owned()))?;
    }
    let inward = || {
        if outside.len() != doors.network.listen.len() {
            return Err(Errno(libc::EBADF));
        }
        // Who connects one of these outside is at the cell's own loopback.
        for six in [false, true].into_iter().filter(|six| !six || doors.six) {
            for _ in 0..doors.network.connections_inside() {
                hand_over(Listens::Inside { six }, network::unconnected(six)?)?;
            }
        }
        for (socket, nth) in outside.into_iter().zip(0..) {
            hand_over(Listens::Outside(nth), socket)?;
        }
        Ok(())
    };
    inward().map_err(failed("what leads into the cell".to_owned()))
}

fn listen(at: SocketAddr) -> Result<OwnedFd> {
    Ok(OwnedFd::from(TcpListener::bind(at)?))
}

/// Something listens at each port of the doors, and a connection to it may be made: tried at an address that is no door, by which
/// who accepts outside knows what it is.
pub(super) fn try_each(doors: &Doors) -> std::result::Result<(), (String, Errno)> {
    let resolver = doors.has_names().then_some(SocketAddr::new(IpAddr::V4(RESOLVER), DNS));
    let ports = doors.ports.iter().map(|port| SocketAddr::new(IpAddr::V4(TRIED), *port));
    for at in ports.chain(resolver) {
        TcpStream::connect(at).map_err(|error| (format!("nothing listens at {at}"), Errno::from(error)))?;
    }
    Ok(())
}
