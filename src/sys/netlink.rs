//! Addresses of, and routes to, the loopback interface of the current network namespace (rtnetlink(7)).
//!
//! Neighbours: `launch::doors`. Never: takes an address away, or touches another interface.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, FromRawFd, OwnedFd};

use super::{Errno, Result, check_fd, descriptor};

/// A socket that speaks with the kernel of the current network namespace. It stays with that namespace.
#[derive(Debug)]
pub struct Routes(OwnedFd);

/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

impl Routes {
    /// socket(2) of `NETLINK_ROUTE`.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn open() -> Result<Self> {
        // SAFETY: socket takes integers.
        let fd = check_fd(libc::c_long::from(unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        }))?;
        // SAFETY: the call returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Puts an address on `lo`, for this host alone.
    ///
    /// # Errors
    /// The kernel's errno; `EPROTO` for an answer of another form.
    pub fn add_to_loopback(&self, address: IpAddr) -> Result<()> {
        self.ask(&new_address(address))
    }

    /// Makes every address that begins with the first so many bits of this one an address of this host alone, as those of
    /// 127.0.0.0/8 are.
    ///
    /// # Errors
    /// The same.
    pub fn route_to_loopback(&self, first: Ipv6Addr, bits: u8) -> Result<()> {
        self.ask(&new_route(first, bits))
    }

    fn ask(&self, request: &[u8]) -> Result<()> {
        if descriptor::write(self.0.as_fd(), request)? != request.len() {
            return Err(Errno(libc::EPROTO));
        }
        let mut answer = [0; 1024];
        let count = descriptor::read(self.0.as_fd(), &mut answer)?;
        match acknowledged(answer.get(..count).unwrap_or_default()) {
            Some(0) => Ok(()),
            Some(errno) => Err(Errno(errno.wrapping_neg())),
            None => Err(Errno(libc::EPROTO)),
        }
    }
}

/// `RTM_NEWADDR`
fn new_address(address: IpAddr) -> Vec<u8> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    // Nobody else is on a loopback to be asked whether the address is free (`IFA_F_NODAD`).
    const IFA_F_NODAD: u8 = 2;
    let (family, bits, bytes) = match address {
        IpAddr::V4(four) => (libc::AF_INET, 32, four.octets().to_vec()),
        IpAddr::V6(six) => (libc::AF_INET6, 128, six.octets().to_vec()),
    };
    let mut body = vec![u8::try_from(family).unwrap_or_default(), bits, IFA_F_NODAD, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(attribute(kind, &bytes));
    }
    message(libc::RTM_NEWADDR, body)
}

/// `RTM_NEWROUTE`
fn new_route(first: Ipv6Addr, bits: u8) -> Vec<u8> {
    const RTPROT_BOOT: u8 = 3;
    let family = u8::try_from(libc::AF_INET6).unwrap_or_default();
    // No other prefix of where it comes from, and no kind of service.
    let mut body =
        vec![family, bits, 0, 0, libc::RT_TABLE_LOCAL, RTPROT_BOOT, libc::RT_SCOPE_HOST, libc::RTN_LOCAL];
    body.extend([0; 4]);
    body.extend(attribute(libc::RTA_DST, &first.octets()));
    body.extend(attribute(libc::RTA_OIF, &LOOPBACK.to_ne_bytes()));
    message(libc::RTM_NEWROUTE, body)
}

/// Its length is a multiple of four here, so nothing has to be filled up.
fn attribute(kind: u16, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + bytes.len()).unwrap_or_default();
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), bytes].concat()
}

/// A new one of its kind, with an acknowledgement asked for.
fn message(kind: u16, body: Vec<u8>) -> Vec<u8> {
    const NLM_F_REQUEST: u16 = 1;
    const NLM_F_ACK: u16 = 4;
    const NLM_F_CREATE: u16 = 0x400;
    const NLM_F_EXCL: u16 = 0x200;
    let mut message = u32::try_from(16 + body.len()).unwrap_or_default().to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).to_ne_bytes());
    // Sequence number and sender: one question at a time.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The errno of an `NLMSG_ERROR`, negative or 0.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(errno)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::thread;

    use super::*;
    use crate::sys::{network, process};

    /// In a namespace of its own, where the test may make one.
    #[test]
    fn an_address_that_was_put_on_the_loopback_can_be_listened_at() {
        let in_namespace = || {
            process::unshare(libc::CLONE_NEWNET)?;
            network::loopback_up()?;
            let routes = Routes::open()?;
            let bind = |address: &str| TcpListener::bind((address, 5432)).map(drop).map_err(Errno::from);
            assert_eq!(bind("10.0.0.5"), Err(Errno(libc::EADDRNOTAVAIL)));
            routes.add_to_loopback("10.0.0.5".parse().unwrap())?;
            assert_eq!(bind("10.0.0.5"), Ok(()));
            assert_eq!(routes.add_to_loopback("10.0.0.5".parse().unwrap()), Err(Errno(libc::EEXIST)));
            if UdpSocket::bind("[::1]:0").is_ok() {
                routes.add_to_loopback("fd74::1".parse().unwrap())?;
                assert_eq!(bind("fd74::1"), Ok(()));
                let reached = || {
                    let listener = TcpListener::bind("[::]:5432")?;
                    let stream = TcpStream::connect("[fd75::7:8]:5432")?;
                    assert_eq!(listener.accept()?.0.local_addr()?, stream.peer_addr()?);
                    Ok::<_, std::io::Error>(())
                };
                assert!(reached().is_err());
                let all = "fd75::".parse().unwrap();
                routes.route_to_loopback(all, 64)?;
                reached()?;
                assert_eq!(routes.route_to_loopback(all, 64), Err(Errno(libc::EEXIST)));
            }
            Ok(())
        };
        match thread::scope(|scope| scope.spawn(in_namespace).join().unwrap()) {
            Ok(()) | Err(Errno(libc::EPERM)) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}
