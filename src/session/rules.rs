//! What one line of a server means, and what to do about it.
//!
//! Neighbours: [`super::link`] follows the verdicts. Never: does I/O, waits, or changes more of a line than an id or token.

use std::collections::VecDeque;
use std::ops::Range;

use tokio::sync::mpsc::UnboundedSender;

use super::outbound::{Back, Outbound};
use super::tally::{Misdeed, Tally, excerpt};
use crate::mcp::envelope::{self, Era, Id, Kind, METHOD_NOT_FOUND, Message};
use crate::mcp::scan::{Member, Scanner};
use crate::mcp::{object, reply};

/// Requests to the client that one process may have open.
const MOST_OPEN: usize = 64;

/// The parameter of `_meta` by which a notification belongs to a `subscriptions/listen`.
const SUBSCRIPTION: &[&str] = &["_meta", "io.modelcontextprotocol/subscriptionId"];
/// Cancelled requests whose answers may still come.
const MOST_CANCELLED: usize = 1000;

/// A request that a process works on.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) id: Id,
    pub(super) progress: Option<Id>,
    /// Its answer can go to the client in pieces.
    pub(super) streams: bool,
    /// It is a `subscriptions/listen`, to which notifications belong.
    pub(super) listens: bool,
}

impl Asked {
    /// A request that is answered once.
    pub(super) const fn once(id: Id, progress: Option<Id>, streams: bool) -> Self {
        Self { id, progress, streams, listens: false }
    }
}

/// What to do about one line of the server.
#[derive(Debug)]
pub(super) enum Verdict {
    Nothing,
    ToClient(Vec<u8>),
    ToCell(Vec<u8>),
    Answer(Message),
    /// The answer to the replayed handshake: as expected, or why not.
    Handshake(Result<(), String>),
}

/// What the client's handshake says that servers may ask it for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) roots: bool,
    sampling: bool,
    elicitation: bool,
}

impl Offers {
    /// Of an `initialize`, its parameters at this place.
    pub(super) fn of(line: &[u8], params: Option<&Range<usize>>) -> Self {
        let has =
            |name| params.is_some_and(|p| object::lookup(line, p.clone(), &["capabilities", name]).is_some());
        Self { roots: has("roots"), sampling: has("sampling"), elicitation: has("elicitation") }
    }

    /// Can a person be asked?
    pub(super) const fn elicits(self) -> bool {
        self.elicitation
    }

    /// Only where the client works.
    pub(super) const fn roots_alone(self) -> Self {
        Self { roots: self.roots, sampling: false, elicitation: false }
    }

    fn allow(self, method: &str) -> bool {
        match method {
            "roots/list" => self.roots,
            "sampling/createMessage" => self.sampling,
            "elicitation/create" => self.elicitation,
            _ => false,
        }
    }
}

/// The state that decides.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) era: Era,
    /// The requests that have not been answered yet.
    pub(super) asked: Vec<Asked>,
    /// Requests that the client has taken back, of a process that goes on.
    cancelled: VecDeque<Id>,
    /// The replayed `initialize` that has not been answered yet, and the version that the answer must name.
    pub(super) own_handshake: Option<(Id, String)>,
    /// The replayed `logging/setLevel` that has not been answered yet.
    pub(super) own_level: Option<Id>,
    /// The id of our pings, and how many of them have not been answered yet.
    pub(super) own_pings: Option<(Id, usize)>,
    /// What the client may be asked for.
    pub(super) offers: Offers,
    /// Changed-list notifications go to the client: only where its own handshake started the process, or none but this
    /// process serves the client.
    pub(super) announces: bool,
    /// The process serves the client's whole session: what it says belongs to no single request.
    pub(super) kept: bool,
    /// The client has subscribed to resources here.
    pub(super) watched: bool,
    /// The server said that a list has changed.
    pub(super) changed: bool,
    /// This process's key in the table of requests to the client.
    pub(super) cell: u64,
    pub(super) back: UnboundedSender<Back>,
    /// Requests of this process that the client has not answered.
    pub(super) open: usize,
    pub(super) tally: Tally,
}

impl Rules {
    /// For a process that nothing was asked yet.
    pub(super) fn new(era: Era, cell: u64, back: UnboundedSender<Back>) -> Self {
        Self {
            era,
            asked: Vec::new(),
            cancelled: VecDeque::new(),
            own_handshake: None,
            own_level: None,
            own_pings: None,
            offers: Offers::default(),
            announces: false,
            kept: false,
            watched: false,
            changed: false,
            cell,
            back,
            open: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn judge(&mut self, line: &[u8], outbound: &mut Outbound) -> Verdict {
        let message = match envelope::parse(line) {
            Ok(message) => message,
            Err(_) if line.is_empty() => return Verdict::Nothing,
            Err(_) => return self.misdeed(Misdeed::NotAMessage, line),
        };
        match &message.kind {
            Kind::Answer { id, error } => {
                if let Some((own, version)) = &self.own_handshake
                    && own == id
                {
                    let verdict = same_version(line, &message, *error, version);
                    self.own_handshake = None;
                    return Verdict::Handshake(verdict);
                }
                if self.own_level.as_ref() == Some(id) {
                    self.own_level = None;
                    return Verdict::Nothing;
                }
                if let Some((own, open)) = &mut self.own_pings
                    && own == id
                    && *open > 0
                {
                    *open -= 1;
                    return Verdict::Nothing;
                }
                // An answer before the handshake's cannot be trusted to speak the agreed version.
                if self.own_handshake.is_none() && self.asked.iter().any(|asked| asked.id == *id) {
                    return Verdict::Answer(message);
                }
                if let Some(at) = self.cancelled.iter().position(|cancelled| cancelled == id) {
                    // It may have been on its way.
                    self.cancelled.remove(at);
                    return Verdict::Nothing;
                }
                self.misdeed(Misdeed::WrongId, line)
            }
            Kind::Request { id, method } => match (self.era, method.as_str()) {
                (Era::Modern, _) => self.misdeed(Misdeed::Request, line),
                (Era::Legacy, "ping") => Verdict::ToCell(reply::empty(id)),
                (Era::Legacy, method)
                    if self.offers.allow(method) && self.own_handshake.is_none() && self.open < MOST_OPEN =>
                {
                    self.open += 1;
                    Verdict::ToClient(outbound.open(self.cell, &self.back, line, &message, id))
                }
                (Era::Legacy, _) => {
                    self.misdeed(Misdeed::Request, line);
                    Verdict::ToCell(reply::error(Some(id), METHOD_NOT_FOUND, "not offered to servers"))
                }
            },
            Kind::Notification { method } => self.notification(line, &message, method, outbound),
        }
    }

    fn notification(
        &mut self,
        line: &[u8],
        message: &Message,
        method: &str,
        outbound: &mut Outbound,
    ) -> Verdict {
        let whole = || [line, b"\n"].concat();
        // Before the handshake's answer these belong to a start that the client does not know of.
        let known = self.own_handshake.is_none();
        if self.era == Era::Modern && self.is_listened_to(line, message, method) {
            self.changed |= method.ends_with("/list_changed");
            return Verdict::ToClient(whole());
        }
        match method {
            "notifications/progress" => {
                let params = message.params.clone();
                let token = params.and_then(|params| object::member(line, params, "progressToken"));
                let token = token.and_then(|span| Id::parse(line.get(span)?));
                let expected = |asked: &Asked| token.is_some() && asked.progress == token;
                if self.asked.iter().any(expected) {
                    return Verdict::ToClient(whole());
                }
                self.misdeed(Misdeed::Notification, line)
            }
            "notifications/message" if known && self.speaks() => Verdict::ToClient(whole()),
            "notifications/elicitation/complete" if known && self.speaks() && self.era == Era::Legacy => {
                Verdict::ToClient(whole())
            }
            "notifications/tasks/status" if known && self.kept && self.era == Era::Legacy => {
                Verdict::ToClient(whole())
            }
            "notifications/resources/updated" if known && self.watched && self.era == Era::Legacy => {
                Verdict::ToClient(whole())
            }
            "notifications/cancelled" if self.era == Era::Legacy => {
                match outbound.withdraw(self.cell, line, message) {
                    Some(line) => {
                        self.open = self.open.saturating_sub(1);
                        Verdict::ToClient(line)
                    }
                    None => Verdict::Nothing,
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
                if self.announces && known && self.era == Era::Legacy =>
            {
                self.changed = true;
                Verdict::ToClient(whole())
            }
            // Every start of a server says these; passed on, they would make the client list anew after each call.
            "notifications/message"
            | "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => Verdict::Nothing,
            _ => self.misdeed(Misdeed::Notification, line),
        }
    }

    /// May it speak of what no request has asked for?
    fn speaks(&self) -> bool {
        self.kept || !self.asked.is_empty()
    }

    /// Does a notification belong to a `subscriptions/listen` that is open?
    fn is_listened_to(&self, line: &[u8], message: &Message, method: &str) -> bool {
        let told = matches!(
            method,
            "notifications/subscriptions/acknowledged"
                | "notifications/tools/list_changed"
                | "notifications/prompts/list_changed"
                | "notifications/resources/list_changed"
                | "notifications/resources/updated"
        ) || (method == "notifications/tasks" && self.kept);
        let id = message.params.clone().filter(|_| told);
        let id = id.and_then(|params| object::lookup(line, params, SUBSCRIPTION));
        let id = id.and_then(|span| Id::parse(line.get(span)?));
        id.is_some_and(|id| self.asked.iter().any(|asked| asked.listens && asked.id == id))
    }

    /// The request that a line belongs to which goes to the client, if it belongs to one.
    pub(super) fn about(&self, line: &[u8]) -> Option<Id> {
        let params = object::member(line, 0..line.len(), "params");
        let named = |path: &[&str]| {
            let span = object::lookup(line, params.clone()?, path)?;
            Id::parse(line.get(span)?)
        };
        if let Some(id) = named(SUBSCRIPTION) {
            return Some(id);
        }
        if let Some(token) = named(&["progressToken"]) {
            return self
                .asked
                .iter()
                .find(|asked| asked.progress.as_ref() == Some(&token))
                .map(|asked| asked.id.clone());
        }
        let mut asked = self.asked.iter().filter(|asked| !asked.listens);
        match (asked.next(), asked.next()) {
            (Some(asked), None) => Some(asked.id.clone()),
            _ => None,
        }
    }

    /// The client does not wait for an answer any more, and the process goes on.
    pub(super) fn cancel(&mut self, id: &Id) {
        self.asked.retain(|asked| asked.id != *id);
        if self.cancelled.len() >= MOST_CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(id.clone());
    }

    /// Nobody waits for the answers to our pings any more: they may come, like those to requests that were taken back.
    pub(super) fn forget_pings(&mut self) {
        let (id, open) = self.own_pings.take().unzip();
        for id in std::iter::repeat_n(id, open.unwrap_or(0)).flatten() {
            self.cancel(&id);
        }
    }

    /// May a request with this id still be answered that the client has taken back?
    pub(super) fn is_cancelled(&self, id: &Id) -> bool {
        self.cancelled.contains(id)
    }

    /// A request has been answered.
    pub(super) fn answered(&mut self, id: &Id) {
        self.asked.retain(|asked| asked.id != *id);
    }

    /// May the long line that starts like this be streamed to the client as the answer?
    ///
    /// # Errors
    /// What the server does wrong with it.
    pub(super) fn judge_long(&self, head: &[u8]) -> Result<bool, Misdeed> {
        let mut scanner = Scanner::new();
        if scanner.feed(head).is_err() || scanner.root() != Some(b'{') || scanner.duplicate() {
            return Err(Misdeed::NotAMessage);
        }
        let body = matches!(scanner.inside(), Some(Member::Result | Member::Error));
        if !body || scanner.spans().method.is_some() || self.own_handshake.is_some() {
            return Ok(false);
        }
        match scanner.spans().id.clone().and_then(|span| head.get(span)) {
            // TypeScript servers write the id last; the end of the line will show it.
            None => Ok(!self.asked.is_empty() && self.asked.iter().all(|asked| asked.streams)),
            Some(raw) => {
                let id = Id::parse(raw);
                let asked = self.asked.iter().find(|asked| id.as_ref() == Some(&asked.id));
                let late = id.is_some_and(|id| self.is_cancelled(&id));
                match asked {
                    Some(asked) => Ok(asked.streams),
                    None if self.asked.is_empty() || late => Ok(false),
                    None => Err(Misdeed::WrongId),
                }
            }
        }
    }

    fn misdeed(&mut self, misdeed: Misdeed, line: &[u8]) -> Verdict {
        self.tally.add(misdeed, line);
        Verdict::Nothing
    }
}

fn same_version(line: &[u8], message: &Message, error: bool, expected: &str) -> Result<(), String> {
    let body = message.body.clone().unwrap_or_default();
    if error {
        let said = envelope::text_member(line, body, "message").unwrap_or_default();
        return Err(format!("a fresh process refused the handshake: {}", excerpt(said.as_bytes())));
    }
    match envelope::text_member(line, body, "protocolVersion") {
        Some(version) if version == expected => Ok(()),
        other => Err(format!(
            "a fresh process agreed on protocol version `{}`, the session on `{expected}`",
            excerpt(other.unwrap_or_default().as_bytes())
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn rules(era: Era) -> (Rules, UnboundedReceiver<Back>) {
        let (back, heard) = unbounded_channel();
        let asked = Asked::once(Id::Number(7), Some(Id::Text("p".into())), true);
        let offers = Offers { roots: true, ..Offers::default() };
        let rules = Rules { asked: vec![asked], offers, ..Rules::new(era, 1, back) };
        (rules, heard)
    }

    fn verdict(rules: &mut Rules, line: &str) -> (char, Option<Misdeed>) {
        rules.tally = Tally::default();
        let kind = match rules.judge(line.as_bytes(), &mut Outbound::default()) {
            Verdict::Nothing => '-',
            Verdict::ToClient(_) => 'c',
            Verdict::ToCell(_) => 's',
            Verdict::Answer(_) => 'a',
            Verdict::Handshake(Ok(())) => 'h',
            Verdict::Handshake(Err(_)) => 'x',
        };
        (kind, rules.tally.misdeeds().next().map(|(misdeed, _)| misdeed))
    }

    #[test]
    fn what_may_pass_and_what_may_not() {
        let cases = [
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, 'a', None, 'a', None),
            (
                r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
                '-',
                Some(Misdeed::WrongId),
                '-',
                Some(Misdeed::WrongId),
            ),
            (
                r#"{"jsonrpc":"2.0","id":8,"error":{}}"#,
                '-',
                Some(Misdeed::WrongId),
                '-',
                Some(Misdeed::WrongId),
            ),
            (r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#, 's', None, '-', Some(Misdeed::Request)),
            (r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#, 'c', None, '-', Some(Misdeed::Request)),
            // This client did not say that it may be asked for this.
            (
                r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage"}"#,
                's',
                Some(Misdeed::Request),
                '-',
                Some(Misdeed::Request),
            ),
            (
                r#"{"jsonrpc":"2.0","id":0,"method":"tools/call"}"#,
                's',
                Some(Misdeed::Request),
                '-',
                Some(Misdeed::Request),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p"}}"#,
                'c',
                None,
                'c',
                None,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"q"}}"#,
                '-',
                Some(Misdeed::Notification),
                '-',
                Some(Misdeed::Notification),
            ),
            (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#, 'c', None, 'c', None),
            (r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#, '-', None, '-', None),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/evil"}"#,
                '-',
                Some(Misdeed::Notification),
                '-',
                Some(Misdeed::Notification),
            ),
            ("Server running on stdio", '-', Some(Misdeed::NotAMessage), '-', Some(Misdeed::NotAMessage)),
            (
                r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#,
                '-',
                Some(Misdeed::NotAMessage),
                '-',
                Some(Misdeed::NotAMessage),
            ),
            ("", '-', None, '-', None),
        ];
        for (line, legacy, legacy_misdeed, modern, modern_misdeed) in cases {
            assert_eq!(verdict(&mut rules(Era::Legacy).0, line), (legacy, legacy_misdeed), "legacy {line}");
            assert_eq!(verdict(&mut rules(Era::Modern).0, line), (modern, modern_misdeed), "modern {line}");
        }
    }

    #[test]
    fn a_replayed_handshake_must_agree_on_the_same_version_and_comes_first() {
        let answer = |version: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":"own","result":{{"protocolVersion":"{version}"}}}}"#)
        };
        let replayed = || {
            let (mut rules, _) = rules(Era::Legacy);
            rules.own_handshake = Some((Id::Text("own".into()), "2025-06-18".into()));
            rules
        };
        assert_eq!(verdict(&mut replayed(), &answer("2025-06-18")).0, 'h');
        assert_eq!(verdict(&mut replayed(), &answer("2024-11-05")).0, 'x');
        assert_eq!(
            verdict(&mut replayed(), r#"{"jsonrpc":"2.0","id":"own","error":{"message":"no"}}"#).0,
            'x'
        );
        let early = verdict(&mut replayed(), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
        assert_eq!(early, ('-', Some(Misdeed::WrongId)));
        let mut rules = replayed();
        assert_eq!(verdict(&mut rules, &answer("2025-06-18")).0, 'h');
        assert_eq!(verdict(&mut rules, &answer("2025-06-18")).1, Some(Misdeed::WrongId));
    }

    #[test]
    fn as_many_pongs_as_pings() {
        let (mut rules, _) = rules(Era::Legacy);
        rules.own_pings = Some((Id::Text("ping".into()), 2));
        let pong = r#"{"jsonrpc":"2.0","id":"ping","result":{}}"#;
        assert_eq!(verdict(&mut rules, pong), ('-', None));
        assert_eq!(verdict(&mut rules, r#"{"jsonrpc":"2.0","id":"ping","error":{}}"#), ('-', None));
        assert_eq!(verdict(&mut rules, pong), ('-', Some(Misdeed::WrongId)));
    }

    #[test]
    fn a_late_pong_takes_no_answer_s_place_and_is_no_misdeed() {
        let (mut rules, _) = rules(Era::Legacy);
        rules.own_pings = Some((Id::Number(7), 1));
        rules.asked.clear();
        rules.forget_pings();
        rules.asked.push(Asked::once(Id::Number(7), None, true));
        let line = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        assert_eq!(verdict(&mut rules, line), ('a', None));
        rules.answered(&Id::Number(7));
        assert_eq!(verdict(&mut rules, line), ('-', None));
        assert_eq!(verdict(&mut rules, line), ('-', Some(Misdeed::WrongId)));
    }

    #[test]
    fn a_long_line_is_streamed_only_as_the_answer() {
        let (rules, _heard) = rules(Era::Legacy);
        let judge = |head: &str| rules.judge_long(head.as_bytes());
        assert_eq!(judge(r#"{"result":{"x":"aaa"#), Ok(true));
        assert_eq!(judge(r#"{"jsonrpc":"2.0","id":7,"result":{"x":"aaa"#), Ok(true));
        assert_eq!(judge(r#"{"jsonrpc":"2.0","id":8,"result":{"x":"aaa"#), Err(Misdeed::WrongId));
        assert_eq!(
            judge(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"x":"aaa"#),
            Ok(false)
        );
        assert_eq!(judge("Listening on"), Err(Misdeed::NotAMessage));
        assert_eq!(judge("[["), Err(Misdeed::NotAMessage));
    }
}
