//! Reads the sections `[network.http."HOST:PORT"]` of a profile: doors at which TLS ends.
//!
//! Neighbours: `profile::network` reads the rest of `[network]`, `policy::source` where a secret is. Never: completes what is not
//! spelled.

use std::ops::RangeInclusive;

use toml::de::DeTable;

use super::{Located, Reader};
use crate::policy::http::{
    Credential, DEFAULT_LISTEN, Http, OF_THE_DOOR, PathPattern, check_method, is_header,
};
use crate::policy::network::{Destination, DestinationError, Host};
use crate::policy::print::quote;
use crate::policy::source::{AGES, FROM, Place, Secret, kind};
use crate::policy::toml_file::Value;

/// The keys of one door,
pub(super) const KEYS: &[&str] = &["tls", "listen", "methods", "paths", "roots", "credential"];
/// and of what it puts in.
pub(super) const CREDENTIAL_KEYS: &[&str] = &["header", "value", "from", "format", "max-age"];
const PORTS: RangeInclusive<u32> = 1..=65535;
const ENDS: &str =
    "write `tls = \"end\"`: programs in the cell speak HTTP, and the door speaks TLS to the host";
const HEADER: &str = "write the header's name: `header = \"Authorization\"`";
const VALUE: &str = "write `{}` where the secret stands: `value = \"Bearer {}\"`";
/// The longest text around a secret.
const AROUND: usize = 256;

impl Reader<'_, '_> {
    /// Names with their ports, each a section.
    pub(super) fn http(&mut self, value: &Value<'_>) {
        let Some(table) = self.file.table(value, "`http`") else { return };
        for (key, value) in table {
            let text: &str = key.get_ref();
            let spot = self.file.spot(&key.span());
            let destination = match text.parse::<Destination>() {
                Ok(Destination { host: Host::Name(host), port }) if host != "localhost" => Ok((host, port)),
                Ok(_) => Err((
                    format!("`{text}` is not one name"),
                    Some(
                        "a certificate is of a name: write `[network.http.\"api.github.com:443\"]`"
                            .to_owned(),
                    ),
                )),
                Err(error) => Err((DestinationError::to_string(&error), error.hint())),
            };
            let (host, port) = match destination {
                Ok(destination) => destination,
                Err((message, hint)) => {
                    self.file.mistake(&key.span(), &message, hint.as_deref());
                    continue;
                }
            };
            let place = format!("`[network.http.{}]`", quote(text));
            let Some(table) = self.file.table(value, &place) else { continue };
            let Some(http) = self.ended(table, &place, value, (host, port)) else { continue };
            if self.profile.network.http.iter().any(|known| known.value.destination() == http.destination()) {
                self.file.mistake(&key.span(), &format!("`{}` is there twice", http.destination()), None);
            }
            self.profile.network.http.push(Located { value: http, spot });
        }
    }

    fn ended(
        &mut self,
        table: &DeTable<'_>,
        place: &str,
        whole: &Value<'_>,
        (host, port): (String, u16),
    ) -> Option<Http> {
        let mut http = Http {
            host,
            port,
            listen: DEFAULT_LISTEN,
            methods: Vec::new(),
            paths: Vec::new(),
            credential: None,
            roots: None,
            origin: format!("profile `{}`", self.file.source.name),
        };
        for (key, _, value) in self.file.entries(table, place, KEYS) {
            match key {
                "tls" => {
                    if self.file.text(value, "`tls`").is_some_and(|tls| tls != "end") {
                        self.file.mistake(&value.span(), "`tls` can only be `end` here", Some(ENDS));
                    }
                }
                "listen" => {
                    let port = self.file.count(value, "`listen`", &PORTS);
                    http.listen = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_LISTEN);
                }
                "methods" => http.methods = self.methods(value),
                "paths" => http.paths = self.paths(value),
                "roots" => {
                    if let Some(text) = self.file.text(value, "`roots`") {
                        match self.variables.path(text) {
                            Ok(path) => http.roots = Some(path),
                            Err(error) => self.path_mistake(&value.span(), &error),
                        }
                    }
                }
                _ => http.credential = self.credential(value, place),
            }
        }
        let needed = [
            ("tls", ENDS),
            ("methods", "write what may be asked: `methods = [\"GET\"]`; an empty list allows nothing"),
            ("paths", "write what about: `paths = [\"/repos/**\"]`; an empty list allows nothing"),
        ];
        for (key, hint) in needed {
            if !table.contains_key(key) {
                self.file.mistake(&whole.span(), &format!("{place} has no `{key}`"), Some(hint));
            }
        }
        Some(http)
    }

    fn methods(&mut self, value: &Value<'_>) -> Vec<String> {
        let mut methods = Vec::new();
        for item in self.file.items(value, "`methods`") {
            let Some(text) = self.file.text(item, "an item of `methods`") else { continue };
            match check_method(text) {
                Ok(()) => methods.push(text.to_owned()),
                Err(why) => {
                    let message = format!("`{text}` cannot be allowed");
                    self.file.mistake(&item.span(), &message, Some(why));
                }
            }
        }
        methods
    }

    fn paths(&mut self, value: &Value<'_>) -> Vec<PathPattern> {
        let mut paths = Vec::new();
        for item in self.file.items(value, "`paths`") {
            let Some(text) = self.file.text(item, "an item of `paths`") else { continue };
            match PathPattern::parse(text) {
                Ok(path) => paths.push(path),
                Err(why) => {
                    let message = format!("`{text}` is no path that a door can compare");
                    self.file.mistake(&item.span(), &message, Some(why));
                }
            }
        }
        paths
    }

    fn credential(&mut self, value: &Value<'_>, door: &str) -> Option<Credential> {
        let place = format!("`credential` in {door}");
        let table = self.file.table(value, &place)?;
        let (mut header, mut around, mut from, mut format, mut max_age) = (None, None, None, None, None);
        for (key, _, value) in self.file.entries(table, &place, CREDENTIAL_KEYS) {
            match key {
                "header" => header = self.header(value),
                "value" => around = self.around(value),
                "from" => from = self.file.secret_from(value),
                "format" => format = self.file.secret_format(value),
                _ => max_age = self.file.duration(value, "`max-age`", &AGES),
            }
        }
        for (key, hint) in [("header", HEADER), ("value", VALUE), ("from", FROM)] {
            if !table.contains_key(key) {
                self.file.mistake(&value.span(), &format!("{place} has no `{key}`"), Some(hint));
            }
        }
        let from = from?;
        if let Some((key, _)) = table.get_key_value("max-age").filter(|_| !from.is_dated()) {
            let message = format!("`max-age` has no effect: nothing tells when the {} was made", kind(&from));
            self.file.mistake(&key.span(), &message, None);
        }
        let header = header?;
        let into = Place::Header(header.clone());
        let secret = Secret { from, to: Vec::new(), into, format, max_age, warn_age: None, rotated: None };
        Some(Credential { header, around: around?, secret: Some(Box::new(secret)) })
    }

    fn header(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.file.text(value, "`header`")?;
        if !is_header(text) {
            self.file.mistake(&value.span(), &format!("`{text}` cannot be a header's name"), Some(HEADER));
            return None;
        }
        if OF_THE_DOOR.contains(&text.to_ascii_lowercase().as_str()) {
            let message = format!("`{text}` says how a message is sent, and is the door's own");
            self.file.mistake(&value.span(), &message, Some(HEADER));
            return None;
        }
        Some(text.to_owned())
    }

    fn around(&mut self, value: &Value<'_>) -> Option<(String, String)> {
        let text = self.file.text(value, "`value`")?;
        let found = text.split_once("{}").filter(|(before, behind)| {
            let plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            plain(before) && plain(behind) && !behind.contains("{}") && text.len() <= AROUND
        });
        if found.is_none() {
            self.file.mistake(&value.span(), "`value` does not say where the secret stands", Some(VALUE));
        }
        found.map(|(before, behind)| (before.to_owned(), behind.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;
    use crate::policy::print::to_toml;
    use crate::policy::resolve::tests::read;
    use crate::policy::source::From;

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = r#"
[network]
allow = ["a.example:443", "a.example:80", "c.example:443", "d.example:443"]
[network.http."a.example:443"]
tls = "start"
methods = ["get", "TRACE", "GET"]
paths = ["/a/../b", "/a*", "x"]
port = 80
[network.http."b.example:443"]
tls = "end"
methods = []
paths = []
[network.http."c.example"]
[network.http."*.example:443"]
[network.http."localhost:443"]
[network.http."c.example:443"]
listen = 0
credential = { header = "Host", value = "Bearer", from = { env = "A", file = "/b" }, max-age = "1s", color = "red" }
[network.http."d.example:443"]
tls = "end"
methods = ["GET"]
paths = ["/"]
listen = 81
roots = "relative"
credential = { header = "a_b", value = "{}{}", from = { env = "A" }, max-age = "1d" }
"#;
        let told = read(text, "").unwrap_err();
        for part in [
            "`tls` can only be `end` here",
            "`get` cannot be allowed",
            "`TRACE` cannot be allowed",
            "`/a/../b` is no path that a door can compare",
            "`/a*` is no path that a door can compare",
            "`x` is no path that a door can compare",
            "unknown key `port` in `[network.http.\"a.example:443\"]`",
            "`b.example:443` is no destination of `allow`",
            "`c.example` has no port",
            "`*.example:443` is not one name",
            "`localhost:443` is not one name",
            "`listen` of `0` is out of range",
            "`Host` says how a message is sent",
            "`value` does not say where the secret stands",
            "`from` must name one source",
            "unknown key `color` in `credential` in",
            "`[network.http.\"c.example:443\"]` has no `tls`",
            "`[network.http.\"c.example:443\"]` has no `methods`",
            "`[network.http.\"c.example:443\"]` has no `paths`",
            "`a_b` cannot be a header's name",
            "`max-age` has no effect",
            "`a.example:80` in the cell would be the door of `a.example:80` too",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn a_section_is_in_the_place_of_a_parents_and_what_is_printed_resolves_to_the_same() {
        let parent = r#"
[network]
allow = ["a.example:443"]
[network.http."a.example:443"]
tls = "end"
methods = ["GET", "DELETE"]
paths = ["/**"]
roots = "/etc/ca.pem"
"#;
        let child = r#"
extends = "parent"
[network]
allow = ["b.example:8443"]
[network.http."A.example:443"]
tls = "end"
listen = 8080
methods = ["GET"]
paths = ["/v1/*/x", "/v2/**"]
credential = { header = "X-Key", value = "key={}; v=1", from = { file = "/k/ey", shared = true }, format = "[a-z]+", max-age = "90d" }
[network.http."b.example:8443"]
tls = "end"
methods = []
paths = []
roots = "{home}/ca.pem"
credential = { header = "Authorization", value = "Bearer {}", from = { command = ["pass", "show \"x\""], timeout = "3s" } }
"#;
        let policy = read(child, parent).unwrap();
        let [one, other] = &policy.network.http[..] else { panic!("{policy:#?}") };
        assert_eq!((one.methods.len(), one.roots.as_ref(), one.listen), (1, None, 8080));
        let credential = one.credential.as_ref().unwrap();
        assert_eq!(credential.around, ("key=".to_owned(), "; v=1".to_owned()));
        let secret = credential.secret.as_ref().unwrap();
        assert_eq!(secret.from, From::File { path: "/k/ey".into(), shared: true });
        assert_eq!(secret.max_age, Some(Duration::from_secs(90 * 24 * 60 * 60)));
        assert_eq!(other.roots.as_deref(), Some(Path::new("/home/u/ca.pem")));
        let again = read(&to_toml(&policy), "").unwrap();
        let plain = |policy: &Policy| {
            let all = policy.network.http.iter().cloned();
            all.map(|http| Http { origin: String::new(), ..http }).collect::<Vec<_>>()
        };
        assert_eq!(plain(&again), plain(&policy), "{}", to_toml(&policy));
    }
}
