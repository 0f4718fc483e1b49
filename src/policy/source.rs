//! Where a secret is read from, as the sections `secrets` of a configuration and the doors of a profile say it.
//!
//! Neighbours: `policy::config::secrets` and `policy::profile` read the rest, `secrets` reads the value. Never: holds a value; there
//! is no way to write one here.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::path::normal;
use super::tokens::seconds;
use super::toml_file::{TomlFile, Value};

/// The keys of `from`.
pub const KEYS: &[&str] = &["env", "file", "command", "credential", "age", "identity", "shared", "timeout"];
/// The kinds of source, each a key of `from`.
const KINDS: [&str; 5] = ["env", "file", "command", "credential", "age"];
/// What can stand there.
pub(super) const FROM: &str =
    "write `from = { file = \"/path\" }`, or `env`, `command`, `credential`, or `age` with `identity`";
pub(super) const DAY: u64 = 24 * 60 * 60;
/// How old a secret may be made to be.
pub(super) const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3650 * DAY);
/// How long a program may take that prints a secret,
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// The longest expression that a secret is compared with.
const FORMAT_MOST: usize = 1024;

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    pub(super) const fn is_dated(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Age { .. })
    }
}
/// How a secret is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A tool gets it as a variable of its environment.
    Env(String),
    /// A tool gets it as a file in the scratch directory.
    File(String),
    /// No tool gets it: a door puts it into this header of what a cell sends.
    Header(String),
}

impl Place {
    /// The place in a few words, as records have it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => format!("env {name}"),
            Self::File(path) => format!("file {path}"),
            Self::Header(name) => format!("header {name}"),
        }
    }
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl TomlFile<'_> {
    pub(super) fn secret_from(&mut self, value: &Value<'_>) -> Option<From> {
        let table = self.table(value, "`from`")?;
        let mut found: Option<From> = None;
        let (mut identity, mut shared, mut timeout) = (None, None, None);
        let entries = self.entries(table, "`from`", KEYS);
        if table.keys().filter(|key| KINDS.contains(&key.get_ref().as_ref())).count() != 1 {
            self.mistake(&value.span(), "`from` must name one source", Some(FROM));
            return None;
        }
        for (key, _, value) in entries {
            match key {
                "env" => found = self.variable_name(value).map(From::Env),
                "file" => {
                    found = self.secret_path(value, "`file`").map(|path| From::File { path, shared: false });
                }
                "command" => {
                    found = self.program(value).map(|argv| From::Command { argv, timeout: TIMEOUT });
                }
                "credential" => found = self.credential_name(value).map(From::Credential),
                "age" => {
                    found = self.secret_path(value, "`age`").map(|path| From::Age {
                        path,
                        identity: PathBuf::new(),
                        timeout: TIMEOUT,
                    });
                }
                "identity" => {
                    identity = self.secret_path(value, "`identity`").map(|path| (path, value.span()))
                }
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
                        self.mistake(&value.span(), "`age` without `identity`", Some(hint));
                        return None;
                    }
                }
            }
            From::Env(_) | From::Credential(_) => {}
        }
        for (key, span) in rest {
            if let Some(span) = span {
                let message = format!("`{key}` has no effect on the {}", kind(&found));
                self.mistake(&span, &message, None);
            }
        }
        Some(found)
    }

    pub(super) fn variable_name(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.text(value, "`env`")?;
        let right = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
            && name.len() <= 256;
        if !right {
            let hint = "names are made of letters, digits and `_`; the value does not stand here";
            self.mistake(&value.span(), "`env` is no name of a variable", Some(hint));
        }
        right.then(|| name.to_owned())
    }

    fn credential_name(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.text(value, "`credential`")?;
        let right =
            !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && !name.starts_with('.');
        if !right {
            let hint = "write the ID of `LoadCredential=` in the unit";
            self.mistake(&value.span(), "`credential` is no name of a credential", Some(hint));
        }
        right.then(|| name.to_owned())
    }

    pub(super) fn secret_path(&mut self, value: &Value<'_>, name: &str) -> Option<PathBuf> {
        let text = self.text(value, name)?;
        match normal(text) {
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("{name} must be an absolute path: {error}");
                self.mistake(&value.span(), &message, None);
                None
            }
        }
    }

    fn program(&mut self, value: &Value<'_>) -> Option<Vec<String>> {
        let mut argv = Vec::new();
        for item in self.items(value, "`command`") {
            argv.push(self.text(item, "an item of `command`")?.to_owned());
        }
        let program = argv.first().is_some_and(|program| !program.is_empty());
        if !program || argv.iter().any(|word| word.contains('\0')) {
            let hint = "write `command = [\"program\", \"argument\"]`; there is no shell";
            self.mistake(&value.span(), "`command` names no program", Some(hint));
            return None;
        }
        Some(argv)
    }

    fn yes(&mut self, value: &Value<'_>) -> Option<bool> {
        let DeValue::Boolean(yes) = value.get_ref() else {
            self.wrong_kind(value, "`shared`", "true or false");
            return None;
        };
        Some(*yes)
    }

    pub(super) fn secret_format(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.text(value, "`format`")?;
        match expression(text) {
            Ok(_) if text.len() <= FORMAT_MOST => Some(text.to_owned()),
            Ok(_) => {
                let message = format!("`format` is longer than {FORMAT_MOST} bytes");
                self.mistake(&value.span(), &message, None);
                None
            }
            Err(why) => {
                self.mistake(&value.span(), &format!("`format` is no regular expression: {why}"), None);
                None
            }
        }
    }

    /// A day, or a moment in UTC, as a date or as a text.
    pub(super) fn day(&mut self, value: &Spanned<DeValue<'_>>) -> Option<u64> {
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
            self.mistake(&value.span(), "`rotated` is no date", Some(hint));
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
pub(super) const fn kind(from: &From) -> &'static str {
    match from {
        From::Env(_) => "environment variable",
        From::File { .. } => "file",
        From::Command { .. } => "command's output",
        From::Credential(_) => "systemd credential",
        From::Age { .. } => "age file",
    }
}
