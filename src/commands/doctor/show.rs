//! Words what `doctor` found: a table and what to type, or JSON (docs/doctor.md).
//!
//! Neighbours: `doctor` probes and prints. Never: probes.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::trial::Tried;
use super::{Column, DEFAULT_FLOOR, Finding, Probed, Report};
use crate::diag::Paint;
use crate::host::Untold;
use crate::host::probe::{Failed, Part, State};
use crate::policy::Floor;
use crate::policy::mode::HOST;
use crate::text::{escape, escape_lines};

/// No line of prose or of the table is longer; a command is never broken.
const WIDTH: usize = 100;

/// Lines from outside (paths, module lists) cannot pass for ours.
fn put(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

pub(super) fn text(report: &Report, color: bool) -> String {
    let paint = Paint { color };
    let mut text = String::new();
    put(&mut text, &paint.bold(&format!("{:<18} {:<6} {:<6} {}", "layer", "user", "root", "detail")));
    row(&mut text, paint, "cell", &cell_cells(report), &cell_detail(report));
    for part in Part::ALL {
        let cells = [&report.user, &report.root].map(|probed| part_cell(probed, part));
        row(&mut text, paint, label(part), &cells, &part_detail(report, part));
    }
    text.push('\n');
    for (who, probed) in [("user", &report.user), ("root", &report.root)] {
        put(&mut text, &format!("{who}: {}", rung(probed, paint)));
        if let Ok(Column { note: Some(note), .. }) | Err(note) = probed {
            prose(&mut text, "  ", note);
        }
        if let Ok(column) = probed {
            host_network(&mut text, column);
            denials(&mut text, &column.denials);
        }
    }
    for (who, finding) in findings(report) {
        text.push('\n');
        put(&mut text, &format!("{} {} for {who}", paint.yellow("missing:"), finding.what));
        if let Some(failed) = &finding.failed {
            prose(&mut text, "  fails  ", &call(failed));
        }
        prose(&mut text, "  cause  ", &finding.cause);
        prose(&mut text, "  fix    ", &finding.fix);
    }
    text
}

const fn label(part: Part) -> &'static str {
    match part {
        Part::UserNamespace => "user namespace",
        Part::MountNamespace => "private root",
        Part::IdmappedMounts => "idmapped mounts",
        Part::Overlay => "overlays",
        Part::OverlayRemovals => "rmdir in overlays",
        Part::Doors => "doors",
        Part::PidNamespace => "pid namespace",
        Part::NetNamespace => "network namespace",
        Part::OtherNamespaces => "other namespaces",
        Part::Capabilities => "capabilities",
        Part::Landlock => "Landlock",
        Part::Seccomp => "seccomp",
        Part::Openat2 => "openat2",
        Part::CloseRange => "close_range",
        Part::Pidfd => "pidfd",
        Part::Cgroup => "cgroup limits",
    }
}

fn row(text: &mut String, paint: Paint, name: &str, cells: &[&str; 2], detail: &str) {
    let painted = cells.map(|cell| {
        let padded = format!("{cell:<6}");
        match cell {
            "yes" => paint.green(&padded),
            "NO" => paint.red(&padded),
            _ => padded,
        }
    });
    let detail = escape(detail);
    let room = WIDTH - 33;
    let detail = if detail.chars().count() > room {
        detail.chars().take(room - 1).chain(['…']).collect()
    } else {
        detail.into_owned()
    };
    put(text, &format!("{name:<18} {} {} {detail}", painted[0], painted[1]));
}

fn cell_cells(report: &Report) -> [&'static str; 2] {
    [&report.user, &report.root].map(|probed| match probed {
        Err(_) => "?",
        Ok(column) if column.reaches_default() => "yes",
        Ok(_) => "NO",
    })
}

/// Of the caller's own column: how the first attempt went.
fn cell_detail(report: &Report) -> String {
    let Ok(column) = report.own() else { return String::new() };
    match column.tried.first() {
        Some((floor, Tried::Ran { took, .. })) => {
            format!(
                "a whole launch on the rung `{}` took {:.1} ms",
                floor.name(),
                took.as_secs_f64() * 1000.0
            )
        }
        Some((_, Tried::Failed(error))) => format!("{error}: {}", error.errno),
        Some((_, Tried::NoPlan(why))) => why.lines().next().unwrap_or_default().to_owned(),
        None => String::new(),
    }
}

fn state(probed: &Probed, part: Part) -> Option<&State> {
    probed.as_ref().ok()?.parts.iter().find(|(p, _)| *p == part).map(|(_, state)| state)
}

fn part_cell(probed: &Probed, part: Part) -> &'static str {
    match state(probed, part) {
        Some(State::There { .. }) => "yes",
        Some(State::Missing { .. }) => "NO",
        Some(State::NotNeeded) => "-",
        Some(State::Needs(_)) | None => "?",
    }
}

/// What fails first, in the caller's column before the other one; else what is there.
fn part_detail(report: &Report, part: Part) -> String {
    let other = if report.caller == 0 { &report.user } else { &report.root };
    let states = [report.own(), other].map(|probed| state(probed, part));
    let detail =
        |wanted: fn(&State) -> bool| states.into_iter().flatten().find(|state| wanted(state)).map(words);
    detail(|state| matches!(state, State::Missing { .. }))
        .or_else(|| detail(|state| matches!(state, State::There { .. })))
        .or_else(|| detail(|_| true))
        .unwrap_or_default()
}

fn words(state: &State) -> String {
    match state {
        State::There { detail } => detail.clone(),
        State::Missing { failed: Some(failed), .. } => call(failed),
        State::Missing { failed: None, cause, .. } => cause.clone(),
        State::Needs(part) => format!("could not be tried without: {}", label(*part)),
        State::NotNeeded => "only needed by cells started by root".to_owned(),
    }
}

pub(in crate::commands) fn call(failed: &Failed) -> String {
    if failed.object.is_empty() {
        format!("{}: {}", failed.call, failed.errno)
    } else {
        format!("{} {}: {}", failed.call, failed.object, failed.errno)
    }
}

fn rung(probed: &Probed, paint: Paint) -> String {
    match probed {
        Err(_) => "not probed".to_owned(),
        Ok(column @ Column { floor: Some(floor), .. }) if column.reaches_default() => {
            format!("reaches the rung {}, the default floor", paint.green(floor.name()))
        }
        Ok(Column { floor: Some(floor), .. }) => {
            format!(
                "reaches the rung {}, the default floor is `{}`",
                paint.yellow(floor.name()),
                DEFAULT_FLOOR.name()
            )
        }
        Ok(Column { floor: None, .. }) => {
            format!("reaches {}: toolcell starts no cell here", paint.red("no rung"))
        }
    }
}

/// What a profile that has it loses is the profile's doing, and `profile explain` tells it.
fn host_network(text: &mut String, column: &Column) {
    match (column.floor, column.host_network) {
        (_, Some(rung)) => {
            let rung = rung.name();
            prose(
                text,
                "  ",
                &format!(
                    "in the host's network, where a profile has `{HOST}`: the rung {rung}, lower by that network"
                ),
            );
        }
        (Some(_), None) => prose(
            text,
            "  ",
            &format!("no cell in the host's network (`{HOST}`): Landlock's ABI is below 6 (Linux 6.12)"),
        ),
        (None, None) => {}
    }
}

/// Nothing that a cell needs; a record says more with it.
fn denials(text: &mut String, told: &Result<(), Untold>) {
    match told {
        Ok(()) => prose(text, "  ", "what Landlock refuses stands in records"),
        Err(untold) => {
            prose(text, "  ", &format!("what Landlock refuses does not stand in records: {untold}"));
            if let Some(hint) = untold.hint() {
                prose(text, "  fix    ", hint);
            }
        }
    }
}

/// What is missing for both is told once.
fn findings(report: &Report) -> Vec<(&'static str, Finding)> {
    let of = |probed: &Probed| probed.as_ref().map(Column::findings).unwrap_or_default();
    let (user, root) = (of(&report.user), of(&report.root));
    let mut told: Vec<(&'static str, Finding)> = Vec::new();
    for finding in &user {
        let who = if root.contains(finding) { "user and root" } else { "user" };
        told.push((who, finding.clone()));
    }
    told.extend(root.into_iter().filter(|finding| !user.contains(finding)).map(|finding| ("root", finding)));
    told
}

/// Wrapped at words; a line that begins with two spaces is a command and stays whole.
pub(in crate::commands) fn prose(text: &mut String, first: &str, message: &str) {
    let indent = " ".repeat(first.len());
    let mut start = first.to_owned();
    for line in message.lines() {
        let line = escape_lines(line, "");
        if line.starts_with("  ") {
            put(text, &format!("{indent}{line}"));
            continue;
        }
        let mut current = std::mem::replace(&mut start, indent.clone());
        let mut empty = true;
        for word in line.split(' ') {
            if !empty && current.chars().count() + 1 + word.chars().count() > WIDTH {
                put(text, &current);
                current.clone_from(&indent);
                empty = true;
            }
            if !empty {
                current.push(' ');
            }
            current.push_str(word);
            empty = false;
        }
        put(text, &current);
    }
}

pub(super) fn json(report: &Report) -> String {
    let findings: Vec<Value> = findings(report)
        .into_iter()
        .map(|(who, finding)| {
            json!({
                "for": who.split(" and ").collect::<Vec<_>>(),
                "layer": finding.what,
                "failed": finding.failed.as_ref().map(failed_json),
                "cause": finding.cause,
                "fix": finding.fix,
            })
        })
        .collect();
    let value = json!({
        "schema": 1,
        "caller": { "uid": report.caller },
        "default_floor": DEFAULT_FLOOR.name(),
        "default_floor_reached": report.reached(),
        "user": column_json(&report.user),
        "root": column_json(&report.root),
        "findings": findings,
    });
    let mut text = String::new();
    let _infallible = writeln!(text, "{value:#}");
    text
}

fn column_json(probed: &Probed) -> Value {
    match probed {
        Err(why) => json!({ "probed": false, "note": why }),
        Ok(column) => {
            let layers: Map<String, Value> = column
                .parts
                .iter()
                .map(|(part, state)| (part.name().to_owned(), state_json(state)))
                .collect();
            let launches: Vec<Value> =
                column.tried.iter().map(|(floor, tried)| tried_json(*floor, tried)).collect();
            json!({
                "probed": true,
                "uid": column.uid,
                "floor": column.floor.map(Floor::name),
                "host_network": column.host_network.map(Floor::name),
                "launches": launches,
                "layers": layers,
                "denials": match &column.denials {
                    Ok(()) => json!({ "read": true }),
                    Err(untold) => json!({ "read": false, "why": untold.to_string(), "fix": untold.hint() }),
                },
                "note": column.note,
            })
        }
    }
}

fn tried_json(floor: Floor, tried: &Tried) -> Value {
    match tried {
        Tried::Ran { receipt, took } => json!({
            "floor": floor.name(),
            "ran": true,
            "microseconds": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "receipt": receipt.layers,
        }),
        Tried::Failed(error) => json!({
            "floor": floor.name(),
            "ran": false,
            "failed": { "call": error.step, "object": error.object, "errno": error.errno.name() },
        }),
        Tried::NoPlan(why) => json!({ "floor": floor.name(), "ran": false, "why": why }),
    }
}

pub(in crate::commands) fn failed_json(failed: &Failed) -> Value {
    json!({ "call": failed.call, "object": failed.object, "errno": failed.errno.name() })
}

fn state_json(state: &State) -> Value {
    match state {
        State::There { detail } => json!({ "state": "there", "detail": detail }),
        State::Missing { failed, .. } => {
            json!({ "state": "missing", "failed": failed.as_ref().map(failed_json) })
        }
        State::Needs(part) => json!({ "state": "unknown", "needs": part.name() }),
        State::NotNeeded => json!({ "state": "not-needed" }),
    }
}
