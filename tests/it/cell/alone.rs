//! Cells where no namespace can be made: what works, what its neighbour must not do, and what is left.
//!
//! Neighbours: `scene` has the directories. The tests make a user namespace that allows no other below it, and start
//! toolcell there as an ordinary user. Never: changes the host's own limit.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use toolcell::sys::{identity, landlock, process};

use super::left::{holding, wait_for_end};
use super::probe;
use super::scene::{Scene, bare, compare, is_root, note, operations, skip};
use crate::selftest::{as_expected, escapes};
use crate::{binary, host, table};

/// An ordinary user for tests that root runs.
const SOMEBODY: u32 = 65_534;

/// Runs what follows where `user.max_user_namespaces` is 0, with no capability.
const BELOW: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
    exec setpriv --ambient-caps=-all --inh-caps=-all \"$@\"";

fn user() -> u32 {
    if is_root() { SOMEBODY } else { identity::effective().0 }
}

/// A command where no namespace can be made.
fn confined(scene: &Scene) -> Command {
    let (uid, gid) = if is_root() { (SOMEBODY, SOMEBODY) } else { identity::effective() };
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "unshare"]);
        command
    } else {
        Command::new("unshare")
    };
    command
        .args(["--user", &format!("--map-user={uid}"), &format!("--map-group={gid}"), "--keep-caps"])
        .args(["sh", "-c", BELOW, "sh"])
        .current_dir(scene.path(""))
        .env_remove("XDG_RUNTIME_DIR");
    command
}

fn exec(scene: &Scene, options: &[&str]) -> Command {
    accepting("landlock", scene, options)
}

fn accepting(floor: &str, scene: &Scene, options: &[&str]) -> Command {
    let mut command = confined(scene);
    command.arg(binary()).args(["exec", "--floor", floor]).args(options).arg("--");
    command
}

/// The profile that a refusal tells to write, with which a directory can be granted for writing.
fn leaving_all_to_the_tool(scene: &Scene, work: &str) -> String {
    let refused = exec(scene, &["--write", work]).arg(probe::program()).arg("ids").output().unwrap();
    let said = text(&refused);
    assert!(said.contains(&format!("cannot be protected: `{work}/.git` and")), "{said}");
    let (_, line) = said.split_once("leave these names to the tool: `").unwrap();
    let (line, _) = line.split_once('`').unwrap();
    scene.profile(&format!("filesystem.{line}"))
}

/// Does Landlock not keep signals inside? Then this rung is refused, which one of the tests sees.
fn is_old() -> bool {
    landlock::abi() < 6
}

/// Does this host lack what the rung needs?
fn impossible() -> bool {
    let old = is_old();
    if old {
        note("Landlock's ABI is below 6");
    }
    let refused = || !Command::new("unshare").args(["--user", "true"]).status().is_ok_and(|s| s.success());
    old || refused() && {
        skip("this user can make no user namespace to forbid others in");
        true
    }
}

fn scene() -> Scene {
    let scene = Scene::new();
    if is_root() {
        std::os::unix::fs::chown(scene.path(""), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    scene
}

/// A file of the user's.
fn file(scene: &Scene, name: &str) -> String {
    let path = scene.file(name, 0o644);
    for owned in [&path, std::path::Path::new(&path).parent().unwrap().to_str().unwrap()] {
        std::os::unix::fs::chown(owned, Some(user()), None).unwrap();
    }
    path
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process of the same user outside of the cell, ended with the test.
struct Bystander(Child);

impl Bystander {
    fn start(scene: &Scene) -> Self {
        let mut command = confined(scene);
        Self(command.arg("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _reaped = self.0.wait().is_err();
    }
}

#[test]
fn what_is_granted_works_and_its_neighbour_does_not() {
    if impossible() {
        return;
    }
    let scene = scene();
    let (read, write) = (file(&scene, "data/file"), file(&scene, "work/file"));
    let other = file(&scene, "database/file");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("toolcell-it-alone-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let bystander = Bystander::start(&scene);
    let pid = bystander.0.id();
    let (new, ptrace) = (scene.path("work/new"), libc::SYS_ptrace);
    let within = table![
        "read", read => "ok";
        "write", read => "EACCES";
        "chmod", read, "0600" => "EPERM";
        "read", write => "ok";
        "write", write => "ok";
        "create", new => "ok";
        "unlink", new => "ok";
        "read", other => "EACCES";
        "write", other => "EACCES";
        "chmod", other, "0600" => "EPERM";
        "create", scene.path("new") => "EACCES";
        "list", scene.path("database") => "EACCES";
        "list", "/proc" => "EACCES";
        "read", "/etc/passwd" => "EACCES";
        "tcp", "127.0.0.1", port => "EPERM";
        "abstract", name => "EPERM";
        "kill", pid => "EPERM";
        "syscall", ptrace, 16, pid => "EPERM";
        "syscall", libc::SYS_sched_setaffinity, pid, 0, 0 => "EPERM";
        "syscall", libc::SYS_unshare, libc::CLONE_NEWUSER => "EPERM";
    ];
    // The same without a cell, as the same user: what is refused above is not refused anyway.
    let possible = table![
        "write", read => "ok";
        "chmod", read, "0644" => "ok";
        "read", other => "ok";
        "write", other => "ok";
        "chmod", other, "0644" => "ok";
        "list", "/proc" => "";
        "read", "/etc/passwd" => "ok";
        "tcp", "127.0.0.1", port => "ok";
        "abstract", name => "ok";
        "kill", pid => "ok";
    ];
    let mut command = confined(&scene);
    let free = command.arg(probe::program()).args(operations(&possible)).output().unwrap();
    for (line, (operation, answer)) in String::from_utf8_lossy(&free.stdout).lines().zip(&possible) {
        assert!(line.starts_with(&format!("{operation} {answer}")), "{line}");
    }
    let (data, work) = (scene.path("data"), scene.path("work"));
    let profile = leaving_all_to_the_tool(&scene, &work);
    let mut command = exec(&scene, &["--profile", &profile, "--read", &data, "--write", &work]);
    let output = command.arg(probe::program()).args(operations(&within)).output().unwrap();
    compare(&String::from_utf8_lossy(&output.stdout), &within, &text(&output));
    assert!(bare(&[format!("kill,{pid}")]).ends_with("ok\n") || !is_root());
}

#[test]
fn the_receipt_names_the_rung_and_scratch_is_private_and_gone() {
    if impossible() {
        return;
    }
    let scene = scene();
    let report = scene.path("report");
    let mut command = exec(&scene, &["--report", &report]);
    let output = command
        .args(["sh", "-c", "echo x > f && mkdir -m 0300 d && pwd && echo $TMPDIR && echo $HOME"])
        .output();
    let output = output.unwrap();
    let lines: Vec<String> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| *line == lines[0] && line.starts_with("/tmp/toolcell-")), "{lines:?}");
    assert!(fs::symlink_metadata(std::path::Path::new(&lines[0]).parent().unwrap()).is_err());
    let record: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(record["receipt"]["floor"], "landlock");
    let layers = record["receipt"]["layers"].as_object().unwrap();
    assert!(!layers.contains_key("namespaces") && !layers.contains_key("root"), "{layers:?}");
    assert_eq!(record["receipt"]["coverage"]["seccomp"], "complete");
    for layer in ["landlock", "seccomp", "capabilities", "processes"] {
        assert!(layers.contains_key(layer), "{layers:?}");
    }
}

#[test]
fn it_is_used_only_where_it_is_accepted_and_can_hold_the_profile() {
    let scene = scene();
    if is_old() {
        let output = exec(&scene, &[]).arg("true").output().unwrap();
        assert_eq!(output.status.code(), Some(121), "{}", text(&output));
        assert!(text(&output).contains("ABI"), "{}", text(&output));
        return;
    }
    if impossible() {
        return;
    }
    let mut command = confined(&scene);
    let output = command.arg(binary()).args(["exec", "--floor", "no-cgroup", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(122), "{}", text(&output));
    let data = file(&scene, "data/secret/file");
    let (top, hidden) = (scene.path("data"), scene.path("data/secret"));
    let rules =
        format!("filesystem.read = [\"{top}\"]\nfilesystem.deny = [\"{hidden}\"]\nfloor = \"landlock\"\n");
    let profile = scene.profile(&rules);
    let output = exec(&scene, &["--profile", &profile]).args(["cat", &data]).output().unwrap();
    assert_eq!(output.status.code(), Some(121), "{}", text(&output));
    assert!(text(&output).contains("without a private root"), "{}", text(&output));
    // With namespaces the same profile gets them.
    let report = scene.path("report");
    let output =
        scene.command("exec").args(["--floor", "landlock", "--report", &report, "--", "true"]).output();
    assert!(output.unwrap().status.success());
    assert!(!fs::read_to_string(&report).unwrap().contains("\"floor\":\"landlock\""));
}

#[test]
fn in_the_hosts_network_its_sockets_of_tcp_and_udp_are_there_and_nothing_else_is() {
    if impossible() {
        return;
    }
    let scene = scene();
    let (other, report) = (file(&scene, "database/file"), scene.path("report"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("toolcell-it-outside-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let bystander = Bystander::start(&scene);
    let pid = bystander.0.id();
    let profile = scene.profile("network.mode = \"host\"\n");
    let within = table![
        "tcp", "127.0.0.1", port => "ok";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0 => "ok";
        "abstract", name => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 1 => "ESOCKTNOSUPPORT";
        "read", "/etc/hosts" => "ok";
        "read", "/etc/passwd" => "EACCES";
        "read", other => "EACCES";
        "chmod", other, "0600" => "EPERM";
        "kill", pid => "EPERM";
    ];
    let mut command =
        accepting("host-network-landlock", &scene, &["--profile", &profile, "--report", &report]);
    let output = command.arg(probe::program()).args(operations(&within)).output().unwrap();
    compare(&String::from_utf8_lossy(&output.stdout), &within, &text(&output));
    let record: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let receipt = &record["receipt"];
    assert_eq!(receipt["floor"], "host-network-landlock");
    assert_eq!(receipt["layers"]["network"], "the host's: all that its user reaches");
    assert!(receipt["layers"]["landlock"].as_str().unwrap().ends_with("refused: files, abstract sockets"));
    // With the filter out of the way the scope is left.
    let profile = scene.profile("network.mode = \"host\"\nsyscalls.allow = [\"socket\"]\n");
    let behind = table!["abstract", name => "EPERM";];
    let mut command = accepting("host-network-landlock", &scene, &["--profile", &profile]);
    let output = command.arg(probe::program()).args(operations(&behind)).output().unwrap();
    compare(&String::from_utf8_lossy(&output.stdout), &behind, &text(&output));
    let output = exec(&scene, &["--profile", &profile]).arg("true").output().unwrap();
    assert_eq!(output.status.code(), Some(121), "{}", text(&output));
    assert!(text(&output).contains("write `floor = \"host-network-landlock\"`"), "{}", text(&output));
}

/// A cell with processes of all kinds, after it said that they are there.
fn staying(scene: &Scene, mark: &str) -> Child {
    let mut command = exec(scene, &[]);
    let mut child = command
        .arg(probe::program())
        .args(["stay", mark])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn init_of(pid: u32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

#[test]
fn what_daemonises_ends_with_the_call() {
    if impossible() {
        return;
    }
    let scene = scene();
    let mark = scene.path("mark");
    let script = format!(
        "sleep 1000 {mark} & setsid sleep 1000 {mark} & (trap '' TERM HUP; setsid sh -c 'sleep 1000 {mark} & sleep 1000 {mark}' &) ; exit 3"
    );
    let output = exec(&scene, &[]).args(["sh", "-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(holding(&mark).is_empty());
}

#[test]
fn a_launcher_or_an_init_that_is_killed_takes_the_cell_along() {
    if impossible() {
        return;
    }
    let scene = scene();
    let mut launchers = Vec::new();
    for kill_init in [false, true] {
        let mark = scene.path(if kill_init { "mark-init" } else { "mark" });
        let mut child = staying(&scene, &mark);
        let everyone = holding(&mark);
        assert!(everyone.len() >= 4);
        launchers.push(format!("toolcell-{}-", child.id()));
        let victim = if kill_init { init_of(child.id()) } else { child.id().cast_signed() };
        process::kill(victim).unwrap();
        child.wait().unwrap();
        wait_for_end(&everyone);
        assert!(holding(&mark).is_empty());
    }
    // The next start removes the directory of the launcher that was killed.
    assert!(exec(&scene, &[]).arg("true").status().unwrap().success());
    let left = fs::read_dir("/tmp").unwrap().flatten().filter(|entry| {
        launchers.iter().any(|launcher| entry.file_name().to_string_lossy().starts_with(launcher))
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn the_payload_cannot_end_what_ends_it() {
    if impossible() {
        return;
    }
    let scene = scene();
    let output = exec(&scene, &[]).args(["sh", "-c", "kill -KILL $PPID || exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
}

#[test]
fn the_selftest_says_of_each_attack_what_is_true_there() {
    if impossible() {
        return;
    }
    let scene = Scene::new();
    let mut command = confined(&scene);
    command.arg(binary()).args(["selftest", "--json", "--floor", "landlock"]).env_remove("TMPDIR");
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let attacks = document["attacks"].as_array().unwrap();
    let named = |verdict: &str| -> BTreeSet<String> {
        let rows = attacks.iter().filter(|row| row["verdict"] == verdict);
        rows.map(|row| row["attempt"].as_str().unwrap().to_owned()).collect()
    };
    let has_cgroup = attacks.iter().any(|row| row["stopped_by"]["layer"] == "cgroup");
    let (escaped, told) = (named("ESCAPED"), escapes("landlock", has_cgroup));
    assert!(as_expected(&escaped, &told), "{escaped:?}, not {told:?}: {document:#}");
    // In the namespace of this test there is no root to become.
    assert_eq!(named("UNCLEAR"), BTreeSet::from(["become root".to_owned()]), "{document:#}");
    for row in attacks {
        let layer = &row["stopped_by"]["layer"];
        assert!(layer != "root" && layer != "namespaces", "there is no such layer: {row:#}");
        let held = row["verdict"] == "BLOCKED" || row["verdict"] == "STOPPED";
        // Where a limit of time comes before the limit that was meant, that one has stopped nothing.
        assert!(layer.is_string() == held || host::patience() > 1, "{row:#}");
    }
    assert_eq!(document["not_tried"], "Changes under review");
    assert_eq!(document["left"], json!({"processes": [], "mounts": [], "cgroups": [], "files": []}));
}

#[test]
fn what_is_not_granted_tells_what_security_says_and_no_more() {
    if impossible() {
        return;
    }
    let scene = Scene::new();
    scene.file("others/file", 0o644);
    std::os::unix::fs::symlink("/where/it/leads", scene.path("others/link")).unwrap();
    let answer = |words: &[&str]| {
        let output = exec(&scene, &[]).args(words).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (link, file) = (scene.path("others/link"), scene.path("others/file"));
    assert_eq!(answer(&["readlink", &link]), (true, "/where/it/leads\n".to_owned()));
    assert_eq!(answer(&["stat", "-c", "%s", &file]), (true, "8\n".to_owned()));
    for refused in [["cat", &file], ["ls", &scene.path("others")]] {
        let (done, said) = answer(&refused);
        assert!(!done && said.contains("Permission denied"), "{said}");
    }
}
