//! What is unusual in a tool, who is told, and when a tool is refused for it: the sections `anomalies`, `alerts`,
//! `quarantine` and `export` of the file of `--config`.
//!
//! Neighbours: `policy::config` reads the rest of the file; `guard` acts by these values. Never: looks whether a file or
//! program is there.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::toml_file::{TomlFile, Value};

/// The sections and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    (
        "anomalies",
        &["refusals", "destination", "memory", "time", "first-call", "unauthorised", "unrecorded", "after"],
    ),
    ("alerts", &["command", "patience", "file", "syslog", "every", "most"]),
    ("quarantine", &["violations", "within", "refuse", "profile", "clean"]),
    ("export", &["prometheus", "otel", "every"]),
];

const COUNTS: RangeInclusive<u32> = 1..=1_000_000;
const BUDGETS: RangeInclusive<u32> = 1..=1_000;
const FACTORS: RangeInclusive<u32> = 1..=1_000;
const CALLS: RangeInclusive<u32> = 5..=64;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const INTERVALS: RangeInclusive<Duration> = SECOND..=DAY;
const TIMES: RangeInclusive<Duration> = SECOND..=Duration::from_secs(365 * 24 * 60 * 60);

/// What the file says of unusual calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarding {
    /// What counts as unusual; `None` when nothing is looked at.
    pub anomalies: Option<Anomalies>,
    /// Who is told.
    pub alerts: Option<Alerts>,
    /// When a tool is refused.
    pub quarantine: Option<Quarantine>,
    /// Where figures and traces go.
    pub export: Option<Export>,
}

impl Guarding {
    /// Whether anything of it needs what was before.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.anomalies.is_some()
            || self.quarantine.is_some()
            || self.export.as_ref().is_some_and(|export| export.prometheus.is_some())
    }

    /// The profile of calls that are tried, if one is named.
    #[must_use]
    pub fn tried(&self) -> Option<&str> {
        self.quarantine.as_ref()?.profile.as_deref()
    }
}

/// The rules, each with its threshold; `None` or `false`: it is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomalies {
    /// So many calls in a row in which something was refused.
    pub refusals: Option<u32>,
    /// A destination that the tool has not tried before.
    pub destination: bool,
    /// Memory so many times as far from the tool's median as its calls usually are.
    pub memory: Option<u32>,
    /// The same for time.
    pub time: Option<u32>,
    /// A tool that was never called before.
    pub first_call: bool,
    /// A request that `[auth]` or a role refuses.
    pub unauthorised: bool,
    /// A record that cannot be written.
    pub unrecorded: bool,
    /// Calls after which a tool's usual is known.
    pub after: u32,
}

impl Default for Anomalies {
    fn default() -> Self {
        Self {
            refusals: Some(5),
            destination: true,
            memory: Some(10),
            time: Some(10),
            first_call: true,
            unauthorised: true,
            unrecorded: true,
            after: 20,
        }
    }
}

/// Who is told of an anomaly, beside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerts {
    /// A program and its arguments, which gets the alert on stdin.
    pub command: Option<Vec<String>>,
    /// How long it may take.
    pub patience: Duration,
    /// A file to which each alert is appended.
    pub file: Option<PathBuf>,
    /// The host's log.
    pub syslog: bool,
    /// The time in which alerts of one kind are one, and in which
    pub every: Duration,
    /// so many are sent at most.
    pub most: u32,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            command: None,
            patience: Duration::from_secs(10),
            file: None,
            syslog: false,
            every: Duration::from_secs(60),
            most: 20,
        }
    }
}

/// When a tool is refused, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// More violations than so many
    pub violations: u32,
    /// in this time, and the tool is refused
    pub within: Duration,
    /// for this one. Then it is tried
    pub refuse: Duration,
    /// under this profile, or its own with less,
    pub profile: Option<String>,
    /// until so many calls had no violation.
    pub clean: u32,
}

/// Where figures and traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// A file in the text format of Prometheus.
    pub prometheus: Option<PathBuf>,
    /// A file of spans as OTLP JSON.
    pub otel: Option<PathBuf>,
    /// The time in which the first is written at most once.
    pub every: Duration,
}

/// Reads the sections; `profiles` are the names of the profiles there are.
pub(super) fn read(file: &mut TomlFile<'_>, table: &DeTable<'_>, profiles: &BTreeSet<String>) -> Guarding {
    let mut reader = Reader { file, profiles };
    let alerts = reader.section(table, "alerts", Reader::alerts);
    let anomalies = reader.section(table, "anomalies", Reader::anomalies);
    Guarding {
        // Who wants to be told wants to be told of something.
        anomalies: anomalies.or_else(|| alerts.is_some().then(Anomalies::default)),
        alerts,
        quarantine: reader.section(table, "quarantine", Reader::quarantine),
        export: reader.section(table, "export", Reader::export),
    }
}

struct Reader<'f, 's, 'n> {
    file: &'f mut TomlFile<'s>,
    profiles: &'n BTreeSet<String>,
}

fn keys(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

impl Reader<'_, '_, '_> {
    fn section<T>(
        &mut self,
        table: &DeTable<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Value<'_>, &DeTable<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = table.get(name)?;
        let section = self.file.table(value, &format!("`{name}`"))?;
        read(self, value, section)
    }

    fn anomalies(&mut self, _section: &Value<'_>, table: &DeTable<'_>) -> Option<Anomalies> {
        let mut rules = Anomalies::default();
        for (key, _, value) in self.file.entries(table, "`[anomalies]`", keys("anomalies")) {
            match key {
                "refusals" => self.threshold(value, "`refusals`", &COUNTS, &mut rules.refusals),
                "memory" => self.threshold(value, "`memory`", &FACTORS, &mut rules.memory),
                "time" => self.threshold(value, "`time`", &FACTORS, &mut rules.time),
                "destination" => self.switch(value, "`destination`", &mut rules.destination),
                "first-call" => self.switch(value, "`first-call`", &mut rules.first_call),
                "unauthorised" => self.switch(value, "`unauthorised`", &mut rules.unauthorised),
                "unrecorded" => self.switch(value, "`unrecorded`", &mut rules.unrecorded),
                _ => rules.after = self.file.count(value, "`after`", &CALLS).unwrap_or(rules.after),
            }
        }
        Some(rules)
    }

    /// `"on"` and `"off"`. `None`: it is neither, which is noted.
    fn on_or_off(&mut self, value: &Value<'_>, name: &str, hint: &str) -> Option<bool> {
        match value.get_ref().as_str() {
            Some("on") => Some(true),
            Some("off") => Some(false),
            _ => {
                self.file.mistake(
                    &value.span(),
                    &format!("{name} has a value that it cannot have"),
                    Some(hint),
                );
                None
            }
        }
    }

    fn switch(&mut self, value: &Value<'_>, name: &str, rule: &mut bool) {
        *rule = self.on_or_off(value, name, "write \"on\" or \"off\"").unwrap_or(*rule);
    }

    fn threshold(
        &mut self,
        value: &Value<'_>,
        name: &str,
        range: &RangeInclusive<u32>,
        rule: &mut Option<u32>,
    ) {
        if matches!(value.get_ref(), DeValue::Integer(_)) {
            *rule = self.file.count(value, name, range).or(*rule);
        } else if self.on_or_off(value, name, "write a whole number, \"on\" or \"off\"") == Some(false) {
            *rule = None;
        }
    }

    fn alerts(&mut self, section: &Value<'_>, table: &DeTable<'_>) -> Option<Alerts> {
        let mut alerts = Alerts::default();
        for (key, _, value) in self.file.entries(table, "`[alerts]`", keys("alerts")) {
            match key {
                "command" => alerts.command = self.command(value),
                "patience" => {
                    let read = self.file.duration(value, "`patience`", &PATIENCES);
                    alerts.patience = read.unwrap_or(alerts.patience);
                }
                "file" => alerts.file = self.path(value, "`file`"),
                "syslog" => match value.get_ref().as_bool() {
                    Some(syslog) => alerts.syslog = syslog,
                    None => self.file.wrong_kind(value, "`syslog`", "`true` or `false`"),
                },
                "every" => {
                    alerts.every = self.file.duration(value, "`every`", &INTERVALS).unwrap_or(alerts.every);
                }
                _ => alerts.most = self.file.count(value, "`most`", &BUDGETS).unwrap_or(alerts.most),
            }
        }
        if alerts.command.is_none() && alerts.file.is_none() && !alerts.syslog && self.file.is_right() {
            let hint = "write `command = [\"program\"]`, `file = \"/path\"` or `syslog = true`";
            self.file.mistake(&section.span(), "`[alerts]` tells nobody", Some(hint));
        }
        Some(alerts)
    }

    fn command(&mut self, value: &Value<'_>) -> Option<Vec<String>> {
        if value.get_ref().as_str().is_some() {
            let hint = "there is no shell: write `[\"program\", \"argument\"]`";
            self.file.mistake(&value.span(), "`command` must be an array, not a string", Some(hint));
            return None;
        }
        let mut command = Vec::new();
        for item in self.file.items(value, "`command`") {
            let word = self.file.text(item, "an item of `command`")?;
            if word.contains('\0') {
                self.file.mistake(&item.span(), "an item of `command` holds a NUL", None);
            }
            command.push(word.to_owned());
        }
        match command.first().map(|program| program.starts_with('/')) {
            Some(true) => Some(command),
            Some(false) => {
                let hint = "write its whole path, so that it is not looked for";
                self.file.mistake(&value.span(), "the program of `command` has no absolute path", Some(hint));
                None
            }
            None => {
                self.file.mistake(&value.span(), "`command` names no program", None);
                None
            }
        }
    }

    fn path(&mut self, value: &Value<'_>, name: &str) -> Option<PathBuf> {
        let text = self.file.text(value, name)?;
        if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
            return Some(PathBuf::from(text));
        }
        self.file.mistake(&value.span(), &format!("{name} must be the absolute path of a file"), None);
        None
    }

    fn quarantine(&mut self, section: &Value<'_>, table: &DeTable<'_>) -> Option<Quarantine> {
        let mut quarantine = Quarantine {
            violations: 0,
            within: Duration::from_secs(60 * 60),
            refuse: Duration::from_secs(10 * 60),
            profile: None,
            clean: 5,
        };
        for (key, _, value) in self.file.entries(table, "`[quarantine]`", keys("quarantine")) {
            match key {
                "violations" => {
                    quarantine.violations = self.file.count(value, "`violations`", &BUDGETS).unwrap_or(1);
                }
                "within" => {
                    let read = self.file.duration(value, "`within`", &TIMES);
                    quarantine.within = read.unwrap_or(quarantine.within);
                }
                "refuse" => {
                    let read = self.file.duration(value, "`refuse`", &TIMES);
                    quarantine.refuse = read.unwrap_or(quarantine.refuse);
                }
                "profile" => quarantine.profile = self.file.profile(value, self.profiles),
                _ => {
                    let read = self.file.count(value, "`clean`", &COUNTS);
                    quarantine.clean = read.unwrap_or(quarantine.clean);
                }
            }
        }
        if !table.contains_key("violations") {
            let hint = "write how many violations of its cells a tool may have, such as `violations = 20`";
            self.file.mistake(&section.span(), "`[quarantine]` has no `violations`", Some(hint));
        }
        Some(quarantine)
    }

    fn export(&mut self, section: &Value<'_>, table: &DeTable<'_>) -> Option<Export> {
        let mut export = Export { prometheus: None, otel: None, every: Duration::from_secs(15) };
        for (key, _, value) in self.file.entries(table, "`[export]`", keys("export")) {
            match key {
                "prometheus" => export.prometheus = self.path(value, "`prometheus`"),
                "otel" => export.otel = self.path(value, "`otel`"),
                _ => export.every = self.file.duration(value, "`every`", &INTERVALS).unwrap_or(export.every),
            }
        }
        if export.prometheus.is_none() && export.otel.is_none() && self.file.is_right() {
            let hint = "write `prometheus = \"/path/toolcell.prom\"` or `otel = \"/path/spans.jsonl\"`";
            self.file.mistake(&section.span(), "`[export]` names no file", Some(hint));
        }
        Some(export)
    }
}

#[cfg(test)]
mod tests;
