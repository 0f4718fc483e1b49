//! The doors of a cell: what can be reached, and at which addresses of the cell's own loopback.
//!
//! ```text
//! program in the cell ── connect(127.64.0.1:443) ──► listening socket, made by init ──► `network`, outside ──► api.github.com:443
//! ```
//!
//! A name has an address of its own, which the cell's `/etc/hosts` tells; an address that is granted is put on the cell's `lo` as
//! it is. Names below a pattern get theirs from a resolver when they are asked for.
//!
//! Neighbours: `plan::build` puts the step in, `launch::doors` makes the sockets, `network` keeps them. Never: resolves a name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::policy::network::{Allowed, Destination, Host, Network};

/// Where the resolver of a cell is, over UDP and TCP.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// Its port.
pub const DNS: u16 = 53;
/// Where init tries whether something listens: an address that is no door's.
pub const TRIED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 254);
/// The first of the addresses that names get: `127.64.0.1`, and as many as there are names.
const NAMES: u32 = 0x7f40_0000;
/// The same of IPv6: an address that belongs to nobody, of a prefix drawn by lot (RFC 4193).
const NAMES_SIX: u128 = 0xfd74_5ce1_1d00_0000_0000_0000_0000_0000;
/// The first of those that the resolver gives out: `127.80.0.1`.
pub const GIVEN_OUT: u32 = 0x7f50_0000;

/// The doors of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doors {
    /// What the policy says.
    pub network: Network,
    /// Each host with its addresses in the cell, in the order of the policy.
    pub places: Vec<Place>,
    /// Addresses that have to be put on `lo`.
    pub put: Vec<IpAddr>,
    /// TCP ports at which something listens.
    pub ports: Vec<u16>,
    /// This host has IPv6, and so has the cell's `lo`.
    pub six: bool,
}

/// A host, and where it is in the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who.
    pub host: Host,
    /// Where; nothing for a pattern.
    pub addresses: Vec<IpAddr>,
}

/// What one socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listens {
    /// For connections to doors of this port.
    Port(u16),
    /// For questions about names.
    ResolverUdp,
    /// For the same over TCP.
    ResolverTcp,
    /// It does not listen: it is one end of a pair, of which a program has connected the other to this of the policy's sockets.
    Socket(u16),
}

impl Doors {
    /// Those of a policy; `None` if it lets nothing out.
    #[must_use]
    pub fn of(network: &Network, six: bool) -> Option<Self> {
        let mut doors =
            Self { network: network.clone(), places: Vec::new(), put: Vec::new(), ports: Vec::new(), six };
        let mut ports = BTreeSet::new();
        for (allowed, nth) in network.doors().zip(1..) {
            let Destination { host, port } = &allowed.destination;
            ports.insert(*port);
            if doors.places.iter().any(|place| place.host == *host) {
                continue;
            }
            let addresses = doors.addresses(host, nth);
            doors.put.extend(addresses.iter().filter(|address| !address.is_loopback()));
            doors.places.push(Place { host: host.clone(), addresses });
        }
        doors.ports = ports.into_iter().collect();
        if network.is_open() { Some(doors) } else { None }
    }

    fn addresses(&self, host: &Host, nth: u32) -> Vec<IpAddr> {
        match host {
            Host::Address(address) => vec![*address],
            Host::Below(_) => Vec::new(),
            Host::Name(name) => {
                let (four, six) = match name.as_str() {
                    // Programs know where it is without asking.
                    "localhost" => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
                    _ => (Ipv4Addr::from_bits(NAMES + nth), Ipv6Addr::from_bits(NAMES_SIX + u128::from(nth))),
                };
                let six = Some(IpAddr::V6(six)).filter(|_| self.six);
                [IpAddr::V4(four)].into_iter().chain(six).collect()
            }
        }
    }

    /// The host whose door this place is: `localhost` and 127.0.0.1 share one, with ports of their own.
    #[must_use]
    pub fn host_at(&self, address: IpAddr, port: u16) -> Option<&Host> {
        let here = self.places.iter().filter(|place| place.addresses.contains(&address));
        here.map(|place| &place.host).find(|host| {
            self.network
                .doors()
                .any(|Allowed { destination, .. }| destination.port == port && destination.host == **host)
        })
    }

    /// May a program connect to this address and port? One that the resolver gave out may be a door.
    #[must_use]
    pub fn is_door(&self, address: IpAddr, port: u16) -> bool {
        if address == IpAddr::V4(RESOLVER) && port == DNS {
            return true;
        }
        let given_out = match address {
            IpAddr::V4(four) => four.to_bits() & 0xffff_0000 == GIVEN_OUT,
            IpAddr::V6(_) => false,
        };
        if given_out {
            return self.network.doors().any(|allowed| {
                matches!(allowed.destination.host, Host::Below(_)) && allowed.destination.port == port
            });
        }
        self.host_at(address, port).is_some()
    }

    /// Is there anything to be found by an address or a name? Sockets with a path are not.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.places.is_empty()
    }

    /// The cell's `/etc/hosts`.
    #[must_use]
    pub fn hosts_file(&self) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for Place { host, addresses } in &self.places {
            if let Host::Name(name) = host
                && name != "localhost"
            {
                for address in addresses {
                    let _infallible = writeln!(text, "{address} {name}");
                }
            }
        }
        text
    }

    /// The files of `/etc` that tell programs where names are: path and content.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, String)> {
        if !self.has_names() {
            return Vec::new();
        }
        vec![
            ("/etc/hosts", self.hosts_file()),
            ("/etc/resolv.conf", format!("nameserver {RESOLVER}\noptions timeout:2 attempts:2\n")),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ]
    }

    /// Every door in words.
    #[must_use]
    pub fn words(&self) -> String {
        let doors = self.network.doors().map(|allowed| {
            let place = self.places.iter().find(|place| place.host == allowed.destination.host);
            match (&allowed.destination.host, place.and_then(|place| place.addresses.first())) {
                (Host::Name(_), Some(address)) => format!("{} at {address}", allowed.destination),
                _ => allowed.destination.to_string(),
            }
        });
        let sockets = self.network.unix.iter().map(|socket| socket.path.clone());
        doors.chain(sockets).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(allow: &[&str], six: bool) -> Option<Doors> {
        let allowed = |text: &&str| Allowed { destination: text.parse().unwrap(), origin: String::new() };
        Doors::of(&Network { allow: allow.iter().map(allowed).collect(), ..Network::default() }, six)
    }

    #[test]
    fn each_host_has_a_place_and_nothing_else_is_a_door() {
        let doors = doors(
            &[
                "a.example:443",
                "a.example:80",
                "localhost:8080",
                "10.0.0.5:5432",
                "[2001:db8::1]:1",
                "*.b.example:443",
                "127.0.0.1:9",
            ],
            true,
        )
        .unwrap();
        assert_eq!(
            doors.hosts_file(),
            "127.0.0.1 localhost\n::1 localhost\n127.64.0.1 a.example\nfd74:5ce1:1d00::1 a.example\n"
        );
        let put: Vec<String> = doors.put.iter().map(ToString::to_string).collect();
        assert_eq!(put, ["fd74:5ce1:1d00::1", "10.0.0.5", "2001:db8::1"]);
        assert_eq!(doors.ports, [1, 9, 80, 443, 5432, 8080]);
        for (address, port, door) in [
            ("127.64.0.1", 443, true),
            ("fd74:5ce1:1d00::1", 80, true),
            ("127.64.0.1", 8080, false),
            ("127.64.0.2", 443, false),
            ("127.0.0.1", 8080, true),
            ("127.0.0.1", 9, true),
            ("::1", 9, false),
            ("::1", 8080, true),
            ("127.0.0.1", 443, false),
            ("10.0.0.5", 5432, true),
            ("10.0.0.6", 5432, false),
            ("2001:db8::1", 1, true),
            ("127.80.0.9", 443, true),
            ("127.80.0.9", 80, false),
            ("127.0.0.53", 53, true),
            ("127.0.0.53", 443, false),
            ("1.1.1.1", 443, false),
        ] {
            assert_eq!(doors.is_door(address.parse().unwrap(), port), door, "{address} {port}");
        }
    }

    #[test]
    fn without_a_destination_there_are_no_doors_and_without_ipv6_no_addresses_of_it() {
        assert_eq!(doors(&[], true), None);
        let four = doors(&["a.example:443"], false).unwrap();
        assert_eq!((four.places[0].addresses.len(), four.put.len()), (1, 0));
    }
}
