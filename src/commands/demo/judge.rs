//! Judges one call: from outside where an escape would show there, else by the probe's word and the cell's receipt.
//!
//! Neighbours: `demo::run` asks, `render` shows. Never: takes a missing answer or record for a success.

use serde_json::Value;

use super::attacks::{Attack, Sign, Wall};
use super::client::{Exchange, TRUE_ANSWER, text};
use super::look;
use super::record::Record;
use super::stage::Stage;
use super::stopper::{Known, Stopper, stopper};
use crate::hostile::Outcome;
use crate::outcome::{Built, Layer, Limit};
use crate::sys::observe;

/// How an attack ended, the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Refused.
    Blocked,
    /// A limit ended it, or let it go no further.
    Stopped,
    /// Nobody can say: counts as not held.
    Unclear,
    /// It succeeded.
    Escaped,
}

impl Verdict {
    /// The word in the table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "BLOCKED",
            Self::Stopped => "STOPPED",
            Self::Escaped => "ESCAPED",
            Self::Unclear => "UNCLEAR",
        }
    }

    /// Did the cell hold?
    pub(super) const fn held(self) -> bool {
        matches!(self, Self::Blocked | Self::Stopped)
    }
}

/// What is to be shown of one call.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// The verdict rests on what was seen from outside.
    pub(super) outside: bool,
    /// What the attacker saw, in short.
    pub(super) saw: String,
    /// What stopped it, if something did.
    pub(super) stopper: Option<Stopper>,
}

/// What the probe says, as far as it is believed.
pub(super) struct Word {
    pub(super) outcome: Option<Outcome>,
    pub(super) operation: String,
    pub(super) object: String,
    pub(super) errno: Option<String>,
    saw: String,
}

/// Judges.
pub(super) fn judge(attack: &Attack, exchange: &Exchange, stage: &mut Stage, cell: bool) -> Judgement {
    let word = word(exchange);
    let record = exchange.record.as_ref();
    let stopper = stopper(attack, &word, record);
    let outside = escape_shows(attack.sign, exchange, stage);
    // Where no cell was built, none has stopped anything.
    let in_a_cell = !cell || record.is_some_and(|record| record.cell().is_some());
    let verdict = match (outside, attack.sign) {
        (Some(true), _) => Verdict::Escaped,
        _ if !in_a_cell => Verdict::Unclear,
        // What it said was held back with what it did.
        (Some(false), _) if stopper.as_ref().is_some_and(is_the_reviews) => Verdict::Blocked,
        // A probe that said nothing may not have tried.
        (Some(false), sign) if word.outcome.is_none() && !sign.is_answered_by_hand() => {
            by_word(&word, cell, record, stopper.as_ref())
        }
        (Some(false), _) => Verdict::Blocked,
        // What it asked was asked of the cell's own resolver, and goes no further.
        (None, Sign::Unasked) if record.is_some_and(was_kept_by_resolver) => Verdict::Blocked,
        (None, Sign::Limit) => limited(attack.wall, &word, cell, record, stopper.as_ref()),
        (None, _) => by_word(&word, cell, record, stopper.as_ref()),
    };
    let saw = seen(attack, &word, exchange);
    Judgement {
        verdict,
        outside: outside.is_some(),
        saw,
        stopper: stopper.filter(|_| cell && verdict.held()),
    }
}

/// The probe's report, if the call got that far.
pub(super) fn word(exchange: &Exchange) -> Word {
    let report = exchange.answer.as_ref().and_then(|answer| answer.pointer("/result/structuredContent"));
    let member = |name: &str| {
        report.and_then(|report| report.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let outcome = report.and_then(|report| report.get("outcome"));
    Word {
        outcome: outcome.and_then(|outcome| serde_json::from_value(outcome.clone()).ok()),
        operation: member("operation"),
        object: member("object"),
        errno: Some(member("errno")).filter(|errno| !errno.is_empty()),
        saw: member("saw"),
    }
}

/// Does an escape show from outside? `None`: it would not show there, or looking failed.
fn escape_shows(sign: Sign, exchange: &Exchange, stage: &mut Stage) -> Option<bool> {
    let came_back = |what: &str| {
        let what = what.as_bytes();
        exchange.lines.iter().any(|line| line.windows(what.len()).any(|window| window == what))
    };
    match sign {
        Sign::Secret | Sign::NoMark => Some(came_back(&stage.secret())),
        Sign::AsMade => stage.is_as_made().ok().map(|as_made| !as_made),
        Sign::TrapsAsMade => stage.traps_are_as_made().ok().map(|as_made| !as_made),
        Sign::NoTraps => Some(stage.has_traps()),
        Sign::NoSetuid => stage.has_setuid().ok(),
        Sign::MarkerLives => Some(!stage.marker_lives()),
        Sign::HostName => {
            let name = observe::host_name().ok()?;
            exchange.answer.as_ref().map(|_answer| came_back(&format!("\"{name}\"")))
        }
        Sign::LogIntact => stage.log_is_forged().ok(),
        Sign::LogKept => stage.log_was_added_to().ok(),
        Sign::Quiet => stage.was_flooded().ok(),
        Sign::NoDaemon => Some(end_daemons(&stage.daemon())),
        Sign::Silence => Some(stage.was_called()),
        Sign::VictimUnharmed => victim_was_harmed(exchange),
        Sign::OneAnswer => Some(exchange.answers != 1),
        Sign::Unasked | Sign::Limit | Sign::Word => None,
    }
}

/// `None`: it got no answer, or an error, as on a busy host by its limit of time.
fn victim_was_harmed(exchange: &Exchange) -> Option<bool> {
    match exchange.victim.as_slice() {
        [] if exchange.victim_answers <= 1 => None,
        texts => Some(exchange.victim_answers > 1 || texts != [TRUE_ANSWER]),
    }
}

/// Is the daemon there? It is ended, as it has shown what it was to show.
fn end_daemons(name: &str) -> bool {
    let daemons = look::named(name);
    for pid in &daemons {
        observe::kill(*pid, libc::SIGKILL).unwrap_or_default();
    }
    !daemons.is_empty()
}

/// The verdict on a probe that wants too much: a limit in the record stopped it, or the answer that only this one gives.
fn limited(
    wall: Wall,
    word: &Word,
    cell: bool,
    record: Option<&Record>,
    stopper: Option<&Stopper>,
) -> Verdict {
    let errno = word.errno.as_deref().unwrap_or_default();
    let recorded = record.is_some_and(|record| record.limit().is_some());
    match word.outcome {
        Some(Outcome::Escaped) => Verdict::Escaped,
        Some(Outcome::Blocked) if !cell || recorded || given_by(wall).contains(&errno) => Verdict::Stopped,
        Some(Outcome::Blocked) if wall == Wall::Limit(Limit::Memory) && ended_by_memory(word, record) => {
            Verdict::Stopped
        }
        // It never came to the limit.
        Some(Outcome::Blocked) if stopper.is_some_and(|stopper| is_landlocks(stopper, record)) => {
            Verdict::Blocked
        }
        Some(Outcome::Done) | None if recorded => Verdict::Stopped,
        Some(Outcome::Blocked | Outcome::Done) | None => Verdict::Unclear,
    }
}

/// How a limit tells a process that it goes no further, where it does not end the call: fork(2), mmap(2), open(2),
/// write(2), setrlimit(2), mlock(2).
const fn given_by(wall: Wall) -> &'static [&'static str] {
    match wall {
        Wall::Limit(Limit::Tasks) => &["EAGAIN"],
        Wall::Limit(Limit::Memory) => &["ENOMEM"],
        Wall::Limit(Limit::OpenFiles) => &["EMFILE"],
        Wall::Limit(Limit::FileSize) => &["EFBIG", "SIGXFSZ"],
        Wall::Limit(Limit::Scratch) => &["ENOSPC"],
        Wall::Rlimit => &["EPERM", "ENOMEM"],
        _ => &[],
    }
}

/// A child of the probe's that came to the end of its stack, or that the kernel ended in the cell of a session, where the limit stands
/// in the cell's own record alone.
fn ended_by_memory(word: &Word, record: Option<&Record>) -> bool {
    match word.errno.as_deref() {
        Some("SIGSEGV") => word.operation == "recurse",
        Some("SIGKILL") => record.and_then(Record::cell) == Some(Built::Session),
        _ => false,
    }
}

/// Does the record say that the review refused it?
fn is_the_reviews(stopper: &Stopper) -> bool {
    stopper.layer == Layer::Review.name() && stopper.known == Known::Record
}

/// Does the record say that the cell's resolver was asked for a name that it does not know?
fn was_kept_by_resolver(record: &Record) -> bool {
    record
        .violations
        .iter()
        .any(|violation| violation.layer == Layer::Network && violation.operation == "resolve")
}

/// Did Landlock refuse it, and was it seen to be on?
fn is_landlocks(stopper: &Stopper, record: Option<&Record>) -> bool {
    let landlock = Layer::Landlock.name();
    stopper.layer == landlock && record.is_some_and(|record| record.verified(landlock))
}

/// Was the layer seen to be on? What keeps a cell from where no door leads is its network namespace.
fn is_on(record: &Record, layer: &str) -> bool {
    let namespaces = Layer::Namespaces.name();
    record.verified(layer) || layer == Layer::Network.name() && record.verified(namespaces)
}

/// The verdict where only the probe can tell: its refusal counts if the layer that gives it was verified to be on.
fn by_word(word: &Word, cell: bool, record: Option<&Record>, stopper: Option<&Stopper>) -> Verdict {
    let on = |stopper: &Stopper| record.is_some_and(|record| is_on(record, stopper.layer));
    match word.outcome {
        Some(Outcome::Escaped) => Verdict::Escaped,
        Some(Outcome::Blocked) if !cell || stopper.is_some_and(on) => Verdict::Blocked,
        Some(Outcome::Blocked | Outcome::Done) => Verdict::Unclear,
        None if record.is_some_and(|record| !record.violations.is_empty()) => Verdict::Stopped,
        None => Verdict::Unclear,
    }
}

/// What the attacker saw, in few words.
fn seen(attack: &Attack, word: &Word, exchange: &Exchange) -> String {
    let bounded = matches!(attack.wall, Wall::Limit(_));
    match (&word.errno, word.outcome) {
        (Some(errno), _) if bounded => format!("{}: {errno}", word.object),
        (Some(errno), _) => format!("{}: {errno}", word.operation),
        (None, Some(_)) if bounded => word.object.clone(),
        (None, Some(_)) => format!("{}: {}", word.operation, word.saw),
        (None, None) if attack.sign == Sign::OneAnswer => "answer: written twice".to_owned(),
        (None, None) if exchange.record.as_ref().is_some_and(|record| record.limit().is_some()) => {
            "its call was ended".to_owned()
        }
        (None, None) => exchange.answer.as_ref().and_then(text).unwrap_or("no answer").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::attacks;
    use super::super::stopper::inferred;
    use super::*;

    fn word_of(structured: &Value) -> Word {
        let answer = Some(json!({"result": {"structuredContent": structured}}));
        word(&Exchange { answer, ..Exchange::default() })
    }

    fn report(outcome: &str, errno: Option<&str>) -> Word {
        word_of(&json!({"outcome": outcome, "operation": "bpf", "object": "map", "errno": errno, "saw": ""}))
    }

    fn record(status: &Value, violations: &Value, layers: &Value) -> Record {
        let line = json!({"event": "finished", "call": {"id": "r-1-2", "target": "bpf"}, "status": status, "violations": violations,
            "receipt": {"floor": "full", "layers": layers}});
        assert!(Record::parse(b"{\"event\":\"started\"}").is_none());
        Record::parse(line.to_string().as_bytes()).unwrap()
    }

    fn plain(layers: &Value) -> Record {
        record(&json!({"kind": "completed"}), &json!([]), layers)
    }

    fn seccomp() -> Stopper {
        Stopper { layer: "seccomp", rule: String::new(), known: Known::Inferred }
    }

    #[test]
    fn a_victim_is_harmed_by_what_another_says_not_by_a_limit() {
        let harmed = |answers: &[Value]| {
            let mut exchange = Exchange::default();
            for answer in answers {
                exchange.take(answer.to_string().into_bytes(), "own", Some("victim"));
            }
            victim_was_harmed(&exchange)
        };
        let result = |text: &str, error: bool| {
            let content = json!([{"type": "text", "text": text}]);
            json!({"id": "victim", "result": {"content": content, "isError": error}})
        };
        let (right, limit) = (result(TRUE_ANSWER, false), result("the limit of 2s was hit", true));
        let forged = json!({"id": "victim", "result": {"content": [{"type": "text", "text": "forged"}]}});
        let error = json!({"id": "victim", "error": {"code": -32603, "message": "no cell"}});
        assert_eq!(harmed(&[right.clone(), json!({"id": "own", "result": {}})]), Some(false));
        assert_eq!(harmed(std::slice::from_ref(&forged)), Some(true));
        assert_eq!(harmed(&[forged, right.clone()]), Some(true));
        assert_eq!(harmed(&[error.clone(), right]), Some(true));
        assert_eq!(harmed(&[error.clone(), error.clone()]), Some(true));
        assert_eq!((harmed(&[limit]), harmed(&[error]), harmed(&[])), (None, None, None));
    }

    #[test]
    fn a_refusal_counts_only_with_a_receipt_of_its_layer() {
        let refused = report("blocked", Some("EPERM"));
        let on = plain(&json!({"seccomp": "filter"}));
        let off = plain(&json!({"landlock": "ABI 7"}));
        let stopper = seccomp();
        assert_eq!(by_word(&refused, true, Some(&on), Some(&stopper)), Verdict::Blocked);
        assert_eq!(by_word(&refused, true, Some(&off), Some(&stopper)), Verdict::Unclear);
        assert_eq!(by_word(&refused, true, None, Some(&stopper)), Verdict::Unclear);
        assert_eq!(by_word(&refused, false, None, None), Verdict::Blocked);
        // Where there are no doors, what leads nowhere is the network namespace's.
        let network = Stopper { layer: "network", ..seccomp() };
        for (seen, verdict) in [
            (json!({"namespaces": "net"}), Verdict::Blocked),
            (json!({"network": "doors"}), Verdict::Blocked),
            (json!({"seccomp": "filter"}), Verdict::Unclear),
        ] {
            assert_eq!(by_word(&refused, true, Some(&plain(&seen)), Some(&network)), verdict);
        }
    }

    #[test]
    fn what_got_through_or_did_not_answer_is_no_success() {
        let on = plain(&json!({"seccomp": "filter"}));
        let stopper = seccomp();
        assert_eq!(by_word(&report("escaped", None), true, Some(&on), Some(&stopper)), Verdict::Escaped);
        assert_eq!(by_word(&word_of(&Value::Null), true, Some(&on), Some(&stopper)), Verdict::Unclear);
        let wall = Wall::Limit(Limit::Memory);
        assert_eq!(limited(wall, &word_of(&Value::Null), true, Some(&on), None), Verdict::Unclear);
        assert_eq!(limited(wall, &report("escaped", None), true, Some(&on), None), Verdict::Escaped);
    }

    #[test]
    fn a_limit_in_the_record_stops() {
        let ended = record(&json!({"kind": "limit", "limit": "memory"}), &json!([]), &json!({}));
        let wall = Wall::Limit(Limit::Memory);
        assert_eq!(limited(wall, &word_of(&Value::Null), true, Some(&ended), None), Verdict::Stopped);
        assert_eq!(
            limited(wall, &report("blocked", Some("EIO")), true, Some(&ended), None),
            Verdict::Stopped
        );
    }

    #[test]
    fn without_a_record_only_the_limits_own_answer_stops() {
        let on = plain(&json!({"seccomp": "filter"}));
        let verdict = |wall, errno| limited(wall, &report("blocked", Some(errno)), true, Some(&on), None);
        for attack in attacks::direct().filter(|attack| attack.sign == Sign::Limit) {
            assert_eq!(verdict(attack.wall, "EIO"), Verdict::Unclear, "{}", attack.title);
            for errno in given_by(attack.wall) {
                assert_eq!(verdict(attack.wall, errno), Verdict::Stopped, "{}", attack.title);
            }
        }
        assert_eq!(verdict(Wall::Limit(Limit::Scratch), "EMFILE"), Verdict::Unclear);
        // What ends a child is the limit where no other thing does.
        for signal in ["SIGSEGV", "SIGKILL"] {
            assert_eq!(verdict(Wall::Limit(Limit::Memory), signal), Verdict::Unclear, "{signal}");
        }
        let recursed = word_of(
            &json!({"outcome": "blocked", "operation": "recurse", "object": "", "errno": "SIGSEGV", "saw": ""}),
        );
        assert!(ended_by_memory(&recursed, Some(&on)));
        assert_eq!(
            limited(Wall::Rlimit, &report("blocked", Some("EIO")), false, None, None),
            Verdict::Stopped
        );
        // On the lowest rung what is not granted is not the cell's scratch directory.
        let wall = Wall::Limit(Limit::FileSize);
        let refused = report("blocked", Some("EACCES"));
        let (layer, rule) = inferred(wall, &refused);
        let stopper = Stopper { layer, rule, known: Known::Inferred };
        let landlock = plain(&json!({"landlock": "abi 7"}));
        assert_eq!(limited(wall, &refused, true, Some(&landlock), Some(&stopper)), Verdict::Blocked);
        assert_eq!(limited(wall, &refused, true, Some(&on), Some(&stopper)), Verdict::Unclear);
    }
}
