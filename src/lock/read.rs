//! Reads `toolcell.lock` back. It is written by a program, so that one mistake is enough to refuse all of it.
//!
//! Neighbours: `lock::file` writes it, `policy::files` opens it. Never: believes a hash that is not that of what stands beside it.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::definition::{Definition, Kind, comparable};
use super::file::{Item, LockFile, Package, Part, Pinned, Profile, Server, VERSION};
use super::words::visible;

/// Why a text is no lock file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not what `toolcell lock` has written: {told}")]
pub struct NotALock {
    told: String,
}

fn no<T>(told: impl Into<String>) -> Result<T, NotALock> {
    Err(NotALock { told: visible(&told.into()) })
}

/// Reads the file's text.
///
/// # Errors
/// It is not as it was written.
pub fn parse(text: &str) -> Result<LockFile, NotALock> {
    let table = DeTable::parse(text).or_else(|error| no(error.message()))?;
    let top = Table::new("the file", table.get_ref(), &["version", "servers"])?;
    if top.number("version")? != VERSION {
        return no(format!("its version is not {VERSION}"));
    }
    let mut file = LockFile::default();
    let none = DeTable::new();
    let servers = match top.table.get("servers").map(|value| value.get_ref()) {
        None => &none,
        Some(DeValue::Table(servers)) => servers,
        Some(_) => return no("`servers` is no table"),
    };
    for (name, value) in servers {
        let name: &str = name.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            return no(format!("`servers.{name}` is no table"));
        };
        file.servers.insert(name.to_owned(), server(&format!("servers.{name}"), table)?);
    }
    Ok(file)
}

fn server(place: &str, table: &DeTable<'_>) -> Result<Server, NotALock> {
    let own = ["command", "state", "package", "program", "profiles"];
    let known: Vec<&str> = own.into_iter().chain(Kind::ALL.map(Kind::table)).collect();
    let table = Table::new(place, table, &known)?;
    let mut server = Server { command: table.words("command")?, ..Server::default() };
    if server.command.is_empty() {
        return no(format!("`{place}` has no `command`"));
    }
    if table.table.contains_key("state") {
        server.state = table.words("state")?;
    }
    if table.table.contains_key("package") {
        server.package = Some(package(&format!("{place}.package"), table.inner("package")?)?);
    }
    for part in table.tables("program")? {
        let part = Table::new(&format!("{place}.program"), part, &["path", "version", "files", "hash"])?;
        let files = u64::try_from(part.number("files")?).or_else(|_| no("`files` is negative"))?;
        let version = part.table.contains_key("version").then(|| part.text("version")).transpose()?;
        server.program.push(Part { path: part.text("path")?, version, files, hash: part.text("hash")? });
    }
    if !server.program.is_sorted_by(|one, other| one.path < other.path) {
        return no(format!("`{place}.program` is not in order"));
    }
    for profile in table.tables("profiles")? {
        let profile = Table::new(&format!("{place}.profiles"), profile, &["name", "hash", "text"])?;
        let (name, read) = (profile.text("name")?, Profile { text: profile.text("text")? });
        if read.hash() != profile.text("hash")? {
            return no(format!("the hash of profile `{name}` is not that of its text"));
        }
        if server.profiles.insert(name, read).is_some() {
            return no(format!("`{place}` has a profile twice"));
        }
    }
    for kind in Kind::ALL {
        let place = format!("{place}.{}", kind.table());
        let items: Result<Vec<Item>, NotALock> =
            table.tables(kind.table())?.into_iter().map(|table| item(&place, table)).collect();
        let items = items?;
        if !items.is_empty() {
            server.items.insert(kind, items);
        }
    }
    Ok(server)
}

fn package(place: &str, table: &DeTable<'_>) -> Result<Package, NotALock> {
    let table = Table::new(place, table, &["name", "version", "hash", "scripts", "packages"])?;
    let mut package =
        Package { name: table.text("name")?, version: table.text("version")?, ..Package::default() };
    if table.table.contains_key("scripts") {
        package.scripts = table.words("scripts")?;
    }
    for one in table.tables("packages")? {
        let one = Table::new(&format!("{place}.packages"), one, &["name", "version", "integrity"])?;
        let (name, version, integrity) = (one.text("name")?, one.text("version")?, one.text("integrity")?);
        package.packages.push(Pinned { name, version, integrity });
    }
    if package.hash() != table.text("hash")? {
        return no(format!("the hash of `{place}` is not that of what is there"));
    }
    Ok(package)
}

fn item(place: &str, table: &DeTable<'_>) -> Result<Item, NotALock> {
    let table = Table::new(place, table, &["name", "hash", "accepted", "text", "json"])?;
    let mut definition = Definition { name: table.text("name")?, ..Definition::default() };
    definition.texts = table.texts("text")?;
    // Written over several lines; what is compared is not.
    definition.json =
        table.texts("json")?.into_iter().map(|(name, json)| (name, comparable(json.as_bytes()))).collect();
    if let Some(name) = definition.texts.keys().find(|name| definition.json.contains_key(*name)) {
        return no(format!("`{}` in `{place}` has `{name}` twice", definition.name));
    }
    if definition.hash() != table.text("hash")? {
        return no(format!("the hash of `{}` in `{place}` is not that of what is there", definition.name));
    }
    let accepted = match table.table.contains_key("accepted") {
        true => table.words("accepted")?.into_iter().collect(),
        false => BTreeSet::new(),
    };
    Ok(Item { definition, accepted })
}

/// A table whose keys are all known.
struct Table<'t, 'i> {
    place: String,
    table: &'t DeTable<'i>,
}

impl<'t, 'i> Table<'t, 'i> {
    fn new(place: &str, table: &'t DeTable<'i>, known: &[&str]) -> Result<Self, NotALock> {
        match table.keys().find(|key| !known.contains(&&**key.get_ref())) {
            Some(key) => no(format!("`{place}` has `{}`", key.get_ref())),
            None => Ok(Self { place: place.to_owned(), table }),
        }
    }

    fn get(&self, key: &str) -> Result<&'t DeValue<'i>, NotALock> {
        match self.table.get(key) {
            Some(value) => Ok(value.get_ref()),
            None => no(format!("`{}` has no `{key}`", self.place)),
        }
    }

    fn text(&self, key: &str) -> Result<String, NotALock> {
        match self.get(key)?.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => no(format!("`{key}` of `{}` is no text", self.place)),
        }
    }

    fn number(&self, key: &str) -> Result<i64, NotALock> {
        let number = match self.get(key)? {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.map_or_else(|| no(format!("`{key}` of `{}` is no number", self.place)), Ok)
    }

    fn words(&self, key: &str) -> Result<Vec<String>, NotALock> {
        let words = self.get(key)?.as_array().and_then(|items| {
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        words.map_or_else(|| no(format!("`{key}` of `{}` is no list of texts", self.place)), Ok)
    }

    fn inner(&self, key: &str) -> Result<&'t DeTable<'i>, NotALock> {
        self.get(key)?.as_table().map_or_else(|| no(format!("`{key}` of `{}` is no table", self.place)), Ok)
    }

    fn tables(&self, key: &str) -> Result<Vec<&'t DeTable<'i>>, NotALock> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let tables = value
            .get_ref()
            .as_array()
            .and_then(|items| items.iter().map(|item| item.get_ref().as_table()).collect::<Option<Vec<_>>>());
        tables.map_or_else(|| no(format!("`{key}` of `{}` is no list of tables", self.place)), Ok)
    }

    fn texts(&self, key: &str) -> Result<BTreeMap<String, String>, NotALock> {
        let Some(value) = self.table.get(key) else { return Ok(BTreeMap::new()) };
        let texts = value.get_ref().as_table().and_then(|table| {
            let text =
                |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| -> Option<(String, String)> {
                    let name: &toml::de::DeString<'_> = key.get_ref();
                    Some((name.to_string(), value.get_ref().as_str()?.to_owned()))
                };
            table.iter().map(text).collect::<Option<BTreeMap<_, _>>>()
        });
        texts.map_or_else(|| no(format!("`{key}` of `{}` is no table of texts", self.place)), Ok)
    }
}

#[cfg(test)]
#[path = "read/tests.rs"]
mod tests;
