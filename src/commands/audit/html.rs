//! A [`Summary`] as one HTML page with drawn charts, which needs nothing else and runs nothing.
//!
//! Whatever a record says is a stranger's text: it goes through [`text`], and the page forbids scripts, links and loads by
//! a policy of its own. Neighbours: `report` writes the page. Never: puts a text into a page unescaped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::show::milliseconds;
use super::stats::figures;
use crate::audit::{Alerts, Spread, Summary, Tool};
use crate::outcome::Limit;
use crate::policy::limits;
use crate::text::escape;

/// Rows of a table or chart that are shown; the rest is counted.
const ROWS_MOST: usize = 200;
/// Bars of a chart of tools.
const TOOLS_MOST: usize = 30;

const WIDTH: u64 = 720;
const HEIGHT: u64 = 160;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>toolcell: what was called, and what was refused</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #66707d; --line: #d8dde3; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #98a2ae; --line: #39424d; --ground: #14181d; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg line { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: 13px/1.4 ui-monospace, monospace; white-space: pre-wrap; }
.soft { color: var(--soft); } .key { display: inline-block; margin-right: 1rem; }
.key svg { width: .8rem; height: .8rem; margin-right: .3rem; }
.c0 { fill: #3a7ca5; } .c1 { fill: #d1495b; } .c2 { fill: #edae49; } .c3 { fill: #66a182; } .c4 { fill: #8d6a9f; } .c5 { fill: #7d8597; }
.c6 { fill: #bc6c25; } .c7 { fill: #2a9d8f; } .c8 { fill: #9d0208; } .c9 { fill: #577590; } .c10 { fill: #a3b18a; }
</style>
</head>
<body>
"#;

/// A stranger's text for a page: its dangerous characters visible, its markup undone.
fn text(stranger: &str) -> String {
    let mut safe = String::with_capacity(stranger.len());
    for character in escape(stranger).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            character => safe.push(character),
        }
    }
    safe
}

/// A stranger's text of several lines, such as TOML.
fn lines(stranger: &str) -> String {
    stranger.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

/// The page.
pub(super) fn page(summary: &Summary, strange: u64) -> String {
    let mut page = String::from(HEAD);
    let mut add = |part: String| page.push_str(&part);
    let (first, last) = summary.times.clone().unwrap_or_default();
    add(format!(
        "<h1>What was called, and what was refused</h1>\n<p>{} calls from {} to {}, by the audit log of toolcell. Times are UTC.</p>\n",
        summary.calls,
        text(&first),
        text(&last)
    ));
    if strange > 0 {
        add(format!(
            "<p>{strange} lines of the log are no records; <code>toolcell audit verify</code> says which.</p>\n"
        ));
    }
    add("<h2>Security</h2>\n<table>\n".to_owned());
    for (what, value) in figures(&summary.figures()) {
        add(format!("<tr><th>{what}</th><td>{}</td></tr>\n", text(&value)));
    }
    add("</table>\n".to_owned());

    let days: Vec<&str> = summary.days.keys().map(String::as_str).collect();
    add("<h2>Calls a day, by how they ended</h2>\n".to_owned());
    add(stacked(&days, &summary.by_status));
    add("<h2>Violations a day, by layer</h2>\n".to_owned());
    let by_layer: BTreeMap<(String, &'static str), u64> = summary
        .violations
        .iter()
        .map(|((day, layer), count)| ((day.clone(), layer.name()), *count))
        .collect();
    add(stacked(&days, &by_layer));

    add("<h2>Time by tool: median and 95th of 100</h2>\n".to_owned());
    add(bars(
        &summary.tools,
        |tool| Spread::of(&tool.durations).map(|spread| (spread.median, spread.p95)),
        milliseconds,
    ));
    add("<h2>Memory by tool: median and highest</h2>\n".to_owned());
    let bytes = |bytes| limits::print(Limit::Memory, bytes);
    add(bars(
        &summary.tools,
        |tool| Spread::of(&tool.memory).map(|spread| (spread.median, spread.max)),
        bytes,
    ));

    add("<h2>Tools</h2>\n".to_owned());
    let rows = summary.tools.iter().map(|((server, name), tool)| {
        let ended = |name: &str| tool.statuses.get(name).copied().unwrap_or(0);
        let cells =
            [tool.calls, ended("refused"), ended("limit"), ended("failed") + ended("died"), tool.violations];
        let numbers: String = cells.iter().map(|number| format!("<td class=\"n\">{number}</td>")).collect();
        format!("<td>{}/{}</td>{numbers}", text(server), text(name))
    });
    add(table(
        "<th>tool</th><th class=\"n\">calls</th><th class=\"n\">refused</th><th class=\"n\">stopped by a limit</th><th class=\"n\">failed or died</th><th class=\"n\">violations</th>",
        rows,
        0,
    ));

    add("<h2>Alerts</h2>\n".to_owned());
    let rows = summary.alerts.iter().map(|(rule, alerts)| {
        let told = Spread::of(&alerts.told).map_or_else(
            || "<span class=\"soft\">nobody</span>".to_owned(),
            |Spread { median, max, .. }| format!("{} / {}", milliseconds(median), milliseconds(max)),
        );
        let Alerts { count, untold, .. } = alerts;
        let rule = rule.name();
        format!("<td>{rule}</td><td class=\"n\">{count}</td><td>{told}</td><td class=\"n\">{untold}</td>")
    });
    let head = "<th>rule</th><th class=\"n\">alerts</th><th>told after: median and most</th><th class=\"n\">of which every hook failed</th>";
    add(table(head, rows, 0));
    add("<h2>Quarantine</h2>\n".to_owned());
    let rows = summary.steps.iter().map(|step| {
        let [time, server, tool, what, because] =
            [&step.time, &step.server, &step.tool, &step.step, &step.because].map(|stranger| text(stranger));
        format!("<td>{time}</td><td>{server}/{tool}</td><td>{what}</td><td>{because}</td>")
    });
    add(table("<th>time</th><th>tool</th><th>step</th><th>because</th>", rows, 0));

    add("<h2>Who called what</h2>\n".to_owned());
    let rows = summary.callers.iter().map(|((who, server, name), calls)| {
        format!("<td>{}</td><td>{}/{}</td><td class=\"n\">{calls}</td>", text(who), text(server), text(name))
    });
    add(table("<th>who</th><th>tool</th><th class=\"n\">calls</th>", rows, 0));

    add("<h2>What was refused, and what would allow it</h2>\n".to_owned());
    let rows = summary.refusals.iter().map(|(refusal, count)| {
        let allow = refusal.allow.as_deref().map_or_else(
            || "<span class=\"soft\">nothing should</span>".to_owned(),
            |allow| format!("<code>{}</code>", lines(allow)),
        );
        format!(
            "<td>{}</td><td><code>{}</code></td><td class=\"n\">{count}</td><td>{}</td><td>{allow}</td>",
            refusal.layer.name(),
            text(&refusal.what),
            text(&refusal.rule)
        )
    });
    let head = "<th>layer</th><th>what</th><th class=\"n\">times</th><th>rule</th><th>allowed by</th>";
    add(table(head, rows, summary.refusals_left_out));
    add("</body>\n</html>\n".to_owned());
    page
}

/// A table with at most [`ROWS_MOST`] rows, and how often something more was counted elsewhere.
fn table(head: &str, rows: impl ExactSizeIterator<Item = String>, left_out: u64) -> String {
    if rows.len() == 0 {
        return "<p class=\"soft\">none</p>\n".to_owned();
    }
    let more = rows.len().saturating_sub(ROWS_MOST);
    let rows: String = rows.take(ROWS_MOST).map(|row| format!("<tr>{row}</tr>\n")).collect();
    let mut table = format!("<table>\n<tr>{head}</tr>\n{rows}</table>\n");
    if more > 0 {
        let _infallible = writeln!(table, "<p class=\"soft\">and {more} rows more</p>");
    }
    if left_out > 0 {
        let _infallible = writeln!(table, "<p class=\"soft\">and {left_out} refusals of other kinds</p>");
    }
    table
}

/// So much of a whole in a length.
fn part(value: u64, whole: u64, length: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(length) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(length).min(length)
}

/// A bar a day, of parts by name.
fn stacked(days: &[&str], counts: &BTreeMap<(String, &'static str), u64>) -> String {
    let names: BTreeSet<&'static str> = counts.keys().map(|(_, name)| *name).collect();
    if names.is_empty() {
        return "<p class=\"soft\">none</p>\n".to_owned();
    }
    let count = |day: &str, name: &'static str| counts.get(&(day.to_owned(), name)).copied().unwrap_or(0);
    let total = |day: &&str| names.iter().map(|name| count(day, name)).fold(0, u64::saturating_add);
    let highest = days.iter().map(total).max().unwrap_or(0).max(1);
    let number = u64::try_from(days.len()).unwrap_or(u64::MAX).max(1);
    let step = (WIDTH * 10 / number).clamp(10, 400);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\n<line x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>\n<text x=\"0\" y=\"10\">{highest}</text>\n",
        HEIGHT + 20
    );
    for (at, day) in days.iter().enumerate() {
        let x = u64::try_from(at).unwrap_or(0) * step / 10;
        let mut y = HEIGHT;
        for (colour, name) in names.iter().enumerate() {
            let value = count(day, name);
            let height = part(value, highest, HEIGHT - 15);
            if value > 0 {
                y -= height.max(1).min(y);
                let _infallible = writeln!(
                    svg,
                    "<rect class=\"c{colour}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\"><title>{}: {} {value}</title></rect>",
                    (step * 8 / 100).max(1),
                    height.max(1),
                    text(day),
                    text(name)
                );
            }
        }
        if at == 0 || at + 1 == days.len() && x > 80 {
            let x = x.min(WIDTH - 70);
            let _infallible = writeln!(svg, "<text x=\"{x}\" y=\"{}\">{}</text>", HEIGHT + 15, text(day));
        }
    }
    svg.push_str("</svg>\n<p>");
    for (colour, name) in names.iter().enumerate() {
        let _infallible = write!(
            svg,
            "<span class=\"key\"><svg viewBox=\"0 0 10 10\"><rect class=\"c{colour}\" width=\"10\" height=\"10\"/></svg>{}</span>",
            text(name)
        );
    }
    svg.push_str("</p>\n");
    svg
}

/// Two bars a tool, the shorter in front of the longer; the longest first.
fn bars(
    tools: &BTreeMap<(String, String), Tool>,
    values: impl Fn(&Tool) -> Option<(u64, u64)>,
    print: impl Fn(u64) -> String,
) -> String {
    let mut rows: Vec<(String, u64, u64)> = tools
        .iter()
        .filter_map(|((server, name), tool)| {
            let (low, high) = values(tool)?;
            Some((format!("{server}/{name}"), low, high))
        })
        .collect();
    rows.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    let more = rows.len().saturating_sub(TOOLS_MOST);
    rows.truncate(TOOLS_MOST);
    let Some(highest) = rows.first().map(|row| row.2) else {
        return "<p class=\"soft\">none</p>\n".to_owned();
    };
    let height = u64::try_from(rows.len()).unwrap_or(0) * 32;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
    for (at, (name, low, high)) in rows.iter().enumerate() {
        let y = u64::try_from(at).unwrap_or(0) * 32;
        let [long, short] = [high, low].map(|value| part(*value, highest, WIDTH).max(1));
        let shown: String = name.chars().take(80).collect();
        let _infallible = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\">{}  {} / {}</text>\n<rect class=\"c5\" x=\"0\" y=\"{}\" width=\"{long}\" height=\"10\"/>\n<rect class=\"c0\" x=\"0\" y=\"{}\" width=\"{short}\" height=\"10\"/>",
            y + 11,
            text(&shown),
            print(*low),
            print(*high),
            y + 15,
            y + 15
        );
    }
    svg.push_str("</svg>\n");
    if more > 0 {
        let _infallible = writeln!(svg, "<p class=\"soft\">and {more} tools more</p>");
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_strangers_text_is_markup() {
        let hostile = "<script>a&b</script>\"'\u{202e}\n";
        assert_eq!(text(hostile), "&lt;script&gt;a&amp;b&lt;/script&gt;&quot;&#39;\\u{202e}\\n");
        assert_eq!(lines("a<\nb>"), "a&lt;\nb&gt;");
    }

    #[test]
    fn parts_are_never_longer_than_the_whole() {
        assert_eq!((part(1, 2, 100), part(0, 0, 100), part(7, 0, 100)), (50, 0, 100));
        assert_eq!(part(u64::MAX, u64::MAX, 720), 720);
    }

    #[test]
    fn a_log_without_calls_is_a_page_too() {
        let page = page(&Summary::default(), 2);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("2 lines of the log are no records"));
    }
}
