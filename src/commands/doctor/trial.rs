//! Really runs a cell, the way a call does: the default profile, the whole launch, a harmless program.
//!
//! Neighbours: `doctor` asks for one rung at a time; `compose` plans, `launch` and `watch` run it. Never: shares this
//! process's stdin, stdout or stderr with the cell.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::commands::compose::Surroundings;
use crate::diag::Failure;
use crate::host::Facts;
use crate::host::probe::child;
use crate::launch::LaunchError;
use crate::launch::cgroup::cell_name;
use crate::launch::spawn::{self, Prepared, Started, Stdio};
use crate::outcome::Receipt;
use crate::plan::Plan;
use crate::policy::Floor;
use crate::policy::add::Additions;
use crate::sys::process::Exit;
use crate::sys::{Errno, descriptor};
use crate::watch::passthrough::{self, Ends};

/// More than a launch takes on the slowest host.
const TIME: Duration = Duration::from_secs(30);

/// How one attempt ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Tried {
    /// The program ran and ended well.
    Ran {
        /// What init verified.
        receipt: Receipt,
        /// From the clone to the end.
        took: Duration,
    },
    /// A step failed.
    Failed(LaunchError),
    /// There is no plan for this rung here.
    NoPlan(String),
}

/// One attempt at a rung, in a child whose standard streams lead nowhere.
pub(super) fn cell(facts: &Facts, floor: Floor) -> Tried {
    let broken = |errno: Errno| Tried::Failed(LaunchError::new("clone", "a child to try in", errno));
    child::fork(|| attempt(facts, floor)).unwrap_or_else(broken)
}

fn attempt(facts: &Facts, floor: Floor) -> Tried {
    let plan = match plan(facts, floor) {
        Ok(plan) if plan.floor == floor => plan,
        Ok(_) => {
            return Tried::NoPlan(format!("toolcell starts no cells on the rung `{}` here", floor.name()));
        }
        Err(failure) => {
            return Tried::NoPlan(failure.render(false).trim_start_matches("error: ").trim_end().to_owned());
        }
    };
    run(plan).unwrap_or_else(Tried::Failed)
}

/// This program, whose file is static as built; else a program of the host.
fn plan(facts: &Facts, floor: Floor) -> Result<Plan, Failure> {
    let surroundings = Surroundings::of_host()?;
    let policy = surroundings.policy("default", &Additions { floor: Some(floor), ..Additions::default() })?;
    let own = std::env::current_exe().ok().filter(|path| File::open(path).is_ok());
    let command = match own.as_deref().and_then(|path| path.to_str()) {
        Some(path) => vec![path.to_owned(), "--version".to_owned()],
        None => vec!["true".to_owned()],
    };
    let runtime = surroundings.runtime(&command)?;
    Ok(surroundings.plan(&policy, &runtime, facts)?.plan)
}

fn run(plan: Plan) -> Result<Tried, LaunchError> {
    let broken = |errno| LaunchError::new("exec", "standard streams", errno);
    let nowhere = File::options().read(true).write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|error| broken(Errno::from(error)))?;
    for number in 0..=2 {
        descriptor::duplicate_to(nowhere.as_fd(), number, false).map_err(broken)?;
    }
    let (stdin, into) = descriptor::pipe().map_err(broken)?;
    let (out, stdout) = descriptor::pipe().map_err(broken)?;
    let (err, stderr) = descriptor::pipe().map_err(broken)?;
    let prepared = Prepared::new(plan)?;
    let launched = Instant::now();
    let started = spawn::spawn(&prepared, Stdio { stdin, stdout, stderr }, &cell_name(0))?;
    let passed = passthrough::pass(&started, Ends { stdin: into, stdout: out, stderr: err }, TIME, 1 << 20);
    let took = launched.elapsed();
    let Started { cgroup, reserved, private, .. } = started;
    drop((reserved, private));
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    let passed = passed.map_err(broken)?;
    match (passed.failed, passed.receipt, passed.exit) {
        (Some(error), _, _) => Err(error),
        (None, Some(receipt), Some(Exit::Code(0))) => Ok(Tried::Ran { receipt, took }),
        (None, _, exit) => {
            let how = exit.map_or_else(|| "stopped after 30 s".to_owned(), |exit| format!("{exit:?}"));
            Err(LaunchError::new("exec", how, Errno(libc::EPROTO)))
        }
    }
}
