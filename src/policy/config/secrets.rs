//! Secrets: where each is read from, which tools get it and how, and how old it may be: the sections `secrets` of the
//! file of `--config`.
//!
//! Neighbours: `policy::config` reads the rest of the file, `secrets` reads the values. Never: holds a value; there is no
//! way to write one here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::mistakes::closest;
use super::super::path::{SCRATCH, normal};
use super::super::print;
use super::super::tokens::seconds;
use super::super::toml_file::{TomlFile, Value};
use super::super::units::{parse_duration, print_duration};
use super::state::State;
use super::{Server, is_server};

/// The sections and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("secrets.NAME", &["from", "to", "into", "format", "max-age", "warn-age", "rotated"]),
    ("secrets.NAME.from", &["env", "file", "command", "credential", "age", "identity", "shared", "timeout"]),
    ("secrets.NAME.into", &["env", "file"]),
];

/// The kinds of source, each a key of `from`.
const KINDS: [&str; 5] = ["env", "file", "command", "credential", "age"];
const FROM: &str =
    "write `from = { file = \"/path\" }`, or `env`, `command`, `credential`, or `age` with `identity`";
const INTO: &str = "write `into = { env = \"NAME\" }` or `into = { file = \"/tmp/NAME\" }`";
const DAY: u64 = 24 * 60 * 60;
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3650 * DAY);
/// How long a program may take that prints a secret,
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// The longest expression that a secret is compared with.
const FORMAT_MOST: usize = 1024;

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// An environment variable of toolcell's own, which is taken out of its environment.
    Env(String),
    /// A file.
    File {
        /// Absolute.
        path: PathBuf,
        /// Others may be able to read it too.
        shared: bool,
    },
    /// What a program prints.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// A credential that systemd has put into `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A file that `age` decrypts.
    Age {
        /// The encrypted file.
        path: PathBuf,
        /// The file with the key.
        identity: PathBuf,
        /// How long it may take.
        timeout: Duration,
    },
}

impl From {
    /// The source in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => format!("environment variable `{name}`"),
            Self::File { path, .. } => format!("file `{}`", path.display()),
            // Arguments may be what somebody took for a place to keep something.
            Self::Command { argv, .. } => format!("command `{}`", argv.first().map_or("", String::as_str)),
            Self::Credential(name) => format!("systemd credential `{name}`"),
            Self::Age { path, .. } => format!("age file `{}`", path.display()),
        }
    }

    /// The files that no tool may see.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::File { path, .. } => vec![path.clone()],
            Self::Age { path, identity, .. } => vec![path.clone(), identity.clone()],
            Self::Env(_) | Self::Command { .. } | Self::Credential(_) => Vec::new(),
        }
    }

    /// Whether the file's own date tells when the secret was made. systemd makes a credential's file at each start.
    const fn is_dated(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Age { .. })
    }
}

/// How a tool gets a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// As a variable of its environment.
    Env(String),
    /// As a file in the scratch directory.
    File(String),
}

impl Place {
    /// The place in a few words, as records have it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => format!("env {name}"),
            Self::File(path) => format!("file {path}"),
        }
    }
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where it comes from.
    pub from: From,
    /// The tools that get it: server and tool.
    pub to: Vec<(String, String)>,
    /// How.
    pub into: Place,
    /// A regular expression that all of it must match.
    pub format: Option<String>,
    /// Older than this it is refused.
    pub max_age: Option<Duration>,
    /// Older than this there is a warning.
    pub warn_age: Option<Duration>,
    /// When it was made, in seconds after 1970.
    pub rotated: Option<u64>,
}

/// Reads the sections. `servers` are those of the file.
pub(super) fn read(
    file: &mut TomlFile<'_>,
    table: &DeTable<'_>,
    servers: &BTreeMap<String, Server>,
) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    let Some(value) = table.get("secrets") else { return secrets };
    let Some(table) = file.table(value, "`secrets`") else { return secrets };
    let mut reader = Reader { file, servers, taken: BTreeSet::new() };
    for (key, value) in table {
        let name: &str = key.get_ref();
        if !is_server(name) {
            let hint = "names are made of letters, digits, `-`, `_` and `.`";
            reader.file.mistake(&key.span(), &format!("`{name}` cannot be a secret's name"), Some(hint));
        } else if let Some(secret) = reader.secret(name, value) {
            secrets.insert(name.to_owned(), secret);
        }
    }
    reader.let_through(&secrets, table);
    secrets
}

struct Reader<'f, 's, 'n> {
    file: &'f mut TomlFile<'s>,
    servers: &'n BTreeMap<String, Server>,
    /// Places that have a secret already.
    taken: BTreeSet<(String, String, Place)>,
}

fn keys(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

impl Reader<'_, '_, '_> {
    fn secret(&mut self, name: &str, value: &Value<'_>) -> Option<Secret> {
        let place = format!("`[secrets.{name}]`");
        let table = self.file.table(value, &place)?;
        let (mut from, mut into, mut to) = (None, None, Vec::new());
        let (mut format, mut max_age, mut warn_age, mut rotated) = (None, None, None, None);
        for (key, _, value) in self.file.entries(table, &place, keys("secrets.NAME")) {
            match key {
                "from" => from = self.from(value),
                "to" => to = self.to(value),
                "into" => into = self.into(value),
                "format" => format = self.format(value),
                "max-age" => max_age = self.duration(value, "`max-age`", &AGES),
                "warn-age" => warn_age = self.duration(value, "`warn-age`", &AGES).map(|age| (age, value)),
                _ => rotated = self.date(value),
            }
        }
        for (key, hint) in [("from", FROM), ("to", "write `to = [\"SERVER/TOOL\"]`"), ("into", INTO)] {
            if !table.contains_key(key) {
                self.file.mistake(&value.span(), &format!("{place} has no `{key}`"), Some(hint));
            }
        }
        if let Some((age, value)) = &warn_age
            && max_age.is_none_or(|most| *age >= most)
            && self.file.is_right()
        {
            let hint = "`max-age` says when the secret is refused, and `warn-age` comes before";
            self.file.mistake(&value.span(), "`warn-age` has no effect", Some(hint));
        }
        let (from, into) = (from?, into?);
        if let Some((key, _)) = table.get_key_value("max-age")
            && rotated.is_none()
            && !table.contains_key("rotated")
            && !from.is_dated()
        {
            let message = format!("`max-age` has no effect: nothing tells when the {} was made", kind(&from));
            self.file.mistake(&key.span(), &message, Some("add the day, as in `rotated = 2027-01-31`"));
        }
        for (server, tool) in &to {
            if let Some((path, other)) = self.nested(server, tool, &into) {
                let message = format!(
                    "`{path}` and `{other}`, where two secrets of `{server}/{tool}` are, cannot both be files"
                );
                let hint = "give each a file that is in no other's place, as in `/tmp/NAME`";
                self.file.mistake(&value.span(), &message, Some(hint));
            }
            if !self.taken.insert((server.clone(), tool.clone(), into.clone())) {
                let message = format!("another secret is `{}` of `{server}/{tool}` already", into.describe());
                self.file.mistake(&value.span(), &message, None);
            }
        }
        Some(Secret { from, to, into, format, max_age, warn_age: warn_age.map(|(age, _)| age), rotated })
    }

    /// This file, and that of another secret of the tool, if one would have to be a directory for the other.
    fn nested(&self, server: &str, tool: &str, into: &Place) -> Option<(String, String)> {
        let Place::File(path) = into else { return None };
        let beneath = |one: &str, other: &str| one != other && Path::new(one).starts_with(other);
        let mut of_tool =
            self.taken.iter().filter(|(of, its, _)| (of.as_str(), its.as_str()) == (server, tool));
        let other = of_tool.find_map(|(.., place)| match place {
            Place::File(other) if beneath(path, other) || beneath(other, path) => Some(other.clone()),
            Place::File(_) | Place::Env(_) => None,
        });
        Some((path.clone(), other?))
    }

    fn from(&mut self, value: &Value<'_>) -> Option<From> {
        let table = self.file.table(value, "`from`")?;
        let mut found: Option<From> = None;
        let (mut identity, mut shared, mut timeout) = (None, None, None);
        let entries = self.file.entries(table, "`from`", keys("secrets.NAME.from"));
        if table.keys().filter(|key| KINDS.contains(&key.get_ref().as_ref())).count() != 1 {
            self.file.mistake(&value.span(), "`from` must name one source", Some(FROM));
            return None;
        }
        for (key, _, value) in entries {
            match key {
                "env" => found = self.variable(value).map(From::Env),
                "file" => {
                    found = self.path(value, "`file`").map(|path| From::File { path, shared: false });
                }
                "command" => {
                    found = self.command(value).map(|argv| From::Command { argv, timeout: TIMEOUT });
                }
                "credential" => found = self.credential(value).map(From::Credential),
                "age" => {
                    found = self.path(value, "`age`").map(|path| From::Age {
                        path,
                        identity: PathBuf::new(),
                        timeout: TIMEOUT,
                    });
                }
                "identity" => identity = self.path(value, "`identity`").map(|path| (path, value.span())),
                "shared" => shared = self.yes(value).map(|shared| (shared, value.span())),
                _ => {
                    let given = self.duration(value, "`timeout`", &TIMEOUTS);
                    timeout = given.map(|timeout| (timeout, value.span()));
                }
            }
        }
        let mut found = found?;
        let mut rest = [
            ("identity", identity.as_ref().map(|(_, span)| span.clone())),
            ("shared", shared.as_ref().map(|(_, span)| span.clone())),
            ("timeout", timeout.as_ref().map(|(_, span)| span.clone())),
        ];
        let mut used = |key: &str| {
            rest.iter_mut().filter(|(name, _)| *name == key).for_each(|(_, span)| *span = None);
        };
        match &mut found {
            From::File { shared: is, .. } => {
                used("shared");
                *is = shared.is_some_and(|(shared, _)| shared);
            }
            From::Command { timeout: most, .. } => {
                used("timeout");
                *most = timeout.map_or(TIMEOUT, |(timeout, _)| timeout);
            }
            From::Age { identity: key, timeout: most, .. } => {
                used("timeout");
                used("identity");
                *most = timeout.map_or(TIMEOUT, |(timeout, _)| timeout);
                match identity {
                    Some((path, _)) => *key = path,
                    None if table.contains_key("identity") => return None,
                    None => {
                        let hint = "write `from = { age = \"/path/FILE.age\", identity = \"/path/KEY\" }`";
                        self.file.mistake(&value.span(), "`age` without `identity`", Some(hint));
                        return None;
                    }
                }
            }
            From::Env(_) | From::Credential(_) => {}
        }
        for (key, span) in rest {
            if let Some(span) = span {
                let message = format!("`{key}` has no effect on the {}", kind(&found));
                self.file.mistake(&span, &message, None);
            }
        }
        Some(found)
    }

    fn into(&mut self, value: &Value<'_>) -> Option<Place> {
        let table = self.file.table(value, "`into`")?;
        let entries = self.file.entries(table, "`into`", keys("secrets.NAME.into"));
        if entries.len() != 1 || table.len() != 1 {
            self.file.mistake(&value.span(), "`into` must name one place", Some(INTO));
            return None;
        }
        let (key, _, value) = entries.into_iter().next()?;
        if key == "env" {
            return self.variable(value).map(Place::Env);
        }
        let path = self.path(value, "`file`")?;
        let below = path.strip_prefix(SCRATCH).is_ok_and(|rest| rest.as_os_str() != "");
        if !below {
            let hint =
                "write `file = \"/tmp/NAME\"`: the scratch directory is memory, and gone with the call";
            let message = format!("`{}` is not in the scratch directory", path.display());
            self.file.mistake(&value.span(), &message, Some(hint));
            return None;
        }
        Some(Place::File(path.to_string_lossy().into_owned()))
    }

    fn to(&mut self, value: &Value<'_>) -> Vec<(String, String)> {
        let mut tools = Vec::new();
        let items = self.file.items(value, "`to`");
        if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
            let hint = "write `to = [\"SERVER/TOOL\"]`";
            self.file.mistake(&value.span(), "`to` names no tool", Some(hint));
        }
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                self.file.wrong_kind(item, "an item of `to`", "a string such as \"SERVER/TOOL\"");
                continue;
            };
            let split = text.split_once('/').filter(|(server, tool)| !server.is_empty() && !tool.is_empty());
            let Some((server, tool)) = split.filter(|(_, tool)| !tool.contains(['*', '?', ':'])) else {
                let hint = "write `SERVER/TOOL`, one item for each tool: there is no pattern that gives away a secret";
                self.file.mistake(&item.span(), &format!("`{text}` names no tool"), Some(hint));
                continue;
            };
            if !self.servers.contains_key(server) {
                let known = self.servers.keys().map(String::as_str);
                let hint = match closest(server, known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("describe it in `[servers.{server}]`"),
                };
                self.file.mistake(&item.span(), &format!("no server `{server}`"), Some(&hint));
                continue;
            }
            if self.servers.get(server).is_some_and(|known| known.state_for(Some(tool)) == State::Session) {
                let hint = format!(
                    "write `state = \"call\"` in `[servers.{}.tools.{}]`",
                    print::key(server),
                    print::key(tool)
                );
                let message = format!("the cell of tool `{tool}` is that of all tools of its server");
                self.file.mistake(&item.span(), &message, Some(&hint));
            }
            let tool = (server.to_owned(), tool.to_owned());
            if tools.contains(&tool) {
                self.file.mistake(&item.span(), &format!("`{text}` is there twice"), None);
                continue;
            }
            tools.push(tool);
        }
        tools
    }

    /// A variable that is a secret must not go to every tool of a server beside it.
    fn let_through(&mut self, secrets: &BTreeMap<String, Secret>, table: &DeTable<'_>) {
        for (name, secret) in secrets {
            let From::Env(variable) = &secret.from else { continue };
            let through =
                |server: &Server| server.env.iter().any(|(env, value)| env == variable && value.is_none());
            if let Some((server, _)) = self.servers.iter().find(|(_, server)| through(server)) {
                let span = table.get_key_value(name.as_str()).map_or(0..0, |(key, _)| key.span());
                let message = format!("`env` of server `{server}` gives `{variable}` to every tool of it");
                let hint = format!("take `{variable}` out of `env` in `[servers.{}]`", print::key(server));
                self.file.mistake(&span, &message, Some(&hint));
            }
        }
    }

    fn variable(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.file.text(value, "`env`")?;
        let right = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
            && name.len() <= 256;
        if !right {
            let hint = "names are made of letters, digits and `_`; the value does not stand here";
            self.file.mistake(&value.span(), "`env` is no name of a variable", Some(hint));
        }
        right.then(|| name.to_owned())
    }

    fn credential(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.file.text(value, "`credential`")?;
        let right =
            !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && !name.starts_with('.');
        if !right {
            let hint = "write the ID of `LoadCredential=` in the unit";
            self.file.mistake(&value.span(), "`credential` is no name of a credential", Some(hint));
        }
        right.then(|| name.to_owned())
    }

    fn path(&mut self, value: &Value<'_>, name: &str) -> Option<PathBuf> {
        let text = self.file.text(value, name)?;
        match normal(text) {
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("{name} must be an absolute path: {error}");
                self.file.mistake(&value.span(), &message, None);
                None
            }
        }
    }

    fn command(&mut self, value: &Value<'_>) -> Option<Vec<String>> {
        let mut argv = Vec::new();
        for item in self.file.items(value, "`command`") {
            argv.push(self.file.text(item, "an item of `command`")?.to_owned());
        }
        let program = argv.first().is_some_and(|program| !program.is_empty());
        if !program || argv.iter().any(|word| word.contains('\0')) {
            let hint = "write `command = [\"program\", \"argument\"]`; there is no shell";
            self.file.mistake(&value.span(), "`command` names no program", Some(hint));
            return None;
        }
        Some(argv)
    }

    fn yes(&mut self, value: &Value<'_>) -> Option<bool> {
        let DeValue::Boolean(yes) = value.get_ref() else {
            self.file.wrong_kind(value, "`shared`", "true or false");
            return None;
        };
        Some(*yes)
    }

    fn format(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.file.text(value, "`format`")?;
        match expression(text) {
            Ok(_) if text.len() <= FORMAT_MOST => Some(text.to_owned()),
            Ok(_) => {
                let message = format!("`format` is longer than {FORMAT_MOST} bytes");
                self.file.mistake(&value.span(), &message, None);
                None
            }
            Err(why) => {
                self.file.mistake(&value.span(), &format!("`format` is no regular expression: {why}"), None);
                None
            }
        }
    }

    fn duration(
        &mut self,
        value: &Value<'_>,
        name: &str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.file.text(value, name)?;
        match parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Some(duration),
            Ok(_) => {
                let (least, most) = (print_duration(*range.start()), print_duration(*range.end()));
                let hint = format!("from `{least}` to `{most}`");
                self.file.mistake(&value.span(), &format!("{name} of `{text}` is out of range"), Some(&hint));
                None
            }
            Err(error) => {
                self.file.mistake(&value.span(), &error.to_string(), error.hint().as_deref());
                None
            }
        }
    }

    /// A day, or a moment in UTC, as a date or as a text.
    fn date(&mut self, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        let found = match value.get_ref().as_str() {
            Some(text) => {
                let plain = text.bytes().all(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b));
                let line = format!("rotated = {text}");
                let table = plain.then(|| DeTable::parse(&line).ok()).flatten();
                table.and_then(|table| moment(table.get_ref().get("rotated")?.get_ref()))
            }
            None => moment(value.get_ref()),
        };
        if found.is_none() {
            let hint = "write the day, as in `rotated = 2027-01-31`";
            self.file.mistake(&value.span(), "`rotated` is no date", Some(hint));
        }
        found
    }
}

/// Seconds after 1970 of a day, or of a moment in UTC.
fn moment(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Datetime(moment) = value else { return None };
    let date = moment.date?;
    let time = moment.time.map_or([0; 3], |time| [time.hour, time.minute, time.second.unwrap_or(0)]);
    let utc = match moment.offset {
        Some(offset) => offset.to_string() == "Z",
        None => moment.time.is_none(),
    };
    utc.then(|| seconds([date.year.into(), date.month.into(), date.day.into()], time))?
}

/// The expression that all of a secret must match. Classes are those of ASCII: a secret is bytes.
///
/// # Errors
/// Why it is none.
pub fn expression(text: &str) -> Result<Regex, String> {
    let whole = format!("\\A(?:{text})\\z");
    RegexBuilder::new(&whole).unicode(false).size_limit(256 * 1024).build().map_err(|error| {
        let error = error.to_string();
        error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// The source as a kind.
const fn kind(from: &From) -> &'static str {
    match from {
        From::Env(_) => "environment variable",
        From::File { .. } => "file",
        From::Command { .. } => "command's output",
        From::Credential(_) => "systemd credential",
        From::Age { .. } => "age file",
    }
}

#[cfg(test)]
mod tests;
