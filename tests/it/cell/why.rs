//! `profile why` says what a cell does: over random rules, its answer, the proof in a cell, and the rules as the test itself
//! reads them are the same.
//!
//! Neighbours: `scene` has the tree. Never: asks the program under test what to expect.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use toolcell::plan::seccomp;
use toolcell::policy::syscalls::SyscallName;

use super::scene::{Scene, floor};

/// What rules can be about, and questions too: directories, files, and a name that does not exist.
const PLACES: [&str; 9] = ["a", "a/f", "a/c", "a/c/f", "a/c/d", "a/c/d/f", "b", "b/f", "a/absent"];
/// What can only be asked about: links, relative and absolute.
const LINKS: [&str; 3] = ["a/to-b", "b/to-a", "a/nowhere"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Read,
    Write,
    Execute,
    Deny,
}

const RULES: [(Rule, &str); 4] =
    [(Rule::Read, "read"), (Rule::Write, "write"), (Rule::Execute, "execute"), (Rule::Deny, "deny")];

fn tree() -> Scene {
    let scene = Scene::new();
    for file in ["a/f", "a/c/f", "a/c/d/f", "b/f"] {
        scene.file(file, 0o755);
    }
    symlink("../b/f", scene.path("a/to-b")).unwrap();
    symlink(scene.path("a/c/f"), scene.path("b/to-a")).unwrap();
    symlink("nothing", scene.path("a/nowhere")).unwrap();
    scene
}

/// Rules that a profile may have: what is granted exists, and nothing beneath a denied path is granted.
fn consistent(rules: &[(usize, Rule)]) -> BTreeMap<&'static str, Rule> {
    let mut kept: BTreeMap<&str, Rule> = rules.iter().map(|(place, rule)| (PLACES[*place], *rule)).collect();
    let denied: Vec<&str> = kept.iter().filter(|(_, rule)| **rule == Rule::Deny).map(|(p, _)| *p).collect();
    kept.retain(|place, rule| {
        let below = denied.iter().any(|above| Path::new(place).starts_with(above) && place != above);
        !below && (*rule == Rule::Deny || *place != "a/absent")
    });
    kept
}

/// Deny above all, else the longest path decides; and a directory is no program.
fn expected(rules: &BTreeMap<&str, Rule>, place: &str, operation: &str) -> bool {
    let at = |path: &Path| rules.get(path.to_str().unwrap());
    if Path::new(place).ancestors().any(|above| at(above) == Some(&Rule::Deny)) {
        return false;
    }
    if operation == "exec" && !place.ends_with("/f") && place != "a/absent" {
        return false;
    }
    match Path::new(place).ancestors().find_map(at) {
        None | Some(Rule::Deny) => false,
        Some(Rule::Read) => operation == "read",
        Some(Rule::Write) => operation != "exec",
        Some(Rule::Execute) => operation != "write",
    }
}

fn profile(scene: &Scene, rules: &BTreeMap<&str, Rule>) -> String {
    let mut text = format!("floor = \"{}\"\n[filesystem]\n", floor()[1]);
    for (kind, key) in RULES {
        let of_kind = rules.iter().filter(|(_, rule)| **rule == kind);
        let paths: Vec<String> = of_kind.map(|(place, _)| format!("\"{}\"", scene.path(place))).collect();
        text += &format!("{key} = [{}]\n", paths.join(", "));
    }
    scene.profile(&text)
}

/// The exit status and the answer, proved.
fn ask(scene: &Scene, profile: &str, place: &str, operation: &str) -> (i32, Value) {
    let mut command = scene.command("profile");
    command.args(["why", profile, &format!("--{operation}"), &scene.path(place), "--prove", "--json"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), value.unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// Every name below the tree, so that a proof which makes or changes something is found out.
fn census(scene: &Scene) -> Vec<(String, String, std::time::SystemTime)> {
    let mut open = vec![scene.path("a"), scene.path("b")];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()));
        }
        let content = if metadata.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        // A denied name that is absent has a place for as long as a cell runs, which its directory's time tells of.
        let changed = if metadata.is_dir() { std::time::UNIX_EPOCH } else { metadata.modified().unwrap() };
        found.push((path, content, changed));
    }
    found.sort();
    found
}

#[test]
fn the_answer_is_what_a_cell_does() {
    let rules =
        prop::collection::vec((0..PLACES.len(), prop::sample::select(RULES.map(|(r, _)| r).to_vec())), 1..6);
    let questions = prop::collection::vec(
        (0..PLACES.len() + LINKS.len(), prop::sample::select(vec!["read", "write", "exec"])),
        4,
    );
    let scene = tree();
    let before = census(&scene);
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(rules, questions), |(rules, questions)| {
        let rules = consistent(&rules);
        let profile = profile(&scene, &rules);
        for (place, operation) in questions {
            let place = *PLACES.iter().chain(&LINKS).nth(place).unwrap();
            let (status, said) = ask(&scene, &profile, place, operation);
            let allowed = said["answer"]["decision"] == "allowed";
            prop_assert_eq!(status, if allowed { 0 } else { 119 }, "{} {}: {:#}", operation, place, said);
            let absent = matches!(place, "a/absent" | "a/nowhere") && operation != "write";
            let proof = &said["proof"];
            if allowed && absent {
                prop_assert_eq!(&proof["errno"], "ENOENT", "{} {}: {:#}", operation, place, said);
            } else {
                prop_assert_eq!(&proof["succeeded"], allowed, "{} {}: {:#}", operation, place, said);
            }
            if !LINKS.contains(&place) {
                let expected = expected(&rules, place, operation);
                prop_assert_eq!(allowed, expected, "{} {} by {:?}: {:#}", operation, place, rules, said);
            }
        }
        Ok(())
    });
    assert_eq!(census(&scene), before, "a proof changed something");
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn each_answer_names_its_rule_and_the_line_that_would_allow_it() {
    let scene = tree();
    let profile = scene.profile(&format!(
        "floor = \"{}\"\n[filesystem]\nread = [{{ path = \"{}\", why = \"what is worked on\" }}]\ndeny = [{{ path = \"{}\", why = \"secret\" }}]\n",
        floor()[1],
        scene.path("a"),
        scene.path("a/c"),
    ));
    let (_, allowed) = ask(&scene, &profile, "a/f", "read");
    assert_eq!(allowed["answer"]["by"]["why"], "what is worked on");
    assert_eq!(allowed["answer"]["by"]["origin"], "profile `profile`");
    assert_eq!(allowed["answer"]["allow"], Value::Null);
    let (_, refused) = ask(&scene, &profile, "a/f", "write");
    assert_eq!(refused["proof"]["errno"], "EROFS");
    let line = format!("[filesystem]\nwrite = [\"{}\"]", scene.path("a/f"));
    assert_eq!(refused["answer"]["allow"], line.as_str());
    let (_, hidden) = ask(&scene, &profile, "a/c/d/f", "read");
    assert_eq!(hidden["answer"]["by"]["why"], "secret");
    assert_eq!(hidden["answer"]["allow"], Value::Null);
    let (_, ungranted) = ask(&scene, &profile, "b/f", "read");
    assert_eq!(ungranted["proof"]["errno"], "ENOENT");
    // The cell has the link and not the place where it leads.
    let profile =
        scene.profile(&format!("floor = \"{}\"\nfilesystem.write = [\"{}\"]\n", floor()[1], scene.path("b")));
    let (status, dangling) = ask(&scene, &profile, "b/to-a", "write");
    assert_eq!((status, &dangling["proof"]["errno"]), (119, &Value::from("ENOENT")), "{dangling:#}");
    let writable = |lines: &str| {
        let floor = floor()[1];
        scene.profile(&format!(
            "floor = \"{floor}\"\n[filesystem]\nwrite = [\"{}\"{lines}]\n",
            scene.path("a")
        ))
    };
    let (_, protected) = ask(&scene, &writable(""), "a/.vscode/tasks.json", "write");
    assert_eq!(protected["proof"]["errno"], "EROFS");
    assert_eq!(protected["answer"]["by"]["rule"], format!("the protection of `{}`", scene.path("a/.vscode")));
    let item = format!("{{ path = \"{}\", optional = true }}", scene.path("a/.vscode"));
    assert_eq!(protected["answer"]["allow"], format!("[filesystem]\nwrite = [{item}]"));
    let (status, _) = ask(&scene, &writable(&format!(", {item}")), "a/.vscode", "write");
    assert_eq!(status, 0);
}

#[test]
fn calls_and_connections_are_answered_without_a_cell() {
    let scene = Scene::new();
    let code = |arguments: &[&str]| {
        let output = scene.command("profile").args(["why", "default"]).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(code(&["--syscall", "read"]).0, 0);
    let (status, said) = code(&["--syscall", "ptrace"]);
    assert_eq!(status, 119);
    assert!(said.contains("allow = [\"ptrace\"]"), "{said}");
    let (status, said) = code(&["--syscall", "mount"]);
    assert!(
        status == 119 && said.contains("nothing should allow it") && !said.contains("allow = ["),
        "{said}"
    );
    let (status, said) = code(&["--syscall", "bpf"]);
    assert_eq!(status, 119);
    assert!(said.contains("no line allows it") && !said.contains("allow = ["), "{said}");
    // The launcher's filter would refuse it all the same, so a profile that allows it is none.
    let profile = scene.profile("syscalls.allow = [\"bpf\"]\n");
    for arguments in [&["profile", "check", &profile][..], &["profile", "why", &profile, "--syscall", "bpf"]]
    {
        let output = scene.command(arguments[0]).args(&arguments[1..]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(120), "{said}");
        assert!(
            said.contains("no profile can allow system call `bpf`: programs that run in the kernel"),
            "{said}"
        );
        assert!(said.contains("hint: take it out of `allow`"), "{said}");
    }
    // What holds ports is Landlock's from its ABI 4 on.
    let (status, said) = code(&["--syscall", "listen"]);
    let held = crate::facts().landlock_abi >= 4;
    assert_eq!((status, said.contains("Linux 6.7")), (if held { 0 } else { 119 }, !held), "{said}");
    assert_eq!(code(&["--syscall", "no_such_call"]).0, 2);
    assert_eq!(code(&["--connect", "example.com:443"]).0, 119);
}

/// The answer and the proof of a question, which agree.
fn proven(scene: &Scene, profile: &str, question: [&str; 2]) -> (String, Value) {
    let mut command = scene.command("profile");
    let output = command.args(["why", profile, "--prove", "--json"]).args(question).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {question:?}: {output:?}"));
    assert_eq!(told["proof"]["agrees"], true, "{question:?}: {told:#}");
    (told["answer"]["decision"].as_str().unwrap().to_owned(), told["proof"].clone())
}

#[test]
fn every_answer_about_a_call_is_what_the_cell_does() {
    let scene = Scene::new();
    let names: Vec<&str> = (0..500).filter_map(seccomp::name).collect();
    // Nothing starts in a cell without the others.
    let can_be_denied = "getcwd sync pipe mkdir rmdir chmod kill setsid times socketpair flock symlink truncate \
                         timerfd_create eventfd2 inotify_init1 shmget msgget getrusage pause mount ptrace";
    let denied = prop::sample::subsequence(can_be_denied.split_whitespace().collect::<Vec<_>>(), 0..4);
    let allowed = prop::sample::subsequence(names.clone(), 0..4);
    let asked = prop::sample::select(names.clone());
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let tried = (allowed, denied, asked, any::<prop::sample::Index>());
    runner
        .run(&tried, |(allow, deny, other, index)| {
            let listed = |names: &[&str]| -> Vec<String> {
                let can = |name: &&&str| seccomp::named(name) == SyscallName::Known;
                names.iter().filter(can).map(|name| format!("\"{name}\"")).collect()
            };
            let profile = scene.profile(&format!(
                "floor = \"{}\"\n[syscalls]\nallow = [{}]\ndeny = [{}]\n",
                floor()[1],
                listed(&allow).join(", "),
                listed(&deny).join(", ")
            ));
            let of_lists: Vec<&str> = allow.iter().chain(&deny).copied().collect();
            let name = if of_lists.is_empty() { other } else { of_lists[index.index(of_lists.len())] };
            for name in [name, other] {
                proven(&scene, &profile, ["--syscall", name]);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_answer_about_a_connection_is_what_the_cell_does() {
    let scene = Scene::new();
    let profile = scene.profile(&format!(
        "floor = \"{}\"\n[network]\nallow = [\"10.9.8.7:5432\", \"db.internal:25\", \"db.internal:5432\", \"localhost:7000\", \"a.wild.internal:25\", \"*.wild.internal:7000\"]\ndeny = [\"db.internal:25\"]\n",
        floor()[1]
    ));
    let hosts = [
        "10.9.8.7",
        "10.9.8.8",
        "db.internal",
        "other.internal",
        "a.wild.internal",
        "localhost",
        "127.0.0.1",
        "169.254.169.254",
    ];
    let mut decided = BTreeMap::new();
    for host in hosts {
        for port in ["25", "5432", "7000"] {
            let (decision, proof) = proven(&scene, &profile, ["--connect", &format!("{host}:{port}")]);
            assert_eq!(proof["succeeded"], decision == "allowed", "{host}:{port}");
            *decided.entry(decision).or_insert(0) += 1;
        }
    }
    assert!(decided["allowed"] >= 6 && decided["refused"] >= 13, "{decided:?}");
    let here = scene.profile(&format!("floor = \"{}\"\nnetwork.allow = [\"127.0.0.1:7000\"]\n", floor()[1]));
    for asked in ["127.0.0.1:7000", "localhost:7000"] {
        assert_eq!(proven(&scene, &here, ["--connect", asked]).0, "allowed");
    }
}
