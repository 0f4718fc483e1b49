//! What a door that ends TLS lets pass: methods and paths of HTTP, spelled out; and the credential that it puts in.
//!
//! A path that different programs read in different ways is refused, not interpreted: what is compared is what the server gets.
//!
//! Neighbours: `policy::profile` reads the sections, `network::head` judges requests by them. Never: decodes, normalises or completes a
//! path.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::network::{Destination, Host, Network};
use super::print::quote;
use super::source::Secret;

/// The port in the cell, if a profile says nothing: programs need to be told no port.
pub const DEFAULT_LISTEN: u16 = 80;
/// The longest path that is compared.
pub const LONGEST: usize = 8 * 1024;

/// A door at which TLS ends: HTTP in the cell, TLS outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// The name, as in `allow`.
    pub host: String,
    /// The port outside.
    pub port: u16,
    /// The port in the cell, at the name's own address.
    pub listen: u16,
    /// What may be asked; nothing, if it is empty.
    pub methods: Vec<String>,
    /// About what; nothing, if it is empty.
    pub paths: Vec<PathPattern>,
    /// What is put into each request.
    pub credential: Option<Credential>,
    /// The file with the certificates of authorities; `None`: those that this host trusts.
    pub roots: Option<PathBuf>,
    /// Who said so, e.g. "profile `github`".
    pub origin: String,
}

/// A header that the door puts into each request, in place of what a cell has put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its name.
    pub header: String,
    /// What stands before the secret, and behind it.
    pub around: (String, String),
    /// Where the secret is; a plan does not say it.
    pub secret: Option<Box<Secret>>,
}

/// Which part of a request no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unallowed {
    /// The method.
    Method,
    /// The path.
    Path,
}

impl Http {
    /// Where it leads.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { host: Host::Name(self.host.clone()), port: self.port }
    }

    /// How a program in the cell addresses it, without a path.
    #[must_use]
    pub fn address(&self) -> String {
        match self.listen {
            DEFAULT_LISTEN => format!("http://{}", self.host),
            port => format!("http://{}:{port}", self.host),
        }
    }

    /// May this be asked?
    ///
    /// # Errors
    /// What of it is not allowed.
    pub fn allows(&self, method: &str, path: &str) -> Result<(), Unallowed> {
        if !self.methods.iter().any(|known| known == method) {
            return Err(Unallowed::Method);
        }
        match self.paths.iter().any(|pattern| pattern.covers(path)) {
            true => Ok(()),
            false => Err(Unallowed::Path),
        }
    }

    /// The lines of a profile that allow it, beside what is allowed already; `None` for a path that no line can name alone.
    #[must_use]
    pub fn allow_line(&self, method: &str, path: &str, missing: Unallowed) -> Option<String> {
        let (key, mut known): (_, Vec<&str>) = match missing {
            Unallowed::Method => ("methods", self.methods.iter().map(String::as_str).collect()),
            Unallowed::Path if path.contains('*') => return None,
            Unallowed::Path => ("paths", self.paths.iter().map(PathPattern::text).collect()),
        };
        known.push(if missing == Unallowed::Method { method } else { path });
        let words: Vec<String> = known.into_iter().map(quote).collect();
        Some(format!("{}\n{key} = [{}]", self.section(), words.join(", ")))
    }

    /// The header of its section.
    #[must_use]
    pub fn section(&self) -> String {
        format!("[network.http.{}]", quote(&self.destination().to_string()))
    }

    /// What it does, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let paths: Vec<&str> = self.paths.iter().map(PathPattern::text).collect();
        let asked = match self.methods.is_empty() || paths.is_empty() {
            true => "nothing may be asked".to_owned(),
            false => format!("{} of {}", self.methods.join(" "), paths.join(" ")),
        };
        let puts = self.credential.as_ref().map_or_else(String::new, |credential| {
            format!("; `{}` is put in by the door", credential.header)
        });
        format!("TLS ends at the door: {asked}{puts}")
    }

    /// What of it does not fit to the rest of the section: a message and a hint.
    #[must_use]
    pub fn unfit(&self, network: &Network) -> Option<(String, String)> {
        let own = self.destination();
        if !network.allow.iter().any(|allowed| allowed.destination == own) {
            let hint = format!("write it in `[network]` too: `allow = [{}]`", quote(&own.to_string()));
            return Some((format!("`{own}` is no destination of `allow`"), hint));
        }
        let inside =
            |allowed: &Destination| allowed.host == own.host && network.inside(allowed) == self.listen;
        let other = network
            .allow
            .iter()
            .map(|allowed| &allowed.destination)
            .find(|other| **other != own && inside(other));
        other.map(|other| {
            let at = format!("{}:{}", self.host, self.listen);
            let hint = "write another port, as in `listen = 8080`".to_owned();
            (format!("`{at}` in the cell would be the door of `{other}` too"), hint)
        })
    }
}

/// Paths that are allowed: one, or several by `*` in place of a whole part, or by `**` at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathPattern(String);

impl PathPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        check_path(text.as_bytes())?;
        let parts: Vec<&str> = text.split('/').collect();
        let last = parts.len() - 1;
        for (nth, part) in parts.into_iter().enumerate() {
            if part.contains('*') && part != "*" && !(part == "**" && nth == last) {
                return Err("a `*` stands for a whole part, and `**` for all that follows, at the end");
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Is this path one of them? It must be one that [`check_path`] lets pass.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        for wanted in self.0.split('/') {
            let fits = match (wanted, parts.next()) {
                ("**", part) => return part.is_some(),
                (_, None) => false,
                ("*", Some(part)) => !part.is_empty(),
                (wanted, Some(part)) => wanted == part,
            };
            if !fits {
                return false;
            }
        }
        parts.next().is_none()
    }
}

/// Is this a path that every program reads in the same way?
///
/// # Errors
/// Why it is not.
pub fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.first() != Some(&b'/') {
        return Err("a path begins with `/`");
    }
    if path.len() > LONGEST {
        return Err("the path is too long");
    }
    let mut parts = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(part) = parts.next() {
        if part.is_empty() && parts.peek().is_some() {
            return Err("`//` is one `/` to some servers, and two to others");
        }
        let text = decoded(part)?;
        if !text.is_empty() && text.chars().all(|letter| letter == '.' || letter.is_whitespace()) {
            return Err("`.` and `..` lead elsewhere");
        }
        if text.chars().any(looks_like_another) {
            return Err("a letter in it is taken for one of ASCII by some programs");
        }
    }
    Ok(())
}

/// A part of a path with what is percent-encoded in place: letters that have to be, and nothing with a meaning of its own.
fn decoded(part: &[u8]) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let Some(([high, low], after)) = rest.split_first_chunk::<2>() else {
                    return Err("a `%` is followed by two digits");
                };
                rest = after;
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                    return Err("a `%` is followed by two digits, from 0 to 9 and A to F");
                };
                let byte = high << 4 | low;
                if matches!(byte, b'/' | b'\\' | b'%' | b';' | b'?' | b'#' | b'*') || byte.is_ascii_control()
                {
                    return Err("a character that would have a meaning is hidden by `%`");
                }
                if is_unreserved(byte) {
                    return Err("a character is hidden by `%` that needs no hiding");
                }
                bytes.push(byte);
            }
            b';' => return Err("`;` begins parameters to some servers, and is a letter to others"),
            byte if is_unreserved(*byte) || b"!$&'()*+,=:@".contains(byte) => bytes.push(*byte),
            _ => return Err("it has a character that no path has"),
        }
    }
    String::from_utf8(bytes).map_err(|_other: std::string::FromUtf8Error| "what is hidden by `%` is no UTF-8")
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986, 2.3
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Letters of which compatibility forms (NFKC) or habit make `.`, `/`, `\` or `%`.
fn looks_like_another(letter: char) -> bool {
    matches!(letter,
        '\u{80}'..='\u{9f}' | '\u{37e}' | '\u{2024}'..='\u{2026}' | '\u{2044}' | '\u{2100}'..='\u{214f}' | '\u{2215}' | '\u{2216}' | '\u{2460}'..='\u{24ff}'
        | '\u{29f5}' | '\u{29f8}' | '\u{29f9}' | '\u{3300}'..='\u{33ff}' | '\u{fe10}'..='\u{fe6f}' | '\u{ff00}'..='\u{ffef}' | '\u{1f100}'..='\u{1f1ff}')
}

/// Can this be a method that a door passes on? `TRACE` would be answered with what the door has put in.
///
/// # Errors
/// Why not.
pub fn check_method(method: &str) -> Result<(), &'static str> {
    if matches!(method, "CONNECT" | "TRACE" | "TRACK") {
        return Err("a door passes no `CONNECT`, `TRACE` or `TRACK` on");
    }
    let letters = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match letters && (1..=32).contains(&method.len()) {
        true => Ok(()),
        false => Err("a method is made of capital letters"),
    }
}

/// Can this be the name of a header?
#[must_use]
pub fn is_header(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Headers that are about the connection or where a request goes, in lower case: a door writes them itself.
pub const OF_THE_DOOR: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::network::Allowed;

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_none() {
        for right in [
            "/",
            "/a",
            "/a/",
            "/repos/o/r/issues",
            "/a%20b",
            "/b%C3%BCcher",
            "/a:b@c",
            "/~u/a.b-c_d",
            "/a(b)'!$&+,=",
            "/.well-known/x",
            "/a..b",
            "/*",
        ] {
            assert_eq!(check_path(right.as_bytes()), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "a",
            "*",
            "http://a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/.",
            "/...",
            "/%2e%2e/a",
            "/%2E%2E/a",
            "/.%2E/a",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a%00b",
            "/a%0Ab",
            "/a%25b",
            "/a;b",
            "/a%3Bb",
            "/a/..;/b",
            "/a%3Fb",
            "/a%23b",
            "/a#b",
            "/a b",
            "/a\tb",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%61",
            "/%7E",
            "/a%c3%bc",
            "/%C0%AE%C0%AE/a",
            "/%E0%80%AE",
            "/%FF",
            "/%EF%BC%8E%EF%BC%8E/a",
            "/%E2%80%A5/a",
            "/a%EF%BC%8Fb",
            "/a%E2%88%95b",
            "/%C2%85",
            "/..%20/a",
            "/..%C2%A0/a",
            "/..%E3%80%80/a",
            "/..%CD%BE/a",
            "/a\"b",
            "/a<b",
            "/a|b",
            "/a^b",
            "/a`b",
            "/a{b}",
            "/a[b]",
            "/bücher",
        ] {
            assert!(check_path(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(check_path(format!("/{}", "a".repeat(LONGEST)).as_bytes()).is_err());
    }

    #[test]
    fn a_pattern_covers_whole_parts() {
        let covers = |pattern: &str, path: &str| PathPattern::parse(pattern).unwrap().covers(path);
        for (pattern, path, covered) in [
            ("/user", "/user", true),
            ("/user", "/user/", false),
            ("/user", "/User", false),
            ("/user", "/users", false),
            ("/repos/**", "/repos/a", true),
            ("/repos/**", "/repos/a/b/c", true),
            ("/repos/**", "/repos/", true),
            ("/repos/**", "/repos", false),
            ("/repos/**", "/reposx/a", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/repos/*/*/issues", "/repos/o/r/issues", true),
            ("/repos/*/*/issues", "/repos/o/issues", false),
            ("/repos/*/*/issues", "/repos/o/r/issues/1", false),
            ("/a/*", "/a/", false),
            ("/a/*/**", "/a/b", false),
            ("/a/*/**", "/a/b/c", true),
            ("/", "/", true),
            ("/", "/a", false),
        ] {
            assert_eq!(covers(pattern, path), covered, "{pattern} {path}");
        }
        for wrong in ["a", "", "*", "/a*", "/**/a", "/*.json", "/a/***", "/../a", "/a;b", "/%2F"] {
            assert!(PathPattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn door() -> Http {
        Http {
            host: "a.example".to_owned(),
            port: 443,
            listen: 80,
            methods: vec!["GET".to_owned()],
            paths: vec![PathPattern::parse("/v1/**").unwrap()],
            credential: None,
            roots: None,
            origin: String::new(),
        }
    }

    #[test]
    fn what_is_not_spelled_is_not_allowed_and_told_how_it_would_be() {
        let door = door();
        assert_eq!(door.allows("GET", "/v1/a"), Ok(()));
        assert_eq!(door.allows("POST", "/v1/a"), Err(Unallowed::Method));
        assert_eq!(door.allows("get", "/v1/a"), Err(Unallowed::Method));
        assert_eq!(door.allows("GET", "/v2/a"), Err(Unallowed::Path));
        assert_eq!(
            door.allow_line("POST", "/v1/a", Unallowed::Method).unwrap(),
            "[network.http.\"a.example:443\"]\nmethods = [\"GET\", \"POST\"]"
        );
        assert_eq!(
            door.allow_line("GET", "/v2/a", Unallowed::Path).unwrap(),
            "[network.http.\"a.example:443\"]\npaths = [\"/v1/**\", \"/v2/a\"]"
        );
        assert_eq!(door.allow_line("GET", "/v2/*", Unallowed::Path), None);
        for empty in [Http { methods: vec![], ..door.clone() }, Http { paths: vec![], ..door }] {
            assert!(empty.allows("GET", "/v1/a").is_err());
        }
        for (method, right) in [
            ("GET", true),
            ("M-SEARCH", true),
            ("get", false),
            ("", false),
            ("TRACE", false),
            ("CONNECT", false),
            ("G T", false),
        ] {
            assert_eq!(check_method(method).is_ok(), right, "{method}");
        }
    }

    #[test]
    fn a_door_has_a_place_of_its_own_in_the_cell() {
        let network = |allow: &[&str]| Network {
            allow: allow
                .iter()
                .map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() })
                .collect(),
            http: vec![door()],
            ..Network::default()
        };
        assert_eq!(door().unfit(&network(&["a.example:443", "b.example:80"])), None);
        let unfit = |allow: &[&str]| door().unfit(&network(allow)).unwrap().0;
        assert_eq!(unfit(&["*.example:443"]), "`a.example:443` is no destination of `allow`");
        assert_eq!(
            unfit(&["a.example:443", "a.example:80"]),
            "`a.example:80` in the cell would be the door of `a.example:80` too"
        );
    }

    proptest! {
        /// Whatever passes has one reading: it is what it is also when it is decoded once more, and no part of it leads up.
        #[test]
        fn what_passes_has_one_reading(path in "/[a-c./%2EeFf;*]{0,12}|/\\PC{0,12}|(/(\\.|%2E|a|%[0-9A-F]{2})+){1,4}") {
            if check_path(path.as_bytes()).is_ok() {
                for part in path.split('/').skip(1) {
                    let text = decoded(part.as_bytes()).unwrap();
                    prop_assert!(text != "." && text != ".." && !text.contains(['/', '\\', '%', ';', '\0', '?', '#']));
                }
                if !path.contains('*') {
                    prop_assert!(PathPattern::parse(&path).unwrap().covers(&path));
                }
            }
        }
    }
}
