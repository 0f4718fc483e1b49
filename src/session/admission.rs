//! Lets a request of the client in, or turns it away before anything else is done about it.
//!
//! Neighbours: [`super::client`] asks it of every request, [`crate::access`] decides. Never: lets a request on with what
//! proved who sent it.

use std::rc::Rc;

use super::{Finished, Session};
use crate::access::{Denied, Now, Pass, Reason};
use crate::call::Call;
use crate::mcp::envelope::{self, INTERNAL_ERROR, INVALID_PARAMS, Id, METHOD_NOT_FOUND, Message};
use crate::mcp::reply;
use crate::outcome::{Layer, Status, Violation};

/// Codes of our own, outside of the range that JSON-RPC reserves; the numbers are HTTP's for the same.
const UNAUTHENTICATED: i32 = 401;
const FORBIDDEN: i32 = 403;
const LIMITED: i32 = 429;

/// What is known of a request that was let in.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) identity: Option<Rc<str>>,
    pub(super) pass: Option<Pass>,
    /// The request that goes on in place of the one that came.
    pub(super) changed: Option<(Vec<u8>, Message)>,
}

/// Lets a request in. `None`: it has been answered.
pub(super) fn admit(
    session: &Session,
    line: &[u8],
    message: &Message,
    id: &Id,
    method: &str,
) -> Option<Entry> {
    let Some(gate) = &session.options.gate else { return Some(Entry::default()) };
    let admitted = match gate.admit(line, message, method, Now::of_clocks()) {
        Ok(admitted) => admitted,
        Err(denied) => {
            turn_away(session, line, message, id, method, &denied);
            return None;
        }
    };
    let changed = match admitted.line.map(|line| envelope::parse(&line).map(|message| (line, message))) {
        None => None,
        Some(Ok(changed)) => Some(changed),
        Some(Err(refusal)) => {
            session.reply(reply::error(Some(id), INTERNAL_ERROR, &refusal.detail));
            return None;
        }
    };
    Some(Entry { identity: Some(admitted.identity), pass: admitted.pass, changed })
}

fn turn_away(session: &Session, line: &[u8], message: &Message, id: &Id, method: &str, denied: &Denied) {
    let meta = envelope::meta(line, message.params.as_ref());
    let who = meta.client.unwrap_or_else(|| session.client.borrow().clone());
    let call = Call {
        id: session.next_call_id(),
        server: session.options.server.clone(),
        method: method.to_owned(),
        target: super::client::target(method, line, message).ok().flatten(),
        profile: String::new(),
        who: format!("{who} ({})", session.options.user),
        identity: denied.identity.as_deref().map(str::to_owned),
        trace: meta.trace.map(|trace| *trace),
    };
    let violation = Violation {
        allow: denied.allow.clone(),
        ..Violation::of_toolcell(Layer::Access, operation(denied.reason), denied.why.clone())
    };
    let finished = Finished::refused(Status::Refused { detail: denied.why.clone() }, vec![violation]);
    if let Err(error) = session.options.records.refused(&call, &finished) {
        (session.options.notice)(&format!("cannot record that call `{}` was refused: {error}", call.id));
    }
    let told = super::text::clean(&denied.to_string());
    session.reply(match denied.reason {
        // A front says it by a status, as everything over HTTP is refused.
        Reason::Forbidden | Reason::Limited if method == "tools/call" && !session.options.fronted => {
            reply::tool_error(id, meta.era, &told, None)
        }
        Reason::Malformed => reply::error(Some(id), INVALID_PARAMS, &told),
        Reason::NotOffered => reply::error(Some(id), METHOD_NOT_FOUND, &told),
        Reason::Unauthenticated => reply::error(Some(id), UNAUTHENTICATED, &told),
        Reason::Forbidden => reply::error(Some(id), FORBIDDEN, &told),
        Reason::Limited => reply::error(Some(id), LIMITED, &told),
    });
}

/// What was tried, in the words of the record.
const fn operation(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "send a request that can be read in two ways",
        Reason::NotOffered => "use a method that no role can allow",
        Reason::Unauthenticated => "call without showing who calls",
        Reason::Forbidden => "call what is not allowed",
        Reason::Limited => "call more often than allowed",
    }
}
