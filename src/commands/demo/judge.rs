//! Judges one call: from outside where an escape would show there, else by the probe's word and the cell's receipt.
//!
//! Neighbours: `demo::run` asks, `render` shows. Never: takes a missing answer or record for a success.

use serde_json::Value;

use super::attacks::{Attack, Sign, Wall};
use super::client::{Exchange, TRUE_ANSWER, text};
use super::look;
use super::record::Record;
use super::stage::Stage;
use crate::hostile::Outcome;
use crate::outcome::{Layer, Limit, Violation};
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

/// Where the knowledge of what stopped an attack comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// From the call's record.
    Record,
    /// From the errno that the probe saw and the wall that gives it.
    Inferred,
}

/// What stopped an attack.
#[derive(Debug)]
pub(super) struct Stopper {
    /// The layer's name, or the section of the profile that left it out.
    pub(super) layer: &'static str,
    pub(super) rule: String,
    pub(super) known: Known,
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
struct Word {
    outcome: Option<Outcome>,
    operation: String,
    object: String,
    errno: Option<String>,
    saw: String,
}

/// Judges.
pub(super) fn judge(attack: &Attack, exchange: &Exchange, stage: &mut Stage, cell: bool) -> Judgement {
    let word = word(exchange);
    let record = exchange.record.as_ref();
    let stopper = stopper(attack, &word, record);
    let outside = escape_shows(attack.sign, exchange, stage);
    let verdict = match (outside, attack.sign) {
        (Some(true), _) => Verdict::Escaped,
        // A probe that said nothing may not have tried.
        (Some(false), sign) if word.outcome.is_none() && !sign.is_answered_by_hand() => {
            by_word(&word, cell, record, stopper.as_ref())
        }
        (Some(false), _) => Verdict::Blocked,
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
fn word(exchange: &Exchange) -> Word {
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
        Sign::Limit | Sign::Word => None,
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

/// Did Landlock refuse it, and was it seen to be on?
fn is_landlocks(stopper: &Stopper, record: Option<&Record>) -> bool {
    let landlock = Layer::Landlock.name();
    stopper.layer == landlock && record.is_some_and(|record| record.verified(landlock))
}

/// The verdict where only the probe can tell: its refusal counts if the layer that gives it was verified to be on.
fn by_word(word: &Word, cell: bool, record: Option<&Record>, stopper: Option<&Stopper>) -> Verdict {
    let on = |stopper: &Stopper| record.is_some_and(|record| record.verified(stopper.layer));
    match word.outcome {
        Some(Outcome::Escaped) => Verdict::Escaped,
        Some(Outcome::Blocked) if !cell || stopper.is_some_and(on) => Verdict::Blocked,
        Some(Outcome::Blocked | Outcome::Done) => Verdict::Unclear,
        None if record.is_some_and(|record| !record.violations.is_empty()) => Verdict::Stopped,
        None => Verdict::Unclear,
    }
}

/// What stopped it: what the record says, or else what gives the errno that the probe saw.
fn stopper(attack: &Attack, word: &Word, record: Option<&Record>) -> Option<Stopper> {
    let violations = record.map(|record| record.violations.as_slice()).unwrap_or_default();
    let fits = |violation: &&Violation| match attack.wall {
        Wall::Limit(limit) => violation.limit == Some(limit),
        Wall::Protocol => violation.layer == Layer::Protocol,
        // Whatever else was refused on the way, the probe tells of what stopped it.
        _ => {
            let file = violation.layer != Layer::Root || violation.object == word.object;
            violation.limit.is_none() && word.errno.is_some() && violation.errno == word.errno && file
        }
    };
    if let Some(violation) = violations.iter().find(fits) {
        let rule = match (violation.limit, violation.layer) {
            (Some(limit), _) => limit_key(limit),
            (None, Layer::Seccomp | Layer::Root) => violation.operation.clone(),
            (None, _) => violation.rule.replace('`', ""),
        };
        return Some(Stopper { layer: violation.layer.name(), rule, known: Known::Record });
    }
    let (layer, rule) = match inferred(attack.wall, word) {
        // Where there is no private root, Landlock gives the same answers for the same reason.
        ("root", _)
            if word.errno.as_deref() == Some("EACCES") && record.is_some_and(|r| !r.verified("root")) =>
        {
            (Layer::Landlock.name(), "not granted".to_owned())
        }
        // And init does what a pid namespace would.
        ("namespaces", rule)
            if attack.wall == Wall::End && record.is_some_and(|r| r.verified("processes")) =>
        {
            ("processes", rule)
        }
        // The filter tells of what it refuses, but for these two. What it has not told of, something else refused.
        ("seccomp", _)
            if !matches!(word.errno.as_deref(), Some("SIGSYS" | "ENOSYS"))
                && record.is_some_and(|record| record.tells(Layer::Seccomp)) =>
        {
            return None;
        }
        found => found,
    };
    Some(Stopper { layer, rule, known: Known::Inferred })
}

/// The key of a profile that holds a limit.
fn limit_key(limit: Limit) -> String {
    format!("{}.{}", limit.section(), limit.name())
}

/// The layer that stands there, and gives this errno.
fn inferred(wall: Wall, word: &Word) -> (&'static str, String) {
    let errno = word.errno.as_deref().unwrap_or_default();
    let (layer, rule) = match (wall, errno) {
        (_, "SIGSYS") => (Layer::Seccomp, "killed"),
        (Wall::View, "EACCES") => (Layer::Landlock, "not granted"),
        (Wall::View, "EROFS") => (Layer::Root, "read-only"),
        // What is mounted on itself cannot be moved or replaced, and a directory keeps the place of what is not there.
        (Wall::View, "EBUSY" | "EISDIR") => (Layer::Root, "protected"),
        (Wall::View, "EPERM") => (Layer::Seccomp, "not allowed"),
        (Wall::View | Wall::Call | Wall::Network, "EAFNOSUPPORT" | "ESOCKTNOSUPPORT" | "EPROTONOSUPPORT") => {
            (Layer::Seccomp, "socket family")
        }
        (Wall::Network, "EOPNOTSUPP") => (Layer::Seccomp, "no Fast Open"),
        (Wall::View, _) => (Layer::Root, "not granted"),
        (Wall::Execute, "EACCES") => (Layer::Root, "scratch is noexec"),
        (Wall::Execute, _) => (Layer::Landlock, "no execute"),
        (Wall::Privilege, "EINVAL") => (Layer::Namespaces, "no root there"),
        (Wall::Privilege, _) => (Layer::Capabilities, "all dropped"),
        (Wall::Call, "ENOENT" | "ENOTTY") => (Layer::Root, "not granted"),
        (Wall::Call, _) => (Layer::Seccomp, "not allowed"),
        (Wall::Processes, "ENOENT" | "ESRCH") => (Layer::Namespaces, "own processes"),
        (Wall::Processes, "EACCES") => (Layer::Capabilities, "not dumpable"),
        (Wall::Processes, _) => (Layer::Seccomp, "not allowed"),
        (Wall::End, _) => (Layer::Namespaces, "ends with call"),
        (Wall::Names, _) => (Layer::Namespaces, "own host name"),
        (Wall::Network, "EPERM") => (Layer::Seccomp, "not allowed"),
        (Wall::Network, "EACCES") => (Layer::Landlock, "no port allowed"),
        (Wall::Network, _) => (Layer::Namespaces, "own network"),
        (Wall::Protocol, _) => (Layer::Protocol, "not forwarded"),
        (Wall::Output, _) => (Layer::Output, "escaped and bounded"),
        (Wall::Rlimit, _) => (Layer::Rlimit, "fixed"),
        (Wall::Descriptors, _) => return ("descriptors", "its own pipes".to_owned()),
        // The place where it wanted too much is not its own.
        (Wall::Limit(_), "EACCES") => (Layer::Landlock, "not granted"),
        (Wall::Limit(limit), _) => return (limit_layer(limit).name(), limit_key(limit)),
        (Wall::Environment, _) => return ("environment", "not passed".to_owned()),
    };
    (layer.name(), rule.to_owned())
}

/// The layer that enforces a limit.
const fn limit_layer(limit: Limit) -> Layer {
    match limit {
        Limit::Memory | Limit::Cpu | Limit::Tasks => Layer::Cgroup,
        Limit::Time => Layer::Deadline,
        Limit::Output => Layer::Output,
        Limit::OpenFiles | Limit::FileSize => Layer::Rlimit,
        Limit::Scratch => Layer::Root,
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
    use super::*;

    fn word_of(structured: &Value) -> Word {
        let answer = Some(json!({"result": {"structuredContent": structured}}));
        word(&Exchange { answer, ..Exchange::default() })
    }

    fn report(outcome: &str, errno: Option<&str>) -> Word {
        word_of(&json!({"outcome": outcome, "operation": "bpf", "object": "map", "errno": errno, "saw": ""}))
    }

    fn record(status: &Value, violations: &Value, layers: &Value) -> Record {
        let line = json!({"event": "finished", "call": {"target": "bpf"}, "status": status, "violations": violations,
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
    }

    #[test]
    fn what_the_filter_has_not_told_of_was_not_the_filter() {
        let refused = report("blocked", Some("EPERM"));
        let attack = attacks::all().find(|attack| attack.tool == "bpf").unwrap();
        let told = |coverage: &str, errno: &str| {
            let violation = json!({"layer": "seccomp", "limit": null, "operation": "bpf", "object": "", "errno": errno,
                "count": 1, "value": null, "peak": null, "rule": "", "allow": null, "evidence": "kernel"});
            let line = json!({"event": "finished", "call": {"target": "bpf"}, "status": {"kind": "completed"},
                "violations": [violation],
                "receipt": {"floor": "full", "layers": {"seccomp": "filter"}, "coverage": {"seccomp": coverage}}});
            let record = Record::parse(line.to_string().as_bytes());
            stopper(attack, &refused, record.as_ref()).map(|stopper| (stopper.layer, stopper.known))
        };
        assert_eq!(told("complete", "EPERM"), Some(("seccomp", Known::Record)));
        assert_eq!(told("complete", "ENOSPC"), None);
        assert_eq!(told("blind", "ENOSPC"), Some(("seccomp", Known::Inferred)));
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
        for attack in attacks::all().filter(|attack| attack.sign == Sign::Limit) {
            assert_eq!(verdict(attack.wall, "EIO"), Verdict::Unclear, "{}", attack.title);
            for errno in given_by(attack.wall) {
                assert_eq!(verdict(attack.wall, errno), Verdict::Stopped, "{}", attack.title);
            }
        }
        assert_eq!(verdict(Wall::Limit(Limit::Scratch), "EMFILE"), Verdict::Unclear);
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
