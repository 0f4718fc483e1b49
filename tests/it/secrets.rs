//! `toolcell secrets check`, and configurations with secrets, as the operator meets them. Never: starts a cell.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

const SECRET: &str = "s3cr3t-Value-42";

/// A directory with a configuration, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolcell-secrets-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A configuration with secrets for one tool, each with what stands in its section.
    fn configure(&self, secrets: &[(&str, String)]) {
        let mut text = "[servers.x]\ncommand = [\"/bin/true\"]\n".to_owned();
        for (name, more) in secrets {
            text +=
                &format!("[secrets.{name}]\nto = [\"x/tool\"]\ninto = {{ env = \"IT_{name}\" }}\n{more}\n");
        }
        self.file("servers.toml", &text);
    }

    fn toolcell(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(crate::binary());
        command.args(arguments).arg("--config").arg(self.0.join("servers.toml"));
        command.env("FROM_ENV", SECRET).env("CREDENTIALS_DIRECTORY", &self.0).env("XDG_STATE_HOME", &self.0);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        for said in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(said).contains("s3cr3t"), "{output:?}");
        }
        output
    }

    /// What is said of each secret, and the exit status.
    fn check(&self) -> (Option<i32>, Vec<Value>) {
        let output = self.toolcell(&["secrets", "check", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {:?}", output.stderr));
        (output.status.code(), value["secrets"].as_array().unwrap().clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn aged(path: &Path, days: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
}

#[test]
fn each_source_is_read_and_its_state_told() {
    let place = Place::new("sources");
    let path = place.file("file", &format!("{SECRET}\n"));
    place.file("cred", SECRET);
    let from = |text: &str| format!("from = {text}\nformat = \"s3cr3t-[A-Za-z]+-[0-9]+\"\nmax-age = \"10d\"");
    place.configure(&[
        ("a", from(&format!("{{ file = {path:?} }}"))),
        ("b", from("{ env = \"FROM_ENV\" }") + "\nrotated = 2026-01-02"),
        ("c", from(&format!("{{ command = [\"cat\", {path:?}] }}")) + "\nrotated = 2026-01-02"),
        ("d", from("{ credential = \"cred\" }") + "\nrotated = 2026-01-02"),
        ("e", format!("from = {{ file = {path:?} }}\nformat = \"no\"")),
    ]);
    aged(&path, 3);
    let (code, seen) = place.check();
    let state = |index: usize| seen[index]["state"].as_str().unwrap();
    assert_eq!((code, state(0)), (Some(1), "fresh"));
    // 2026-01-02 is longer ago than ten days wherever this test runs.
    assert_eq!((state(1), state(2), state(3), state(4)), ("overdue", "overdue", "overdue", "unreadable"));
    let file = &seen[0];
    assert_eq!(file["source"], format!("file `{}`", path.display()));
    assert_eq!((&file["to"], &file["into"]), (&json!(["x/tool"]), &json!("env IT_a")));
    assert_eq!(
        (&file["readable"], &file["format_ok"], &file["max_age_s"]),
        (&json!(true), &json!(true), &json!(864_000))
    );
    assert_eq!(file["age_s"].as_u64().unwrap() / 86_400, 3);
    assert_eq!(seen[2]["source"], "command `cat`");
    assert!(
        seen[1]["trouble"]["hint"].as_str().unwrap().contains("`rotated` of `[secrets.b]`"),
        "{}",
        seen[1]
    );
    assert_eq!((&seen[4]["readable"], &seen[4]["format_ok"]), (&json!(true), &json!(false)));
}

#[test]
fn a_check_that_finds_nothing_wrong_says_so_by_its_status() {
    let place = Place::new("fine");
    let path = place.file("file", SECRET);
    place.configure(&[("one", format!("from = {{ file = {path:?} }}\nmax-age = \"10d\""))]);
    aged(&path, 9);
    let output = place.toolcell(&["secrets", "check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "one: due, 9d old of at most 10d\n  from file `{}`\n  to x/tool as env IT_one\n",
            path.display()
        )
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let output = place.toolcell(&["secrets", "check"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = path.display();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "one: unreadable\n  from file `{shown}`\n  to x/tool as env IT_one\n  error: `{shown}` has mode 0640: others can read it\n  \
             hint: chmod 600 '{shown}', or write `shared = true` in `from`\n"
        )
    );
}

/// Those that doors put in are in no section of the configuration.
#[test]
fn what_doors_put_in_is_looked_at_too_also_for_tools_that_are_tried() {
    let place = Place::new("doors");
    let secret = place.file("secret", SECRET);
    let door = |host: &str, from: &str| {
        format!(
            "extends = \"default\"\n[network]\nallow = [\"{host}:443\"]\n[network.http.\"{host}:443\"]\ntls = \"end\"\n\
             methods = []\npaths = []\n\
             credential = {{ header = \"Authorization\", value = \"{{}}\", from = {{ {from} }}, max-age = \"30d\" }}\n"
        )
    };
    place.file("door.toml", &door("a.example", &format!("file = {secret:?}")));
    place.file("trial.toml", &door("b.example", &format!("file = {:?}", place.0.join("missing"))));
    let server = "[servers.x]\ncommand = [\"/bin/true\"]\n[servers.x.tools.one]\nprofile = \"door\"\n";
    place.file("servers.toml", server);
    let (code, seen) = place.check();
    let [one] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((code, &one["name"], &one["state"]), (Some(0), &json!("a.example:443"), &json!("fresh")));
    assert_eq!((&one["to"], &one["into"]), (&json!([]), &json!("header Authorization")));
    place.file("servers.toml", &format!("{server}[quarantine]\nviolations = 1\nprofile = \"trial\"\n"));
    let (code, seen) = place.check();
    let states: Vec<_> = seen.iter().map(|one| (&one["name"], &one["state"])).collect();
    let (a, b) = (json!("a.example:443"), json!("b.example:443"));
    assert_eq!((code, states), (Some(1), vec![(&a, &json!("fresh")), (&b, &json!("unreadable"))]));
    let shown = String::from_utf8(place.toolcell(&["secrets", "check"]).stdout).unwrap();
    assert!(shown.contains("  at the door as header Authorization\n"), "{shown}");
}

#[test]
fn a_file_from_before_all_dates_is_overdue() {
    let place = Place::new("ancient");
    let path = place.file("file", SECRET);
    place.configure(&[("one", format!("from = {{ file = {path:?} }}\nmax-age = \"3650d\""))]);
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)).unwrap();
    let (code, seen) = place.check();
    assert_eq!((code, &seen[0]["state"]), (Some(1), &json!("overdue")));
    let hint = seen[0]["trouble"]["hint"].as_str().unwrap();
    assert!(hint.starts_with("rotate it: "), "{hint}");
}

#[test]
fn each_trouble_comes_with_a_way_on() {
    let place = Place::new("troubles");
    let (empty, long) = (place.file("empty", ""), place.file("long", &"0123456789".repeat(4000)));
    let absent = place.0.join("absent");
    let loops = place.0.join("loop");
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let from = |text: String| format!("from = {{ {text} }}");
    let file = |path: &Path| from(format!("file = {path:?}"));
    place.configure(&[
        ("a", file(&empty)),
        ("b", file(&long)),
        ("c", file(&absent)),
        ("d", file(&place.0)),
        ("e", file(&loops)),
        ("f", from("command = [\"sh\", \"-c\", \"exit 3\"]".to_owned())),
        ("g", from("command = [\"cat\", \"/dev/zero\"]".to_owned())),
    ]);
    let (_, seen) = place.check();
    let uid = fs::metadata(&empty).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).unwrap();
    for (seen, wanted) in seen.iter().zip([
        format!("put the secret into the file `{}`", empty.display()),
        "look whether the right secret is there, alone".to_owned(),
        "put the secret there, or name the file".to_owned(),
        "name a file in `from`".to_owned(),
        format!("user {uid} must be able to read it"),
        format!("run it as user {uid} without a terminal"),
        "let it print the secret alone".to_owned(),
    ]) {
        let hint = seen["trouble"]["hint"].as_str().unwrap_or_default();
        assert!(hint.starts_with(&wanted), "{wanted}: {seen}");
    }
}

#[test]
fn what_a_command_says_of_its_failure_is_told_without_the_secret() {
    let place = Place::new("command");
    let run = |script: &str| format!("from = {{ command = [\"sh\", \"-c\", {script:?}], timeout = \"2s\" }}");
    place.configure(&[
        ("a", run("echo s3cr3t-Value-42; echo it is czNjcjN0LVZhbHVlLTQy or s3cr3t-Value-42 >&2; exit 7")),
        ("b", run("head -c 40000 /dev/zero")),
        ("c", "from = { command = [\"toolcell-has-no-such-program\"] }".to_owned()),
        ("d", run("sleep 100 & exec sleep 100")),
        // What it leaves running holds nobody up, and is ended.
        ("e", run("sleep 100 & echo s3cr3t-Value-42")),
    ]);
    let (code, seen) = place.check();
    assert_eq!(code, Some(1));
    let trouble = |index: usize| seen[index]["trouble"].to_string();
    assert!(
        trouble(0).contains("exit status: 7")
            && trouble(0).contains("it is [redacted:secret] or [redacted:secret]"),
        "{}",
        trouble(0)
    );
    assert!(trouble(1).contains("more than 32768 bytes"), "{}", trouble(1));
    assert!(trouble(2).contains("install `toolcell-has-no-such-program`"), "{}", trouble(2));
    assert!(trouble(3).contains("took longer than 2s"), "{}", trouble(3));
    assert_eq!(seen[4]["state"], "fresh", "{}", seen[4]);
}

#[test]
fn a_server_that_could_read_a_secrets_file_is_not_started() {
    let place = Place::new("shown");
    let path = place.file("file", SECRET);
    place.configure(&[("one", format!("from = {{ file = {path:?} }}"))]);
    let output =
        place.toolcell(&["run", "--floor", crate::cell::floor(), "--read", place.0.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(120), "{told}");
    let wanted = format!("and in it `{}`, from which secret `one` is read", path.display());
    assert!(told.contains(&wanted) && told.contains("hint: move"), "{told}");
}

#[test]
fn a_configuration_with_a_credential_in_it_is_refused_without_showing_it() {
    let place = Place::new("literal");
    let token = format!("ghp_{}", "s3cr3tA8Kd03mZq7Lx92BvTn4Y");
    place.file(
        "servers.toml",
        &format!("[servers.x]\ncommand = [\"/bin/true\"]\nenv = [\"GH_TOKEN={token}\"]\n"),
    );
    for arguments in [&["run"][..], &["secrets", "check"]] {
        let output = place.toolcell(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(120), "{told}");
        assert!(told.contains("servers.toml:3:8: a GitHub token stands here"), "{told}");
        assert!(told.contains("`[secrets.gh_token]`") && told.contains("to = [\"x/TOOL\"]"), "{told}");
    }
}
