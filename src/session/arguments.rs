//! Checks what a call's arguments are before anything is started for it.
//!
//! Neighbours: [`super::client`] hands calls over, [`super::call`] and [`super::chain`] run those that are let on,
//! [`crate::arguments`] says what is wrong. Never: changes a byte of a call.

use std::rc::Rc;
use std::time::Duration;

use super::{Ask, Control, Finished, Session, call, text};
use crate::arguments::Fault;
use crate::arguments::strict::{self, Unreadable};
use crate::mcp::envelope::{INVALID_PARAMS, only};
use crate::mcp::{object, reply};
use crate::outcome::{Evidence, Layer, Status, Usage, Violation};

/// Members of a request and of its parameters that decide what is run on what.
const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params"];
const PARAMS: &[&str] = &["name", "uri", "ref", "arguments", "argument", "_meta"];

/// Lets a call on, or refuses it.
pub(super) fn check(session: &Rc<Session>, ask: Ask, control: Control) {
    match readable(&ask) {
        Ok(()) => go_on(session, ask, control),
        Err(fault) => refuse(session, &ask, &[fault]),
    }
}

fn go_on(session: &Rc<Session>, ask: Ask, control: Control) {
    // An answer to a server's question goes to the process that asked.
    let fresh = session.chains.borrow_mut().hand_over(ask, control);
    if let Err(fresh) = fresh {
        session.spawn(call::run(Rc::clone(session), *fresh));
    }
}

/// Does every server read the same in this request?
fn readable(ask: &Ask) -> Result<(), Fault> {
    let fault = |at: String, told: String| Fault {
        at,
        told,
        rule: "what all readers of JSON read alike".to_owned(),
        allow: None,
    };
    let params = ask.params.clone().unwrap_or_default();
    for (span, names) in [(0..ask.line.len(), ENVELOPE), (params.clone(), PARAMS)] {
        let members = object::members(&ask.line, span);
        for name in names {
            only(&members, name)
                .map_err(|why| fault(String::new(), format!("cannot be told apart: {why}")))?;
        }
    }
    let Some(params) = ask.line.get(params).filter(|params| !params.is_empty()) else { return Ok(()) };
    strict::read(params).map(drop).map_err(|Unreadable { at, wrong }| match at.strip_prefix("/arguments") {
        Some(at) => fault(at.to_owned(), wrong.to_string()),
        None => fault(String::new(), format!("stand in parameters where `{at}` {wrong}")),
    })
}

/// Tells the client and the records why a call is not run.
fn refuse(session: &Session, ask: &Ask, faults: &[Fault]) {
    let policy = session.options.profiles.policy(&ask.method, ask.target.as_deref());
    let policy = policy.as_deref();
    let mut call = call::named(session, ask, &ask.method);
    policy.map_or("", |policy| &policy.name).clone_into(&mut call.profile);
    let violations = faults.iter().map(violation).collect();
    // What is wrong stands in the violations, where a profile's `redact` covers it.
    let status = Status::Refused { detail: "the arguments are not what they must be".to_owned() };
    let finished = Finished {
        status,
        usage: Usage::default(),
        violations,
        receipt: None,
        stderr: Vec::new(),
        duration: Duration::ZERO,
    };
    match call::record_started(session, &call, policy, ask) {
        Ok(()) => session.record(&call, policy, &finished),
        Err(refused) => {
            (session.options.notice)(&format!("call `{}` is refused: {}", call.id, refused.detail))
        }
    }
    session.forget(&ask.id);
    let told = text::unfit(faults);
    session.reply(match ask.method.as_str() {
        "tools/call" => reply::tool_error(&ask.id, ask.meta.era, &told, None),
        _ => reply::error(Some(&ask.id), INVALID_PARAMS, &told),
    });
}

fn violation(fault: &Fault) -> Violation {
    Violation {
        layer: Layer::Arguments,
        limit: None,
        operation: "call with such arguments".to_owned(),
        object: fault.at.clone(),
        errno: None,
        count: 1,
        value: None,
        peak: None,
        rule: fault.rule.clone(),
        allow: fault.allow.clone(),
        evidence: Evidence::Supervisor,
        first_us: None,
        last_us: None,
    }
}
