//! A modern server's question, and the cell that waits for the client's answer to it.
//!
//! ```text
//! talking ──► answered `input_required` ──► kept ──► the client repeats the request ──► queued ──► talking
//!                                            └──► too late, too many, gone, died ──► reaped ──► recorded
//! ```
//!
//! Such a request and its repetitions are one call. Servers seal their state with a key of their process, so the
//! repetition has to reach the same one: it is known by its method, target and arguments, and by the state that the
//! server gave with the question. A server that gave none is found again by the rest alone, if the request brings
//! answers; among calls that look the same the oldest is taken. A repetition that nobody waits for runs in a fresh
//! cell, as it came: what that server says is the truth.
//!
//! A kept cell holds no slot. It has [`CALM`] to finish what it is at; then its processes are stopped until the client answers. What it writes
//! counts towards its output and reaches nobody. `limits.time` counts only while the server has the word; the client
//! has [`PATIENCE`] for all questions of a call together. A question that is too long to be held (it is streamed) is
//! not seen to be one, and its cell ends as after any answer.
//!
//! Neighbours: [`super::client`] hands repetitions over, [`super::call`] runs each of them. Never: changes a line, or
//! gives one call's cell to a request for another method, target or arguments.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::call::{self, Running};
use super::link::{End, Link, Step};
use super::turns::Place;
use super::{Ask, Control, Session, gone};
use crate::mcp::envelope::{Era, Kind, Message};
use crate::mcp::object;
use crate::outcome::{Layer, Limit, Status, Violation};
use crate::watch::usage;

/// How long a client may take to answer all questions of one call.
pub(super) const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Cells that wait for answers at once; the oldest goes first.
const MOST_KEPT: usize = 16;
/// How long a server goes on running after its question.
const CALM: Duration = Duration::from_millis(100);
/// How long a server that waited in vain may take to leave.
const LEAVE: Duration = Duration::from_millis(100);

/// By what a repetition is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    method: String,
    target: Option<String>,
    /// A hash, because arguments may be long.
    arguments: u64,
    state: Option<Vec<u8>>,
    /// One identity's answer does not go on with another's call.
    identity: Option<Rc<str>>,
}

impl Key {
    /// The key under which a call waits that toolcell itself has asked about.
    pub(super) fn with_state(mut self, state: &str) -> Self {
        self.state = Some(state.as_bytes().to_vec());
        self
    }

    /// The key under which the call waits, if this answer is a question.
    pub(super) fn of_question(mut self, line: &[u8], message: &Message) -> Option<Self> {
        let result =
            message.body.clone().filter(|_| matches!(message.kind, Kind::Answer { error: false, .. }))?;
        let kind = object::member(line, result.clone(), "resultType").and_then(|span| line.get(span))?;
        self.state = state(line, object::member(line, result, "requestState"));
        (object::text(kind)? == "input_required").then_some(self)
    }
}

/// The state's text however it was escaped, or what stands in its place.
fn state(line: &[u8], span: Option<Range<usize>>) -> Option<Vec<u8>> {
    let raw = span.and_then(|span| line.get(span)).filter(|raw| *raw != b"null")?;
    Some(object::text(raw).map_or_else(|| raw.to_vec(), |text| text.into_owned().into_bytes()))
}

/// A request that goes on with a call.
pub(super) type Retry = Box<(Ask, Control)>;

struct Kept {
    key: Key,
    call: oneshot::Sender<Retry>,
}

/// The calls that wait for a client's answers, oldest first. A call that stops waiting drops its receiver.
#[derive(Default)]
pub(super) struct Chains {
    kept: VecDeque<Kept>,
    hasher: RandomState,
    closed: bool,
}

impl Chains {
    /// What a request and its repetitions have in common, and its state; and whether it can be a repetition.
    /// `None`: its answer cannot be a question.
    pub(super) fn key(&self, ask: &Ask) -> Option<(Key, bool)> {
        let may_ask = matches!(ask.method.as_str(), "tools/call" | "prompts/get" | "resources/read");
        if ask.meta.era != Era::Modern || !may_ask {
            return None;
        }
        let members = ask.params.clone().map(|params| object::members(&ask.line, params)).unwrap_or_default();
        let find = |name: &str| members.iter().rev().find(|member| member.name == name);
        let arguments = find("arguments").and_then(|member| ask.line.get(member.value.clone()));
        let key = Key {
            method: ask.method.clone(),
            target: ask.target.clone(),
            arguments: self.hasher.hash_one(arguments),
            state: state(&ask.line, find("requestState").map(|member| member.value.clone())),
            identity: ask.identity.clone(),
        };
        let repeats = key.state.is_some() || find("inputResponses").is_some();
        Some((key, repeats))
    }

    /// Keeps a call until its repetition comes. When there is no room for it any more, the receiver is told.
    pub(super) fn keep(&mut self, key: Key) -> oneshot::Receiver<Retry> {
        let (call, place) = oneshot::channel();
        self.kept.retain(|kept| !kept.call.is_closed());
        if self.kept.len() >= MOST_KEPT {
            self.kept.pop_front();
        }
        if !self.closed {
            self.kept.push_back(Kept { key, call });
        }
        place
    }

    /// Hands a repetition to the call that waits for it.
    ///
    /// # Errors
    /// The request, if none does.
    pub(super) fn hand_over(&mut self, ask: Ask, control: Control) -> Result<(), Retry> {
        let key = self.key(&ask).and_then(|(key, repeats)| repeats.then_some(key));
        let mut retry = Box::new((ask, control));
        while let Some(at) = self.kept.iter().position(|kept| Some(&kept.key) == key.as_ref()) {
            let Some(kept) = self.kept.remove(at) else { break };
            match kept.call.send(retry) {
                Ok(()) => return Ok(()),
                // That call has just given up; another may look the same.
                Err(back) => retry = back,
            }
        }
        Err(retry)
    }

    /// No client is there any more to answer.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.kept.clear();
    }
}

/// Why a call waits no longer.
#[derive(Debug)]
pub(super) enum Woken {
    Retry(Retry),
    /// Others needed the room, or the client has closed its input.
    Dropped,
    Late,
    /// The session is over, or the repetition was cancelled before its turn.
    Gone,
    Ended(End),
}

/// The next request of a call, and its turn.
pub(super) struct Leg {
    pub(super) ask: Ask,
    pub(super) control: Control,
    pub(super) slot: Place,
}

async fn wait(
    place: oneshot::Receiver<Retry>,
    until: Instant,
    gone: impl Future<Output = ()>,
    ended: impl Future<Output = End>,
) -> Woken {
    tokio::select! {
        biased;
        () = gone => Woken::Gone,
        retry = place => retry.map_or(Woken::Dropped, Woken::Retry),
        () = sleep_until(until) => Woken::Late,
        end = ended => Woken::Ended(end),
    }
}

async fn ended(link: &mut Link, session: &Session) -> End {
    let calm = Instant::now() + CALM;
    let mut paused = false;
    loop {
        tokio::select! {
            biased;
            // Nothing was asked, so nothing is an answer.
            step = link.step(session) => if let Step::End(end) = step {
                return end;
            },
            () = sleep_until(calm), if !paused => {
                link.process.pause();
                paused = true;
            }
        }
    }
}

/// Waits for the repetition of a call's request, then for its turn, then records it.
///
/// # Errors
/// Why the call goes on no more; no request waits for an answer then.
pub(super) async fn next(
    session: &Session,
    running: &mut Running,
    key: Key,
    mut place: oneshot::Receiver<Retry>,
    patience: &mut Duration,
) -> Result<Leg, Woken> {
    let mut over = session.gone.subscribe();
    loop {
        let from = Instant::now();
        let woken = wait(place, from + *patience, gone(&mut over), ended(&mut running.link, session)).await;
        *patience = patience.saturating_sub(from.elapsed());
        running.link.process.resume();
        let Woken::Retry(retry) = woken else { return Err(woken) };
        let (ask, mut control) = *retry;
        let caller = ask.caller();
        let slot = tokio::select! {
            biased;
            _ = control.stop() => return Err(Woken::Gone),
            slot = session.turns.place(&caller) => slot,
        };
        let mask = running.link.process.mask();
        match call::record_started(
            session,
            &running.call,
            Some(&running.grant.policy),
            &ask,
            &running.grant.granted,
            mask,
        ) {
            Ok(()) => return Ok(Leg { ask, control, slot }),
            Err(refused) => {
                drop(slot);
                // The server has not seen this request, so the client may send it again.
                place = session.chains.borrow_mut().keep(key.clone());
                call::refuse(session, &ask, &mut control, refused).await;
            }
        }
    }
}

/// Ends a call whose server waited in vain.
pub(super) async fn abandon(session: &Session, running: Running, woken: Woken) {
    let Running { call, grant, link, began, .. } = running;
    let mut tally = link.rules.tally;
    let policy = &*grant.policy;
    let grace =
        if matches!(woken, Woken::Gone | Woken::Ended(End::OverBudget)) { Duration::ZERO } else { LEAVE };
    let mut remains = link.process.reap(grace, |_| {}).await;
    let mut in_vain = None;
    let status = match woken {
        Woken::Ended(End::OverBudget) => {
            let bytes_out = remains.ended.usage.bytes_out;
            remains.ended.violations.push(usage::stopped(policy, Limit::Output, bytes_out));
            Status::Limit { limit: Limit::Output }
        }
        Woken::Ended(End::Closed) => call::obituary(&remains, policy, &tally).0,
        Woken::Late => {
            let most = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
            in_vain =
                Some((format!("a client has {} minutes for its answers", PATIENCE.as_secs() / 60), most));
            Status::Cancelled
        }
        Woken::Dropped if !session.closed.get() => {
            in_vain = Some((format!("at most {MOST_KEPT} calls wait for answers"), MOST_KEPT as u64));
            Status::Cancelled
        }
        Woken::Dropped | Woken::Gone | Woken::Retry(_) => Status::Cancelled,
    };
    let mut found = tally.take();
    found.extend(in_vain.map(|(rule, value)| waited_in_vain(rule, value)));
    call::finish(session, (&call, &grant, began), status, remains, found);
}

fn waited_in_vain(rule: String, value: u64) -> Violation {
    Violation { value: Some(value), ..Violation::of_toolcell(Layer::Protocol, "wait for an answer", rule) }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::watch;

    use super::*;
    use crate::mcp::envelope;

    fn ask(params: &str) -> (Ask, Control) {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{{meta}{params}}}}}\n"
        );
        let message = envelope::parse(line.trim_end().as_bytes()).unwrap();
        let Kind::Request { id, method } = message.kind else { panic!("no request") };
        let meta = envelope::meta(line.as_bytes(), message.params.as_ref());
        let target = envelope::target(line.as_bytes(), message.params.as_ref(), "name").ok();
        let ask =
            Ask { id, line: line.into_bytes(), method, target, params: message.params, meta, identity: None };
        (ask, Control { cancel: None, gone: watch::Sender::new(false).subscribe() })
    }

    fn question(chains: &Chains, params: &str, result: &str) -> Option<Key> {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,{result}}}"#);
        let (key, _) = chains.key(&ask(params).0)?;
        key.of_question(line.as_bytes(), &envelope::parse(line.as_bytes()).unwrap())
    }

    const CALL: &str = r#","name":"a","arguments":{"x":1}"#;

    fn wakes(chains: &mut Chains, place: &mut oneshot::Receiver<Retry>, params: &str) -> bool {
        let (ask, control) = ask(params);
        let handed = chains.hand_over(ask, control).is_ok();
        assert_eq!(place.try_recv().is_ok(), handed, "{params}");
        handed
    }

    #[test]
    fn only_the_same_request_with_the_same_state_goes_on_and_only_once() {
        let mut chains = Chains::default();
        let asked = r#""result":{"resultType":"input_required","requestState":"s\u0041"}"#;
        let key = question(&chains, CALL, asked).unwrap();
        let mut place = chains.keep(key);
        for other in [
            r#","name":"a","arguments":{"x":1}"#,
            r#","name":"a","arguments":{"x":1},"inputResponses":{}"#,
            r#","name":"a","arguments":{"x":1},"requestState":"sB""#,
            r#","name":"a","arguments":{"x":2},"requestState":"sA""#,
            r#","name":"b","arguments":{"x":1},"requestState":"sA""#,
        ] {
            assert!(!wakes(&mut chains, &mut place, other), "{other}");
        }
        let same = r#","requestState":"sA","arguments":{"x":1},"name":"a""#;
        assert!(wakes(&mut chains, &mut place, same));
        let (again, control) = ask(same);
        assert!(chains.hand_over(again, control).is_err());
    }

    #[test]
    fn nobody_goes_on_with_the_call_of_somebody_else() {
        let mut chains = Chains::default();
        let by = |identity: Option<&str>| {
            let (mut ask, control) = ask(r#","name":"a","arguments":{"x":1},"requestState":"s""#);
            ask.identity = identity.map(Rc::from);
            (ask, control)
        };
        let key = chains.key(&by(Some("alice")).0).unwrap().0;
        let mut place = chains.keep(key);
        for other in [None, Some("bob"), Some("alic"), Some("alice ")] {
            let (ask, control) = by(other);
            assert!(chains.hand_over(ask, control).is_err(), "{other:?}");
        }
        let (ask, control) = by(Some("alice"));
        assert!(chains.hand_over(ask, control).is_ok() && place.try_recv().is_ok());
    }

    #[test]
    fn without_a_state_answers_are_needed_and_the_oldest_gets_them() {
        let mut chains = Chains::default();
        let asked = r#""result":{"resultType":"input_required","requestState":null}"#;
        let key = question(&chains, CALL, asked).unwrap();
        let gone = chains.keep(key.clone());
        let mut first = chains.keep(key.clone());
        let mut second = chains.keep(key);
        drop(gone);
        assert!(!wakes(&mut chains, &mut first, CALL), "a new call of the same tool");
        let answered = format!(r#"{CALL},"inputResponses":{{}}"#);
        assert!(wakes(&mut chains, &mut first, &answered));
        assert!(wakes(&mut chains, &mut second, &answered));
    }

    #[test]
    fn what_is_no_question_is_not_kept() {
        let chains = Chains::default();
        for result in [
            r#""result":{"resultType":"complete"}"#,
            r#""result":{}"#,
            r#""result":7"#,
            r#""error":{"resultType":"input_required","message":""}"#,
        ] {
            assert_eq!(question(&chains, CALL, result), None, "{result}");
        }
        let (mut legacy, _) = ask(CALL);
        legacy.meta.era = Era::Legacy;
        assert!(chains.key(&legacy).is_none());
        let (mut completion, _) = ask(CALL);
        completion.method = "completion/complete".to_owned();
        assert!(chains.key(&completion).is_none());
    }

    #[test]
    fn the_oldest_makes_room_and_the_end_of_the_client_ends_all() {
        let mut chains = Chains::default();
        let key = question(&chains, CALL, r#""result":{"resultType":"input_required"}"#).unwrap();
        let mut places: Vec<_> = (0..=MOST_KEPT).map(|_| chains.keep(key.clone())).collect();
        let dropped = |place: &mut oneshot::Receiver<Retry>| {
            place.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
        };
        assert_eq!(places.iter_mut().map(dropped).filter(|dropped| *dropped).count(), 1);
        assert!(dropped(&mut places[0]));
        chains.close();
        assert!(places.iter_mut().all(dropped));
        assert!(dropped(&mut chains.keep(key)));
    }

    #[test]
    fn a_wait_ends_by_its_time_by_the_session_and_by_the_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (call, place) = oneshot::channel();
            let woken = wait(place, Instant::now(), pending(), pending()).await;
            assert!(matches!(woken, Woken::Late), "{woken:?}");
            assert!(call.is_closed(), "nothing can be handed over any more");
            let later = Instant::now() + PATIENCE;
            let (_call, place) = oneshot::channel();
            assert!(matches!(wait(place, later, ready(()), ready(End::Closed)).await, Woken::Gone));
            let (_call, place) = oneshot::channel();
            let woken = wait(place, later, pending(), ready(End::Closed)).await;
            assert!(matches!(woken, Woken::Ended(End::Closed)), "{woken:?}");
            // Who has been handed over is not lost, whatever else has happened.
            let (call, place) = oneshot::channel();
            call.send(Box::new(ask(CALL))).unwrap();
            let woken = wait(place, Instant::now(), pending(), ready(End::Closed)).await;
            assert!(matches!(woken, Woken::Retry(_)), "{woken:?}");
        });
    }
}
