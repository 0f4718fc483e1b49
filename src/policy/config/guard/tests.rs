//! The sections as people write them, right and wrong.

use super::super::super::Source;
use super::super::parse;
use super::*;
use crate::policy::mistakes::Mistakes;

fn read(text: &str) -> Result<Guarding, Mistakes> {
    let text = format!("[servers.git]\ncommand = [\"git\"]\n{text}");
    let source = Source { name: "c".to_owned(), path: Some("/etc/cells/config.toml".into()), text };
    parse(&source, &BTreeSet::from(["strict".to_owned()])).map(|config| config.guarding)
}

#[test]
fn what_is_written_is_what_holds() {
    let text = r#"
[anomalies]
refusals = 3
memory = "off"
time = "on"
destination = "off"
after = 10
[alerts]
command = ["/usr/bin/notify", "a b"]
patience = "2s"
file = "/var/log/alerts"
syslog = true
every = "5m"
most = 3
[quarantine]
violations = 20
within = "2h"
refuse = "30m"
profile = "strict"
clean = 3
[export]
prometheus = "/var/lib/node/toolcell.prom"
otel = "/var/log/spans"
every = "1m"
"#;
    let guarding = read(text).unwrap();
    let rules = guarding.anomalies.unwrap();
    assert_eq!((rules.refusals, rules.memory, rules.time, rules.after), (Some(3), None, Some(10), 10));
    assert!(!rules.destination && rules.first_call && rules.unauthorised && rules.unrecorded);
    let alerts = guarding.alerts.unwrap();
    assert_eq!(alerts.command.unwrap(), ["/usr/bin/notify", "a b"]);
    assert_eq!((alerts.patience.as_secs(), alerts.every.as_secs(), alerts.most), (2, 300, 3));
    let quarantine = guarding.quarantine.unwrap();
    assert_eq!((quarantine.violations, quarantine.clean), (20, 3));
    assert_eq!(quarantine.profile.as_deref(), Some("strict"));
    assert_eq!(guarding.export.unwrap().every.as_secs(), 60);
    assert_eq!(read("").unwrap(), Guarding::default());
    // Who is told is told of something; who looks need not be told.
    assert_eq!(read("[alerts]\nsyslog = true").unwrap().anomalies, Some(Anomalies::default()));
    assert_eq!(read("[anomalies]").unwrap().alerts, None);
    assert_eq!(read("[quarantine]\nviolations = 1").unwrap().anomalies, None);
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"
[anomalies]
refusals = 0
memory = "sometimes"
destination = true
afterwards = 1
[alerts]
command = "mail -s alert me"
patience = "1h"
syslog = "yes"
[quarantine]
within = "10"
profile = "strickt"
[export]
prometheus = "relative"
"#;
    let told = read(text).unwrap_err().to_string();
    for mistake in [
        "`refusals` of `0` is out of range",
        "`memory` has a value that it cannot have",
        "`destination` has a value that it cannot have",
        "unknown key `afterwards` in `[anomalies]`",
        "`command` must be an array, not a string",
        "`patience` of `1h` is out of range",
        "`syslog` must be `true` or `false`, not a string",
        "`[quarantine]` has no `violations`",
        "`10` has no unit",
        "did you mean `strict`?",
        "`prometheus` must be the absolute path of a file",
    ] {
        assert!(told.contains(mistake), "{mistake}\n{told}");
    }
    for (text, mistake) in [
        ("[alerts]", "`[alerts]` tells nobody"),
        ("[alerts]\ncommand = []", "`command` names no program"),
        ("[alerts]\ncommand = [\"mail\"]", "has no absolute path"),
        ("[export]\nevery = \"1m\"", "`[export]` names no file"),
        ("[quarantine]\nviolations = 1001", "`violations` of `1001` is out of range"),
    ] {
        let told = read(text).unwrap_err().to_string();
        assert!(told.contains(mistake), "{mistake}\n{told}");
    }
}
