//! Ranges of IP addresses, and which addresses are nobody's on the open network.
//!
//! Neighbours: `policy::network` has ranges in it, `network::guard` asks about what a name leads to. Never: resolves a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeError {
    /// It is of another form.
    #[error("`{0}` is no range of addresses")]
    Form(String),
    /// Bits behind those that count are set.
    #[error("`{text}` has bits set behind the first {bits}")]
    Rest {
        /// As it was written.
        text: String,
        /// How many count.
        bits: u8,
    },
}

impl Range {
    /// Is the address in it? One of IPv4 that is written as one of IPv6 is the one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, plain(address)) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let form = || RangeError::Form(text.to_owned());
        let (base, bits) = text.split_once('/').ok_or_else(form)?;
        let base: IpAddr = base.parse().map_err(|_no_address: std::net::AddrParseError| form())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        // `+8` and `08` are numbers to `parse`.
        let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits: u8 = bits.parse().map_err(|_no_number: std::num::ParseIntError| form())?;
        if bits > most || !plain {
            return Err(form());
        }
        let range = Self { base, bits };
        if !range.contains(base) {
            return Err(RangeError::Rest { text: text.to_owned(), bits });
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// An address of IPv4 that is written as one of IPv6, as what it is.
#[must_use]
pub const fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Where clouds tell a machine its own secrets.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What an address is, if it is not one that belongs to somebody on the open network.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    let address = plain(address);
    if METADATA.contains(&address) {
        return Some("cloud metadata");
    }
    match address {
        IpAddr::V4(four) => special_four(four),
        IpAddr::V6(six) => special_six(six),
    }
}

fn special_four(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("unspecified"),
        (127, ..) => Some("loopback"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("private"),
        (100, 64..=127, _) => Some("shared by a carrier (CGNAT)"),
        (169, 254, _) => Some("link-local"),
        (192, 0, 0) => Some("for protocols"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("for documentation"),
        (192, 88, 99) => Some("a relay's"),
        (198, 18..=19, _) => Some("for benchmarks"),
        (224..=239, ..) => Some("multicast"),
        (240..=255, ..) => Some("reserved"),
        _ => None,
    }
}

fn special_six(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let four = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // What a translator makes an address of IPv4 of leads where that leads.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => special(IpAddr::V4(four(high, low))),
        [0x2002, high, low, ..] => special(IpAddr::V4(four(high, low))).or(Some("a relay's")),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("private"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("for documentation"),
        // Teredo, benchmarks, ORCHID and what else is not routed (RFC 2928).
        [0x2001, 0..=0x1ff, ..] => Some("for protocols"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_open_network_is_known_in_every_disguise() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "2001::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
            "4000::1",
            "::ffff:169.254.169.254",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.1",
            "169.253.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00:1450::1",
            "64:ff9b::101:101",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
        assert_eq!(special("169.254.169.254".parse().unwrap()), Some("cloud metadata"));
    }

    #[test]
    fn a_range_holds_what_begins_alike_and_is_written_in_one_way() {
        let range: Range = "10.0.0.0/8".parse().unwrap();
        for (address, inside) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("::ffff:10.1.1.1", true),
            ("fd00::1", false),
        ] {
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!("0.0.0.0/0".parse::<Range>().unwrap().contains("9.9.9.9".parse().unwrap()));
        assert!("::/0".parse::<Range>().unwrap().contains("fd00::1".parse().unwrap()));
        assert!("fd00::/8".parse::<Range>().unwrap().contains("fdff::1".parse().unwrap()));
        assert_eq!("fd00::/8".parse::<Range>().unwrap().to_string(), "fd00::/8");
        for wrong in [
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "::/129",
            "/8",
            "a/8",
        ] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }
}
