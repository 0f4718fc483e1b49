//! Writes that do not go to the host: thrown away, or done to it after success, whole or not at all.
//!
//! Neighbours: `traps` and `paths` have the grants that are written to directly; `launch::changes` has the attacks on what a cell
//! leaves. Never: takes for granted that what is seen in the cell is what is on the host.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::{Executed, Scene, is_root, operations};
use crate::host::is_of_its_slowness;
use crate::table;

/// Every name below a directory with its mode and what it holds.
fn tree(top: &str) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![Path::new(top).to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() { fs::read(&path).unwrap() } else { vec![] };
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            if metadata.is_dir() {
                open.push(path);
            }
            found.insert(name, (metadata.mode(), content));
        }
    }
    found
}

fn writes(scene: &Scene, mode: &str, data: &str, operations: &[String]) -> Executed {
    scene.exec(&["--write", data, "--writes", mode], operations)
}

/// What the report tells of changes.
fn told(executed: &Executed, data: &str) -> Vec<String> {
    let files = executed.report["changes"]["files"].as_array().unwrap();
    let file = |file: &Value| {
        let path = file["path"].as_str().unwrap().strip_prefix(data).unwrap();
        format!("{} {path} {}", file["kind"].as_str().unwrap(), file["size"])
    };
    files.iter().map(file).collect()
}

#[test]
fn what_is_discarded_is_seen_in_the_cell_and_never_on_the_host() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let (file, gone) = (scene.file("data/file", 0o666), scene.file("data/sub/gone", 0o666));
    let before = tree(&data);
    let table = table![
        "write", file => "ok";
        "unlink", gone => "ok";
        "read", gone => "ENOENT";
        "create", format!("{data}/new") => "ok";
        "mkdir", format!("{data}/.vscode") => "ok";
        "list", data => ".vscode file new sub";
    ];
    let executed = writes(&scene, "discard", &data, &operations(&table));
    executed.answers(&table);
    assert_eq!(tree(&data), before);
    assert_eq!(executed.report["changes"], Value::Null);
    let seen = executed.report["receipt"]["layers"]["root"].as_str().unwrap();
    assert!(seen.ends_with("writes go to 1 overlays"), "{seen}");
}

#[test]
fn what_is_reviewed_is_done_after_success_and_told_file_by_file() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let (file, gone) = (scene.file("data/file", 0o640), scene.file("data/old/gone", 0o666));
    let owner = fs::metadata(&file).unwrap().uid();
    let table = table![
        "write", file => "ok";
        "unlink", gone => "ok";
        "mkdir", format!("{data}/a") => "ok";
        "create", format!("{data}/a/new") => "ok";
        "chmod", format!("{data}/a/new"), "0750" => "ok";
    ];
    let executed = writes(&scene, "review", &data, &operations(&table));
    executed.answers(&table);
    assert_eq!(executed.code(), 0, "{}", executed.stderr());
    let size = fs::metadata(&file).unwrap().len();
    let expected = [
        "added /a/ 0".to_owned(),
        "added /a/new 0".to_owned(),
        format!("changed /file {size}"),
        "deleted /old/gone 0".to_owned(),
    ];
    assert_eq!(told(&executed, &data), expected);
    assert_eq!(executed.report["changes"]["verdict"], "applied");
    let after = tree(&data);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["a", "a/new", "file", "old"]);
    assert_eq!((after["a/new"].0 & 0o7777, after["file"].0 & 0o7777), (0o750, 0o640));
    assert_eq!(fs::metadata(format!("{data}/a/new")).unwrap().uid(), owner, "as the grant's owner");
    let stderr = executed.stderr();
    let shown =
        format!("changed {file} ({size} bytes)\n--- {file}\n+++ {file}\n@@ -1,1 +1,2 @@\n content\n+x\n");
    assert!(stderr.contains(&shown), "{stderr}");
    assert!(stderr.contains(&format!("--- {gone}\n+++ /dev/null\n")), "{stderr}");
}

/// Does the doctor say that a directory of the host's cannot be removed in an overlay of this user's?
fn are_kept() -> bool {
    let user = if is_root() { "root" } else { "user" };
    crate::host::doctor()[user]["layers"]["overlay-removals"]["state"] == "missing"
}

#[test]
fn a_directory_of_the_hosts_is_removed_where_the_doctor_says_so() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let gone = scene.file("data/old/gone", 0o666);
    fs::create_dir(format!("{data}/empty")).unwrap();
    let kept = are_kept();
    let table = table![
        "rmdir", format!("{data}/empty") => "ok";
        "mkdir", format!("{data}/empty") => if kept { "EIO" } else { "ok" };
        "rmdir", format!("{data}/empty") => if kept { "ENOENT" } else { "ok" };
        "unlink", gone => "ok";
        "rmdir", format!("{data}/old") => if kept { "EIO" } else { "ok" };
        "list", data => if kept { "old" } else { "" };
    ];
    for mode in ["discard", "review"] {
        let executed = writes(&scene, mode, &data, &operations(&table));
        executed.answers(&table);
        assert_eq!(executed.code(), 0, "{}", executed.stderr());
    }
    assert_eq!(tree(&data).keys().collect::<Vec<_>>(), if kept { vec!["old"] } else { vec![] });
}

#[test]
fn without_a_terminal_nobody_agrees() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let operations = [format!("create,{data}/new")];
    let executed = writes(&scene, "ask", &data, &operations);
    let stderr = executed.stderr();
    assert_eq!((executed.code(), tree(&data).len()), (117, 0), "{stderr}");
    assert!(stderr.contains("nobody can be asked, as stdin is no terminal"), "{stderr}");
    assert_eq!(executed.report["changes"]["verdict"], "refused");
}

#[test]
fn nothing_is_done_after_a_failure() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let operations = [format!("create,{data}/new"), "exit,3".to_owned()];
    let executed = writes(&scene, "review", &data, &operations);
    assert_eq!((executed.code(), tree(&data).len()), (3, 0));
    assert_eq!(executed.report["changes"], Value::Null);
}

#[test]
fn one_change_that_may_not_be_done_keeps_all_others_from_it() {
    let scene = Scene::new();
    let data = scene.directory("data");
    for name in ["HEAD", "objects/x", "refs/x", "hooks/pre-commit"] {
        scene.file(&format!("data/.git/{name}"), 0o666);
    }
    scene.file("data/sub/file", 0o666);
    let before = tree(&data);
    let within = |name: &str| format!("{data}/{name}");
    let allow =
        |name: &str| format!("[filesystem]\nwrite = [{{ path = \"{data}/{name}\", optional = true }}]");
    let cases = [
        (vec![format!("mkdir,{}", within(".vscode"))], "the protection of", Some(allow(".vscode"))),
        (vec![format!("create,{}", within(".git/config"))], "the protection of", Some(allow(".git/config"))),
        (vec![format!("mkdir,{}", within("sub/.git"))], "the protection of", Some(allow("sub/.git"))),
        (
            vec![format!("create,{}", within("sub/.mcp.json"))],
            "the protection of",
            Some(allow("sub/.mcp.json")),
        ),
        (vec![format!("symlink,/etc/passwd,{}", within("link"))], "symbolic link", None),
        (vec![format!("fifo,{}", within("pipe"))], "device, pipe or socket", None),
        (vec![format!("chmod,{},0700", within("sub"))], "modes of directories", None),
        (vec![format!("create,{}", within("a\u{1b}[2J"))], "text that can be shown", None),
        (vec![format!("create,{}", within("a\u{202e}b"))], "text that can be shown", None),
        (
            vec![
                format!("unlink,{}", within("sub/file")),
                format!("rmdir,{}", within("sub")),
                format!("create,{}", within("sub")),
            ],
            "no file of a directory",
            None,
        ),
    ];
    // The last one cannot be tried where the directory stays.
    let tried = cases.len() - usize::from(are_kept());
    for (refused, rule, allow) in cases.into_iter().take(tried) {
        let operations: Vec<String> =
            [format!("create,{}", within("innocent"))].into_iter().chain(refused).collect();
        let executed = writes(&scene, "review", &data, &operations);
        assert!(!executed.stdout().contains(" E"), "{}", executed.stdout());
        assert_eq!(executed.code(), 117, "{operations:?}: {}", executed.stderr());
        assert_eq!(tree(&data), before, "{operations:?}");
        assert_eq!(executed.report["changes"]["verdict"], "refused");
        assert_eq!(executed.report["status"]["kind"], "failed");
        let mut violations = executed.report["violations"].as_array().unwrap().iter();
        let violation = violations.find(|violation| !is_of_its_slowness(violation)).unwrap();
        assert!(violation["rule"].as_str().unwrap().contains(rule), "{violation}");
        assert_eq!((&violation["layer"], &violation["allow"]), (&json!("review"), &json!(allow)));
        assert!(executed.stderr().contains("nothing of what it changed was done to the host"));
    }
}

#[test]
fn what_a_grant_leaves_to_the_tool_or_a_deny_hides_decides_there_too() {
    let scene = Scene::new();
    let data = scene.directory("data");
    scene.file("data/secret/key", 0o666);
    let profile = scene.profile(&format!(
        "[filesystem]\nwrites = \"review\"\nwrite = [\"{data}\", {{ path = \"{data}/.vscode\", optional = true }}]\n\
         deny = [\"{data}/secret\", \"{data}/none\"]\n"
    ));
    let run = |operations: &[String]| scene.exec(&["--profile", &profile], operations);
    let left = run(&[format!("mkdir,{data}/.vscode"), format!("create,{data}/.vscode/tasks.json")]);
    assert_eq!(left.code(), 0, "{}", left.stderr());
    assert!(Path::new(&format!("{data}/.vscode/tasks.json")).exists());
    let table = table![
        "read", format!("{data}/secret/key") => "EACCES";
        "rename", format!("{data}/secret"), format!("{data}/moved") => "EBUSY";
        "create", format!("{data}/none") => "ok";
    ];
    let denied = run(&operations(&table));
    denied.answers(&table);
    assert_eq!(denied.code(), 117, "{}", denied.stderr());
    let violation = &denied.report["violations"][0];
    assert_eq!(violation["rule"], format!("`deny` of `{data}/none`"));
    assert!(!Path::new(&format!("{data}/none")).exists());
}

#[test]
fn what_is_narrower_within_stays_so_and_no_directory_of_the_hosts_is_moved_away() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let fixed = scene.file("data/sub/fixed/f", 0o666);
    let profile = scene.profile(&format!(
        "[filesystem]\nwrites = \"review\"\nwrite = [\"{data}\"]\nread = [\"{data}/sub/fixed\"]\n"
    ));
    let table = table![
        "write", fixed => "EROFS";
        "unlink", fixed => "EROFS";
        "rename", format!("{data}/sub/fixed"), format!("{data}/moved") => "EBUSY";
        "rename", format!("{data}/sub"), format!("{data}/moved") => "EXDEV";
        "create", format!("{data}/sub/new") => "ok";
        "stat", "/.toolcell/changes" => "ok";
        "list", "/.toolcell/changes" => "EACCES";
        "stat", "/.toolcell/changes/0" => "EACCES";
    ];
    let executed = scene.exec(&["--profile", &profile], &operations(&table));
    executed.answers(&table);
    assert_eq!(tree(&data).keys().collect::<Vec<_>>(), ["sub", "sub/fixed", "sub/fixed/f", "sub/new"]);
}

#[test]
fn a_forged_word_of_the_overlays_deletes_nothing() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let fixed = scene.file("data/sub/fixed", 0o666);
    scene.file("data/sub/other", 0o666);
    let before = tree(&data);
    let program = "import os, sys\n\
                   for kind in ('user', 'trusted'):\n    \
                   try: os.setxattr(sys.argv[1], kind + '.overlay.opaque', b'y')\n    \
                   except OSError: pass";
    let profile = scene
        .profile(&format!("[filesystem]\nwrites = \"review\"\nwrite = [\"{data}\"]\nread = [\"{fixed}\"]\n"));
    let output = scene
        .command("exec")
        .args(super::scene::floor())
        .args(["--profile", &profile, "--", "/usr/bin/python3", "-S", "-c", program, &format!("{data}/sub")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(tree(&data), before);
}

#[test]
fn what_is_written_counts_and_has_a_bound() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let executed = scene.exec(
        &["--write", &data, "--writes", "review", "--scratch", "1MiB"],
        &[format!("fill,{data}/big,2097152")],
    );
    assert!(executed.stdout().contains("ENOSPC"), "{}", executed.stdout());
}

#[test]
fn a_directory_in_which_something_is_mounted_is_not_laid_over() {
    // Something is mounted in /dev on every host.
    let scene = Scene::new();
    let mut plan = scene.plan(
        &format!("filesystem.writes = \"discard\"\nfilesystem.write = [\"{}\"]\n", scene.directory("data")),
        &[],
    );
    for step in &mut plan.steps {
        if let toolcell::plan::step::Step::MountOverlay { source, owner, .. } = step {
            *source = "/dev".into();
            *owner = None;
        }
    }
    let error = scene.run(&plan).failed.unwrap();
    assert_eq!((error.step.as_str(), error.errno.0), ("mount-overlay", libc::EBUSY), "{error}");
}

/// Names with which operations are made: few, so that they meet.
fn operation() -> impl Strategy<Value = (&'static str, usize, usize)> {
    let kinds = prop::sample::select(vec!["create", "write", "unlink", "mkdir", "rmdir", "rename"]);
    (kinds, 0..6_usize, 0..6_usize)
}

const NAMES: [&str; 6] = ["a", "b", "d", "d/a", "d/e", "d/e/a"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// What a review does to the host is what the same operations do to it directly; where it cannot, it does nothing.
    #[test]
    fn a_review_does_what_was_done_or_nothing(list in prop::collection::vec(operation(), 1..24)) {
        let scene = Scene::new();
        let places = ["direct", "review"].map(|name| {
            for file in ["a", "d/a", "d/e/a"] {
                scene.file(&format!("{name}/{file}"), 0o666);
            }
            scene.path(name)
        });
        let before = tree(&places[1]);
        let of = |data: &str| list.iter().map(|(kind, one, other)| {
            let (one, other) = (NAMES[*one], NAMES[*other]);
            match *kind {
                "rename" => format!("rename,{data}/{one},{data}/{other}"),
                kind => format!("{kind},{data}/{one}"),
            }
        }).collect::<Vec<_>>();
        let directly = writes(&scene, "direct", &places[0], &of(&places[0]));
        let reviewed = writes(&scene, "review", &places[1], &of(&places[1]));
        // A directory of the host's cannot be renamed in an overlay, nor removed everywhere.
        let (moved, stayed) = (reviewed.stdout().contains("EXDEV"), reviewed.stdout().contains("EIO"));
        prop_assume!(!moved && (!stayed || !are_kept()));
        prop_assert_eq!(directly.stdout().replace("/direct", ""), reviewed.stdout().replace("/review", ""));
        match reviewed.code() {
            0 => prop_assert_eq!(tree(&places[0]), tree(&places[1])),
            _ => prop_assert_eq!(&tree(&places[1]), &before),
        }
    }
}

#[test]
fn a_link_that_the_host_has_is_replaced_and_not_followed() {
    let scene = Scene::new();
    let (data, outside) = (scene.directory("data"), scene.file("outside", 0o666));
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(&outside, format!("{data}/link")).unwrap();
    let link = format!("{data}/link");
    let executed = writes(&scene, "review", &data, &[format!("unlink,{link}"), format!("create,{link}")]);
    assert_eq!(executed.code(), 0, "{}", executed.stderr());
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!(fs::read(&outside).unwrap(), b"content\n");
}
