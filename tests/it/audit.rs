//! The audit log as its readers and its writers in other processes meet it.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use toolcell::audit::{
    Alerted, Checkpoint, Continued, Finished, Key, Known, Log, Quarantined, Reader, SCHEMA, Started, Torn,
    Verdict,
};
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
    /// What a record of this kind has, and the number and the hash that the log adds.
    fn is_whole<T: Serialize + DeserializeOwned>(example: &str, event: &str) {
        let value: Value = serde_json::from_str(example).unwrap();
        assert_eq!((&value["schema"], &value["event"]), (&json!(SCHEMA), &json!(event)));
        let mut again = serde_json::to_value(serde_json::from_str::<T>(example).unwrap()).unwrap();
        for added in ["number", "chain"] {
            again[added] = value[added].clone();
        }
        assert_eq!(again, value);
        assert!(value["number"].is_u64() && value["chain"].as_str().unwrap().len() == 64);
    }
    let [started, finished, torn, checkpoint, continued, alert, quarantine] = examples().try_into().unwrap();
    is_whole::<Started>(started, "started");
    is_whole::<Finished>(finished, "finished");
    is_whole::<Torn>(torn, "torn");
    is_whole::<Checkpoint>(checkpoint, "checkpoint");
    is_whole::<Continued>(continued, "continued");
    is_whole::<Alerted>(alert, "alert");
    is_whole::<Quarantined>(quarantine, "quarantine");
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
        Layer::Arguments,
        Layer::Quarantine,
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
    for record in 0..RECORDS {
        log.write(&json!({ "pid": std::process::id(), "record": record, "text": "x\n".repeat(3_000) }))
            .unwrap();
    }
}

/// What is found of a log's lines.
fn verdict(log: &[u8]) -> Verdict {
    let mut reader = Reader::default();
    reader.read(log).unwrap();
    reader.verdict(Known::default())
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
            .stdout(Stdio::null())
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
        .map(|record| (record["pid"].as_u64().unwrap(), record["record"].as_u64().unwrap()))
        .collect();
    assert_eq!(records.len(), usize::try_from(WRITERS * RECORDS).unwrap());
    let Verdict { records, findings, torn, .. } = verdict(text.as_bytes());
    assert_eq!((records, findings, torn), (u64::from(WRITERS * RECORDS), vec![], vec![]));
}

/// Names the log in the environment of a copy of this process that is to write to it until it is killed.
const ENDLESS: &str = "TOOLCELL_TEST_ENDLESS_LOG";

#[test]
fn a_writer_that_is_killed_loses_at_most_the_line_that_it_was_writing() {
    if let Some(path) = std::env::var_os(ENDLESS) {
        let owner = std::fs::metadata(Path::new(&path).parent().unwrap()).unwrap().uid();
        let log = Log::open(Path::new(&path), owner).unwrap();
        for record in 1_u64.. {
            log.write(&json!({ "record": record, "text": "x".repeat(70_000) })).unwrap();
            // Told when it is in the log, and not before.
            io::stderr().write_all(&record.to_le_bytes()).unwrap();
        }
    }
    let directory = std::env::temp_dir().join(format!("toolcell-it-killed-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("log");
    let (mut told, mut left) = (0, 0);
    for round in 0..20 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::a_writer_that_is_killed_loses_at_most_the_line_that_it_was_writing"])
            .env(ENDLESS, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = writer.stderr.take().unwrap();
        let mut word = [0; 8];
        // At least one record; then at another moment each round.
        for _ in 0..=round {
            words.read_exact(&mut word).unwrap();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let mut rest = Vec::new();
        words.read_to_end(&mut rest).unwrap();
        told += round + 1 + rest.len() / 8;
        left += usize::from(!std::fs::read(&path).unwrap().ends_with(b"\n"));
        let owner = std::fs::metadata(&directory).unwrap().uid();
        Log::open(&path, owner).unwrap();
    }
    let text = std::fs::read(&path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let Verdict { records, findings, torn, unfinished, .. } = verdict(&text);
    assert_eq!((findings, unfinished), (vec![], None));
    assert_eq!(torn.len(), left);
    let written = usize::try_from(records).unwrap() - torn.len();
    assert!((told..=told + 20).contains(&written), "{told} told, {written} written");
}

#[test]
fn verify_names_the_line_that_was_touched() {
    let directory = std::env::temp_dir().join(format!("toolcell-it-verify-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("log");
    let owner = std::fs::metadata(&directory).unwrap().uid();
    let log = Log::open(&path, owner).unwrap();
    for record in 0..5 {
        log.write(&json!({ "record": record })).unwrap();
    }
    let state = directory.join("state");
    let toolcell = |more: &[&str]| {
        Command::new(crate::binary()).arg("audit").args(more).env("XDG_STATE_HOME", &state).output().unwrap()
    };
    let verify = |more: &[&str]| {
        let output = toolcell(&[&["verify", path.to_str().unwrap()], more].concat());
        let [said, told] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), said, told)
    };
    let (code, said, _) = verify(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("5 records, as it was written"), "{said}");
    assert!(said.ends_with("\n5 records and no checkpoint: chained, not signed\n"), "{said}");
    assert!(!state.exists(), "verifying makes no key");
    let head = said.split(' ').nth(9).unwrap().trim_end_matches("\n5").to_owned();

    // Signed by the key of this installation, which is shown.
    let public = String::from_utf8(toolcell(&["key"]).stdout).unwrap();
    let key = Key::at(&state.join("toolcell/audit.key"), owner).unwrap();
    log.sign(&key).unwrap();
    log.write(&json!({ "record": 5 })).unwrap();
    let (code, said, _) = verify(&["--known", &head]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nsigned up to record 6, at 20") && said.contains(public.trim_end()), "{said}");
    assert!(said.ends_with("\n1 records after the last checkpoint: chained, not signed\n"), "{said}");
    let other = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let (code, said, _) = verify(&["--key", other]);
    assert_eq!(code, Some(118));
    assert!(said.contains("/log:6: record 6 is a checkpoint that the key did not sign\n"), "{said}");
    assert_eq!(verify(&["--known", &head.replace("5:", "6:")]).0, Some(118));
    for wrong in [["--key", "12"], ["--known", "5"]] {
        let (code, _, told) = verify(&wrong);
        assert_eq!(code, Some(2));
        assert!(told.contains("error: cannot use the value") && told.contains("\nhint: write "), "{told}");
    }
    // Cut off, with a chain that is whole.
    let whole = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    std::fs::write(&path, lines[..4].concat()).unwrap();
    let (code, said, _) = verify(&[]);
    assert_eq!(code, Some(118));
    assert!(said.contains("/log:4: records 5 to 6 were removed\n"), "{said}");
    // A start says so too, and goes on behind the gap.
    let log = Log::open(&path, owner).unwrap();
    assert!(log.remarks()[0].starts_with("records 5 to 6 of the audit log"), "{:?}", log.remarks());
    log.write(&json!({ "record": 6 })).unwrap();
    assert!(verify(&[]).1.contains("/log:5: records 5 to 6 were removed\n"));
    std::fs::write(&path, &whole).unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"record\":2", "\"record\":9")).unwrap();
    let (code, said, told) = verify(&[]);
    assert_eq!((code, told.as_str()), (Some(118), ""));
    assert!(said.contains("/log:3: record 3 was edited"), "{said}");
    let (code, said, _) = verify(&["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(118));
    let finding = &said["findings"][0];
    assert_eq!((&finding["at"]["line"], &finding["found"]["kind"]), (&json!(3), &json!("edited")));

    std::fs::remove_file(&path).unwrap();
    let (code, _, told) = verify(&[]);
    assert_eq!(code, Some(1));
    assert!(
        told.starts_with("error: cannot open `") && told.contains("\nhint: nothing was recorded yet"),
        "{told}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_cell_cannot_read_change_or_remove_the_records_about_it() {
    let directory = std::path::PathBuf::from(format!("/var/tmp/toolcell-own-records-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let [log, report] = ["log", "report"].map(|name| directory.join(name).display().to_string());
    let tries = format!(
        "cat {log} {log}.checkpoint {report}; echo x >> {log}; echo x > {log}.checkpoint; mv {log} {log}.old; rm {report}; echo made > {log}.new"
    );
    let output = Command::new(crate::binary())
        .args(["exec", "--floor", "no-cgroup", "--write", directory.to_str().unwrap()])
        .args(["--audit", &log, "--report", &report, "--", "/bin/sh", "-c", &tries])
        .env("XDG_STATE_HOME", directory.join("state"))
        .output()
        .unwrap();
    let (records, written) =
        (std::fs::read_to_string(&log).unwrap(), std::fs::read_to_string(directory.join("log.new")).unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "something of the records was read");
    assert_eq!(records.lines().count(), 3, "{records}");
    assert_eq!(verdict(records.as_bytes()).findings, vec![]);
    assert!(std::fs::read_to_string(&report).unwrap().contains("finished"));
    assert_eq!(written, "made\n", "the grant itself works");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_key_that_cannot_be_used_loses_no_record_and_no_report() {
    let directory = std::path::PathBuf::from(format!("/var/tmp/toolcell-bad-key-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("state/toolcell")).unwrap();
    let key = directory.join("state/toolcell/audit.key");
    std::fs::write(&key, "no key\n").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let [log, report] = ["log", "report"].map(|name| directory.join(name));
    let output = Command::new(crate::binary())
        .args(["exec", "--floor", "no-cgroup", "--audit"])
        .arg(&log)
        .arg("--report")
        .arg(&report)
        .args(["--", "/bin/echo", "ran"])
        .env("XDG_STATE_HOME", directory.join("state"))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(123), b"ran\n".as_slice()), "{told}");
    assert!(told.contains("holds no key") && told.contains("\nhint: "), "{told}");
    for file in [log, report] {
        assert!(std::fs::read_to_string(&file).unwrap().contains("finished"), "{}", file.display());
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn no_cell_sees_what_is_toolcells_own() {
    let home = std::path::PathBuf::from(format!("/var/tmp/toolcell-own-home-{}", std::process::id()));
    let own = home.join(".local/state/toolcell");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("file"), "seen\n").unwrap();
    let link = home.with_extension("link");
    std::os::unix::fs::symlink(&home, &link).unwrap();
    let exec = |home: &Path, grant: &[&str], script: &str| {
        let output = Command::new(crate::binary())
            .args(["exec", "--floor", "no-cgroup"])
            .args(grant)
            .args(["--", "/bin/sh", "-c", script])
            .env("HOME", home)
            .env_remove("XDG_STATE_HOME")
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let at = home.to_str().unwrap();
    // Nothing is there yet, and nothing can be put there, by either name of the directory.
    let plant = format!(
        "cd {at}; mkdir -p .local/state/toolcell; echo x > .local/state/toolcell/audit.key; echo $?; cat file"
    );
    for home in [&home, &link] {
        let (said, told) = exec(home, &["--write", at], &plant);
        assert!(said.ends_with("seen\n") && !said.starts_with('0'), "{said}{told}");
        assert!(!own.join("audit.key").exists(), "{said}{told}");
    }

    let mut key = Command::new(crate::binary());
    let key = key.args(["audit", "key"]).env("HOME", &home).env_remove("XDG_STATE_HOME").output().unwrap();
    assert!(key.status.success());
    std::fs::write(own.join("audit.jsonl"), "a record\n").unwrap();
    let secret = std::fs::read_to_string(own.join("audit.key")).unwrap();
    let tries = format!(
        "cd {at}; cat file; ls .local/state/toolcell; cat .local/state/toolcell/*; mv .local l; echo x > .local/state/toolcell/audit.key"
    );
    for home in [&home, &link] {
        for grant in ["--read", "--write"] {
            let (said, told) = exec(home, &[grant, at], &tries);
            assert_eq!(said, "seen\n", "{told}");
        }
    }
    assert_eq!(std::fs::read_to_string(own.join("audit.key")).unwrap(), secret);
    std::fs::remove_file(link).unwrap();
    std::fs::remove_dir_all(home).unwrap();
}
