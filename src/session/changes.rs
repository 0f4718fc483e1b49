//! What a call changed in directories whose writes are reviewed: done to the host when its last process is gone, and before its
//! result goes on; where a person has to agree, when one has.
//!
//! ```text
//! answered ──► reaped ──► looked at ──► asked ──yes──► reviewed ──done──► the result, with what was changed in `_meta`
//!                             │           └──no, nobody──┐   └──refused──┐
//!                             └──may not be done─────────┴───────────────┴──► a result that says so, in place of the tool's
//! ```
//!
//! A legacy client is asked by `elicitation/create`. A modern one gets `input_required` for an answer and repeats its request, which goes on with this
//! call: the server never sees it.
//!
//! Neighbours: [`super::call`] asks, the launcher looks and does. Never: lets a result pass that tells of changes which were not
//! made.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::chain::{self, Key, Retry};
use super::secrets::Mask;
use super::{Ask, Control, Grant, Handshake, Session, call, gone, question, text};
use crate::call::Call;
use crate::launch::LaunchError;
use crate::launch::cell::Written;
use crate::launch::changes::Reviewed;
use crate::mcp::envelope::{self, Era, INTERNAL_ERROR, Id};
use crate::mcp::{object, reply};
use crate::outcome::{Change, Changes, Layer, Violation};
use crate::policy::{Policy, Writes};
use crate::sys::Errno;

/// What the modern question is called among `inputRequests`.
const REVIEW: &str = "dev.toolcell/review";

/// Do the changes of this policy's calls wait for their end?
pub(super) const fn are_reviewed(policy: &Policy) -> bool {
    policy.filesystem.writes.is_reviewed()
}

/// How the person behind a request can be asked.
#[derive(Debug)]
pub(super) enum Person {
    Nobody,
    Legacy,
    /// By the repetition of the request.
    Modern(Key),
}

impl Person {
    /// By what the client says that it can.
    pub(super) fn of(ask: &Ask, handshake: Option<&Handshake>, key: Option<&Key>) -> Self {
        let elicits = &["_meta", "io.modelcontextprotocol/clientCapabilities", "elicitation"];
        let modern =
            ask.params.clone().and_then(|params| object::lookup(&ask.line, params, elicits)).is_some();
        match (ask.meta.era, key) {
            (Era::Legacy, _) if handshake.is_some_and(|handshake| handshake.offers.elicits()) => Self::Legacy,
            (Era::Modern, Some(key)) if modern => Self::Modern(key.clone()),
            _ => Self::Nobody,
        }
    }
}

/// The call whose changes are reviewed.
pub(super) struct Asking<'c> {
    pub(super) call: &'c Call,
    pub(super) grant: &'c Grant,
    pub(super) id: &'c Id,
    pub(super) person: Person,
}

/// Has the changes of a call that has succeeded reviewed. No secret stands in what is told of them. With the request by which a
/// modern client has answered, which waits for the result now.
pub(super) async fn review(
    session: &Session,
    asking: Asking<'_>,
    control: &mut Control,
    written: Option<Written>,
    mask: Option<&Mask>,
) -> (Reviewed, Option<Retry>) {
    let Some(written) = written else {
        let lost = LaunchError::new("review", "what the cell wrote", Errno(libc::EMFILE));
        return (Reviewed::failed(lost), None);
    };
    let (launcher, grant) = (&session.options.launcher, asking.grant);
    let mut repeated = None;
    let mut reviewed =
        launcher.review(&grant.plan, &written, grant.policy.filesystem.writes == Writes::Ask).await;
    if let (Writes::Ask, Some(changes)) = (grant.policy.filesystem.writes, &reviewed.changes)
        && reviewed.violations.is_empty()
        && reviewed.error.is_none()
    {
        let mut changes = changes.clone();
        masked(&mut changes, mask);
        let agreed = if changes.files.is_empty() {
            Ok(())
        } else {
            asked(session, &asking, control, &changes, mask, &mut repeated).await
        };
        match agreed {
            Ok(()) => reviewed = launcher.review(&grant.plan, &written, false).await,
            Err(why) => reviewed.violations.push(unagreed(&why)),
        }
    }
    if let Some(changes) = &mut reviewed.changes {
        masked(changes, mask);
    }
    if let Some(mask) = mask {
        mask.violations(&mut reviewed.violations, true);
    }
    (reviewed, repeated)
}

fn masked(changes: &mut Changes, mask: Option<&Mask>) {
    if let Some(mask) = mask {
        changes.files.iter_mut().for_each(|Change { path, .. }| mask.text(path, "result"));
    }
}

fn unagreed(why: &str) -> Violation {
    Violation {
        allow: Some("[filesystem]\nwrites = \"review\"".to_owned()),
        ..Violation::of_toolcell(
            Layer::Review,
            "change files",
            format!("`filesystem.writes = \"ask\"`: {why}"),
        )
    }
}

/// Asks the person.
///
/// # Errors
/// Why the answer is no yes.
async fn asked(
    session: &Session,
    asking: &Asking<'_>,
    control: &mut Control,
    changes: &Changes,
    mask: Option<&Mask>,
    repeated: &mut Option<Retry>,
) -> Result<(), String> {
    let params = json!({ "message": told(asking.call, changes), "requestedSchema": {"type": "object", "properties": {}} });
    let answer = match &asking.person {
        Person::Nobody => {
            return Err("the client cannot ask a person (it does not offer elicitation)".to_owned());
        }
        Person::Legacy => {
            let params = params.to_string();
            let put = question::put(session, "elicitation/create", Some(params.as_bytes()), chain::PATIENCE);
            tokio::select! {
                biased;
                _ = control.stop() => return Err("the call was cancelled".to_owned()),
                answer = put => answer.map_err(|why| format!("the client was asked, and {why}"))?,
            }
        }
        Person::Modern(key) => {
            let state = format!("{REVIEW}/{}", asking.call.id);
            let place = session.chains.borrow_mut().keep(key.clone().with_state(&state));
            let result = json!({
                "resultType": "input_required",
                "inputRequests": {REVIEW: {"method": "elicitation/create", "params": params}},
                "requestState": state,
            });
            let line =
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}\n", asking.id.to_json());
            call::deliver(session, control, line.into_bytes()).await;
            let mut over = session.gone.subscribe();
            let retry = tokio::select! {
                biased;
                () = gone(&mut over) => None,
                retry = place => retry.ok(),
                () = sleep_until(Instant::now() + chain::PATIENCE) => None,
            };
            let retry = retry.ok_or("the client did not answer")?;
            let (ask, _) = &*retry;
            let recorded = call::record_started(
                session,
                asking.call,
                Some(&asking.grant.policy),
                ask,
                &asking.grant.granted,
                mask,
            );
            let answer = ask
                .params
                .clone()
                .and_then(|params| object::lookup(&ask.line, params, &["inputResponses", REVIEW]));
            let answer = answer.and_then(|span| serde_json::from_slice(ask.line.get(span)?).ok());
            *repeated = Some(retry);
            recorded.map_err(|refused| refused.detail)?;
            answer.unwrap_or(Value::Null)
        }
    };
    match answer.get("action").and_then(Value::as_str) {
        Some("accept") => Ok(()),
        Some("decline" | "cancel") => Err("a person has not agreed".to_owned()),
        _ => Err("the client's answer says neither yes nor no".to_owned()),
    }
}

/// The question.
fn told(call: &Call, changes: &Changes) -> String {
    let what = call.target.as_deref().unwrap_or(&call.method);
    let mut told = format!(
        "`{what}` of server `{}` has worked on copies. Is this to be done to the files?",
        call.server
    );
    for Change { kind, path, size } in &changes.files {
        let _infallible = write!(told, "\n{} {path} ({size} bytes)", kind.name());
    }
    if changes.left_out > 0 {
        let _infallible = write!(told, "\nand {} more", changes.left_out);
    }
    text::clean(&told)
}

/// Answers the request that has taken the place of the one that the server has answered.
pub(super) async fn deliver_again(session: &Session, retry: &mut Retry, line: Vec<u8>) {
    let (ask, control) = &mut **retry;
    session.forget(&ask.id);
    let line = match envelope::parse(line.trim_ascii_end()) {
        Ok(message) => object::replaced(&line, &message.id, ask.id.to_json().as_bytes()),
        Err(refusal) => reply::error(Some(&ask.id), INTERNAL_ERROR, &refusal.detail),
    };
    call::deliver(session, control, line).await;
}
