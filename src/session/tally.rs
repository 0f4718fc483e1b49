//! Counts what a cell did against the rules of MCP, without growing with it.
//!
//! Neighbours: [`super::link`] and [`super::stream`] report, records and error texts read it. Never: does I/O.

use std::rc::Rc;

use tokio::sync::Notify;

use crate::outcome::{Layer, Violation};

/// Characters of a hostile line that are kept as an example.
const EXAMPLE: usize = 160;

/// Kinds of misbehaviour; one violation each, however often it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdeed {
    /// A line that is no JSON-RPC message.
    NotAMessage,
    /// An answer that nobody asked for.
    WrongId,
    /// An answer after the answer.
    SecondAnswer,
    /// A request that the server may not make.
    Request,
    /// A notification that has no place here.
    Notification,
    /// A line that is longer than the client could read.
    LongLine,
    /// The output ended inside a line.
    HalfLine,
    /// An answer that turned out wrong after its first part had been sent on.
    BrokenAnswer,
}

impl Misdeed {
    const fn operation(self) -> &'static str {
        match self {
            Self::NotAMessage => "write something that is no message",
            Self::WrongId => "answer a request that was not made",
            Self::SecondAnswer => "answer again",
            Self::Request => "make a request that is not allowed",
            Self::Notification => "send a notification that is not allowed",
            Self::LongLine => "write a line that is too long",
            Self::HalfLine => "end inside a line",
            Self::BrokenAnswer => "break off an answer",
        }
    }

    /// What the server did, for an error text.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::NotAMessage => "wrote lines that are no JSON-RPC messages",
            Self::WrongId => "answered requests that were not made",
            Self::SecondAnswer => "answered more than once",
            Self::Request => "made requests that are not allowed",
            Self::Notification => "sent notifications that are not allowed",
            Self::LongLine => "wrote lines that are too long",
            Self::HalfLine => "ended inside a line",
            Self::BrokenAnswer => "broke off an answer",
        }
    }
}

/// The misdeeds of one cell.
#[derive(Debug, Default)]
pub(super) struct Tally {
    found: Vec<(Misdeed, Violation)>,
    /// Told of each, if somebody waits for that.
    pub(super) heard: Option<Rc<Notify>>,
}

impl Tally {
    pub(super) fn add(&mut self, misdeed: Misdeed, example: &[u8]) {
        if let Some(heard) = &self.heard {
            heard.notify_one();
        }
        if let Some((_, violation)) = self.found.iter_mut().find(|(known, _)| *known == misdeed) {
            violation.count += 1;
            return;
        }
        let violation = Violation {
            object: excerpt(example),
            ..Violation::of_toolcell(Layer::Protocol, misdeed.operation(), "MCP over stdio".to_owned())
        };
        self.found.push((misdeed, violation));
    }

    pub(super) fn misdeeds(&self) -> impl Iterator<Item = (Misdeed, &Violation)> {
        self.found.iter().map(|(misdeed, violation)| (*misdeed, violation))
    }

    pub(super) fn take(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.found).into_iter().map(|(_, violation)| violation).collect()
    }
}

/// The start of a hostile text.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    // A character has at most four bytes, so this much is enough for the example and bounds the work.
    let start = bytes.get(..EXAMPLE * 4).unwrap_or(bytes);
    String::from_utf8_lossy(start).chars().take(EXAMPLE).collect()
}
