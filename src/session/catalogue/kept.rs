//! The calls that run in the cell of a session, and what becomes of that cell when it dies.
//!
//! ```text
//! waiting ──► (a place among the jobs, a cell) ──► recorded ──► asked ──► answered ──► delivered ──► recorded
//!                                                                 ├──► cancelled: told to the server, the cell goes on
//!                                                                 └──► out of time, died: the cell ends, and every open call with it
//! ```
//!
//! A call that runs out of time ends the cell: nothing less is sure to stop it. What the cell was refused stands in the record of the call
//! that ends next, and once. A cell that dies is started again with the next request; the more often in a row, the later.
//!
//! Neighbours: [`super`] has the process; [`crate::session::call`] runs calls that have a cell of their own. Never: sends a call twice.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Catalogue, Kind, Open, Waiting, in_doubt};
use crate::audit::REDACTED;
use crate::call::Call;
use crate::guard::Verdict;
use crate::mcp::envelope::{Id, Kind as Said, Message};
use crate::mcp::{object, reply};
use crate::outcome::{Built, Limit, Receipt, Status, Usage, Violation};
use crate::session::call::{self, Blame, Refused};
use crate::session::link::{End, STREAM_FROM};
use crate::session::results::{self, Check};
use crate::session::stream::{self, Broken, Passed};
use crate::session::{Agreed, Ask, Control, Finished, NoGrant, answer, bounds, client, quarantine, text};

/// A cell that lived this long has not died of its start.
const STEADY: Duration = Duration::from_secs(30);
/// The next one waits this long, twice as long after each further death,
const PAUSE: Duration = Duration::from_millis(100);
/// and at most this long.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// When a process that died may be started again.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    pub(super) not_before: Option<Instant>,
    since: Option<Instant>,
    deaths: u32,
}

impl Restarts {
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| now < at)
    }

    pub(super) const fn started(&mut self, now: Instant) {
        self.since = Some(now);
        self.not_before = None;
    }

    pub(super) fn died(&mut self, now: Instant) {
        let steady = self.since.take().is_some_and(|since| now.duration_since(since) >= STEADY);
        self.deaths = if steady { 0 } else { self.deaths.saturating_add(1) };
        let pause = PAUSE.saturating_mul(1 << self.deaths.saturating_sub(1).min(16)).min(MOST_PAUSE);
        self.not_before = (self.deaths > 0).then(|| now + pause);
    }
}

/// What only the cell of a session has.
#[derive(Debug)]
pub(super) struct Kept {
    /// How long it waits for the next request.
    pub(super) idle: Duration,
    /// What it was refused that stands in a record.
    seen: Vec<Violation>,
}

impl Kept {
    pub(super) const fn new(idle: Duration) -> Self {
        Self { idle, seen: Vec::new() }
    }

    /// What of this stands in no record yet.
    pub(super) fn unseen(&mut self, all: Vec<Violation>) -> Vec<Violation> {
        let same = |one: &Violation, other: &Violation| {
            *one == Violation { count: one.count, last_us: one.last_us, ..other.clone() }
        };
        let fresh = all.iter().filter_map(|found| {
            let before = self.seen.iter().find(|seen| same(found, seen)).map_or(0, |seen| seen.count);
            // Of those that are new it is known when the last one was.
            let first_us = found.first_us.filter(|_| before == 0);
            (found.count > before).then(|| Violation {
                count: found.count - before,
                first_us,
                ..found.clone()
            })
        });
        let fresh = fresh.collect();
        self.seen = all;
        fresh
    }
}

/// A call that runs in the cell.
#[derive(Debug)]
pub(super) struct Called {
    call: Call,
    receipt: Receipt,
    check: Option<Check>,
    began: Instant,
}

impl Called {
    /// May its answer go to the client in pieces?
    pub(super) fn streams(&self) -> bool {
        !self.check.as_ref().is_some_and(Check::refuses)
    }

    fn holds(&self) -> bool {
        self.check.as_ref().is_some_and(Check::holds)
    }
}

/// What another call is told when the cell ends with one that reached a limit.
pub(super) fn along(limit: Limit) -> (Status, String) {
    let detail = format!(
        "the cell of the session was ended, because another call in it reached the {} limit; what the server kept in mind is lost",
        limit.name()
    );
    (Status::Died { detail: detail.clone() }, detail)
}

impl Catalogue {
    /// Which of those that wait is begun next.
    pub(super) fn next_kept(&self) -> Option<usize> {
        let calls = self.open.iter().filter(|open| matches!(open.kind, Kind::Call(_))).count();
        let full = calls >= self.session.options.jobs.max(1);
        let learning = self.open.iter().any(|open| matches!(open.kind, Kind::Learn(_)));
        self.waiting.iter().position(|waiting| match waiting {
            Waiting::Asked(ask, _) => !full || !client::is_call(&ask.method),
            Waiting::Learn(_) => !learning,
            Waiting::Watch(_) => true,
        })
    }

    pub(super) async fn begin_call(&mut self, ask: Ask, mut control: Control) {
        let began = Instant::now();
        let session = Rc::clone(&self.session);
        if let Err(refused) = self.ensure(&ask).await {
            let call = call::named(&session, &ask, &ask.method);
            let detail = "the cell of its session could not be started".to_owned();
            let finished = Finished::refused(Status::Refused { detail }, Vec::new());
            call::record_refused(&session, &call, None, &ask, &finished);
            return call::refuse(&session, &ask, &mut control, refused).await;
        }
        let Some(running) = &self.running else { return };
        if running.link.rules.is_cancelled(&ask.id) {
            session.forget(&ask.id);
            return session.reply(in_doubt(&ask));
        }
        let policy = Arc::clone(&running.grant.policy);
        let mut call = call::named(&session, &ask, &ask.method);
        call.profile.clone_from(&policy.name);
        let verdict = call::verdict(&session, &call, Some(&policy)).await;
        if verdict == Verdict::Trial {
            // Less than the session's cell has can only be had in another one.
            return session.spawn(call::run(Rc::clone(&session), (ask, control), Some(verdict)));
        }
        if let Err(refused) = call::record_started(&session, &call, Some(&policy), &ask, &[], None) {
            return call::refuse(&session, &ask, &mut control, refused).await;
        }
        let kept_out = quarantine::refusal(&call, session.options.log.as_deref(), verdict)
            .map(|(detail, violation)| (Refused { detail, blame: Blame::Arguments }, vec![violation]));
        let refusal = match kept_out {
            Some(refusal) => Some(refusal),
            None => self.narrowed(&ask).await.map(|refused| (refused, Vec::new())),
        };
        if let Some((refused, violations)) = refusal {
            let detail =
                if policy.audit.redact.is_empty() { refused.detail.clone() } else { REDACTED.to_owned() };
            let finished = Finished::refused(Status::Refused { detail }, violations);
            session.record(&call, Some(&policy), &Finished { duration: began.elapsed(), ..finished });
            return call::refuse(&session, &ask, &mut control, refused).await;
        }
        let Some(running) = &self.running else { return };
        let receipt = Receipt { cell: Built::Session, ..running.link.process.receipt().clone() };
        let check = Check::of(&session, &ask);
        self.ask(Kind::Call(Box::new(Called { call, receipt, check, began })), ask, control);
    }

    /// Why a call cannot run in this cell, if its client wants less for it than the cell has.
    async fn narrowed(&self, ask: &Ask) -> Option<Refused> {
        let client = |detail| Some(Refused { detail, blame: Blame::Client });
        let handshake = match &*self.session.agreed.borrow() {
            Agreed::Done(handshake) => Some(Rc::clone(handshake)),
            Agreed::None | Agreed::Pending => None,
        };
        let bounds = match bounds::of_call(&self.session, ask, handshake.as_deref()).await {
            Ok(bounds) if bounds.is_empty() => return None,
            Ok(bounds) => bounds,
            Err(detail) => return client(detail),
        };
        let params = ask.params.clone().and_then(|span| ask.line.get(span));
        let profiles = &self.session.options.profiles;
        match profiles.grant(&ask.method, ask.target.as_deref(), params, &bounds, false) {
            Ok(grant) if self.running.as_ref().is_some_and(|running| running.grant.plan == grant.plan) => None,
            Ok(_) => client(
                "the client's policy leaves this call less than the cell of its session has\n\
                 caused by: with `state = \"session\"` all calls share one cell, which cannot become narrower for one of them\n\
                 hint: whoever runs toolcell can write `state = \"call\"`, or have the policy ignored by `client-policy = \"ignore\"`"
                    .to_owned(),
            ),
            Err(NoGrant::Client(detail)) => client(detail),
            Err(NoGrant::Arguments(detail, _)) => Some(Refused { detail, blame: Blame::Arguments }),
            Err(NoGrant::Host(detail)) => Some(Refused { detail, blame: Blame::Host }),
        }
    }

    pub(super) async fn call_answered(
        &mut self,
        mut called: Called,
        ask: &Ask,
        control: &mut Control,
        line: Vec<u8>,
        message: Message,
    ) {
        let faults = match &called.check {
            Some(check) if is_whole(&line, &message) => check.faults(&line, &message),
            _ => Vec::new(),
        };
        let wrong = called.check.as_ref().map_or_else(Vec::new, |check| {
            faults.iter().map(|fault| check.violation(fault)).collect::<Vec<_>>()
        });
        let refused = self.refused(&mut called.receipt);
        let held_back = !faults.is_empty() && !called.streams();
        let (line, status) = if held_back {
            let detail = "the result is not what the tool's `outputSchema` says".to_owned();
            (answer::failure(ask, &text::unfit_result(&faults), &refused), Status::Failed { detail })
        } else {
            let status = answer::status(&line, &message);
            (answer::annexed(line, &message, &refused, None), status)
        };
        self.session.forget(&ask.id);
        let bytes = line.len();
        call::deliver(&self.session, control, line).await;
        self.called(called, ask, status, [wrong, refused].concat(), bytes);
    }

    /// Passes on an answer that is too long to be held.
    pub(super) async fn stream(&mut self, gone: &mut watch::Receiver<bool>) {
        let Some(running) = &mut self.running else { return };
        let asked: Vec<Id> = running.link.rules.asked.iter().map(|asked| asked.id.clone()).collect();
        let deadline = self.open.iter().filter_map(|open| open.deadline).min();
        let passed = tokio::select! {
            biased;
            _ = gone.wait_for(|gone| *gone) => return,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => None,
            passed = stream::pass(&mut running.link, &self.session.output, &asked) => Some(passed),
        };
        match passed {
            None => self.late().await,
            Some(Err(Broken::End(End::Closed))) => self.fail(None, None).await,
            Some(Err(Broken::End(End::OverBudget))) => self.fail(Some((Limit::Output, None)), None).await,
            Some(Err(Broken::Wrong(detail))) => self.fail(None, Some(detail)).await,
            Some(Ok(passed)) => self.streamed(passed).await,
        }
    }

    async fn streamed(&mut self, passed: Passed) {
        let Passed { mut out, mut tail, message } = passed;
        let Said::Answer { id, .. } = &message.kind else { return };
        let Some(at) = self.open.iter().position(|open| open.ask.id == *id) else { return };
        let Open { kind, ask, mut control, .. } = self.open.remove(at);
        if let Some(running) = &mut self.running {
            running.link.rules.answered(id);
        }
        self.session.forget(&ask.id);
        let status = answer::status(&tail, &message);
        tokio::select! {
            biased;
            _ = control.gone() => {}
            () = out.push(&mut tail) => {}
        }
        drop(out);
        if let Kind::Call(mut called) = kind {
            let mut violations = self.refused(&mut called.receipt);
            violations.extend(called.check.as_ref().map(|check| check.violation(&check.too_long())));
            self.called(*called, &ask, status, violations, 0);
        }
        self.hold();
        self.rest(false);
    }

    /// What the cell was refused, and did against the rules, since somebody last asked; the receipt says how much of it that is.
    fn refused(&mut self, receipt: &mut Receipt) -> Vec<Violation> {
        let (Some(running), Some(kept)) = (&self.running, &mut self.kept) else { return Vec::new() };
        let mut refused = running.link.process.take_refused(receipt);
        refused.extend(kept.unseen(running.link.process.refused()));
        refused
    }

    /// Writes the last record of a call.
    pub(super) fn called(
        &mut self,
        called: Called,
        ask: &Ask,
        status: Status,
        mut violations: Vec<Violation>,
        bytes_out: usize,
    ) {
        let Called { call, receipt, began, .. } = called;
        let duration = began.elapsed();
        if let Some(running) = &mut self.running {
            violations.extend(running.link.rules.tally.take());
        }
        let policy = self.session.options.profiles.policy(&call.method, call.target.as_deref());
        let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let usage = Usage {
            bytes_in: count(ask.line.len()),
            bytes_out: count(bytes_out),
            wall_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            ..Usage::default()
        };
        let traffic = self.running.as_ref().and_then(|running| running.link.process.take_traffic());
        let receipt = Some(receipt);
        let finished = Finished {
            status,
            usage,
            violations,
            receipt,
            stderr: Vec::new(),
            secrets: Vec::new(),
            changes: None,
            traffic,
            duration,
        };
        self.session.record(&call, policy.as_deref(), &finished);
    }

    /// Lets the reader hold what has to be looked at whole.
    pub(super) fn hold(&mut self) {
        let Some(running) = self.running.as_mut().filter(|_| self.kept.is_some()) else { return };
        let holds = self.open.iter().any(|open| matches!(&open.kind, Kind::Call(called) if called.holds()));
        running.link.hold(if holds { results::MOST_CHECKED } else { STREAM_FROM });
    }

    /// Subscribes again to what the client watches, in a process that has taken the place of one that died.
    pub(super) async fn watch_again(&mut self, ask: Ask) {
        if let Err(refused) = self.ensure(&ask).await {
            let told = text::clean(&refused.detail);
            return (self.session.options.notice)(&format!("resources are not watched any more: {told}"));
        }
        for (number, uri) in self.watched.clone().into_iter().enumerate() {
            let id = Id::Text(format!("dev.toolcell/watch/{number}"));
            let params = serde_json::json!({ "uri": uri }).to_string();
            let line = reply::request(&id, "resources/subscribe", Some(params.as_bytes()));
            let ask = Ask { id, line, params: None, target: None, ..ask.clone() };
            let control = Control { cancel: None, gone: self.session.gone.subscribe() };
            self.ask(Kind::Again, ask, control);
        }
    }
}

/// Is this the result itself, and not a question or a promise in its place?
fn is_whole(line: &[u8], message: &Message) -> bool {
    let Some(body) = message.body.clone() else { return true };
    let kind =
        object::member(line, body.clone(), "resultType").and_then(|span| object::text(line.get(span)?));
    // Legacy servers promise a result by the task that will have it.
    let task = object::member(line, body, "task").is_some();
    kind.map_or(!task, |kind| kind == "complete")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Layer;

    #[test]
    fn the_more_often_it_dies_the_later_it_is_started_again() {
        let mut restarts = Restarts::default();
        let now = Instant::now();
        assert!(!restarts.rests(now));
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            restarts.started(now);
            restarts.died(now);
            assert_eq!(restarts.not_before, Some(now + Duration::from_millis(pause)));
            assert!(restarts.rests(now) && !restarts.rests(now + Duration::from_millis(pause)));
        }
        restarts.started(now);
        restarts.died(now + STEADY);
        assert!(!restarts.rests(now + STEADY));
    }

    #[test]
    fn what_a_cell_was_refused_stands_in_one_record() {
        let of = |operation: &str, count| Violation {
            count,
            ..Violation::of_toolcell(Layer::Seccomp, operation, "rule".to_owned())
        };
        let mut kept = Kept::new(Duration::ZERO);
        assert_eq!(kept.unseen(vec![of("a", 2)]), [of("a", 2)]);
        assert_eq!(kept.unseen(vec![of("a", 2)]), []);
        let later = Violation { last_us: Some(9), ..of("a", 5) };
        assert_eq!(
            kept.unseen(vec![later.clone(), of("b", 1)]),
            [Violation { count: 3, ..later.clone() }, of("b", 1)]
        );
        assert_eq!(kept.unseen(vec![of("b", 1), later]), []);
    }
}
