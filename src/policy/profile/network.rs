//! Reads the `[network]` section of a profile.
//!
//! Neighbours: `policy::profile` reads the rest, `policy::network` has the values. Never: resolves a name.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::{Located, Reader};
use crate::policy::address::{Range, RangeError, plain};
use crate::policy::door::{Bounded, CONNECTIONS, DoorLimits, RATE, TIME};
use crate::policy::http::Http;
use crate::policy::listen::{At, Listen, ListenError};
use crate::policy::mistakes::Spot;
use crate::policy::mode::Mode;
use crate::policy::network::{Allowed, Denied, Destination, DestinationError, Network, Sni, is_name};
use crate::policy::toml_file::Value;
use crate::policy::units::parse_size;
use crate::policy::unix_socket::UnixSocket;

/// The section's keys.
pub(super) const KEYS: &[&str] = &[
    "mode",
    "allow",
    "deny",
    "allow-unix",
    "listen",
    "hosts",
    "private",
    "sni",
    "connections",
    "up",
    "down",
    "time",
    "rate",
    "http",
];
const ALLOW_KEYS: &[&str] = &["to", "connections", "up", "down", "time", "rate"];
const SOCKET_KEYS: &[&str] = &["path", "reason", "connections", "up", "down", "time", "rate"];
const LISTEN_KEYS: &[&str] = &["port", "at", "connections", "up", "down", "time", "rate"];
/// What a program of a cell can listen at, before it is known more of it.
const PORTS: RangeInclusive<u32> = 1..=65535;
/// Sockets of one profile.
const MOST_SOCKETS: usize = 32;
/// Addresses of one name.
const MOST_ADDRESSES: usize = 16;

/// What one profile says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    mode: Option<Mode>,
    /// Every other key that is written.
    of_doors: Vec<Located<String>>,
    allow: Vec<Allowed>,
    bounded: Vec<Bounded>,
    deny: Vec<Denied>,
    unix: Vec<UnixSocket>,
    listen: Vec<Located<Listen>>,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    private: Vec<Range>,
    sni: Option<Sni>,
    connections: Option<u32>,
    up: Option<u64>,
    down: Option<u64>,
    time: Option<Duration>,
    rate: Option<u32>,
    pub(super) http: Vec<Located<Http>>,
}

impl Part {
    /// Adds it to what the profiles that it extends have said.
    pub(in crate::policy) fn apply(&self, network: &mut Network) {
        network.mode = self.mode.unwrap_or(network.mode);
        for allowed in &self.allow {
            network.add(allowed);
        }
        for bounded in &self.bounded {
            network.bound(bounded);
        }
        for denied in &self.deny {
            if !network.deny.contains(denied) {
                network.deny.push(denied.clone());
            }
        }
        for socket in &self.unix {
            match network.unix.iter_mut().find(|known| known.path == socket.path) {
                Some(known) => known.limits.follow(&socket.limits),
                None => network.unix.push(socket.clone()),
            }
        }
        for Located { value: listen, .. } in &self.listen {
            network.listen_at(listen);
        }
        for range in &self.private {
            if !network.private.contains(range) {
                network.private.push(*range);
            }
        }
        network.hosts.extend(self.hosts.clone());
        network.sni = self.sni.unwrap_or(network.sni);
        network.connections = self.connections.unwrap_or(network.connections);
        network.up = self.up.or(network.up);
        network.down = self.down.or(network.down);
        network.time = self.time.or(network.time);
        network.rate = self.rate.or(network.rate);
        // All of a door's section is in the place of a parent's, so that what is not spelled is not left over.
        for Located { value: http, .. } in &self.http {
            network.http.retain(|known| known.destination() != http.destination());
            network.http.push(http.clone());
        }
    }

    /// Keys that say something of doors, and where they are written.
    pub(in crate::policy) fn of_doors(&self) -> impl Iterator<Item = &Located<String>> {
        self.of_doors.iter()
    }

    /// Ports that can be reached from outside, and where they are written.
    pub(in crate::policy) fn heard(&self) -> impl Iterator<Item = (&Listen, &Spot)> {
        self.listen.iter().map(|listen| (&listen.value, &listen.spot))
    }

    /// Doors at which TLS ends, and where they are written.
    pub(in crate::policy) fn ended(&self) -> impl Iterator<Item = (&Http, &Spot)> {
        self.http.iter().map(|http| (&http.value, &http.spot))
    }
}

impl Reader<'_, '_> {
    pub(super) fn network(&mut self, key: &str, value: &Value<'_>) {
        if key != "mode" {
            let spot = self.file.spot(&value.span());
            self.profile.network.of_doors.push(Located { value: key.to_owned(), spot });
        }
        match key {
            "mode" => self.profile.network.mode = self.choice("mode", value, Mode::ALL, Mode::name),
            "allow" => self.allowed(value),
            "deny" => self.profile.network.deny = self.network_items(key, value, DestinationError::hint),
            "allow-unix" => self.sockets(value),
            "listen" => self.listens(value),
            "private" => self.profile.network.private = self.network_items(key, value, range_hint),
            "hosts" => self.hosts(value),
            "sni" => self.profile.network.sni = self.choice("sni", value, Sni::ALL, Sni::name),
            "connections" => {
                self.profile.network.connections = self.file.count(value, "`connections`", &CONNECTIONS);
            }
            "http" => self.http(value),
            "time" => self.profile.network.time = self.file.duration(value, "`time`", &TIME),
            "rate" => self.profile.network.rate = self.file.count(value, "`rate`", &RATE),
            "up" => self.profile.network.up = self.bytes(key, value),
            _ => self.profile.network.down = self.bytes(key, value),
        }
    }

    /// Destinations, each alone or with limits.
    fn allowed(&mut self, value: &Value<'_>) {
        let origin = format!("profile `{}`", self.file.source.name);
        for item in self.file.items(value, "`allow`") {
            let (mut to, mut limits) = (item, None);
            if item.get_ref().is_table() {
                let Some(table) = self.file.table(item, "an item of `allow`") else { continue };
                let mut found = None;
                let mut own = DoorLimits::default();
                for (key, _, value) in self.file.entries(table, "an item of `allow`", ALLOW_KEYS) {
                    match key {
                        "to" => found = Some(value),
                        _ => self.door_limit("allow", (key, value), &mut own),
                    }
                }
                let Some(found) = found else {
                    let hint = "name the destination: `to = \"api.github.com:443\"`";
                    self.file.mistake(&item.span(), "an item of `allow` has no `to`", Some(hint));
                    continue;
                };
                (to, limits) = (found, Some(own));
            }
            let Some(text) = self.file.text(to, "an item of `allow`") else { continue };
            let destination = match text.parse::<Destination>() {
                Ok(destination) => destination,
                Err(error) => {
                    self.file.mistake(&to.span(), &error.to_string(), error.hint().as_deref());
                    continue;
                }
            };
            if let Some(limits) = limits.filter(|limits| !limits.is_empty()) {
                if self.profile.network.bounded.iter().any(|known| known.to == destination) {
                    self.limits_twice("allow", &destination, item);
                }
                self.profile.network.bounded.push(Bounded { to: destination.clone(), limits });
            }
            self.profile.network.allow.push(Allowed { destination, origin: origin.clone() });
        }
    }

    /// A key of such an item that is a limit of its door.
    fn door_limit(&mut self, list: &str, (key, value): (&str, &Value<'_>), own: &mut DoorLimits) {
        let name = format!("`{key}` of an item of `{list}`");
        match key {
            "connections" => own.connections = self.file.count(value, &name, &CONNECTIONS),
            "time" => own.time = self.file.duration(value, &name, &TIME),
            "rate" => own.rate = self.file.count(value, &name, &RATE),
            "up" => own.up = self.bytes(key, value),
            _ => own.down = self.bytes(key, value),
        }
    }

    /// Which of the two would hold nobody can see.
    fn limits_twice(&mut self, list: &str, door: &dyn Display, item: &Value<'_>) {
        let told = format!("`{door}` has limits in two items of `{list}`");
        self.file.mistake(&item.span(), &told, Some("write them in one"));
    }

    fn network_items<T>(
        &mut self,
        key: &str,
        value: &Value<'_>,
        hint: fn(&T::Err) -> Option<String>,
    ) -> Vec<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let mut found = Vec::new();
        for item in self.file.items(value, &format!("`{key}`")) {
            let Some(text) = self.file.text(item, &format!("an item of `{key}`")) else { continue };
            match text.parse::<T>() {
                Ok(right) => found.push(right),
                Err(error) => self.file.mistake(&item.span(), &error.to_string(), hint(&error).as_deref()),
            }
        }
        found
    }

    /// Paths of sockets, each alone or with a reason and limits.
    fn sockets(&mut self, value: &Value<'_>) {
        let origin = format!("profile `{}`", self.file.source.name);
        for item in self.file.items(value, "`allow-unix`") {
            let mut own = DoorLimits::default();
            let (path, reason) = match item.get_ref().is_table() {
                true => {
                    let Some(table) = self.file.table(item, "an item of `allow-unix`") else { continue };
                    let entries = self.file.entries(table, "an item of `allow-unix`", SOCKET_KEYS);
                    let (mut path, mut reason) = (None, None);
                    for (key, _, value) in entries {
                        let text = |reader: &mut Self| {
                            reader.file.text(value, &format!("`{key}` of an item of `allow-unix`"))
                        };
                        match key {
                            "path" => path = text(self),
                            "reason" => reason = text(self),
                            _ => self.door_limit("allow-unix", (key, value), &mut own),
                        }
                    }
                    if path.is_none() {
                        self.file.mistake(
                            &item.span(),
                            "an item of `allow-unix` has no `path`",
                            Some("name the socket: `path = \"/run/postgresql/.s.PGSQL.5432\"`"),
                        );
                    }
                    (path, reason)
                }
                false => (self.file.text(item, "an item of `allow-unix`"), None),
            };
            let Some(path) = path else { continue };
            match UnixSocket::new(path, reason.unwrap_or_default(), &origin) {
                Ok(socket) => {
                    let is_same = |known: &UnixSocket| known.path == socket.path && !known.limits.is_empty();
                    if !own.is_empty() && self.profile.network.unix.iter().any(is_same) {
                        self.limits_twice("allow-unix", &socket.path, item);
                    }
                    self.profile.network.unix.push(UnixSocket { limits: own, ..socket });
                }
                Err(error) => self.file.mistake(&item.span(), &error.to_string(), Some(&error.hint())),
            }
        }
        if self.profile.network.unix.len() > MOST_SOCKETS {
            let told = format!("`allow-unix` can have {MOST_SOCKETS} sockets");
            self.file.mistake(
                &value.span(),
                &told,
                Some("give tools that need others a profile of their own"),
            );
        }
    }

    /// Ports, each alone or with where it is reached and limits.
    fn listens(&mut self, value: &Value<'_>) {
        let origin = format!("profile `{}`", self.file.source.name);
        for item in self.file.items(value, "`listen`") {
            let (mut port, mut at) = (item, None);
            let mut own = DoorLimits::default();
            if item.get_ref().is_table() {
                let Some(table) = self.file.table(item, "an item of `listen`") else { continue };
                let mut found = None;
                for (key, _, value) in self.file.entries(table, "an item of `listen`", LISTEN_KEYS) {
                    match key {
                        "port" => found = Some(value),
                        "at" => at = Some(value),
                        _ => self.door_limit("listen", (key, value), &mut own),
                    }
                }
                let Some(found) = found else {
                    self.file.mistake(&item.span(), "an item of `listen` has no `port`", None);
                    continue;
                };
                port = found;
            }
            let number = self.file.count(port, "a port of `listen`", &PORTS);
            let place = match at {
                None => Some(At::Any),
                Some(value) => {
                    let text = self.file.text(value, "`at` of an item of `listen`");
                    text.and_then(|text| self.fits(value, text.parse::<At>()))
                }
            };
            let number = number.and_then(|number| u16::try_from(number).ok());
            let Some((number, place)) = number.zip(place) else { continue };
            if let Some(listen) = self.fits(port, Listen::new(number, place, &origin)) {
                let is_same =
                    |known: &Located<Listen>| known.value.is(&listen) && !known.value.limits.is_empty();
                if !own.is_empty() && self.profile.network.listen.iter().any(is_same) {
                    self.limits_twice("listen", &listen, item);
                }
                let spot = self.file.spot(&item.span());
                self.profile.network.listen.push(Located { value: Listen { limits: own, ..listen }, spot });
            }
        }
    }

    fn fits<T>(&mut self, value: &Value<'_>, read: Result<T, ListenError>) -> Option<T> {
        read.map_err(|error| self.file.mistake(&value.span(), &error.to_string(), Some(&error.hint()))).ok()
    }

    /// Names, each with an address or several.
    fn hosts(&mut self, value: &Value<'_>) {
        let Some(table) = self.file.table(value, "`hosts`") else { return };
        for (key, value) in table {
            let name = key.get_ref().to_ascii_lowercase();
            if !is_name(&name) {
                let hint =
                    "write a name as it goes over the wire, without a port: `\"db.internal\" = \"10.0.0.5\"`";
                self.file.mistake(&key.span(), &format!("`{name}` cannot be a host's name"), Some(hint));
                continue;
            }
            let items = match value.get_ref().is_array() {
                true => self.file.items(value, &format!("`{name}`")),
                false => std::slice::from_ref(value),
            };
            let mut addresses = Vec::new();
            for item in items {
                let Some(text) = self.file.text(item, &format!("an address of `{name}`")) else { continue };
                match text.parse::<IpAddr>().map(plain) {
                    Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                        addresses.push(address)
                    }
                    _ => self.file.mistake(&item.span(), &format!("`{text}` is no address of a host"), None),
                }
            }
            if addresses.is_empty() || addresses.len() > MOST_ADDRESSES {
                let told = format!("`{name}` must have from 1 to {MOST_ADDRESSES} addresses");
                self.file.mistake(&value.span(), &told, None);
                continue;
            }
            self.profile.network.hosts.insert(name, addresses);
        }
    }

    fn bytes(&mut self, key: &str, value: &Value<'_>) -> Option<u64> {
        let text = self.file.text(value, &format!("`{key}`"))?;
        match parse_size(text) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let hint = error.hint().unwrap_or_else(|| "write a size such as `10MiB`".to_owned());
                self.file.mistake(&value.span(), &error.to_string(), Some(&hint));
                None
            }
        }
    }
}

fn range_hint(error: &RangeError) -> Option<String> {
    Some(match error {
        RangeError::Form(_) => "write an address and how many bits of it count: `10.0.0.0/8`".to_owned(),
        RangeError::Rest { .. } => "write 0 for all bits that do not count: `10.0.0.0/8`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::add::Additions;
    use crate::policy::print::to_toml;
    use crate::policy::profile::World;
    use crate::policy::resolve::resolve;
    use crate::policy::syscalls::SyscallName;
    use crate::policy::{Policy, Source};

    fn read(text: &str, parent: &str) -> Result<Policy, String> {
        let source =
            |name: &str, text: &str| Source { name: name.to_owned(), path: None, text: text.to_owned() };
        let parents = [("parent".to_owned(), source("parent", parent))].into();
        let world = World { home: None, workspace: Path::new("/w") };
        resolve(&source("p", text), &parents, world, &|_| SyscallName::Known)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_mistake_says_what_to_write() {
        let text = r#"
[network]
allow = ["a.example", "https://b.example/x", 443, { up = "1MiB" }, { to = "c.example:1", rate = 0, time = "1", slow = 1 }, { to = "d.example:1", up = 1 }, { to = "e.example:1", up = "1B" }, { to = "e.example:1", up = "2B" }]
time = "0s"
rate = 10001
deny = ["*:443"]
private = ["10.0.0.1/8"]
allow-unix = ["relative", "/run/docker.sock", 7, { reason = "r" }, { path = "/run/a", why = "w", rate = 0 }, { path = "/run/b", rate = 1 }, "/run/b", { path = "/var/run/b", up = "1B" }]
sni = "all"
connections = 0
up = "many"
hosts = { "c.example:443" = "10.0.0.1", d = "e.example", f = [] }
listen = [80, "8080", { at = "127.0.0.1:1" }, { port = 8080, at = "0.0.0.0:9000" }, { port = 8080, on = "x", time = "0s" }, { port = 9000, up = "1B" }, 9000, { port = 9000, down = "1B" }, { port = 9000, at = "/var/run/x", rate = 1 }, { port = 9000, at = "/run/x", rate = 2 }]
hear = 8080
"#;
        let told = read(text, "").unwrap_err();
        assert_eq!(told.matches("has limits in two items").count(), 4, "{told}");
        for part in [
            "write the port too: `a.example:443` for HTTPS",
            "write `b.example:443`",
            "an item of `allow` must be a string",
            "a `*` stands for what comes before a name",
            "an item of `allow` has no `to`",
            "name the destination: `to = ",
            "`rate` of an item of `allow` of `0` is out of range",
            "write `1s` for seconds",
            "unknown key `slow` in an item of `allow`",
            "`up` must be a string",
            "`e.example:1` has limits in two items of `allow`",
            "from `1ms` to `30d`",
            "`rate` of `10001` is out of range",
            "write 0 for all bits that do not count",
            "`relative` is no path from the root",
            "`/run/docker.sock` is the socket of Docker: who reaches it is root on this host",
            "allow-unix = [{ path = \"/run/docker.sock\", reason = \"…\" }]",
            "an item of `allow-unix` must be a string",
            "an item of `allow-unix` has no `path`",
            "name the socket: `path = ",
            "unknown key `why` in an item of `allow-unix`",
            "`rate` of an item of `allow-unix` of `0` is out of range",
            "`/run/b` has limits in two items of `allow-unix`",
            "`time` of an item of `listen`",
            "`9000` has limits in two items of `listen`",
            "`9000=/run/x` has limits in two items of `listen`",
            "unknown sni `all`",
            "`connections` of `0` is out of range",
            "`many` is not a number",
            "`c.example:443` cannot be a host's name",
            "`e.example` is no address of a host",
            "`f` must have from 1 to 16 addresses",
            "`80` is no port at which a program of a cell can listen",
            "a port of `listen` must be a whole number",
            "an item of `listen` has no `port`",
            "`0.0.0.0:9000` is no address of the loopback, and other hosts could reach the cell",
            "unknown key `on` in an item of `listen`",
            "unknown key `hear` in `[network]`",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn profiles_add_destinations_and_what_is_printed_resolves_to_the_same() {
        let parent = "[network]\nallow = [{ to = \"a.example:443\", connections = 4, up = \"1MiB\" }, \"b.example:443\"]\nallow-unix = [{ path = \"/run/a.sock\", rate = 3 }]\nlisten = [{ port = 8080, up = \"1B\" }]\ntime = \"9s\"\nup = \"1MiB\"\nsni = \"any\"";
        let child = r#"
extends = "parent"
[network]
allow = [{ to = "A.example:443", up = "2MiB", time = "30s" }, { to = "*.c.example:80", rate = 7 }, "[::1]:1"]
deny = ["b.example:*"]
hosts = { "a.example" = ["10.0.0.1", "::ffff:10.0.0.2"], "x.y" = "fd00::1" }
allow-unix = ["/var/run/a.sock", { path = "/run/a.sock", connections = 2 }, { path = "/run/docker.sock", reason = "the \"test\" bench" }]
private = ["10.0.0.0/8"]
listen = [8080, { port = 8080, at = "127.0.0.1:9000", time = "1s" }, { port = 9000, at = "/run/user/1000/x.sock" }]
connections = 7
rate = 10
down = "2kB"
sni = "door"
"#;
        let policy = read(child, parent).unwrap();
        let doors: Vec<String> = policy.network.doors().map(|door| door.destination.to_string()).collect();
        assert_eq!(doors, ["a.example:443", "*.c.example:80", "[::1]:1"]);
        assert_eq!(policy.network.allow[0].origin, "profile `parent`");
        assert_eq!((policy.network.up, policy.network.sni), (Some(1 << 20), Sni::Door));
        assert_eq!((policy.network.time, policy.network.rate), (Some(Duration::from_secs(9)), Some(10)));
        let bounded: Vec<String> = policy.network.bounded.iter().map(Bounded::toml).collect();
        assert_eq!(
            bounded,
            [
                "{ to = \"a.example:443\", connections = 4, up = \"2MiB\", time = \"30s\" }",
                "{ to = \"*.c.example:80\", rate = 7 }"
            ]
        );
        let sockets: Vec<String> = policy.network.unix.iter().map(UnixSocket::toml).collect();
        assert_eq!(
            sockets,
            [
                "{ path = \"/run/a.sock\", connections = 2, rate = 3 }",
                "{ path = \"/run/docker.sock\", reason = \"the \\\"test\\\" bench\" }"
            ]
        );
        let listens: Vec<String> = policy.network.listen.iter().map(Listen::toml).collect();
        assert_eq!(
            listens,
            [
                "{ port = 8080, up = \"1B\" }",
                "{ port = 8080, at = \"127.0.0.1:9000\", time = \"1s\" }",
                "{ port = 9000, at = \"/run/user/1000/x.sock\" }"
            ]
        );
        let again = read(&to_toml(&policy), "").unwrap();
        let origins = |network: &Network| Network {
            allow: network.allow.iter().map(|one| Allowed { origin: String::new(), ..one.clone() }).collect(),
            unix: network
                .unix
                .iter()
                .map(|one| UnixSocket { origin: String::new(), ..one.clone() })
                .collect(),
            listen: network
                .listen
                .iter()
                .map(|one| Listen { origin: String::new(), ..one.clone() })
                .collect(),
            ..network.clone()
        };
        assert_eq!(origins(&again.network), origins(&policy.network));
        assert!(!to_toml(&read("", "").unwrap()).contains("network"));
    }

    #[test]
    fn a_port_that_is_a_door_cannot_be_listened_at() {
        let text = "extends = \"parent\"\n[network]\nlisten = [8080]";
        let parent = "[network]\nallow = [\"localhost:8080\"]";
        let told = read(text, parent).unwrap_err();
        assert!(told.contains("port 8080 of the cell is that of the door to `localhost:8080`"), "{told}");
        assert!(told.contains(":3:11"), "{told}");
        let policy = read("extends = \"parent\"", parent).unwrap();
        let with = |text: &str| {
            let additions = Additions { listen: vec![text.parse().unwrap()], ..Additions::default() };
            policy.clone().with(&additions)
        };
        assert_eq!(with("8081").unwrap().network.listen[0].origin, "`--listen`");
        let refused = with("8080").unwrap_err();
        assert_eq!(refused.hint().as_deref(), Some("let the program listen at another port"));
    }

    #[test]
    fn an_option_adds_a_destination_that_is_not_denied() {
        let policy = read("[network]\ndeny = [\"b.example:*\"]", "").unwrap();
        let with = |text: &str| {
            let additions = Additions { net: vec![text.parse().unwrap()], ..Additions::default() };
            policy.clone().with(&additions)
        };
        let added = with("a.example:443").unwrap();
        assert_eq!(added.network.allow[0].origin, "`--net`");
        assert!(with("b.example:1").unwrap_err().to_string().contains("is denied by `deny` in `[network]`"));
    }
}
