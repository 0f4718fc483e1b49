//! The edge: lines of MCP over stdio become messages, and answers become lines.
//!
//! Neighbours: [`crate::session`] decides what happens to a message and owns every cell.
//! Never: decides, starts a process, or changes a byte of a message that it does not have to.

pub mod annex;
pub mod envelope;
pub mod frame;
pub mod label;
pub mod object;
pub mod output;
pub mod reply;
pub mod scan;
pub mod stdio;
