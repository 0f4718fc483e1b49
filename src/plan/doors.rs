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

use super::Refusal;
use crate::policy::http::Http;
use crate::policy::listen::Listen;
use crate::policy::network::{Allowed, Destination, Host, MOST_DESTINATIONS, Network};

/// Bytes in which the doors of one cell are passed on, at most: in one message.
pub const LARGEST: usize = 64 * 1024;
/// Bytes of [`Doors::words`], at most: they are a part of what init reports.
const LONGEST: usize = 16 * 1024;
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
/// Before the first of those that the resolver gives out, which is `127.80.0.1`.
pub const GIVEN_OUT: u32 = 0x7f50_0000;
/// The same of IPv6.
pub const GIVEN_OUT_SIX: u128 = 0xfd74_5ce1_1d00_0001_0000_0000_0000_0000;
/// How many bits of them are the same.
pub const GIVEN_OUT_BITS: u8 = 64;

/// The doors of one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// It does not listen, and is not connected: one by which a port of the cell is reached, of IPv6 or of IPv4.
    Inside {
        /// IPv6.
        six: bool,
    },
    /// It listens on the host, for this of the policy's ports.
    Outside(u16),
}

impl Doors {
    /// Those of a policy; `None` if it lets nothing out.
    #[must_use]
    pub fn of(network: &Network, six: bool) -> Option<Self> {
        let mut kept = network.clone();
        // Who keeps a door gets the secret, and is not told where it was.
        for credential in kept.http.iter_mut().filter_map(|http| http.credential.as_mut()) {
            credential.secret = None;
        }
        let mut doors = Self { network: kept, places: Vec::new(), put: Vec::new(), ports: Vec::new(), six };
        let mut ports = BTreeSet::new();
        for (allowed, nth) in network.doors().zip(1..) {
            let Destination { host, .. } = &allowed.destination;
            ports.insert(network.inside(&allowed.destination));
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

    /// The same, if a cell has room for so many.
    ///
    /// # Errors
    /// Of what there is too much.
    pub fn fitting(network: &Network, six: bool) -> Result<Option<Self>, Refusal> {
        let count = network.doors().count();
        if count > MOST_DESTINATIONS {
            return Err(Refusal::TooManyDoors { count, most: MOST_DESTINATIONS });
        }
        let doors = Self::of(network, six);
        match doors.as_ref().and_then(Self::excess) {
            Some((size, most)) => Err(Refusal::LargeDoors { size, most }),
            None => Ok(doors),
        }
    }

    /// Bytes that are too many, and how many there can be.
    fn excess(&self) -> Option<(usize, usize)> {
        let passed = postcard::to_allocvec(self).map_or(usize::MAX, |bytes| bytes.len());
        let told = serde_json::to_vec(&self.words()).map_or(usize::MAX, |bytes| bytes.len());
        [(told, LONGEST), (passed, LARGEST)].into_iter().find(|(size, most)| size > most)
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

    /// Where the door at this place leads: `localhost` and 127.0.0.1 share one, with ports of their own. A name that a pattern
    /// covers too has the pattern's ports beside its own.
    #[must_use]
    pub fn door_at(&self, address: IpAddr, port: u16) -> Option<Destination> {
        let here = || self.places.iter().filter(|place| place.addresses.contains(&address));
        let own = here().find_map(|Place { host, .. }| {
            let mut doors = self.network.doors().map(|Allowed { destination, .. }| destination);
            doors.find(|door| door.host == *host && self.network.inside(door) == port).cloned()
        });
        own.or_else(|| {
            here().find_map(|Place { host, .. }| {
                let Host::Name(name) = host else { return None };
                let door = Destination { host: host.clone(), port };
                (self.network.allows_name(name, port).is_some() && self.network.ends(&door).is_none())
                    .then_some(door)
            })
        })
    }

    /// The door at which TLS ends that is meant by who speaks TLS to its host itself.
    #[must_use]
    pub fn ended_at(&self, address: IpAddr, port: u16) -> Option<&Http> {
        let here = self.places.iter().find(|place| place.addresses.contains(&address))?;
        let door = self.network.ends(&Destination { host: here.host.clone(), port });
        door.filter(|door| door.listen != port)
    }

    /// May a program connect to this address and port? One that the resolver gave out may be a door.
    #[must_use]
    pub fn is_door(&self, address: IpAddr, port: u16) -> bool {
        if address == IpAddr::V4(RESOLVER) && port == DNS && self.has_names() {
            return true;
        }
        let given_out = match address {
            IpAddr::V4(four) => four.to_bits() & 0xffff_0000 == GIVEN_OUT,
            IpAddr::V6(six) => self.six && (six.to_bits() ^ GIVEN_OUT_SIX) >> (128 - GIVEN_OUT_BITS) == 0,
        };
        if given_out {
            return self.network.doors().any(|allowed| {
                matches!(allowed.destination.host, Host::Below(_)) && allowed.destination.port == port
            });
        }
        self.door_at(address, port).is_some()
    }

    /// Does the resolver give out addresses of IPv6?
    #[must_use]
    pub fn gives_out_six(&self) -> bool {
        self.six && self.places.iter().any(|place| matches!(place.host, Host::Below(_)))
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
            let ended = self.network.ends(&allowed.destination);
            let limits = self.network.bounds_of(&allowed.destination.host, allowed.destination.port);
            let limits = limits.map_or_else(String::new, |bounded| bounded.limits.in_brackets());
            let door =
                match (&allowed.destination.host, place.and_then(|place| place.addresses.first()), ended) {
                    (Host::Name(_), Some(address), Some(http)) => {
                        format!("{} at {address}:{} ({})", allowed.destination, http.listen, http.words())
                    }
                    (Host::Name(_), Some(address), None) => format!("{} at {address}", allowed.destination),
                    _ => allowed.destination.to_string(),
                };
            format!("{door}{limits}")
        });
        let sockets =
            self.network.unix.iter().map(|socket| format!("{}{}", socket.path, socket.limits.in_brackets()));
        let out = doors.chain(sockets).collect::<Vec<_>>().join(", ");
        let into = self.network.listen.iter().map(Listen::words).collect::<Vec<_>>().join(", ");
        match (out.is_empty(), into.is_empty()) {
            (_, true) => out,
            (true, false) => format!("none out; into the cell: {into}"),
            (false, false) => format!("{out}; into the cell: {into}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::{Credential, PathPattern};
    use crate::policy::source::{From, Place, Secret};

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
            ("fd74:5ce1:1d00:1::9", 443, true),
            ("fd74:5ce1:1d00:1::9", 80, false),
            ("fd74:5ce1:1d00:2::9", 443, false),
            ("127.0.0.53", 53, true),
            ("127.0.0.53", 443, false),
            ("1.1.1.1", 443, false),
        ] {
            assert_eq!(doors.is_door(address.parse().unwrap(), port), door, "{address} {port}");
        }
    }

    #[test]
    fn a_name_that_a_pattern_covers_has_the_ports_of_both() {
        let doors = doors(&["a.b.example:80", "*.b.example:443", "c.example:80"], false).unwrap();
        let led =
            |address: &str, port| doors.door_at(address.parse().unwrap(), port).map(|door| door.to_string());
        assert_eq!(led("127.64.0.1", 80).as_deref(), Some("a.b.example:80"));
        assert_eq!(led("127.64.0.1", 443).as_deref(), Some("a.b.example:443"));
        assert_eq!((led("127.64.0.1", 81), led("127.64.0.3", 443)), (None, None));
    }

    /// Its own port has nothing behind it, so that no request goes past the rules; and where the secret is, no plan says.
    #[test]
    fn a_door_at_which_tls_ends_is_at_its_port_in_the_cell_alone() {
        let secret = Secret {
            from: From::Env("A".to_owned()),
            to: Vec::new(),
            into: Place::Header("X-Key".to_owned()),
            format: None,
            max_age: None,
            warn_age: None,
            rotated: None,
        };
        let http = Http {
            host: "a.example".to_owned(),
            port: 443,
            listen: 8080,
            methods: vec!["GET".to_owned()],
            paths: vec![PathPattern::parse("/**").unwrap()],
            credential: Some(Credential {
                header: "X-Key".to_owned(),
                around: (String::new(), String::new()),
                secret: Some(Box::new(secret)),
            }),
            roots: None,
            origin: String::new(),
        };
        let allow = ["a.example:443", "b.example:443", "*.example:443"];
        let allow = allow.map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() });
        let network = Network { allow: allow.to_vec(), http: vec![http], ..Network::default() };
        let doors = Doors::of(&network, false).unwrap();
        assert_eq!(doors.ports, [443, 8080]);
        let led = |address: &str, port| {
            doors.door_at(address.parse().unwrap(), port).map(|destination| destination.to_string())
        };
        assert_eq!(led("127.64.0.1", 8080).as_deref(), Some("a.example:443"));
        assert_eq!((led("127.64.0.1", 443), led("127.64.0.2", 8080)), (None, None));
        assert_eq!(led("127.64.0.1", 444), None);
        assert_eq!(led("127.64.0.2", 443).as_deref(), Some("b.example:443"));
        let meant = |port| doors.ended_at("127.64.0.1".parse().unwrap(), port).map(Http::address);
        assert_eq!((meant(443).as_deref(), meant(8080)), (Some("http://a.example:8080"), None));
        assert!(doors.words().starts_with(
            "a.example:443 at 127.64.0.1:8080 (TLS ends at the door: GET of /**; `X-Key` is put in by the door), b.example:443 at"
        ));
        assert!(doors.network.http[0].credential.as_ref().unwrap().secret.is_none());
    }

    #[test]
    fn without_a_destination_there_are_no_doors_and_without_ipv6_no_addresses_of_it() {
        assert_eq!(doors(&[], true), None);
        let four = doors(&["a.example:443", "*.b.example:443"], false).unwrap();
        assert!(!four.gives_out_six() && !four.is_door("fd74:5ce1:1d00:1::9".parse().unwrap(), 443));
        assert_eq!((four.places[0].addresses.len(), four.put.len()), (1, 0));
    }
}
