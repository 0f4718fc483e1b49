//! What is kept of all servers' tools, in Prometheus' text format.
//!
//! The numbers are those of the state, so they go on from session to session and are the same whoever writes them.
//!
//! Neighbours: `guard::exports` writes the file. Never: does I/O; lets a tool's name be more than a label.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::rules::{CLASSES, Tool};
use super::state::State;
use crate::text::escape;

/// A label's value: its dangerous characters visible, its quotes and backslashes escaped.
fn label(text: &str) -> String {
    escape(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The whole file.
pub(super) fn text(servers: &BTreeMap<String, State>) -> String {
    let mut text = String::new();
    let tools: Vec<(String, &Tool)> = servers
        .iter()
        .flat_map(|(server, state)| state.tools.iter().map(move |(name, tool)| (server, name, tool)))
        .map(|(server, name, tool)| (format!("server=\"{}\",tool=\"{}\"", label(server), label(name)), tool))
        .collect();
    let mut family = |name: &str, kind: &str, help: &str, samples: &dyn Fn(&str, &Tool) -> Vec<String>| {
        let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, tool) in &tools {
            for sample in samples(labels, tool) {
                let _infallible = writeln!(text, "{name}{sample}");
            }
        }
    };
    family("toolcell_calls_total", "counter", "Calls that ended, by status.", &|labels, tool| {
        let one =
            |(status, count): (&String, &u64)| format!("{{{labels},status=\"{}\"}} {count}", label(status));
        tool.statuses.iter().map(one).collect()
    });
    family(
        "toolcell_refusals_total",
        "counter",
        "Calls that were refused before anything ran.",
        &|labels, tool| vec![format!("{{{labels}}} {}", tool.statuses.get("refused").unwrap_or(&0))],
    );
    family(
        "toolcell_violations_total",
        "counter",
        "Different violations of each call, by layer.",
        &|labels, tool| {
            let one = |(layer, count): (&crate::outcome::Layer, &u64)| {
                format!("{{{labels},layer=\"{}\"}} {count}", layer.name())
            };
            tool.violations.iter().map(one).collect()
        },
    );
    family("toolcell_call_duration_seconds", "histogram", "Time of calls that ran.", &|labels, tool| {
        let mut below = 0;
        let mut samples = Vec::new();
        for (class, most) in CLASSES.iter().enumerate() {
            below += tool.classes.get(&class).unwrap_or(&0);
            samples.push(format!("_bucket{{{labels},le=\"{}\"}} {below}", seconds(*most)));
        }
        let all = below + tool.classes.get(&CLASSES.len()).unwrap_or(&0);
        samples.push(format!("_bucket{{{labels},le=\"+Inf\"}} {all}"));
        samples.push(format!("_sum{{{labels}}} {}", seconds(tool.time)));
        samples.push(format!("_count{{{labels}}} {all}"));
        samples
    });
    family("toolcell_memory_peak_bytes", "gauge", "Highest memory use of any call.", &|labels, tool| {
        vec![format!("{{{labels}}} {}", tool.memory_most)]
    });
    family(
        "toolcell_quarantined",
        "gauge",
        "1 when a tool is kept out or tried, else 0.",
        &|labels, tool| vec![format!("{{{labels}}} {}", u8::from(tool.place.is_held()))],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::quarantine::Place;
    use crate::outcome::Layer;

    #[test]
    fn every_figure_has_its_line_and_no_name_breaks_one() {
        let mut state = State::default();
        let tool = state.tool("t\"\\\n} 1\nx").0;
        tool.statuses = BTreeMap::from([("completed".to_owned(), 3), ("refused".to_owned(), 2)]);
        tool.violations = BTreeMap::from([(Layer::Seccomp, 4)]);
        tool.classes = BTreeMap::from([(0, 1), (2, 1), (CLASSES.len(), 1)]);
        (tool.time, tool.memory_most) = (130_000_001, 1 << 20);
        tool.place = Place::KeptOut { since: 0, because: String::new() };
        let text = text(&BTreeMap::from([("s".to_owned(), state)]));
        for line in text.lines() {
            assert!(line.starts_with('#') || line.starts_with("toolcell_"), "{line}");
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let value = |start: &str, part: &str| {
            let found: Vec<_> = lines
                .iter()
                .filter(|line| line.starts_with(start) && line.contains(part))
                .map(|line| line.rsplit_once(' ').unwrap().1)
                .collect();
            assert_eq!(found.len(), 1, "{start} {part}: {found:?}");
            found[0].to_owned()
        };
        assert_eq!(value("toolcell_calls_total{server=\"s\",tool=\"t\\\"", "status=\"completed\""), "3");
        assert_eq!(value("toolcell_refusals_total", ""), "2");
        assert_eq!(value("toolcell_violations_total", "layer=\"seccomp\""), "4");
        for (most, expected) in [("0.001", "1"), ("0.0025", "1"), ("0.005", "2"), ("120", "2"), ("+Inf", "3")]
        {
            assert_eq!(value("toolcell_call_duration_seconds_bucket", &format!("le=\"{most}\"")), expected);
        }
        assert_eq!(value("toolcell_call_duration_seconds_sum", ""), "130.000001");
        assert_eq!(value("toolcell_call_duration_seconds_count", ""), "3");
        assert_eq!(value("toolcell_memory_peak_bytes", ""), "1048576");
        assert_eq!(value("toolcell_quarantined", ""), "1");
    }
}
