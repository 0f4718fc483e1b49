//! What a tool is given in secret: who gets it, what of it comes out, and when it is refused, seen from the client.
//! Never: looks inside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, session_in, text};

const SECRET: &str = "s3cr3t/Value + 42?";

/// What must be nowhere: the secret in the forms that the server writes, and what all of base64's have in common.
const FORMS: [&str; 9] = [
    SECRET,
    "s3cr3t%2FValue%20%2B%2042%3F",
    "s3cr3t%2FValue+%2B+42%3F",
    "czNjcjN0L1ZhbHVlICsgNDI",
    "MzY3IzdC9WYWx1ZSArIDQy",
    "zM2NyM3QvVmFsdWUgKyA0Mj",
    "7333637233742f56616c7565202b2034323f",
    "7333637233742F56616C7565202B2034323F",
    "\\u0073\\u0033\\u0063",
];

fn secret_file(scratch: &Scratch, name: &str, value: &str) -> PathBuf {
    let path = scratch.0.join(name);
    fs::write(&path, value).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A secret from a file, as a variable of the tool `say`.
fn from_file(path: &Path, more: &str) -> Setup {
    let config = format!(
        "[secrets.one]\nfrom = {{ file = {path:?} }}\nto = [\"fixture/say\"]\ninto = {{ env = \"SECRET\" }}\n{more}"
    );
    Setup { config, ..Setup::default() }
}

#[track_caller]
fn nothing_of_it(said: &str) {
    for form in FORMS {
        assert!(!said.contains(form), "{form} in {said}");
    }
}

/// Reads to the answer of a call; every line before it too.
async fn all_of(client: &mut Client) -> (String, Value) {
    let mut said = String::new();
    loop {
        let line = client.raw().await.unwrap();
        said.push_str(&line);
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if message.get("id").is_some() {
            return (said, message);
        }
    }
}

/// How often the first secret of a record was found in a form and a place.
fn found(record: &Value, form: &str, place: &str) -> u64 {
    let redacted = record["secrets"][0]["redacted"].as_array().unwrap();
    let of = redacted.iter().find(|found| found["form"] == form && found["place"] == place);
    of.map_or(0, |found| found["count"].as_u64().unwrap())
}

#[test]
fn a_secret_comes_out_in_no_form_on_no_way() {
    for (pieces, times) in [(100_000, 1), (7, 1), (5000, 3000)] {
        let scratch = Scratch::new();
        let setup = from_file(&secret_file(&scratch, "one", &format!("{SECRET}\n")), "");
        // What the host has and the cell lacks is told by its name.
        let setup = Setup { observe: "files", ..setup };
        let below = PathBuf::from(format!("/var/tmp/toolcell-secrets-{}", std::process::id()));
        fs::create_dir_all(below.join(SECRET)).unwrap();
        let named = below.clone();
        let book = session_in(&scratch, &setup, |mut client| async move {
            client.start_call(1, "say", json!({"pieces": pieces, "times": times, "below": named})).await;
            let (said, answer) = all_of(&mut client).await;
            nothing_of_it(&said);
            assert_eq!(said.matches("notifications/message").count(), 9);
            assert_eq!(said.matches("at [redacted:one]").count(), 7, "{said}");
            let once = text(&answer).matches("[redacted:one]").count();
            assert_eq!(once, 9 * times, "{answer}");
            assert_eq!(answer["result"]["content"][1]["text"], "[redacted:one]");
            client
        });
        let record = book.end_of("say");
        let used = &record["secrets"][0];
        assert_eq!(
            (&used["name"], &used["into"], &used["state"]),
            (&json!("one"), &json!("env SECRET"), &json!("fresh"))
        );
        let times = times as u64;
        for (form, count) in [("exact", 1), ("url", 2), ("base64", 4), ("hex", 2)] {
            assert_eq!(found(record, form, "notifications/message"), count, "{used}");
            assert_eq!(found(record, form, "notifications/progress"), count, "{used}");
            assert_eq!(found(record, form, "stderr"), count, "{used}");
            assert_eq!(found(record, form, "result"), count * times, "{used}");
        }
        assert_eq!((found(record, "json", "result"), found(record, "exact", "stdout")), (1, 1), "{used}");
        if crate::cell::floor() != "landlock" {
            assert_eq!(found(record, "exact", "violation"), 2, "{record}");
            let violation =
                record["violations"].as_array().unwrap().iter().find(|v| v["operation"] == "open");
            assert!(violation.unwrap()["object"].as_str().unwrap().ends_with("/[redacted:one]"), "{record}");
        }
        nothing_of_it(&fs::read_to_string(scratch.0.join("audit.jsonl")).unwrap());
        nothing_of_it(&fs::read_to_string(scratch.0.join("stderr")).unwrap());
        fs::remove_dir_all(below).unwrap();
    }
}

#[test]
fn only_the_tool_that_is_named_gets_it() {
    let scratch = Scratch::new();
    let path = secret_file(&scratch, "one", SECRET);
    let file = format!(
        "[secrets.two]\nfrom = {{ file = {path:?} }}\nto = [\"fixture/say\"]\ninto = {{ file = \"/tmp/secret\" }}\n"
    );
    let setup = from_file(&path, &file);
    let book = session_in(&scratch, &setup, |mut client| async move {
        // The first cell is built for its call, the others ahead of theirs.
        for id in 1..=6 {
            if id % 2 == 1 {
                client.start_call(id, "say", json!({"from": if id == 1 { "file" } else { "env" }})).await;
                let (_, answer) = all_of(&mut client).await;
                assert_eq!(text(&answer).matches("[redacted:one]").count(), 9, "{answer}");
            } else {
                let seen = client.call(id, "environment").await;
                assert!(!text(&seen).contains("SECRET"), "{seen}");
                client.start_call(id + 10, "read", json!({"path": "/tmp/secret"})).await;
                assert_eq!(text(&client.read().await), "ENOENT");
            }
        }
        client
    });
    let cells: Vec<&Value> = book.finished.iter().map(|record| &record["receipt"]["cell"]).collect();
    assert!(cells.contains(&&json!("on-demand")) && cells.contains(&&json!("ahead")), "{cells:?}");
    for record in &book.finished {
        assert_eq!(record["secrets"].is_array(), record["call"]["target"] == "say", "{record}");
    }
}

#[test]
fn a_variable_is_taken_out_of_every_environment() {
    let config = "env = [\"KEPT\"]\n[secrets.one]\nfrom = { env = \"FROM\" }\nto = [\"fixture/say\"]\ninto = { env = \"SECRET\" }\n";
    let env = vec![("FROM", SECRET.to_owned()), ("KEPT", "kept".to_owned())];
    session(&Setup { config: config.to_owned(), env, ..Setup::default() }, |mut client| async move {
        let seen = client.call(1, "environment").await;
        assert!(text(&seen).contains("\"KEPT\": \"kept\"") && !text(&seen).contains("FROM"), "{seen}");
        client.start_call(2, "say", json!({})).await;
        let (said, _) = all_of(&mut client).await;
        assert!(said.contains("[redacted:one]"));
        let mut looked_at = 0;
        let ours = client.supervisor();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).unwrap_or_default();
            let name = entry.file_name();
            if parent == ours.to_string() || name == ours.to_string().as_str() {
                // Who may not look (an ordinary user) is told nothing.
                for file in ["environ", "cmdline"] {
                    let shown = fs::read(entry.path().join(file)).unwrap_or_default();
                    assert!(!String::from_utf8_lossy(&shown).contains(SECRET), "{name:?}");
                }
                looked_at += 1;
            }
        }
        assert!(looked_at >= 3, "the supervisor, the launcher, the keeper");
        client
    });
}

/// A session in which `say` is refused; what the client was told, and what was recorded.
fn refused(scratch: &Scratch, setup: &Setup) -> (String, Book) {
    let mut told = String::new();
    let book = session_in(scratch, setup, |mut client| async {
        let answer = client.call(1, "say").await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        told = answer["error"]["message"].as_str().unwrap().to_owned();
        // The others of the server do not mind.
        assert_eq!(text(&client.call(2, "who").await).len(), 16);
        client
    });
    let record = book.end_of("say");
    assert_eq!((&record["status"]["kind"], &record["receipt"]), (&json!("refused"), &Value::Null));
    nothing_of_it(&format!("{told}{book:?}"));
    (told, book)
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let scratch = Scratch::new();
    let path = secret_file(&scratch, "one", SECRET);
    let shown = path.display().to_string();
    let state = |book: &Book| book.end_of("say")["secrets"][0]["state"].clone();

    let (told, book) = refused(&scratch, &from_file(&path, "format = \"ghp_[a-z]+\"\n"));
    assert_eq!(
        told,
        "tool `say` cannot get secret `one`: it is not of the form that `format` asks for\n\
         hint: look whether the right secret is there, whole and without quotes or spaces around it"
    );
    assert_eq!(state(&book), "unreadable");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (told, _) = refused(&scratch, &from_file(&path, ""));
    assert_eq!(
        told,
        format!(
            "tool `say` cannot get secret `one`: `{shown}` has mode 0644: others can read it\n\
             hint: chmod 600 '{shown}', or write `shared = true` in `from`"
        )
    );
    let (told, _) = refused(&scratch, &from_file(&secret_file(&scratch, "short", "s3cr3t\n"), ""));
    assert!(told.contains("fewer than 8 bytes"), "{told}");
    let (told, _) = refused(&scratch, &from_file(&secret_file(&scratch, "dull", "aaaaaaaaaabbbbbbbbb"), ""));
    assert!(told.contains("repeats so few bytes"), "{told}");
    let (told, _) = refused(&scratch, &from_file(&scratch.0.join("absent"), ""));
    assert!(told.contains("cannot read") && told.contains("No such file"), "{told}");
    let command = "[secrets.one]\nfrom = { command = [\"sh\", \"-c\", \"echo no key >&2; exit 3\"] }\nto = [\"fixture/say\"]\ninto = { env = \"SECRET\" }\n";
    let (told, _) = refused(&scratch, &Setup { config: command.to_owned(), ..Setup::default() });
    let first = "tool `say` cannot get secret `one`: `sh` failed: exit status: 3: it said: no key\nhint: run it as user ";
    assert!(told.starts_with(first), "{told}");
    let slow = command.replace("] }", "], timeout = \"300ms\" }").replace("echo no key >&2", "sleep 60");
    let (told, _) = refused(&scratch, &Setup { config: slow, ..Setup::default() });
    assert!(told.contains("`sh` took longer than 300ms"), "{told}");
}

#[test]
fn a_secret_comes_due_is_refused_and_is_used_again_once_it_is_rotated() {
    let scratch = Scratch::new();
    let path = secret_file(&scratch, "one", SECRET);
    let aged = |days: u64| {
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400 + 60)).unwrap();
    };
    let setup = from_file(&path, "max-age = \"90d\"\nwarn-age = \"60d\"\n");
    let book = session_in(&scratch, &setup, |mut client| async {
        for (id, days) in [(1, 59), (2, 61), (3, 62), (4, 91)] {
            aged(days);
            client.start_call(id, "say", json!({})).await;
            let (_, answer) = all_of(&mut client).await;
            if days > 90 {
                assert_eq!(
                    answer["error"]["message"],
                    format!(
                        "tool `say` cannot get secret `one`: it is 91d old, and `max-age` is 90d\n\
                         hint: rotate it: replace what is in the file `{}`",
                        path.display()
                    )
                );
            } else {
                assert!(text(&answer).starts_with("[redacted:one]"), "{answer}");
            }
        }
        // By another file in its place, in the session that runs.
        let new = secret_file(&scratch, "new", "another-5ecret-value");
        fs::rename(new, &path).unwrap();
        client.start_call(5, "say", json!({})).await;
        let (said, answer) = all_of(&mut client).await;
        assert!(text(&answer).starts_with("[redacted:one]") && !said.contains("another-5ecret"), "{answer}");
        client
    });
    let state = |record: &Value| record["secrets"][0]["state"].as_str().unwrap().to_owned();
    // A call's last process may end after the next call was refused.
    let mut states: Vec<String> = book.finished.iter().map(state).collect();
    states.sort();
    assert_eq!(states, ["due", "due", "fresh", "fresh", "overdue"]);
    let overdue = book.finished.iter().find(|record| state(record) == "overdue").unwrap();
    let overdue = &overdue["secrets"][0];
    assert_eq!(
        (&overdue["age_s"].as_u64().unwrap() / 86_400, &overdue["max_age_s"]),
        (91, &json!(90 * 86_400))
    );
    let warned = fs::read_to_string(scratch.0.join("stderr")).unwrap();
    assert_eq!(warned.matches("secret `one` is due to be rotated").count(), 1, "{warned}");
}

#[test]
fn arguments_that_hold_a_secret_are_recorded_without_it() {
    let scratch = Scratch::new();
    let setup = from_file(&secret_file(&scratch, "one", SECRET), "");
    let book = session_in(&scratch, &setup, |mut client| async move {
        client.start_call(1, "say", json!({"like": format!("<{SECRET}>")})).await;
        all_of(&mut client).await;
        client
    });
    let parameters = book.started[0]["parameters"].to_string();
    assert!(parameters.contains("<[redacted:one]>"), "{parameters}");
    nothing_of_it(&parameters);
    assert_eq!(found(book.end_of("say"), "exact", "parameters"), 1);
}

#[test]
fn a_refused_path_that_holds_a_secret_is_recorded_without_it() {
    let scratch = Scratch::new();
    let path = secret_file(&scratch, "one", SECRET);
    let config = format!(
        "[servers.fixture.tools.say]\ngrants = [{{ argument = \"/granted\", access = \"read\", within = [\"/srv\"] }}]\n\
         [secrets.one]\nfrom = {{ file = {path:?} }}\nto = [\"fixture/say\"]\ninto = {{ env = \"SECRET\" }}\n"
    );
    let book = session_in(&scratch, &Setup { config, ..Setup::default() }, |mut client| async move {
        client.start_call(1, "say", json!({"granted": format!("/etc/{SECRET}")})).await;
        let (_, answer) = all_of(&mut client).await;
        // Who named it may be told what was wrong with it.
        assert!(text(&answer).contains("which lies outside of `/srv`"), "{answer}");
        client
    });
    let record = book.end_of("say");
    let detail = record["status"]["detail"].as_str().unwrap();
    assert!(detail.contains("`/etc/[redacted:one]`, which lies outside of"), "{detail}");
    // The hint names the directory above, which is a piece of it.
    assert!(!detail.contains("s3cr3t"), "{detail}");
    assert_eq!(found(record, "exact", "parameters"), 2, "{record}");
    let log = fs::read_to_string(scratch.0.join("audit.jsonl")).unwrap();
    nothing_of_it(&log);
    assert!(!log.contains("s3cr3t"), "{log}");
}
