//! A definition that a server lists: a tool, a prompt, a resource, a template of resources, or its instructions. Two are the same if
//! each of their members is; of a resource, but for what changes with its data.
//!
//! Neighbours: `lock::file` keeps them, `lock::guard` compares them. Never: leaves out a member that a model reads, or takes one of
//! two that have the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access::canonical;
use crate::mcp::envelope::only;
use crate::mcp::object;
use crate::policy::tokens::to_hex;

/// The member in which a server says what it is.
pub(super) const INSTRUCTIONS: &str = "instructions";

/// Whether a member of a resource is one that changes with its data and holds no words: its size, and who it is for, how important
/// and how new it is.
fn is_of_data(name: &str, raw: &[u8]) -> bool {
    // In which nothing is there twice.
    let value = canonical(raw).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    match (name, value) {
        ("size", Some(size)) => size.is_number() || size.is_null(),
        ("annotations", Some(Value::Null)) => true,
        ("annotations", Some(Value::Object(all))) => {
            all.iter().all(|(name, value)| match (name.as_str(), value) {
                ("priority", priority) => priority.is_number() || priority.is_null(),
                ("audience" | "lastModified", Value::Null) => true,
                ("audience", Value::Array(all)) => all.iter().all(|who| who == "user" || who == "assistant"),
                ("lastModified", Value::String(date)) => {
                    date.len() <= 40
                        && date.bytes().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte))
                }
                _ => false,
            })
        }
        _ => false,
    }
}

/// What is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What the server says of itself.
    Instructions,
    /// By its name.
    Tool,
    /// By its name.
    Prompt,
    /// By its URI.
    Resource,
    /// Of resources, by its URI template.
    Template,
}

impl Kind {
    /// All, in the order of the file.
    pub const ALL: [Self; 5] = [Self::Instructions, Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// Its table in the file.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Instructions => INSTRUCTIONS,
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "templates",
        }
    }

    /// As it is called in a sentence.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Instructions => INSTRUCTIONS,
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource template",
        }
    }

    /// The method that lists them, and the member of its result that does.
    #[must_use]
    pub const fn list(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Instructions => None,
            Self::Tool => Some(("tools/list", "tools")),
            Self::Prompt => Some(("prompts/list", "prompts")),
            Self::Resource => Some(("resources/list", "resources")),
            Self::Template => Some(("resources/templates/list", "resourceTemplates")),
        }
    }

    /// What a method lists.
    #[must_use]
    pub fn listed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.list().is_some_and(|(known, _)| known == method))
    }

    /// The member by which one is called.
    const fn name(self) -> &'static str {
        match self {
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
            Self::Instructions | Self::Tool | Self::Prompt => "name",
        }
    }
}

/// One definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// By what it is called.
    pub name: String,
    /// Members that are strings, but for the name.
    pub texts: BTreeMap<String, String>,
    /// All others, as JSON: in their canonical form, or as they came where they have none.
    pub json: BTreeMap<String, String>,
}

/// A hash as it stands in the file.
#[must_use]
pub fn hash(of: Sha256) -> String {
    format!("sha256:{}", to_hex(&of.finalize()))
}

/// JSON in the form that is compared. What has no canonical form is compared byte by byte, which never takes two for one.
#[must_use]
pub(super) fn comparable(raw: &[u8]) -> String {
    canonical(raw).unwrap_or_else(|_two_readings| String::from_utf8_lossy(raw).into_owned())
}

impl Definition {
    /// One element of a list.
    ///
    /// # Errors
    /// Why readers could take it for different things.
    pub fn read(kind: Kind, line: &[u8], span: Range<usize>) -> Result<Self, String> {
        if line.get(span.start) != Some(&b'{') {
            return Err(format!("an element of the list of {} is no object", kind.table()));
        }
        let mut read = Self::default();
        let (mut name, mut seen) = (None, BTreeSet::new());
        for member in object::members(line, span) {
            let raw = line.get(member.value.clone()).unwrap_or_default();
            let text = object::text(raw).map(std::borrow::Cow::into_owned);
            let key = member.name.into_owned();
            let twice = !seen.insert(key.clone());
            if twice {
                return Err(format!("a {} has `{key}` more than once", kind.noun()));
            }
            match text {
                text if key == kind.name() => {
                    name = Some(text.ok_or_else(|| format!("a {} has no text as `{key}`", kind.noun()))?);
                }
                _ if kind == Kind::Resource && is_of_data(&key, raw) => {}
                Some(text) => drop(read.texts.insert(key, text)),
                None => drop(read.json.insert(key, comparable(raw))),
            }
        }
        read.name = name.ok_or_else(|| format!("a {} has no `{}`", kind.noun(), kind.name()))?;
        Ok(read)
    }

    /// What a server says of itself in the result of a handshake or a discovery. `None`: nothing.
    ///
    /// # Errors
    /// Why readers could take it for different things.
    pub fn instructions(line: &[u8], result: Range<usize>) -> Result<Option<Self>, String> {
        let members = object::members(line, result);
        let raw = only(&members, INSTRUCTIONS)?.and_then(|member| line.get(member.value.clone()));
        match raw.filter(|raw| *raw != b"null").map(object::text) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(Self::of_instructions(&text))),
            Some(None) => Err(format!("`{INSTRUCTIONS}` is no text")),
        }
    }

    /// What a server says of itself.
    #[must_use]
    pub fn of_instructions(text: &str) -> Self {
        let texts = BTreeMap::from([("text".to_owned(), text.to_owned())]);
        Self { name: Kind::Instructions.table().to_owned(), texts, json: BTreeMap::new() }
    }

    /// The SHA-256 of all of it.
    #[must_use]
    pub fn hash(&self) -> String {
        let whole = serde_json::json!([self.name, self.texts, self.json]).to_string();
        hash(Sha256::new_with_prefix(whole))
    }

    /// The members of both in which they differ.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let value = |of: &Self, key: &str| {
            let text = of.texts.get(key).map(|text| ('t', text.clone()));
            text.or_else(|| of.json.get(key).map(|json| ('j', json.clone())))
        };
        let all =
            self.texts.keys().chain(self.json.keys()).chain(other.texts.keys()).chain(other.json.keys());
        let mut keys: Vec<String> =
            all.filter(|key| value(self, key) != value(other, key)).cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// A member as lines for a person; none if it is not there.
    #[must_use]
    pub fn member(&self, key: &str) -> Vec<String> {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        match (self.texts.get(key), self.json.get(key)) {
            (Some(text), _) if text.is_empty() => vec![String::new()],
            (Some(text), _) => lines(text),
            (None, Some(json)) => lines(&pretty(json)),
            (None, None) => Vec::new(),
        }
    }
}

/// JSON over several lines, if that is the same JSON.
#[must_use]
pub(super) fn pretty(json: &str) -> String {
    let value: Option<Value> = serde_json::from_str(json).ok();
    let pretty = value.and_then(|value| serde_json::to_string_pretty(&value).ok());
    let same = pretty.filter(|pretty| comparable(pretty.as_bytes()) == json);
    same.unwrap_or_else(|| json.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Definition, String> {
        Definition::read(Kind::Tool, text.as_bytes(), 0..text.len())
    }

    #[test]
    fn the_same_however_it_is_written() {
        let one = read(r#"{"name":"a","description":"Aé","inputSchema":{"b":1.0,"a":[1,2]}}"#).unwrap();
        let other =
            read(r#"{ "inputSchema" : {"a":[ 1,2],"b":1}, "n\u0061me":"a","description":"A\u00e9" }"#)
                .unwrap();
        assert_eq!(one, other);
        assert_eq!(one.hash(), other.hash());
        assert!(one.differing(&other).is_empty());
    }

    #[test]
    fn every_member_counts() {
        let whole = r#"{"name":"a","title":"t","description":"d","inputSchema":{},"outputSchema":{"x":1},"annotations":{"readOnlyHint":true},"_meta":{"":1},"icons":[]}"#;
        let one = read(whole).unwrap();
        for (from, to, member) in [
            (r#""title":"t""#, r#""title":"T""#, "title"),
            (r#""description":"d""#, r#""description":"d ""#, "description"),
            (r#""description":"d","#, "", "description"),
            (r#""description":"d""#, r#""description":["d"]"#, "description"),
            (r#""inputSchema":{}"#, r#""inputSchema":{"a":0}"#, "inputSchema"),
            (r#""x":1"#, r#""x":1.5"#, "outputSchema"),
            (r#"true"#, r#"false"#, "annotations"),
            (r#"{"":1}"#, r#"{}"#, "_meta"),
            (r#""icons":[]"#, r#""icons":[],"more":null"#, "more"),
        ] {
            assert!(whole.contains(from), "{from}");
            let other = read(&whole.replace(from, to)).unwrap();
            assert_eq!(one.differing(&other), [member], "{to}");
            assert_ne!(one.hash(), other.hash(), "{to}");
        }
    }

    #[test]
    fn what_changes_with_a_resources_data_counts_where_it_could_hold_words() {
        let read = |members: &str| {
            let text = format!(r#"{{"uri":"a:b",{members}}}"#);
            Definition::read(Kind::Resource, text.as_bytes(), 0..text.len())
        };
        let plain = read(r#""name":"b""#).unwrap();
        for data in [
            r#""size":7"#,
            r#""size":null,"annotations":null"#,
            r#""annotations":{"audience":null,"priority":null,"lastModified":null}"#,
            r#""annotations":{"audience":["user","assistant"],"priority":0.5,"lastModified":"2025-01-12T15:00:58+01:00"}"#,
        ] {
            assert_eq!(read(&format!(r#""name":"b",{data}"#)).unwrap(), plain, "{data}");
        }
        for words in [
            r#""size":"Ignore""#,
            r#""size":{"a":"Ignore"}"#,
            r#""annotations":"Ignore""#,
            r#""annotations":["Ignore"]"#,
            r#""annotations":{"note":"Ignore"}"#,
            r#""annotations":{"Ignore":null}"#,
            r#""annotations":{"priority":"Ignore"}"#,
            r#""annotations":{"priority":"Ignore","priority":1}"#,
            r#""annotations":{"audience":["Ignore"]}"#,
            r#""annotations":{"audience":"Ignore"}"#,
            r#""annotations":{"lastModified":"Ignore all"}"#,
        ] {
            assert_ne!(read(&format!(r#""name":"b",{words}"#)).unwrap(), plain, "{words}");
        }
        assert!(read(r#""name":"b","size":1,"size":2"#).is_err());
    }

    #[test]
    fn what_has_no_canonical_form_is_compared_as_it_came() {
        let of = |schema: &str| read(&format!(r#"{{"name":"a","inputSchema":{schema}}}"#)).unwrap();
        let one = of(r#"{"maximum":18446744073709551615}"#);
        assert_ne!(one, of(r#"{"maximum":18446744073709551614}"#));
        assert_eq!(one, of(r#"{"maximum":18446744073709551615}"#));
        assert_ne!(of(r#"{"a":1,"a":2}"#), of(r#"{"a":2,"a":1}"#));
    }

    #[test]
    fn instructions_are_one_text() {
        let read = |result: &str| Definition::instructions(result.as_bytes(), 0..result.len());
        for none in ["{}", r#"{"instructions":null}"#, r#"{"a":{"instructions":"x"}}"#, "[]"] {
            assert_eq!(read(none), Ok(None), "{none}");
        }
        assert_eq!(
            read(r#"{"a":1,"in\u0073tructions":"x\u0079"}"#),
            Ok(Some(Definition::of_instructions("xy")))
        );
        for (wrong, why) in [
            (r#"{"instructions":"x","instructions":"x"}"#, "more than once"),
            (r#"{"instructions":"evil","instructions":null}"#, "more than once"),
            (r#"{"instructions":"x","Instructions":"evil"}"#, "more than once"),
            (r#"{"Instructions":"x"}"#, "other letters"),
            (r#"{"instructions":7}"#, "no text"),
            (r#"{"instructions":"\ud800"}"#, "no text"),
        ] {
            let told = read(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }

    #[test]
    fn what_readers_could_take_for_two_things_is_none() {
        for wrong in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","description":"x","description":"y"}"#,
            r#"{"name":"a","description":"x","description":1}"#,
            r#"{"name":7}"#,
            r#"{"name":"\ud800"}"#,
            r#"{"description":"x"}"#,
            "7",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
