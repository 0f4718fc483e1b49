//! Every grant of a path works, and its neighbour does not.
//!
//! Neighbours: `failures` has what is refused before anything runs. Never: relies on the modes of files alone.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toolcell::plan::step::Step;

use super::probe;
use super::scene::{Scene, bare_answer, compare, floor, is_root, needs_root, operations, skip};
use crate::{binary, table};

/// Where the dynamic loader is, by architecture and C library.
const LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

#[test]
fn read_shows_one_place_and_nothing_beside_it() {
    let scene = Scene::new();
    let (data, private) = (scene.file("data/file", 0o644), scene.file("data/private", 0o600));
    let (sibling, parent) = (scene.file("database/file", 0o644), scene.file("beside", 0o644));
    let program = scene.executable("data/program");
    for path in [&data, &sibling, &parent] {
        assert_eq!(bare_answer(&format!("read,{path}")), "ok");
        assert_eq!(bare_answer(&format!("write,{path}")), "ok");
    }
    assert_eq!(bare_answer(&format!("exec,{program}")), "ok");
    let directory = scene.path("data");
    let table = table![
        "read", data => "ok";
        "read", private => "ok";
        "list", directory => "file private program";
        "read", sibling => "ENOENT";
        "stat", sibling => "ENOENT";
        "read", parent => "ENOENT";
        "list", scene.path("") => "EACCES";
        "list", "/var" => "EACCES";
        "write", data => "EROFS";
        "create", scene.path("data/new") => "EROFS";
        "unlink", data => "EROFS";
        "rename", data, scene.path("data/other") => "EROFS";
        "mkdir", scene.path("data/new") => "EROFS";
        "chmod", data, "0600" => "EROFS";
        "exec", program => "EACCES";
        "map", program => "EPERM";
        "read", format!("{directory}/../database/file") => "ENOENT";
    ];
    let run = scene.exec(&["--read", &directory], &operations(&table));
    run.answers(&table);
    assert_eq!(run.code(), 0);
}

#[test]
fn read_of_one_file_shows_that_file() {
    let scene = Scene::new();
    let (granted, other) = (scene.file("data/granted", 0o600), scene.file("data/other", 0o644));
    let table = table![
        "read", granted => "ok";
        "write", granted => "EROFS";
        "unlink", granted => "EROFS";
        "read", other => "ENOENT";
    ];
    scene.exec(&["--read", &granted], &operations(&table)).answers(&table);
}

#[test]
fn write_changes_one_place_and_nothing_beside_it() {
    let scene = Scene::new();
    let (data, sibling) = (scene.file("data/file", 0o644), scene.file("database/file", 0o644));
    let directory = scene.path("data");
    let program = scene.executable("data/program");
    let new = scene.path("data/new");
    let table = table![
        "write", data => "ok";
        "create", new => "ok";
        "mkdir", scene.path("data/directory") => "ok";
        "rename", new, scene.path("data/directory/moved") => "ok";
        "write", sibling => "ENOENT";
        "create", scene.path("new") => "EROFS";
        "create", "/new" => "EROFS";
        "create", "/etc/new" => "EROFS";
        "rename", data, scene.path("moved") => "EXDEV";
        "exec", program => "EACCES";
        "map", program => "EPERM";
        "chmod", data, "04755" => "EPERM";
        "chmod", data, "0640" => "ok";
        "mknod", scene.path("data/device") => "EPERM";
    ];
    scene.exec(&["--write", &directory], &operations(&table)).answers(&table);
    assert_eq!(fs::read_to_string(&data).unwrap(), "content\nx");
    assert_eq!(fs::read_to_string(&sibling).unwrap(), "content\n");
    assert!(Path::new(&scene.path("data/directory/moved")).is_file());
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn execute_runs_what_it_names() {
    let scene = Scene::new();
    let (granted, other) = (scene.executable("bin/granted"), scene.executable("other/program"));
    assert_eq!(bare_answer(&format!("exec,{other}")), "ok");
    let profile = scene.profile(&format!(
        "filesystem.execute = [\"{}\"]\nfilesystem.read = [\"{}\"]\n",
        scene.path("bin"),
        scene.path("other")
    ));
    let table = table![
        "exec", granted => "ok";
        "map", granted => "ok";
        "write", granted => "EROFS";
        "read", other => "ok";
        "exec", other => "EACCES";
        "map", other => "EPERM";
    ];
    scene.exec(&["--profile", &profile], &operations(&table)).answers(&table);
}

#[test]
fn deny_hides_what_is_there() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let (secret, file, open) = (
        scene.file("data/secret/key", 0o644),
        scene.file("data/.env", 0o644),
        scene.file("data/open", 0o644),
    );
    let (directory, sibling) = (scene.path("data/secret"), scene.file("data/secrets/file", 0o644));
    for (grant, refused) in [("read", "EROFS"), ("write", "EBUSY")] {
        let profile = scene.profile(&format!(
            "filesystem.{grant} = [\"{data}\"]\nfilesystem.deny = [\"{directory}\", \"{file}\"]\n"
        ));
        let table = table![
            "read", open => "ok";
            "read", sibling => "ok";
            "list", directory => "EACCES";
            "chdir", format!("{file}/x") => "ENOTDIR";
            "read", secret => "EACCES";
            "create", scene.path("data/secret/new") => "EACCES";
            "read", file => "EACCES";
            "write", file => "EACCES";
            "unlink", file => refused;
            "rename", directory, scene.path("data/moved") => refused;
            "rename", open, file => refused;
        ];
        scene.exec(&["--profile", &profile], &operations(&table)).answers(&table);
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "content\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "content\n");
}

#[test]
fn deny_hides_names_that_do_not_exist_yet() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let hooks = scene.path("data/.git/hooks");
    let absent = scene.path("data/.mcp.json");
    scene.directory("data/sub");
    let nested = scene.path("data/sub/a/b");
    let profile = scene.profile(&format!(
        "filesystem.write = [\"{data}\"]\nfilesystem.deny = [\"{hooks}\", \"{absent}\", \"{nested}\"]\n"
    ));
    let (inside, beside) = (format!("{hooks}/pre-commit"), scene.path("data/.mcp.json2"));
    let table = table![
        "create", absent => "EEXIST";
        "write", absent => "EISDIR";
        "create", format!("{absent}/x") => "EACCES";
        "rmdir", absent => "EBUSY";
        "create", inside => "EACCES";
        "rmdir", hooks => "EROFS";
        "rename", scene.path("data/.git"), scene.path("data/git") => "EBUSY";
        "rename", scene.path("data/sub"), scene.path("data/other") => "EBUSY";
        "rename", scene.path("data/sub/a"), scene.path("data/sub/other") => "EBUSY";
        "create", format!("{nested}/x") => "EACCES";
        "create", beside => "ok";
    ];
    scene.exec(&["--profile", &profile], &operations(&table)).answers(&table);
    let mut left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".mcp.json2", "sub"], "the places of denied names are given back");
    assert_eq!(fs::read_dir(scene.path("data/sub")).unwrap().count(), 0);
}

#[test]
fn the_longest_path_decides() {
    let scene = Scene::new();
    let (outer, inner) = (scene.directory("outer"), scene.directory("outer/inner"));
    let (writable, readable) = (scene.file("outer/file", 0o644), scene.file("outer/inner/file", 0o644));
    let (tail, head) = (scene.file("outer/inner/deep/file", 0o644), scene.directory("outer/inner/deep"));
    let profile = scene
        .profile(&format!("filesystem.write = [\"{outer}\", \"{head}\"]\nfilesystem.read = [\"{inner}\"]\n"));
    let table = table![
        "write", writable => "ok";
        "read", readable => "ok";
        "write", readable => "EROFS";
        "create", scene.path("outer/inner/new") => "EROFS";
        "unlink", readable => "EROFS";
        "rename", inner, scene.path("outer/moved") => "EBUSY";
        "write", tail => "ok";
    ];
    scene.exec(&["--profile", &profile], &operations(&table)).answers(&table);
}

#[test]
fn a_link_is_granted_where_it_leads() {
    let scene = Scene::new();
    let (target, beside) = (scene.file("real/file", 0o644), scene.file("real2/file", 0o644));
    let link = scene.path("link");
    symlink(scene.path("real"), &link).unwrap();
    let table = table![
        "read", format!("{link}/file") => "ok";
        "read", target => "ENOENT";
        "read", beside => "ENOENT";
        "write", format!("{link}/file") => "EROFS";
    ];
    scene.exec(&["--read", &link], &operations(&table)).answers(&table);

    // A link inside a grant does not lead out of it.
    symlink(&beside, scene.path("real/out")).unwrap();
    let table = table!["read", scene.path("real/out") => "ENOENT"; "read", target => "ok";];
    scene.exec(&["--read", &scene.path("real")], &operations(&table)).answers(&table);
}

#[test]
fn a_directory_that_became_a_link_is_refused() {
    let scene = Scene::new();
    scene.file("data/sub/file", 0o644);
    let outside = scene.directory("outside");
    let plan = scene.plan(
        &format!("filesystem.write = [\"{}\"]", scene.path("data/sub")),
        &[format!("create,{}", scene.path("data/sub/planted"))],
    );
    assert_eq!(scene.run(&plan).stdout.lines().count(), 1, "it works before");
    fs::remove_dir_all(scene.path("data")).unwrap();
    fs::create_dir(scene.path("outside/sub")).unwrap();
    symlink(&outside, scene.path("data")).unwrap();
    scene.run(&plan).refused_at("bind", libc::ELOOP);
    assert_eq!(fs::read_dir(scene.path("outside/sub")).unwrap().count(), 0);
    // Also when the last component is the link.
    fs::remove_file(scene.path("data")).unwrap();
    fs::create_dir(scene.path("data")).unwrap();
    symlink(&outside, scene.path("data/sub")).unwrap();
    scene.run(&plan).refused_at("bind", libc::ELOOP);
}

#[test]
fn files_are_the_payloads_own_in_what_is_granted() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let private = scene.file("data/private", 0o600);
    let made = scene.path("data/made");
    let table = table![
        "write", private => "ok";
        "owner", private => "1000:1000 600";
        "create", made => "ok";
        "ids" => "1000:1000";
    ];
    scene.exec(&["--write", &data], &operations(&table)).answers(&table);
    let (made, before) = (fs::metadata(&made).unwrap(), fs::metadata(&private).unwrap());
    assert_eq!((made.uid(), made.gid()), (before.uid(), before.gid()));
    assert_eq!(made.mode() & 0o7777, 0o644);
    assert!(!is_root() || made.uid() == 0);
}

/// Where the kernel cannot map owners on tmpfs, as before Linux 6.3, nothing runs with less.
#[test]
fn a_grant_on_tmpfs_is_the_payloads_own_or_refused() {
    if needs_root("only cells of root map owners") {
        return;
    }
    let scene = Scene::new();
    let directory = scene.directory("shared");
    let file = scene.path("shared/private");
    let table = table!["write", file => "ok"; "owner", file => "1000:1000 600";];
    // Mounted for this command alone.
    let on_tmpfs = |arguments: &[String]| {
        let script =
            "mount -t tmpfs tmpfs \"$0\" && (umask 077 && echo content > \"$0/private\") && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, &directory]).arg(binary()).args(arguments);
        command.current_dir(scene.path("")).env("TMPDIR", &directory).output().unwrap()
    };
    let words = |list: &[&str]| -> Vec<String> { list.iter().map(|word| (*word).to_owned()).collect() };
    let report: Value = serde_json::from_slice(&on_tmpfs(&words(&["doctor", "--json"])).stdout).unwrap();
    let found = report["root"]["layers"]["idmapped-mounts"]["detail"].as_str().unwrap();
    let [option, floor] = floor();
    let mut exec =
        words(&["exec", option, floor, "--write", &directory, "--", probe::program().to_str().unwrap()]);
    exec.extend(operations(&table));
    let output = on_tmpfs(&exec);
    let said = String::from_utf8_lossy(&output.stderr);
    if found.ends_with(&format!("but not on that of {directory}")) {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(122), 0), "{said}");
        assert!(said.contains("tmpfs since Linux 6.3"), "{said}");
    } else {
        compare(&String::from_utf8_lossy(&output.stdout), &table, &said);
    }
}

#[test]
fn files_of_others_stay_theirs() {
    if needs_root("only root can make files of others") {
        return;
    }
    let scene = Scene::new();
    let data = scene.directory("data");
    let theirs = scene.file("data/theirs", 0o600);
    std::os::unix::fs::chown(&theirs, Some(4321), Some(4321)).unwrap();
    let table = table!["read", theirs => "EACCES"; "write", theirs => "EACCES"; "owner", theirs => "65534:65534 600";];
    scene.exec(&["--write", &data], &operations(&table)).answers(&table);
}

#[test]
fn scratch_is_private_and_bounded() {
    let scene = Scene::new();
    let table = table![
        "create", "/tmp/file" => "ok";
        "fill", "/tmp/full", "2000000" => "ENOSPC";
        "list", "/tmp" => "file full";
    ];
    scene.exec(&["--scratch", "1MiB"], &operations(&table)).answers(&table);
    assert!(!Path::new("/tmp/full").exists());
    // Without scratch there is none; a /tmp only if the program itself lies beneath it, and then read-only.
    let none = scene.exec(&["--scratch", "0"], &["create,/tmp/file".to_owned()]).stdout();
    assert!(["create,/tmp/file ENOENT\n", "create,/tmp/file EROFS\n"].contains(&none.as_str()), "{none}");
}

#[test]
fn scratch_is_executable_only_by_leave() {
    let scene = Scene::new();
    let program = probe::program();
    let shell = "cp \"$0\" /tmp/program && chmod 755 /tmp/program && /tmp/program ids";
    let run = |options: &[&str]| {
        let mut command = scene.command("exec");
        command.args(floor()).args(options).args(["--", "sh", "-c", shell]).arg(&program);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let read = ["--read", program.to_str().unwrap()];
    assert_eq!(run(&read).0, 126);
    let profile = scene.profile("filesystem.execute = [\"{scratch}\"]\n");
    let (code, stdout) = run(&[&read[..], &["--profile", &profile]].concat());
    assert_eq!((code, stdout.as_str()), (0, "ids 1000:1000\n"));
}

/// It maps what it is given, and asks nobody whether that may be executed.
#[test]
fn the_loader_runs_nothing_that_was_written() {
    let scene = Scene::new();
    let data = scene.directory("data");
    let profile = scene.profile("filesystem.execute = [\"{scratch}\"]\n");
    let Some(loader) = LOADERS.into_iter().find(|loader| Path::new(loader).exists()) else {
        return skip("no dynamic loader by a name that is known here");
    };
    let written =
        |directory: &str| format!("cp /bin/true {directory}/written && {loader} {directory}/written");
    let shell = |command: &mut Command, directory: &str| {
        let output = command.args(["-c", &written(directory)]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(shell(&mut Command::new("sh"), &data), (Some(0), String::new()));
    let run = |options: &[&str], directory: &str| {
        let mut command = scene.command("exec");
        shell(command.args(floor()).args(options).args(["--", "sh"]), directory)
    };
    for (options, directory) in [(&[][..], "/tmp"), (&["--write", &data], &data)] {
        let (code, stderr) = run(options, directory);
        assert_eq!(code, Some(127), "{stderr}");
        assert!(stderr.contains("failed to map segment"), "{stderr}");
    }
    assert_eq!(run(&["--profile", &profile], "/tmp"), (Some(0), String::new()));
}

#[test]
fn a_plan_binds_no_path_that_was_not_granted() {
    let scene = Scene::new();
    let data = scene.file("data/file", 0o644);
    let plan = scene.plan(&format!("filesystem.read = [\"{data}\"]"), &[]);
    let sources: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Bind { source, .. } => Some(source.display().to_string()),
            _ => None,
        })
        .filter(|source| {
            source.starts_with("/var") || source.starts_with("/root") || source.starts_with("/home")
        })
        .collect();
    assert!(sources.contains(&data));
    assert!(
        sources.iter().all(|source| *source == data || Path::new(source) == probe::program()),
        "{sources:?}"
    );
}
