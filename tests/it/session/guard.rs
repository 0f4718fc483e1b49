//! Alerts with a real program, quarantine from the first refusal to the release, in sessions after and beside each other.
//!
//! Never: waits for time where there is an event.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session_in, text};

/// Waits until the log has so many records of this event.
async fn recorded(client: &Client, event: &str, count: usize) {
    let event = format!("\"event\":\"{event}\"");
    while client.log().matches(&event).count() < count {
        tokio::task::yield_now().await;
    }
}

/// Waits until something is there.
async fn there(path: &Path) {
    while !path.exists() {
        tokio::task::yield_now().await;
    }
}

/// A call whose end is recorded before this returns, the number of ended calls being what it was before and one more.
async fn call(client: &mut Client, ended: &mut usize, bad: bool) -> Value {
    *ended += 1;
    client.start_call(*ended as u64, "maybe", json!({ "bad": bad })).await;
    let answer = client.read().await;
    recorded(client, "finished", *ended).await;
    answer
}

/// Processor time of which half is enough for a start of the server: to be slowed down is a violation, too.
fn enough() -> Vec<String> {
    ["--cpu", "4"].map(str::to_owned).to_vec()
}

fn steps(book: &Book) -> Vec<&str> {
    let steps = book.guarded.iter().filter(|record| record["event"] == "quarantine");
    steps.map(|record| record["step"].as_str().unwrap()).collect()
}

fn alerts<'a>(book: &'a Book, rule: &str) -> Vec<&'a Value> {
    book.guarded.iter().filter(|record| record["alert"]["rule"] == rule).collect()
}

fn toolcell(scratch: &Scratch, arguments: &[&str]) -> Output {
    Command::new(crate::binary())
        .args(arguments)
        .env("XDG_STATE_HOME", scratch.0.join("state"))
        .output()
        .unwrap()
}

/// What a person types.
fn in_a_shell(scratch: &Scratch, typed: &str) -> Output {
    Command::new("/bin/sh")
        .args(["-c", typed])
        .env("PATH", crate::binary().parent().unwrap())
        .env("XDG_STATE_HOME", scratch.0.join("state"))
        .output()
        .unwrap()
}

fn state(scratch: &Scratch) -> PathBuf {
    scratch.0.join("state/toolcell/guard/fixture.json")
}

fn script(scratch: &Scratch, text: &str) -> String {
    let path = scratch.0.join("told.sh");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const AUTH: &str = "[auth]\nmode = \"token\"\n[identities.reader]\nroles = [\"look\"]\n[roles.look]\nallow = [\"fixture/who\"]\n";

#[test]
fn an_attempt_is_told_to_a_program_and_a_file_and_the_log_says_when() {
    let scratch = Scratch::new();
    let program = script(&scratch, "cat >> \"$1/told\"; env > \"$1/env\"\n");
    let place = scratch.0.to_str().unwrap();
    let config = format!(
        "{AUTH}[alerts]\ncommand = [\"/bin/sh\", {program:?}, {place:?}]\nfile = \"{place}/alerts\"\n"
    );
    let env = vec![("TOOLCELL_TOKEN", "wrong".to_owned()), ("SECRET_OF_THE_CLIENT", "x".to_owned())];
    let book = session_in(&scratch, &Setup { config, env, ..Setup::default() }, |mut client| async move {
        assert_eq!(client.call(1, "who").await["error"]["code"], 401);
        recorded(&client, "alert", 1).await;
        // The next one of this kind is told when the time is over, which the end of the session is too.
        for id in 2..5 {
            client.call(id, "who").await;
        }
        client
    });
    let told = lines(&scratch.0.join("told"));
    assert_eq!(told, lines(&scratch.0.join("alerts")));
    assert_eq!(told.iter().map(|alert| alert["count"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    let alert = &told[0];
    assert_eq!((&alert["rule"], &alert["tool"]), (&json!("unauthorised"), &json!("who")));
    assert_eq!((&alert["recorded"], &alert["call"]), (&json!(true), &book.finished[0]["call"]["id"]));
    assert!(!fs::read_to_string(scratch.0.join("env")).unwrap().contains("SECRET_OF_THE_CLIENT"));
    let record = alerts(&book, "unauthorised")[0];
    assert_eq!(record["alert"], *alert);
    let hooks = record["hooks"].as_array().unwrap();
    assert_eq!(hooks.iter().map(|hook| &hook["hook"]).collect::<Vec<_>>(), ["file", "command"]);
    assert!(hooks.iter().all(|hook| hook["failed"].is_null()), "{record}");
    let first = hooks.iter().map(|hook| hook["after_us"].as_u64().unwrap()).min();
    assert_eq!(record["alerted_us"].as_u64(), first);
    assert!(alert["attempted"].as_str() <= hooks[0]["finished"].as_str(), "{record}");
    assert!(alert["attempted"].as_str() <= book.finished[0]["time"].as_str(), "{record}");
}

#[test]
fn a_hook_that_fails_is_recorded_and_said_and_keeps_no_call_waiting() {
    let scratch = Scratch::new();
    let program = script(&scratch, "exit 7\n");
    let config = format!("[alerts]\ncommand = [\"/bin/sh\", {program:?}]\n[anomalies]\nrefusals = 1\n");
    let book = session_in(&scratch, &Setup { config, ..Setup::default() }, |mut client| async move {
        call(&mut client, &mut 0, true).await;
        recorded(&client, "alert", 1).await;
        client
    });
    let record = alerts(&book, "refusals")[0];
    assert_eq!(record["hooks"][0]["failed"], "exit status: 7");
    assert_eq!(record["alerted_us"], Value::Null);
    let said = fs::read_to_string(scratch.0.join("stderr")).unwrap();
    assert!(said.contains("nobody was told of an alert by `command`: exit status: 7"), "{said}");
}

const QUARANTINE: &str = "[quarantine]\nviolations = 1\nrefuse = \"1h\"\nclean = 2\n";

#[test]
fn a_tool_over_its_budget_is_refused_in_the_next_session_and_beside_it_until_it_is_released() {
    let (scratch, setup) = (Scratch::new(), Setup { config: QUARANTINE.to_owned(), ..Setup::default() });
    let book = session_in(&scratch, &setup, |mut client| async move {
        let mut ended = 0;
        for _ in 0..2 {
            assert_eq!(text(&call(&mut client, &mut ended, true).await), "ok");
        }
        let refused = call(&mut client, &mut ended, false).await;
        assert_eq!(refused["result"]["isError"], true);
        let told = text(&refused);
        assert!(told.starts_with("the tool `maybe` of server `fixture` is kept out until 2"), "{told}");
        assert!(told.contains("more than 1 violations within 1h"), "{told}");
        let audit = client.audit_path().display().to_string();
        let typed = format!("toolcell quarantine release --audit {audit} fixture maybe");
        assert!(told.ends_with(&format!("a person can let it run: {typed}")), "{told}");
        // No other tool is.
        assert!(!text(&client.call(99, "who").await).is_empty());
        client
    });
    assert_eq!(steps(&book), ["refused"]);
    let kept = book.end_of("maybe");
    assert_eq!((&kept["status"]["kind"], &kept["receipt"]), (&json!("refused"), &Value::Null));
    assert_eq!(kept["violations"][0]["layer"], "quarantine");
    let listed = toolcell(&scratch, &["quarantine", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["tool"], &listed[0]["state"]), (&json!("maybe"), &json!("refused")));
    let since = listed[0]["since"].as_str().unwrap();
    assert!(since < listed[0]["until"].as_str().unwrap() && *since <= *text_of(&kept["time"]), "{listed}");
    let shown = toolcell(&scratch, &["quarantine", "list"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&format!("kept out since {since}, until 2")));

    let book = session_in(&scratch, &setup, |mut first| {
        let (scratch, setup) = (&scratch, &setup);
        async move {
            // Its answer says that it has read the files that the second one's start writes anew.
            client_has_begun(&mut first).await;
            let mut second = Client::start(setup, scratch);
            let mut told = String::new();
            for client in [&mut first, &mut second] {
                text(&client.call(1, "maybe").await).clone_into(&mut told);
                assert!(told.contains("kept out until"));
            }
            let typed = told.split("let it run: ").nth(1).unwrap();
            let released = in_a_shell(scratch, typed);
            assert!(released.status.success(), "{released:?}");
            for client in [&mut first, &mut second] {
                assert_eq!(text(&client.call(2, "maybe").await), "ok");
            }
            second.hang_up();
            second.exit().await;
            first
        }
    });
    assert_eq!(steps(&book), ["refused", "released"]);
    let again = toolcell(&scratch, &["quarantine", "release", "fixture", "maybe"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not kept out"));
}

#[test]
fn a_tool_whose_name_no_record_has_is_kept_out_by_its_own() {
    let config = QUARANTINE.replace("\"1h\"", "\"1s\"");
    let filesystem = "[audit]\nredact = [\"/name\"]".to_owned();
    let scratch = Scratch::new();
    let setup = Setup { config, filesystem, options: enough(), ..Setup::default() };
    let book = session_in(&scratch, &setup, |mut client| async move {
        let mut ended = 0;
        for _ in 0..2 {
            assert_eq!(text(&call(&mut client, &mut ended, true).await), "ok");
        }
        assert_eq!(call(&mut client, &mut ended, false).await["result"]["isError"], true);
        assert!(!text(&client.call(99, "who").await).is_empty());
        ended += 1;
        recorded(&client, "finished", ended).await;
        while call(&mut client, &mut ended, false).await["result"]["isError"] == true {}
        client
    });
    assert_eq!(steps(&book), ["refused", "tried"]);
    let mut quarantined = book.guarded.iter().filter(|record| record["event"] == "quarantine");
    assert!(quarantined.all(|record| record["tool"] == "[redacted]"), "{:?}", book.guarded);
    let listed = toolcell(&scratch, &["quarantine", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["tool"], &listed[0]["state"]), (&json!("maybe"), &json!("tried")));
}

#[test]
fn a_name_without_end_is_refused_and_the_guard_goes_on() {
    let (scratch, setup) = (Scratch::new(), Setup { config: QUARANTINE.to_owned(), ..Setup::default() });
    let book = session_in(&scratch, &setup, |mut client| async move {
        for (id, length) in [(10, 1025), (11, 70_000), (12, 1 << 20)] {
            let refused = client.call(id, &"x".repeat(length)).await;
            assert_eq!(refused["error"]["message"], "`params.name` is longer than 1024 bytes", "{refused}");
        }
        assert_eq!(text(&client.call(1, "maybe").await), "ok");
        client
    });
    assert_eq!(book.status_of("maybe"), "completed");
}

#[test]
fn a_tool_is_not_called_while_what_its_cells_were_refused_cannot_be_kept() {
    for again in [true, false] {
        let (scratch, setup) = (Scratch::new(), Setup { config: QUARANTINE.to_owned(), ..Setup::default() });
        let (kept, new) = (state(&scratch), state(&scratch).with_extension("new"));
        let book = session_in(&scratch, &setup, |mut client| async move {
            client_has_begun(&mut client).await;
            recorded(&client, "finished", 1).await;
            there(&kept).await;
            // What it writes to cannot be opened now.
            fs::create_dir(&new).unwrap();
            for id in [100, 101] {
                client.start_call(id, "maybe", json!({ "bad": true })).await;
            }
            for _ in 0..2 {
                assert_eq!(text(&client.read().await), "ok");
            }
            recorded(&client, "finished", 3).await;
            let told = client.call(4, "maybe").await;
            let told = text(&told);
            assert!(told.contains("not known whether it is kept out\ncaused by: what its last"), "{told}");
            assert!(told.ends_with("toolcell quarantine list"), "{told}");
            // No other tool was refused anything.
            assert!(!text(&client.call(5, "who").await).is_empty());
            fs::remove_dir(&new).unwrap();
            if again {
                let told = client.call(6, "maybe").await;
                assert!(text(&told).contains("more than 1 violations within 1h"), "{told}");
            }
            client
        });
        // At the latest at the end of the session.
        let list = || toolcell(&scratch, &["quarantine", "list", "--json"]).stdout;
        let until = Instant::now() + Duration::from_secs(10) * crate::host::patience();
        while list() == b"[]\n" && Instant::now() < until {}
        let listed: Value = serde_json::from_slice(&list()).unwrap();
        assert_eq!((&listed[0]["tool"], &listed[0]["state"]), (&json!("maybe"), &json!("refused")));
        assert!(!again || steps(&book) == ["refused"], "{:?}", steps(&book));
    }
}

#[test]
fn a_tool_is_not_released_by_a_key_that_cannot_be_trusted() {
    use toolcell::guard::{Place, Store};
    let scratch = Scratch::new();
    let directory = scratch.0.join("state/toolcell");
    let mut held = Store::new(&directory, toolcell::sys::identity::effective().0).hold("git").unwrap();
    let place = Place::KeptOut { since: 0, because: "b".to_owned() };
    held.state.tools.entry("it's a tool".to_owned()).or_default().place = place;
    held.write().unwrap();
    drop(held);
    let listed = toolcell(&scratch, &["quarantine", "list"]);
    let shown = "git  it's a tool  kept out since 1970-01-01T00:00:00.000000Z, until it is released: b\n";
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), shown);
    let key = directory.join("audit.key");
    fs::write(&key, "no key\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let release = || in_a_shell(&scratch, r"toolcell quarantine release git 'it'\''s a tool'");
    let refused = release();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("holds no key"), "{said}");
    assert!(said.contains("hint: bring it back from a backup"), "{said}");
    assert_eq!(toolcell(&scratch, &["quarantine", "list"]).stdout, shown.as_bytes());
    fs::remove_file(&key).unwrap();
    assert!(release().status.success());
    assert_eq!(toolcell(&scratch, &["quarantine", "list"]).stdout, b"no tool is kept out\n");
}

#[test]
fn where_there_is_no_place_a_way_on_is_told() {
    let scratch = Scratch::new();
    let servers = scratch.0.join("servers.toml");
    fs::write(&servers, format!("[servers.s]\ncommand = [\"/bin/true\"]\n{QUARANTINE}")).unwrap();
    let [servers, audit] = [servers, scratch.0.join("log")].map(|path| path.to_str().unwrap().to_owned());
    let commands: [&[&str]; 4] = [
        &["quarantine", "list"],
        &["audit", "key"],
        &["audit", "stats"],
        &["run", "--config", &servers, "--audit", &audit, "--floor", crate::cell::floor()],
    ];
    for arguments in commands {
        let mut command = Command::new(crate::binary());
        let output =
            command.args(arguments).env_remove("HOME").env_remove("XDG_STATE_HOME").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let hint = "`HOME` is not set\nhint: name a directory of your own in `XDG_STATE_HOME`\n";
        assert!(!output.status.success() && said.ends_with(hint), "{arguments:?}: {said}");
    }
}

#[test]
fn after_its_time_a_tool_is_tried_with_less_and_restored_or_kept_out() {
    let config = QUARANTINE.replace("\"1h\"", "\"1s\"");
    let written = std::env::temp_dir().join(format!("toolcell-tried-{}", std::process::id()));
    fs::create_dir(&written).unwrap();
    let write = vec![String::from("--write"), written.to_str().unwrap().to_owned()];
    for bad in [false, true] {
        let options = [write.clone(), enough()].concat();
        let setup = Setup { config: config.clone(), options, ..Setup::default() };
        let scratch = Scratch::new();
        let book = session_in(&scratch, &setup, |mut client| async move {
            let mut ended = 0;
            for _ in 0..2 {
                call(&mut client, &mut ended, true).await;
            }
            // It is not known when the time is over, but that it is.
            while call(&mut client, &mut ended, bad).await["result"]["isError"] == true {}
            let again = call(&mut client, &mut ended, false).await;
            assert_eq!(again["result"]["isError"] == true, bad, "{again}");
            call(&mut client, &mut ended, false).await;
            client
        });
        let last = if bad { "kept-out" } else { "restored" };
        assert_eq!(steps(&book), ["refused", "tried", last]);
        let profiles: Vec<&Value> = book
            .finished
            .iter()
            .filter(|record| !record["receipt"].is_null())
            .map(|record| &record["call"]["profile"])
            .collect();
        let expected: &[&str] = if bad {
            &["test", "test", "test (tightened)"]
        } else {
            &["test", "test", "test (tightened)", "test (tightened)", "test"]
        };
        assert_eq!(profiles, expected);
        let step = |name: &str| book.guarded.iter().position(|record| record["step"] == name).unwrap();
        assert!(book.guarded[step("refused")]["until"].is_string());
        if bad {
            assert!(text_of_last(&book).contains("kept out until it is released"));
        }
    }
    fs::remove_dir(&written).unwrap();
}

async fn client_has_begun(client: &mut Client) {
    assert!(!text(&client.call(0, "who").await).is_empty());
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn text_of_last(book: &Book) -> &str {
    book.finished.last().unwrap()["status"]["detail"].as_str().unwrap()
}

#[test]
fn a_state_that_is_damaged_stops_a_start_and_in_a_session_every_call_of_a_tool() {
    let (scratch, setup) = (Scratch::new(), Setup { config: QUARANTINE.to_owned(), ..Setup::default() });
    let damaged = state(&scratch);
    session_in(&scratch, &setup, |mut client| async move {
        call(&mut client, &mut 0, false).await;
        // What ended is taken down behind its record.
        there(&damaged).await;
        fs::write(&damaged, "{}\n").unwrap();
        let told = client.call(9, "maybe").await;
        assert!(text(&told).contains("not known whether it is kept out"), "{told}");
        client
    });
    let at = |name: &str| scratch.0.join(name).to_str().unwrap().to_owned();
    let start = toolcell(&scratch, &["run", "--config", &at("servers.toml"), "--audit", &at("audit.jsonl")]);
    assert_eq!(start.status.code(), Some(120));
    let said = String::from_utf8(start.stderr).unwrap();
    assert!(said.contains("error: what is kept of the tools is damaged"), "{said}");
    assert!(said.contains("hint: to begin anew, with no tool kept out: mv '"), "{said}");
}

#[test]
fn a_guard_that_is_killed_keeps_tools_from_being_called() {
    let (scratch, setup) = (Scratch::new(), Setup { config: QUARANTINE.to_owned(), ..Setup::default() });
    let book = session_in(&scratch, &setup, |mut client| async move {
        assert_eq!(text(&call(&mut client, &mut 0, false).await), "ok");
        let guard = super::ahead::child_named(&client, "toolcell-guard");
        toolcell::sys::process::kill(guard.cast_signed()).unwrap();
        let told = client.call(2, "maybe").await;
        assert!(text(&told).contains("toolcell's guard is gone"), "{told}");
        client
    });
    assert_eq!(book.end_of("maybe")["violations"][0]["layer"], "quarantine");
    let said = fs::read_to_string(scratch.0.join("stderr")).unwrap();
    assert!(said.contains("toolcell's guard is gone: nobody is told"), "{said}");
}

#[test]
fn a_log_that_cannot_be_written_is_told_of_by_the_hooks() {
    let scratch = Scratch::new();
    let place = scratch.0.to_str().unwrap().to_owned();
    let config = format!("[alerts]\nfile = \"{place}/alerts\"\n");
    let told = scratch.0.join("alerts");
    session_in(&scratch, &Setup { config, ..Setup::default() }, |mut client| async move {
        call(&mut client, &mut 0, false).await;
        let log = client.audit();
        log.lock().unwrap();
        let answer = client.call(2, "maybe").await;
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("record cannot be written"),
            "{answer}"
        );
        while lines(&told).is_empty() {
            tokio::task::yield_now().await;
        }
        log.unlock().unwrap();
        client
    });
    let alert = &lines(&scratch.0.join("alerts"))[0];
    assert_eq!((&alert["rule"], &alert["recorded"]), (&json!("unrecorded"), &json!(false)));
    assert!(
        alert["what"].as_str().unwrap().contains("is locked by another process; find it with: fuser"),
        "{alert}"
    );
}

#[test]
fn a_log_that_is_rotated_under_a_session_goes_on_in_the_new_file() {
    use toolcell::audit::{Bounds, Log};
    let scratch = Scratch::new();
    let audit = scratch.0.join("audit.jsonl");
    let owner = toolcell::sys::identity::effective().0;
    let path = audit.clone();
    let book = session_in(&scratch, &Setup::default(), |mut client| async move {
        call(&mut client, &mut 0, false).await;
        drop(Log::open_within(&path, owner, Bounds { size: 1, ..Bounds::default() }).unwrap());
        assert_eq!(text(&client.call(2, "maybe").await), "ok");
        client
    });
    assert_eq!((book.started.len(), book.finished.len()), (1, 1));
    let verified = toolcell(&scratch, &["audit", "verify", audit.to_str().unwrap(), "--json"]);
    let verdict: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verdict["findings"], verified.status.code()), (&json!([]), Some(0)), "{verdict}");
    assert_eq!(verdict["unsigned"], 0, "{verdict}");
    assert!(scratch.0.join("audit.jsonl.1").exists());
}

#[test]
fn a_log_is_rotated_by_the_bounds_of_its_configuration_while_a_session_writes_to_it() {
    let scratch = Scratch::new();
    let setup = Setup { config: "[audit]\nrotate-size = \"64KiB\"\n".to_owned(), ..Setup::default() };
    let long = "x".repeat(3000);
    session_in(&scratch, &setup, |mut client| async move {
        for id in 1..30 {
            client.start_call(id, "maybe", json!({"bad": false, "long": [long, long, long]})).await;
            assert_eq!(text(&client.read().await), "ok");
        }
        client
    });
    let audit = scratch.0.join("audit.jsonl");
    assert!(scratch.0.join("audit.jsonl.1").exists());
    let verified = toolcell(&scratch, &["audit", "verify", audit.to_str().unwrap(), "--json"]);
    let verdict: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verdict["findings"], verified.status.code()), (&json!([]), Some(0)), "{verdict}");
    assert_eq!(verdict["unsigned"], 0, "{verdict}");
}

#[test]
fn what_toolcell_starts_and_writes_is_not_for_its_tools() {
    let scratch = Scratch::new();
    session_in(&scratch, &Setup::default(), |client| async move { client });
    let place = scratch.0.to_str().unwrap().to_owned();
    let audit = format!("{place}/audit.jsonl");
    let program = script(&scratch, "");
    let granted = scratch.0.join("granted");
    fs::create_dir(&granted).unwrap();
    let start = |config: &str, options: &[&str]| {
        let servers = granted.parent().unwrap().join("more.toml");
        fs::write(&servers, format!("[servers.s]\ncommand = [\"/bin/true\"]\n{config}")).unwrap();
        let audit = scratch.0.join("audit.jsonl");
        let more = ["run", "--config", servers.to_str().unwrap(), "--audit", audit.to_str().unwrap()];
        let floor = ["--floor", crate::cell::floor()];
        let output = toolcell(&scratch, &[more.as_slice(), &floor, options].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let inside = granted.to_str().unwrap();
    let (code, said) =
        start(&format!("[alerts]\ncommand = [\"/bin/sh\", \"{inside}/x.sh\"]\n"), &["--write", inside]);
    assert!(code == Some(120) && said.contains("which toolcell starts outside of every cell"), "{said}");
    for key in ["file = \"{}\"", "syslog = true\n[export]\notel = \"{}\""] {
        let config = format!("[alerts]\n{}\n", key.replace("{}", &format!("{inside}/told")));
        let (code, said) = start(&config, &["--read", inside]);
        assert!(code == Some(120) && said.contains("which toolcell writes"), "{said}");
    }
    // Also not under the profile that a tool is tried under.
    let profiles = scratch.0.join("trial.toml");
    fs::write(&profiles, format!("extends = \"default\"\n[filesystem]\nread = [\"{inside}\"]\n")).unwrap();
    let trial = "[quarantine]\nviolations = 1\nprofile = \"trial\"\n";
    let (code, said) = start(&format!("{trial}[alerts]\nfile = \"{inside}/told\"\n"), &[]);
    assert!(code == Some(120) && said.contains("which toolcell writes"), "{said}");
    let (code, said) = start(&format!("[alerts]\ncommand = [\"{place}/nothing\"]\n"), &[]);
    assert!(code == Some(120) && said.contains("cannot be started"), "{said}");
    assert!(said.contains("hint: name one that is there, with its absolute path"), "{said}");
    let (code, said) = start(&format!("[alerts]\ncommand = [\"{audit}\"]\n"), &[]);
    assert!(
        code == Some(120) && said.contains(&format!("hint: let this user run it: ls -l {audit}")),
        "{said}"
    );
    let (code, said) = start(&format!("[alerts]\ncommand = [\"{program}\"]\n"), &["--read", inside]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn figures_and_spans_are_there_when_a_session_is_over_and_go_on_in_the_next() {
    let scratch = Scratch::new();
    let place = scratch.0.to_str().unwrap().to_owned();
    let config = format!(
        "[export]\nprometheus = \"{place}/figures.prom\"\notel = \"{place}/spans\"\nevery = \"1h\"\n"
    );
    let setup = Setup { config, ..Setup::default() };
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for _ in 0..2 {
        session_in(&scratch, &setup, |mut client| async move {
            call(&mut client, &mut 0, true).await;
            let meta = json!({"traceparent": parent, "tracestate": "a=b"});
            client.request(2, "tools/call", json!({"name": "who", "_meta": meta})).await;
            recorded(&client, "finished", 2).await;
            client
        });
    }
    let figures = fs::read_to_string(scratch.0.join("figures.prom")).unwrap();
    for line in [
        "toolcell_calls_total{server=\"fixture\",tool=\"maybe\",status=\"completed\"} 2",
        "toolcell_violations_total{server=\"fixture\",tool=\"maybe\",layer=\"seccomp\"} 2",
        "toolcell_call_duration_seconds_count{server=\"fixture\",tool=\"who\"} 2",
        "toolcell_quarantined{server=\"fixture\",tool=\"who\"} 0",
    ] {
        assert!(figures.contains(line), "{line}\n{figures}");
    }
    assert_eq!(fs::metadata(scratch.0.join("figures.prom")).unwrap().permissions().mode() & 0o777, 0o644);
    let spans = lines(&scratch.0.join("spans"));
    let spans: Vec<&Value> =
        spans.iter().map(|line| &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]).collect();
    assert_eq!(spans.len(), 4);
    let own: Vec<&&Value> = spans.iter().filter(|span| span["name"] == "tools/call maybe").collect();
    assert!(own[0]["traceId"] != own[1]["traceId"] && own[0].get("parentSpanId").is_none());
    assert_eq!(own[0]["events"][0]["name"], "violation");
    for span in spans.iter().filter(|span| span["name"] == "tools/call who") {
        assert_eq!(
            (&span["traceId"], &span["parentSpanId"]),
            (&json!(&parent[3..35]), &json!(&parent[36..52]))
        );
        assert_eq!(span["traceState"], "a=b");
    }
}
