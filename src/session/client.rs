//! What the client says, and to whom it goes.
//!
//! Neighbours: [`super::arguments`] lets calls on, [`super::call`] and [`super::catalogue`] do the work. Never: waits, so that a cancellation or the end
//! of the input is always seen.

use std::rc::Rc;

use tokio::time::Instant;

use super::cache::Key;
use super::catalogue::Job;
use super::{Agreed, Ask, Session, admission, arguments, stale, unkept};
use crate::audit::TEXT_MOST;
use crate::mcp::envelope::{
    self, Era, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Id, Kind, METHOD_NOT_FOUND, Message,
};
use crate::mcp::{object, reply};
use crate::policy::config::state::State;
use crate::policy::print::key;

/// Requests that may be open at once, running and waiting.
pub(super) const MOST_OPEN: usize = 10_000;
/// Bytes of requests that may be open at once.
const MOST_OPEN_BYTES: usize = 256 * 1024 * 1024;

/// Deals with one line of the client, without its newline.
pub(super) fn line(session: &Rc<Session>, line: &[u8]) {
    let message = match envelope::parse(line) {
        Ok(message) => message,
        Err(_) if line.is_empty() => return,
        Err(refusal) => {
            session.reply(reply::error(refusal.id.as_ref(), refusal.code, &refusal.detail));
            return;
        }
    };
    match &message.kind {
        Kind::Answer { id, .. } => session.outbound.borrow_mut().answer(line, &message, id),
        Kind::Notification { method } => {
            let stripped = session.options.gate.as_ref().and_then(|gate| gate.stripped(line));
            // Nothing but a member was taken out, so it is still a message.
            match stripped.and_then(|line| Some((envelope::parse(&line).ok()?, line))) {
                Some((message, line)) => notification(session, &line, &message, method),
                None => notification(session, line, &message, method),
            }
        }
        Kind::Request { id, method } => request(session, line, &message, id.clone(), method),
    }
}

fn with_newline(line: &[u8]) -> Vec<u8> {
    [line, b"\n"].concat()
}

fn notification(session: &Session, line: &[u8], message: &Message, method: &str) {
    match method {
        "notifications/cancelled" => {
            let params = message.params.clone();
            let id = params.and_then(|params| object::member(line, params, "requestId"));
            let id = id.and_then(|span| Id::parse(line.get(span)?));
            if let Some(open) = id.and_then(|id| session.open.borrow_mut().remove(&id)) {
                session.open_bytes.set(session.open_bytes.get().saturating_sub(open.bytes));
                // A request whose answer is on its way has stopped listening.
                drop(open.cancel.send(with_newline(line)));
            }
        }
        "notifications/progress" => session.outbound.borrow().progress(line, message),
        "notifications/initialized" | "notifications/roots/list_changed" => {
            if method == "notifications/roots/list_changed" {
                session.roots.forget();
            }
            session.note(&with_newline(line));
        }
        // Nobody is there to whom another one could be of use.
        _ => {}
    }
}

fn request(session: &Rc<Session>, line: &[u8], message: &Message, id: Id, method: &str) {
    let refuse = |code: i32, detail: &str| session.reply(reply::error(Some(&id), code, detail));
    if session.open.borrow().contains_key(&id) {
        // Under this id the client waits for another answer, so the error cannot carry it.
        let detail = format!("the id {id} belongs to a request that is still open");
        session.reply(reply::error(None, INVALID_REQUEST, &detail));
        return;
    }
    if session.open.borrow().len() >= MOST_OPEN || session.open_bytes.get() + line.len() > MOST_OPEN_BYTES {
        refuse(INTERNAL_ERROR, "too many requests are open; wait for answers before sending more");
        return;
    }
    let Some(entry) = admission::admit(session, line, message, &id, method) else { return };
    stale::tell(session);
    let (line, message) =
        entry.changed.as_ref().map_or((line, message), |(line, message)| (line.as_slice(), message));
    let mut meta = envelope::meta(line, message.params.as_ref());
    match method {
        "ping" if meta.era == Era::Legacy => {
            session.reply(reply::empty(&id));
            return;
        }
        // Their effects outlive the request, and with it the only process that could keep them.
        _ if method.starts_with("tasks/") && session.options.profiles.state(None) == State::Call => {
            refuse(METHOD_NOT_FOUND, &format!("tasks are not offered: {}", alone(session)));
            return;
        }
        // These two are asked before the era is settled.
        "initialize" => meta.era = Era::Legacy,
        "server/discover" => meta.era = Era::Modern,
        _ => {}
    }
    let target = match target(method, line, message) {
        Ok(target) => target,
        Err(detail) => {
            refuse(INVALID_PARAMS, &detail);
            return;
        }
    };
    let task = || message.params.clone().and_then(|params| object::member(line, params, "task"));
    let keeps = session.options.profiles.state(target.as_deref()) == State::Session;
    if method == "tools/call" && !keeps && task().is_some() {
        refuse(INVALID_PARAMS, &format!("`params.task` is not offered: {}", alone(session)));
        return;
    }
    let changed = if keeps { None } else { unkept::without_tasks(line, method) };
    let (line, message) =
        changed.as_ref().map_or((line, message), |(line, message)| (line.as_slice(), message));
    if let Some(key) = Key::new(meta.era, method, line, message.params.as_ref()) {
        let raw = line.get(message.id.clone()).unwrap_or_default();
        let kept = session.cache.borrow().get(&key, raw, Instant::now());
        if let Some(answer) = kept {
            session.reply(session.listed(entry.identity.as_deref(), method, answer));
            return;
        }
    }
    if method == "initialize" {
        session.agreed.send_replace(Agreed::Pending);
    }
    let era = meta.era;
    let ask = Ask {
        id,
        line: with_newline(line),
        method: method.to_owned(),
        target,
        params: message.params.clone(),
        meta,
        identity: entry.identity,
    };
    let control = session.track(&ask, entry.pass);
    if is_call(method) && session.options.lists_only {
        session.forget(&ask.id);
        session.reply(reply::error(Some(&ask.id), METHOD_NOT_FOUND, "nothing but lists is answered here"));
    } else if is_call(method) {
        arguments::check(session, ask, control);
    } else {
        session.catalogue(era, ask.identity.clone(), Job::Ask(Box::new((ask, control))));
    }
}

/// Why what outlives a request cannot be had, and what would change that.
fn alone(session: &Session) -> String {
    let server = key(&session.options.server);
    format!(
        "each call has a process of its own; with `state = \"session\"` in `[servers.{server}]` they share one"
    )
}

/// Methods that run the server's own code on arguments.
pub(super) fn is_call(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read" | "completion/complete")
}

/// The name that decides under which profile a call runs.
pub(super) fn target(method: &str, line: &[u8], message: &Message) -> Result<Option<String>, String> {
    let params = message.params.as_ref();
    match method {
        "tools/call" => {
            let name = envelope::target(line, params, "name")?;
            // In records two names are two.
            if name.len() > TEXT_MOST {
                return Err(format!("`params.name` is longer than {TEXT_MOST} bytes"));
            }
            Ok(Some(name))
        }
        "prompts/get" => envelope::target(line, params, "name").map(Some),
        "resources/read" => envelope::target(line, params, "uri").map(Some),
        "completion/complete" => {
            let reference = params.and_then(|params| object::member(line, params.clone(), "ref"));
            let get = |name: &str| envelope::target(line, reference.as_ref(), name).ok();
            match get("name").or_else(|| get("uri")) {
                Some(name) => Ok(Some(name)),
                None => Err("`params.ref` names neither a prompt nor a resource".to_owned()),
            }
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_tool_that_no_record_has_room_for_is_refused() {
        let of = |method: &str, length: usize| {
            let params = serde_json::json!({ "name": "x".repeat(length) });
            let line = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let line = line.to_string().into_bytes();
            target(method, &line, &envelope::parse(&line).unwrap())
        };
        assert_eq!(of("tools/call", 1024), Ok(Some("x".repeat(1024))));
        assert_eq!(of("tools/call", 1025), Err("`params.name` is longer than 1024 bytes".to_owned()));
        assert_eq!(of("prompts/get", 1025), Ok(Some("x".repeat(1025))));
    }
}
