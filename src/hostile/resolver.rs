//! Probes that hide what they send in a question for a name: to a name server, or to a service of the host that asks one.
//!
//! What the C library does for a name is all here: the sockets of local services, then the servers of /etc/resolv.conf by UDP and
//! TCP. Neighbours: `hostile::tools` lists them, `network` has the other ways out. Never: asks for a name that any server would
//! look up elsewhere (`.invalid`, RFC 6761).

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::network::{PATIENCE, address};
use super::report::{Call, Probed, errno};
use crate::sys::Errno;

/// What is told: the first label of the name.
const TOLD: &str = "toolcell-probe";
/// How long a name server may take, which may be far.
const ANSWER: Duration = Duration::from_secs(1);
/// Where services of a host wait for questions: nscd, systemd-resolved by its own protocol and by the bus, Avahi, nslcd, SSSD.
const SERVICES: &[&str] = &[
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/dbus/system_bus_socket",
    "/run/avahi-daemon/socket",
    "/run/nslcd/socket",
    "/var/lib/sss/pipes/nss",
];

/// A question for a text record of a name that begins with what is told (RFC 1035, section 4).
fn question() -> Vec<u8> {
    const TXT: u8 = 16;
    const INTERNET: u8 = 1;
    // Number, "recursion desired", one question, nothing else.
    let mut message = vec![0x74, 0x63, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [TOLD, "invalid"] {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, TXT, 0, INTERNET]);
    message
}

/// The same with its length before it, as over TCP (RFC 1035, section 4.2.2).
fn question_with_length() -> Vec<u8> {
    let question = question();
    let length = u16::try_from(question.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], &question].concat()
}

/// Sends a question by UDP.
pub(super) fn call_home_by_dns(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(&question(), address));
    Ok(call.tried(
        "sendto",
        format!("udp {address}"),
        sent.map(|_bytes| "sent".to_owned()).map_err(|error| errno(&error)),
    ))
}

/// Sends a question by TCP.
pub(super) fn call_home_by_dns_over_tcp(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    let sent = TcpStream::connect_timeout(&address, PATIENCE)
        .and_then(|mut stream| stream.write_all(&question_with_length()));
    Ok(call.tried(
        "connect",
        format!("tcp {address}"),
        sent.map(|()| "sent".to_owned()).map_err(|error| errno(&error)),
    ))
}

/// Sends a question to a local service, as systemd-resolved takes it (varlink: JSON that ends with NUL).
pub(super) fn call_home_by_service(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let question = format!(
        "{{\"method\":\"io.systemd.Resolve.ResolveHostname\",\"parameters\":{{\"name\":\"{TOLD}.invalid\"}}}}\0"
    );
    let sent = UnixStream::connect(path).and_then(|mut stream| stream.write_all(question.as_bytes()));
    Ok(call.tried(
        "connect",
        path.to_string_lossy(),
        sent.map(|()| "sent".to_owned()).map_err(|error| errno(&error)),
    ))
}

/// Asks whoever answers questions on this host: its services, then its name servers by UDP and TCP, a given one and those of
/// where this runs. Something is told when somebody has answered; a service need only be reached.
pub(super) fn call_home_by_resolver(call: &mut Call<'_>) -> Probed {
    let address = address(call)?;
    for service in SERVICES {
        if UnixStream::connect(service).is_ok() {
            return Ok(call.tried("connect", *service, Ok("connected".to_owned())));
        }
    }
    let ask = |address| by_udp(address).or_else(|_refused| by_tcp(address));
    let (mut address, mut answered) = (address, ask(address));
    for other in own_servers() {
        if answered.is_err() && ask(other).is_ok() {
            (address, answered) = (other, Ok(()));
        }
    }
    Ok(call.tried("connect", format!("tcp {address}"), answered.map(|()| "answered".to_owned())))
}

/// The name servers that are asked for names here (resolv.conf(5)).
pub fn own_servers() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers =
        text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.map(|server| SocketAddr::new(server, 53)).collect()
}

fn by_udp(address: SocketAddr) -> Result<(), Errno> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let asked = UdpSocket::bind(any).and_then(|socket| {
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect(address)?;
        socket.send(&question())?;
        socket.recv(&mut [0; 512])
    });
    asked.map(drop).map_err(|error| errno(&error))
}

fn by_tcp(address: SocketAddr) -> Result<(), Errno> {
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(&question_with_length())?;
        stream.read_exact(&mut [0; 2])
    });
    asked.map_err(|error| errno(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one() {
        let question = question();
        assert_eq!(question.len(), 12 + 1 + TOLD.len() + 1 + "invalid".len() + 1 + 4);
        assert_eq!(&question[12..=12 + TOLD.len()], b"\x0etoolcell-probe");
        let over_tcp = question_with_length();
        assert_eq!((over_tcp[0], usize::from(over_tcp[1])), (0, question.len()));
    }
}
