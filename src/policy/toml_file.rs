//! Reads a TOML text strictly: every key known, every value of the right kind, every mistake noted with its place.
//!
//! Neighbours: `policy::profile` and `policy::config` say which keys there are. Never: opens a file, stops at the
//! first mistake.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::literal::{self, Literal};
use super::mistakes::{Mistake, Spot, closest};
use super::units::{parse_duration, print_duration};

/// A value with its place in the text.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The profile's name, or the file's stem.
    pub name: String,
    /// The file; `None` for a text that is compiled in.
    pub path: Option<PathBuf>,
    /// Its content.
    pub text: String,
}

impl Source {
    /// How the source is called in messages.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => format!("profiles/{}.toml (built in)", self.name),
        }
    }

    /// The directory that `{config}` stands for.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.path.as_deref().and_then(Path::parent)
    }
}

/// A text being read, with the mistakes found so far.
pub(super) struct TomlFile<'s> {
    pub(super) source: &'s Source,
    label: String,
    /// The text as it may be shown: with nothing in place of what looks like a credential,
    shown: Cow<'s, str>,
    /// which is any of these.
    hidden: Vec<String>,
    mistakes: Vec<(Range<usize>, Mistake)>,
    broken_lines: Vec<usize>,
    sections: &'static [(&'static str, &'static [&'static str])],
}

impl<'s> TomlFile<'s> {
    /// Parses the text. Broken syntax is noted, and what can still be read is given. `sections` are all
    /// sections with their keys, for hints.
    pub(super) fn open(
        source: &'s Source,
        sections: &'static [(&'static str, &'static [&'static str])],
    ) -> (Self, DeTable<'s>) {
        let label = source.label();
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        // What is compiled in has none.
        let literals =
            source.path.as_ref().map(|_| literal::find(&source.text, table.get_ref())).unwrap_or_default();
        let mut file = Self {
            source,
            label,
            shown: without(&source.text, &literals),
            hidden: literals.iter().flat_map(Literal::parts).map(str::to_owned).collect(),
            mistakes: Vec::new(),
            broken_lines: Vec::new(),
            sections,
        };
        for literal in literals {
            let message = format!("{} stands here for everybody to read", literal.what);
            let hint = file.without_hidden(&literal.hint);
            let mistake = Mistake::new(file.spot(&literal.range), &message, Some(&hint));
            file.mistakes.push((literal.range, mistake));
        }
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let mistake = Mistake::new(file.spot(&span), &lowercase_first(error.message()), None);
            if !file.broken_lines.contains(&mistake.spot.line) {
                file.broken_lines.push(mistake.spot.line);
                file.mistakes.push((span, mistake));
            }
        }
        (file, table.into_inner())
    }

    /// The mistakes in the order of the text.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|(span, _)| (span.start, span.end));
        self.mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }

    /// No mistake has been noted so far.
    pub(super) const fn is_right(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub(super) fn spot(&self, span: &Range<usize>) -> Spot {
        Spot::new(&self.label, &self.shown, span)
    }

    /// Notes a mistake. On a line with broken syntax only that is reported, and the parser's stand-in for a
    /// value that is missing has no place: what was made of the rest is a guess.
    pub(super) fn mistake(&mut self, span: &Range<usize>, message: &str, hint: Option<&str>) {
        let [message, hint] = [Some(message), hint].map(|text| text.map(|text| self.without_hidden(text)));
        let mistake = Mistake::new(self.spot(span), &message.unwrap_or_default(), hint.as_deref());
        let guess = !self.broken_lines.is_empty()
            && (span.is_empty() || self.broken_lines.contains(&mistake.spot.line));
        if !guess {
            self.mistakes.push((span.clone(), mistake));
        }
    }

    /// A text that may quote the file, without what is hidden.
    fn without_hidden(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden, "[not shown]"))
    }

    /// A table's entries whose keys are known; the others are noted.
    pub(super) fn entries<'t, 'i>(
        &mut self,
        table: &'t DeTable<'i>,
        place: &str,
        known: &[&str],
    ) -> Vec<(&'t str, Range<usize>, &'t Value<'i>)> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                entries.push((name, key.span(), value));
                continue;
            }
            let kind = if value.get_ref().is_table() && place.is_empty() { "section" } else { "key" };
            let message = match place {
                "" => format!("unknown {kind} `{name}`"),
                place => format!("unknown {kind} `{name}` in {place}"),
            };
            let home =
                self.sections.iter().find(|(_, keys)| keys.contains(&name)).map(|(section, _)| *section);
            let hint = match (home, closest(name, known.iter().copied())) {
                (Some(""), _) => format!("`{name}` stands at the top, before the first section"),
                (Some(section), _) => format!("`{name}` stands in `[{section}]`"),
                (None, Some(meant)) => format!("did you mean `{meant}`?"),
                (None, None) => format!("known here: {}", list(known)),
            };
            self.mistake(&key.span(), &message, Some(&hint));
        }
        entries
    }

    /// Notes that a value is of the wrong kind.
    pub(super) fn wrong_kind(&mut self, value: &Value<'_>, name: &str, wanted: &str) {
        let article =
            if matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        let message = format!("{name} must be {wanted}, not {article} {}", value.get_ref().type_str());
        self.mistake(&value.span(), &message, None);
    }

    pub(super) fn table<'t, 'i>(&mut self, value: &'t Value<'i>, name: &str) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_kind(value, name, "a table");
        }
        table
    }

    pub(super) fn text<'t>(&mut self, value: &'t Value<'_>, name: &str) -> Option<&'t str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_kind(value, name, "a string");
        }
        text
    }

    /// One line of text for people.
    pub(super) fn line(&mut self, value: &Value<'_>, name: &str) -> Option<String> {
        let text = self.text(value, name)?;
        if text.chars().any(char::is_control) {
            self.mistake(&value.span(), &format!("{name} must be one line without control characters"), None);
            return None;
        }
        Some(text.to_owned())
    }

    /// The name of a profile that there is.
    pub(super) fn profile(&mut self, value: &Value<'_>, profiles: &BTreeSet<String>) -> Option<String> {
        let name = self.text(value, "`profile`")?;
        if profiles.contains(name) {
            return Some(name.to_owned());
        }
        let known = profiles.iter().map(String::as_str);
        let hint = closest(name, known).map(|meant| format!("did you mean `{meant}`?"));
        self.mistake(&value.span(), &format!("no profile `{name}`"), hint.as_deref());
        None
    }

    pub(super) fn items<'t, 'i>(&mut self, value: &'t Value<'i>, name: &str) -> &'t [Value<'i>] {
        match value.get_ref().as_array() {
            Some(array) => array,
            None => {
                self.wrong_kind(value, name, "an array");
                &[]
            }
        }
    }

    /// A time such as `10m`.
    pub(super) fn duration(
        &mut self,
        value: &Value<'_>,
        name: &str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.text(value, name)?;
        match parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Some(duration),
            Ok(_) => {
                let (least, most) = (print_duration(*range.start()), print_duration(*range.end()));
                let hint = format!("from `{least}` to `{most}`");
                self.mistake(&value.span(), &format!("{name} of `{text}` is out of range"), Some(&hint));
                None
            }
            Err(error) => {
                self.mistake(&value.span(), &error.to_string(), error.hint().as_deref());
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn count(
        &mut self,
        value: &Value<'_>,
        name: &str,
        range: &RangeInclusive<u32>,
    ) -> Option<u32> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_kind(value, name, "a whole number");
            return None;
        };
        let count = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        if count.is_none() {
            let hint = format!("from {} to {}", range.start(), range.end());
            self.mistake(&value.span(), &format!("{name} of `{number}` is out of range"), Some(&hint));
        }
        count
    }
}

/// The text with `*` for every character of these, so that all others stay where they are.
fn without<'t>(text: &'t str, literals: &[Literal]) -> Cow<'t, str> {
    if literals.is_empty() {
        return Cow::Borrowed(text);
    }
    let hidden = |at: usize| literals.iter().any(|literal| literal.range.contains(&at));
    let shown = text.char_indices().flat_map(|(at, character)| {
        // As many bytes, because places are counted in bytes.
        let stars = if hidden(at) && !character.is_ascii_control() { character.len_utf8() } else { 0 };
        std::iter::repeat_n('*', stars).chain(Some(character).filter(|_| stars == 0))
    });
    Cow::Owned(shown.collect())
}

fn lowercase_first(text: &str) -> String {
    let mut chars = text.trim_end().chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// `a`, `b` and `c`, each in backticks.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
