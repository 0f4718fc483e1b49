//! `toolcell profile why`: whether a profile allows one thing, by which rule, and what would allow it; with `--prove`,
//! whether a cell agrees.
//!
//! Neighbours: `compose` plans, `host::reach` walks the path, `plan::why` judges, `prove` tries. Never: judges itself.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::prove;
use crate::cli::{Access, Question, WhyArgs};
use crate::commands::compose::{self, Surroundings};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::reach::{self, Place, Reach};
use crate::host::{Facts, probe};
use crate::plan::why::{self, Answer, Decision, File, Operation};
use crate::policy::add::Additions;
use crate::policy::{Floor, Policy};
use crate::sys::Errno;
use crate::text::{escape, escape_lines};

/// Answers one question.
pub(super) fn run(args: &WhyArgs) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(None)?;
    let profile = compose::texts(std::slice::from_ref(&args.profile))?.concat();
    let policy = surroundings.policy(&profile, &Additions::default())?;
    let (what, answer, proof) = match &args.question {
        Question::File(access, path) => {
            let operation = match access {
                Access::Read => Operation::Read,
                Access::Write => Operation::Write,
                Access::Exec => Operation::Exec,
            };
            let path = absolute(&surroundings.world.cwd, path);
            let (answer, proof) = file(&surroundings, &policy, args, operation, &path)?;
            (format!("{} `{}`", operation.name(), path.display()), answer, proof)
        }
        Question::Connect(address) => {
            let answer = why::connect(&policy, address).map_err(|error| {
                let hint = error.hint();
                Failure::new(Ending::Usage, error).hint(hint)
            })?;
            (format!("connect `{address}`"), answer, None)
        }
        Question::Syscall(name) => {
            let answer = why::syscall(&policy, Facts::gather().landlock_abi, name).map_err(|error| {
                let hint = error.hint();
                Failure::new(Ending::Usage, error).hint(hint)
            })?;
            (format!("system call `{name}`"), answer, None)
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
    met: Result<(), Errno>,
    agrees: bool,
}

fn file(
    surroundings: &Surroundings,
    policy: &Policy,
    args: &WhyArgs,
    operation: Operation,
    path: &Path,
) -> Result<(Answer, Option<Proof>), Failure> {
    let command = compose::texts(&args.command)?;
    let standing_in = [super::NO_COMMAND.to_owned()];
    let runtime = surroundings.runtime(if command.is_empty() { &standing_in } else { &command })?;
    let facts = if args.prove { compose::facts() } else { Facts::gather() };
    let composed = surroundings.plan(policy, &runtime, &facts)?;
    if composed.plan.floor == Floor::Landlock {
        let why =
            "this host reaches the floor `landlock`: paths of a cell without a private root are not answered";
        return Err(Failure::new(Ending::Floor, why));
    }
    let reach = reach::walk(&composed.plan, path, facts.payload.0);
    let answer = why::file(policy, &composed.plan, &composed.view, File { operation, path, reach: &reach });
    if !args.prove {
        return Ok((answer, None));
    }
    let own = std::env::current_exe().map_err(|error| Failure::new(Ending::Other, error))?;
    let prover = surroundings.runtime(&compose::texts(&[own.into_os_string()])?)?;
    let plan = surroundings.plan(policy, &prove::with_prover(&runtime, &prover), &facts)?.plan;
    let text = compose::texts(&[path.as_os_str().to_owned()])?.concat();
    let met = prove::prove(plan, &prover, operation, &text).map_err(|error| {
        let hint = probe::hint(&error);
        Failure::new(Ending::Cell, error).hint(hint)
    })?;
    let agrees = agrees(&answer, &reach, met);
    Ok((answer, Some(Proof { met, agrees })))
}

/// A refusal must be refused. What is allowed must succeed, but where nothing is there or the file's own mode is against it.
fn agrees(answer: &Answer, reach: &Reach, met: Result<(), Errno>) -> bool {
    match (answer.decision, met) {
        (Decision::Allowed, Ok(())) | (Decision::Refused, Err(_)) | (Decision::Depends, _) => true,
        (Decision::Allowed, Err(Errno(libc::ENOENT | libc::ENOTDIR))) => {
            !reach.exists || reach.place == Place::Scratch
        }
        (Decision::Allowed, Err(Errno(libc::EACCES))) => reach.closed.is_some(),
        (Decision::Allowed, Err(_)) | (Decision::Refused, Ok(())) => false,
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
        Ok(()) => "it succeeded".to_owned(),
        Err(errno) => format!("{errno}"),
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
        json!({ "succeeded": proof.met.is_ok(), "errno": proof.met.err().map(Errno::name), "agrees": proof.agrees })
    });
    format!("{:#}\n", json!({ "schema": 1, "asked": what, "answer": answer, "proof": proof }))
}
