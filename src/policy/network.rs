//! What a tool may reach over the network: destinations, each of which becomes a door of the cell.
//!
//! Neighbours: `policy::profile` reads the section, `plan` makes doors of it, `network` keeps them. Never: resolves a name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{Range, plain};
use super::door::Bounded;
use super::http::Http;
use super::listen::Listen;
use super::mode::Mode;
use super::unix_socket::UnixSocket;

/// Connections at once, if a profile says nothing.
pub const DEFAULT_CONNECTIONS: u32 = 64;
/// The most destinations of one policy: each has an address of its own.
pub const MOST_DESTINATIONS: usize = 128;

/// The `[network]` section. Without `allow` there is no way out of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whose network it is. In the host's nothing else of this section holds.
    #[serde(default)]
    pub mode: Mode,
    /// What can be reached.
    pub allow: Vec<Allowed>,
    /// What cannot, although `allow` says so.
    pub deny: Vec<Denied>,
    /// Sockets of the host's with a path that can be reached.
    pub unix: Vec<UnixSocket>,
    /// Ports of the cell that can be reached from this host.
    pub listen: Vec<Listen>,
    /// Names with addresses of the operator's choice, which are not asked for and count as granted.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Ranges that are not of the open network, into which a name may lead all the same.
    pub private: Vec<Range>,
    /// Which server a TLS connection may ask for.
    pub sni: Sni,
    /// Connections at once.
    pub connections: u32,
    /// Bytes that a call may send, all connections together.
    pub up: Option<u64>,
    /// Bytes that it may be sent.
    pub down: Option<u64>,
    /// How long a connection may last, at a door that says nothing of it.
    pub time: Option<Duration>,
    /// New connections in a second, at each door that says nothing of it.
    pub rate: Option<u32>,
    /// What of `allow` has limits of its own. A call whose arguments say where to keeps them, whatever is left of `allow`.
    pub bounded: Vec<Bounded>,
    /// Doors at which TLS ends, each of them in `allow` too.
    pub http: Vec<Http>,
    /// `allow` is what the arguments of one call name: no line of a profile adds to it.
    #[serde(skip)]
    pub named: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            mode: Mode::Cell,
            allow: Vec::new(),
            deny: Vec::new(),
            unix: Vec::new(),
            listen: Vec::new(),
            hosts: BTreeMap::new(),
            private: Vec::new(),
            sni: Sni::Door,
            connections: DEFAULT_CONNECTIONS,
            up: None,
            down: None,
            time: None,
            rate: None,
            bounded: Vec::new(),
            http: Vec::new(),
            named: false,
        }
    }
}

/// Which server name a TLS connection through a door of port 443 may carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sni {
    /// The door's own name, and no other and none.
    #[default]
    Door,
    /// The same for all to see, and beside it what is encrypted (ECH), whatever name that may have.
    Outer,
    /// Anything, also what is no TLS.
    Any,
}

impl Sni {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Door, Self::Outer, Self::Any];

    /// The name in a profile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::Outer => "outer",
            Self::Any => "any",
        }
    }
}

/// A destination, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// What can be reached.
    pub destination: Destination,
    /// Where the rule comes from, e.g. "profile `github`" or "`--net`".
    pub origin: String,
}

/// Who is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// One name, in lower case.
    Name(String),
    /// Every name below this one.
    Below(String),
    /// One address.
    Address(IpAddr),
}

impl Host {
    /// Is this name meant?
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Name(known) => known == name,
            Self::Below(above) => name
                .strip_suffix(above.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Self::Address(_) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(above) => write!(f, "*.{above}"),
            Self::Address(IpAddr::V4(four)) => write!(f, "{four}"),
            Self::Address(IpAddr::V6(six)) => write!(f, "[{six}]"),
        }
    }
}

/// `HOST:PORT`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// Who.
    pub host: Host,
    /// At which TCP port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `HOST:PORT`, or `HOST:*` for every port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Who.
    pub host: Host,
    /// At which port; `None`: at any.
    pub port: Option<u16>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}:*", self.host),
        }
    }
}

impl Denied {
    fn at(&self, port: u16) -> bool {
        self.port.is_none_or(|denied| denied == port)
    }

    /// Is the whole destination denied?
    #[must_use]
    pub fn voids(&self, destination: &Destination) -> bool {
        let host = match &destination.host {
            Host::Name(name) => self.host.covers(name),
            host @ (Host::Below(_) | Host::Address(_)) => self.host == *host,
        };
        host && self.at(destination.port)
    }
}

/// Why a text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DestinationError {
    /// There is no port.
    #[error("`{0}` has no port")]
    NoPort(String),
    /// The port is none.
    #[error("`{0}` is no port")]
    Port(String),
    /// A scheme, a path or a user is with it.
    #[error("`{0}` is more than a host and a port")]
    Address(String),
    /// An address of IPv6 without brackets.
    #[error("`{0}` does not say where the address ends")]
    Brackets(String),
    /// A name that ends in a number is an address to some programs, and another one to others.
    #[error("`{0}` is an address that can be read in more than one way")]
    Numeric(String),
    /// An address at which nobody is.
    #[error("`{0}` is no address of anybody")]
    Nobody(String),
    /// A name that cannot be one.
    #[error("`{0}` cannot be a host's name")]
    Name(String),
    /// Letters that no name on the wire has.
    #[error("`{0}` has letters that are not ASCII")]
    NotAscii(String),
    /// A `*` that is not the whole first label, or all of the name.
    #[error("`{0}` is no pattern of names")]
    Pattern(String),
}

impl DestinationError {
    /// What to write.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPort(host) => format!("write the port too: `{host}:443` for HTTPS"),
            Self::Port(_) => "a port is a number from 1 to 65535".to_owned(),
            Self::Address(text) => {
                let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                let port = match text.split_once("://") {
                    Some(("http", _)) => 80,
                    _ => 443,
                };
                match host.parse::<Destination>() {
                    Ok(destination) => format!("write `{destination}`"),
                    Err(_) => format!("write `{host}:{port}`"),
                }
            }
            Self::Brackets(text) => format!("write it in brackets, with a port: `[{text}]:443`"),
            Self::Numeric(_) => "write an address as four numbers from 0 to 255: `10.0.0.5:443`".to_owned(),
            Self::Nobody(_) => "name one host, by its name or its address".to_owned(),
            Self::Name(_) => {
                "names are made of letters, digits, `-`, `_` and `.`, and have no dot at the end".to_owned()
            }
            Self::NotAscii(_) => "write it as it goes over the wire: `xn--…`".to_owned(),
            Self::Pattern(_) => "a `*` stands for what comes before a name: `*.example.com:443`".to_owned(),
        })
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (host, port) = split(text)?;
        let port = port_of(port)?;
        Ok(Self { host: host_of(host)?, port })
    }
}

impl FromStr for Denied {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (host, port) = split(text)?;
        let port = if port == "*" { None } else { Some(port_of(port)?) };
        Ok(Self { host: host_of(host)?, port })
    }
}

/// Host and port; an address of IPv6 without its brackets.
fn split(text: &str) -> Result<(&str, &str), DestinationError> {
    if text.contains(['/', '@', '?', '#']) {
        return Err(DestinationError::Address(text.to_owned()));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(DestinationError::Brackets(text.to_owned()));
    }
    let no_port = || DestinationError::NoPort(text.to_owned());
    if text.starts_with('[') {
        let (host, port) = text.split_once(']').ok_or_else(no_port)?;
        return Ok((host, port.strip_prefix(':').ok_or_else(no_port)?));
    }
    let (host, port) = text.split_once(':').ok_or_else(no_port)?;
    if port.is_empty() { Err(DestinationError::NoPort(host.to_owned())) } else { Ok((host, port)) }
}

fn port_of(text: &str) -> Result<u16, DestinationError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).ok_or_else(|| DestinationError::Port(text.to_owned()))
}

fn host_of(text: &str) -> Result<Host, DestinationError> {
    if let Some(six) = text.strip_prefix('[') {
        let six: Ipv6Addr =
            six.parse().map_err(|_no: std::net::AddrParseError| DestinationError::Name(six.to_owned()))?;
        return somebody(plain(IpAddr::V6(six)));
    }
    if let Ok(four) = text.parse() {
        return somebody(IpAddr::V4(four));
    }
    if !text.is_ascii() {
        return Err(DestinationError::NotAscii(text.to_owned()));
    }
    let lower = text.to_ascii_lowercase();
    let (name, below) = match lower.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (lower.as_str(), false),
    };
    if name.contains('*') {
        return Err(DestinationError::Pattern(text.to_owned()));
    }
    if ends_in_number(name) {
        return Err(DestinationError::Numeric(text.to_owned()));
    }
    if !is_name(name) {
        return Err(DestinationError::Name(text.to_owned()));
    }
    Ok(if below { Host::Below(name.to_owned()) } else { Host::Name(name.to_owned()) })
}

fn somebody(address: IpAddr) -> Result<Host, DestinationError> {
    let nobody = match address {
        IpAddr::V4(four) => four.is_broadcast() || four.octets().first() == Some(&0),
        IpAddr::V6(_) => false,
    };
    match nobody || address.is_multicast() || address.is_unspecified() {
        true => Err(DestinationError::Nobody(address.to_string())),
        false => Ok(Host::Address(address)),
    }
}

/// Can this be the name of a host, as it goes over the wire and in lower case?
#[must_use]
pub fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label) && !ends_in_number(name)
}

/// `127.1`, `0x7f.1` and `2130706433` are addresses to libc.
fn ends_in_number(name: &str) -> bool {
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    !last.is_empty() && (hexadecimal || last.bytes().all(|b| b.is_ascii_digit()))
}

impl Network {
    /// Adds a destination; of two rules for the same one the first stays.
    pub fn add(&mut self, allowed: &Allowed) {
        if !self.allow.iter().any(|known| known.destination == allowed.destination) {
            self.allow.push(allowed.clone());
        }
    }

    /// Does TLS end at the door of this destination?
    #[must_use]
    pub fn ends(&self, destination: &Destination) -> Option<&Http> {
        let Host::Name(name) = &destination.host else { return None };
        self.http.iter().find(|http| http.host == *name && http.port == destination.port)
    }

    /// The port at which the door of this destination is in the cell.
    #[must_use]
    pub fn inside(&self, destination: &Destination) -> u16 {
        self.ends(destination).map_or(destination.port, |http| http.listen)
    }

    /// Doors that put something into what a cell sends, each with its place in `http`.
    pub fn with_credential(&self) -> impl Iterator<Item = (usize, &Http)> {
        let open = |http: &Http| self.doors().any(|allowed| allowed.destination == http.destination());
        self.http.iter().enumerate().filter(move |(_, http)| http.credential.is_some() && open(http))
    }

    /// Is there a way out, or in?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.doors().next().is_some() || !self.unix.is_empty() || !self.listen.is_empty()
    }

    /// Destinations that are allowed and not denied.
    pub fn doors(&self) -> impl Iterator<Item = &Allowed> {
        self.allow.iter().filter(|allowed| !self.deny.iter().any(|denied| denied.voids(&allowed.destination)))
    }

    /// The rule that lets this name be reached at this port.
    #[must_use]
    pub fn allows_name(&self, name: &str, port: u16) -> Option<&Allowed> {
        if self.deny.iter().any(|denied| denied.host.covers(name) && denied.at(port)) {
            return None;
        }
        self.doors().find(|allowed| allowed.destination.host.covers(name) && allowed.destination.port == port)
    }

    /// Is this name one that can be reached at any port?
    #[must_use]
    pub fn knows_name(&self, name: &str) -> bool {
        self.doors().any(|allowed| self.allows_name(name, allowed.destination.port).is_some())
    }

    /// The rule that lets this address be reached at this port, by its own spelling.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr, port: u16) -> Option<&Allowed> {
        let host = Host::Address(plain(address));
        self.doors().find(|allowed| allowed.destination.host == host && allowed.destination.port == port)
    }

    /// Is this address denied at this port?
    #[must_use]
    pub fn denies_address(&self, address: IpAddr, port: u16) -> bool {
        let host = Host::Address(plain(address));
        self.deny.iter().any(|denied| denied.host == host && denied.at(port))
    }
}

/// The line of a profile that allows a destination.
#[must_use]
pub fn allow_line(destination: &str) -> String {
    format!("[network]\nallow = [{}]", super::print::quote(destination))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn destination(text: &str) -> Result<String, DestinationError> {
        text.parse::<Destination>().map(|destination| destination.to_string())
    }

    #[test]
    fn a_destination_is_a_host_and_a_port_in_one_spelling() {
        for (text, meant) in [
            ("api.github.com:443", "api.github.com:443"),
            ("API.GitHub.com:443", "api.github.com:443"),
            ("localhost:8080", "localhost:8080"),
            ("10.0.0.5:5432", "10.0.0.5:5432"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:10.0.0.5]:80", "10.0.0.5:80"),
            ("*.example.com:443", "*.example.com:443"),
            ("my_service.a-b:1", "my_service.a-b:1"),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
        ] {
            assert_eq!(destination(text).unwrap(), meant);
        }
    }

    #[test]
    fn what_is_no_destination_is_told_what_to_write() {
        for (text, hint) in [
            ("api.github.com", "write the port too: `api.github.com:443` for HTTPS"),
            ("10.0.0.5", "write the port too: `10.0.0.5:443` for HTTPS"),
            ("api.github.com:", "write the port too: `api.github.com:443` for HTTPS"),
            ("[::1]", "write the port too: `[::1]:443` for HTTPS"),
            ("2001:db8::1", "write it in brackets, with a port: `[2001:db8::1]:443`"),
            ("https://api.github.com/v1", "write `api.github.com:443`"),
            ("http://a.example", "write `a.example:80`"),
            ("https://u:p@a.example:8443/x", "write `a.example:8443`"),
            ("a.example:0", "a port is a number from 1 to 65535"),
            ("a.example:65536", "a port is a number from 1 to 65535"),
            ("a.example:+1", "a port is a number from 1 to 65535"),
            ("a.example:080", "a port is a number from 1 to 65535"),
            ("a.example:*", "a port is a number from 1 to 65535"),
            ("127.1:80", "write an address as four numbers from 0 to 255: `10.0.0.5:443`"),
            ("0x7f000001:80", "write an address as four numbers from 0 to 255: `10.0.0.5:443`"),
            ("2130706433:80", "write an address as four numbers from 0 to 255: `10.0.0.5:443`"),
            ("0177.0.0.1:80", "write an address as four numbers from 0 to 255: `10.0.0.5:443`"),
            ("a.0x1:80", "write an address as four numbers from 0 to 255: `10.0.0.5:443`"),
            ("0.0.0.0:80", "name one host, by its name or its address"),
            ("[::]:80", "name one host, by its name or its address"),
            ("224.0.0.1:80", "name one host, by its name or its address"),
            (
                "a.example.:443",
                "names are made of letters, digits, `-`, `_` and `.`, and have no dot at the end",
            ),
            ("a..b:443", "names are made of letters, digits, `-`, `_` and `.`, and have no dot at the end"),
            ("a b:443", "names are made of letters, digits, `-`, `_` and `.`, and have no dot at the end"),
            ("a\0b:443", "names are made of letters, digits, `-`, `_` and `.`, and have no dot at the end"),
            ("bücher.example:443", "write it as it goes over the wire: `xn--…`"),
            ("*:443", "a `*` stands for what comes before a name: `*.example.com:443`"),
            ("a.*.example:443", "a `*` stands for what comes before a name: `*.example.com:443`"),
            ("*a.example:443", "a `*` stands for what comes before a name: `*.example.com:443`"),
        ] {
            assert_eq!(destination(text).unwrap_err().hint().as_deref(), Some(hint), "{text}");
        }
    }

    fn network(allow: &[&str], deny: &[&str]) -> Network {
        let allow = allow
            .iter()
            .map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() })
            .collect();
        Network { allow, deny: deny.iter().map(|text| text.parse().unwrap()).collect(), ..Network::default() }
    }

    #[test]
    fn deny_is_above_allow_and_a_pattern_needs_something_before_it() {
        let network = network(
            &["*.example.com:443", "a.example:80", "10.0.0.5:80", "b.example:1"],
            &["admin.example.com:443", "a.example:*", "*.inner.example.com:443"],
        );
        let doors: Vec<String> = network.doors().map(|allowed| allowed.destination.to_string()).collect();
        assert_eq!(doors, ["*.example.com:443", "10.0.0.5:80", "b.example:1"]);
        for (name, port, allowed) in [
            ("www.example.com", 443, true),
            ("a.b.example.com", 443, true),
            ("www.example.com", 80, false),
            ("example.com", 443, false),
            ("evilexample.com", 443, false),
            (".example.com", 443, false),
            ("admin.example.com", 443, false),
            ("x.inner.example.com", 443, false),
            ("a.example", 80, false),
            ("b.example", 1, true),
        ] {
            assert_eq!(network.allows_name(name, port).is_some(), allowed, "{name}:{port}");
        }
        assert!(network.knows_name("b.example") && !network.knows_name("a.example"));
        assert!(network.allows_address("::ffff:10.0.0.5".parse().unwrap(), 80).is_some());
        assert!(network.allows_address("10.0.0.5".parse().unwrap(), 81).is_none());
    }

    proptest! {
        /// Whatever is read is written so that it is read again as the same, and nothing panics.
        #[test]
        fn what_is_read_is_written_alike(text in "[a-z0-9.:*\\[\\]_x/@-]{0,40}|\\PC{0,20}") {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse::<Destination>(), Ok(destination));
            }
            if let Ok(denied) = text.parse::<Denied>() {
                prop_assert_eq!(denied.to_string().parse::<Denied>(), Ok(denied));
            }
        }
    }
}
