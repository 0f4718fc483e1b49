//! What one call reaches, where `grants` of its tool speak of destinations: the hosts that its arguments name, and nothing else.
//!
//! The result is never wider than the policy: a door is there only if the profile allows it, and what else the profile says of
//! doors holds for it.
//!
//! Neighbours: `policy::config::grants` reads the entries, `commands::run` asks for each call, `host::narrow` does the same with
//! paths. Never: resolves a name; takes a text apart in a way that the program's own reader might not.

use std::collections::BTreeSet;

use serde_json::Value;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::config::grants::ConnectGrant;
use super::mode::Mode;
use super::network::{Allowed, Destination, DestinationError, Host, Network, allow_line};
use super::print::quote;
use crate::arguments::leads;
use crate::outcome::{Granted, Violation};

/// Destinations in the arguments of one call: each has an address of its own in the cell.
const MOST: usize = 64;
/// Bytes of an argument.
const LONGEST: usize = 8192;

/// Why an argument opens no door, and the call is not run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each is the place in the arguments, and what was found there")]
pub enum Unreached {
    #[error("the argument `{at}` holds {count} destinations; a call can have {MOST}")]
    Many { at: String, count: usize },
    #[error("the argument `{at}` is no text, and has to be a URL, `HOST` or `HOST:PORT`")]
    NoText { at: String },
    #[error("the argument `{at}` {told}")]
    NoUrl { at: String, told: &'static str },
    #[error("the argument `{at}` is neither a URL nor `HOST` or `HOST:PORT`")]
    NoHost { at: String, source: DestinationError },
    #[error("the argument `{at}` leads to `{destination}`, which is not within {}", listed(.within))]
    Outside { at: String, destination: Destination, within: Vec<Destination> },
    #[error(
        "the argument `{at}` leads to `{destination}`, which profile `{profile}` does not let tools reach"
    )]
    NotAllowed { at: String, destination: Destination, profile: String },
    #[error("the argument `{at}` leads to `{destination}`, which profile `{profile}` denies")]
    Denied { at: String, destination: Destination, profile: String },
}

fn listed(within: &[Destination]) -> String {
    match within.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>() {
        none if none.is_empty() => "anything: `within` is empty".to_owned(),
        some => some.join(", "),
    }
}

impl Unreached {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Many { .. } => Some("split the call".to_owned()),
            Self::NoHost { source: DestinationError::Pattern(_), .. } => Some("name one host".to_owned()),
            Self::NoHost { source, .. } => source.hint(),
            Self::Outside { destination, within, .. } => {
                let all = within.iter().chain([destination]).map(|one| quote(&one.to_string()));
                let all = all.collect::<Vec<_>>().join(", ");
                Some(format!("to allow it, name it in the tool's `grants`: within = [{all}]"))
            }
            Self::NotAllowed { destination, .. } => {
                Some(format!("to allow it: {}", allow_line(&destination.to_string()).replace('\n', " ")))
            }
            Self::Denied { .. } => Some("`deny` of its `[network]` is above all grants".to_owned()),
            Self::NoText { .. } | Self::NoUrl { .. } => None,
        }
    }

    /// What was to be reached and is not allowed, with the line of the profile that would allow it.
    #[must_use]
    pub fn refused(&self) -> Option<(&Destination, Option<String>)> {
        match self {
            Self::NotAllowed { destination, .. } => {
                Some((destination, Some(allow_line(&destination.to_string()))))
            }
            Self::Outside { destination, .. } | Self::Denied { destination, .. } => Some((destination, None)),
            Self::Many { .. } | Self::NoText { .. } | Self::NoUrl { .. } | Self::NoHost { .. } => None,
        }
    }
}

/// The doors for a call with these arguments, and what they grant.
///
/// # Errors
/// The first argument that leads where it may not, or nobody can say where to.
pub fn connected(
    network: &Network,
    profile: &str,
    grants: &[ConnectGrant],
    arguments: &Value,
) -> Result<(Network, Vec<Granted>), Unreached> {
    let (mut doors, mut granted) = (Vec::new(), Vec::new());
    let mut count = 0;
    for grant in grants {
        let values = grant.argument.find(arguments);
        count += values.len();
        if count > MOST {
            return Err(Unreached::Many { at: grant.argument.to_string(), count });
        }
        for value in values {
            for destination in (Asked { network, profile, grant }).look(value)? {
                granted.push(Granted {
                    access: "connect".to_owned(),
                    path: destination.to_string(),
                    by: Some(format!("/arguments{}", grant.argument)),
                });
                doors.push(Allowed { destination, origin: "`grants`".to_owned() });
            }
        }
    }
    // Whoever names hosts has a network of the cell's own.
    let mut left =
        Network { mode: Mode::Cell, allow: Vec::new(), unix: Vec::new(), named: true, ..network.clone() };
    doors.iter().for_each(|door| left.add(door));
    Ok((left, granted))
}

/// What a call is told that tried to reach another host than its arguments name: a line of its profile would not have helped.
pub fn as_named(network: &Network, violations: &mut [Violation]) {
    for violation in violations.iter_mut().filter(|_| network.named) {
        if violation.allow.take_if(|line| opens_a_door(line)).is_some() {
            "`grants` of the tool: doors are where the arguments of the call lead"
                .clone_into(&mut violation.rule);
        }
    }
}

/// Is this line of a profile's for another place to be reached? An item that is a table has limits, of a door that there is.
fn opens_a_door(line: &str) -> bool {
    let Ok(table) = DeTable::parse(line) else { return false };
    let Some(DeValue::Table(network)) = table.get_ref().get("network").map(|value| value.get_ref()) else {
        return false;
    };
    ["allow", "allow-unix"].into_iter().any(|key| match network.get(key).map(|value| value.get_ref()) {
        Some(DeValue::Array(items)) => items.iter().any(|item| item.get_ref().is_str()),
        _ => false,
    })
}

/// What decides about the destinations in one argument.
struct Asked<'a> {
    network: &'a Network,
    profile: &'a str,
    grant: &'a ConnectGrant,
}

impl Asked<'_> {
    fn look(&self, value: &Value) -> Result<Vec<Destination>, Unreached> {
        let at = || self.grant.argument.to_string();
        let text = value.as_str().ok_or_else(|| Unreached::NoText { at: at() })?;
        let named = self.named(text)?;
        let (within, outside): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|one| self.grant.within.iter().any(|known| covers(known, one)));
        if within.is_empty()
            && let Some(destination) = outside.into_iter().next()
        {
            return Err(Unreached::Outside { at: at(), destination, within: self.grant.within.clone() });
        }
        let mut open = Vec::new();
        for destination in within.iter().filter(|one| allows(self.network, one)) {
            open.push(destination.clone());
        }
        match within.into_iter().next().filter(|_| open.is_empty()) {
            None => Ok(open),
            Some(destination) => {
                let (at, profile) = (at(), self.profile.to_owned());
                Err(match self.network.allow.iter().any(|known| covers(&known.destination, &destination)) {
                    true => Unreached::Denied { at, destination, profile },
                    false => Unreached::NotAllowed { at, destination, profile },
                })
            }
        }
    }

    /// The destinations that a text names: one, or, for a host without a port, one for each port that `within` has.
    fn named(&self, text: &str) -> Result<Vec<Destination>, Unreached> {
        let at = || self.grant.argument.to_string();
        if text.len() > LONGEST {
            return Err(Unreached::NoUrl { at: at(), told: "must have at most 8192 bytes" });
        }
        let wrong = |source| Unreached::NoHost { at: at(), source };
        if text.contains("://") {
            let (host, port) = leads(text).map_err(|told| Unreached::NoUrl { at: at(), told })?;
            return Ok(vec![one(&format!("{host}:{port}")).map_err(wrong)?]);
        }
        match one(text) {
            Err(DestinationError::NoPort(host)) if host == text => {
                let ports: BTreeSet<u16> = self.grant.within.iter().map(|known| known.port).collect();
                let all: Result<Vec<Destination>, _> =
                    ports.iter().map(|port| one(&format!("{host}:{port}"))).collect();
                match all.map_err(wrong)? {
                    none if none.is_empty() => Err(wrong(DestinationError::NoPort(host))),
                    all => Ok(all),
                }
            }
            found => Ok(vec![found.map_err(wrong)?]),
        }
    }
}

/// One destination: no pattern.
fn one(text: &str) -> Result<Destination, DestinationError> {
    match text.parse::<Destination>()? {
        Destination { host: Host::Below(_), .. } => Err(DestinationError::Pattern(text.to_owned())),
        destination => Ok(destination),
    }
}

/// Is this one destination among those that another stands for?
fn covers(known: &Destination, one: &Destination) -> bool {
    let host = match &one.host {
        Host::Name(name) => known.host.covers(name),
        host @ (Host::Below(_) | Host::Address(_)) => known.host == *host,
    };
    host && known.port == one.port
}

fn allows(network: &Network, destination: &Destination) -> bool {
    match &destination.host {
        Host::Name(name) => network.allows_name(name, destination.port).is_some(),
        Host::Address(address) => network.allows_address(*address, destination.port).is_some(),
        Host::Below(_) => false,
    }
}

#[cfg(test)]
#[path = "connect/tests.rs"]
mod tests;
