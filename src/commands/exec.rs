//! `toolcell exec`: one command in a cell, stdio passed through, its exit status returned.
//!
//! Neighbours: `compose` makes the plan, `launch::spawn` runs it, `watch::passthrough` carries the bytes. This process
//! is its own launcher: it has one thread, and no client but the caller. Never: starts a runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime};

use serde_json::value::RawValue;

use super::changes::{self, Reviewed};
use super::compose::{self, DEFAULT_PROFILE, Surroundings};
use super::{doors, secrets};
use crate::audit::{CallIds, Ended, Finished, Log, LogError, Report, Started as StartedRecord};
use crate::call::Call;
use crate::cli::{ColorChoice, ExecArgs};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::host::{Facts, probe};
use crate::launch::early::Early;
use crate::launch::spawn::{self, Init, Prepared, Started, Stdio};
use crate::launch::{Kept, LaunchError, own};
use crate::network::porter::Porter;
use crate::outcome::{
    Changes, ClosedBy, Connection, Layer, Limit, Receipt, Status, Traffic, Usage, Violation,
};
use crate::plan::Plan;
use crate::policy::{Policy, Writes, limits};
use crate::secrets::Trouble;
use crate::session::secrets::Secrets;
use crate::sys::process::Exit;
use crate::sys::{Errno, descriptor, identity, process};
use crate::text::escape;
use crate::watch::denials::Following;
use crate::watch::passthrough::{self, Ends, Passed, Told};
use crate::watch::traffic::Doorway;
use crate::watch::{reported, usage};

/// What came of the beginning: an init that waits for its plan, where there can be one.
pub(super) type Begun = Result<Option<Early>, Errno>;

/// The launcher's filter, and below it the first part of the cell.
pub(super) fn begin() -> Begun {
    own::filter_launcher().map(|()| Early::begin())
}

/// Runs the command, in a cell that may have been begun already; the result is the whole process's.
pub(super) fn run(args: &ExecArgs, color: ColorChoice, begun: Option<Begun>) -> Result<Ending, Failure> {
    let arrived = Instant::now();
    let early = begun.unwrap_or_else(begin).map_err(|errno| {
        let error = LaunchError::new("seccomp", "the filter of toolcell's own", errno);
        let hint = probe::hint(&error);
        Failure::new(Ending::Cell, error).hint(hint)
    })?;
    let init = early.map_or(Init::New, Init::Early);
    let mut surroundings = Surroundings::of_process(None)?;
    let additions = compose::additions(&args.shared, &surroundings.world.cwd)?;
    let profile = args.shared.profile.as_ref().map_or(DEFAULT_PROFILE, |typed| &typed.text);
    let (owner, _) = identity::effective();
    let log =
        args.shared.audit.as_deref().map(|path| Log::open(path, owner)).transpose().map_err(log_failed)?;
    for remark in log.iter().flat_map(Log::remarks) {
        diag::warn(color, remark, None);
    }
    let report = args.report.as_deref().map(|path| Report::create(path, owner));
    let report = report.transpose().map_err(super::audit::file_failed)?;
    let kept: Vec<_> = log.iter().flat_map(Log::files).collect();
    let audit = kept.iter().map(|path| ("`--audit`", path.as_path()));
    let own: Vec<_> = audit.chain(args.report.as_deref().map(|path| ("`--report`", path))).collect();
    let policy = surroundings.policy_without(profile, &additions, &own)?;
    let command = compose::texts(&args.command)?;
    let runtime = surroundings.runtime(&command)?;
    let of_doors = doors::credentials(std::slice::from_ref(&policy));
    let needed = runtime.view.iter().map(|needed| needed.path.as_path());
    doors::keep(&of_doors, &surroundings.library, &policy, needed)?;
    let secrets = secrets::of_server("", &BTreeMap::new(), &of_doors, &mut surroundings)?;
    let mut facts = Facts::gather();
    if policy.floor.is_bare() {
        facts.try_namespaces();
    }
    // Nobody would read in vain, and wait for the last word.
    let mut denials = match log.is_some() || report.is_some() {
        true => facts.follow_denials().ok().map(Following::new),
        false => None,
    };
    let composed = surroundings.plan(&policy, &runtime, &facts)?;
    let call = Call {
        id: CallIds::new(SystemTime::now(), process::pid()).next(),
        server: runtime.program.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        method: "exec".to_owned(),
        target: None,
        profile: policy.name.clone(),
        who: format!("uid {owner}"),
        identity: None,
        trace: None,
    };
    // Only what has doors: a process for nothing would be the better part of a launch.
    let porter = doors::porter(&surroundings.library, std::iter::once(&policy))?;
    own::confine_launcher().map_err(|errno| Failure::new(Ending::Cell, errno))?;
    let prepared = Prepared::new(composed.plan).map_err(|error| cell_failed(&error, &call))?;
    if let Some(log) = &log {
        let parameters = serde_json::json!({ "command": command }).to_string();
        let parameters = RawValue::from_string(parameters).ok();
        let record =
            StartedRecord::new(&call, parameters.as_deref(), &policy.audit.redact, SystemTime::now());
        log.write(&record).map_err(log_failed)?;
    }
    let mut run = Run {
        policy: &policy,
        color,
        status: Status::Completed,
        usage: Usage::default(),
        violations: vec![],
        receipt: None,
        stderr: vec![],
        gone: None,
        changes: None,
        traffic: None,
    };
    let launched = Instant::now();
    // While init builds the cell, this process has nothing else to do.
    let meanwhile = || {
        compose::sweep(&facts);
        drop((surroundings, runtime));
    };
    let told = Told { denials: denials.as_mut(), doors: None };
    let outside = Outside { porter: porter.as_ref(), secrets };
    let ending = run.cell((&prepared, init, outside), &facts, told, &call, meanwhile);
    drop(porter);
    let wall = run.gone.unwrap_or_else(Instant::now).saturating_duration_since(launched);
    run.usage.wall_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    if log.is_some() || report.is_some() {
        let record = Finished::new(
            &call,
            &policy.audit.redact,
            Ended {
                now: SystemTime::now(),
                duration: run.gone.unwrap_or_else(Instant::now).saturating_duration_since(arrived),
                status: run.status.clone(),
                usage: run.usage.clone(),
                violations: run.violations.clone(),
                receipt: run.receipt.clone(),
                stderr: run.stderr.clone(),
                secrets: vec![],
                changes: run.changes.clone(),
                traffic: run.traffic.clone(),
            },
        );
        if let Some(log) = &log {
            log.write(&record).map_err(log_failed)?;
        }
        if let Some(report) = report {
            report.write(&record).map_err(super::audit::file_failed)?;
        }
        // The memory of the cell's init began as a copy of this process's, so the key comes after it; and what cannot be
        // signed is written all the same.
        if let Some(log) = &log
            && let Some(key) = super::audit::signing_key(color)?
        {
            log.sign(&key).map_err(log_failed)?;
        }
    }
    run.explain(color, &composed.remarks);
    ending
}

fn log_failed(error: LogError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Audit, error).hint(hint)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot start a cell for `{command}`")]
struct NoCell {
    command: String,
    #[source]
    source: LaunchError,
}

fn cell_failed(error: &LaunchError, call: &Call) -> Failure {
    let ending = match (error.step.as_str(), error.errno.0) {
        ("exec", libc::ENOENT) => Ending::NotFound,
        ("exec", _) => Ending::NotExecutable,
        _ => Ending::Cell,
    };
    Failure::new(ending, NoCell { command: call.server.clone(), source: error.clone() })
        .hint(probe::hint(error))
}

/// What is beside a cell.
struct Outside<'a> {
    porter: Option<&'a Porter>,
    /// Where what doors put in comes from.
    secrets: Option<Secrets>,
}

/// Why a door has nothing to put in.
enum Ungiven {
    Porter(Errno),
    Credential(Failure),
}

#[derive(Debug, thiserror::Error)]
#[error("the door `{door}` has nothing to put into `{header}`")]
struct NoCredential {
    door: String,
    header: String,
    #[source]
    source: Trouble,
}

impl Outside<'_> {
    /// Reads what the doors of a cell put in, and hands it over; nothing of it is left here.
    fn give(self, doorway: Option<&Doorway>, policy: &Policy) -> Result<(), Ungiven> {
        for (place, http) in policy.network.with_credential() {
            let gone = || Ungiven::Porter(Errno(libc::EPIPE));
            let (doorway, secrets) = doorway.zip(self.secrets.as_ref()).ok_or_else(gone)?;
            let need =
                secrets.of_doors(&policy.network).find(|need| need.name == http.destination().to_string());
            let need = need.ok_or_else(gone)?;
            let loaded = secrets.keeper.load_now(need).map_err(|trouble| {
                let hint = trouble.hint.clone();
                let error =
                    NoCredential { door: need.name.clone(), header: need.into.describe(), source: trouble };
                Ungiven::Credential(Failure::new(Ending::Cell, error).hint(hint))
            })?;
            doorway.give(place, &loaded.value).map_err(Ungiven::Porter)?;
        }
        Ok(())
    }
}

/// What is found out while the command runs.
struct Run<'a> {
    policy: &'a Policy,
    color: ColorChoice,
    status: Status,
    usage: Usage,
    violations: Vec<Violation>,
    receipt: Option<Receipt>,
    stderr: Vec<u8>,
    /// When the last process of the cell was gone.
    gone: Option<Instant>,
    /// What it changed, if that was reviewed.
    changes: Option<Changes>,
    /// What went through its doors, if it has any.
    traffic: Option<Traffic>,
}

impl Run<'_> {
    fn cell(
        &mut self,
        (prepared, init, outside): (&Prepared, Init, Outside<'_>),
        facts: &Facts,
        mut told: Told<'_>,
        call: &Call,
        meanwhile: impl FnOnce(),
    ) -> Result<Ending, Failure> {
        let broken = |errno: Errno| Failure::new(Ending::Cell, errno);
        let no_porter = |errno| LaunchError::new("open-doors", "the process that keeps the doors", errno);
        match Doorway::open(outside.porter, prepared.plan()) {
            Ok(doors) => told.doors = doors,
            Err(errno) => return self.refused(&no_porter(errno), call),
        }
        // Gone from this process before init is made, whose memory begins as a copy of its.
        match outside.give(told.doors.as_ref(), self.policy) {
            Ok(()) => {}
            Err(Ungiven::Porter(errno)) => return self.refused(&no_porter(errno), call),
            Err(Ungiven::Credential(error)) => {
                self.status = Status::Refused { detail: error.message() };
                return Err(error);
            }
        }
        let (stdin, into) = descriptor::pipe().map_err(broken)?;
        let (out, stdout) = descriptor::pipe().map_err(broken)?;
        let (err, stderr) = descriptor::pipe().map_err(broken)?;
        let stdio = Stdio { stdin, stdout, stderr };
        let started = match spawn::start(prepared, stdio, 0, init) {
            Ok(started) => started,
            Err(error) => return self.refused(&error, call),
        };
        let listening = started.outside.listening();
        if let Some(doors) = &mut told.doors {
            doors.reached_at(listening);
        }
        listening.iter().for_each(|one| diag::note(self.color, &one.words()));
        meanwhile();
        let limits = &self.policy.limits;
        let ends = Ends { stdin: into, stdout: out, stderr: err };
        let counters = |passed: &Passed| {
            usage::collect(
                &usage::Ended {
                    cgroup: started.cgroup.as_ref(),
                    scratch: passed.scratch.as_ref().map(std::os::fd::AsFd::as_fd),
                    cpu_us: passed.cpu_us,
                    exit: passed.exit,
                },
                self.policy,
            )
        };
        let mut early = None;
        let passed =
            passthrough::pass(&started, prepared.plan(), ends, limits.time, limits.output, told, |passed| {
                early = Some(counters(passed))
            });
        let counted = passed.map(|passed| {
            let (mut usage, violations) = early.unwrap_or_else(|| counters(&passed));
            usage.cpu_us = usage.cpu_us.or(passed.cpu_us);
            (passed, usage, violations)
        });
        let Started { cgroup, reserved, private, outside, .. } = started;
        drop((reserved, private, outside));
        let answer = counted.map_err(broken).and_then(|(passed, usage, violations)| {
            (self.usage, self.violations) = (usage, violations);
            let mut passed = passed;
            let changes = passed.changes.take();
            let ending = self.ended(passed, facts, call)?;
            match ending {
                Ending::Success if self.policy.filesystem.writes.is_reviewed() => {
                    self.review(prepared.plan(), changes)
                }
                ending => Ok(ending),
            }
        });
        if let Some(cgroup) = cgroup {
            cgroup.remove();
        }
        answer
    }

    /// The command has succeeded: what it changed is shown, and done to the host if it may be.
    fn review(&mut self, plan: &Plan, left: Option<(OwnedFd, Kept)>) -> Result<Ending, Failure> {
        let asks = self.policy.filesystem.writes == Writes::Ask;
        let Reviewed { changes, violations, failure } = changes::review(plan, left, asks);
        self.violations.extend(violations);
        self.changes = changes;
        let Some(failure) = failure else { return Ok(Ending::Success) };
        self.status = Status::Failed { detail: failure.message() };
        Err(failure)
    }

    fn refused(&mut self, error: &LaunchError, call: &Call) -> Result<Ending, Failure> {
        self.status = Status::Refused { detail: format!("{error}: {}", error.errno) };
        Err(cell_failed(error, call))
    }

    fn ended(&mut self, passed: Passed, facts: &Facts, call: &Call) -> Result<Ending, Failure> {
        self.usage.bytes_in = passed.bytes_in;
        self.usage.bytes_out = passed.bytes_out;
        self.receipt = passed.receipt;
        self.gone = passed.gone;
        if let (Some(receipt), Err(untold)) = (&mut self.receipt, &facts.denials) {
            receipt.reasons.insert(Layer::Landlock.name().to_owned(), untold.to_string());
        }
        self.violations.extend(passed.refusals.iter().flat_map(|refusals| refusals.violations(self.policy)));
        self.violations.extend(passed.denied);
        self.violations.extend(passed.doors.iter().flat_map(Doorway::violations));
        self.traffic = passed.doors.as_ref().map(Doorway::traffic);
        self.stderr = passed.stderr;
        let words = String::from_utf8_lossy(&self.stderr);
        self.violations.extend(reported::limits(words.lines(), self.policy, &self.violations));
        if let Some(error) = passed.failed {
            return self.refused(&error, call);
        }
        if let Some(limit) = passed.stopped {
            self.violations.push(usage::stopped(self.policy, limit, passed.bytes_out));
            self.status = Status::Limit { limit };
            return Ok(limit.into());
        }
        let memory = self.violations.iter().any(|violation| violation.limit == Some(Limit::Memory));
        Ok(match passed.exit {
            Some(Exit::Code(0)) => Ending::Success,
            Some(Exit::Code(code)) => {
                self.status = Status::Failed { detail: format!("exit status {code}") };
                Ending::Exited(u8::try_from(code).unwrap_or(u8::MAX))
            }
            Some(Exit::Signal(libc::SIGKILL)) if memory => {
                self.status = Status::Limit { limit: Limit::Memory };
                Limit::Memory.into()
            }
            Some(Exit::Signal(signal)) => {
                self.status = Status::Failed { detail: format!("signal {signal}") };
                Ending::Signalled(u8::try_from(signal).unwrap_or(u8::MAX))
            }
            None => {
                self.status = Status::Died { detail: "the cell ended without a status".to_owned() };
                Ending::Cell
            }
        })
    }

    /// The doors behind which nobody answered.
    fn unreachable(&self) -> BTreeSet<&str> {
        let all = self.traffic.iter().flat_map(|traffic| &traffic.connections);
        let nobody = |one: &&Connection| one.from.is_none() && one.closed_by == ClosedBy::Unreachable;
        all.filter(nobody).map(|one| one.to.as_str()).collect()
    }

    /// What the person at the terminal should know: limits that were hit; and when the command failed, what its
    /// arguments name and the cell lacks.
    fn explain(&self, color: ColorChoice, remarks: &[String]) {
        for violation in &self.violations {
            let stopped = matches!(self.status, Status::Limit { limit } if violation.limit == Some(limit));
            if violation.limit.is_none() {
                // A command that does without what was refused is nobody's concern but the record's.
                if self.status != Status::Completed {
                    diag::warn(color, &escape(&violation.sentence()), violation.allow.as_deref());
                }
                continue;
            }
            let waited = violation.limit == Some(Limit::Cpu);
            if !stopped && waited && !std::io::stderr().is_terminal() {
                continue;
            }
            diag::warn(color, &describe(violation, stopped), violation.allow.as_deref());
        }
        if self.status != Status::Completed {
            for door in self.unreachable() {
                diag::warn(
                    color,
                    &escape(&format!("nobody could be reached through the door `{door}`")),
                    None,
                );
            }
            for remark in remarks {
                diag::warn(color, remark, None);
            }
        }
    }
}

/// One sentence about a limit.
fn describe(violation: &Violation, stopped: bool) -> String {
    let amount = |limit: Option<Limit>, value: Option<u64>| match (limit, value) {
        (Some(limit), Some(value)) => limits::print(limit, value),
        _ => "unknown".to_owned(),
    };
    let peak = violation
        .peak
        .map_or_else(String::new, |peak| format!(", peak {}", amount(violation.limit, Some(peak))));
    let verb = if stopped { "stopped by" } else { "hit" };
    let times = if violation.count == 1 { "once".to_owned() } else { format!("{} times", violation.count) };
    let value = amount(violation.limit, violation.value);
    escape(&format!("{verb} {} ({value}{peak}), {times}", violation.rule)).into_owned()
}
