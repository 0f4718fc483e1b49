//! Limits of single doors, beside those that a cell has for all of its doors together.
//!
//! Neighbours: `policy::profile` reads them, `network::gate` holds connections to them. Never: counts anything.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::network::{Destination, Host, Network};
use super::print::quote;
use super::units::{print_duration, print_size};

/// How many connections at once there can be.
pub const CONNECTIONS: RangeInclusive<u32> = 1..=1024;
/// How many can be new in a second.
pub const RATE: RangeInclusive<u32> = 1..=10_000;
/// How long one can last.
pub const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 86_400);

/// What may go through one door; `None` is no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Bytes that the cell may send through it, all its connections together.
    pub up: Option<u64>,
    /// Bytes that the cell may be sent.
    pub down: Option<u64>,
    /// How long one connection may last.
    pub time: Option<Duration>,
    /// New connections in a second.
    pub rate: Option<u32>,
}

impl DoorLimits {
    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each as a key and its value in TOML.
    fn each(&self) -> impl Iterator<Item = (&'static str, String)> {
        let size = |bytes: u64| quote(&print_size(bytes));
        [
            ("connections", self.connections.map(|count| count.to_string())),
            ("up", self.up.map(size)),
            ("down", self.down.map(size)),
            ("time", self.time.map(|time| quote(&print_duration(time)))),
            ("rate", self.rate.map(|rate| rate.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }

    /// As they stand in an item's table, behind what is before them.
    #[must_use]
    pub fn pairs(&self) -> String {
        self.each().map(|(key, value)| format!(", {key} = {value}")).collect()
    }

    /// In words, behind those for the door; empty, if there are none.
    #[must_use]
    pub fn in_brackets(&self) -> String {
        match self.words() {
            none if none.is_empty() => none,
            words => format!(" ({words})"),
        }
    }

    /// In words; empty, if there are none.
    #[must_use]
    pub fn words(&self) -> String {
        let words = self.each().map(|(key, value)| format!("{key} {}", value.trim_matches('"')));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Keys of a section that has these.
    #[must_use]
    pub fn lines(&self) -> String {
        self.each().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join("\n")
    }

    /// Takes what another one says in place of what this one does.
    pub fn follow(&mut self, other: &Self) {
        let Self { connections, up, down, time, rate } = other;
        self.connections = connections.or(self.connections);
        self.up = up.or(self.up);
        self.down = down.or(self.down);
        self.time = time.or(self.time);
        self.rate = rate.or(self.rate);
    }
}

/// A destination of `allow` that has limits of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounded {
    /// Which.
    pub to: Destination,
    /// Which ones.
    pub limits: DoorLimits,
}

impl Bounded {
    /// As an item of a profile's `allow`.
    #[must_use]
    pub fn toml(&self) -> String {
        format!("{{ to = {}{} }}", quote(&self.to.to_string()), self.limits.pairs())
    }
}

impl Network {
    /// Adds limits of a door; of two for the same one each that the second says is in the place of the first's.
    pub fn bound(&mut self, bounded: &Bounded) {
        match self.bounded.iter_mut().find(|known| known.to == bounded.to) {
            Some(known) => known.limits.follow(&bounded.limits),
            None => self.bounded.push(bounded.clone()),
        }
    }

    /// The limits of the door by which this host is reached at this port: its own, or those of the narrowest pattern that covers it,
    /// which all names below that pattern share.
    #[must_use]
    pub fn bounds_of(&self, host: &Host, port: u16) -> Option<&Bounded> {
        let here = || self.bounded.iter().filter(|bounded| bounded.to.port == port);
        here().find(|bounded| bounded.to.host == *host).or_else(|| {
            let Host::Name(name) = host else { return None };
            let below = |bounded: &&Bounded| match &bounded.to.host {
                Host::Below(above) => above.len(),
                Host::Name(_) | Host::Address(_) => 0,
            };
            here().filter(|bounded| bounded.to.host.covers(name)).max_by_key(below)
        })
    }

    /// The door of this host and port, as `allow` or an entry with limits spells it.
    #[must_use]
    pub fn door_of(&self, host: &Host, port: u16) -> Destination {
        if let Some(bounded) = self.bounds_of(host, port) {
            return bounded.to.clone();
        }
        let asked = Destination { host: host.clone(), port };
        let own = self.doors().any(|allowed| allowed.destination == asked);
        match host {
            Host::Name(name) if !own => {
                self.allows_name(name, port).map_or(asked, |allowed| allowed.destination.clone())
            }
            Host::Name(_) | Host::Below(_) | Host::Address(_) => asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(to: &str, connections: u32) -> Bounded {
        let limits = DoorLimits { connections: Some(connections), ..DoorLimits::default() };
        Bounded { to: to.parse().unwrap(), limits }
    }

    #[test]
    fn a_door_has_its_own_limits_or_those_of_the_narrowest_pattern() {
        let mut network = Network::default();
        for (to, connections) in
            [("*.example:443", 1), ("*.b.example:443", 2), ("a.b.example:443", 3), ("10.0.0.1:443", 4)]
        {
            network.bound(&bounded(to, connections));
        }
        for (to, connections) in [
            ("a.b.example:443", Some(3)),
            ("c.b.example:443", Some(2)),
            ("b.example:443", Some(1)),
            ("b.example:80", None),
            ("example:443", None),
            ("10.0.0.1:443", Some(4)),
            ("10.0.0.2:443", None),
        ] {
            let to: Destination = to.parse().unwrap();
            let found = network.bounds_of(&to.host, to.port).and_then(|bounded| bounded.limits.connections);
            assert_eq!(found, connections, "{to}");
        }
    }

    #[test]
    fn what_is_said_later_is_in_the_place_of_what_it_names() {
        let mut network = Network::default();
        network.bound(&bounded("a:1", 1));
        let time = Some(Duration::from_secs(90));
        network.bound(&Bounded {
            to: "a:1".parse().unwrap(),
            limits: DoorLimits { up: Some(1 << 20), time, rate: Some(2), ..DoorLimits::default() },
        });
        network.bound(&bounded("a:1", 3));
        let [one] = &network.bounded[..] else { panic!("{network:?}") };
        assert_eq!(one.toml(), "{ to = \"a:1\", connections = 3, up = \"1MiB\", time = \"90s\", rate = 2 }");
        assert_eq!(one.limits.words(), "connections 3, up 1MiB, time 90s, rate 2");
    }
}
