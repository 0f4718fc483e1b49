//! What a call may do, and who says so.
//!
//! Neighbours: `commands::run` gives each call its grant, [`super::call`] asks for it. Never: reads a profile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::arguments::Fault;
use crate::launch::places::Ahead;
use crate::outcome::{Granted, Violation};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::policy::bounds::Bounds;
use crate::policy::config::state::State;
use crate::policy::config::{Heeded, Results};

/// What one call may do, resolved.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What the launcher runs.
    pub plan: Arc<Plan>,
    /// The policy that the plan was made from.
    pub policy: Arc<Policy>,
    /// Made for one call, whose arguments or client narrow it: no other call gets it.
    pub once: bool,
    /// What is left to such a call of what its profile grants.
    pub granted: Vec<Granted>,
    /// The cells in which such a call can run all the same, if some can wait for it.
    pub ahead: Option<Waiting>,
}

/// Cells that are there before their calls.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What the launcher runs, and what makes such a cell the call's.
    pub ahead: Ahead,
    /// The policy that the plan was made from.
    pub policy: Arc<Policy>,
}

impl Grant {
    /// The grant under which cells wait for calls of this one.
    pub(super) fn waiting(&self) -> Option<Self> {
        match &self.ahead {
            Some(Waiting { ahead, policy }) => Some(Self {
                plan: Arc::clone(&ahead.plan),
                policy: Arc::clone(policy),
                once: false,
                granted: Vec::new(),
                ahead: None,
            }),
            None => (!self.once).then(|| self.clone()),
        }
    }
}

/// Why a call has no grant; a hint stands in a line of its own.
#[derive(Debug)]
pub enum NoGrant {
    /// By the configuration, or by what the host is.
    Host(String),
    /// By the call's arguments, which who made it can change, and what of them the record has.
    Arguments(String, Vec<Violation>),
    /// By what the client says beside them.
    Client(String),
}

/// Gives each call its grant.
pub trait Profiles {
    /// What in the arguments of a tool is not as the configuration wants it.
    fn check(&self, tool: &str, arguments: &Value) -> Vec<Fault>;

    /// Whether the arguments of a tool are checked against the schema that its server lists.
    fn validates(&self, tool: &str) -> bool;

    /// What becomes of a tool's result that is not what the server's list says.
    fn results(&self, tool: &str) -> Results;

    /// Which words of the client narrow its calls.
    fn heeded(&self) -> Heeded;

    /// How long the process of a tool's call lives, or of what is no tool's call.
    fn state(&self, tool: Option<&str>) -> State;

    /// How long the cell of a session waits for the next request.
    fn idle(&self) -> Duration;

    /// The policy that a call runs under, if it was read. Unlike the grant it does not depend on the arguments.
    fn policy(&self, method: &str, target: Option<&str>) -> Option<Arc<Policy>>;

    /// The grant for a method, the tool, prompt or resource that it names, and its parameters as JSON, within what the client
    /// says; the method of catalogue cells is `catalogue`, of a session's cell `session`. `less`: for a call that is tried.
    ///
    /// # Errors
    /// Why there is none.
    fn grant(
        &self,
        method: &str,
        target: Option<&str>,
        params: Option<&[u8]>,
        bounds: &[Bounds],
        less: bool,
    ) -> Result<Grant, NoGrant>;
}
