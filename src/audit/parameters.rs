//! The parameters of a call as they stand in its record: redacted, bounded, and readable by every JSON reader.
//!
//! The text is walked, not parsed into a tree: number forms, order and duplicate keys are what the server saw,
//! and a redaction finds every duplicate. Neighbours: `audit::record`. Never: recurses; fails on valid JSON.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::text::start_of;

/// Bytes that one text or number keeps before it is cut.
const TEXT_MOST: usize = 4 * 1024;
/// Bytes after which the rest of the parameters is left out.
const WHOLE_MOST: usize = 64 * 1024;
/// Levels of arrays and objects that are kept.
const DEPTH_MOST: usize = 48;

/// What stands in place of a redacted value.
pub const REDACTED: &str = "[redacted]";

/// The parameters in a record, and how they differ from those of the call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parameters {
    /// The parameters as JSON, with what is left out replaced by a text.
    pub value: Box<RawValue>,
    /// Size of the original text in bytes.
    pub bytes: u64,
    /// How many values are redacted.
    pub redacted: u64,
    /// In how many places something is left out for its size or depth.
    pub cut: u64,
    /// How many lone surrogates and numbers out of range are written as text, because readers refuse them.
    pub rewritten: u64,
}

impl Parameters {
    /// Copies parameters for a record. `redact` holds JSON Pointers; one that is malformed redacts everything.
    #[must_use]
    pub fn new(raw: &RawValue, redact: &[String]) -> Self {
        let text = raw.get();
        let pointers: Vec<Vec<String>> = redact.iter().map(|pointer| tokens(pointer)).collect();
        let mut walk = Walk { rest: text, out: String::new(), redacted: 0, cut: 0, rewritten: 0 };
        let walked = walk.whole(&pointers).and_then(|()| RawValue::from_string(walk.out).ok());
        match walked {
            Some(value) => {
                let (redacted, cut, rewritten) = (walk.redacted, walk.cut, walk.rewritten);
                Self { value, bytes: size(text), redacted, cut, rewritten }
            }
            // A `RawValue` is valid JSON, so the walk got lost only if it is wrong itself: show nothing then.
            None => Self {
                value: RawValue::NULL.to_owned(),
                bytes: size(text),
                redacted: 0,
                cut: 1,
                rewritten: 0,
            },
        }
    }
}

/// The parts of a JSON Pointer (RFC 6901); none for one that is malformed, which then means the whole value.
fn tokens(pointer: &str) -> Vec<String> {
    match pointer.strip_prefix('/') {
        Some(path) => path.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect(),
        None => Vec::new(),
    }
}

/// Is one pointer at, above or beneath the other? In `place`, `*` is every element of an array.
pub(super) fn touches(redacted: &str, place: &str) -> bool {
    let like = |(one, other): (&String, &String)| one == other || other == "*";
    tokens(redacted).iter().zip(&tokens(place)).all(like)
}

fn size(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// An array or object that is open, and the pointers that lead into it.
struct Open<'p> {
    /// The next element's index; `None` for an object.
    index: Option<usize>,
    empty: bool,
    pointers: Vec<&'p [String]>,
}

impl Open<'_> {
    const fn close(&self) -> char {
        if self.index.is_some() { ']' } else { '}' }
    }
}

struct Walk<'t> {
    rest: &'t str,
    out: String,
    redacted: u64,
    cut: u64,
    rewritten: u64,
}

impl<'t> Walk<'t> {
    /// Copies the whole value. `None`: the text is not valid JSON.
    fn whole(&mut self, pointers: &[Vec<String>]) -> Option<()> {
        let mut open: Vec<Open<'_>> = Vec::new();
        self.value(pointers.iter().map(Vec::as_slice).collect(), &mut open)?;
        while let Some(top) = open.last_mut() {
            self.blank();
            if self.rest.starts_with(top.close()) {
                self.take(1)?;
                self.out.push(top.close());
                open.pop();
                continue;
            }
            if self.out.len() >= WHOLE_MOST {
                self.cut += 1;
                self.out.extend(open.iter().rev().map(Open::close));
                return Some(());
            }
            if !top.empty {
                self.rest = self.rest.strip_prefix(',')?;
                self.out.push(',');
            }
            top.empty = false;
            let key = match &mut top.index {
                Some(index) => {
                    let key = Some(index.to_string());
                    *index += 1;
                    key
                }
                None => self.key()?,
            };
            let inner = top
                .pointers
                .iter()
                .filter_map(|pointer| {
                    let (first, inner) = pointer.split_first()?;
                    (Some(first) == key.as_ref()).then_some(inner)
                })
                .collect();
            self.value(inner, &mut open)?;
        }
        self.blank();
        self.rest.is_empty().then_some(())
    }

    /// Copies one value; of an array or object only the beginning, which is then on top of `open`.
    fn value<'p>(&mut self, pointers: Vec<&'p [String]>, open: &mut Vec<Open<'p>>) -> Option<()> {
        self.blank();
        if pointers.iter().any(|pointer| pointer.is_empty()) {
            self.skip()?;
            self.redacted += 1;
            self.out.push_str(&format!("\"{REDACTED}\""));
            return Some(());
        }
        match self.rest.as_bytes().first()? {
            b'{' | b'[' if open.len() >= DEPTH_MOST => {
                let skipped = self.skip()?;
                self.cut += 1;
                self.out.push_str(&format!("\"[cut: {skipped} bytes]\""));
            }
            b'{' => {
                self.take(1)?;
                self.out.push('{');
                open.push(Open { index: None, empty: true, pointers });
            }
            b'[' => {
                self.take(1)?;
                self.out.push('[');
                open.push(Open { index: Some(0), empty: true, pointers });
            }
            b'"' => {
                let token = self.string()?;
                self.copy_string(token)?;
            }
            _ => {
                let token = self.scalar()?;
                self.copy_scalar(token);
            }
        }
        Some(())
    }

    /// Copies an object's key and the colon; gives the key, or nothing for one that no pointer can spell.
    fn key(&mut self) -> Option<Option<String>> {
        self.blank();
        let token = self.string()?;
        self.copy_string(token)?;
        self.blank();
        self.rest = self.rest.strip_prefix(':')?;
        self.out.push(':');
        Some(serde_json::from_str(token).ok())
    }

    /// Copies a string token, cut when it is long.
    fn copy_string(&mut self, token: &str) -> Option<()> {
        let mut text = token.get(1..token.len().checked_sub(1)?)?;
        let whole = text.len();
        let enough = self.out.len() + TEXT_MOST;
        self.out.push('"');
        while !text.is_empty() {
            if self.out.len() >= enough {
                self.cut += 1;
                self.out.push_str(&format!("…[cut: {whole} bytes]"));
                break;
            }
            // A piece without escapes may be copied as it is.
            let plain = text.find('\\').unwrap_or(text.len());
            if plain > 0 {
                let (piece, _) = text.split_at_checked(plain)?;
                let piece = start_of(piece, enough.saturating_sub(self.out.len()).max(4));
                self.out.push_str(piece);
                text = text.get(piece.len()..)?;
                continue;
            }
            let length = match surrogate(text) {
                None => {
                    if text.as_bytes().get(1)? == &b'u' {
                        6
                    } else {
                        2
                    }
                }
                Some(Surrogate::Pair) => 12,
                Some(Surrogate::Lone) => {
                    self.rewritten += 1;
                    self.out.push('\\');
                    6
                }
            };
            let (unit, after) = text.split_at_checked(length)?;
            self.out.push_str(unit);
            text = after;
        }
        self.out.push('"');
        Some(())
    }

    fn copy_scalar(&mut self, token: &str) {
        let word = matches!(token, "true" | "false" | "null");
        let start = start_of(token, TEXT_MOST);
        if start.len() < token.len() {
            self.cut += 1;
            self.out.push_str(&format!("\"{start}…[cut: {} bytes]\"", token.len()));
        } else if word || token.parse().is_ok_and(f64::is_finite) {
            self.out.push_str(token);
        } else {
            self.rewritten += 1;
            self.out.push_str(&format!("\"{token}\""));
        }
    }

    /// Goes past one value and tells how many bytes it has.
    fn skip(&mut self) -> Option<usize> {
        let before = self.rest.len();
        let mut depth = 0_usize;
        loop {
            self.blank();
            match self.rest.as_bytes().first()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.take(1)?;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.take(1)?;
                }
                b',' | b':' => {
                    self.take(1)?;
                    continue;
                }
                b'"' => {
                    self.string()?;
                }
                _ => {
                    self.scalar()?;
                }
            }
            if depth == 0 {
                return before.checked_sub(self.rest.len());
            }
        }
    }

    /// Takes a string token, quotes included.
    fn string(&mut self) -> Option<&'t str> {
        let bytes = self.rest.as_bytes();
        let mut at = 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes.get(at)? == &b'"' {
                return self.take(at + 1);
            }
            at += 2;
        }
    }

    /// Takes a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<&'t str> {
        let end = self.rest.find([',', ']', '}', ':', ' ', '\n', '\r', '\t']).unwrap_or(self.rest.len());
        if end == 0 { None } else { self.take(end) }
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn take(&mut self, bytes: usize) -> Option<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }
}

enum Surrogate {
    Pair,
    Lone,
}

/// Whether the text begins with a `\u` escape of a surrogate, and whether its other half follows.
fn surrogate(text: &str) -> Option<Surrogate> {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    match unit(text)? {
        0xd800..=0xdbff => match text.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => Some(Surrogate::Pair),
            _ => Some(Surrogate::Lone),
        },
        0xdc00..=0xdfff => Some(Surrogate::Lone),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
