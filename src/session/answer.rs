//! An answer's last form: with what its cell was refused and changed, or in place of one that there is none.
//!
//! Neighbours: [`super::call`] and [`super::catalogue`] send them. Never: does I/O.

use super::tally::excerpt;
use super::{Ask, text};
use crate::audit::to_line;
use crate::mcp::annex::{self, Annex};
use crate::mcp::envelope::{self, INTERNAL_ERROR, Kind, Message};
use crate::mcp::reply;
use crate::outcome::{Changes, Status, Violation};

/// Of what a cell was refused, so much stands in its result; the record has more.
const MOST_ANNEXED: usize = 16;

/// The answer with what its cell was refused before.
pub(super) fn annexed(
    line: Vec<u8>,
    message: &Message,
    refused: &[Violation],
    changed: Option<&Changes>,
) -> Vec<u8> {
    let changes = changed.and_then(|changed| to_line(changed).ok());
    let json = to_line(&most(refused)).ok().filter(|_| !refused.is_empty());
    let text = if json.is_some() && message.tool_error { text::refused(refused) } else { String::new() };
    let (violations, changes) = (json.as_deref(), changes.as_deref());
    let [violations, changes] = [violations, changes].map(|json| json.map(<[u8]>::trim_ascii_end));
    annex::annexed(line, message, Annex { violations, changes }, &text)
}

/// As many as an answer has room for.
fn most(refused: &[Violation]) -> &[Violation] {
    refused.get(..MOST_ANNEXED).unwrap_or(refused)
}

/// The answer to a request that has none: for the model where it can read one, else an error. Its text has told of what was
/// refused, and of limits.
pub(super) fn failure(ask: &Ask, told: &str, found: &[Violation]) -> Vec<u8> {
    if ask.method == "tools/call" {
        let found = serde_json::to_value(most(found)).ok().filter(|_| !found.is_empty());
        return reply::tool_error(&ask.id, ask.meta.era, told, found);
    }
    reply::error(Some(&ask.id), INTERNAL_ERROR, told)
}

pub(super) fn status(line: &[u8], message: &Message) -> Status {
    if message.tool_error {
        return Status::Failed { detail: "the tool reported an error".to_owned() };
    }
    if !matches!(message.kind, Kind::Answer { error: true, .. }) {
        return Status::Completed;
    }
    let said = message.body.clone().and_then(|body| envelope::text_member(line, body, "message"));
    Status::Failed { detail: excerpt(said.unwrap_or_default().as_bytes()) }
}
