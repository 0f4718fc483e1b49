//! Really runs a cell, the way a call does: the default profile, the whole launch, a harmless program.
//!
//! Neighbours: `doctor` asks for one rung at a time; `compose` plans, `quiet` runs it. Never: shares this
//! process's stdin, stdout or stderr with the cell.

use std::fs::File;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::commands::compose::Surroundings;
use crate::commands::quiet;
use crate::diag::Failure;
use crate::host::Facts;
use crate::host::probe::child;
use crate::launch::LaunchError;
use crate::outcome::Receipt;
use crate::plan::Plan;
use crate::policy::Floor;
use crate::policy::add::Additions;
use crate::sys::Errno;
use crate::sys::process::Exit;

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
    let launched = Instant::now();
    let passed = quiet::run(plan, TIME)?;
    let took = launched.elapsed();
    match (passed.failed, passed.receipt, passed.exit) {
        (Some(error), _, _) => Err(error),
        (None, Some(receipt), Some(Exit::Code(0))) => Ok(Tried::Ran { receipt, took }),
        (None, _, exit) => {
            let how = exit.map_or_else(|| "stopped after 30 s".to_owned(), |exit| format!("{exit:?}"));
            Err(LaunchError::new("exec", how, Errno(libc::EPROTO)))
        }
    }
}
