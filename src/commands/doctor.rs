//! `toolcell doctor`: which isolation this host offers to an ordinary user and to root, and what to type for more.
//!
//! Neighbours: `trial` really runs cells, `host::probe` tries each part alone, `show` words what was found. Never:
//! takes a version number, a setting or a sign of a container for an answer; they only explain one.

mod fix;
mod show;
mod trial;

use serde::{Deserialize, Serialize};
pub(super) use show::{call, failed_json, prose};
use trial::Tried;

use super::compose;
use crate::cli::{ColorChoice, DoctorArgs};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::host::probe::causes::{self, Explanation};
use crate::host::probe::clues::Clues;
use crate::host::probe::repairs::{self, Repair};
use crate::host::probe::{self, Failed, Part, State, child};
use crate::host::{Facts, NoCgroup, Untold};
use crate::launch::LaunchError;
use crate::plan::lost::in_host_network;
use crate::policy::Floor;
use crate::sys::{Errno, identity, process};

/// The rung that a profile asks for when it names none.
const DEFAULT_FLOOR: Floor = Floor::Full;

/// The user that stands for every ordinary one when root asks, unless sudo says who asks.
const ORDINARY: u32 = 65_534;

/// The ordinary user to try as, and his group.
fn ordinary() -> (u32, u32) {
    let number = |name| std::env::var(name).ok()?.parse().ok().filter(|id| *id != 0);
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) => (uid, gid),
        _ => (ORDINARY, ORDINARY),
    }
}

/// What one kind of user gets from this host.
#[derive(Debug, Serialize, Deserialize)]
struct Column {
    /// Who tried.
    uid: u32,
    /// The strongest rung on which a cell really ran.
    floor: Option<Floor>,
    /// The rung of a cell there in the host's network, by a profile's choice.
    host_network: Option<Floor>,
    /// Every attempt at a cell, strongest rung first, up to the first that ran.
    tried: Vec<(Floor, Tried)>,
    /// Every part, tried alone.
    parts: Vec<(Part, State)>,
    /// Whether what Landlock refuses can be read, or why not.
    denials: Result<(), Untold>,
    /// Something to know about this column.
    note: Option<String>,
    /// What root can do about what is missing.
    repairs: Vec<Repair>,
}

/// One missing thing, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// `cell` or a part's name.
    what: &'static str,
    failed: Option<Failed>,
    cause: String,
    fix: String,
}

/// A column, or why it could not be probed.
type Probed = Result<Column, String>;

#[derive(Debug)]
struct Report {
    caller: u32,
    user: Probed,
    root: Probed,
}

impl Report {
    /// What the caller himself reached.
    fn own(&self) -> &Probed {
        if self.caller == 0 { &self.root } else { &self.user }
    }

    fn reached(&self) -> bool {
        self.own().as_ref().is_ok_and(Column::reaches_default)
    }
}

/// Probes, prints, and says whether the caller reaches the default floor.
pub(super) fn run(args: &DoctorArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let report = report();
    let color = diag::color_on(color, &std::io::stdout());
    let text = if args.json { show::json(&report) } else { show::text(&report, color) };
    super::print(text.as_bytes())?;
    let verdict = if report.reached() { Ending::Success } else { Ending::Floor };
    if args.fix.is_none() {
        return Ok(verdict);
    }
    let mut repairs: Vec<Repair> = Vec::new();
    for repair in [&report.user, &report.root].into_iter().flatten().flat_map(|column| &column.repairs) {
        if !repairs.contains(repair) {
            repairs.push(repair.clone());
        }
    }
    fix::run(args, &repairs, verdict)
}

fn report() -> Report {
    let (caller, _) = identity::effective();
    let own = Ok(column(&compose::facts()));
    if caller == 0 {
        return Report { caller, user: ordinary_user(), root: own };
    }
    let program = std::env::current_exe()
        .map_or_else(|_unknown| "toolcell".to_owned(), |path| path.display().to_string());
    Report {
        caller,
        user: own,
        root: Err(format!("only root can probe this column:\n  sudo {program} doctor")),
    }
}

/// In a child that has become an ordinary user for good.
fn ordinary_user() -> Probed {
    let probed = child::fork(|| -> Probed {
        let (uid, gid) = ordinary();
        let failed = |errno: Errno| format!("cannot become user {uid}: {errno}");
        identity::become_user(uid, gid).map_err(failed)?;
        // The files in /proc/self belong to root while the process is not dumpable.
        process::prctl(libc::PR_SET_DUMPABLE, 1).map_err(failed)?;
        process::chdir(c"/").map_err(failed)?;
        let mut column = column(&Facts::gather());
        column.note = Some(format!(
            "tried as user {uid} in the caller's cgroup; a user's session may be given more: run doctor as that user too"
        ));
        Ok(column)
    });
    probed.unwrap_or_else(|errno| Err(format!("no child to try in: {errno}")))
}

fn column(facts: &Facts) -> Column {
    let clues = Clues::read();
    let parts = probe::run(facts, &clues);
    let missing: Vec<Part> = parts
        .iter()
        .filter_map(|(part, state)| matches!(state, State::Missing { .. }).then_some(*part))
        .collect();
    let repairs = repairs::repairs(&missing, &clues);
    let mut tried = Vec::new();
    let mut reached = None;
    for floor in Floor::OWN_NETWORK {
        let mut facts = facts.clone();
        if floor != Floor::Full {
            let (why, hint) = ("not asked for".to_owned(), String::new());
            facts.cgroup = Err(NoCgroup { why, failed: None, hint });
        }
        if floor == Floor::Landlock {
            facts.try_namespaces();
        }
        // What `host::cgroups` found out needs no second trial to be told.
        if facts.cgroup.is_err() && floor == Floor::Full {
            continue;
        }
        let attempt = trial::cell(&facts, floor);
        let ran = matches!(attempt, Tried::Ran { .. });
        tried.push((floor, attempt));
        if ran {
            reached = Some(floor);
            break;
        }
    }
    // Only looked at: the trials are without.
    let mut heard = facts.clone();
    drop(heard.follow_denials());
    let host_network = reached.and_then(|rung| in_host_network(rung, facts.landlock_abi));
    Column {
        uid: facts.uid,
        floor: reached,
        host_network,
        tried,
        parts,
        denials: heard.denials,
        note: None,
        repairs,
    }
}

impl Column {
    /// Is what a cell reached here good enough for most profiles?
    fn reaches_default(&self) -> bool {
        self.floor.is_some_and(|floor| DEFAULT_FLOOR.accepts(floor))
    }

    /// What is missing, each thing once: the parts, then what only a whole launch has shown.
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .parts
            .iter()
            .filter_map(|(part, state)| match state {
                State::Missing { failed, cause, fix } => Some(Finding {
                    what: part.name(),
                    failed: failed.clone(),
                    cause: cause.clone(),
                    fix: fix.clone(),
                }),
                _ => None,
            })
            .collect();
        let missing =
            |part: Part| self.parts.iter().any(|(p, s)| *p == part && matches!(s, State::Missing { .. }));
        for (_, attempt) in &self.tried {
            if let Tried::Failed(error) = attempt
                && !Part::of_step(&error.step).is_some_and(missing)
                && !findings.iter().any(|finding| finding.what == "cell")
            {
                findings.push(of_launch(error));
            }
        }
        findings
    }
}

fn of_launch(error: &LaunchError) -> Finding {
    let Explanation { cause, fix } =
        causes::explain_launch(error, &Clues::read()).unwrap_or_else(|| Explanation {
            cause: "only a whole launch shows it; every part works alone".to_owned(),
            fix: error
                .hint()
                .unwrap_or_else(|| "report it, with the output of `toolcell doctor --json`".to_owned()),
        });
    Finding {
        what: "cell",
        failed: Some(Failed::new(&format!("step {}", error.step), &error.object, error.errno)),
        cause,
        fix,
    }
}
