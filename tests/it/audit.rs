//! The audit log as its readers and its writers in other processes meet it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};
use toolcell::audit::{Finished, Log, SCHEMA, Started};
use toolcell::outcome::{Layer, Limit};
use toolcell::policy::Floor;

const DOCUMENT: &str = include_str!("../../docs/audit.md");

/// The blocks of JSON in the document.
fn examples() -> Vec<&'static str> {
    DOCUMENT.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The names of all fields of a record, except the keys of maps that are data.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                found.insert(name.clone());
                if name != "layers" && name != "coverage" && name != "value" {
                    fields(member, found);
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| fields(element, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_documented_examples_are_whole_records() {
    let [started, finished] = examples().try_into().unwrap();
    let parsed: Started = serde_json::from_str(started).unwrap();
    assert_eq!((parsed.schema.as_str(), parsed.event.as_str()), (SCHEMA, "started"));
    assert_eq!(serde_json::to_value(&parsed).unwrap(), serde_json::from_str::<Value>(started).unwrap());

    let parsed: Finished = serde_json::from_str(finished).unwrap();
    assert_eq!((parsed.schema.as_str(), parsed.event.as_str()), (SCHEMA, "finished"));
    assert_eq!(serde_json::to_value(&parsed).unwrap(), serde_json::from_str::<Value>(finished).unwrap());
}

#[test]
fn every_field_and_every_name_is_documented() {
    let mut names = BTreeSet::from(["kind", "detail", "limit"].map(str::to_owned));
    for example in examples() {
        fields(&serde_json::from_str(example).unwrap(), &mut names);
    }
    for name in names {
        let row = |line: &str| {
            line.starts_with("| `")
                && line.split('`').nth(1).is_some_and(|path| path.split('.').next_back() == Some(&name))
        };
        assert!(DOCUMENT.lines().any(row), "no row for `{name}`");
    }
    let limits = [
        Limit::Memory,
        Limit::Cpu,
        Limit::Tasks,
        Limit::Time,
        Limit::Output,
        Limit::OpenFiles,
        Limit::FileSize,
        Limit::Scratch,
    ];
    let layers = [
        Layer::Namespaces,
        Layer::Root,
        Layer::Landlock,
        Layer::Seccomp,
        Layer::Capabilities,
        Layer::Cgroup,
        Layer::Rlimit,
        Layer::Deadline,
        Layer::Output,
        Layer::Protocol,
        Layer::Access,
    ];
    let values =
        limits.map(Limit::name).into_iter().chain(layers.map(Layer::name)).chain(Floor::ALL.map(Floor::name));
    for value in values {
        assert!(DOCUMENT.contains(&format!("`{value}`")), "{value}");
    }
}

/// Names the log in the environment of a copy of this process that is to write to it.
const WRITER: &str = "TOOLCELL_TEST_LOG";
const WRITERS: u32 = 4;
const RECORDS: u32 = 150;

fn write_records(path: &Path) {
    let owner = std::fs::metadata(path.parent().unwrap()).unwrap().uid();
    let log = Log::open(path, owner).unwrap();
    for number in 0..RECORDS {
        log.write(&json!({ "pid": std::process::id(), "number": number, "text": "x\n".repeat(3_000) }))
            .unwrap();
    }
}

#[test]
fn several_processes_leave_whole_lines_in_one_log() {
    if let Some(path) = std::env::var_os(WRITER) {
        return write_records(Path::new(&path));
    }
    let directory = std::env::temp_dir().join(format!("toolcell-it-audit-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("log");
    let start = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::several_processes_leave_whole_lines_in_one_log"])
            .env(WRITER, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let writers: Vec<Child> = (0..WRITERS).map(|_| start()).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();

    let records: BTreeSet<(u64, u64)> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|record| (record["pid"].as_u64().unwrap(), record["number"].as_u64().unwrap()))
        .collect();
    assert_eq!(records.len(), usize::try_from(WRITERS * RECORDS).unwrap());
}

#[test]
fn a_cell_cannot_read_change_or_remove_the_records_about_it() {
    let directory = std::path::PathBuf::from(format!("/var/tmp/toolcell-own-records-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let [log, report] = ["log", "report"].map(|name| directory.join(name).display().to_string());
    let tries = format!(
        "cat {log} {report}; echo x >> {log}; mv {log} {log}.old; rm {report}; echo made > {log}.new"
    );
    let output = Command::new(crate::binary())
        .args(["exec", "--floor", "no-cgroup", "--write", directory.to_str().unwrap()])
        .args(["--audit", &log, "--report", &report, "--", "/bin/sh", "-c", &tries])
        .output()
        .unwrap();
    let (records, written) =
        (std::fs::read_to_string(&log).unwrap(), std::fs::read_to_string(directory.join("log.new")).unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "something of the records was read");
    assert_eq!(records.lines().count(), 2, "{records}");
    assert!(std::fs::read_to_string(&report).unwrap().contains("finished"));
    assert_eq!(written, "made\n", "the grant itself works");
    std::fs::remove_dir_all(directory).unwrap();
}
