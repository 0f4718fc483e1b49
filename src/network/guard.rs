//! Whether a door may lead to an address that its name was resolved to.
//!
//! Neighbours: `keep` asks before it connects to just that address. Never: resolves, connects.

use std::net::IpAddr;

use crate::policy::address::{plain, special};
use crate::policy::network::Network;

/// Why a door may not lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barred {
    /// `deny` says so.
    Denied,
    /// It is not of the open network, and nothing grants it.
    Special(&'static str),
}

/// May a door of this name lead to this address and port?
pub(super) fn may_lead(network: &Network, name: &str, address: IpAddr, port: u16) -> Result<(), Barred> {
    let address = plain(address);
    if network.denies_address(address, port) {
        return Err(Barred::Denied);
    }
    let Some(what) = special(address) else { return Ok(()) };
    let granted = is_granted(network, name, address, port);
    if granted { Ok(()) } else { Err(Barred::Special(what)) }
}

/// Is it granted by more than that the name leads there?
pub(super) fn is_granted(network: &Network, name: &str, address: IpAddr, port: u16) -> bool {
    let address = plain(address);
    let pinned = network.hosts.get(name).is_some_and(|addresses| addresses.contains(&address));
    // RFC 6761: these lead to the host itself and nowhere else.
    let local = name == "localhost" || name.ends_with(".localhost");
    pinned
        || local && address.is_loopback()
        || network.private.iter().any(|range| range.contains(address))
        || network.allows_address(address, port).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::Allowed;

    #[test]
    fn a_name_leads_to_the_open_network_or_to_what_is_granted_by_its_spelling() {
        let allow = ["10.0.0.5:5432"]
            .map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() });
        let network = Network {
            allow: allow.to_vec(),
            deny: vec!["9.9.9.9:443".parse().unwrap(), "10.1.0.1:*".parse().unwrap()],
            hosts: [("pinned".to_owned(), vec!["192.168.0.1".parse().unwrap()])].into(),
            private: vec!["10.1.0.0/16".parse().unwrap()],
            ..Network::default()
        };
        for (name, address, port, may) in [
            ("a.example", "1.1.1.1", 443, Ok(())),
            ("a.example", "2606:4700::1", 443, Ok(())),
            ("a.example", "127.0.0.1", 443, Err(Barred::Special("loopback"))),
            ("a.example", "::ffff:127.0.0.1", 443, Err(Barred::Special("loopback"))),
            ("a.example", "169.254.169.254", 80, Err(Barred::Special("cloud metadata"))),
            ("a.example", "10.0.0.5", 5432, Ok(())),
            ("a.example", "10.0.0.5", 443, Err(Barred::Special("private"))),
            ("a.example", "10.1.2.3", 443, Ok(())),
            ("a.example", "10.1.0.1", 443, Err(Barred::Denied)),
            ("a.example", "9.9.9.9", 443, Err(Barred::Denied)),
            ("a.example", "9.9.9.9", 80, Ok(())),
            ("pinned", "192.168.0.1", 443, Ok(())),
            ("other", "192.168.0.1", 443, Err(Barred::Special("private"))),
            ("localhost", "127.0.0.1", 80, Ok(())),
            ("localhost", "::1", 80, Ok(())),
            ("localhost", "10.0.0.1", 80, Err(Barred::Special("private"))),
            ("localhost.a.example", "127.0.0.1", 80, Err(Barred::Special("loopback"))),
        ] {
            assert_eq!(
                may_lead(&network, name, address.parse().unwrap(), port),
                may,
                "{name} {address} {port}"
            );
        }
    }
}
