//! Launches a plan through the library, in a copy of the test program: a process that makes cells has one thread that
//! does anything, and tests have several.
//!
//! Neighbours: `scene` hands plans over. Never: changes a plan.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toolcell::host::probe;
use toolcell::launch::spawn::{self, Prepared, Started, Stdio as Ends};
use toolcell::launch::{LaunchError, own};
use toolcell::outcome::{Limit, Receipt};
use toolcell::plan::Plan;
use toolcell::sys::process::{self, Exit};
use toolcell::sys::{Result, descriptor, filter, socket};
use toolcell::watch::passthrough::{self, Ends as Ours, Told};

use crate::host;

/// Names the directory with the plan in the environment of a copy of this program.
const DIRECTORY: &str = "TOOLCELL_TEST_PLAN";
/// How often the plan is to be launched.
const TIMES: &str = "TOOLCELL_TEST_TIMES";

/// Nobody answers what the filter tells.
const UNHEARD: &str = "TOOLCELL_TEST_UNHEARD";

/// What became of a plan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) failed: Option<LaunchError>,
    pub(super) exit: Option<Exit>,
    pub(super) receipt: Option<Receipt>,
    pub(super) stopped: Option<Limit>,
    /// What the process had before the first launch but one, and after the last.
    pub(super) census: Vec<Census>,
    #[serde(default)]
    pub(super) stdout: String,
}

impl Outcome {
    /// The launch failed at this step with this error, before anything ran.
    #[track_caller]
    pub(super) fn refused_at(&self, step: &str, errno: i32) {
        let failed = self.failed.as_ref().unwrap_or_else(|| panic!("`{step}` was not refused: {self:?}"));
        assert_eq!((failed.step.as_str(), failed.errno.0), (step, errno), "{failed}");
        assert_eq!(self.stdout, "", "something ran");
    }

    /// What a person is told to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        probe::hint(self.failed.as_ref()?)
    }
}

/// What a process and the host hold on behalf of its cells.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Census {
    descriptors: usize,
    children: String,
    mounts: usize,
    cgroups: Vec<PathBuf>,
}

/// Runs a plan once.
pub(super) fn run(directory: &Path, plan: &Plan) -> Outcome {
    start(directory, plan, 1, false)
}

/// The same, without anybody who would answer what the filter tells.
pub(super) fn run_unheard(directory: &Path, plan: &Plan) -> Outcome {
    start(directory, plan, 1, true)
}

/// Runs a plan several times, one after the other; the outcome is the last one's.
pub(super) fn run_times(directory: &Path, plan: &Plan, times: u32) -> Outcome {
    start(directory, plan, times, false)
}

fn start(directory: &Path, plan: &Plan, times: u32, unheard: bool) -> Outcome {
    fs::write(directory.join("plan.json"), serde_json::to_vec(plan).unwrap()).unwrap();
    for name in ["stdout", "stderr", "outcome.json"] {
        let _none_before = fs::remove_file(directory.join(name)).is_err();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cell::runner::launches_a_plan", "--test-threads=1", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(TIMES, times.to_string())
        .envs(unheard.then_some((UNHEARD, "1")))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = fs::read(directory.join("outcome.json"));
    let text = text.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut outcome: Outcome = serde_json::from_slice(&text).unwrap();
    outcome.stdout = fs::read_to_string(directory.join("stdout")).unwrap();
    outcome
}

/// Not a test of its own: does nothing unless `run` started this program.
#[test]
fn launches_a_plan() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    // Clean of what could differ from `toolcell exec`: the plan has the environment of the payload already.
    let plan: Plan = serde_json::from_slice(&fs::read(directory.join("plan.json")).unwrap()).unwrap();
    let times: u32 = std::env::var(TIMES).unwrap().parse().unwrap();
    for (number, name) in [(1, "stdout"), (2, "stderr")] {
        let file = fs::OpenOptions::new().create(true).append(true).open(directory.join(name)).unwrap();
        descriptor::duplicate_to(file.as_fd(), number, false).unwrap();
    }
    // A launcher with many cells has many descriptors; no limit of a cell may depend on that.
    let stdin = std::io::stdin();
    let _held: Vec<_> = (0..100).map(|_| descriptor::duplicate_above(stdin.as_fd(), 3).unwrap()).collect();
    wait_until_alone();
    own::filter_launcher().and_then(|()| own::confine_launcher()).unwrap();
    // One that refuses nothing, as in a container: it must not be taken for the cell's.
    filter::install(&filter::assemble(&[(0x06, 0, 0, 0x7fff_0000)])).unwrap();
    let mut outcome = launch(plan.clone(), 0).unwrap();
    if times > 1 {
        outcome.census.push(census(&plan));
        for number in 1..times {
            let before = std::mem::take(&mut outcome.census);
            outcome = launch(plan.clone(), number.into()).unwrap();
            outcome.census = before;
        }
        outcome.census.push(census(&plan));
    }
    fs::write(directory.join("outcome.json"), serde_json::to_vec(&outcome).unwrap()).unwrap();
    process::exit_now(0);
}

/// Runs a plan with this process's own standard input, output and error, and ends with it.
pub(super) fn serve(plan: Plan) -> ! {
    // The harness has begun a line.
    std::io::Write::write_all(&mut std::io::stdout(), b"\n").unwrap();
    wait_until_alone();
    own::filter_launcher().unwrap();
    let outcome = launch(plan, 0).unwrap();
    assert!(outcome.failed.is_none(), "{outcome:?}");
    process::exit_now(0)
}

/// The harness's other thread waits for this one, in futex(2), and holds no lock that a child would miss.
fn wait_until_alone() {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let waits = |task: &fs::DirEntry| {
        own.file_name() == Some(&task.file_name())
            || fs::read_to_string(task.path().join("syscall")).is_ok_and(|call| call.starts_with("202 "))
    };
    while !fs::read_dir("/proc/self/task").unwrap().all(|task| waits(&task.unwrap())) {
        std::thread::yield_now();
    }
}

fn launch(plan: Plan, number: u64) -> Result<Outcome> {
    let none = Outcome {
        failed: None,
        exit: None,
        receipt: None,
        stopped: None,
        census: vec![],
        stdout: String::new(),
    };
    let (stdin, into) = descriptor::pipe()?;
    let (out, stdout) = descriptor::pipe()?;
    let (err, stderr) = descriptor::pipe()?;
    let started = Prepared::new(plan.clone())
        .and_then(|prepared| spawn::spawn(&prepared, Ends { stdin, stdout, stderr }, number));
    let started = match started {
        Ok(started) => started,
        Err(error) => return Ok(Outcome { failed: Some(error), ..none }),
    };
    if std::env::var_os(UNHEARD).is_some() {
        let (message, listener) = socket::receive_what_fits(started.channel.as_fd(), &mut [0; 64])?.unwrap();
        assert_eq!((message, listener.len()), (b"\"listener\"".len(), 1));
        drop(listener);
    }
    let ends = Ours { stdin: into, stdout: out, stderr: err };
    // A whole series of attacks runs in one cell.
    let time = Duration::from_secs(60) * host::patience();
    let passed = passthrough::pass(&started, &plan, ends, time, 16 << 20, Told::default(), |_| {});
    let Started { cgroup, reserved, private, .. } = started;
    drop((reserved, private));
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    let passed = passed?;
    Ok(Outcome {
        failed: passed.failed,
        exit: passed.exit,
        receipt: passed.receipt,
        stopped: passed.stopped,
        ..none
    })
}

fn census(plan: &Plan) -> Census {
    let own = format!("toolcell-{}-", process::pid());
    let parents = plan.steps.iter().flat_map(|step| match step {
        toolcell::plan::step::Step::CreateCgroup { directories, .. } => directories.as_slice(),
        _ => &[],
    });
    let cgroups = parents.flat_map(|directory| fs::read_dir(&directory.parent).unwrap().flatten());
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    Census {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        children: tasks
            .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default())
            .collect(),
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
        cgroups: cgroups
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(&own))
            .collect(),
    }
}
