//! What the host would run or trust from a writable directory: neither changed nor planted, and where that is given up.
//!
//! Neighbours: `paths` has the grants themselves. Never: relies on a name that the test's own user could not write.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;

use super::probe;
use super::scene::{Scene, bare_answer, floor, operations};
use crate::table;

/// The parts by which git knows a repository.
fn repository(scene: &Scene, at: &str) {
    for part in ["objects", "refs/heads"] {
        scene.directory(&format!("{at}/{part}"));
    }
    fs::write(scene.path(&format!("{at}/HEAD")), "ref: refs/heads/main\n").unwrap();
}

/// Every name in a directory, sorted.
fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn no_absent_name_is_planted_in_a_writable_directory() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let within = |name: &str| scene.path(&format!("data/{name}"));
    let table = table![
        "create", within("file") => "ok";
        "create", within(".git") => "EEXIST";
        "create", within(".git/config") => "EROFS";
        "mkdir", within(".git/objects") => "EROFS";
        "mkdir", within(".vscode") => "EEXIST";
        "rmdir", within(".vscode") => "EBUSY";
        "rename", within(".vscode"), within("moved") => "EBUSY";
        "chmod", within(".vscode"), "0700" => "EROFS";
        "symlink", "/etc/passwd", within(".mcp.json") => "EEXIST";
        "rename", within("file"), within(".envrc") => "EISDIR";
        "create", within(".cargo/config.toml") => "EROFS";
        "list", within(".cargo") => "";
    ];
    scene.exec(&["--write", &data], &operations(&table)).answers(&table);
    assert_eq!(names(&data), ["file"], "the places of the names are given back");
}

#[test]
fn nothing_that_is_there_is_changed_or_moved_away() {
    let scene = Scene::new();
    let data = scene.directory("data");
    repository(&scene, "data/.git");
    let (hook, config) =
        (scene.file("data/.git/hooks/pre-commit", 0o644), scene.file("data/.git/config", 0o666));
    let module = scene.file("data/.git/modules/sub/config", 0o666);
    let servers = scene.file("data/.mcp.json", 0o666);
    for path in [&hook, &config, &module, &servers] {
        assert_eq!(bare_answer(&format!("write,{path}")), "ok");
    }
    let within = |name: &str| scene.path(&format!("data/{name}"));
    let table = table![
        "read", hook => "ok";
        "write", hook => "EROFS";
        "create", within(".git/hooks/post-commit") => "EROFS";
        "rename", within(".git/hooks"), within(".git/moved") => "EBUSY";
        "rename", within(".git"), within("moved") => "EBUSY";
        "read", config => "ok";
        "write", config => "EROFS";
        "unlink", config => "EBUSY";
        "write", module => "EROFS";
        "create", within(".git/index.lock") => "ok";
        "rename", within(".git/index.lock"), within(".git/index") => "ok";
        "rename", within(".git/index"), config => "EBUSY";
        "rename", within(".git/index"), within(".git/commondir") => "EBUSY";
        "write", within(".git/commondir") => "EROFS";
        "create", within(".git/config.worktree") => "EEXIST";
        "mkdir", within(".git/worktrees/other") => "EROFS";
        "read", servers => "ok";
        "write", servers => "EROFS";
        "unlink", servers => "EBUSY";
    ];
    scene.exec(&["--write", &data], &operations(&table)).answers(&table);
    assert_eq!(names(&within(".git")), ["HEAD", "config", "hooks", "index", "modules", "objects", "refs"]);
}

#[test]
fn a_repository_is_one_without_the_name_too() {
    let scene = Scene::new();
    let bare = scene.directory("bare");
    repository(&scene, "bare");
    let table = table![
        "create", scene.path("bare/refs/heads/main") => "ok";
        "create", scene.path("bare/config") => "EEXIST";
        "create", scene.path("bare/hooks/update") => "EROFS";
        "rename", scene.path("bare/refs/heads/main"), scene.path("bare/commondir") => "EBUSY";
    ];
    scene.exec(&["--write", &bare], &operations(&table)).answers(&table);
    assert_eq!(names(&bare), ["HEAD", "objects", "refs"]);
}

#[test]
fn a_directory_that_a_tool_has_made_a_repository_is_protected_as_before() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let within = |name: &str| scene.path(&format!("data/{name}"));
    let parts: [&[&str]; 2] = [&["HEAD", "objects/x", "refs/x"], &["HEAD", "commondir", "gitdir"]];
    for parts in parts {
        let mut made = vec![format!("mkdir,{}", within("objects")), format!("mkdir,{}", within("refs"))];
        made.extend(parts.iter().map(|part| format!("create,{}", within(part))));
        scene.exec(&["--write", &data], &made);
        assert!(parts.iter().all(|part| fs::exists(within(part)).unwrap()), "a cell has made it one");
        let table = table![
            "create", within(".mcp.json") => "EEXIST";
            "create", within(".vscode/tasks.json") => "EROFS";
            "create", within(".git/config") => "EROFS";
            "create", within("file") => "ok";
            "unlink", within("file") => "ok";
            "create", within("config.worktree") => "EEXIST";
            "unlink", within("HEAD") => "ok";
        ];
        scene.exec(&["--write", &data], &operations(&table)).answers(&table);
        fs::remove_dir_all(&data).unwrap();
        scene.directory("data");
    }
}

/// The parts of the directory that git keeps for a work tree of its own in a repository (gitrepository-layout(5)).
fn linked(scene: &Scene, at: &str) {
    scene.directory(&format!("{at}/logs"));
    for (name, content) in
        [("HEAD", "ref: refs/heads/side\n"), ("commondir", "../..\n"), ("gitdir", "elsewhere/.git\n")]
    {
        fs::write(scene.path(&format!("{at}/{name}")), content).unwrap();
        fs::set_permissions(scene.path(&format!("{at}/{name}")), fs::Permissions::from_mode(0o666)).unwrap();
    }
}

#[test]
fn what_says_where_a_repository_is_can_not_be_turned_elsewhere() {
    let scene = Scene::new();
    let (tree, module) = (scene.directory("tree"), scene.directory("main/sub"));
    repository(&scene, "main/.git");
    repository(&scene, "main/.git/modules/sub");
    linked(&scene, "main/.git/worktrees/tree");
    let (of_tree, of_module) = (scene.file("tree/.git", 0o666), scene.file("main/sub/.git", 0o666));
    let settings = scene.file("main/.git/modules/sub/config", 0o666);
    for path in [&of_tree, &of_module, &settings] {
        assert_eq!(bare_answer(&format!("write,{path}")), "ok");
    }
    let kept = scene.path("main/.git/worktrees/tree");
    let (git, of_sub) = (scene.path("main/.git"), scene.path("main/.git/modules/sub"));
    let table = table![
        "create", format!("{tree}/file") => "ok";
        "write", of_tree => "EROFS";
        "unlink", of_tree => "EBUSY";
        "rename", format!("{tree}/file"), of_tree => "EBUSY";
        "write", of_module => "EROFS";
        "unlink", of_module => "EBUSY";
        "create", format!("{kept}/index.lock") => "ok";
        "rename", format!("{kept}/index.lock"), format!("{kept}/index") => "ok";
        "write", format!("{kept}/HEAD") => "ok";
        "write", format!("{kept}/commondir") => "EROFS";
        "rename", format!("{kept}/index"), format!("{kept}/commondir") => "EBUSY";
        "write", format!("{kept}/gitdir") => "EROFS";
        "create", format!("{kept}/config.worktree") => "EEXIST";
        "mkdir", format!("{git}/worktrees/other") => "EROFS";
        "create", format!("{of_sub}/index") => "ok";
        "write", settings => "EROFS";
        "create", format!("{of_sub}/hooks/update") => "EROFS";
    ];
    let options = [&tree, &module, &git, &kept, &of_sub].map(|path| ["--write", path]);
    scene.exec(options.as_flattened(), &operations(&table)).answers(&table);
    assert_eq!(names(&kept), ["HEAD", "commondir", "gitdir", "index", "logs"]);
}

#[test]
fn a_name_that_is_spelled_out_can_be_written() {
    let scene = Scene::new();
    let data = scene.directory("data");
    repository(&scene, "data/.git");
    let (hooks, tasks) = (scene.directory("data/.git/hooks"), scene.directory("data/.vscode"));
    let profile = scene.profile(&format!(
        "filesystem.write = [\"{data}\", \"{hooks}\", \"{tasks}\", {{ path = \"{data}/.idea\", optional = true }}]"
    ));
    let table = table![
        "create", format!("{hooks}/pre-commit") => "ok";
        "create", format!("{tasks}/tasks.json") => "ok";
        "mkdir", format!("{data}/.idea") => "ok";
        "create", format!("{data}/.cursor/mcp.json") => "EROFS";
    ];
    scene.exec(&["--profile", &profile], &operations(&table)).answers(&table);
}

#[test]
fn a_grant_above_the_home_directory_protects_what_a_login_runs() {
    let scene = Scene::new();
    let (data, shell) = (scene.directory("data"), scene.file("data/home/.bashrc", 0o666));
    let within = |name: &str| scene.path(&format!("data/home/{name}"));
    let table = table![
        "read", shell => "ok";
        "write", shell => "EROFS";
        "create", within(".ssh/authorized_keys") => "EROFS";
        "create", within(".npmrc") => "EEXIST";
        "create", within("notes") => "ok";
        "rename", scene.path("data/home"), scene.path("data/moved") => "EBUSY";
    ];
    let mut command = scene.command("exec");
    command.env("HOME", scene.path("data/home")).args(floor()).args(["--write", &data, "--"]);
    let output =
        command.arg(probe::program()).args(operations(&table)).stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    super::scene::compare(&stdout, &table, &stderr);
}

#[test]
fn every_name_that_the_document_has_for_a_home_is_held_there_or_not_there() {
    let text = fs::read_to_string(crate::project().join("docs/profiles.md")).unwrap();
    let rows = crate::selftest::table(&text, "| where | names |");
    let of = |place: &str| -> Vec<String> {
        let row = rows.iter().find(|row| row[1].starts_with(place)).unwrap();
        row[2].split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let names = [of("the user's home directory"), of("the directory itself")].concat();
    assert!(names.len() > 30, "{names:?}");
    for there in [true, false] {
        let scene = Scene::new();
        let home = scene.directory("home");
        let at = |name: &str| scene.path(&format!("home/{name}"));
        let mut table = Vec::new();
        for name in names.iter().filter(|name| *name != ".git") {
            let other = scene.file(&format!("home/other{name}"), 0o666);
            if there {
                scene.file(&format!("home/{name}"), 0o666);
                table.push((format!("write,{}", at(name)), "EROFS"));
            } else {
                table.push((format!("create,{}", at(name)), "EEXIST"));
                table.push((format!("mkdir,{}", at(name)), "EEXIST"));
            }
            table.push((format!("rename,{other},{}", at(name)), if there { "EBUSY" } else { "EISDIR" }));
            table.push((format!("rename,{},{other}", at(name)), if there { "EBUSY" } else { "ENOTDIR" }));
            table.push((format!("symlink,/etc,{}", at(name)), "EEXIST"));
        }
        let mut command = scene.command("exec");
        command.env("HOME", &home).args(floor()).args(["--write", &home, "--"]);
        let output = command.arg(probe::program()).args(operations(&table)).output().unwrap();
        super::scene::compare(
            &String::from_utf8_lossy(&output.stdout),
            &table,
            &String::from_utf8_lossy(&output.stderr),
        );
    }
}

#[test]
fn a_writable_directory_that_holds_the_program_is_protected_too() {
    let scene = Scene::new();
    let (data, readable) = (scene.directory("data"), scene.file("data/readable", 0o666));
    let script = scene.path("data/script");
    fs::write(
        &script,
        "cd \"${0%/*}\" && echo mine > new && mkdir .vscode; echo x > readable; echo x > .npmrc/x\n",
    )
    .unwrap();
    let mut command = scene.command("exec");
    command.args(floor()).args(["--write", &data, "--read", &readable, "--", "sh", &script]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    assert!(said.contains("File exists"), "{said}");
    assert_eq!(names(&data), ["new", "readable", "script"]);
}

#[test]
fn a_link_in_the_place_of_such_a_name_is_refused() {
    let scene = Scene::new();
    let data = scene.directory("data");
    scene.file("elsewhere/settings", 0o644);
    symlink(scene.path("elsewhere"), scene.path("data/.claude")).unwrap();
    let run = scene.exec(&["--write", &data], &["ids".to_owned()]);
    assert_eq!(run.stdout(), "", "nothing ran");
    let said = run.stderr();
    assert!(said.contains("data/.claude` (protected in every writable directory)"), "{said}");
    assert!(said.contains("hint: a tool could replace the link"), "{said}");
}

#[test]
fn a_link_that_a_cell_could_have_made_is_not_followed_by_the_next() {
    let scene = Scene::new();
    let (data, secret) = (scene.directory("data"), scene.file("secret/key", 0o644));
    scene.file("data/sub/file", 0o644);
    let sub = scene.path("data/sub");
    let table = table![
        "rename", sub, scene.path("data/moved") => "ok";
        "symlink", scene.path("secret"), sub => "ok";
    ];
    scene.exec(&["--write", &data], &operations(&table)).answers(&table);
    assert_eq!(bare_answer(&format!("read,{sub}/key")), "ok");
    let run = scene.exec(&["--write", &data, "--read", &sub], &[format!("read,{secret}")]);
    assert_eq!((run.code(), run.stdout().as_str()), (120, ""), "{}", run.stderr());
    assert!(run.stderr().contains("data/sub` (`--read`)"), "{}", run.stderr());
    // A user who grants the place alone means where it leads.
    let table = table!["read", format!("{sub}/key") => "ok";];
    scene.exec(&["--read", &sub], &operations(&table)).answers(&table);
}
