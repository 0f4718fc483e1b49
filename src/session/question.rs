//! A question of the session's own to its legacy client.
//!
//! Neighbours: [`super::bounds`] asks for roots, [`super::changes`] whether changes may be done; [`super::outbound`] makes the id unique. Never: leaves a
//! question open that nobody waits for.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::Session;
use super::outbound::Back;
use crate::mcp::envelope::{self, Id, Kind};
use crate::mcp::reply;

/// Withdraws the question when it is given up.
struct Question<'s> {
    session: &'s Session,
    cell: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        for id in self.session.outbound.borrow_mut().close(self.cell) {
            self.session.reply(reply::cancelled(&id, "nobody waits for the answer any more"));
        }
    }
}

/// The result that the client answers with.
///
/// # Errors
/// Why there is none.
pub(super) async fn put(
    session: &Session,
    method: &str,
    params: Option<&[u8]>,
    patience: Duration,
) -> Result<Value, String> {
    let own = Id::Text(method.to_owned());
    let line = reply::request(&own, method, params);
    let line = line.trim_ascii_end();
    let message = envelope::parse(line).map_err(|refusal| refusal.detail)?;
    let (sender, mut back) = unbounded_channel();
    let question = Question { session, cell: session.next_cell() };
    let line = session.outbound.borrow_mut().open(question.cell, &sender, line, &message, &own);
    session.reply(line);
    let answer = loop {
        match timeout(patience, back.recv()).await {
            Ok(Some(Back::Answer(line))) => break line,
            Ok(Some(Back::Note(_))) => {}
            Ok(None) | Err(_) => return Err(format!("it has not answered within {} s", patience.as_secs())),
        }
    };
    let message = envelope::parse(answer.trim_ascii_end()).map_err(|refusal| refusal.detail)?;
    if matches!(message.kind, Kind::Answer { error: true, .. }) {
        return Err("it answers with an error".to_owned());
    }
    let result = message.body.and_then(|span| answer.get(span)).unwrap_or_default();
    serde_json::from_slice(result).map_err(|error| error.to_string())
}
