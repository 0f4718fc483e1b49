//! What is wrong with one argument, in words that who made the call can act on.
//!
//! Neighbours: `session` tells and records them. Never: quotes a value: it may be long, or a secret.

use std::fmt;

/// One thing that an argument is and must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON Pointer into the arguments; empty for all of them.
    pub at: String,
    /// What it must be instead, as the end of a sentence that begins with the argument.
    pub told: String,
    /// Who says so, e.g. "`maxLength` of the tool's own `inputSchema`".
    pub rule: String,
    /// The TOML that would allow it, where the configuration forbids it.
    pub allow: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => write!(f, "the arguments ")?,
            at => write!(f, "`{at}` ")?,
        }
        write!(f, "{} ({})", self.told, self.rule)
    }
}
