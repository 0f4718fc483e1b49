//! For whom requests may be: the names in `Host`, and the pages in `Origin` that may send them.
//!
//! A page of anybody's can have its own name resolve to a loopback address, and so send requests to whatever listens
//! there. Its name stands in both headers, and is none of ours.
//!
//! Neighbours: [`super::endpoint`] asks of every request. Never: resolves a name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The names that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Without port, in small letters, IPv6 addresses in brackets.
    names: Vec<String>,
    origins: Vec<String>,
}

impl Hosts {
    /// Of what is listened on, with names and origins that were allowed beside it.
    #[must_use]
    pub fn new(address: SocketAddr, names: &[String], origins: &[String]) -> Self {
        let mut all: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let ip = address.ip();
        if ip.is_loopback() {
            all.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        if !ip.is_unspecified() {
            all.push(host_of(ip));
        }
        Self { names: all, origins: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect() }
    }

    /// Is this `Host` one of ours? The port is not compared: what stands in front may have another.
    #[must_use]
    pub fn is_ours(&self, host: &str) -> bool {
        split(host).is_some_and(|(name, _)| self.names.contains(&name.to_ascii_lowercase()))
    }

    /// May a page of this origin send requests to this host? Its own pages may, and those that were allowed.
    #[must_use]
    pub fn may_send(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        let own = |scheme: &str| origin.strip_prefix(scheme) == Some(host.to_ascii_lowercase().as_str());
        own("http://") || own("https://")
    }

    /// Whether pages of other origins were allowed.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.contains(&origin.to_ascii_lowercase())
    }
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Name and port of a `Host` header, if it has the form of one.
fn split(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, rest)) => {
            inner.parse::<Ipv6Addr>().ok()?;
            (host.get(..inner.len() + 2)?, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())));
    match port {
        Some(None) => None,
        Some(Some(port)) => Some((name, Some(port))),
        None => Some((name, None)),
    }
}

/// Can this be a name to allow: one that a `Host` header has, without port?
#[must_use]
pub fn is_name(name: &str) -> bool {
    matches!(split(name), Some((_, None)))
        && !name.is_empty()
        && (name.starts_with('[')
            || name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')))
}

/// Can this be an origin: scheme, host and perhaps port, and nothing behind them?
#[must_use]
pub fn is_origin(origin: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    rest.is_some_and(|host| split(host).is_some_and(|(name, _)| is_name(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(address: &str) -> Hosts {
        Hosts::new(
            address.parse().unwrap(),
            &["Tools.Example".to_owned()],
            &["https://app.example".to_owned()],
        )
    }

    #[test]
    fn names_that_are_ours() {
        let loopback = hosts("127.0.0.1:8080");
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "tools.example:443"] {
            assert!(loopback.is_ours(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.",
            "localhost:",
            "localhost:x",
            "localhost:80:80",
            "[::1",
            "[::1]x",
            "[evil]",
            "localhost@evil.example",
            "127.0.0.2",
            "localhost:99999",
            "localhost:+1",
        ] {
            assert!(!loopback.is_ours(host), "{host}");
        }
        let lan = hosts("192.0.2.7:80");
        assert!(lan.is_ours("192.0.2.7") && !lan.is_ours("localhost") && lan.is_ours("tools.example"));
        assert!(!hosts("0.0.0.0:80").is_ours("0.0.0.0"));
    }

    #[test]
    fn origins_that_may_send() {
        let hosts = hosts("127.0.0.1:8080");
        let may = |origin| hosts.may_send(origin, "localhost:8080");
        assert!(may("http://localhost:8080") && may("https://APP.example"));
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:80",
            "http://evil.example",
            "http://127.0.0.1:8080",
            "https://app.example:1",
            "http://app.example",
        ] {
            assert!(!may(origin), "{origin}");
        }
    }

    #[test]
    fn what_can_be_allowed() {
        assert!(is_name("tools.example") && is_name("[2001:db8::1]") && is_name("10.0.0.1"));
        assert!(
            !is_name("tools.example:80")
                && !is_name("")
                && !is_name("https://a")
                && !is_name("a/b")
                && !is_name("*")
        );
        assert!(is_origin("https://app.example") && is_origin("http://localhost:3000"));
        assert!(
            !is_origin("app.example")
                && !is_origin("https://a/")
                && !is_origin("https://*")
                && !is_origin("null")
        );
    }
}
