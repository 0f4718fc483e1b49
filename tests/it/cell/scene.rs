//! A directory for one test, and the ways to run the probe in front of it: bare, through the binary, by a plan.
//!
//! Neighbours: every test module here. Never: leaves its directory, or a process that it started, behind.

#![expect(
    clippy::print_stderr,
    reason = "a test that cannot run says why, and a directory that stays is told of"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use toolcell::outcome::{Limit, Violation};
use toolcell::plan::Plan;
use toolcell::plan::step::{Attempts, Step};
use toolcell::sys::identity;

use super::probe;
use super::runner::{self, Outcome};
use crate::{binary, host};

/// A private directory below `/var/tmp`, removed at the end.
#[derive(Debug)]
pub(super) struct Scene {
    directory: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("left behind: {}: {error}", self.directory.display());
        }
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        crate::facts();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/var/tmp/toolcell-it-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// A file, and the directories above it.
    pub(super) fn file(&self, name: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, "content\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(super) fn directory(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A copy of a program that exits with 0: one that no runtime view shows.
    pub(super) fn executable(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        crate::copy_program(probe::program().as_ref(), path.as_ref());
        path
    }

    /// A profile on top of `default`.
    pub(super) fn profile(&self, text: &str) -> String {
        let path = self.path("profile.toml");
        fs::write(&path, format!("description = \"a test\"\nextends = \"default\"\n{text}")).unwrap();
        path
    }

    /// The answers of the probe in a cell of `toolcell exec`, and how that ended.
    pub(super) fn exec(&self, options: &[&str], operations: &[String]) -> Executed {
        let report = self.path("report.json");
        let _none_before = fs::remove_file(&report).is_err();
        let mut command = self.command("exec");
        command
            .args(floor())
            .args(options)
            .args(["--report", &report, "--"])
            .arg(probe::program())
            .args(operations);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let report = fs::read(&report).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Executed { output, report: report.unwrap_or(Value::Null) }
    }

    /// The binary, in a working directory of its own.
    pub(super) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg(subcommand).current_dir(&self.directory);
        command
    }

    /// The plan that a profile leads to for the probe.
    pub(super) fn plan(&self, profile: &str, operations: &[String]) -> Plan {
        let path = self.profile(&format!("floor = \"{}\"\n{profile}", floor()[1]));
        let mut command = self.command("profile");
        let output = command
            .args(["explain", "--json", &path, "--"])
            .arg(probe::program())
            .args(operations)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a plan in a process of its own.
    pub(super) fn run(&self, plan: &Plan) -> Outcome {
        runner::run(&self.directory, plan)
    }
}

/// How `toolcell exec` ended.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) output: Output,
    pub(super) report: Value,
}

impl Executed {
    pub(super) fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub(super) fn violation(&self, limit: Limit) -> Option<Violation> {
        let violations: Vec<Violation> = serde_json::from_value(self.report["violations"].clone()).ok()?;
        violations.into_iter().find(|violation| violation.limit == Some(limit))
    }

    /// Every operation was answered as expected.
    #[track_caller]
    pub(super) fn answers(&self, expected: &[(String, &str)]) {
        compare(&self.stdout(), expected, &self.stderr());
    }
}

/// No connection is told to the supervisor: what is left is what the kernel holds by itself.
pub(super) fn deaf(plan: &mut Plan) {
    for step in &mut plan.steps {
        if let Step::Seccomp { attempts, .. } = step {
            *attempts = Attempts::Untold;
        }
    }
}

/// The probe's lines are these.
#[track_caller]
pub(super) fn compare(stdout: &str, expected: &[(String, &str)], stderr: &str) {
    let wanted: Vec<String> = expected
        .iter()
        .map(|(operation, answer)| format!("{operation} {answer}").trim_end().to_owned())
        .collect();
    let lines: Vec<&str> = stdout.lines().map(str::trim_end).collect();
    assert_eq!(lines, wanted, "{stderr}");
}

/// The operations of a table of operations and answers.
pub(super) fn operations(expected: &[(String, &str)]) -> Vec<String> {
    expected.iter().map(|(operation, _)| operation.clone()).collect()
}

/// The probe as it answers without a cell.
pub(super) fn bare(operations: &[String]) -> String {
    let output = Command::new(probe::program()).args(operations).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One answer without a cell.
pub(super) fn bare_answer(operation: &str) -> String {
    let answer = bare(&[operation.to_owned()]);
    answer.trim_end().strip_prefix(operation).unwrap().trim_start().to_owned()
}

pub(super) fn is_root() -> bool {
    identity::effective().0 == 0
}

pub(crate) fn has_cgroup() -> bool {
    crate::facts().cgroup.is_ok()
}

/// The highest floor of this host.
pub(super) fn floor() -> [&'static str; 2] {
    ["--floor", if has_cgroup() { "full" } else { "no-cgroup" }]
}

/// Says that the host lacks what a test needs. Where it is known what the host has, that is a failure.
#[track_caller]
pub(super) fn skip(why: &str) {
    assert!(host::expected().is_none(), "skipped: {why}");
    note(why);
}

/// Does this test need a cgroup that there is none for? Then it says so; where the host is expected to have one, that is
/// a failure.
#[track_caller]
pub(crate) fn needs_cgroup() -> bool {
    let lacks = !has_cgroup();
    if lacks {
        assert!(host::expected().is_none_or(|expected| expected != "full"), "skipped: no cgroup");
        note("this user has no cgroup to make another in");
    }
    lacks
}

/// Is this test for root, and not run as root? Then it says so, whatever is expected of the host.
#[track_caller]
pub(crate) fn needs_root(why: &str) -> bool {
    if !is_root() {
        note(why);
    }
    !is_root()
}

/// One line to the person who looks on, and one to the script that counts.
#[track_caller]
pub(crate) fn note(why: &str) {
    let place = std::panic::Location::caller();
    eprintln!("skipped: {place}: {why}");
    if let Some(list) = std::env::var_os("TOOLCELL_TEST_SKIPS") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        std::io::Write::write_all(&mut file, format!("{place}: {why}\n").as_bytes()).unwrap();
    }
}

/// A table of operations and their expected answers.
#[macro_export]
macro_rules! table {
    ($($($operation:expr),+ => $answer:expr;)*) => {
        [$(([$($operation.to_string()),+].join(","), $answer)),*]
    };
}
