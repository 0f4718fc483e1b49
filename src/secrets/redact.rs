//! Finds the forms of secrets in what a tool says, and puts their names there instead.
//!
//! A secret is found as it is, escaped in a JSON string (also in JSON within such a string), in base64 (each of the two
//! alphabets, at each of the three places in a group of bytes, also broken into lines), in hexadecimal and in percent-encoding; of
//! one with several lines each line by itself too. How bytes arrive in pieces does not change what becomes of them:
//! what may be the start of a form waits for what follows.
//!
//! Neighbours: [`super::units`] reads escapes, `session` lets everything through here. Never: lets a form pass because it
//! is in two pieces.

use std::sync::Arc;

use super::SHORTEST;
use super::units::{self, Unit};
use crate::sys::wiped::Wiped;

/// JSON within JSON within bytes.
const DEEPEST: u32 = 2;
/// What waits is looked at again with every piece as long as it is short, then when it has grown by an eighth: or who
/// writes single bytes would have all of it read for each.
const SHORT: usize = 512;

/// Line breaks between two characters of base64.
const BREAKS: usize = 2;
/// What a replacement takes along of what is before it, at most: a character and line breaks, each in percent-encoding of which all
/// is escaped in JSON within JSON.
const ALONG: usize = (1 + BREAKS) * 3 * r"\\u0025".len();

/// In which form a secret was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it is.
    Exact,
    /// One line of it.
    Line,
    /// With escapes of JSON.
    Json,
    /// In base64.
    Base64,
    /// In hexadecimal.
    Hex,
    /// With escapes of URLs.
    Url,
    /// The start of any of these, where the text ended.
    Part,
}

impl Form {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Line => "line",
            Self::Json => "json",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Url => "url",
            Self::Part => "part",
        }
    }
}

/// One replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Which secret, by its place in what [`Forms::new`] was given.
    pub secret: usize,
    /// In which form.
    pub form: Form,
}

/// One form of one secret.
#[derive(Debug)]
struct Pattern {
    secret: usize,
    form: Form,
    bytes: Wiped,
    /// The character before, or behind, holds some of the secret's bits and some of a neighbour's.
    before: bool,
    behind: bool,
}

/// All forms of some secrets.
#[derive(Debug)]
pub struct Forms {
    /// What is put in a secret's place.
    marks: Vec<String>,
    patterns: Vec<Pattern>,
    /// By the byte that a form can begin with.
    by_first: Vec<Vec<usize>>,
}

/// When more of a text comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Soon,
    /// Nobody knows when: what does not begin a form is not kept waiting.
    Later,
    Never,
}

/// How a form fits at a place.
enum Fit {
    No,
    Yes {
        end: usize,
        escaped: bool,
    },
    /// So far, as the text goes: so many of its bytes.
    More {
        matched: usize,
        escaped: bool,
    },
}

enum Found {
    No,
    More,
    Yes { end: usize, hit: Hit, before: bool },
}

impl Forms {
    /// The forms of secrets, each with its name.
    pub fn new<'s>(secrets: impl IntoIterator<Item = (&'s str, &'s [u8])>) -> Self {
        let (mut marks, mut patterns) = (Vec::new(), Vec::new());
        for (secret, (name, value)) in secrets.into_iter().enumerate() {
            marks.push(format!("[redacted:{name}]"));
            let mut add = |form, bytes: Wiped, before, behind| {
                patterns.push(Pattern { secret, form, bytes, before, behind });
            };
            let copy = |bytes: &[u8]| {
                let mut copy = Wiped::with_room(bytes.len());
                copy.extend(bytes);
                copy
            };
            add(Form::Exact, copy(value), false, false);
            add(Form::Url, copy(value), false, false);
            add(Form::Hex, hex(value), false, false);
            for place in 0..3 {
                let (bytes, behind) = base64(value, place);
                add(Form::Base64, bytes, place != 0, behind);
            }
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            for line in lines.filter(|line| line.len() >= SHORTEST && line.len() < value.len()) {
                add(Form::Line, copy(line), false, false);
            }
        }
        let mut by_first = vec![Vec::new(); 256];
        for (number, pattern) in patterns.iter().enumerate() {
            for (byte, list) in (0..=u8::MAX).zip(&mut by_first) {
                if pattern.may_begin_with(byte) {
                    list.push(number);
                }
            }
        }
        Self { marks, patterns, by_first }
    }

    /// A whole text with names in place of secrets; nothing, if there are none in it.
    #[must_use]
    pub fn once(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut hits) = (Vec::new(), Vec::new());
        self.scan(text, Next::Never, &mut Json::None, &mut out, &mut hits);
        (!hits.is_empty()).then_some(out)
    }

    /// The same for a line of JSON, in which every replacement is part of a string.
    pub fn line(&self, line: &[u8], hits: &mut Vec<Hit>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let before = hits.len();
        self.scan(line, Next::Never, &mut Json::start(), &mut out, hits);
        (hits.len() > before).then_some(out)
    }

    /// Writes what can be decided, and says how many bytes that was.
    fn scan(
        &self,
        data: &[u8],
        next: Next,
        json: &mut Json,
        out: &mut Vec<u8>,
        hits: &mut Vec<Hit>,
    ) -> usize {
        let last = next == Next::Never;
        let (mut at, mut copied) = (0, 0);
        // As it was where `copied` is.
        let mut then = *json;
        let upto = |from: usize, to: usize| data.get(from..to).unwrap_or_default();
        while let Some(&byte) = data.get(at) {
            let candidates = self.by_first.get(usize::from(byte)).map_or(&[][..], Vec::as_slice);
            let found = if candidates.is_empty() { Found::No } else { self.best(candidates, data, at, last) };
            match found {
                Found::No => {
                    json.step(byte);
                    at += 1;
                }
                Found::More => break,
                Found::Yes { end, hit, before } => {
                    let text = upto(copied, at);
                    let along = match json.begun() {
                        0 if before => shared(text, then),
                        // A replacement behind half of an escape would be no JSON.
                        begun => begun,
                    };
                    out.extend_from_slice(upto(copied, at.saturating_sub(along).max(copied)));
                    let mark = self.marks.get(hit.secret).map_or("[redacted]", String::as_str);
                    let quote: &[u8] = if json.is_outside() { b"\"" } else { b"" };
                    [quote, mark.as_bytes(), quote].iter().for_each(|part| out.extend_from_slice(part));
                    json.replaced();
                    then = *json;
                    hits.push(hit);
                    (at, copied) = (end, end);
                }
            }
        }
        if !last {
            let along = if next == Next::Soon { ALONG } else { 0 };
            at = at.saturating_sub(along).max(copied);
            upto(copied, at).iter().for_each(|byte| then.step(*byte));
            *json = then;
        }
        out.extend_from_slice(upto(copied, at));
        at
    }

    /// The longest form that begins here.
    fn best(&self, candidates: &[usize], data: &[u8], at: usize, last: bool) -> Found {
        let mut found: Option<(usize, Hit, bool)> = None;
        let mut open: Option<(usize, usize)> = None;
        for pattern in candidates.iter().filter_map(|number| self.patterns.get(*number)) {
            for depth in (0..=DEEPEST).rev() {
                let escaped = match pattern.fit(data, at, depth, last) {
                    Fit::No => true,
                    Fit::Yes { end, escaped } => {
                        let form = match pattern.form {
                            Form::Exact | Form::Line if escaped => Form::Json,
                            form => form,
                        };
                        if found.is_none_or(|(known, ..)| end > known) {
                            found = Some((end, Hit { secret: pattern.secret, form }, pattern.before));
                        }
                        escaped
                    }
                    Fit::More { matched, escaped } => {
                        if open.is_none_or(|(known, _)| matched > known) {
                            open = Some((matched, pattern.secret));
                        }
                        escaped
                    }
                };
                if !escaped {
                    // Without an escape every depth reads the same.
                    break;
                }
            }
        }
        match (found, open) {
            (_, Some(_)) if !last => Found::More,
            (Some((end, hit, before)), _) => Found::Yes { end, hit, before },
            (None, Some((matched, secret))) if matched >= SHORTEST => {
                Found::Yes { end: data.len(), hit: Hit { secret, form: Form::Part }, before: false }
            }
            (None, _) => Found::No,
        }
    }
}

impl Pattern {
    fn may_begin_with(&self, byte: u8) -> bool {
        let Some(&first) = self.bytes.first() else { return false };
        let own = match self.form {
            Form::Hex => byte.to_ascii_lowercase() == first,
            Form::Base64 => units::base64_alphabet(byte) == first || byte == b'%',
            Form::Url => byte == first || byte == b'%' || (byte == b'+' && first == b' '),
            Form::Exact | Form::Line | Form::Json | Form::Part => byte == first,
        };
        // An escape can stand for any.
        own || byte == b'\\'
    }

    /// Whether the form is at this place, with so many layers of JSON's escapes taken off.
    fn fit(&self, data: &[u8], at: usize, depth: u32, last: bool) -> Fit {
        let (mut end, mut matched, mut escaped, mut breaks) = (at, 0, false, 0);
        while let Some(wanted) = self.bytes.get(matched..).filter(|rest| !rest.is_empty()) {
            let unit = match self.form {
                Form::Url | Form::Base64 => units::percent(data, end, depth),
                Form::Exact | Form::Line | Form::Json | Form::Hex | Form::Part => units::at(data, end, depth),
            };
            let Some(Unit { bytes, length, next, escaped: by_escape }) = unit else {
                return Fit::More { matched, escaped: escaped || data.get(end) == Some(&b'\\') };
            };
            escaped |= by_escape;
            let read = bytes.get(..length).unwrap_or_default();
            let fits = match (self.form, read) {
                (Form::Base64, [b'\n' | b'\r']) if matched > 0 && breaks < BREAKS => {
                    breaks += 1;
                    end = next;
                    continue;
                }
                (Form::Base64, [byte]) => wanted.first() == Some(&units::base64_alphabet(*byte)),
                (Form::Hex, [byte]) => wanted.first() == Some(&byte.to_ascii_lowercase()),
                (Form::Url, [b'+']) if wanted.first() == Some(&b' ') => true,
                _ => wanted.starts_with(read),
            };
            if !fits {
                return Fit::No;
            }
            breaks = 0;
            matched += length;
            end = next;
        }
        let (mut place, mut breaks) = (end, 0);
        while self.behind && breaks <= BREAKS {
            match units::percent(data, place, depth) {
                Some(Unit { bytes: [b'\n' | b'\r', ..], next, .. }) => {
                    breaks += 1;
                    place = next;
                }
                Some(Unit { bytes: [byte, ..], length: 1, next, .. }) if units::is_base64(byte) => {
                    end = next;
                    break;
                }
                None if !last => return Fit::More { matched, escaped },
                _ => break,
            }
        }
        Fit::Yes { end, escaped }
    }
}

/// How many of the last bytes of a text are the character of base64 that shares bits with what follows, however it is written, and the
/// line breaks behind it; `json` is how things stand where the text begins.
fn shared(text: &[u8], mut json: Json) -> usize {
    let first = text.len().saturating_sub(ALONG);
    let is_shared = |start: usize, depth: u32| {
        let mut next = match units::percent(text, start, depth) {
            Some(Unit { bytes: [byte, ..], length: 1, next, .. }) if units::is_base64(byte) => next,
            _ => return false,
        };
        for _ in 0..BREAKS {
            match units::percent(text, next, depth) {
                Some(Unit { bytes: [b'\n' | b'\r', ..], next: behind, .. }) => next = behind,
                _ => break,
            }
        }
        next == text.len()
    };
    for (place, byte) in text.iter().enumerate() {
        // Of what can be read in more than one way the longest goes, and of an escape of JSON all of it or nothing.
        if place >= first && json.begun() == 0 && (0..=DEEPEST).any(|depth| is_shared(place, depth)) {
            return text.len() - place;
        }
        json.step(*byte);
    }
    0
}

/// Whether a place in a line of JSON is inside a string.
#[derive(Debug, Clone, Copy)]
enum Json {
    /// No JSON.
    None,
    Outside,
    Inside,
    /// Inside, behind a backslash.
    Escaping,
    /// Inside, behind `\u` and so many of its digits.
    Digits(usize),
}

impl Json {
    const fn start() -> Self {
        Self::Outside
    }

    const fn step(&mut self, byte: u8) {
        *self = match (*self, byte) {
            (Self::Escaping, b'u') => Self::Digits(0),
            (Self::Digits(read @ 0..3), digit) if digit.is_ascii_hexdigit() => Self::Digits(read + 1),
            (Self::Digits(3), digit) if digit.is_ascii_hexdigit() => Self::Inside,
            (Self::Outside, b'"') | (Self::Escaping, _) => Self::Inside,
            // Digits that are none are no escape.
            (Self::Inside | Self::Digits(_), b'"') => Self::Outside,
            (Self::Inside | Self::Digits(_), b'\\') => Self::Escaping,
            (Self::Digits(_), _) => Self::Inside,
            (same, _) => same,
        };
    }

    const fn replaced(&mut self) {
        if self.begun() > 0 {
            *self = Self::Inside;
        }
    }

    /// So many bytes of an escape that is not whole.
    const fn begun(self) -> usize {
        match self {
            Self::None | Self::Outside | Self::Inside => 0,
            Self::Escaping => 1,
            Self::Digits(read) => 2 + read,
        }
    }

    const fn is_outside(self) -> bool {
        matches!(self, Self::Outside)
    }
}

/// A text that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    forms: Arc<Forms>,
    /// How often what there is was looked through.
    #[cfg(test)]
    scans: usize,
    held: Wiped,
    /// What is held is looked at again when there is so much of it.
    again: usize,
    json: Json,
}

impl Stream {
    /// A line of JSON.
    #[must_use]
    pub fn of_line(forms: &Arc<Forms>) -> Self {
        Self {
            forms: Arc::clone(forms),
            #[cfg(test)]
            scans: 0,
            held: Wiped::default(),
            again: 0,
            json: Json::start(),
        }
    }

    /// Any text.
    #[must_use]
    pub fn of_text(forms: &Arc<Forms>) -> Self {
        Self { json: Json::None, ..Self::of_line(forms) }
    }

    /// Takes a piece, and adds to `out` what is decided by now: at the `last` piece all of it.
    pub fn push(&mut self, piece: &[u8], last: bool, out: &mut Vec<u8>, hits: &mut Vec<Hit>) {
        let next = if last { Next::Never } else { Next::Soon };
        if self.held.is_empty() {
            let done = self.forms.scan(piece, next, &mut self.json, out, hits);
            self.held.extend(piece.get(done..).unwrap_or_default());
        } else {
            self.held.extend(piece);
            if !last && self.held.len() < self.again {
                return;
            }
            #[cfg(test)]
            {
                self.scans += 1;
            }
            let done = self.forms.scan(&self.held, next, &mut self.json, out, hits);
            self.held.drop_first(done);
        }
        let length = self.held.len();
        self.again = if length < SHORT { 0 } else { length + length / 8 };
    }

    /// Nothing has come for a while: adds all that is not the beginning of a form.
    pub fn settle(&mut self, out: &mut Vec<u8>, hits: &mut Vec<Hit>) {
        let done = self.forms.scan(&self.held, Next::Later, &mut self.json, out, hits);
        self.held.drop_first(done);
        self.again = 0;
    }
}

fn hex(value: &[u8]) -> Wiped {
    let mut hex = Wiped::with_room(value.len() * 2);
    for byte in value {
        let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        hex.extend(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    hex
}

/// The characters that stand for nothing but bits of the value where it begins at this place of a group of three bytes,
/// and whether there are bits left for one more.
fn base64(value: &[u8], place: usize) -> (Wiped, bool) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (first, end) = ((place * 8).div_ceil(6), (place + value.len()) * 8 / 6);
    let bit = |at: usize| {
        let byte = (at / 8).checked_sub(place).and_then(|byte| value.get(byte)).copied().unwrap_or(0);
        byte >> (7 - at % 8) & 1
    };
    let mut text = Wiped::with_room(end.saturating_sub(first));
    for character in first..end {
        let six = (0..6).fold(0, |six, at| six << 1 | bit(character * 6 + at));
        text.extend(&[ALPHABET.get(usize::from(six)).copied().unwrap_or(b'A')]);
    }
    (text, !((place + value.len()) * 8).is_multiple_of(6))
}

#[cfg(test)]
mod tests;
