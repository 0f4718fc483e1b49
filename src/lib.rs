//! toolcell: runs each MCP tool call in a fresh process in its own kernel-isolated cell.
//!
//! The stages and their order are in ARCHITECTURE.md.

pub mod call;
pub mod commands;
pub mod host;
pub mod hostile;
pub mod outcome;
pub mod plan;
pub mod policy;
#[expect(unsafe_code, reason = "the kernel boundary: the one module where it may be")]
pub mod sys;
