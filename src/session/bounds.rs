//! What the client says that a call may see and change at most: its roots, which it is asked for, and the policy in the call's `_meta`.
//!
//! ```text
//! first call, or the roots have changed ──► roots/list ──► kept until notifications/roots/list_changed
//! ```
//!
//! Only a legacy client that says so in its handshake has roots; a modern one cannot be asked.
//!
//! Neighbours: [`super::call`] asks before it takes a grant, [`crate::policy::bounds`] reads the words, [`super::question`] puts the
//! question. Never: lets a call go on without what it asked for and did not get.

use std::time::Duration;

use serde_json::Value;

use super::{Ask, Handshake, Session, question};
use crate::mcp::object;
use crate::policy::bounds::{Bounds, CODEX};

/// How long a client may take to say what its roots are.
const PATIENCE: Duration = Duration::from_secs(10);

/// The client's roots as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Under which number of changes they were told, and what was said.
    told: tokio::sync::Mutex<Option<(u64, Result<Bounds, String>)>>,
    changes: std::cell::Cell<u64>,
}

impl Roots {
    /// How often they have changed.
    pub(super) const fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// They are not what they were.
    pub(super) fn forget(&self) {
        self.changes.set(self.changes.get() + 1);
    }
}

/// What the client says of a call.
///
/// # Errors
/// What of it cannot be read; the call must not be run.
pub(super) async fn of_call(
    session: &Session,
    ask: &Ask,
    handshake: Option<&Handshake>,
) -> Result<Vec<Bounds>, String> {
    let heeded = session.options.profiles.heeded();
    let mut bounds = Vec::new();
    if heeded.roots && handshake.is_some_and(|handshake| handshake.offers.roots) {
        let wrong = |why| {
            format!(
                "the client's roots cannot be used\ncaused by: {why}\nhint: the client has to tell directories as `file://` URIs; whoever runs \
                 toolcell can do without them by leaving out `client-roots`"
            )
        };
        bounds.push(roots(session).await.map_err(wrong)?);
    }
    let state = ask.params.clone().and_then(|params| object::lookup(&ask.line, params, &["_meta", CODEX]));
    if heeded.policy
        && let Some(state) = state.and_then(|span| ask.line.get(span))
    {
        let wrong = |why: String| {
            format!(
                "the client's policy in `_meta` (`{CODEX}`) cannot be used\ncaused by: {why}\nhint: whoever runs toolcell can have it \
                 ignored by `client-policy = \"ignore\"`"
            )
        };
        let state: Value = serde_json::from_slice(state).map_err(|error| wrong(error.to_string()))?;
        bounds.extend(Bounds::of_codex(&state).map_err(wrong)?);
    }
    Ok(bounds)
}

/// The roots; calls at once ask for them together.
async fn roots(session: &Session) -> Result<Bounds, String> {
    let mut told = session.roots.told.lock().await;
    let now = session.roots.changes.get();
    match &*told {
        Some((known, Ok(bounds))) if *known == now => return Ok(bounds.clone()),
        _ => {}
    }
    let answer = question::put(session, "roots/list", None, PATIENCE).await;
    let answer = answer.and_then(|result| Bounds::of_roots(&result));
    *told = Some((now, answer.clone()));
    answer
}
