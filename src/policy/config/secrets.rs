//! Secrets: where each is read from, which tools get it and how, and how old it may be: the sections `secrets` of the
//! file of `--config`.
//!
//! Neighbours: `policy::config` reads the rest of the file, `secrets` reads the values. Never: holds a value; there is no
//! way to write one here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeTable;

use super::super::mistakes::closest;
use super::super::path::SCRATCH;
use super::super::print;
use super::super::source::{self, AGES, FROM, kind};
pub use super::super::source::{From, Place, Secret, expression};
use super::super::toml_file::{TomlFile, Value};
use super::state::State;
use super::{Server, is_server};

/// The sections and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("secrets.NAME", &["from", "to", "into", "format", "max-age", "warn-age", "rotated"]),
    ("secrets.NAME.from", source::KEYS),
    ("secrets.NAME.into", &["env", "file"]),
];

const INTO: &str = "write `into = { env = \"NAME\" }` or `into = { file = \"/tmp/NAME\" }`";
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
                "from" => from = self.file.secret_from(value),
                "to" => to = self.to(value),
                "into" => into = self.into(value),
                "format" => format = self.file.secret_format(value),
                "max-age" => max_age = self.file.duration(value, "`max-age`", &AGES),
                "warn-age" => {
                    warn_age = self.file.duration(value, "`warn-age`", &AGES).map(|age| (age, value))
                }
                _ => rotated = self.file.day(value),
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
            Place::File(_) | Place::Env(_) | Place::Header(_) => None,
        });
        Some((path.clone(), other?))
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
            return self.file.variable_name(value).map(Place::Env);
        }
        let path = self.file.secret_path(value, "`file`")?;
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
}

#[cfg(test)]
mod tests;
