//! Probes that look for a way out over a socket.
//!
//! Neighbours: `hostile::tools` lists them. Never: sends more than one word, and that only to a given address.

use std::ffi::CString;
use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixStream};
use std::time::Duration;

use super::report::{Call, Probed, Refusal, errno};
use crate::sys::connection::{self, Send};
use crate::sys::{Errno, attack, surface};

/// What is sent when a connection is there.
const WORD: &[u8] = b"toolcell-probe\n";
/// How long to wait for an answer that may never come.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// The address argument.
pub(super) fn address(call: &Call<'_>) -> Result<SocketAddr, Refusal> {
    call.text("address")?.parse().map_err(|_malformed| Refusal("address"))
}

/// Connects to a listener and says a word.
pub(super) fn call_home_tcp(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    let sent = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| stream.write_all(WORD));
    Ok(call.tried(
        "connect",
        format!("tcp {address}"),
        sent.map(|()| "connected".to_owned()).map_err(|error| errno(&error)),
    ))
}

/// Connects by several paths at once, which Landlock's rules on TCP did not know for long.
pub(super) fn call_home_by_mptcp(call: &mut Call<'_>) -> Probed {
    let address = internet(call)?;
    let sent = connection::connect(libc::IPPROTO_MPTCP, address, PATIENCE, WORD);
    Ok(call.tried("socket", format!("mptcp {address}"), sent.map(|()| "connected".to_owned())))
}

/// Connects by sendto(2) alone.
pub(super) fn call_home_by_sendto(call: &mut Call<'_>) -> Probed {
    send_unconnected(call, "sendto", Send::To)
}

/// Connects by sendmsg(2) alone.
pub(super) fn call_home_by_sendmsg(call: &mut Call<'_>) -> Probed {
    send_unconnected(call, "sendmsg", Send::Message)
}

/// Connects by sendmmsg(2) alone.
pub(super) fn call_home_by_sendmmsg(call: &mut Call<'_>) -> Probed {
    send_unconnected(call, "sendmmsg", Send::Messages)
}

/// Connects while it sends, where who guards connect(2) does not look.
fn send_unconnected(call: &Call<'_>, operation: &str, by: Send) -> Probed {
    let address = internet(call)?;
    let sent = connection::send_unconnected(by, address, PATIENCE, WORD);
    Ok(call.tried(operation, format!("tcp {address}"), sent.map(|()| "sent".to_owned())))
}

/// The address argument, of IPv4.
fn internet(call: &Call<'_>) -> Result<SocketAddrV4, Refusal> {
    call.text("address")?.parse().map_err(|_malformed| Refusal("address"))
}

/// Sends a datagram.
pub(super) fn call_home_udp(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    // From the loopback address a datagram to many goes out there, and nowhere else.
    let from = if address.ip().is_multicast() { "127.0.0.1:0" } else { "0.0.0.0:0" };
    let sent = UdpSocket::bind(from).and_then(|socket| socket.send_to(WORD, address));
    Ok(call.tried(
        "sendto",
        format!("udp {address}"),
        sent.map(|_bytes| "sent".to_owned()).map_err(|error| errno(&error)),
    ))
}

/// Connects to where clouds hand out credentials. A connection that is merely not answered has left the machine.
pub(super) fn read_metadata_address(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    let result = match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_stream) => Ok("connected".to_owned()),
        Err(error) => match errno(&error) {
            Errno(libc::ETIMEDOUT | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ECONNRESET) => {
                Ok("sent, no answer".to_owned())
            }
            errno => Err(errno),
        },
    };
    Ok(call.tried("connect", format!("tcp {address}"), result))
}

/// Connects to a socket in the file system.
pub(super) fn connect_path_socket(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let connected = UnixStream::connect(path).map(|_stream| "connected".to_owned());
    Ok(call.tried("connect", path.to_string_lossy(), connected.map_err(|error| errno(&error))))
}

/// Connects to a socket that has a name and no file.
pub(super) fn connect_abstract_socket(call: &mut Call<'_>) -> Probed {
    let name = call.text("name")?;
    let connected = net::SocketAddr::from_abstract_name(name)
        .and_then(|address| UnixStream::connect_addr(&address))
        .map(|_stream| "connected".to_owned());
    Ok(call.tried("connect", format!("@{name}"), connected.map_err(|error| errno(&error))))
}

/// Opens a socket that sees and forges packets.
pub(super) fn open_raw_socket(call: &mut Call<'_>) -> Probed {
    let opened = attack::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    Ok(call.tried("socket", "AF_INET SOCK_RAW", opened.map(|()| "opened".to_owned())))
}

/// Opens a socket of the kernel's cryptography, a family with a long list of holes.
pub(super) fn open_crypto_socket(call: &mut Call<'_>) -> Probed {
    let opened = attack::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
    Ok(call.tried("socket", "AF_ALG", opened.map(|()| "opened".to_owned())))
}

/// Opens a socket that configures interfaces and routes.
pub(super) fn open_netlink_socket(call: &mut Call<'_>) -> Probed {
    let opened = attack::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
    Ok(call.tried("socket", "AF_NETLINK", opened.map(|()| "opened".to_owned())))
}

/// Opens a socket that sends echo requests.
pub(super) fn open_ping_socket(call: &mut Call<'_>) -> Probed {
    let opened = attack::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP);
    Ok(call.tried("socket", "AF_INET ICMP", opened.map(|()| "opened".to_owned())))
}

/// Opens sockets of every other family.
pub(super) fn open_unusual_sockets(call: &mut Call<'_>) -> Probed {
    const USUAL: [i32; 6] =
        [libc::AF_UNSPEC, libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_ALG];
    let (mut opened, mut refusal) = (Vec::new(), Errno(libc::EAFNOSUPPORT));
    for family in (0..46).filter(|family| !USUAL.contains(family)) {
        let kinds = [libc::SOCK_RAW, libc::SOCK_DGRAM, libc::SOCK_STREAM, libc::SOCK_SEQPACKET];
        for kind in kinds {
            match attack::socket(family, kind, 0) {
                Ok(()) => opened.push(family),
                Err(errno) => refusal = errno,
            }
        }
    }
    opened.dedup();
    let saw = if opened.is_empty() { Err(refusal) } else { Ok(format!("opened {opened:?}")) };
    Ok(call.tried("socket", "other families", saw))
}

/// Waits for connections.
pub(super) fn listen(call: &mut Call<'_>) -> Probed {
    let listening = TcpListener::bind("0.0.0.0:0").map(|_listener| "listening".to_owned());
    Ok(call.tried("bind", "tcp 0.0.0.0", listening.map_err(|error| errno(&error))))
}

/// Hands an open file to whoever reads from the other side of standard input.
pub(super) fn pass_descriptor(call: &mut Call<'_>) -> Probed {
    let passed = surface::pass_descriptor().map(|()| "passed".to_owned());
    Ok(call.tried("sendmsg", "SCM_RIGHTS", passed))
}

/// Looks for a shared memory segment by its key.
pub(super) fn find_segment(call: &mut Call<'_>) -> Probed {
    let key = i32::try_from(call.number("key", 0)?).map_err(|_too_large| Refusal("key"))?;
    let found = surface::find_segment(key).map(|()| "found".to_owned());
    Ok(call.tried("shmget", format!("{key:#x}"), found))
}

/// Opens a message queue by its name.
pub(super) fn find_queue(call: &mut Call<'_>) -> Probed {
    let name = CString::new(call.text("name")?).map_err(|_nul| Refusal("name"))?;
    let found = surface::find_queue(&name).map(|()| "opened".to_owned());
    Ok(call.tried("mq_open", name.to_string_lossy(), found))
}
