//! One process's side of the conversation: the replayed handshake, then one open request at a time.
//!
//! ```text
//! modern                            Open
//! legacy, client without roots      Open (handshake and request go out together, the answers come in order)
//! legacy, client with roots         Handshake ──► Settling (pings answered, nothing asked, quiet) ──► Open
//! ```
//!
//! A server asks for the roots behind the handshake, and goes on working when it has them; nothing in the protocol
//! says when it is done. So it is pinged after each thing it was told, and has to be quiet for a multiple of the time
//! that the answer took: on a busy machine both grow alike, where a fixed pause would be too short.
//!
//! Neighbours: [`super::rules`] judges each line; [`super::call`] and [`super::catalogue`] own one each and decide
//! when it is over. Never: waits for a limit, or ends a process.

use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::outbound::Back;
use super::process::Process;
use super::rules::{Asked, Offers, Rules, Verdict};
use super::tally::Misdeed;
use super::{Handshake, Session};
use crate::mcp::envelope::{Era, Id, Message};
use crate::mcp::frame::Frame;
use crate::mcp::{label, reply};

/// Answers up to this size are held whole; longer ones pass in pieces.
pub(super) const STREAM_FROM: usize = 256 * 1024;
/// No other line may be longer: the TypeScript client's reader takes no more.
pub(super) const LONGEST_LINE: usize = 10 * 1024 * 1024;
/// After a handshake with roots a server must have been quiet at least this long, or it works on directories that are old.
const SETTLE: Duration = Duration::from_millis(50);
/// And at least this many times as long as it took to answer a ping.
const SETTLE_PINGS: u32 = 10;
/// A server that has not answered a ping for this long does not know pings.
const NO_PONG: Duration = Duration::from_secs(2);

/// How the ids of our pings begin.
const PING: &str = "dev.toolcell/ping";

/// What the owner has to know.
#[derive(Debug)]
pub(super) enum Step {
    /// The answer to the open request, with its newline.
    Answer(Vec<u8>, Message),
    /// The answer is longer than is held; it can be streamed now.
    Long,
    /// The process will say no more.
    End(End),
    /// The replayed handshake failed.
    NoHandshake(String),
}

/// How the output of a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The process closed it.
    Closed,
    /// There was more of it than the policy allows.
    OverBudget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Settling(Settling),
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settling {
    pinged: Instant,
    /// The last word of the server, or to it.
    heard: Instant,
    /// How long the last ping took, once all of them have been answered.
    answered: Option<Duration>,
}

impl Settling {
    /// When the server counts as done, if nothing more is heard.
    fn end(&self) -> Instant {
        match self.answered {
            Some(took) => self.heard + SETTLE.max(took * SETTLE_PINGS),
            None => self.pinged + NO_PONG,
        }
    }
}

/// A process and where the conversation with it stands.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) process: Process,
    pub(super) rules: Rules,
    stage: Stage,
    level: Option<Vec<u8>>,
    waiting: Vec<Vec<u8>>,
    outgoing: Option<Vec<u8>>,
    back: UnboundedReceiver<Back>,
    streams: bool,
    /// Answers up to this size are held whole.
    held: usize,
    /// Told when the replayed handshake has been answered.
    pub(super) ready: Rc<Notify>,
    /// Lines that the server has written,
    heard: u64,
    /// and how many before the last probe, and when that was.
    probed: Option<(u64, Instant)>,
}

impl Link {
    /// A conversation in which the next line sent is the process's first.
    pub(super) fn new(process: Process, cell: u64, era: Era, streams: bool) -> Self {
        let (sender, back) = unbounded_channel();
        Self {
            process,
            rules: Rules::new(era, cell, sender),
            stage: Stage::Open,
            level: None,
            waiting: Vec::new(),
            outgoing: None,
            back,
            streams,
            held: if streams { STREAM_FROM } else { LONGEST_LINE },
            ready: Rc::default(),
            heard: 0,
            probed: None,
        }
    }

    /// Starts with the client's handshake.
    pub(super) fn replay(&mut self, handshake: &Rc<Handshake>, level: Option<Vec<u8>>) {
        let own = own_id("dev.toolcell/initialize");
        self.process.send(reply::request(&own, "initialize", Some(&handshake.params)));
        self.rules.own_handshake = Some((own, handshake.version.clone()));
        self.rules.own_level = level.is_some().then(|| own_id("dev.toolcell/level"));
        self.level = level;
        self.rules.offers = handshake.offers;
        if handshake.offers.roots {
            self.rules.own_pings = Some((own_id(PING), 0));
            self.stage = Stage::Handshake;
        } else {
            self.process.send(reply::initialized());
            self.open();
        }
    }

    /// Would a request go to the server at once?
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open && self.rules.own_handshake.is_none()
    }

    /// Holds answers up to this size whole.
    pub(super) const fn hold(&mut self, most: usize) {
        self.held = most;
        self.process.set_limit(most);
    }

    /// Sends a request of the client as soon as the server is ready for it.
    pub(super) fn ask(&mut self, asked: Asked, line: Vec<u8>) {
        self.rules.asked.push(asked);
        if self.stage == Stage::Open {
            self.process.send(line);
        } else {
            self.waiting.push(line);
        }
    }

    /// Forgets this process's requests to the client, and tells the client so.
    pub(super) fn withdraw_all(&self, session: &Session) {
        let open = session.outbound.borrow_mut().close(self.rules.cell);
        for id in open {
            session.reply(reply::cancelled(&id, "the server's process has ended"));
        }
    }

    fn open(&mut self) {
        self.stage = Stage::Open;
        if let (Some(id), Some(level)) = (&self.rules.own_level, self.level.take()) {
            self.process.send(reply::request(id, "logging/setLevel", Some(&level)));
        }
        for line in std::mem::take(&mut self.waiting) {
            self.process.send(line);
        }
    }

    /// Makes the server say when it has read all that it was sent.
    fn ping(&mut self) {
        let Some((id, open)) = &mut self.rules.own_pings else { return };
        *open += 1;
        self.process.send(reply::request(id, "ping", None));
        let now = Instant::now();
        self.stage = Stage::Settling(Settling { pinged: now, heard: now, answered: None });
    }

    /// Pings a server that is asked nothing, unless it still has to answer that.
    pub(super) fn probe(&mut self) {
        let pings = &mut self.rules.own_pings;
        let (id, open) = pings.get_or_insert_with(|| (own_id(PING), 0));
        if *open == 0 || self.probed.is_none() {
            *open += 1;
            self.process.send(reply::request(id, "ping", None));
            self.probed = Some((self.heard, Instant::now()));
        }
    }

    /// Has a server read all that it was sent, and nothing more to say? It then said nothing before its answer to the last probe.
    pub(super) fn rests(&self) -> bool {
        let open = self.rules.own_pings.as_ref().map_or(0, |(_, open)| *open);
        self.probed.is_none_or(|(heard, at)| match open {
            0 => self.heard == heard + 1,
            _ => self.heard == heard && at.elapsed() >= NO_PONG,
        })
    }

    /// A call gets it: nobody waits any more for the server to rest, or to do wrong.
    pub(super) fn hand_over(&mut self, offers: Option<Offers>) {
        self.rules.offers = offers.unwrap_or(self.rules.offers);
        self.rules.tally.heard = None;
        self.probed = None;
        // Else the call's request waits for the answers.
        if self.stage == Stage::Open {
            self.rules.forget_pings();
        }
    }

    fn unsettle(&mut self) {
        let all_answered = self.rules.own_pings.as_ref().is_some_and(|(_, open)| *open == 0);
        if let Stage::Settling(settling) = &mut self.stage {
            settling.heard = Instant::now();
            if all_answered && settling.answered.is_none() {
                settling.answered = Some(settling.heard - settling.pinged);
            }
        }
    }

    /// Goes on until the owner has to know something. Dropping the future loses nothing.
    pub(super) async fn step(&mut self, session: &Session) -> Step {
        loop {
            if self.outgoing.is_some() {
                let mut out = session.output.long_line().await;
                if let Some(mut line) = self.outgoing.take() {
                    out.push(&mut line).await;
                }
            }
            let settled = match self.stage {
                Stage::Settling(settling) if self.rules.open == 0 => Some(settling.end()),
                _ => None,
            };
            let frame = tokio::select! {
                biased;
                Some(back) = self.back.recv() => {
                    let (line, answered) = match back {
                        Back::Answer(line) => (line, 1),
                        Back::Note(line) => (line, 0),
                    };
                    self.rules.open = self.rules.open.saturating_sub(answered);
                    self.process.send(line);
                    if matches!(self.stage, Stage::Settling(_)) {
                        self.ping();
                    }
                    continue;
                }
                () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => {
                    self.open();
                    continue;
                }
                frame = self.process.next() => frame,
            };
            let verdict = match frame {
                Frame::Line(line) => match self.rules.judge(line, &mut session.outbound.borrow_mut()) {
                    Verdict::Answer(message) => return Step::Answer([line, b"\n"].concat(), message),
                    verdict => verdict,
                },
                Frame::Long(head) => {
                    let misdeed = match self.rules.judge_long(head) {
                        Ok(true) if self.streams => return Step::Long,
                        Ok(_) if head.len() <= LONGEST_LINE => None,
                        Ok(_) => Some(Misdeed::LongLine),
                        Err(misdeed) => Some(misdeed),
                    };
                    if let Some(misdeed) = misdeed {
                        self.rules.tally.add(misdeed, head);
                        self.process.skip_line();
                    }
                    self.process.set_limit(LONGEST_LINE);
                    continue;
                }
                Frame::Half(line) => {
                    self.rules.tally.add(Misdeed::HalfLine, line);
                    return Step::End(End::Closed);
                }
                Frame::OverBudget => return Step::End(End::OverBudget),
                Frame::End => return Step::End(End::Closed),
            };
            self.process.set_limit(self.held);
            self.heard += 1;
            self.unsettle();
            if std::mem::take(&mut self.rules.changed) {
                // Before the client hears of it, or it would be given the old list again.
                session.forget_lists(self.rules.era);
            }
            match verdict {
                Verdict::Nothing | Verdict::Answer(_) => {}
                Verdict::ToClient(line) => {
                    let about = if session.options.fronted { self.rules.about(&line) } else { None };
                    self.outgoing = Some(match about {
                        Some(id) => label::labelled(&line, &id),
                        None => line,
                    });
                }
                Verdict::ToCell(line) => self.process.send(line),
                Verdict::Handshake(Err(detail)) => return Step::NoHandshake(detail),
                Verdict::Handshake(Ok(())) => {
                    self.ready.notify_one();
                    if self.stage == Stage::Handshake {
                        self.process.send(reply::initialized());
                        self.ping();
                    }
                }
            }
        }
    }
}

/// An id of the supervisor's own. No client can guess it, so that none of its requests has the same: most come after it was sent.
fn own_id(name: &str) -> Id {
    // The hash has a key that stays in this process: the kernel's random bytes, and one more each time.
    Id::Text(format!("{name}/{:016x}", RandomState::new().hash_one(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_of_our_own_is_another() {
        let ids = [PING, PING, "dev.toolcell/level"].map(own_id);
        assert!(
            ids[0] != ids[1] && ids[1] != ids[2] && ids.iter().all(|id| *id != Id::Text(PING.to_owned()))
        );
        let Id::Text(text) = &ids[0] else { panic!("{ids:?}") };
        assert_eq!(text.strip_prefix("dev.toolcell/ping/").unwrap().len(), 16);
    }
}
