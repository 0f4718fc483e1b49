//! `toolcell audit verify`: says of a log whether it is what was written, and which line is not.
//!
//! Neighbours: `audit::Reader` finds it. Never: believes what a line says of itself.

use std::fmt::Write as _;
use std::io::BufReader;
use std::path::Path;

use serde_json::json;

use super::{open_to_read, unreadable};
use crate::audit::{Place, Reader, Verdict};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::tokens::to_hex;
use crate::text::escape;

pub(super) fn run(path: &Path, json: bool) -> Result<Ending, Failure> {
    let mut reader = Reader::default();
    let file = open_to_read(path)?;
    reader.read(BufReader::with_capacity(1 << 18, file)).map_err(|error| unreadable(path, error))?;
    let verdict = reader.verdict();
    let names = [path.display().to_string()];
    let text = if json { as_json(&verdict, &names) } else { as_text(&verdict, &names) };
    super::super::print(text.as_bytes())?;
    Ok(if verdict.findings.is_empty() { Ending::Success } else { Ending::Altered })
}

fn as_text(verdict: &Verdict, names: &[String]) -> String {
    let Verdict { records, last, findings, torn, unfinished } = verdict;
    let name = |place: &Place| escape(names.get(place.file).map_or("", String::as_str)).into_owned();
    let mut text = String::new();
    let mut add = |place: &Place, what: &str| {
        let _infallible = writeln!(text, "{}:{}: {what}", name(place), place.line);
    };
    for finding in findings {
        add(&finding.place, &finding.wrong.sentence());
    }
    for (place, bytes) in torn {
        add(place, &format!("note: an unfinished line; a later start found it, in {bytes} bytes"));
    }
    if let Some(place) = unfinished {
        add(place, "note: an unfinished line; the next record will say that it was found");
    }
    let state = if findings.is_empty() { "as it was written" } else { "NOT as it was written" };
    let _infallible =
        writeln!(text, "{records} records, {state}; the last is {} {}", last.number, to_hex(&last.hash));
    text
}

fn as_json(verdict: &Verdict, names: &[String]) -> String {
    let Verdict { records, last, findings, torn, unfinished } = verdict;
    let at = |place: &Place| json!({ "file": names.get(place.file), "line": place.line });
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            let mut told =
                json!({ "file": names.get(finding.place.file), "sentence": finding.wrong.sentence() });
            let own = serde_json::to_value(finding).unwrap_or_default();
            if let (Some(told), Some(own)) = (told.as_object_mut(), own.as_object()) {
                told.extend(own.clone());
            }
            told
        })
        .collect();
    let torn: Vec<_> = torn.iter().map(|(place, bytes)| json!({ "at": at(place), "bytes": bytes })).collect();
    let value = json!({
        "records": records,
        "last": { "number": last.number, "hash": to_hex(&last.hash) },
        "findings": findings,
        "torn": torn,
        "unfinished": unfinished.as_ref().map(at),
    });
    format!("{value}\n")
}
