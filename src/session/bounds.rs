//! What the client says that a call may see and change at most: its roots, which it is asked for, and the policy in the call's `_meta`.
//!
//! ```text
//! first call, or the roots have changed ──► roots/list ──► kept until notifications/roots/list_changed
//! ```
//!
//! Only a legacy client that says so in its handshake has roots; a modern one cannot be asked.
//!
//! Neighbours: [`super::call`] asks before it takes a grant, [`crate::policy::bounds`] reads the words, [`super::outbound`] makes the
//! id unique. Never: lets a call go on without what it asked for and did not get.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::outbound::Back;
use super::{Ask, Handshake, Session};
use crate::mcp::envelope::{self, Id, Kind};
use crate::mcp::{object, reply};
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
    let answer = asked(session).await;
    *told = Some((now, answer.clone()));
    answer
}

/// Withdraws the question when it is given up.
struct Question<'s> {
    session: &'s Session,
    cell: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        for id in self.session.outbound.borrow_mut().close(self.cell) {
            self.session.reply(reply::cancelled(&id, "nobody waits for the roots any more"));
        }
    }
}

async fn asked(session: &Session) -> Result<Bounds, String> {
    let own = Id::Text("roots".to_owned());
    let line = reply::request(&own, "roots/list", None);
    let line = line.trim_ascii_end();
    let message = envelope::parse(line).map_err(|refusal| refusal.detail)?;
    let (sender, mut back) = unbounded_channel();
    let question = Question { session, cell: session.next_cell() };
    let line = session.outbound.borrow_mut().open(question.cell, &sender, line, &message, &own);
    session.reply(line);
    let answer = loop {
        match timeout(PATIENCE, back.recv()).await {
            Ok(Some(Back::Answer(line))) => break line,
            Ok(Some(Back::Note(_))) => {}
            Ok(None) | Err(_) => return Err(format!("it has not said them within {} s", PATIENCE.as_secs())),
        }
    };
    let message = envelope::parse(answer.trim_ascii_end()).map_err(|refusal| refusal.detail)?;
    if matches!(message.kind, Kind::Answer { error: true, .. }) {
        return Err("it answers with an error".to_owned());
    }
    let result = message.body.and_then(|span| answer.get(span)).unwrap_or_default();
    let result: Value = serde_json::from_slice(result).map_err(|error| error.to_string())?;
    Bounds::of_roots(&result)
}
