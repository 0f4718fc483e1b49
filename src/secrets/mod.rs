//! Secrets: read when a tool is called that gets them, handed to its cell, taken out of all that the cell says.
//!
//! ```text
//! keeper (a process of its own) ──value──► supervisor ──by init's channel──► init ──► the tool
//!    │ one child a secret: reads, checks      │                                         │
//!    └── env, file, command, credential, age  └── redact ◄── stdout, stderr, refusals ◄─┘
//! ```
//!
//! Neighbours: `policy::config::secrets` says what there is; `session` asks for the values and masks by [`redact`]; `launch` hands
//! them over. Never: writes a value anywhere, or keeps one between two calls.

mod command;
pub mod keeper;
pub mod redact;
pub mod source;
pub mod state;
mod units;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::state::State;
use crate::policy::config::secrets::Place;
use crate::sys::wiped::Wiped;

/// A shorter one is in too many innocent texts to be taken out of them.
pub const SHORTEST: usize = 8;
/// The longest: what a variable may hold on every kernel is more.
pub const LONGEST: usize = 32 * 1024;
/// All that one tool gets, together: it goes over in one message.
pub const MOST_TOGETHER: usize = 64 * 1024;

/// A secret that was read, and may be used.
#[derive(Debug)]
pub struct Loaded {
    /// Its bytes.
    pub value: Wiped,
    /// Whether it is due.
    pub state: State,
    /// How old it is, where anything tells.
    pub age: Option<Duration>,
}

/// One secret that a tool gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its number with the keeper.
    pub number: usize,
    /// Its name in the configuration.
    pub name: String,
    /// How the tool gets it.
    pub into: Place,
    /// How old it may be, in seconds.
    pub max_age: Option<u64>,
    /// How long reading it may take.
    pub patience: Duration,
}

/// Why a secret cannot be used. Holds no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong.
    pub message: String,
    /// Why, the last the deepest.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Overdue, or unreadable.
    pub state: State,
    /// How old it is, where anything tells.
    pub age_s: Option<u64>,
}

impl Trouble {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            state: State::Unreadable,
            age_s: None,
        }
    }

    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a hint where it has none yet.
    pub(crate) fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// With its causes, in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        std::iter::once(&self.message).chain(&self.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl Error for Trouble {}
