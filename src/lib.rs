//! toolcell: runs each MCP tool call in a fresh process in its own kernel-isolated cell.
//!
//! The stages and their order are in ARCHITECTURE.md.

pub mod access;
pub mod arguments;
pub mod audit;
pub mod call;
pub mod cli;
pub mod commands;
pub mod diag;
pub mod exit_codes;
pub mod front;
pub mod guard;
pub mod host;
pub mod hostile;
pub mod launch;
pub mod lock;
pub mod mcp;
pub mod network;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod secrets;
pub mod session;
pub mod store;
pub mod text;
pub mod watch;

#[expect(unsafe_code, reason = "the kernel boundary; every other module is safe Rust")]
pub mod sys;
