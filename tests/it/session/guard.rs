//! Alerts with a real program, quarantine from the first refusal to the release, in sessions after and beside each other.
//!
//! Never: waits for time where there is an event.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session_in, text};

/// Waits until the log has so many records of this event.
async fn recorded(client: &Client, event: &str, count: usize) {
    let event = format!("\"event\":\"{event}\"");
    while client.log().matches(&event).count() < count {
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
        assert!(told.ends_with("let it run: toolcell quarantine release fixture maybe"), "{told}");
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

    let audit = scratch.0.join("audit.jsonl");
    let book = session_in(&scratch, &setup, |mut first| {
        let (scratch, setup, audit) = (&scratch, &setup, audit.to_str().unwrap());
        async move {
            // Its answer says that it has read the files that the second one's start writes anew.
            client_has_begun(&mut first).await;
            let mut second = Client::start(setup, scratch);
            for client in [&mut first, &mut second] {
                assert!(text(&client.call(1, "maybe").await).contains("kept out until"));
            }
            let released =
                toolcell(scratch, &["quarantine", "release", "fixture", "maybe", "--audit", audit]);
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
fn after_its_time_a_tool_is_tried_with_less_and_restored_or_kept_out() {
    let config = QUARANTINE.replace("\"1h\"", "\"1s\"");
    let written = std::env::temp_dir().join(format!("toolcell-tried-{}", std::process::id()));
    fs::create_dir(&written).unwrap();
    let write = [String::from("--write"), written.to_str().unwrap().to_owned()];
    for bad in [false, true] {
        let setup = Setup { config: config.clone(), options: write.to_vec(), ..Setup::default() };
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
        while !damaged.exists() {
            tokio::task::yield_now().await;
        }
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
    assert!(alert["what"].as_str().unwrap().contains("is locked by another process"), "{alert}");
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
fn what_toolcell_starts_and_writes_is_not_for_its_tools() {
    let scratch = Scratch::new();
    session_in(&scratch, &Setup::default(), |client| async move { client });
    let place = scratch.0.to_str().unwrap().to_owned();
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
