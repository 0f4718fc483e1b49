//! Shows a demonstration: a table for people, at most 100 columns wide, or one JSON document.
//!
//! Neighbours: `demo::run` hands over rows as they come. Never: lets text of the hostile server move the cursor.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::judge::Verdict;
use super::stopper::Known;
use super::way::Way;
use super::{Around, Exchange, Made, Options, Row, Summary};
use crate::text::is_dangerous;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// The place where rows go.
pub(super) struct Table<'a> {
    out: &'a mut dyn Write,
    options: &'a Options,
    class: &'static str,
}

impl<'a> Table<'a> {
    /// An empty table.
    pub(super) fn new(options: &'a Options, out: &'a mut dyn Write) -> Self {
        Self { out, options, class: "" }
    }

    /// Is every kind of cell looked at, and its record?
    const fn looks_at_records(&self) -> bool {
        matches!(self.options.around, Around::EveryCell { .. })
    }

    /// Text in a colour, if there are colours.
    fn paint(&self, code: &str, text: &str) -> String {
        if self.options.colour { format!("{code}{text}{RESET}") } else { text.to_owned() }
    }

    /// What is going to happen. On the lowest rung no cell is built before its call.
    pub(super) fn header(&mut self, lowest: bool) -> io::Result<()> {
        if self.options.json {
            return Ok(());
        }
        let what = match self.options.around {
            Around::Cell => {
                "A hostile MCP server behind `toolcell run`. Each line is one tool call in a cell of its own."
            }
            Around::EveryCell { .. } if lowest => {
                "A hostile MCP server behind `toolcell run`. Each line is one attack, in a cell that was built for its \
                 call;\non the rung `landlock` none is built ahead."
            }
            Around::EveryCell { .. } => {
                "A hostile MCP server behind `toolcell run`. Each line is one attack, in a cell that was built for its \
                 call,\nin one that was built ahead of it, in one whose server was started ahead of it, in such cells \
                 into which\nwhat the call names was put, in one with doors out of it and into it, and in that of a session."
            }
            Around::Command(_) => {
                "The same hostile server with no cell around it. What escapes here is what a cell must stop."
            }
        };
        let what = self.paint(BOLD, what);
        let names = if self.looks_at_records() {
            format!("         {} {} {}", fit("it tried to", 29), fit("stopped by", 27), "recorded")
        } else {
            let saw = fit("it saw", 26);
            format!("         {} {saw} {} {:>7}", fit("it tried to", 29), fit("stopped by", 25), "ms")
        };
        let names = self.paint(DIM, &names);
        writeln!(self.out, "{what}\n\n{names}")?;
        self.out.flush()
    }

    /// One attack.
    pub(super) fn row(&mut self, row: &Row) -> io::Result<()> {
        if self.options.json {
            return Ok(());
        }
        if self.class != row.attack.class {
            self.class = row.attack.class;
            let class = self.paint(BOLD, self.class);
            writeln!(self.out, "{class}")?;
        }
        let Made { exchange, judgement, .. } = &row.worst;
        let colour = match judgement.verdict {
            Verdict::Blocked | Verdict::Stopped => GREEN,
            Verdict::Escaped => RED,
            Verdict::Unclear => YELLOW,
        };
        let verdict = self.paint(colour, judgement.verdict.name());
        let stopper = judgement.stopper.as_ref().map(|stopper| {
            let mark = if stopper.known == Known::Inferred { "~" } else { " " };
            format!("{mark}{}: {}", stopper.layer, stopper.rule)
        });
        let stopper = fit(&stopper.unwrap_or_default(), 27);
        let title = fit(row.attack.title, 29);
        if self.looks_at_records() {
            let line = format!("{title} {stopper} {}", recorded(exchange));
            writeln!(self.out, " {verdict} {}", line.trim_end())?;
        } else {
            let (saw, time) = (fit(&judgement.saw, 24), milliseconds(exchange.time));
            writeln!(self.out, " {verdict} {title} {saw} {stopper} {time:>7}")?;
        }
        self.out.flush()
    }

    /// What it comes to.
    pub(super) fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        if self.options.json {
            let document = document(summary, self.options.around.is_cell());
            writeln!(self.out, "{document:#}")?;
            return self.out.flush();
        }
        let count =
            |verdict| summary.rows.iter().filter(|row| row.worst.judgement.verdict == verdict).count();
        let (blocked, stopped) = (count(Verdict::Blocked), count(Verdict::Stopped));
        let (escaped, unclear) = (count(Verdict::Escaped), count(Verdict::Unclear));
        let verdicts = format!(
            "{} attacks: {blocked} blocked, {stopped} stopped at a limit, {escaped} escaped, {unclear} unclear",
            summary.rows.len()
        );
        let verdicts = self.paint(if escaped + unclear == 0 { GREEN } else { RED }, &verdicts);
        writeln!(self.out, "\n{verdicts}")?;
        if let Some(class) = summary.untried {
            writeln!(
                self.out,
                "not tried, because this rung has no such directories: {}",
                class.to_lowercase()
            )?;
        }
        let left = &summary.left;
        let counted = format!(
            "left behind: {} processes, {} mounts, {} cgroups, {} files",
            left.processes.len(),
            left.mounts.len(),
            left.cgroups.len(),
            left.files.len()
        );
        let counted = self.paint(if left.is_nothing() { GREEN } else { RED }, &counted);
        writeln!(self.out, "{counted}")?;
        for name in [&left.processes, &left.mounts, &left.cgroups, &left.files].into_iter().flatten() {
            writeln!(self.out, "  {}", plain(name))?;
        }
        match summary.closing {
            Some(time) => writeln!(self.out, "ended {} ms after its input closed", time.as_millis())?,
            None => writeln!(self.out, "{}", self.paint(RED, "did not end when its input closed: killed"))?,
        }
        if summary.unrecorded > 0 {
            let words = format!("{} calls have no record in the audit log", summary.unrecorded);
            writeln!(self.out, "{}", self.paint(RED, &words))?;
        }
        let micros = summary.harmless.as_micros();
        let cell = if self.options.around.is_cell() { "in a fresh cell" } else { "without a cell" };
        writeln!(
            self.out,
            "a harmless call takes {}.{:02} ms {cell}, answer included (median)",
            micros / 1000,
            micros % 1000 / 10
        )?;
        if self.options.around.is_cell() {
            let floor = summary.floor.as_deref().unwrap_or("unknown");
            let legend = format!(
                "isolation verified from inside: {floor}   ~ not in the record: inferred from what the tool saw"
            );
            writeln!(self.out, "{}", self.paint(DIM, &legend))?;
        }
        if self.looks_at_records() {
            let cells = summary.cells().map(|(way, count)| format!("{count} {}", words(way)));
            writeln!(self.out, "cells: {}", cells.join(", "))?;
            for (way, why) in &summary.lacking {
                writeln!(self.out, "no cells {}: {why}", words(*way))?;
            }
        }
        self.out.flush()
    }
}

/// How cells were made, behind their number.
const fn words(way: Way) -> &'static str {
    match way {
        Way::OnDemand => "built for their call",
        Way::Ahead => "ahead of it",
        Way::Spare => "with their server started",
        Way::PutIn => "ahead and given what was named",
        Way::PutInSpare => "started and given it",
        Way::Doors => "with doors",
        Way::Session => "in the cell of a session",
    }
}

/// Everything as one value.
fn document(summary: &Summary, cell: bool) -> Value {
    let left = &summary.left;
    let cells: Map<String, Value> =
        summary.cells().into_iter().map(|(way, count)| (way.name().to_owned(), count.into())).collect();
    json!({
        "cell": cell,
        "held": summary.held(),
        "cells": cells,
        "no_cells": summary.lacking.iter().map(|(way, why)| json!({"cell": way.name(), "why": why})).collect::<Vec<_>>(),
        "floor": summary.floor,
        "attacks": summary.rows.iter().map(row_document).collect::<Vec<_>>(),
        "left": {
            "processes": left.processes, "mounts": left.mounts, "cgroups": left.cgroups, "files": left.files,
        },
        "not_tried": summary.untried,
        "calls_without_record": summary.unrecorded,
        "harmless_call_us": micros(summary.harmless),
        "ended_after_us": summary.closing.map(micros),
    })
}

/// One attack as a value.
fn row_document(row: &Row) -> Value {
    let Made { exchange, judgement, .. } = &row.worst;
    let calls: Vec<_> = row.calls().map(call_document).collect();
    let stopper = judgement.stopper.as_ref().map(|stopper| {
        let known = match stopper.known {
            Known::Record => "record",
            Known::Inferred => "inferred",
        };
        json!({"layer": stopper.layer, "rule": stopper.rule, "known": known})
    });
    json!({
        "class": row.attack.class,
        "attempt": row.attack.title,
        "tool": row.attack.tool,
        "verdict": judgement.verdict.name(),
        "judged": if judgement.outside { "from outside" } else { "by the probe" },
        "saw": judgement.saw,
        "report": exchange.answer.as_ref().and_then(|answer| answer.pointer("/result/structuredContent")),
        "stopped_by": stopper,
        "us": micros(exchange.time),
        "calls": calls,
    })
}

/// One of an attack's calls as a value.
fn call_document(made: &Made) -> Value {
    let record = made.exchange.record.as_ref();
    json!({
        "cell": made.way.map(Way::name),
        "verdict": made.judgement.verdict.name(),
        "recorded": record.map(|record| &record.violations),
        "us": micros(made.exchange.time),
    })
}

/// What the record of a call says of refusals, in few words.
fn recorded(exchange: &Exchange) -> String {
    let Some(record) = &exchange.record else { return String::new() };
    let words = record.violations.iter().map(|violation| {
        let errno = violation.errno.as_deref().map(|errno| format!(" {errno}")).unwrap_or_default();
        plain(&format!("{}: {}{errno}", violation.layer.name(), violation.operation))
    });
    let mut told = Vec::new();
    for word in words {
        if !told.contains(&word) {
            told.push(word);
        }
    }
    told.join(", ")
}

/// Microseconds as JSON takes them.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time in milliseconds: with tenths below ten.
fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{}.{}", time.as_millis(), time.as_micros() % 1000 / 100),
        millis => millis.to_string(),
    }
}

/// Text cut or padded to a width.
fn fit(text: &str, width: usize) -> String {
    let text = plain(text).replace('\n', " ");
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Text without anything that a terminal would obey; newlines stay.
pub(super) fn plain(text: &str) -> String {
    let visible = |c: char| if c != '\n' && is_dangerous(c) { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_an_attacker_cannot_paint_or_widen() {
        assert_eq!(plain("a\x1b[2Jb\u{2028}c\u{202e}d\r\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}\n");
        assert_eq!(fit("ab", 4), "ab  ");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("a\nb", 3), "a b");
    }
}
