//! `toolcell audit stats`: what the records of a log say together.
//!
//! Neighbours: `audit::Summary` adds up, `show` chooses the records. Never: gives a figure that the log does not have.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::show::{Entry, Filter, milliseconds, read_all};
use crate::audit::{Alerts, Figures, Rotation, Spread, Summary, Tool, to_line};
use crate::cli::Chosen;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::outcome::Limit;
use crate::policy::limits;
use crate::text::escape;

/// The chosen records of a log together, and how many of its lines are no records.
pub(super) fn summary(log: &Path, chosen: &Chosen) -> Result<(Summary, u64), Failure> {
    let filter = Filter::new(chosen)?;
    let mut summary = Summary::default();
    let (strange, _) = read_all(log, |entry, _line| {
        if filter.takes(&entry) {
            match entry {
                Entry::Call(record) => summary.add(&record),
                Entry::Alert(record) => summary.alert(&record),
                Entry::Step(record) => summary.step(*record),
            }
        }
        Ok(())
    })?;
    Ok((summary, strange))
}

pub(super) fn run(log: &Path, chosen: &Chosen, json: bool) -> Result<Ending, Failure> {
    let (summary, strange) = summary(log, chosen)?;
    let text = if json { as_json(&summary, strange) } else { as_text(&summary, strange).into_bytes() };
    super::super::print(&text)
}

/// Counts by name, the names as they come.
fn counts<'a>(counts: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) -> String {
    counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// The figures about security, each with what it says; those that the log does not have are named as such.
pub(super) fn figures(figures: &Figures) -> Vec<(&'static str, String)> {
    let Figures {
        attempt_to_record_us,
        attempt_to_alert_us,
        attempts_untold,
        authenticated,
        limits_by_day,
        rotation,
    } = figures;
    let alert = attempt_to_alert_us.map_or_else(
        || "nobody was told of one".to_owned(),
        |Spread { median, max, .. }| {
            format!("median {}, at most {}", milliseconds(median), milliseconds(max))
        },
    );
    let untold = match attempts_untold {
        0 => String::new(),
        count => format!("; of {count} nobody was told, because every hook failed"),
    };
    let attempts = attempt_to_record_us.map_or_else(
        || "none was refused by `[auth]` or a role".to_owned(),
        |Spread { median, max, .. }| {
            format!("median {}, at most {}", milliseconds(median), milliseconds(max))
        },
    );
    let share = authenticated.map_or_else(
        || "nobody was asked".to_owned(),
        |share| format!("{}.{:02} % of the calls", share / 100, share % 100),
    );
    let rotated = rotation.map_or_else(
        || "no call asked for a secret with a `max-age`".to_owned(),
        |Rotation { uses, due, overdue, in_time }| {
            format!(
                "{}.{:02} % of {uses} uses of secrets with a `max-age`; {overdue} overdue and refused, {due} due",
                in_time / 100,
                in_time % 100
            )
        },
    );
    let days = u64::try_from(limits_by_day.len()).unwrap_or(u64::MAX).max(1);
    let hits: u64 = limits_by_day.values().sum();
    let (tenths, worst) =
        (hits.saturating_mul(10) / days, limits_by_day.values().max().copied().unwrap_or(0));
    vec![
        ("from an unauthorised attempt to its alert", alert + &untold),
        ("from an unauthorised attempt to its record", attempts),
        ("calls with a valid identity", share),
        (
            "limits hit a day",
            format!(
                "{}.{} on average over {days} days with calls, at most {worst}",
                tenths / 10,
                tenths % 10
            ),
        ),
        ("secrets rotated in time", rotated),
    ]
}

fn as_text(summary: &Summary, strange: u64) -> String {
    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{line}");
    };
    match &summary.times {
        Some((first, last)) => {
            say(format_args!("{} calls from {} to {}", summary.calls, escape(first), escape(last)))
        }
        None => say(format_args!("no calls")),
    }
    say(format_args!("  {}", counts(&summary.statuses)));
    if strange > 0 {
        say(format_args!("  {strange} lines are no records; `toolcell audit verify` says which"));
    }
    for ((server, name), tool) in &summary.tools {
        let Tool { calls, statuses, violations, durations, memory } = tool;
        say(format_args!("\n{}/{}: {calls} calls ({})", escape(server), escape(name), counts(statuses)));
        if let Some(Spread { median, p95, max }) = Spread::of(durations) {
            let [median, p95, max] = [median, p95, max].map(milliseconds);
            say(format_args!("  time    median {median}, 95 % within {p95}, at most {max}"));
        }
        if let Some(Spread { median, max, .. }) = Spread::of(memory) {
            let [median, max] = [median, max].map(|bytes| limits::print(Limit::Memory, bytes));
            say(format_args!("  memory  median {median}, at most {max}"));
        }
        if *violations > 0 {
            say(format_args!("  {violations} violations"));
        }
    }
    if !summary.violations.is_empty() {
        say(format_args!("\nviolations by day and layer"));
        for ((day, layer), count) in &summary.violations {
            say(format_args!("  {}  {:12} {count}", escape(day), layer.name()));
        }
    }
    if !summary.alerts.is_empty() {
        say(format_args!("\nalerts"));
        for (rule, Alerts { count, told, untold }) in &summary.alerts {
            let times = Spread::of(told).map_or_else(String::new, |Spread { median, max, .. }| {
                format!(", told after a median of {}, at most {}", milliseconds(median), milliseconds(max))
            });
            let untold = if *untold > 0 { format!(", nobody was told of {untold}") } else { String::new() };
            say(format_args!("  {:12} {count}{times}{untold}", rule.name()));
        }
    }
    if !summary.steps.is_empty() {
        say(format_args!("\nquarantine"));
        for step in &summary.steps {
            let [time, server, tool, what, because] =
                [&step.time, &step.server, &step.tool, &step.step, &step.because].map(|text| escape(text));
            say(format_args!("  {time}  {server}/{tool}  {what}: {because}"));
        }
    }
    say(format_args!("\nsecurity"));
    for (what, value) in figures(&summary.figures()) {
        say(format_args!("  {what}: {value}"));
    }
    text
}

fn as_json(summary: &Summary, strange: u64) -> Vec<u8> {
    let tools: Vec<Value> = summary
        .tools
        .iter()
        .map(|((server, name), tool)| {
            json!({
                "server": server,
                "tool": name,
                "calls": tool.calls,
                "statuses": tool.statuses,
                "violations": tool.violations,
                "duration_us": Spread::of(&tool.durations),
                "memory_peak": Spread::of(&tool.memory),
            })
        })
        .collect();
    let mut violations: Map<String, Value> = Map::new();
    for ((day, layer), count) in &summary.violations {
        let layers = violations.entry(day.clone()).or_insert_with(|| json!({}));
        if let Some(layers) = layers.as_object_mut() {
            layers.insert(layer.name().to_owned(), json!(count));
        }
    }
    let callers: Vec<Value> = summary
        .callers
        .iter()
        .map(|((who, server, tool), calls)| json!({ "who": who, "server": server, "tool": tool, "calls": calls }))
        .collect();
    let alerts: Map<String, Value> = summary
        .alerts
        .iter()
        .map(|(rule, Alerts { count, told, untold })| {
            let value = json!({ "count": count, "told_after_us": Spread::of(told), "untold": untold });
            (rule.name().to_owned(), value)
        })
        .collect();
    let value = json!({
        "calls": summary.calls,
        "statuses": summary.statuses,
        "days": summary.days,
        "tools": tools,
        "violations": violations,
        "callers": callers,
        "alerts": alerts,
        "quarantine": summary.steps,
        "security": summary.figures(),
        "not_records": strange,
    });
    // Without what could paint or reorder, like the log.
    to_line(&value).unwrap_or_default()
}
