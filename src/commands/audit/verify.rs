//! `toolcell audit verify`: says of a log whether it is what was written, and which line is not.
//!
//! Neighbours: `audit::Reader` finds it. Never: believes what a line says of itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufReader};
use std::path::Path;

use serde_json::json;

use super::{BadValue, open_all, own_key, state_directory, unreadable};
use crate::audit::{self, Hash, Known, Link, Place, Public, Reader, Signed, Verdict, beside, to_line};
use crate::cli::Typed;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::tokens::{from_hex, to_hex};
use crate::text::escape;

/// Verifies one log. `key` and `known` are what was typed for them.
pub(super) fn run(
    path: &Path,
    key: Option<&Typed>,
    known: Option<&Typed>,
    json: bool,
) -> Result<Ending, Failure> {
    const KEY: &str = "64 hexadecimal digits, as `toolcell audit key` prints them";
    const LINK: &str =
        "a number, a colon and 64 hexadecimal digits, as `toolcell audit verify` prints the last record";
    let known = Known {
        key: key.map_or_else(installed, |typed| parsed(typed, KEY, hash).map(Some))?,
        link: known.map(|typed| parsed(typed, LINK, link)).transpose()?,
    };
    let mut reader = Reader::default();
    let mut paths = Vec::new();
    for (path, file) in open_all(path)? {
        reader.read(BufReader::with_capacity(1 << 18, file)).map_err(|error| unreadable(&path, error))?;
        paths.push(path);
    }
    let beside = beside(path);
    let kept = match fs::read(&beside) {
        Ok(kept) => Some(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(&beside, error)),
    };
    reader.read_kept(kept.as_deref());
    let verdict = reader.verdict(known);
    paths.push(beside);
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let text = if json { as_json(&verdict, &names) } else { as_text(&verdict, &names).into_bytes() };
    super::super::print(&text)?;
    Ok(if verdict.findings.is_empty() { Ending::Success } else { Ending::Altered })
}

/// The key of this installation, where it has one. None is made: it could have signed nothing.
fn installed() -> Result<Option<Public>, Failure> {
    match state_directory() {
        Some(directory) if directory.join(audit::KEY).exists() => Ok(own_key()?.map(|key| key.public())),
        _ => Ok(None),
    }
}

fn parsed<T>(typed: &Typed, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
    parse(&typed.text).ok_or_else(|| {
        let error = BadValue { option: typed.option, text: typed.text.clone() };
        Failure::new(Ending::Usage, error).hint(Some(format!("write {wanted}")))
    })
}

fn hash(text: &str) -> Option<Hash> {
    from_hex(text)?.try_into().ok()
}

fn link(text: &str) -> Option<Link> {
    let (number, digits) = text.split_once(':')?;
    Some(Link { number: number.parse().ok().filter(|number| *number > 0)?, hash: hash(digits)? })
}

fn as_text(verdict: &Verdict, names: &[String]) -> String {
    let Verdict { records, before, last, findings, torn, unfinished, signed, unsigned } = verdict;
    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{line}");
    };
    let at = |place: &Place| {
        let name = names.get(place.file).map_or("", String::as_str);
        format!("{}:{}", escape(name), place.line)
    };
    for finding in findings {
        say(format_args!("{}: {}", at(&finding.place), finding.wrong.sentence()));
    }
    for (place, bytes) in torn {
        say(format_args!(
            "{}: note: an unfinished line; a later start found it, in {bytes} bytes",
            at(place)
        ));
    }
    if let Some(place) = unfinished {
        say(format_args!(
            "{}: note: an unfinished line; the next record will say that it was found",
            at(place)
        ));
    }
    let state = if findings.is_empty() { "as it was written" } else { "NOT as it was written" };
    say(format_args!("{records} records, {state}; the last is {}:{}", last.number, to_hex(&last.hash)));
    if *before > 0 {
        say(format_args!("records 1 to {before} are in earlier files, which are not here"));
    }
    if let Some(Signed { number, time, key }) = signed {
        say(format_args!("signed up to record {number}, at {}, by {}", escape(time), escape(key)));
    }
    if *unsigned > 0 {
        let after = if signed.is_some() { "after the last checkpoint" } else { "and no checkpoint" };
        say(format_args!("{unsigned} records {after}: chained, not signed"));
    }
    text
}

fn as_json(verdict: &Verdict, names: &[String]) -> Vec<u8> {
    let Verdict { records, before, last, findings, torn, unfinished, signed, unsigned } = verdict;
    let at = |place: &Place| json!({ "file": names.get(place.file), "line": place.line });
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({ "at": at(&finding.place), "found": finding.wrong, "sentence": finding.wrong.sentence() })
        })
        .collect();
    let torn: Vec<_> = torn.iter().map(|(place, bytes)| json!({ "at": at(place), "bytes": bytes })).collect();
    let value = json!({
        "records": records,
        "before": before,
        "last": { "number": last.number, "hash": to_hex(&last.hash) },
        "signed": signed,
        "unsigned": unsigned,
        "findings": findings,
        "torn": torn,
        "unfinished": unfinished.as_ref().map(at),
    });
    // Without what could paint or reorder, like the log.
    to_line(&value).unwrap_or_default()
}
