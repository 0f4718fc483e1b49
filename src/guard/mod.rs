//! Looks at calls that have ended: tells of what is unusual, keeps tools out that are refused too much, exports figures.
//!
//! It works in a process of its own, because the supervisor may start no program, open no file and no socket:
//!
//! ```text
//! session ──► link ═══ events, questions ═══► process ──► rules, quarantine ──► state
//!               ◄═══ verdicts, notices ═════     └──► alerts ──► hooks, the log
//! ```
//!
//! Neighbours: `commands::run` starts it, `session` asks whether a tool may be called. Never: keeps the session's thread
//! waiting for a hook; lets a tool run whose state is not known.

#![deny(clippy::wildcard_enum_match_arm)]

mod alerts;
mod event;
mod exports;
mod hooks;
mod link;
mod otel;
mod process;
mod prometheus;
mod quarantine;
mod rules;
mod state;
mod usual;
mod written;

pub use event::{Event, Verdict};
pub use link::Guard;
pub use process::{Duty, Handle, start};
pub use quarantine::{Place, Step};
pub use state::{State, StateError, Store, Tool};
