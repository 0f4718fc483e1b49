//! What a text means beyond JSON Schema: a path, a URL, a command, a statement of SQL. Keywords of the configuration alone.
//!
//! Each is judged as what uses it would read it, and what two users could read differently is refused.
//!
//! Neighbours: `arguments::compile` reads the keywords, `arguments::check` asks. Never: looks at the file system itself; where a path
//! leads it asks the [`World`].

mod command;
mod path;
mod sql;
mod url;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
pub use url::leads;

use super::compile::Mistake;
use super::document::below;

/// The keywords.
pub(super) const KEYWORDS: &[&str] = &["path", "url", "command", "sql"];

/// What is not in an argument itself.
pub trait World {
    /// Where a path leads, with links followed as the kernel does. `None`: nobody can say.
    fn lands(&self, path: &Path) -> Option<PathBuf>;
}

/// Nobody can say anything.
#[derive(Debug)]
pub(super) struct Nowhere;

impl World for Nowhere {
    fn lands(&self, _: &Path) -> Option<PathBuf> {
        None
    }
}

/// What a value has to mean.
#[derive(Debug)]
pub(super) enum Meaning {
    Path(path::Within),
    Url(url::Allowed),
    Command(command::Allowed),
    Sql(sql::Allowed),
}

/// Why a value does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmeant {
    pub(super) told: String,
    /// The keyword's value that would let it through.
    pub(super) wider: Option<Value>,
}

impl Unmeant {
    fn new(told: impl Into<String>) -> Self {
        Self { told: told.into(), wider: None }
    }
}

impl Meaning {
    /// Reads a keyword's value.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(super) fn read(keyword: &str, at: &str, value: &Value) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader { at, mistakes: Vec::new() };
        let meaning = match keyword {
            "path" => path::Within::read(&mut reader, value).map(Self::Path),
            "url" => url::Allowed::read(&mut reader, value).map(Self::Url),
            "command" => command::Allowed::read(&mut reader, value).map(Self::Command),
            _ => sql::Allowed::read(&mut reader, value).map(Self::Sql),
        };
        meaning.filter(|_| reader.mistakes.is_empty()).ok_or(reader.mistakes)
    }

    pub(super) const fn keyword(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Url(_) => "url",
            Self::Command(_) => "command",
            Self::Sql(_) => "sql",
        }
    }

    pub(super) fn judge(&self, value: &Value, world: &dyn World) -> Result<(), Unmeant> {
        let text = || value.as_str().ok_or_else(|| Unmeant::new("must be a string"));
        match self {
            Self::Path(within) => within.judge(text()?, world),
            Self::Url(allowed) => allowed.judge(text()?),
            Self::Command(allowed) => allowed.judge(value),
            Self::Sql(allowed) => allowed.judge(text()?),
        }
    }
}

/// Reads the table of a keyword.
struct Reader<'a> {
    at: &'a str,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn mistake(&mut self, at: String, told: impl Into<String>, hint: Option<String>) {
        self.mistakes.push(Mistake { at, name: false, told: told.into(), hint });
    }

    /// The members of a table whose names are known; the first of them has to be there.
    fn table<'v>(&mut self, value: &'v Value, names: &[&'static str]) -> Option<&'v Map<String, Value>> {
        let example = names.first().copied().unwrap_or_default();
        let hint = Some(format!("write `{{ {example} = […] }}`"));
        let Some(members) = value.as_object() else {
            self.mistake(self.at.to_owned(), "must be a table", hint);
            return None;
        };
        for name in members.keys().filter(|name| !names.contains(&name.as_str())) {
            let told = "is not known here".to_owned();
            let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let hint = Some(format!("known here: {known}"));
            self.mistakes.push(Mistake { at: below(self.at, name), name: true, told, hint });
        }
        if !members.contains_key(example) {
            self.mistake(self.at.to_owned(), format!("has no `{example}`"), hint);
        }
        Some(members)
    }

    /// The texts of a list; `None` where there is none.
    fn texts(&mut self, members: &Map<String, Value>, name: &str) -> Option<Vec<(String, String)>> {
        let at = below(self.at, name);
        let value = members.get(name)?;
        let Some(items) = value.as_array() else {
            self.mistake(at, "must be an array of strings", None);
            return None;
        };
        let mut texts = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{at}/{index}");
            match item.as_str() {
                Some(text) => texts.push((at, text.to_owned())),
                None => self.mistake(at, "must be a string", None),
            }
        }
        Some(texts)
    }
}

/// `a`, `b` and what is for nobody.
fn listed<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.map(|text| format!("`{text}`")).collect();
    if texts.is_empty() { "nothing: the list is empty".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests;
