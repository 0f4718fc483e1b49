//! `arguments` of a tool: what the operator wants its arguments to be, as JSON Schema in TOML.
//!
//! Neighbours: `policy::config` reads the rest of the file, `arguments` compiles and checks. Never: makes a server's own schema
//! wider: both have to be met.

use std::sync::Arc;

use serde_json::{Number, Value as Json};
use toml::de::DeValue;

use super::super::mistakes::closest;
use super::super::print::{key, quote};
use super::super::toml_file::{TomlFile, Value};
use crate::arguments::{Author, Fault, Found, KEYWORDS, Mistake, Schema, Wider, World, compile};

/// A tool's rules.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// As it stands in the file.
    document: Json,
    schema: Arc<Schema>,
    /// The name of the table in the file.
    table: String,
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        (&self.document, &self.table) == (&other.document, &other.table)
    }
}

impl Eq for Arguments {}

impl Arguments {
    /// What is wrong with arguments, and the lines that would allow them.
    #[must_use]
    pub fn faults(&self, arguments: &Json, world: &dyn World) -> Vec<Fault> {
        let found = self.schema.check_in(arguments, world).err().unwrap_or_default();
        found.into_iter().map(|found| self.fault(found)).collect()
    }

    fn fault(&self, found: Found) -> Fault {
        let table = self.table_at(&found.schema);
        let allow = found.wider.and_then(|wider| match wider {
            Wider::Value(value) => Some(format!("[{table}]\n{} = {}", key(found.keyword), written(&value)?)),
            Wider::Property(name) => Some(format!("[{table}.properties]\n{} = {{}}", key(&name))),
        });
        Fault { at: found.at, told: found.told, rule: format!("`{}` of `[{table}]`", found.keyword), allow }
    }

    /// The header of the table at a place of the document.
    fn table_at(&self, pointer: &str) -> String {
        let steps = pointer.split('/').skip(1).map(|step| key(&step.replace("~1", "/").replace("~0", "~")));
        [self.table.clone()].into_iter().chain(steps).collect::<Vec<_>>().join(".")
    }
}

/// A value in one line of TOML. `None` for what TOML has not.
fn written(value: &Json) -> Option<String> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::String(text) => quote(text),
        Json::Array(items) => {
            format!("[{}]", items.iter().map(written).collect::<Option<Vec<_>>>()?.join(", "))
        }
        Json::Object(members) => {
            let member =
                |(name, value): (&String, &Json)| Some(format!("{} = {}", key(name), written(value)?));
            format!("{{ {} }}", members.iter().map(member).collect::<Option<Vec<_>>>()?.join(", "))
        }
    })
}

pub(super) fn read(file: &mut TomlFile<'_>, table: &str, value: &Value<'_>) -> Option<Arguments> {
    file.table(value, &format!("`{table}`"))?;
    let document = json(file, value);
    match compile(&document, Author::Operator) {
        Ok(schema) => Some(Arguments { document, schema: Arc::new(schema), table: table.to_owned() }),
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| note(file, value, mistake));
            None
        }
    }
}

/// The same value in JSON. What JSON has not is noted, and stands as `null`.
fn json(file: &mut TomlFile<'_>, value: &Value<'_>) -> Json {
    let number = |number: Option<Number>| number.map(Json::Number);
    let found = match value.get_ref() {
        DeValue::String(text) => Some(Json::from(text.as_ref())),
        DeValue::Boolean(flag) => Some(Json::from(*flag)),
        DeValue::Integer(integer) => {
            let digits = integer.as_str();
            let whole = i64::from_str_radix(digits, integer.radix()).map(Number::from);
            number(whole.or_else(|_| u64::from_str_radix(digits, integer.radix()).map(Number::from)).ok())
        }
        DeValue::Float(float) => number(float.as_str().parse().ok().and_then(Number::from_f64)),
        DeValue::Array(items) => Some(items.iter().map(|item| json(file, item)).collect()),
        DeValue::Table(table) => {
            let members = table.iter().map(|(name, value)| (name.get_ref().to_string(), json(file, value)));
            Some(Json::Object(members.collect()))
        }
        DeValue::Datetime(_) => None,
    };
    found.unwrap_or_else(|| {
        file.mistake(&value.span(), "no value of JSON is like this", None);
        Json::Null
    })
}

/// Notes a mistake of the schema where it stands in the file.
fn note(file: &mut TomlFile<'_>, root: &Value<'_>, mistake: &Mistake) {
    let (mut value, mut span, mut last) = (root, root.span(), "arguments".to_owned());
    let mut item = "";
    for step in mistake.at.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        let next = match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .find(|(known, _)| *known.get_ref() == name.as_str())
                .map(|(known, value)| (value, if mistake.name { known.span() } else { value.span() })),
            DeValue::Array(items) => {
                step.parse().ok().and_then(|at: usize| items.get(at)).map(|item| (item, item.span()))
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        let Some((inner, place)) = next else { break };
        item = if value.get_ref().is_array() { "an item of " } else { "" };
        last = if item.is_empty() { name } else { last };
        (value, span) = (inner, place);
    }
    let meant = || closest(&last, KEYWORDS.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
    let hint = mistake.hint.clone().or_else(|| meant().filter(|_| mistake.name));
    file.mistake(&span, &format!("{item}`{last}` {}", mistake.told), hint.as_deref());
}

#[cfg(test)]
#[path = "arguments/tests.rs"]
mod tests;
