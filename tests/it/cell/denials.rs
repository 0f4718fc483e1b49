//! What Landlock refuses stands in the record where the kernel tells of it and toolcell may hear; else the record says why not.
//!
//! `TOOLCELL_EXPECT_AUDIT` says that this host does. Neighbours: `session::denials` has the same for `run`. Never: switches
//! auditing on.

use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;
use toolcell::outcome::{Evidence, Layer, Violation};
use toolcell::sys::descriptor::{self, Interest};
use toolcell::sys::{audit, landlock, process};

use super::probe;
use super::scene::{Executed, Scene, floor};
use crate::{host, table};

/// The kernel has one queue for all: under a flood it loses records of others too.
static QUEUE: RwLock<()> = RwLock::new(());

/// Nobody floods the host's records meanwhile.
pub(crate) fn quiet() -> RwLockReadGuard<'static, ()> {
    QUEUE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Does this host tell of what Landlock refuses?
pub(crate) fn expected() -> bool {
    std::env::var_os("TOOLCELL_EXPECT_AUDIT").is_some()
}

fn denials(run: &Executed) -> Vec<Violation> {
    let all: Vec<Violation> = serde_json::from_value(run.report["violations"].clone()).unwrap();
    all.into_iter().filter(|violation| violation.layer == Layer::Landlock).collect()
}

/// Coverage of the layer, and why it is no better.
fn coverage(run: &Executed) -> (&str, Option<&str>) {
    let receipt = &run.report["receipt"];
    (receipt["coverage"]["landlock"].as_str().unwrap(), receipt["reasons"]["landlock"].as_str())
}

const CANARY: &str = toolcell::plan::step::CANARY;

#[test]
fn what_landlock_refused_is_in_the_record_or_why_it_is_not() {
    let _quiet = quiet();
    let scene = Scene::new();
    let table = table![
        "read", CANARY => "EACCES";
        "tcp", "127.0.0.1", 81 => "ECONNREFUSED";
        "read", CANARY => "EACCES";
        "read", "/etc/nothing" => "ENOENT";
    ];
    let run = scene.exec(&[], &super::scene::operations(&table));
    run.answers(&table);
    let found = denials(&run);
    let (coverage, why) = coverage(&run);
    if !expected() {
        assert!(
            found.is_empty() && coverage == "blind" && why.is_some_and(|why| !why.is_empty()),
            "{}",
            run.report
        );
        return;
    }
    let seen: Vec<_> = found.iter().map(|v| (v.operation.as_str(), v.object.as_str(), v.count)).collect();
    // A connection is refused, and recorded, before Landlock sees it.
    assert_eq!(seen, [("fs.read_file", CANARY, 2)]);
    assert_eq!((coverage, why), ("complete", None));
    for violation in &found {
        assert_eq!((violation.errno.as_deref(), violation.evidence), (Some("EACCES"), Evidence::Kernel));
        assert!(violation.first_us.is_some() && violation.first_us <= violation.last_us);
        assert!(violation.last_us < run.report["duration_us"].as_u64(), "{}", run.report);
    }
    assert!(found[0].allow.is_none(), "nobody may see toolcell's own files");
}

/// What init tries before the payload starts is nobody's attempt.
#[test]
fn a_command_that_was_refused_nothing_has_no_denial() {
    let _quiet = quiet();
    let scene = Scene::new();
    let run = scene.exec(&[], &["read,/etc/nothing".to_owned()]);
    assert!(denials(&run).is_empty(), "{}", run.report);
    assert_eq!(coverage(&run).0, if expected() { "complete" } else { "blind" }, "{}", run.report);
}

/// Records may get lost under a flood, and then that is what is said.
#[test]
fn a_flood_is_counted_or_the_record_says_that_it_is_not() {
    let scene = Scene::new();
    let _flood = QUEUE.write().unwrap_or_else(PoisonError::into_inner);
    let attempts = vec![format!("read,{CANARY}"); 4000];
    let run = scene.exec(&[], &attempts);
    assert_eq!(run.stdout().lines().count(), attempts.len());
    if !expected() {
        return;
    }
    let count: u64 = denials(&run).iter().map(|violation| violation.count).sum();
    match coverage(&run) {
        ("complete", None) => assert_eq!(count, 4000),
        ("sampled", Some(why)) => assert!(count < 4000 && why.contains(" of 40"), "{count}: {why}"),
        other => panic!("{other:?}: {}", run.report),
    }
}

#[test]
fn cells_at_once_have_each_its_own() {
    let _quiet = quiet();
    let scenes: Vec<Scene> = (0..4).map(|_| Scene::new()).collect();
    let counts = thread::scope(|scope| {
        let runs: Vec<_> = scenes
            .iter()
            .zip(1..)
            .map(|(scene, times)| {
                scope.spawn(move || {
                    let run = scene.exec(&[], &vec![format!("read,{CANARY}"); times]);
                    (denials(&run).iter().map(|denied| denied.count).sum::<u64>(), run.report)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<(u64, Value)>>()
    });
    for ((count, report), times) in counts.into_iter().zip(1..) {
        assert_eq!(count, if expected() { times } else { 0 }, "{report}");
    }
}

/// Where Landlock is the only wall, every path that is not granted is refused by it. Only such a host shows that.
#[test]
fn without_namespaces_each_path_is_told_and_never_said_to_be_all() {
    if !expected() || !host::expected().is_some_and(|floor| floor.starts_with("landlock")) {
        return;
    }
    let _quiet = quiet();
    let scene = Scene::new();
    let (file, other, program) =
        (scene.file("a name", 0o644), scene.file("other", 0o666), scene.executable("program"));
    let table = table![
        "read", file => "EACCES";
        "write", other => "EACCES";
        "exec", program => "EACCES";
        "list", "/etc" => "EACCES";
        "mkdir", "/tmp/new" => "EACCES";
    ];
    let report = scene.path("report.json");
    let mut command = scene.command("exec");
    command.args(["--floor", "landlock", "--report", &report, "--"]).arg(probe::program());
    let output = command.args(super::scene::operations(&table)).output().unwrap();
    let report = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let run = Executed { output, report };
    run.answers(&table);
    let found = denials(&run);
    let seen: Vec<_> =
        found.iter().map(|v| (v.operation.as_str(), v.object.as_str(), v.allow.as_deref())).collect();
    let line = |list: &str, path: &str| Some(format!("[filesystem]\n{list} = [\"{path}\"]"));
    let lines =
        [line("read", &file), line("write", &other), line("execute", &program), line("read", "/etc"), None];
    let [read, write, exec, list, make] = lines.each_ref().map(Option::as_deref);
    let expected = [
        ("fs.read_file", file.as_str(), read),
        ("fs.write_file", &other, write),
        ("fs.execute,fs.read_file", &program, exec),
        ("fs.read_dir", "/etc", list),
        ("fs.make_dir", "/tmp", make),
    ];
    assert_eq!(seen, expected, "{}", run.report);
    let (coverage, why) = coverage(&run);
    assert!(coverage == "sampled" && why.is_some_and(|why| why.contains("signals")), "{}", run.report);
}

/// Names the file that is to be refused, in the environment of a copy of this program.
const DENIED: &str = "TOOLCELL_TEST_DENIED";

/// Not a test of its own: makes a domain that refuses everything, as a payload may, and is refused by it.
#[test]
fn is_refused_by_a_domain_of_its_own() {
    let Some(file) = std::env::var_os(DENIED) else { return };
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).unwrap();
    landlock::restrict_self(landlock::create_ruleset(1).unwrap().as_fd()).unwrap();
    assert_eq!(fs::read(file).unwrap_err().raw_os_error(), Some(libc::EACCES));
}

/// Else every tool could fill the host's log, and the records of others be lost.
#[test]
fn what_nobody_reads_for_a_cell_it_cannot_have_logged() {
    if !expected() {
        return;
    }
    let _quiet = quiet();
    let scene = Scene::new();
    let log = audit::follow().unwrap();
    let (within, outside) = (scene.file("denied-within", 0o644), scene.file("denied-outside", 0o644));
    let this = ["--exact", "cell::denials::is_refused_by_a_domain_of_its_own", "--test-threads=1"];
    let program = std::env::current_exe().unwrap();
    // Without `--report` or `--audit` nobody reads.
    let mut command = scene.command("exec");
    command.args(floor_here()).args(["--read", &within, "--env", &format!("{DENIED}={within}"), "--"]);
    let in_cell = command.arg(&program).args(this).output().unwrap();
    assert!(in_cell.status.success(), "{in_cell:?}");
    // The same without a cell, whose record comes behind whatever the cell had logged.
    let bare = Command::new(&program).args(this).env(DENIED, &outside).output().unwrap();
    assert!(bare.status.success(), "{bare:?}");
    let until = Instant::now() + Duration::from_secs(5) * host::patience();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut interest = [Interest { fd: Some(log.as_fd()), events: libc::POLLIN, ready: 0 }];
        let left = until.saturating_duration_since(Instant::now());
        assert!(descriptor::poll(&mut interest, Some(left)).unwrap(), "not even what is bare is logged");
        let Some((_, record)) = audit::receive(log.as_fd(), &mut buffer).unwrap() else { continue };
        let record = String::from_utf8_lossy(record).into_owned();
        assert!(!record.contains("denied-within"), "{record}");
        if record.contains("denied-outside") {
            return;
        }
    }
}

/// The rung that is looked at, where that is not the usual one.
fn floor_here() -> [&'static str; 2] {
    if host::expected().is_some_and(|floor| floor.starts_with("landlock")) {
        ["--floor", "landlock"]
    } else {
        floor()
    }
}
