//! One call from its caller's queue to its record: a slot, a fresh cell, the answer, and nothing left.
//!
//! ```text
//! queued ──► started ──► talking ──► answered ──► reaped ──► recorded
//!    │                      ├──► streaming ──┘        ▲
//!    └─ cancelled: gone     └──► cancelled, stopped, died ──► reaped ──► told ──► recorded
//! ```
//!
//! An answer that is a question goes back to `talking` by way of [`super::chain`], in the same cell.
//!
//! An answer is forwarded first and the cell reaped behind it: its stdin is closed, it has [`LEAVE`] to go by itself
//! (a server may still be writing a database), then it is killed. The slot is free when the last process is dead.
//!
//! Neighbours: [`super::client`] starts it, [`super::link`] talks, [`super::text`] explains. Never: retries.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{annexed, failure, status};
use super::chain::{self, Leg};
use super::changes::{Asking, Person};
use super::link::{End, LONGEST_LINE, Link, STREAM_FROM, Step};
use super::persist::Persist;
use super::process::{Process, Remains};
use super::results::{self, Check};
use super::rules::Asked;
use super::secrets::{self, Fetched, Mask};
use super::stream::{self, Broken, Passed};
use super::tally::Misdeed;
use super::{
    Ask, Control, Finished, Grant, NoGrant, Session, Stop, bounds, changes, forgotten, quarantine, spares,
    text,
};
use crate::arguments::Fault;
use crate::audit::{REDACTED, target_in_record};
use crate::call::Call;
use crate::guard::Verdict;
use crate::host::probe;
use crate::mcp::envelope::{self, Era, INTERNAL_ERROR, INVALID_PARAMS, Id, Kind, Message};
use crate::mcp::{annex, reply};
use crate::outcome::{Granted, Limit, Receipt, SecretUse, Status, Violation};
use crate::policy::Policy;
use crate::policy::bounds::Bounds;
use crate::watch::{reported, usage};

/// How long a server may take to leave after its answer.
const LEAVE: Duration = Duration::from_millis(100);
/// How long a server that is told of a cancellation may take to leave.
const CANCEL: Duration = Duration::from_millis(200);

/// A cell that runs, and what its record needs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) call: Call,
    pub(super) grant: Grant,
    pub(super) link: Link,
    pub(super) began: Instant,
    /// The server was started, and has had the handshake, before.
    pub(super) spare: bool,
}

/// What was left unsaid: an error on this side, which no policy allows or forbids.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) detail: String,
    pub(super) blame: Blame,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The operator.
    Host,
    /// The model, which is told: the call's arguments are the reason, or that its tool is kept out.
    Arguments,
    /// The client, by what it says beside them.
    Client,
}

/// Takes the grant, writes the first record, launches the cell.
pub(super) async fn start(
    session: &Session,
    ask: &Ask,
    method: &str,
    streams: bool,
    bounds: Result<Vec<Bounds>, String>,
    verdict: Option<Verdict>,
) -> Result<Running, Refused> {
    let began = Instant::now();
    let mut call = named(session, ask, method);
    let params = ask.params.clone().and_then(|span| ask.line.get(span));
    let profiles = &session.options.profiles;
    let own = profiles.policy(method, ask.target.as_deref());
    let verdict = match verdict {
        Some(verdict) => verdict,
        None => self::verdict(session, &call, own.as_deref()).await,
    };
    let less = verdict == Verdict::Trial;
    let grant = bounds
        .map_err(NoGrant::Client)
        .and_then(|bounds| profiles.grant(method, ask.target.as_deref(), params, &bounds, less));
    let granted = grant.as_ref().map_or(&[][..], |grant| &grant.granted);
    let policy = grant.as_ref().ok().map(|grant| Arc::clone(&grant.policy));
    // What is refused is recorded as its profile says.
    let policy = policy.as_deref().or(own.as_deref());
    policy.map_or("", |policy| &policy.name).clone_into(&mut call.profile);
    // Before the record of the call, which may be about to repeat one.
    let fetched = secrets::fetch(session, method, ask.target.as_deref(), policy).await;
    let mask = fetched.as_ref().ok().and_then(Option::as_ref).map(|fetched| Rc::clone(&fetched.mask));
    record_started(session, &call, policy, ask, granted, mask.as_deref())?;
    // A refusal for what the client sent can quote that, as can one of a path that it named.
    let named = granted.iter().any(|granted| granted.by.is_some());
    let redacts = own.as_ref().is_none_or(|own| !own.audit.redact.is_empty());
    let refused_with = |blame: Blame, detail: String, unread: Vec<SecretUse>, violations| {
        // Masked before it is counted what was masked.
        let recorded = match (&mask, blame) {
            _ if redacts && (named || blame != Blame::Host) => REDACTED.to_owned(),
            (Some(mask), _) => mask.refusal(&detail),
            (None, _) => detail.clone(),
        };
        let secrets = mask.as_ref().map_or(unread, |mask| mask.uses());
        let refused = Finished::refused(Status::Refused { detail: recorded }, violations);
        let finished = Finished { secrets, duration: began.elapsed(), ..refused };
        session.record(&call, policy, &finished);
        Refused { detail, blame }
    };
    if let Some((detail, violation)) = quarantine::refusal(&call, session.options.log.as_deref(), verdict) {
        return Err(refused_with(Blame::Arguments, detail, Vec::new(), vec![violation]));
    }
    if let Some((detail, violation)) = session.options.persist.as_ref().and_then(Persist::refusal) {
        return Err(refused_with(Blame::Arguments, detail, Vec::new(), vec![violation]));
    }
    let refused = |detail: String| refused_with(Blame::Host, detail, Vec::new(), Vec::new());
    let fetched =
        fetched.map_err(|failed| refused_with(Blame::Host, failed.detail, failed.uses, Vec::new()))?;
    let grant = grant.map_err(|reason| match reason {
        NoGrant::Host(detail) => refused(detail),
        NoGrant::Arguments(detail, violations) => {
            refused_with(Blame::Arguments, detail, Vec::new(), violations)
        }
        NoGrant::Client(detail) => refused_with(Blame::Client, detail, Vec::new(), Vec::new()),
    })?;
    // Who gets a secret into its cell is started with it.
    let outside = fetched.as_ref().is_none_or(Fetched::stay_outside);
    let handover = fetched.map(|fetched| fetched.handover(&grant.plan)).transpose().map_err(&refused)?;
    if session.options.spares > 0
        && outside
        && method == ask.method
        && let Some(link) =
            spares::take(session, &grant, ask.meta.era, handover.as_ref().zip(mask.as_ref())).await
    {
        return Ok(Running { call, grant, link, began, spare: true });
    }
    // A grant on a file system that does not answer must not hold the call for ever.
    let launched = timeout_at(
        began + grant.policy.limits.time,
        session.options.launcher.launch(
            &grant.plan,
            &grant.policy,
            handover.as_ref(),
            grant.ahead.as_ref().map(|waiting| &waiting.ahead),
        ),
    );
    let Ok(launched) = launched.await else {
        return Err(refused("the cell was not built within the time of `limits.time`".to_owned()));
    };
    // Only the cell and the mask have them from here on.
    drop(handover);
    let cell = launched.map_err(|error| {
        let hint = probe::hint(&error).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        refused(format!("{}{hint}", crate::text::chain(&error)))
    })?;
    cell.listening().iter().for_each(|one| (session.options.note)(&one.words()));
    let limit = if streams { STREAM_FROM } else { LONGEST_LINE };
    let process = Process::new(cell, limit, grant.policy.limits.output, mask.clone())
        .ok_or_else(|| refused("the cell was started without its pipes".to_owned()))?;
    let link = Link::new(process, session.next_cell(), ask.meta.era, streams);
    Ok(Running { call, grant, link, began, spare: false })
}

/// May the tool of this call be called now?
pub(super) async fn verdict(session: &Session, call: &Call, own: Option<&Policy>) -> Verdict {
    let Some(tool) = call.tool() else { return Verdict::Free };
    let shown = own.and_then(|own| target_in_record(call, &own.audit.redact));
    session.options.guard.may(&call.id, tool, shown.as_deref().unwrap_or(REDACTED)).await
}

/// A request as records name it, without its profile.
pub(super) fn named(session: &Session, ask: &Ask, method: &str) -> Call {
    let who = ask.meta.client.clone().unwrap_or_else(|| session.client.borrow().clone());
    Call {
        id: session.next_call_id(),
        server: session.options.server.clone(),
        method: method.to_owned(),
        target: ask.target.clone().filter(|_| method == ask.method),
        profile: String::new(),
        who: format!("{who} ({})", session.options.user),
        identity: ask.identity.as_deref().map(str::to_owned),
        trace: ask.meta.trace.as_deref().cloned(),
    }
}

/// Records a request before the server gets it.
pub(super) fn record_started(
    session: &Session,
    call: &Call,
    policy: Option<&Policy>,
    ask: &Ask,
    granted: &[Granted],
    mask: Option<&Mask>,
) -> Result<(), Refused> {
    // The parameters stand in the record of a call; a process that serves many requests has none.
    let params = ask.params.clone().filter(|_| call.method == ask.method);
    let params = params.and_then(|span| ask.line.get(span));
    let masked = mask.zip(params).and_then(|(mask, params)| mask.parameters(params));
    let params: Option<&RawValue> =
        masked.as_deref().or(params).and_then(|params| serde_json::from_slice(params).ok());
    let mut granted = granted.to_vec();
    if let Some(mask) = mask {
        granted.iter_mut().for_each(|granted| mask.text(&mut granted.path, "parameters"));
    }
    let recorded = session.options.records.started(call, policy, params, &granted);
    recorded
        .map_err(|error| format!("the call's record cannot be written, so it is not run: {error}"))
        .map_err(|detail| Refused { detail, blame: Blame::Host })
}

/// Records a call that nothing is started for, beginning and end at once.
pub(super) fn record_refused(
    session: &Session,
    call: &Call,
    policy: Option<&Policy>,
    ask: &Ask,
    finished: &Finished,
) {
    match record_started(session, call, policy, ask, &[], None) {
        Ok(()) => session.record(call, policy, finished),
        Err(refused) => {
            (session.options.notice)(&format!("call `{}` is refused: {}", call.id, refused.detail));
        }
    }
}

/// Tells the client that its request is not run.
pub(super) async fn refuse(session: &Session, ask: &Ask, control: &mut Control, refused: Refused) {
    session.forget(&ask.id);
    let told = text::clean(&refused.detail);
    let line = match refused.blame {
        Blame::Arguments => failure(ask, &told, &[]),
        Blame::Client => reply::error(Some(&ask.id), INVALID_PARAMS, &told),
        Blame::Host => reply::error(Some(&ask.id), INTERNAL_ERROR, &told),
    };
    deliver(session, control, line).await;
}

/// How the conversation went.
enum Told {
    Answer(Vec<u8>, Message),
    Streamed(Passed),
    /// It is not what it must be, or nobody can say.
    Unfit(Vec<Fault>),
    Stopped(Stop),
    Limit(Limit),
    Ended,
    Broken(String),
}

/// Runs one call. `verdict`: whether its tool may run, if that was asked.
pub(super) async fn run(
    session: Rc<Session>,
    (mut ask, mut control): (Ask, Control),
    verdict: Option<Verdict>,
) {
    session.era.set(ask.meta.era);
    let handshake = match ask.meta.era {
        Era::Modern => None,
        Era::Legacy => tokio::select! {
            biased;
            _ = control.stop() => return,
            handshake = session.agreed() => handshake,
        },
    };
    // Without a slot: the client may take its time.
    let bounds = tokio::select! {
        biased;
        _ = control.stop() => return,
        bounds = bounds::of_call(&session, &ask, handshake.as_deref()) => bounds,
    };
    let caller = ask.caller();
    let mut slot = tokio::select! {
        biased;
        _ = control.stop() => return,
        slot = session.turns.place(&caller) => slot,
    };
    let mut running = match start(&session, &ask, &ask.method, true, bounds, verdict).await {
        Ok(running) => running,
        Err(refused) => {
            drop(slot);
            return refuse(&session, &ask, &mut control, refused).await;
        }
    };
    if let Some(handshake) = handshake.as_ref().filter(|_| !running.spare) {
        running.link.replay(handshake, session.level.borrow().clone());
    }
    let check = Check::of(&session, &ask);
    let reviewed = changes::are_reviewed(&running.grant.policy);
    if reviewed || check.as_ref().is_some_and(Check::holds) {
        running.link.hold(results::MOST_CHECKED);
    }
    let mut patience = chain::PATIENCE;
    let mut time = running.grant.policy.limits.time;
    let mut began = running.began;
    loop {
        let key = session.chains.borrow().key(&ask).map(|(key, _)| key);
        let person = Person::of(&ask, handshake.as_deref(), key.as_ref());
        let asked = Asked::once(ask.id.clone(), ask.meta.progress.clone(), true);
        running.link.ask(asked, std::mem::take(&mut ask.line));
        let deadline = began + time;
        let check = (check.as_ref(), reviewed);
        let told = talk(&session, &mut running.link, &mut control, deadline, &ask.id, check).await;
        let (check, _) = check;
        let question = match &told {
            Told::Answer(line, message) => key.and_then(|key| key.of_question(line, message)),
            _ => None,
        };
        let (line, key) = match (told, question) {
            (Told::Answer(line, _), Some(key)) => (line, key),
            (told, _) => {
                let (told, wrong) = judged(told, check);
                conclude(&session, &ask, running, &mut control, (told, wrong, person)).await;
                return drop(slot);
            }
        };
        time = time.saturating_sub(began.elapsed());
        running.link.rules.answered(&ask.id);
        // Before the client has the question, so that its answer finds the cell.
        let place = session.chains.borrow_mut().keep(key.clone());
        session.forget(&ask.id);
        deliver(&session, &mut control, line).await;
        drop(slot);
        match chain::next(&session, &mut running, key, place, &mut patience).await {
            Ok(leg) => Leg { ask, control, slot } = leg,
            Err(woken) => return chain::abandon(&session, running, woken).await,
        }
        began = Instant::now();
    }
}

async fn talk(
    session: &Session,
    link: &mut Link,
    control: &mut Control,
    deadline: Instant,
    id: &Id,
    (check, reviewed): (Option<&Check>, bool),
) -> Told {
    let step = tokio::select! {
        biased;
        stop = control.stop() => return Told::Stopped(stop),
        () = sleep_until(deadline) => return Told::Limit(Limit::Time),
        step = link.step(session) => step,
    };
    match (step, check) {
        (Step::Answer(line, message), _) => return Told::Answer(line, message),
        (Step::End(End::Closed), _) => return Told::Ended,
        (Step::End(End::OverBudget), _) => return Told::Limit(Limit::Output),
        (Step::NoHandshake(detail), _) => return Told::Broken(detail),
        // What was sent on cannot be called back.
        (Step::Long, _) if reviewed => {
            let most = results::MOST_CHECKED;
            return Told::Broken(format!(
                "a result of more than {most} bytes cannot wait for the review of its changes"
            ));
        }
        (Step::Long, Some(check)) if check.refuses() => return Told::Unfit(vec![check.too_long()]),
        (Step::Long, _) => {}
    }
    let passed = tokio::select! {
        biased;
        stop = control.stop() => return Told::Stopped(stop),
        () = sleep_until(deadline) => return Told::Limit(Limit::Time),
        passed = stream::pass(link, &session.output, std::slice::from_ref(id)) => passed,
    };
    match passed {
        Ok(passed) => Told::Streamed(passed),
        Err(Broken::End(End::Closed)) => Told::Ended,
        Err(Broken::End(End::OverBudget)) => Told::Limit(Limit::Output),
        Err(Broken::Wrong(detail)) => Told::Broken(detail),
    }
}

/// What of an answer is not what it must be; a check that refuses holds it back.
fn judged(told: Told, check: Option<&Check>) -> (Told, Vec<Violation>) {
    let Some(check) = check else { return (told, Vec::new()) };
    let faults = match &told {
        Told::Answer(line, message) => check.faults(line, message),
        Told::Streamed(_) => vec![check.too_long()],
        Told::Unfit(faults) => faults.clone(),
        Told::Stopped(_) | Told::Limit(_) | Told::Ended | Told::Broken(_) => Vec::new(),
    };
    let wrong = faults.iter().map(|fault| check.violation(fault)).collect();
    match told {
        Told::Answer(..) if check.refuses() && !faults.is_empty() => (Told::Unfit(faults), wrong),
        told => (told, wrong),
    }
}

async fn conclude(
    session: &Session,
    ask: &Ask,
    running: Running,
    control: &mut Control,
    (told, wrong, person): (Told, Vec<Violation>, Person),
) {
    let mut repeated = None;
    let Running { call, grant, link, began, .. } = running;
    link.withdraw_all(session);
    let Link { mut process, mut rules, .. } = link;
    let tally = &mut rules.tally;
    let policy = &*grant.policy;
    let (status, mut remains, answer) = match told {
        Told::Unfit(faults) => {
            let detail = "the result is not what the tool's `outputSchema` says".to_owned();
            let remains = process.reap(LEAVE, drop_line).await;
            (Status::Failed { detail }, remains, Some(text::unfit_result(&faults)))
        }
        Told::Answer(line, message)
            if changes::are_reviewed(policy) && status(&line, &message) == Status::Completed =>
        {
            session.forget(&ask.id);
            let (refused, mask) = (process.refused(), process.shared_mask());
            let mut remains = process.reap(LEAVE, drop_line).await;
            let asking = Asking { call: &call, grant: &grant, id: &ask.id, person };
            let written = remains.ended.written.take();
            let reviewed;
            (reviewed, repeated) = changes::review(session, asking, control, written, mask.as_deref()).await;
            if let Some(mask) = &mask {
                remains.secrets = mask.uses();
            }
            let done = reviewed.is_done();
            let told = text::not_done(&reviewed);
            remains.changes = reviewed.changes;
            remains.ended.violations.splice(0..0, reviewed.violations);
            match done {
                true => {
                    let line = annexed(line, &message, &refused, remains.changes.as_ref());
                    match &mut repeated {
                        Some(retry) => changes::deliver_again(session, retry, line).await,
                        None => deliver(session, control, line).await,
                    }
                    (Status::Completed, remains, None)
                }
                false => {
                    let detail = "what the tool changed was not done to the host".to_owned();
                    (Status::Failed { detail }, remains, Some(told))
                }
            }
        }
        Told::Answer(line, message) => {
            session.forget(&ask.id);
            let status = status(&line, &message);
            let hint = forgotten::hint(session, ask, &line, &message);
            let line = annexed(line, &message, &process.refused(), None);
            let line = annex::hinted(line, &message, hint.as_deref());
            let late = |line: &[u8]| {
                if matches!(envelope::parse(line), Ok(Message { kind: Kind::Answer { .. }, .. })) {
                    tally.add(Misdeed::SecondAnswer, line);
                }
            };
            let ((), remains) = tokio::join!(deliver(session, control, line), process.reap(LEAVE, late));
            (status, remains, None)
        }
        Told::Streamed(Passed { mut out, mut tail, message }) => {
            session.forget(&ask.id);
            let status = status(&tail, &message);
            let sent = async {
                tokio::select! {
                    biased;
                    _ = control.gone() => {}
                    () = out.push(&mut tail) => {}
                }
                drop(out);
            };
            let late = |line: &[u8]| tally.add(Misdeed::SecondAnswer, line);
            let ((), remains) = tokio::join!(sent, process.reap(LEAVE, late));
            (status, remains, None)
        }
        Told::Stopped(Stop::Cancelled(note)) => {
            process.send(note);
            (Status::Cancelled, process.reap(CANCEL, drop_line).await, None)
        }
        Told::Stopped(Stop::Gone) => (Status::Cancelled, process.reap(Duration::ZERO, drop_line).await, None),
        Told::Limit(limit) => {
            let mut remains = process.reap(Duration::ZERO, drop_line).await;
            let bytes_out = remains.ended.usage.bytes_out;
            remains.ended.violations.push(usage::stopped(policy, limit, bytes_out));
            let told = text::stopped(limit, &remains.ended.violations, policy, tally, &remains.stderr);
            (Status::Limit { limit }, remains, Some(told))
        }
        Told::Ended => {
            let remains = process.reap(LEAVE, drop_line).await;
            let (status, told) = obituary(&remains, policy, tally);
            (status, remains, Some(told))
        }
        Told::Broken(detail) => {
            let remains = process.reap(Duration::ZERO, drop_line).await;
            let told = text::broken(&detail, tally, &remains.stderr);
            (Status::Died { detail }, remains, Some(told))
        }
    };
    remains.ended.violations.splice(0..0, wrong);
    if let Some(told) = answer {
        let (ask, control) = match &mut repeated {
            Some(retry) => (&retry.0, &mut retry.1),
            None => (ask, control),
        };
        session.forget(&ask.id);
        deliver(session, control, failure(ask, &told, &remains.ended.violations)).await;
    }
    let violations = tally.take();
    finish(session, (&call, &grant, began), status, remains, violations);
}

fn drop_line(_: &[u8]) {}

/// What a server that ended without an answer died of.
pub(super) fn obituary(remains: &Remains, policy: &Policy, tally: &super::tally::Tally) -> (Status, String) {
    let found = &remains.ended.violations;
    // Other limits refuse one operation, which the server could have survived; this one kills.
    if found.iter().any(|violation| violation.limit == Some(Limit::Memory)) {
        let told = text::stopped(Limit::Memory, found, policy, tally, &remains.stderr);
        return (Status::Limit { limit: Limit::Memory }, told);
    }
    let told = text::died(remains, tally);
    let detail = told.lines().next().unwrap_or_default().to_owned();
    (Status::Died { detail }, told)
}

/// Writes the last record. What the call has used of cells built ahead is made good behind it.
pub(super) fn finish(
    session: &Session,
    (call, grant, began): (&Call, &Grant, Instant),
    status: Status,
    remains: Remains,
    mut violations: Vec<Violation>,
) {
    session.options.persist.iter().for_each(Persist::look);
    let Remains { ended, receipt, stderr, secrets, changes, traffic, .. } = remains;
    violations.extend(ended.violations);
    let duration = ended.gone.saturating_duration_since(began);
    let said = match &status {
        Status::Failed { detail } => Some(detail),
        _ => None,
    };
    let words = stderr.iter().chain(said).map(String::as_str);
    violations.extend(reported::limits(words, &grant.policy, &violations));
    let receipt: Option<Receipt> = Some(receipt);
    let finished = Finished {
        status,
        usage: ended.usage,
        violations,
        receipt,
        stderr,
        secrets,
        changes,
        traffic,
        duration,
    };
    session.record(call, Some(&grant.policy), &finished);
    session.prepare(grant);
}

pub(super) async fn deliver(session: &Session, control: &mut Control, line: Vec<u8>) {
    tokio::select! {
        biased;
        () = session.output.line(line) => {}
        () = control.gone() => {}
    }
}
