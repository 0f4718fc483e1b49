//! `command`: a command line, or its words, that is like one of given patterns and holds nothing that a shell acts on.
//!
//! Neighbours: `arguments::meaning`. Never: undoes quotes: who reads the command may undo them otherwise.

use serde_json::{Value, json};

use super::{Reader, Unmeant, listed};

const MOST: usize = 65_536;
/// The last word of a pattern, for any further words.
const MORE: &str = "...";

/// The patterns, word by word.
#[derive(Debug)]
pub(in crate::arguments) struct Allowed(Vec<Vec<String>>);

impl Allowed {
    pub(super) fn read(reader: &mut Reader<'_>, value: &Value) -> Option<Self> {
        let members = reader.table(value, &["allow"])?;
        let mut patterns = Vec::new();
        for (at, text) in reader.texts(members, "allow")? {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let program = words.first().map(String::as_str).unwrap_or_default();
            if program.is_empty() || program.contains('*') || program == MORE {
                let hint = "write `git log *`: words, in which `*` stands for any text, and `...` at the end for any further words";
                reader.mistake(at, "must begin with a program, without `*`", Some(hint.to_owned()));
            } else {
                patterns.push(words);
            }
        }
        Some(Self(patterns))
    }

    pub(super) fn judge(&self, value: &Value) -> Result<(), Unmeant> {
        let words: Option<Vec<&str>> = match value {
            Value::String(line) => Some(line.split(' ').filter(|word| !word.is_empty()).collect()),
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        let words =
            words.ok_or_else(|| Unmeant::new("must be a command: a string, or an array of strings"))?;
        if words.iter().map(|word| word.len() + 1).sum::<usize>() > MOST {
            return Err(Unmeant::new("must be a command of at most 65536 bytes"));
        }
        if let Some(found) = words.iter().flat_map(|word| word.chars()).find(|c| is_special(*c)) {
            let told = format!("must be a command without `{}`, which a shell acts on", found.escape_debug());
            return Err(Unmeant::new(told));
        }
        if words.is_empty() || words.iter().any(|word| word.is_empty()) {
            return Err(Unmeant::new("must be a command without empty words"));
        }
        if self.0.iter().any(|pattern| fits(pattern, &words)) {
            return Ok(());
        }
        let known: Vec<String> = self.0.iter().map(|pattern| pattern.join(" ")).collect();
        let told = format!("must be a command like {}", listed(known.iter().map(String::as_str)));
        let mut more = known;
        more.push(words.join(" "));
        Err(Unmeant { told, wider: Some(json!({"allow": more})) })
    }
}

/// Does a shell do something with this character, or split words at it?
fn is_special(c: char) -> bool {
    c.is_control() || c.is_whitespace() || ";&|<>()$`\\\"'*?[]{}~#!^%".contains(c)
}

fn fits(pattern: &[String], words: &[&str]) -> bool {
    let (pattern, more) = match pattern.split_last() {
        Some((last, before)) if last == MORE => (before, true),
        _ => (pattern, false),
    };
    (words.len() == pattern.len() || more && words.len() > pattern.len())
        && pattern.iter().zip(words).all(|(pattern, word)| word_fits(pattern, word))
}

/// A word that is all `*` is no place for an option.
fn word_fits(pattern: &str, word: &str) -> bool {
    if pattern.starts_with('*') && word.starts_with('-') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = word.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}
