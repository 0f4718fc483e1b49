//! `toolcell profile why`: whether a profile allows one thing, by which rule, and what would allow it; with `--prove`,
//! whether a cell agrees.
//!
//! Neighbours: `compose` plans, `host::reach` walks the path, `plan::why` judges, `prove` tries. Never: judges itself.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::prove;
use crate::cli::{Access, Question, WhyArgs};
use crate::commands::compose::{self, Composed, Surroundings};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::reach::{self, Place, Reach};
use crate::host::runtime::Runtime;
use crate::host::{Facts, probe};
use crate::plan::seccomp;
use crate::plan::step::Step;
use crate::plan::why::{self, Answer, Decision, File, Operation};
use crate::policy::Policy;
use crate::policy::add::Additions;
use crate::policy::mode::Mode;
use crate::policy::network::{Destination, Host};
use crate::sys::Errno;
use crate::sys::trial::Trial;
use crate::text::{escape, escape_lines};

/// Answers one question.
pub(super) fn run(args: &WhyArgs) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(None)?;
    let profile = compose::texts(std::slice::from_ref(&args.profile))?.concat();
    let policy = surroundings.policy(&profile, &Additions::default())?;
    let trying = || Trying::of(&surroundings, &policy, args);
    let (what, answer, proof) = match &args.question {
        Question::File(access, path) => {
            let operation = match access {
                Access::Read => Operation::Read,
                Access::Write => Operation::Write,
                Access::Exec => Operation::Exec,
            };
            let path = absolute(&surroundings.world.cwd, path);
            let (answer, proof) = file(&trying()?, operation, &path)?;
            (format!("{} `{}`", operation.name(), path.display()), answer, proof)
        }
        Question::Connect(address) => {
            let answer = why::connect(&policy, address).map_err(|error| {
                let hint = error.hint();
                Failure::new(Ending::Usage, error).hint(hint)
            })?;
            let proof = args.prove.then(|| reached(&trying()?, address, &answer)).transpose()?;
            (format!("connect `{address}`"), answer, proof)
        }
        Question::Syscall(name) => {
            let answer = why::syscall(&policy, Facts::gather().landlock_abi, name).map_err(|error| {
                let hint = error.hint();
                Failure::new(Ending::Usage, error).hint(hint)
            })?;
            let proof = args.prove.then(|| called(&trying()?, name, &answer)).transpose()?;
            (format!("system call `{name}`"), answer, proof)
        }
    };
    let text =
        if args.json { json(&what, &answer, proof.as_ref()) } else { text(&what, &answer, proof.as_ref()) };
    super::super::print(text.as_bytes())?;
    if let Some(Proof { agrees: false, .. }) = proof {
        return Err(Failure::new(Ending::Other, "the cell does not do what the profile says").hint(Some(
            "report it, with the profile and the output of `toolcell doctor --json`".to_owned(),
        )));
    }
    Ok(match answer.decision {
        Decision::Allowed => Ending::Success,
        Decision::Refused | Decision::Depends => Ending::Refused,
    })
}

/// Without `.`, and `..` taken by name.
fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for component in cwd.join(path).components() {
        match component {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => {
                whole.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

/// What a cell did.
struct Proof {
    met: Trial,
    agrees: bool,
}

/// A cell for the command, and what it takes to try something in one.
struct Trying<'a> {
    surroundings: &'a Surroundings,
    policy: &'a Policy,
    facts: Facts,
    runtime: Runtime,
    /// Plan of the command's cell.
    composed: Composed,
    prove: bool,
}

impl<'a> Trying<'a> {
    fn of(surroundings: &'a Surroundings, policy: &'a Policy, args: &WhyArgs) -> Result<Self, Failure> {
        let command = compose::texts(&args.command)?;
        let standing_in = [super::NO_COMMAND.to_owned()];
        let runtime = surroundings.runtime(if command.is_empty() { &standing_in } else { &command })?;
        let facts = if args.prove { compose::facts() } else { Facts::gather() };
        let composed = surroundings.plan(policy, &runtime, &facts)?;
        if composed.plan.floor.is_bare() {
            let why = "this host reaches the floor `landlock`: what a cell without a private root does is not answered";
            return Err(Failure::new(Ending::Floor, why));
        }
        Ok(Self { surroundings, policy, facts, runtime, composed, prove: args.prove })
    }

    /// What a cell does.
    fn met(&self, operation: &str, what: &str) -> Result<prove::Met, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::new(Ending::Other, error))?;
        let prover = self.surroundings.runtime(&compose::texts(&[own.into_os_string()])?)?;
        let both = prove::with_prover(&self.runtime, &prover);
        let plan = self.surroundings.plan(self.policy, &both, &self.facts)?.plan;
        prove::prove(plan, &prover, self.policy, operation, what).map_err(|error| {
            let hint = probe::hint(&error);
            Failure::new(Ending::Cell, error).hint(hint)
        })
    }
}

/// Whether the cell connects. Of a name below a pattern nobody knows the address but who keeps the doors of a cell that is used.
fn reached(trying: &Trying<'_>, asked: &str, answer: &Answer) -> Result<Proof, Failure> {
    let destination: Destination = asked.parse().map_err(|error| Failure::new(Ending::Usage, error))?;
    let doors = trying.composed.plan.steps.iter().find_map(|step| match step {
        Step::OpenDoors { doors } => Some(doors),
        _ => None,
    });
    let place = doors.and_then(|doors| doors.places.iter().find(|place| place.host == destination.host));
    // The same place in every cell, by whichever name a door is at it.
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let local = (destination.host == Host::Name("localhost".to_owned())).then_some(&local);
    let inside = trying.policy.network.inside(&destination);
    let at = match (place.and_then(|place| place.addresses.first()).or(local), &destination.host) {
        (Some(address), _) => SocketAddr::new(*address, inside).to_string(),
        (None, Host::Address(address)) => SocketAddr::new(*address, destination.port).to_string(),
        (None, Host::Name(_)) if answer.decision == Decision::Refused => destination.to_string(),
        (None, Host::Name(_) | Host::Below(_)) => {
            let who = match trying.policy.network.mode {
                Mode::Cell => "who keeps the doors of a cell gives such names their addresses",
                Mode::Host => "names are looked up by programs, and this one looks up none",
            };
            let why = format!("`{asked}` cannot be tried: {who}");
            return Err(Failure::new(Ending::Usage, why).hint(Some("leave `--prove` out".to_owned())));
        }
    };
    let met = untried(trying.met("connect", &at)?.outcome)?;
    let agrees = match met {
        // Outside of doors it is the network that says whether anybody is there.
        Trial::Failed(Errno(errno)) if trying.policy.network.mode.is_host() => {
            !matches!(errno, libc::EACCES | libc::EPERM)
        }
        met => (answer.decision == Decision::Allowed) == (met == Trial::Ran),
    };
    Ok(Proof { met, agrees })
}

/// Whether the filter lets the call run. What the kernel says of one that runs is nobody's refusal.
fn called(trying: &Trying<'_>, name: &str, answer: &Answer) -> Result<Proof, Failure> {
    // The child of one that runs shares its parent's stack.
    let tried = if name == "vfork" && answer.decision == Decision::Allowed { "fork" } else { name };
    let number = seccomp::number(tried).unwrap_or_default();
    let found = trying.met("syscall", &number.to_string())?;
    let met = untried(found.outcome)?;
    let told = found.refused.iter().any(|refused| refused == name);
    let agrees = match (answer.decision, met) {
        (Decision::Depends, _) => true,
        (Decision::Allowed, Trial::Killed) => false,
        (Decision::Allowed, _) => !told,
        (Decision::Refused, Trial::Killed) => true,
        // Nobody is told of this one.
        (Decision::Refused, Trial::Failed(Errno(libc::ENOSYS))) => true,
        (Decision::Refused, Trial::Failed(_)) => told || !found.heard,
        (Decision::Refused, Trial::Ran) => false,
    };
    Ok(Proof { met, agrees })
}

/// What became of it, if it could be made at all.
fn untried(outcome: Option<Trial>) -> Result<Trial, Failure> {
    outcome.ok_or_else(|| {
        let hint = "allow `clone`, `fork` and `wait4` in `[syscalls]`, or leave `--prove` out";
        Failure::new(Ending::Cell, "the profile refuses what it takes to try a call in a process of its own")
            .hint(Some(hint.to_owned()))
    })
}

fn file(trying: &Trying<'_>, operation: Operation, path: &Path) -> Result<(Answer, Option<Proof>), Failure> {
    let Trying { composed, facts, .. } = trying;
    let reach = reach::walk(&composed.plan, path, facts.payload.0);
    let answer =
        why::file(trying.policy, &composed.plan, &composed.view, File { operation, path, reach: &reach });
    if !trying.prove {
        return Ok((answer, None));
    }
    let text = compose::texts(&[path.as_os_str().to_owned()])?.concat();
    let met = untried(trying.met(operation.name(), &text)?.outcome)?;
    let agrees = agrees(&answer, &reach, met);
    Ok((answer, Some(Proof { met, agrees })))
}

/// A refusal must be refused. What is allowed must succeed, but where nothing is there or the file's own mode is against it.
fn agrees(answer: &Answer, reach: &Reach, met: Trial) -> bool {
    match (answer.decision, met) {
        (Decision::Allowed, Trial::Ran)
        | (Decision::Refused, Trial::Failed(_) | Trial::Killed)
        | (Decision::Depends, _) => true,
        (Decision::Allowed, Trial::Failed(Errno(libc::ENOENT | libc::ENOTDIR))) => {
            !reach.exists || reach.place == Place::Scratch
        }
        (Decision::Allowed, Trial::Failed(Errno(libc::EACCES))) => reach.closed.is_some(),
        (Decision::Allowed, Trial::Failed(_) | Trial::Killed) | (Decision::Refused, Trial::Ran) => false,
    }
}

const fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allowed => "allowed",
        Decision::Refused => "refused",
        Decision::Depends => "depends",
    }
}

fn met(proof: &Proof) -> String {
    match proof.met {
        Trial::Ran => "it succeeded".to_owned(),
        Trial::Failed(errno) => format!("{errno}"),
        Trial::Killed => "the process was killed".to_owned(),
    }
}

fn text(what: &str, answer: &Answer, proof: Option<&Proof>) -> String {
    let mut text = format!("{}: {}\n", word(answer.decision), escape(what));
    let mut put = |label: &str, value: &str| {
        let value = escape_lines(value, "         ");
        let _infallible = writeln!(text, "  {label:<6} {}", value.trim_end());
    };
    let origin = if answer.by.origin.is_empty() { String::new() } else { format!(" ({})", answer.by.origin) };
    put("by", &format!("{}{origin}", answer.by.rule));
    if !answer.by.why.is_empty() {
        put("why", &answer.by.why);
    }
    if let Some(allow) = &answer.allow {
        put("allow", allow);
    }
    if let Some(note) = &answer.note {
        put("note", note);
    }
    if let Some(proof) = proof {
        put("proof", &format!("tried in a cell: {}", met(proof)));
    }
    text
}

fn json(what: &str, answer: &Answer, proof: Option<&Proof>) -> String {
    let proof = proof.map(|proof| {
        let errno = match proof.met {
            Trial::Failed(errno) => Some(errno.name()),
            Trial::Ran | Trial::Killed => None,
        };
        json!({ "succeeded": proof.met == Trial::Ran, "errno": errno, "agrees": proof.agrees })
    });
    format!("{:#}\n", json!({ "schema": 1, "asked": what, "answer": answer, "proof": proof }))
}
