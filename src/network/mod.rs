//! Keeps the doors of cells, outside of them: accepts, resolves, checks, connects and passes bytes on.
//!
//! ```text
//! cell ── listening sockets ──► holder (supervisor, exec) ──► porter: a process of its own, without files, programs or privileges
//!                                 ▲ events, over a channel for each cell │
//!                                 └──────────────────────────────────────┤
//! program in the cell ◄── accept ── keep ── hello, guard ── relay ◄──────┴──► destination
//! ```
//!
//! Neighbours: `plan::doors` says which doors there are, `watch::traffic` reads the events. Never: looks into what is encrypted,
//! changes a byte of it, or resolves a name twice for one connection.

mod carry;
pub mod dns;
mod guard;
pub mod hello;
mod keep;
pub mod porter;
mod relay;
mod resolver;
mod unix;

use serde::{Deserialize, Serialize};

use crate::outcome::{Connection, Layer, Violation};

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

/// The longest message of either side.
pub const MESSAGE_LIMIT: usize = 128 * 1024;

/// Something that was refused at a door.
fn refused(operation: &str, object: String, rule: String) -> Violation {
    Violation { object, ..Violation::of_toolcell(Layer::Network, operation, rule) }
}
