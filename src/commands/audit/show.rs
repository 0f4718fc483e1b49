//! `toolcell audit show`: one line for each call that ended, or the records themselves.
//!
//! Neighbours: `audit` has the records; what `stats` and `report` count is chosen here too. Never: prints what a record
//! says without escaping it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::value::RawValue;

use super::{BadValue, open_all, unreadable};
use crate::audit::{
    Alerted, Finished, Quarantined, caller_of, is_elsewhere, open_to_read, status_name, to_line, tool_of,
};
use crate::cli::{Chosen, ColorChoice, Typed};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::outcome::{Connection, Limit, Violation};
use crate::policy::limits;
use crate::policy::units::print_size;
use crate::sys::observe;
use crate::text::escape;

/// A record that is shown and counted.
pub(super) enum Entry {
    Call(Box<Finished>),
    Alert(Box<Alerted>),
    Step(Box<Quarantined>),
}

impl Entry {
    /// Of a line. `None`: it is another record. An error: it is none.
    fn of(line: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        Ok(match serde_json::from_slice::<Event<'_>>(line)?.event {
            "finished" => Some(Self::Call(serde_json::from_slice(line)?)),
            "alert" => Some(Self::Alert(serde_json::from_slice(line)?)),
            "quarantine" => Some(Self::Step(serde_json::from_slice(line)?)),
            _other => None,
        })
    }
}

/// Which records are wanted.
pub(super) struct Filter<'a> {
    chosen: &'a Chosen,
}

impl<'a> Filter<'a> {
    /// From what was typed.
    pub(super) fn new(chosen: &'a Chosen) -> Result<Self, Failure> {
        for typed in chosen.since.iter().chain(&chosen.until) {
            if !is_time(&typed.text) {
                let error = BadValue { option: typed.option, text: typed.text.clone() };
                let hint =
                    "write a time in UTC or the beginning of one, such as 2026-11-22 or 2026-11-22T14:05";
                return Err(Failure::new(Ending::Usage, error).hint(Some(hint.to_owned())));
            }
        }
        Ok(Self { chosen })
    }

    /// Whether a record is one of them. What is asked of calls alone, no alert and no step is.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        let Chosen { tool, status, identity, violation, destination, .. } = self.chosen;
        let of_calls = status.is_some() || violation.is_some() || destination.is_some();
        match entry {
            Entry::Call(record) => {
                is(tool, tool_of(record))
                    && is(status, status_name(&record.status))
                    && is(identity, caller_of(record))
                    && violation
                        .as_deref()
                        .is_none_or(|wanted| record.violations.iter().any(|one| is_called(one, wanted)))
                    && destination.as_deref().is_none_or(|wanted| reached(record, wanted))
                    && self.is_then(&record.time)
            }
            Entry::Alert(record) => {
                !of_calls
                    && is(tool, &record.alert.tool)
                    && is(identity, &record.alert.who)
                    && self.is_then(&record.time)
            }
            Entry::Step(record) => {
                !of_calls && identity.is_none() && is(tool, &record.tool) && self.is_then(&record.time)
            }
        }
    }

    /// Whether a time is between those that are wanted.
    fn is_then(&self, time: &str) -> bool {
        let text = |typed: &'a Option<Typed>| typed.as_ref().map(|typed| typed.text.as_str());
        let Chosen { since, until, .. } = self.chosen;
        text(since).is_none_or(|since| time >= since)
            // The beginning of a time means all of what begins so.
            && text(until).is_none_or(|until| time <= until || time.starts_with(until))
    }
}

/// Whether this is how a time of a record begins.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000000Z";
    let fits = |(byte, like): (u8, u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    (4..=form.len()).contains(&text.len()) && text.bytes().zip(form.bytes()).all(fits)
}

/// By its layer, or by its limit.
fn is_called(violation: &Violation, name: &str) -> bool {
    violation.layer.name() == name || violation.limit.is_some_and(|limit| limit.name() == name)
}

/// Whether a connection led there: to a door, or to a host at whatever port.
fn reached(record: &Finished, wanted: &str) -> bool {
    let mut all = record.traffic.iter().flat_map(|traffic| &traffic.connections);
    all.any(|one| one.to == wanted || one.to.rsplit_once(':').is_some_and(|(host, _)| host == wanted))
}

/// Gives the records of all files of a log to `take`, with the line of each, and leaves the last file open
/// behind its last whole line. Returns how many lines are no records.
pub(super) fn read_all(
    log: &Path,
    mut take: impl FnMut(Entry, &[u8]) -> Result<(), Failure>,
) -> Result<(u64, BufReader<File>), Failure> {
    let mut strange = 0;
    let mut last = None;
    for (path, file) in open_all(log)? {
        let mut file = BufReader::new(file);
        strange += read(&mut file, &mut Vec::new(), &mut take).map_err(|error| error.of(&path))?;
        last = Some(file);
    }
    // The log itself is always among them.
    let last = last.ok_or_else(|| unreadable(log, io::ErrorKind::NotFound.into()))?;
    Ok((strange, last))
}

enum Stopped {
    Reading(io::Error),
    Taking(Failure),
}

impl Stopped {
    fn of(self, path: &Path) -> Failure {
        match self {
            Self::Reading(error) => unreadable(path, error),
            Self::Taking(failure) => failure,
        }
    }
}

/// Reads lines up to the end; `begun` is the beginning of the first, and afterwards of the next.
fn read(
    file: &mut impl BufRead,
    begun: &mut Vec<u8>,
    take: &mut impl FnMut(Entry, &[u8]) -> Result<(), Failure>,
) -> Result<u64, Stopped> {
    let mut strange = 0;
    while file.read_until(b'\n', begun).map_err(Stopped::Reading)? > 0 && begun.ends_with(b"\n") {
        match Entry::of(begun) {
            Ok(Some(entry)) => take(entry, begun).map_err(Stopped::Taking)?,
            Ok(None) => {}
            Err(_no_record) => strange += 1,
        }
        begun.clear();
    }
    Ok(strange)
}

#[derive(serde::Deserialize)]
struct Event<'a> {
    event: &'a str,
}

pub(super) fn run(
    log: &Path,
    chosen: &Chosen,
    follow: bool,
    json: bool,
    color: ColorChoice,
) -> Result<Ending, Failure> {
    let filter = Filter::new(chosen)?;
    // Watched before it is read, so that nothing is missed in between.
    let mut writes = follow.then(|| watch(log)).transpose()?;
    let mut show = |entry: Entry, line: &[u8]| {
        if filter.takes(&entry) {
            let text = if json { again(line) } else { format!("{}\n", sentence(&entry)).into_bytes() };
            super::super::print(&text)?;
        }
        Ok(())
    };
    let (strange, mut file) = read_all(log, &mut show)?;
    if strange > 0 {
        let hint = Some("`toolcell audit verify` says which");
        diag::warn(color, &format!("{strange} lines are no records"), hint);
    }
    let mut begun = Vec::new();
    let mut notice = [0; 4096];
    while let Some(writes) = &mut writes {
        writes.read(&mut notice).map_err(|error| unreadable(log, error))?;
        // Nobody writes to a file any more that was rotated.
        let rotated = is_elsewhere(log, file.get_ref());
        read(&mut file, &mut begun, &mut show).map_err(|error| error.of(log))?;
        if rotated && let Ok(next) = open_to_read(log) {
            file = BufReader::new(next);
            begun.clear();
            read(&mut file, &mut begun, &mut show).map_err(|error| error.of(log))?;
        }
    }
    Ok(Ending::Success)
}

/// A record as it stands in the log, without what could paint or reorder: who edited the log may have put it there.
fn again(line: &[u8]) -> Vec<u8> {
    let raw: Option<&RawValue> = serde_json::from_slice(line).ok();
    raw.and_then(|raw| to_line(&raw).ok()).unwrap_or_default()
}

/// A descriptor on which the kernel tells of each write to a file where the log is, and of each new one there.
fn watch(log: &Path) -> Result<File, Failure> {
    let failed = |error| unreadable(log, error);
    let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = CString::new(directory.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let writes =
        observe::watch_writes(&name).map_err(|errno| failed(io::Error::from_raw_os_error(errno.0)))?;
    Ok(File::from(writes))
}

/// One record in one line, and one more for each thing that is to be told of it.
fn sentence(entry: &Entry) -> String {
    match entry {
        Entry::Call(record) => of_call(record),
        Entry::Alert(record) => of_alert(record),
        Entry::Step(record) => {
            let until =
                record.until.as_ref().map_or_else(String::new, |until| format!(" until {}", escape(until)));
            format!(
                "{}  {}/{}  quarantine: {}{until}: {}",
                escape(&record.time),
                escape(&record.server),
                escape(&record.tool),
                escape(&record.step),
                escape(&record.because)
            )
        }
    }
}

fn of_alert(record: &Alerted) -> String {
    let alert = &record.alert;
    let told = match record.alerted_us {
        Some(after) => format!("told after {}", milliseconds(after)),
        None => "nobody was told".to_owned(),
    };
    let mut text = format!(
        "{}  {}/{}  alert {} ×{}  {told}  {}\n    {}",
        escape(&record.time),
        escape(&alert.server),
        escape(&alert.tool),
        alert.rule.name(),
        alert.count,
        escape(&alert.who),
        escape(&alert.what)
    );
    for hook in &record.hooks {
        if let Some(why) = &hook.failed {
            text.push_str(&format!("\n    {} failed: {}", escape(&hook.hook), escape(why)));
        }
    }
    text
}

fn of_call(record: &Finished) -> String {
    let status = match &record.status {
        crate::outcome::Status::Limit { limit } => format!("limit {}", limit.name()),
        status => status_name(status).to_owned(),
    };
    let memory = record
        .usage
        .memory_peak
        .map_or_else(String::new, |peak| format!("  {}", limits::print(Limit::Memory, peak)));
    let mut text = format!(
        "{}  {}/{}  {status}  {}{memory}  {}",
        escape(&record.time),
        escape(&record.call.server),
        escape(tool_of(record)),
        milliseconds(record.duration_us),
        escape(caller_of(record)),
    );
    for violation in &record.violations {
        let what = match violation.limit {
            Some(limit) => limit.name().to_owned(),
            None => format!("{} {}", violation.operation, violation.object),
        };
        text.push_str(&format!(
            "\n    {} {} ×{}",
            violation.layer.name(),
            escape(what.trim_end()),
            violation.count
        ));
        if let Some(allow) = &violation.allow {
            text.push_str(&format!("; allowed by: {}", escape(allow)));
        }
    }
    if let Some(traffic) = &record.traffic {
        traffic.connections.iter().for_each(|one| text.push_str(&of_connection(one)));
        if traffic.left_out > 0 {
            text.push_str(&format!("\n    and {} connections more", traffic.left_out));
        }
    }
    text
}

fn of_connection(one: &Connection) -> String {
    let way = |way: &str| {
        one.address.as_ref().map_or_else(String::new, |address| format!(" {way} {}", escape(address)))
    };
    let reached = match &one.from {
        None => format!("reached {}{}", escape(&one.to), way("at")),
        Some(from) => format!("{} reached at {}{}", escape(&one.to), escape(from), way("by")),
    };
    format!(
        "\n    {reached}  {} up, {} down  {}  ended by {}",
        print_size(one.up),
        print_size(one.down),
        milliseconds(one.duration_us),
        one.closed_by.name()
    )
}

/// Microseconds in a form that a person reads.
pub(super) fn milliseconds(micros: u64) -> String {
    format!("{}.{:01} ms", micros / 1000, micros % 1000 / 100)
}
