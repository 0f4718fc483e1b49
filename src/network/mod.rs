//! Keeps the doors of cells, outside of them: accepts, resolves, checks, connects and passes bytes on.
//!
//! ```text
//! cell ── listening sockets ──► holder (supervisor, exec) ──► porter: a process of its own, without files, programs or privileges
//!                                 ▲ events, over a channel for each cell │
//!                                 └──────────────────────────────────────┤
//! program in the cell ◄── accept, gate ── keep ── hello, guard ── relay ◄──────┴──► destination
//! port of the cell ◄── inbound ── relay ◄── accept ── program of this host
//! ```
//!
//! Where TLS ends at a door by the profile's choice, `ended` is in the place of `relay`: HTTP with the cell, TLS with the host.
//!
//! Neighbours: `plan::doors` says which doors there are, `watch::traffic` reads the events. Never: looks into what is encrypted,
//! changes a byte of it, or resolves a name twice for one connection.

mod accept;
mod carry;
mod credential;
pub mod dns;
mod ended;
mod gate;
mod guard;
pub mod head;
pub mod hello;
mod inbound;
mod keep;
mod limit;
pub mod porter;
mod relay;
mod resolver;
pub mod roots;
mod unix;
mod upstream;
mod waits;
pub mod wire;

use serde::{Deserialize, Serialize};

use crate::outcome::{Connection, Layer, Violation};
use crate::plan::doors::{LARGEST, Listens};

/// What is told of a cell's doors, one message each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A connection is over.
    Closed(Connection),
    /// Something was refused.
    Refused(Violation),
    /// The cell is over, and all was told.
    Over,
}

/// What the holder says over a cell's channel; behind `Credential` comes its value, in the same message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    /// A socket of the cell comes along.
    Listens(Listens),
    /// What the door at this place of the policy's puts in.
    Credential(u32),
}

/// The longest message of either side.
pub const MESSAGE_LIMIT: usize = 128 * 1024;
// All that is said of a cell's doors; and a refusal there, which repeats the rules of one of them.
const _: () = assert!(2 * LARGEST <= MESSAGE_LIMIT);

/// Something that was refused at a door.
fn refused(operation: &str, object: String, rule: String) -> Violation {
    Violation { object, ..Violation::of_toolcell(Layer::Network, operation, rule) }
}
