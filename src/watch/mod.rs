//! What became of a cell: usage and violations, read after its last process is gone.
//!
//! Neighbours: takes a cell from `launch`, gives [`crate::outcome`] values to `mcp`, `commands` and `audit`.
//! Never: outlives the call.

pub mod attendant;
pub mod audited;
mod connects;
pub mod denials;
mod destination;
mod files;
pub mod listening;
mod notes;
pub mod passthrough;
mod presence;
pub mod refusals;
pub mod reported;
mod sockets;
pub mod traffic;
pub mod usage;
