//! With `observe = "files"`, opens of what the host has and the cell lacks stand in the record, and every open goes on as
//! without. Never: takes an empty record for a proof.

use std::fs;
use std::path::Path;

use serde_json::Value;
use toolcell::outcome::{Layer, Violation};

use super::refusals::seen;
use super::scene::{Executed, Scene, floor, operations};
use crate::table;

fn files(run: &Executed) -> Vec<Violation> {
    let all: Vec<Violation> = serde_json::from_value(run.report["violations"].clone()).unwrap();
    // What the start of a program asks for depends on the host.
    all.into_iter().filter(|found| found.layer == Layer::Root && !found.object.starts_with("/etc/")).collect()
}

fn coverage(run: &Executed) -> &str {
    run.report["receipt"]["coverage"]["root"].as_str().unwrap()
}

fn grant(list: &str, path: &str) -> Option<String> {
    Some(format!("[filesystem]\n{list} = [\"{path}\"]"))
}

#[test]
fn what_the_host_has_and_the_cell_lacks_is_recorded_where_that_is_wanted() {
    let scene = Scene::new();
    let (data, work) = (scene.file("data/file", 0o644), scene.file("work/file", 0o644));
    let (other, secret) = (scene.file("other", 0o644), scene.file("work/.env", 0o644));
    let (new, absent) = (scene.path("new"), scene.path("absent"));
    let hook = scene.file("work/.git/hooks/pre-commit", 0o644);
    let detour = format!("{}/../data/../other", scene.path("work"));
    let rules = format!(
        "filesystem.read = [\"{}\"]\nfilesystem.write = [\"{}\"]\nfilesystem.deny = [\"{secret}\"]\n",
        scene.path("data"),
        scene.path("work")
    );
    let core = "/proc/sys/kernel/core_pattern";
    let table = table![
        "read", data => "ok";
        "read", work => "ok";
        "write", work => "ok";
        "write", "/dev/null" => "ok";
        "read", other => "ENOENT";
        "read", detour => "ENOENT";
        "read", other => "ENOENT";
        "write", data => "EROFS";
        "read", secret => "EACCES";
        "create", new => "EROFS";
        "read", absent => "ENOENT";
        "read", core => "ENOENT";
        "read", "/tmp/absent" => "ENOENT";
        "write", hook => "EROFS";
        "read", hook => "ok";
        "chdir", scene.path("work") => "ok";
        "write", "../data/file" => "EROFS";
        "read", "../data/file" => "ok";
    ];
    for wanted in ["files", "calls"] {
        let profile = scene.profile(&format!("observe = \"{wanted}\"\n{rules}"));
        let run = scene.exec(&["--profile", &profile], &operations(&table));
        run.answers(&table);
        if wanted == "calls" {
            assert_eq!((run.report["violations"].as_array().unwrap().len(), coverage(&run)), (0, "sampled"));
            continue;
        }
        assert_eq!(
            (coverage(&run), &run.report["receipt"]["coverage"]["seccomp"]),
            ("sampled", &"complete".into())
        );
        let found = files(&run);
        let expected = [
            ("open", other.as_str(), "ENOENT", 3),
            ("open", &data, "EROFS", 2),
            ("open", &secret, "EACCES", 1),
            ("open", &new, "EROFS", 1),
            ("open", core, "ENOENT", 1),
            ("open", &hook, "EROFS", 1),
        ];
        assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), expected);
        let allow: Vec<_> = found.iter().map(|found| found.allow.clone()).collect();
        let hooks = scene.path("work/.git/hooks");
        let spelled = format!("[filesystem]\nwrite = [{{ path = \"{hooks}\", optional = true }}]");
        let expected = [
            grant("read", &other),
            grant("write", &data),
            None,
            // What does not exist cannot be granted.
            grant("write", Path::new(&new).parent().unwrap().to_str().unwrap()),
            None,
            Some(spelled),
        ];
        assert_eq!(allow, expected);
        assert_eq!(found[2].rule, format!("`filesystem.deny` of `{secret}`"));
        assert_eq!(found[5].rule, format!("the protection of `{hooks}`"));
        assert!(found.iter().all(|found| found.first_us.is_some() && found.first_us <= found.last_us));
        assert!(found[0].first_us < found[0].last_us);
    }
}

/// A program that looks into what is hidden beside it does without, and the record says what it was answered.
#[test]
fn what_a_program_has_no_use_for_is_not_found() {
    let scene = Scene::new();
    let (git, secret) = (scene.directory("work/.git"), scene.file("work/.env", 0o644));
    let config = scene.file("work/.git/config", 0o644);
    let new = format!("{git}/new/deep");
    let script = scene.path("work/look.py");
    let look = format!(
        "import errno, os
def answer(path, flags):
    try: os.close(os.open(path, flags)); return 'ok'
    except OSError as error: return errno.errorcode[error.errno]
make = os.O_WRONLY | os.O_CREAT
print(answer({git:?}, 0), answer({config:?}, 0), answer({config:?}, make), answer({new:?}, make), answer({secret:?}, 0))"
    );
    fs::write(&script, look).unwrap();
    let profile = scene.profile(&format!("floor = \"{}\"\nobserve = \"files\"\n", floor()[1]));
    let report = scene.path("report.json");
    let python = ["--", "/usr/bin/python3", "-S", "-E", &script];
    let mut command = scene.command("exec");
    command.args(["--profile", &profile, "--report", &report]).args(python);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "EACCES ENOENT EROFS ENOENT EACCES\n", "{output:?}");
    let report = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let run = Executed { output, report };
    let found = files(&run);
    let hidden = |path: &str| path.starts_with(&git) || path.starts_with(&secret);
    let found: Vec<_> = found.iter().map(seen).filter(|(_, path, ..)| hidden(path)).collect();
    let expected = [
        ("open", git.as_str(), "EACCES", 1),
        ("open", &config, "ENOENT", 1),
        ("open", &config, "EROFS", 1),
        ("open", &new, "ENOENT", 1),
        ("open", &secret, "EACCES", 1),
    ];
    assert_eq!(found, expected);
    for path in [&git, &config, &secret] {
        let mut why = scene.command("profile");
        let why = why.args(["why", &profile, "--read", path, "--prove"]).args(python).output().unwrap();
        assert!(why.stdout.starts_with(b"refused"), "{why:?}");
        assert!(!String::from_utf8_lossy(&why.stderr).contains("the cell does not do"), "{why:?}");
    }
}

/// What a line says is true: with it the same open is no violation any more.
#[test]
fn the_line_that_would_allow_it_does() {
    let scene = Scene::new();
    let (other, data) = (scene.file("other", 0o644), scene.file("data/file", 0o666));
    let new = scene.path("data/new");
    let readable = format!("filesystem.read = [\"{}\"]\n", scene.path("data"));
    for (operation, granted, refused) in [
        (format!("read,{other}"), "", "ENOENT"),
        (format!("write,{data}"), readable.as_str(), "EROFS"),
        (format!("create,{new}"), &readable, "EROFS"),
    ] {
        let profile = format!("observe = \"files\"\n{granted}");
        let run = scene.exec(&["--profile", &scene.profile(&profile)], std::slice::from_ref(&operation));
        run.answers(&[(operation.clone(), refused)]);
        let [found] = &files(&run)[..] else { panic!("{}", run.report) };
        let allow = found.allow.clone().unwrap().replace("[filesystem]\n", "filesystem.");
        let profile = format!("{profile}{allow}\n");
        let run = scene.exec(&["--profile", &scene.profile(&profile)], std::slice::from_ref(&operation));
        run.answers(&[(operation, "ok")]);
        assert!(files(&run).is_empty(), "{}", run.report);
    }
}

#[test]
fn a_flood_of_opens_is_counted_and_the_record_stays_small() {
    let scene = Scene::new();
    let profile = scene.profile("observe = \"files\"\n");
    let there = scene.path("there/");
    for number in 0..40 {
        scene.file(&format!("there/{number}"), 0o644);
    }
    let nowhere = format!("opens,{},2000", scene.path("absent"));
    let late = scene.file("late", 0o644);
    let operations =
        [format!("opens,{there},40"), format!("opens,{there},40"), nowhere, format!("read,{late}")];
    let run = scene.exec(&["--profile", &profile], &operations);
    run.answers(&operations.map(|operation| (operation, "ENOENT")));
    let found = files(&run);
    assert_eq!(found.len(), 33);
    assert_eq!(seen(&found[31]), ("open", scene.path("there/31").as_str(), "ENOENT", 2));
    // Nothing is looked for on the host any more when 1024 names were.
    assert_eq!(seen(&found[32]), ("other files", "", "", 2 * (40 - 32)));
    assert_eq!(run.report["receipt"]["coverage"]["seccomp"], "complete");
    assert_eq!(coverage(&run), "sampled");
}

#[test]
fn who_changes_a_name_while_it_is_looked_at_changes_the_record_only() {
    let scene = Scene::new();
    let (granted, other) = (scene.file("name-a", 0o644), scene.file("name-b", 0o644));
    let profile = scene.profile(&format!("observe = \"files\"\nfilesystem.read = [\"{granted}\"]\n"));
    let operation = format!("race,{},3000", scene.path("name-"));
    let run = scene.exec(&["--profile", &profile], std::slice::from_ref(&operation));
    run.answers(&[(operation, "ok")]);
    let found = files(&run);
    assert!(found.iter().all(|found| found.object == other), "{found:?}");
}

#[test]
fn who_is_killed_while_an_open_waits_holds_nobody_up() {
    let scene = Scene::new();
    let profile = scene.profile("observe = \"files\"\n");
    let other = scene.file("other", 0o644);
    let operations = ["storm,40".to_owned(), format!("read,{other}")];
    let run = scene.exec(&["--profile", &profile], &operations);
    run.answers(&[(operations[0].clone(), "ok"), (operations[1].clone(), "ENOENT")]);
    assert!(files(&run).iter().any(|found| found.object == other), "{}", run.report);
    assert_ne!(run.report["receipt"]["coverage"]["seccomp"], Value::from("blind"));
}
