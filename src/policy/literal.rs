//! Finds what looks like a credential in a file that people write, by fixed rules: the prefixes that issuers give to theirs,
//! private keys, signed tokens, passwords in addresses, and random values under names such as `token`.
//!
//! Neighbours: `policy::toml_file` refuses what is found, and hides it in every message. Never: says it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::print;
use super::toml_file::Value;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Where it stands.
    pub(super) range: Range<usize>,
    /// What it looks like.
    pub(super) what: String,
    /// The lines to write instead.
    pub(super) hint: String,
    /// The text as it is read, for it to be hidden.
    pub(super) text: String,
}

impl Literal {
    /// The text, and what a message may quote of it.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let parts = self.text.split(|c: char| c.is_whitespace() || matches!(c, '=' | '"' | '\''));
        let whole = std::iter::once(self.text.as_str()).filter(|text| !text.is_empty());
        whole.chain(parts.filter(|part| part.len() >= SHORTEST_PART))
    }
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// How many characters of which kind must follow, and be there in what kinds, for a prefix to count.
type Known = (&'static str, usize, fn(u8) -> bool, &'static str);

/// Prefixes of credentials.
const KNOWN: &[Known] = &[
    ("ghp_", 20, alphanumeric, "a GitHub token"),
    ("gho_", 20, alphanumeric, "a GitHub token"),
    ("ghu_", 20, alphanumeric, "a GitHub token"),
    ("ghs_", 20, alphanumeric, "a GitHub token"),
    ("ghr_", 20, alphanumeric, "a GitHub token"),
    ("github_pat_", 20, word, "a GitHub token"),
    ("glpat-", 16, word, "a GitLab token"),
    ("sk-", 20, word, "an API key"),
    ("sk_live_", 16, alphanumeric, "an API key"),
    ("sk_test_", 16, alphanumeric, "an API key"),
    ("rk_live_", 16, alphanumeric, "an API key"),
    ("xoxa-", 10, word, "a Slack token"),
    ("xoxb-", 10, word, "a Slack token"),
    ("xoxe-", 10, word, "a Slack token"),
    ("xoxp-", 10, word, "a Slack token"),
    ("xoxr-", 10, word, "a Slack token"),
    ("xoxs-", 10, word, "a Slack token"),
    ("AKIA", 16, capital, "an AWS access key"),
    ("ASIA", 16, capital, "an AWS access key"),
    ("AIza", 30, word, "a Google API key"),
    ("AGE-SECRET-KEY-1", 20, capital, "an age key"),
    ("npm_", 30, alphanumeric, "an npm token"),
    ("pypi-", 32, word, "a PyPI token"),
    ("hf_", 30, alphanumeric, "a Hugging Face token"),
    ("toolcell_", 64, hexadecimal, "a toolcell token"),
];

/// Names of what is kept secret.
const NAMES: [&str; 6] = ["token", "secret", "password", "passwd", "passphrase", "key"];
/// A part of a text that is hidden wherever it is quoted.
const SHORTEST_PART: usize = 6;
/// A random value has at least so many characters,
const SHORTEST: usize = 16;
/// and so many tenths of a bit in each.
const TENTHS: u32 = 33;

/// Finds them in a text, and in its values as they are read. `None` of the table's values has a place outside of the text.
pub(super) fn find(text: &str, table: &DeTable<'_>) -> Vec<Literal> {
    let mut found = Vec::new();
    values(table, &mut Vec::new(), &mut found);
    for (range, what) in known(text) {
        // Also in comments, and where the text is no TOML.
        let new = found
            .iter()
            .all(|literal: &Literal| range.end <= literal.range.start || range.start >= literal.range.end);
        if new {
            let text = text.get(range.clone()).unwrap_or_default().to_owned();
            found.push(Literal { range, what: what.to_owned(), hint: hint(&[], None), text });
        }
    }
    found.sort_by_key(|literal| literal.range.start);
    found
}

/// All by their prefix or form.
fn known(text: &str) -> Vec<(Range<usize>, &'static str)> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let begins = at.checked_sub(1).and_then(|before| bytes.get(before)).is_none_or(|byte| !word(*byte));
        let rest = bytes.get(at..).unwrap_or_default();
        match begins.then(|| starts(rest)).flatten() {
            Some((length, what)) => {
                found.push((at..at + length, what));
                at += length;
            }
            None => at += 1,
        }
    }
    found
}

/// A credential at the start of a text: how long it is, and what.
fn starts(rest: &[u8]) -> Option<(usize, &'static str)> {
    let run = |from: usize, of: fn(u8) -> bool| {
        rest.get(from..).unwrap_or_default().iter().take_while(|byte| of(**byte)).count()
    };
    match rest.first()? {
        b'-' if rest.starts_with(b"-----BEGIN ") => return private_key(rest),
        b'e' if rest.starts_with(b"eyJ") => {
            let first = run(0, word);
            let second = run(first + 1, word);
            let third = run(first + second + 2, word);
            let dots = [first, first + second + 1].map(|at| rest.get(at) == Some(&b'.'));
            let signed = dots == [true, true] && [first, second, third].iter().all(|length| *length >= 10);
            return (signed && rest.get(first + 1..first + 4) == Some(b"eyJ"))
                .then_some((first + second + third + 2, "a signed token (JWT)"));
        }
        _ => {}
    }
    if let Some(length) = password_in_address(rest) {
        return Some((length, "an address with a password"));
    }
    KNOWN.iter().find_map(|(prefix, least, of, what)| {
        let length = rest.starts_with(prefix.as_bytes()).then(|| run(prefix.len(), *of))?;
        let issued = rest.get(prefix.len()..prefix.len() + length).unwrap_or_default();
        // Words that happen to begin so have no digit.
        (length >= *least && issued.iter().any(u8::is_ascii_digit)).then_some((prefix.len() + length, *what))
    })
}

fn private_key(rest: &[u8]) -> Option<(usize, &'static str)> {
    const END: &[u8] = b"PRIVATE KEY-----";
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let label = line.windows(END.len()).position(|window| window == END)?;
    // To the end of the block, if it has one.
    let close = rest.windows(9).position(|window| window == b"-----END ");
    let close =
        close.map(|at| at + rest.get(at..).unwrap_or_default().iter().take_while(|b| **b != b'\n').count());
    Some((close.unwrap_or(label + END.len()), "a private key"))
}

/// `scheme://user:password@`, and how long it is.
fn password_in_address(rest: &[u8]) -> Option<usize> {
    let scheme = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
    let after = rest.get(scheme..)?.strip_prefix(b"://").filter(|_| scheme > 1)?;
    let stop = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'`,<>{}$".contains(byte);
    let authority = after.iter().take_while(|byte| !stop(byte)).count();
    let authority = after.get(..authority)?;
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    let colon = authority.get(..at)?.iter().position(|byte| *byte == b':')?;
    (at - colon > 3 && colon > 0).then_some(scheme + 3 + at)
}

/// The strings of a table, each with the names of what it stands in.
fn values(table: &DeTable<'_>, path: &mut Vec<String>, found: &mut Vec<Literal>) {
    for (key, value) in table {
        path.push(key.get_ref().clone().into_owned());
        of_value(value, path, None, found);
        path.pop();
    }
}

fn of_value(value: &Value<'_>, path: &mut Vec<String>, before: Option<&str>, found: &mut Vec<Literal>) {
    match value.get_ref() {
        DeValue::Table(table) => values(table, path, found),
        DeValue::Array(items) => {
            let mut before = None;
            for item in items {
                of_value(item, path, before, found);
                before = item.get_ref().as_str();
            }
        }
        DeValue::String(text) => {
            let variable = text.split_once('=').map(|(name, _)| name);
            if let Some(what) = judge(text, path, before) {
                found.push(Literal {
                    range: value.span(),
                    what,
                    hint: hint(path, variable),
                    text: text.clone().into_owned(),
                });
            }
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

/// What a value looks like that stands under these names, behind this item of its array.
fn judge(text: &str, path: &[String], before: Option<&str>) -> Option<String> {
    if let Some((_, what)) = known(text).first() {
        return Some((*what).to_owned());
    }
    // The one thing that a secret's section cannot have.
    if path.first().is_some_and(|section| section == "secrets")
        && path.last().is_some_and(|key| key == "value")
    {
        return Some("the value of a secret".to_owned());
    }
    let of_secrets = path.first().is_some_and(|section| section == "secrets");
    let under = path.last().filter(|_| !of_secrets).map(String::as_str);
    let option = before.filter(|before| before.starts_with('-'));
    let (name, value) = match text.split_once('=') {
        Some((name, value)) if name.bytes().all(word) => (Some(name), value),
        _ => (None, text),
    };
    let name = [name, option, under].into_iter().flatten().find(|name| is_secret(name))?;
    is_random(value).then(|| format!("a random value that is called `{}`", name.trim_start_matches('-')))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// Digits and letters without an order.
fn is_random(value: &str) -> bool {
    let bytes = value.as_bytes();
    let of_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=_-.~!@#$%^&*".contains(byte);
    let path = value.starts_with(['/', '.', '~', '$', '{']) || value.contains("/.") || value.contains("://");
    if bytes.len() < SHORTEST || path || !bytes.iter().all(of_alphabet) {
        return false;
    }
    let digits = bytes.iter().any(u8::is_ascii_digit);
    digits && bytes.iter().any(u8::is_ascii_alphabetic) && tenths_of_a_bit(bytes) >= TENTHS
}

/// Shannon's entropy of a character.
fn tenths_of_a_bit(bytes: &[u8]) -> u32 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let bits: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / all)
        .map(|share| -share * share.log2())
        .sum();
    // Between 0 and 80.
    (0..=80).rev().find(|tenths| f64::from(*tenths) <= bits * 10.0).unwrap_or(0)
}

/// The lines that give a tool the same without writing it down.
fn hint(path: &[String], variable: Option<&str>) -> String {
    let server = match path {
        [servers, server, ..] if servers == "servers" => server,
        _ => "SERVER",
    };
    let right =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let variable = variable.filter(right).unwrap_or("NAME");
    format!(
        "keep it in a file or variable, and write `[secrets.{}]` with `from = {{ file = \"/path\" }}`, \
         `to = [\"{server}/TOOL\"]` and `into = {{ env = \"{variable}\" }}`; rotate it if others could read this file",
        print::key(&variable.to_ascii_lowercase())
    )
}

#[cfg(test)]
mod tests;
