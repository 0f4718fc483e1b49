//! The neutral value that stages share about one call: who asks which server for what.
//!
//! Neighbours: made by `mcp` or `commands::exec`, read by `session` and `audit`. Never: holds a handle or does work.

use serde::{Deserialize, Serialize};

/// One request that gets a cell of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Unique in the audit log: supervisor start time, process id and a counter.
    pub id: String,
    /// The server's name in the configuration, or its program's file name.
    pub server: String,
    /// The JSON-RPC method, or `exec`.
    pub method: String,
    /// The tool, prompt or resource that is asked for, if the method names one.
    pub target: Option<String>,
    /// The name of the profile the call runs under.
    pub profile: String,
    /// Who asked: the client's `name/version` from its handshake, and the user id of the supervisor.
    pub who: String,
    /// The identity that the request showed, where that is asked.
    #[serde(default)]
    pub identity: Option<String>,
}
