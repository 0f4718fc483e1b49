//! Who may call what: the sections `auth`, `identities` and `roles` of the file of `--config`.
//!
//! Neighbours: `policy::config` reads the rest of the file; `access` decides by these values. Never: reads a token or a
//! key; those are elsewhere, so that this file can be shown.

pub mod jwt;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use jwt::Jwt;
use toml::de::DeTable;

use super::super::mistakes::closest;
use super::super::pattern::Pattern;
use super::super::toml_file::{TomlFile, Value, list};

/// The sections and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("auth", &["mode", "window", "jwt"]),
    ("auth.jwt", &["issuer", "audience", "jwks", "jwks-ca", "claim"]),
    ("identities.NAME", &["roles", "rates", "concurrent", "quota"]),
    ("roles.NAME", &["allow", "deny"]),
];

/// The keys of an entry of `rates`.
pub const RATE_KEYS: &[&str] = &["tools", "calls", "per", "burst"];

const COUNTS: RangeInclusive<u32> = 1..=1_000_000;
const MILLISECOND: Duration = Duration::from_millis(1);
const LONGEST_RATE: Duration = Duration::from_secs(24 * 60 * 60);
const WINDOW: Duration = Duration::from_secs(5 * 60);
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// How a request shows who sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: everybody may call everything.
    #[default]
    None,
    /// By a token.
    Token,
    /// By a signature of its own.
    Signed,
}

impl Mode {
    const ALL: [Self; 3] = [Self::None, Self::Token, Self::Signed];

    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::Signed => "signed",
        }
    }
}

/// What the file says of access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `auth.mode`
    pub mode: Mode,
    /// `auth.window`, if it is there.
    pub window: Option<Duration>,
    /// `auth.jwt`: the tokens of an authorization server, which `toolcell serve` takes beside its own.
    pub jwt: Option<Jwt>,
    /// By name.
    pub identities: BTreeMap<String, Identity>,
    /// By name.
    pub roles: BTreeMap<String, Role>,
}

impl Access {
    /// How far a signed request's timestamp may be from the clock.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window.unwrap_or(WINDOW)
    }
}

/// Somebody who may send requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// What it may call: the roles together.
    pub roles: Vec<String>,
    /// How often.
    pub rates: Vec<Rate>,
    /// Calls at once.
    pub concurrent: Option<u32>,
    /// Calls in one session.
    pub quota: Option<u32>,
}

/// A token bucket for what a pattern covers, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// For what.
    pub tools: Pattern,
    /// So many calls are given
    pub calls: u32,
    /// in this time,
    pub per: Duration,
    /// and at most so many are kept.
    pub burst: u32,
}

/// A set of rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// What may be called.
    pub allow: BTreeSet<Pattern>,
    /// What may not, whoever allows it.
    pub deny: BTreeSet<Pattern>,
}

/// Whether somebody can be called this: it is part of records.
fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'))
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Reads the sections; `servers` are the names of the servers there are.
pub(super) fn read(file: &mut TomlFile<'_>, table: &DeTable<'_>, servers: &BTreeSet<String>) -> Access {
    let mut reader = Reader { file, servers };
    let roles = reader.named(table, "roles", Reader::role);
    let names: BTreeSet<String> = roles.keys().cloned().collect();
    let identities =
        reader.named(table, "identities", |reader, place, value| reader.identity(place, value, &names));
    let (mode, window, jwt) = reader.auth(table);
    let access = Access { mode, window, jwt, identities, roles };
    reader.sense(table, &access);
    access
}

struct Reader<'f, 's, 'n> {
    file: &'f mut TomlFile<'s>,
    servers: &'n BTreeSet<String>,
}

fn keys(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

impl Reader<'_, '_, '_> {
    /// The tables `[SECTION.NAME]`.
    fn named<T>(
        &mut self,
        table: &DeTable<'_>,
        section: &str,
        mut read: impl FnMut(&mut Self, &str, &Value<'_>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut found = BTreeMap::new();
        let Some(value) = table.get(section) else { return found };
        let Some(table) = self.file.table(value, &format!("`{section}`")) else { return found };
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !is_name(name) {
                let hint = "names are made of letters, digits, `-`, `_`, `.` and `@`";
                self.file.mistake(
                    &key.span(),
                    &format!("`{name}` cannot be a name in `{section}`"),
                    Some(hint),
                );
            } else if let Some(one) = read(self, &format!("`[{section}.{name}]`"), value) {
                found.insert(name.to_owned(), one);
            }
        }
        found
    }

    fn auth(&mut self, table: &DeTable<'_>) -> (Mode, Option<Duration>, Option<Jwt>) {
        let Some(value) = table.get("auth") else { return Default::default() };
        let Some(auth) = self.file.table(value, "`auth`") else { return Default::default() };
        let (mut mode, mut window, mut jwt) = (None, None, None);
        for (key, _, value) in self.file.entries(auth, "`[auth]`", keys("auth")) {
            match key {
                "mode" => mode = Some(self.mode(value)),
                "jwt" => jwt = Some((self.jwt(value), value)),
                _ => window = self.file.duration(value, "`window`", &WINDOWS).map(|window| (window, value)),
            }
        }
        let Some(mode) = mode else {
            let hint = "write `mode = \"token\"` or `mode = \"signed\"`";
            self.file.mistake(&value.span(), "`[auth]` has no `mode`", Some(hint));
            return Default::default();
        };
        if let Some((_, value)) = window.filter(|_| mode != Mode::Signed && self.file.is_right()) {
            let hint = "write `mode = \"signed\"`, or leave it out";
            self.file.mistake(&value.span(), "`window` has no effect: requests are not signed", Some(hint));
        }
        if let Some((_, value)) = jwt.as_ref().filter(|_| mode != Mode::Token && self.file.is_right()) {
            let hint = "write `mode = \"token\"`, or leave it out";
            self.file.mistake(&value.span(), "`jwt` has no effect: requests show no token", Some(hint));
        }
        (mode, window.map(|(window, _)| window), jwt.and_then(|(jwt, _)| jwt))
    }

    fn mode(&mut self, value: &Value<'_>) -> Mode {
        let Some(text) = self.file.text(value, "`mode`") else { return Mode::None };
        let names = Mode::ALL.map(Mode::name);
        Mode::ALL.into_iter().find(|mode| mode.name() == text).unwrap_or_else(|| {
            let hint = match closest(text, names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", list(&names)),
            };
            self.file.mistake(&value.span(), &format!("unknown mode `{text}`"), Some(&hint));
            Mode::None
        })
    }

    /// Refuses rights that would not be looked at, and a file under which nobody could call anything.
    fn sense(&mut self, table: &DeTable<'_>, access: &Access) {
        let named = ["identities", "roles"].into_iter().find_map(|name| table.get_key_value(name));
        match (access.mode, named) {
            (Mode::None, Some((key, _))) if self.file.is_right() => {
                let message = format!("`{}` has no effect: nobody is asked who they are", key.get_ref());
                self.file.mistake(
                    &key.span(),
                    &message,
                    Some("write `[auth]` with `mode = \"token\"` or `mode = \"signed\"`"),
                );
            }
            (Mode::Token | Mode::Signed, None) => {
                let span = table.get_key_value("auth").map_or(0..0, |(key, _)| key.span());
                let hint = "write `[identities.NAME]` with `roles`, and `[roles.NAME]` with `allow`";
                self.file.mistake(&span, "nobody may call anything: there is no identity", Some(hint));
            }
            (Mode::None | Mode::Token | Mode::Signed, _) => {}
        }
    }

    fn role(&mut self, place: &str, value: &Value<'_>) -> Option<Role> {
        let table = self.file.table(value, place)?;
        let mut role = Role::default();
        for (key, _, value) in self.file.entries(table, place, keys("roles.NAME")) {
            let patterns = if key == "allow" { &mut role.allow } else { &mut role.deny };
            for item in self.file.items(value, &format!("`{key}`")) {
                patterns.extend(self.pattern(item, &format!("an item of `{key}`")));
            }
        }
        Some(role)
    }

    fn pattern(&mut self, value: &Value<'_>, name: &str) -> Option<Pattern> {
        let text = self.file.text(value, name)?;
        match Pattern::parse(text) {
            Ok(pattern) => {
                let server = pattern.server();
                if let Some(server) = server.filter(|server| !self.servers.contains(*server)) {
                    let known = self.servers.iter().map(String::as_str);
                    let hint = closest(server, known).map(|meant| format!("did you mean `{meant}`?"));
                    self.file.mistake(&value.span(), &format!("no server `{server}`"), hint.as_deref());
                }
                Some(pattern)
            }
            Err((message, hint)) => {
                self.file.mistake(&value.span(), &message, Some(hint));
                None
            }
        }
    }

    fn identity(&mut self, place: &str, value: &Value<'_>, roles: &BTreeSet<String>) -> Option<Identity> {
        let table = self.file.table(value, place)?;
        let mut identity = Identity::default();
        for (key, _, value) in self.file.entries(table, place, keys("identities.NAME")) {
            match key {
                "roles" => {
                    for item in self.file.items(value, "`roles`") {
                        let Some(name) = self.file.text(item, "an item of `roles`") else { continue };
                        if roles.contains(name) {
                            identity.roles.push(name.to_owned());
                            continue;
                        }
                        let hint = closest(name, roles.iter().map(String::as_str))
                            .map(|meant| format!("did you mean `{meant}`?"));
                        self.file.mistake(&item.span(), &format!("no role `{name}`"), hint.as_deref());
                    }
                }
                "rates" => {
                    for item in self.file.items(value, "`rates`") {
                        identity.rates.extend(self.rate(item));
                    }
                }
                "concurrent" => identity.concurrent = self.file.count(value, "`concurrent`", &COUNTS),
                _ => identity.quota = self.file.count(value, "`quota`", &COUNTS),
            }
        }
        if identity.roles.is_empty() && !table.contains_key("roles") {
            let hint = "write `roles = [\"NAME\"]`, with the names of sections `[roles.NAME]`";
            self.file.mistake(&value.span(), &format!("{place} has no `roles`"), Some(hint));
        }
        Some(identity)
    }

    fn rate(&mut self, item: &Value<'_>) -> Option<Rate> {
        let table = self.file.table(item, "an item of `rates`")?;
        let (mut tools, mut calls, mut per, mut burst) = (None, None, None, None);
        for (key, _, value) in self.file.entries(table, "an item of `rates`", RATE_KEYS) {
            match key {
                "tools" => tools = self.pattern(value, "`tools`"),
                "calls" => calls = self.file.count(value, "`calls`", &COUNTS),
                "per" => per = self.file.duration(value, "`per`", &(MILLISECOND..=LONGEST_RATE)),
                _ => burst = self.file.count(value, "`burst`", &COUNTS),
            }
        }
        for key in ["tools", "calls", "per"] {
            if !table.contains_key(key) {
                let hint = "write `{ tools = \"SERVER/TOOL\", calls = 10, per = \"1m\" }`";
                self.file.mistake(&item.span(), &format!("an item of `rates` has no `{key}`"), Some(hint));
            }
        }
        let calls = calls?;
        Some(Rate { tools: tools?, calls, per: per?, burst: burst.unwrap_or(calls) })
    }
}

#[cfg(test)]
mod tests;
