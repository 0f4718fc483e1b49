//! Reads one profile, a TOML text, into a [`Profile`]: every mistake of it at once.
//!
//! Neighbours: `policy::toml_file` reads TOML, `policy::resolve` follows `extends` and merges profiles into a
//! policy. Never: opens a file, looks at a parent.

mod http;
mod network;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Mistakes, Spot, closest, one_edit_away};
use super::path::{PathError, SCRATCH, Variables, grantable};
use super::syscalls::{NEVER_HINT, SyscallName, never_allowed};
use super::toml_file::{Source, TomlFile, Value, list};
use super::units::UnitError;
use super::{Floor, Observe, PathRule, Writes, limits};
use crate::outcome::Limit;

/// Every section and its keys; the first are those at the top, before any section.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("", &["name", "description", "extends", "floor", "observe"]),
    ("filesystem", &["read", "write", "execute", "deny", "scratch", "writes"]),
    ("limits", &["memory", "cpu", "tasks", "time", "output", "open-files", "file-size"]),
    ("syscalls", &["allow", "deny"]),
    ("environment", &["pass", "set"]),
    ("audit", &["redact"]),
    ("network", network::KEYS),
];

/// The sections of doors at which TLS ends, and their keys.
pub const HTTP_SECTIONS: &[(&str, &[&str])] = &[
    ("network.http.\"HOST:PORT\"", http::KEYS),
    ("network.http.\"HOST:PORT\".credential", http::CREDENTIAL_KEYS),
];

/// The keys of a path rule that is written as a table.
pub const RULE_KEYS: &[&str] = &["path", "why", "optional"];

/// What profiles are read against.
#[derive(Debug, Clone, Copy)]
pub struct World<'w> {
    /// The user's home directory, if it is known.
    pub home: Option<&'w Path>,
    /// The directory that tools work on.
    pub workspace: &'w Path,
}

/// A value and the place it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The place.
    pub spot: Spot,
}

/// One profile as it was written: variables replaced, nothing inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// What it is for.
    pub description: Option<String>,
    /// The profile it adds to.
    pub extends: Option<Located<String>>,
    /// The weakest isolation accepted.
    pub floor: Option<Floor>,
    /// What the record tells.
    pub observe: Option<Observe>,
    /// `filesystem.read`
    pub read: Vec<Located<PathRule>>,
    /// `filesystem.write`
    pub write: Vec<Located<PathRule>>,
    /// `filesystem.execute`, without the scratch directory.
    pub execute: Vec<Located<PathRule>>,
    /// `filesystem.deny`
    pub deny: Vec<Located<PathRule>>,
    /// `filesystem.execute` names the scratch directory.
    pub scratch_execute: bool,
    /// `filesystem.writes`
    pub writes: Option<Writes>,
    /// Limits that are set, in the unit of `policy::limits`.
    pub limits: BTreeMap<Limit, Located<u64>>,
    /// `syscalls.allow`
    pub syscalls_allow: Vec<String>,
    /// `syscalls.deny`
    pub syscalls_deny: Vec<String>,
    /// `environment.pass`
    pub pass: Vec<String>,
    /// `environment.set`
    pub set: BTreeMap<String, String>,
    /// `audit.redact`
    pub redact: Vec<String>,
    /// `[network]`
    pub network: network::Part,
}

/// Reads one profile. `known` tells the names of system calls.
///
/// # Errors
/// Every mistake of the text.
pub fn parse(
    source: &Source,
    world: World<'_>,
    known: &dyn Fn(&str) -> SyscallName,
) -> Result<Profile, Mistakes> {
    let (profile, mistakes) = read(source, world, known);
    Mistakes::none_or(profile, mistakes)
}

/// Reads one profile; what is right of it is given also when there are mistakes.
pub(super) fn read(
    source: &Source,
    world: World<'_>,
    known: &dyn Fn(&str) -> SyscallName,
) -> (Profile, Vec<Mistake>) {
    let (file, table) = TomlFile::open(source, SECTIONS);
    let variables = Variables { home: world.home, workspace: world.workspace, config: source.directory() };
    let mut reader = Reader { file, variables, known, profile: Profile::default() };
    reader.top(&table);
    (reader.profile, reader.file.finish())
}

/// Whether a profile can be called this: a file name without surprises.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let ordinary = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= 64
        && name.bytes().all(ordinary)
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether an environment variable can be called this.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.bytes().next().is_some_and(|b| b.is_ascii_digit())
}

/// Whether a text is a JSON Pointer (RFC 6901).
fn is_pointer(text: &str) -> bool {
    let escapes_whole = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escapes_whole
}

struct Reader<'s, 'w> {
    file: TomlFile<'s>,
    variables: Variables<'w>,
    known: &'w dyn Fn(&str) -> SyscallName,
    profile: Profile,
}

impl Reader<'_, '_> {
    fn top(&mut self, table: &DeTable<'_>) {
        let names: Vec<&str> = SECTIONS
            .iter()
            .flat_map(|(section, keys)| if section.is_empty() { keys.to_vec() } else { vec![*section] })
            .collect();
        for (name, _, value) in self.file.entries(table, "", &names) {
            match name {
                "name" => self.name(value),
                "description" => self.profile.description = self.file.line(value, "`description`"),
                "extends" => self.extends(value),
                "floor" => self.profile.floor = self.choice("floor", value, Floor::ALL, Floor::name),
                "observe" => {
                    self.profile.observe = self.choice("observe", value, Observe::ALL, Observe::name);
                }
                section => self.section(section, value),
            }
        }
    }

    fn section(&mut self, section: &str, value: &Value<'_>) {
        let Some(table) = self.file.table(value, &format!("`{section}`")) else { return };
        let keys = SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys);
        for (key, _, value) in self.file.entries(table, &format!("`[{section}]`"), keys) {
            let limit = limits::ALL.into_iter().find(|l| l.section() == section && l.name() == key);
            match (section, key, limit) {
                (_, _, Some(limit)) => self.limit(limit, value),
                ("filesystem", "writes", None) => {
                    self.profile.writes = self.choice("writes", value, Writes::ALL, Writes::name);
                }
                ("filesystem", key, None) => self.rules(key, value),
                ("syscalls", key, None) => self.syscalls(key, value),
                ("network", key, None) => self.network(key, value),
                ("environment", "set", None) => self.set(value),
                ("environment", _, None) => {
                    self.profile.pass = self.words(value, "`pass`", "a variable's name", is_variable);
                }
                (_, _, None) => {
                    let redact =
                        self.words(value, "`redact`", "a JSON Pointer such as \"/token\"", is_pointer);
                    self.profile.redact = redact;
                }
            }
        }
    }

    fn name(&mut self, value: &Value<'_>) {
        let Some(name) = self.file.text(value, "`name`") else { return };
        if name != self.file.source.name {
            let message =
                format!("`name` is `{name}`, but the file is called `{}.toml`", self.file.source.name);
            self.file.mistake(
                &value.span(),
                &message,
                Some("a profile is found by its file's name: leave `name` out"),
            );
        }
    }

    fn extends(&mut self, value: &Value<'_>) {
        if value.get_ref().is_array() {
            self.file.mistake(&value.span(), "`extends` must be one name, not an array", None);
            return;
        }
        let Some(name) = self.file.text(value, "`extends`") else { return };
        if is_name(name) {
            self.profile.extends =
                Some(Located { value: name.to_owned(), spot: self.file.spot(&value.span()) });
        } else {
            let hint = "names are made of `a` to `z`, `0` to `9`, `-`, `_` and `.`";
            self.file.mistake(&value.span(), &format!("`{name}` cannot be a profile's name"), Some(hint));
        }
    }

    /// One of a few names.
    fn choice<T: Copy, const N: usize>(
        &mut self,
        key: &str,
        value: &Value<'_>,
        all: [T; N],
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.file.text(value, &format!("`{key}`"))?;
        let found = all.into_iter().find(|known| name(*known) == text);
        if found.is_none() {
            let names = all.map(name);
            let hint = match closest(text, names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", list(&names)),
            };
            self.file.mistake(&value.span(), &format!("unknown {key} `{text}`"), Some(&hint));
        }
        found
    }

    fn limit(&mut self, limit: Limit, value: &Value<'_>) {
        let name = format!("`{}`", limit.name());
        let parsed = match value.get_ref() {
            DeValue::String(text) => limits::parse(limit, text),
            DeValue::Integer(number) if number.radix() == 10 => limits::parse(limit, number.as_str()),
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(decimal) => limits::parse(limit, &decimal.to_string()),
                Err(_) => Err(UnitError::TooLarge(number.to_string())),
            },
            DeValue::Float(number) if limit == Limit::Cpu => limits::parse(limit, number.as_str()),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.file.wrong_kind(value, &name, limits::example(limit));
                return;
            }
        };
        match parsed {
            Ok(amount) => match limits::check(limit, amount) {
                Ok(()) => {
                    let spot = self.file.spot(&value.span());
                    self.profile.limits.insert(limit, Located { value: amount, spot });
                }
                Err(error) => self.file.mistake(&value.span(), &error.to_string(), None),
            },
            Err(error) => {
                let hint = error.hint().unwrap_or_else(|| format!("write {}", limits::example(limit)));
                self.file.mistake(&value.span(), &error.to_string(), Some(&hint));
            }
        }
    }

    fn rules(&mut self, key: &str, value: &Value<'_>) {
        for item in self.file.items(value, &format!("`{key}`")) {
            let Some((rule, span)) = self.rule(key, item) else { continue };
            if key == "execute" && rule.path == Path::new(SCRATCH) {
                self.profile.scratch_execute = true;
                continue;
            }
            if let Err(error) = grantable(&rule.path)
                && key != "deny"
            {
                self.path_mistake(&span, &error);
                continue;
            }
            let located = Located { value: rule, spot: self.file.spot(&span) };
            match key {
                "read" => self.profile.read.push(located),
                "write" => self.profile.write.push(located),
                "execute" => self.profile.execute.push(located),
                _ => self.profile.deny.push(located),
            }
        }
    }

    fn path_mistake(&mut self, span: &Range<usize>, error: &PathError) {
        self.file.mistake(span, &error.to_string(), error.hint().as_deref());
    }

    fn rule(&mut self, key: &str, item: &Value<'_>) -> Option<(PathRule, Range<usize>)> {
        let (mut text, mut why, mut optional) = (None, String::new(), false);
        match item.get_ref() {
            DeValue::String(path) => text = Some((path.as_ref(), item.span())),
            DeValue::Table(table) => {
                for (name, _, value) in self.file.entries(table, &format!("a rule of `{key}`"), RULE_KEYS) {
                    match name {
                        "path" => text = Some((self.file.text(value, "`path`")?, value.span())),
                        "why" => why = self.file.line(value, "`why`")?,
                        _ => match value.get_ref().as_bool() {
                            Some(value) => optional = value,
                            None => self.file.wrong_kind(value, "`optional`", "true or false"),
                        },
                    }
                }
                if text.is_none() {
                    self.file.mistake(&item.span(), &format!("a rule of `{key}` without `path`"), None);
                }
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let wanted = "a path, or a table with `path`, `why` and `optional`";
                self.file.wrong_kind(item, &format!("a rule of `{key}`"), wanted);
            }
        }
        let (text, span) = text?;
        match self.variables.path(text) {
            Ok(path) => {
                let origin = format!("profile `{}`", self.file.source.name);
                Some((PathRule { path, why, origin, optional }, span))
            }
            Err(error) => {
                self.path_mistake(&span, &error);
                None
            }
        }
    }

    fn syscalls(&mut self, key: &str, value: &Value<'_>) {
        let mut names = Vec::new();
        for item in self.file.items(value, &format!("`{key}`")) {
            let Some(name) = self.file.text(item, &format!("an item of `{key}`")) else { continue };
            match (self.known)(name) {
                SyscallName::Never(why) if key == "allow" => {
                    self.file.mistake(&item.span(), &never_allowed(name, why), Some(NEVER_HINT));
                }
                SyscallName::Known | SyscallName::Never(_) => names.push(name.to_owned()),
                SyscallName::Unknown => {
                    let known = |name: &str| (self.known)(name) != SyscallName::Unknown;
                    let hint = one_edit_away(name, &known).map(|meant| format!("did you mean `{meant}`?"));
                    self.file.mistake(
                        &item.span(),
                        &format!("unknown system call `{name}`"),
                        hint.as_deref(),
                    );
                }
            }
        }
        match key {
            "allow" => self.profile.syscalls_allow = names,
            _ => self.profile.syscalls_deny = names,
        }
    }

    fn set(&mut self, value: &Value<'_>) {
        let Some(table) = self.file.table(value, "`set`") else { return };
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !is_variable(name) {
                self.file.mistake(&key.span(), &format!("`{name}` cannot be a variable's name"), None);
                continue;
            }
            let Some(text) = self.file.text(value, &format!("`{name}`")) else { continue };
            match self.variables.expand(text) {
                Ok(text) if text.contains('\0') => {
                    self.file.mistake(&value.span(), &format!("the value of `{name}` holds a NUL"), None);
                }
                Ok(text) => {
                    self.profile.set.insert(name.to_owned(), text);
                }
                Err(error) => self.path_mistake(&value.span(), &error),
            }
        }
    }

    /// The strings of an array that `right` accepts; the others are noted.
    fn words(&mut self, value: &Value<'_>, name: &str, wanted: &str, right: fn(&str) -> bool) -> Vec<String> {
        let mut words = Vec::new();
        for item in self.file.items(value, name) {
            let Some(word) = self.file.text(item, &format!("an item of {name}")) else { continue };
            if right(word) {
                words.push(word.to_owned());
            } else {
                self.file.mistake(&item.span(), &format!("`{word}` in {name} is not {wanted}"), None);
            }
        }
        words
    }
}
