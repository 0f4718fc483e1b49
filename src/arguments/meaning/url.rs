//! `url`: an absolute URL with an allowed scheme, host and port, in a form that every reader takes apart in the same way.
//!
//! Neighbours: `arguments::meaning`, and `policy::connect` asks where one leads. Never: looks a name up.

use serde_json::{Map, Value, json};

use super::{Reader, Unmeant, listed};

const MOST: usize = 8192;

/// What is allowed.
#[derive(Debug)]
pub(in crate::arguments) struct Allowed {
    schemes: Vec<String>,
    /// In small letters; `*.` before one stands for every name below it.
    hosts: Vec<String>,
    /// Beside the scheme's own.
    ports: Vec<u64>,
}

/// A URL's parts that decide where it leads.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'t> {
    scheme: String,
    host: String,
    port: Option<&'t str>,
}

impl Allowed {
    pub(super) fn read(reader: &mut Reader<'_>, value: &Value) -> Option<Self> {
        let members = reader.table(value, &["host", "scheme", "port"])?;
        let mut hosts = Vec::new();
        for (at, host) in reader.texts(members, "host")? {
            let name = host.strip_prefix("*.").unwrap_or(&host);
            match is_host(name) && (name == host || !is_numeric(name)) {
                true => hosts.push(host.to_ascii_lowercase()),
                false => reader.mistake(at, "must be a host's name or address, or `*.` and a name", None),
            }
        }
        let schemes =
            reader.texts(members, "scheme").unwrap_or_else(|| vec![(String::new(), "https".to_owned())]);
        let ports = ports(reader, members);
        let mut known = Vec::new();
        for (at, scheme) in schemes {
            match is_scheme(&scheme) {
                true => known.push(scheme.to_ascii_lowercase()),
                false => reader.mistake(at, "must be a scheme, such as `https`", None),
            }
        }
        Some(Self { schemes: known, hosts, ports })
    }

    pub(super) fn judge(&self, text: &str) -> Result<(), Unmeant> {
        let Parts { scheme, host, port } = parts(text).map_err(Unmeant::new)?;
        let usual = usual(&scheme).map(u64::from);
        let port = port.map(str::parse::<u64>);
        let known_scheme = self.schemes.contains(&scheme);
        let known_host = self.hosts.iter().any(|allowed| matches(allowed, &host));
        let known_port = match &port {
            None => true,
            Some(port) => port.as_ref().is_ok_and(|port| Some(*port) == usual || self.ports.contains(port)),
        };
        let told = match (known_scheme, known_host, known_port) {
            (true, true, true) => return Ok(()),
            (false, ..) => {
                format!("must have the scheme {}", listed(self.schemes.iter().map(String::as_str)))
            }
            (_, false, _) => format!("must have the host {}", listed(self.hosts.iter().map(String::as_str))),
            _ => "must have the scheme's own port, or one of `port`".to_owned(),
        };
        // One thing is told, and what would let the text through is said of all.
        let more = |known: bool, text: &str| if known { Vec::new() } else { vec![text.to_owned()] };
        let port = port.filter(|_| !known_port).map(|port| port.ok().filter(|port| *port < 65536));
        let wider = match port {
            Some(None) => None,
            Some(Some(port)) => {
                Some(self.with(&more(known_scheme, &scheme), &more(known_host, &host), &[port]))
            }
            None => Some(self.with(&more(known_scheme, &scheme), &more(known_host, &host), &[])),
        };
        Err(Unmeant { told, wider })
    }

    /// The keyword's value with more.
    fn with(&self, scheme: &[String], host: &[String], port: &[u64]) -> Value {
        let all = |known: &[String], more: &[String]| [known, more].concat();
        let mut value = json!({"scheme": all(&self.schemes, scheme), "host": all(&self.hosts, host)});
        let ports = [&self.ports, port].concat();
        if let Some(members) = value.as_object_mut().filter(|_| !ports.is_empty()) {
            members.insert("port".to_owned(), json!(ports));
        }
        value
    }
}

fn ports(reader: &mut Reader<'_>, members: &Map<String, Value>) -> Vec<u64> {
    let Some(value) = members.get("port") else { return Vec::new() };
    let ports: Option<Vec<u64>> = value.as_array().and_then(|items| {
        items.iter().map(|item| item.as_u64().filter(|port| (1..65536).contains(port))).collect()
    });
    if ports.is_none() {
        let at = format!("{}/port", reader.at);
        reader.mistake(at, "must be an array of numbers from 1 to 65535", None);
    }
    ports.unwrap_or_default()
}

fn matches(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix('*') {
        // With the dot, so that no neighbour's name ends like it.
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => host == allowed,
    }
}

/// The port of a scheme.
fn usual(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

/// Where a URL leads in every reader: its host, in small letters, and its port or its scheme's.
///
/// # Errors
/// What it must be.
pub fn leads(text: &str) -> Result<(String, u16), &'static str> {
    let Parts { scheme, host, port } = parts(text)?;
    let port = match port {
        Some(port) => port
            .parse()
            .map_err(|_large: std::num::ParseIntError| "must be a URL whose port is a number up to 65535")?,
        None => usual(&scheme).ok_or("must be a URL with a port, because its scheme has no usual one")?,
    };
    Ok((host, port))
}

/// Takes a URL apart.
fn parts(text: &str) -> Result<Parts<'_>, &'static str> {
    if text.len() > MOST {
        return Err("must be a URL of at most 8192 bytes");
    }
    // Some readers take a backslash for a slash, drop tabs and newlines, or end at a blank.
    if !text.bytes().all(|b| {
        b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
    }) {
        return Err(
            "must be a URL of printable ASCII; write other characters as `%XX`, and other names in their `xn--` form",
        );
    }
    let absolute = "must be an absolute URL, such as `https://host/path`";
    let (scheme, rest) = text.split_once("://").ok_or(absolute)?;
    if !is_scheme(scheme) {
        return Err(absolute);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("must be a URL without a user's name");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, "")) => (&authority[..address.len() + 2], None),
        Some((address, port)) => {
            (&authority[..address.len() + 2], Some(port.strip_prefix(':').ok_or(absolute)?))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if !is_host(host) {
        return Err(
            "must be a URL whose host is a name, an IPv4 address of four decimal numbers, or an IPv6 address in brackets",
        );
    }
    if port.is_some_and(|port| {
        port.is_empty() || port.starts_with('0') || !port.bytes().all(|b| b.is_ascii_digit())
    }) {
        return Err("must be a URL whose port is a number");
    }
    Ok(Parts { scheme: scheme.to_ascii_lowercase(), host: host.to_ascii_lowercase(), port })
}

fn is_scheme(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Would some reader take it for a number, and so for an address?
fn is_numeric(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A name of labels, or an address in its one usual form. No dot at the end.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        return address
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|parsed| parsed.to_string() == address.to_ascii_lowercase());
    }
    if is_numeric(host) {
        return host.parse::<std::net::Ipv4Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() < 254 && host.split('.').all(label)
}
