//! Ports of a cell that can be reached from this host, and where: a port of its loopback, or a socket with a path.
//!
//! Neighbours: `policy::profile` reads the items of `listen`, `launch::outside` makes the sockets. Never: looks whether a place is free.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::door::DoorLimits;
use super::network::Network;
use super::print::quote;
use super::unix_socket::{SocketError, UnixSocket};

/// The most of one policy.
pub const MOST: usize = 16;
/// The most connections at once to ports of a cell, of which each has a socket that was made with the cell.
pub const MOST_INSIDE: u32 = 32;
/// The first port that takes no privilege, of which a cell has none.
const FIRST_PORT: u16 = 1024;
/// Where a port is that the kernel chooses.
const ANY: &str = "127.0.0.1";

/// One port of a cell, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// At which a program of the cell listens.
    pub port: u16,
    /// Where it is reached.
    pub at: At,
    /// Where the rule comes from.
    pub origin: String,
    /// What may go through its door.
    pub limits: DoorLimits,
}

/// A place on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// A port of the loopback that the kernel chooses for each cell.
    Any,
    /// This address and port of it.
    Address(SocketAddr),
    /// A socket with this path.
    Path(String),
}

/// The line of a profile that lets a program listen at a port; there is none for a port that the kernel chooses.
#[must_use]
pub fn allow_line(port: u16) -> Option<String> {
    let listen = Listen::new(port, At::Any, "").ok()?;
    Some(format!("[network]\nlisten = [{}]", listen.toml()))
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any port of {ANY}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// Why a text is no port of a cell, or no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListenError {
    /// No program of a cell could listen there.
    #[error("`{0}` is no port at which a program of a cell can listen")]
    Port(String),
    /// Neither an address with a port nor a path.
    #[error("`{0}` is no place of this host's at which a port of a cell could be")]
    Place(String),
    /// Strangers come to it.
    #[error("`{0}` is no address of the loopback, and other hosts could reach the cell")]
    Open(SocketAddr),
    /// No path of a socket.
    #[error(transparent)]
    Path(SocketError),
}

impl ListenError {
    /// What to write.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Port(_) => {
                format!(
                    "a port is a number from {FIRST_PORT} to 65535; outside, any port of the loopback can lead to it"
                )
            }
            Self::Place(text) if text.ends_with(":0") => {
                "leave `at` out: then the kernel chooses a port, which is told".to_owned()
            }
            Self::Place(text) => {
                let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(9000);
                format!(
                    "write `{ANY}:{port}`, `[::1]:{port}`, or the path of a socket in a directory of yours"
                )
            }
            Self::Open(address) => {
                let port = address.port();
                format!(
                    "write `{ANY}:{port}`, and let a program that is made for strangers pass on what comes from them"
                )
            }
            Self::Path(error) => error.hint(),
        }
    }
}

impl FromStr for At {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if text.starts_with('/') {
            // What stands there is this cell's own, whatever it is called.
            let path = UnixSocket::new(text, "its own", "").map_err(ListenError::Path)?.path;
            return Ok(Self::Path(path));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(ListenError::Place(text.to_owned())),
            Ok(address) if !address.ip().is_loopback() => Err(ListenError::Open(address)),
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Err(ListenError::Place(text.to_owned())),
        }
    }
}

/// `PORT`, or `PORT=AT`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Any => write!(f, "{}", self.port),
            at @ (At::Address(_) | At::Path(_)) => write!(f, "{}={at}", self.port),
        }
    }
}

/// `PORT`, or `PORT=AT`.
impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (port, at) = match text.split_once('=') {
            Some((port, at)) => (port, at.parse()?),
            None => (text, At::Any),
        };
        let plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|_| plain);
        let number = number.ok_or_else(|| ListenError::Port(port.to_owned()))?;
        Self::new(number, at, "")
    }
}

impl Listen {
    /// What a profile says.
    ///
    /// # Errors
    /// No program of a cell could listen at this port.
    pub fn new(port: u16, at: At, origin: &str) -> Result<Self, ListenError> {
        match port >= FIRST_PORT {
            true => Ok(Self { port, at, origin: origin.to_owned(), limits: DoorLimits::default() }),
            false => Err(ListenError::Port(port.to_string())),
        }
    }

    /// As an item of a profile's `listen`.
    #[must_use]
    pub fn toml(&self) -> String {
        let limits = self.limits.pairs();
        match &self.at {
            At::Any if limits.is_empty() => self.port.to_string(),
            At::Any => format!("{{ port = {}{limits} }}", self.port),
            at @ (At::Address(_) | At::Path(_)) => {
                format!("{{ port = {}, at = {}{limits} }}", self.port, quote(&at.to_string()))
            }
        }
    }

    /// Where it is reached, in words.
    #[must_use]
    pub fn words(&self) -> String {
        format!("port {} from {}{}", self.port, self.at, self.limits.in_brackets())
    }

    /// Is it the same port at the same place?
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.port, &self.at) == (other.port, &other.at)
    }
}

impl Network {
    /// Adds a port; of two rules for the same one the first stays, but for the limits that the second says.
    pub fn listen_at(&mut self, listen: &Listen) {
        match self.listen.iter_mut().find(|known| known.is(listen)) {
            Some(known) => known.limits.follow(&listen.limits),
            None => self.listen.push(listen.clone()),
        }
    }

    /// How many connections there can be at once to ports of the cell.
    #[must_use]
    pub fn connections_inside(&self) -> u32 {
        if self.listen.is_empty() { 0 } else { self.connections.min(MOST_INSIDE) }
    }

    /// Why one of the ports cannot be had beside the rest of the section, and what to do.
    pub(super) fn unheard(&self) -> Option<(&Listen, String, String)> {
        for (nth, one) in self.listen.iter().enumerate() {
            if nth == MOST {
                let told = format!("`listen` can have {MOST} ports");
                return Some((one, told, "split the tools over several profiles".to_owned()));
            }
            if one.at != At::Any && self.listen.iter().take(nth).any(|other| other.at == one.at) {
                let told = format!("`{}` would lead to two ports of the cell", one.at);
                return Some((one, told, "give each a place of its own by `at`".to_owned()));
            }
            let inside = |port| self.doors().find(|door| self.inside(&door.destination) == port);
            if let Some(door) = inside(one.port) {
                let told =
                    format!("port {} of the cell is that of the door to `{}`", one.port, door.destination);
                return Some((one, told, "let the program listen at another port".to_owned()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::Allowed;

    #[test]
    fn a_port_has_a_place_on_the_loopback_or_a_path_and_no_other() {
        for (text, toml) in [
            ("8080", "8080"),
            ("8080=127.0.0.1:80", "{ port = 8080, at = \"127.0.0.1:80\" }"),
            ("8080=127.9.9.9:9000", "{ port = 8080, at = \"127.9.9.9:9000\" }"),
            ("8080=[::1]:9000", "{ port = 8080, at = \"[::1]:9000\" }"),
            ("8080=/var/run/user/1000/x.sock", "{ port = 8080, at = \"/run/user/1000/x.sock\" }"),
            ("8080=/home/u/docker.sock", "{ port = 8080, at = \"/home/u/docker.sock\" }"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().toml(), toml, "{text}");
        }
        for (text, hint) in [
            ("80", "a port is a number from 1024 to 65535"),
            ("08080", "a port is a number from 1024 to 65535"),
            ("+8080", "a port is a number from 1024 to 65535"),
            ("65536", "a port is a number from 1024 to 65535"),
            ("", "a port is a number from 1024 to 65535"),
            ("8080=0.0.0.0:9000", "write `127.0.0.1:9000`, and let a program"),
            ("8080=[::]:9000", "write `127.0.0.1:9000`, and let a program"),
            ("8080=192.168.0.1:9000", "write `127.0.0.1:9000`, and let a program"),
            ("8080=[::ffff:127.0.0.1]:9000", "write `127.0.0.1:9000`, and let a program"),
            ("8080=127.0.0.1:0", "leave `at` out"),
            ("8080=localhost:9000", "write `127.0.0.1:9000`, `[::1]:9000`, or the path"),
            ("8080=9000", "write `127.0.0.1:9000`, `[::1]:9000`, or the path"),
            ("8080=", "write `127.0.0.1:9000`, `[::1]:9000`, or the path"),
            ("8080=x.sock", "or the path of a socket in a directory of yours"),
            ("8080=@abstract", "or the path of a socket in a directory of yours"),
            ("8080=/run/../x", "without `.`, `..` and `//`"),
        ] {
            let told = text.parse::<Listen>().unwrap_err().hint();
            assert!(told.contains(hint), "{text}: {told}");
        }
    }

    #[test]
    fn a_port_that_the_cell_has_for_something_else_is_told() {
        let listen = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let allow = ["localhost:8080", "a.example:443"];
        let allow = allow.map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() });
        let told = |texts: &[&str]| {
            let network = Network { allow: allow.to_vec(), listen: listen(texts), ..Network::default() };
            network.unheard().map(|(one, told, _)| (one.port, told))
        };
        assert_eq!(told(&["9000", "9001", "9000=/run/x", "9001=127.0.0.1:9000"]), None);
        assert_eq!(
            told(&["9000", "8080"]).unwrap(),
            (8080, "port 8080 of the cell is that of the door to `localhost:8080`".to_owned())
        );
        assert_eq!(
            told(&["9000=/run/x", "9001=/run/x"]).unwrap(),
            (9001, "`/run/x` would lead to two ports of the cell".to_owned())
        );
        let many: Vec<String> = (9000..9017).map(|port: u16| port.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(told(&many).unwrap(), (9016, "`listen` can have 16 ports".to_owned()));
        let mut network = Network::default();
        for text in ["9000", "9000", "9000=/run/x"] {
            network.listen_at(&text.parse().unwrap());
        }
        assert_eq!(network.listen.len(), 2);
    }
}
