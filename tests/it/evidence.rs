//! What `toolcell audit show`, `stats` and `report` say of a log, also of one in which strangers' words stand.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use toolcell::audit::{ALERT_SCHEMA, Alert, Alerted, Bounds, Ended, Finished, Hook, Log, Quarantined, Rule};
use toolcell::call::Call;
use toolcell::outcome::{
    ClosedBy, Connection, Evidence, Layer, Limit, Reached, SecretUse, Status, Traffic, Usage, Violation,
};

/// What would end a line, paint a terminal, end an element or an attribute, or be run by a browser.
const HOSTILE: &str = "t\n\u{1b}[31m\u{202e}</script><img src=x onerror=\"alert(1)\">&amp;'`{{x}}";

/// A log with calls of all kinds in two files, gone with the test.
struct Scene {
    directory: PathBuf,
    log: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn violation(layer: Layer, limit: Option<Limit>, object: &str, allow: &str) -> Violation {
    Violation {
        layer,
        limit,
        operation: "try".to_owned(),
        object: object.to_owned(),
        errno: None,
        count: 3,
        value: None,
        peak: None,
        rule: format!("rule {object}"),
        allow: Some(allow.to_owned()),
        evidence: Evidence::Kernel,
        first_us: None,
        last_us: None,
    }
}

fn record(
    tool: &str,
    identity: Option<&str>,
    day: u64,
    status: Status,
    violations: Vec<Violation>,
) -> Finished {
    let call = Call {
        id: "1".to_owned(),
        server: "srv".to_owned(),
        method: "tools/call".to_owned(),
        target: Some(tool.to_owned()),
        profile: "default".to_owned(),
        who: format!("client {tool}"),
        identity: identity.map(str::to_owned),
        trace: None,
    };
    let ended = Ended {
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_356_309 + day * 86_400),
        duration: Duration::from_micros(1500),
        status,
        usage: Usage { memory_peak: Some(8 << 20), ..Usage::default() },
        violations,
        receipt: None,
        stderr: vec![],
        secrets: vec![],
        changes: None,
        traffic: None,
    };
    Finished::new(&call, &[], ended)
}

fn time(day: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_356_309 + day * 86_400)
}

/// Of an attempt, told by a hook after so long, or by none because it failed.
fn alert(count: u64, alerted: Option<u64>) -> Alerted {
    let alert = Alert {
        schema: ALERT_SCHEMA.to_owned(),
        rule: Rule::Unauthorised,
        server: "srv".to_owned(),
        tool: HOSTILE.to_owned(),
        call: None,
        who: HOSTILE.to_owned(),
        attempted: String::new(),
        what: HOSTILE.to_owned(),
        observed: None,
        usual: None,
        count,
        recorded: true,
    };
    let hook = Hook {
        hook: "command".to_owned(),
        finished: String::new(),
        after_us: alerted.unwrap_or(1),
        failed: alerted.is_none().then(|| HOSTILE.to_owned()),
    };
    Alerted::new(alert, vec![hook], time(1))
}

fn secret(state: &str) -> SecretUse {
    SecretUse {
        name: "key".to_owned(),
        into: "env KEY".to_owned(),
        state: state.to_owned(),
        age_s: Some(7),
        max_age_s: Some(9),
        redacted: vec![],
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("toolcell-evidence-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let scene = Self { log: directory.join("audit.jsonl"), directory };
        let log = scene.open(Bounds::default());
        let fine = record("good", Some("alice"), 0, Status::Completed, vec![]);
        let reached = |to: &str, address: Option<&str>, closed_by| Connection {
            to: to.to_owned(),
            from: None,
            address: address.map(str::to_owned),
            up: 1500,
            down: 3 << 20,
            duration_us: 12_345,
            closed_by,
        };
        let connections = vec![
            reached("api.example:443", Some("192.0.2.1:443"), ClosedBy::Cell),
            reached(HOSTILE, None, ClosedBy::Unreachable),
            Connection {
                from: Some("/run/user/1000/x.sock".to_owned()),
                ..reached("port 8080", None, ClosedBy::Destination)
            },
        ];
        let listens = vec![Reached { port: 8080, at: "/run/user/1000/x.sock".to_owned() }];
        let traffic = Some(Traffic { connections, left_out: 2, up: 9, down: 9, listens });
        log.write(&Finished { secrets: vec![secret("fresh"), secret("due")], traffic, ..fine }).unwrap();
        let access = violation(Layer::Access, None, "good", "[roles.r]");
        let refused = Status::Refused { detail: "no".to_owned() };
        let refused = record("good", None, 0, refused, vec![access]);
        log.write(&Finished { secrets: vec![secret("overdue")], ..refused }).unwrap();
        drop(log);
        drop(scene.open(Bounds { size: 1, ..Bounds::default() }));
        let log = scene.open(Bounds::default());
        let hits = vec![
            violation(Layer::Cgroup, Some(Limit::Memory), "", "[limits]\nmemory = \"1GiB\""),
            violation(Layer::Seccomp, None, HOSTILE, HOSTILE),
        ];
        let limit = Status::Limit { limit: Limit::Memory };
        log.write(&record(HOSTILE, Some(HOSTILE), 1, limit, hits)).unwrap();
        for (count, alerted) in [(1, Some(900)), (1, Some(2000)), (4, None)] {
            log.write(&alert(count, alerted)).unwrap();
        }
        log.write(&Quarantined::new(("srv", HOSTILE), "refused", HOSTILE, time(1))).unwrap();
        scene
    }

    fn open(&self, bounds: Bounds) -> Log {
        let owner = std::fs::metadata(&self.directory).unwrap().uid();
        Log::open_within(&self.log, owner, bounds).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::binary());
        command
            .arg("audit")
            .args(arguments)
            .arg(&self.log)
            .env("XDG_STATE_HOME", self.directory.join("state"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn said(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn each_call_is_a_line_and_the_chosen_ones_are_shown() {
    let scene = Scene::new("show");
    let all = scene.said(&["show"]);
    insta::assert_snapshot!(all);
    let calls = |arguments: &[&str]| {
        let said = scene.said(&[&["show"], arguments].concat());
        said.lines()
            .filter(|line| {
                line.starts_with("2026-") && !line.contains("  alert ") && !line.contains("  quarantine: ")
            })
            .count()
    };
    assert_eq!(calls(&[]), 3);
    for (arguments, expected) in [
        (&["--tool", "good"][..], 2),
        (&["--status", "limit"], 1),
        (&["--identity", "alice"], 1),
        (&["--violation", "seccomp"], 1),
        (&["--violation", "memory"], 1),
        (&["--destination", "api.example:443"], 1),
        (&["--destination", "api.example"], 1),
        (&["--destination", "example:443"], 0),
        (&["--destination", "example"], 0),
        (&["--since", "2026-11-23"], 1),
        (&["--until", "2026-11-22"], 2),
        (&["--since", "2026-11-22T14", "--until", "2026-11-22T15"], 2),
        (&["--tool", "good", "--status", "limit"], 0),
    ] {
        assert_eq!(calls(arguments), expected, "{arguments:?}");
    }
    let json = scene.said(&["show", "--json", "--status", "refused"]);
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap()["status"],
        json!({"kind": "refused", "detail": "no"})
    );
    let wrong = scene.run(&["show", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_follower_learns_of_a_call_when_it_ends() {
    let scene = Scene::new("follow");
    let mut follower = scene.command(&["show", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |tool: &str| lines.find(|line| line.contains(tool)).unwrap();
    next("alice");
    next("limit memory");
    next("quarantine: refused");
    // A log that is rotated meanwhile is followed into the new file.
    drop(scene.open(Bounds { size: 1, ..Bounds::default() }));
    let log = scene.open(Bounds::default());
    for tool in ["later", "last"] {
        log.write(&record(tool, None, 2, Status::Completed, vec![])).unwrap();
        assert!(next(tool).contains("completed"));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn what_the_records_say_together() {
    let scene = Scene::new("stats");
    insta::assert_snapshot!(scene.said(&["stats"]));
    let stats: Value = serde_json::from_str(&scene.said(&["stats", "--json"])).unwrap();
    assert_eq!(stats["statuses"], json!({"completed": 1, "limit": 1, "refused": 1}));
    assert_eq!(stats["tools"][0]["duration_us"], json!({"median": 1500, "p95": 1500, "max": 1500}));
    assert_eq!(stats["violations"]["2026-11-23"], json!({"seccomp": 3, "cgroup": 3}));
    let security = json!({
        "attempt_to_record_us": {"median": 1500, "p95": 1500, "max": 1500},
        "attempt_to_alert_us": {"median": 900, "p95": 2000, "max": 2000},
        "attempts_untold": 4,
        "authenticated": 6666,
        "limits_by_day": {"2026-11-22": 0, "2026-11-23": 3},
        "rotation": {"uses": 3, "due": 1, "overdue": 1, "in_time": 6666},
    });
    assert_eq!(stats["security"], security);
    // What is no record is told.
    std::fs::write(&scene.log, "x\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&scene.said(&["stats", "--json"])).unwrap()["not_records"], 1);
}

/// The page without the texts between its elements, which may be anything that is no markup.
fn elements(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0).collect()
}

#[test]
fn the_report_is_one_page_in_which_strangers_words_are_no_markup() {
    let scene = Scene::new("report");
    let path = scene.directory.join("page.html");
    scene.said(&["report", "--html", path.to_str().unwrap()]);
    let page = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);

    // Nothing is run, loaded or linked, and the page itself forbids it.
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    let known = [
        "!doctype", "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th",
        "td", "code", "svg", "rect", "line", "text", "span",
    ];
    for element in elements(&page) {
        let name = element.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(known.contains(&name), "<{element}>");
        let attributes =
            element.split(' ').skip(1).filter_map(|part| part.split_once('=')).map(|(name, _)| name);
        for attribute in attributes {
            assert!(
                !attribute.starts_with("on") && !["href", "src", "srcset", "xlink:href"].contains(&attribute),
                "<{element}>"
            );
        }
    }
    assert!(
        !page.contains("<script")
            && !page.contains("<img")
            && !page.contains('\u{202e}')
            && !page.contains('\u{1b}')
    );
    assert!(
        page.contains("&lt;/script&gt;&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;amp;"),
        "{page}"
    );

    // What it is for.
    for part in [
        "3 calls from 2026-11-22T14:05:09",
        "<title>2026-11-23: limit 1</title>",
        "<title>2026-11-23: seccomp 3</title>",
        "srv/good  1.5 ms / 1.5 ms",
        "srv/good  8MiB / 8MiB",
        "<td>unauthorised</td><td class=\"n\">6</td><td>0.9 ms / 2.0 ms</td><td class=\"n\">4</td>",
        "<th>from an unauthorised attempt to its alert</th><td>median 0.9 ms, at most 2.0 ms; of 4 nobody was told",
        "<td>refused</td>",
        "<td>alice</td><td>srv/good</td><td class=\"n\">1</td>",
        "<code>[limits]\nmemory = &quot;1GiB&quot;</code>",
        "<th>calls with a valid identity</th><td>66.66 % of the calls</td>",
        "<th>secrets rotated in time</th><td>66.66 % of 3 uses",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // A choice is kept to, and another's file is not overwritten.
    scene.said(&["report", "--html", path.to_str().unwrap(), "--tool", "good"]);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("onerror"));
    let link = scene.directory.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(scene.run(&["report", "--html", link.to_str().unwrap()]).status.code(), Some(123));
}

#[test]
fn what_was_put_into_a_log_by_hand_is_escaped_too() {
    let scene = Scene::new("by-hand");
    let text = std::fs::read_to_string(&scene.log).unwrap();
    std::fs::write(&scene.log, text.replace("srv", "s\u{202e}rv")).unwrap();
    for arguments in [&["show"][..], &["show", "--json"]] {
        let said = scene.said(arguments);
        assert!(said.contains("202e") && !said.contains('\u{202e}'), "{said}");
    }
}

#[test]
fn no_text_of_a_record_reaches_the_terminal_as_it_is() {
    let scene = Scene::new("terminal");
    for arguments in [&["show"][..], &["stats"], &["show", "--json"], &["stats", "--json"], &["verify"]] {
        let said = scene.said(arguments);
        let dangerous =
            said.chars().find(|&character| character != '\n' && toolcell::text::is_dangerous(character));
        assert_eq!(dangerous, None, "{arguments:?}");
        assert!(!said.lines().any(|line| line.starts_with("\u{1b}") || line.starts_with("[31m")), "{said}");
    }
}
