//! toolcell: runs each MCP tool call in a fresh process in its own kernel-isolated cell.
//!
//! The stages and their order are in ARCHITECTURE.md.

pub mod call;
pub mod host;
pub mod launch;
pub mod mcp;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod session;
