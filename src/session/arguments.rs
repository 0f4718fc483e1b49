//! Checks what a call's arguments are before anything is started for it.
//!
//! Neighbours: [`super::client`] hands calls over, [`super::call`] and [`super::chain`] run those that are let on,
//! [`crate::arguments`] says what is wrong. Never: changes a byte of a call.

use std::ops::Range;
use std::rc::Rc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::catalogue::{Job, Learn};
use super::locked::Standing;
use super::schemas::Known;
use super::{Ask, Control, Finished, Session, call, locked, results, text};
use crate::arguments::strict::{self, Unreadable};
use crate::arguments::{Fault, Found};
use crate::lock::Difference;
use crate::mcp::envelope::{INVALID_PARAMS, only};
use crate::mcp::{object, reply};
use crate::outcome::{Layer, Status, Violation};
use crate::policy::config::Results;
use crate::policy::mistakes::closest;
use crate::policy::print::key;

/// Who says what tools there are.
const LISTED: &str = "the server's `tools/list`";
/// Members of `_meta` that the protocol itself asks for.
const META_PREFIX: &str = "io.modelcontextprotocol/";
/// Members of a request and of its parameters that decide what is run on what.
const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params"];
const PARAMS: &[&str] = &["name", "uri", "ref", "arguments", "argument", "_meta"];

/// Lets a call on, or refuses it; at once, if what its tool takes is known.
pub(super) fn check(session: &Rc<Session>, ask: Ask, control: Control) {
    let arguments = match readable(&ask.line, ask.params.clone().unwrap_or_default()) {
        Ok(arguments) => arguments,
        Err(fault) => return refuse(session, &ask, &[fault]),
    };
    match judge(session, &ask, &arguments) {
        Judged::Fits => go_on(session, ask, control),
        Judged::Unfit(faults) => refuse(session, &ask, &faults),
        Judged::Changed(differences) => locked::refuse(session, &ask, &differences),
        Judged::Unknown => session.spawn(learn(Rc::clone(session), ask, control, arguments)),
    }
}

/// What is known of arguments.
enum Judged {
    Fits,
    Unfit(Vec<Fault>),
    /// The server, or the tool, is not what was accepted.
    Changed(Vec<Rc<Difference>>),
    /// The server has not been asked yet what they must be.
    Unknown,
}

fn judge(session: &Session, ask: &Ask, arguments: &Value) -> Judged {
    match locked::standing(session, ask) {
        Standing::Free => {}
        Standing::Unknown => return Judged::Unknown,
        Standing::Changed(differences) => return Judged::Changed(differences),
    }
    let tool = match (ask.method.as_str(), &ask.target) {
        ("tools/call", Some(tool)) => tool,
        _ => return Judged::Fits,
    };
    let all = |told: &str| {
        let rule = "the schema of the tool's arguments".to_owned();
        Judged::Unfit(vec![Fault { at: String::new(), told: told.to_owned(), rule, allow: None }])
    };
    if !arguments.is_object() {
        return all("must be an object");
    }
    // Both are asked, so that all that is wrong is told; what the operator wants comes first.
    let own = session.options.profiles.check(tool, arguments);
    let theirs = match by_server(session, ask, tool, arguments) {
        Judged::Fits => of_result(session, ask, tool),
        judged => judged,
    };
    match theirs {
        Judged::Unknown => Judged::Unknown,
        Judged::Changed(differences) => Judged::Changed(differences),
        Judged::Fits if own.is_empty() => Judged::Fits,
        Judged::Fits => Judged::Unfit(own),
        Judged::Unfit(theirs) => Judged::Unfit(own.into_iter().chain(theirs).collect()),
    }
}

/// What is known by the schema that the server lists.
fn by_server(session: &Session, ask: &Ask, tool: &str, arguments: &Value) -> Judged {
    if !session.options.profiles.validates(tool) {
        return Judged::Fits;
    }
    let listed = session.schemas(ask.meta.era).of_arguments(tool);
    match listed {
        Known::Unknown => Judged::Unknown,
        Known::Free => Judged::Fits,
        Known::Schema(schema) => match schema.check(arguments) {
            Ok(()) => Judged::Fits,
            Err(found) => Judged::Unfit(found.into_iter().map(of_server).collect()),
        },
        Known::Unlisted => {
            let schemas = session.schemas(ask.meta.era);
            let meant = closest(tool, schemas.names());
            let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            unchecked(session, tool, format!("are for a tool that the server does not list{meant}"))
        }
        Known::Unusable(why) => {
            unchecked(session, tool, format!("cannot be checked: of the tool's `inputSchema`, {why}"))
        }
    }
}

/// A tool whose results could only be refused is not called: what it does could not be undone.
fn of_result(session: &Session, ask: &Ask, tool: &str) -> Judged {
    if session.options.profiles.results(tool) != Results::Refuse {
        return Judged::Fits;
    }
    let why = match session.schemas(ask.meta.era).of_result(tool) {
        Known::Unknown => return Judged::Unknown,
        Known::Free | Known::Schema(_) => return Judged::Fits,
        Known::Unlisted => "the server does not list the tool".to_owned(),
        Known::Unusable(why) => format!("of the tool's `outputSchema`, {why}"),
    };
    let told = format!("are for a tool whose results cannot be checked: {why}");
    let allow = Some(results::allow(session, tool));
    Judged::Unfit(vec![Fault { at: String::new(), told, rule: LISTED.to_owned(), allow }])
}

/// What cannot be checked is refused, unless the configuration says that it need not be.
fn unchecked(session: &Session, tool: &str, told: String) -> Judged {
    let table = format!("[servers.{}.tools.{}]", key(&session.options.server), key(tool));
    let allow = Some(format!("{table}\nvalidate = \"off\""));
    Judged::Unfit(vec![Fault { at: String::new(), told, rule: LISTED.to_owned(), allow }])
}

fn of_server(found: Found) -> Fault {
    let rule = format!("`{}` of the tool's own `inputSchema`", found.keyword);
    Fault { at: found.at, told: found.told, rule, allow: None }
}

/// Waits until the program was compared, asks the server for its tools if they count, and lets the call on or refuses it.
async fn learn(session: Rc<Session>, ask: Ask, mut control: Control, arguments: Value) {
    tokio::select! {
        biased;
        _ = control.stop() => return,
        () = locked::compared(&session) => {}
    }
    // What can be judged by now is not asked for its tools, which a server need not have.
    let judged = match judge(&session, &ask, &arguments) {
        Judged::Unknown => match learned(&session, &ask, &mut control, &arguments).await {
            Some(judged) => judged,
            None => return,
        },
        judged => judged,
    };
    match judged {
        Judged::Fits => go_on(&session, ask, control),
        Judged::Unfit(faults) => refuse(&session, &ask, &faults),
        Judged::Changed(differences) => locked::refuse(&session, &ask, &differences),
        Judged::Unknown => {
            let told = "cannot be checked: the server changes its list of tools".to_owned();
            refuse(
                &session,
                &ask,
                &[Fault { at: String::new(), told, rule: LISTED.to_owned(), allow: None }],
            );
        }
    }
}

/// What is known once the list of tools has been seen. `None`: nobody waits for it any more.
async fn learned(
    session: &Rc<Session>,
    ask: &Ask,
    control: &mut Control,
    arguments: &Value,
) -> Option<Judged> {
    let (done, learned) = oneshot::channel();
    session.catalogue(
        ask.meta.era,
        ask.identity.clone(),
        Job::Learn(Learn { meta: own_meta(ask), done, pages: 0 }),
    );
    let learned = tokio::select! {
        biased;
        _ = control.stop() => return None,
        learned = learned => learned,
    };
    match learned {
        // The list may have changed while it was read.
        Ok(Ok(())) => Some(judge(session, ask, arguments)),
        Ok(Err(why)) => {
            let tool = ask.target.as_deref().unwrap_or_default();
            Some(unchecked(session, tool, format!("cannot be checked: {why}")))
        }
        // The session is over.
        Err(_) => None,
    }
}

/// What a modern server has to be told with every request, from that of the call.
fn own_meta(ask: &Ask) -> Option<Vec<u8>> {
    let meta = object::member(&ask.line, ask.params.clone()?, "_meta")?;
    let members = object::members(&ask.line, meta);
    let kept = members.iter().filter(|member| member.name.starts_with(META_PREFIX));
    let parts: Vec<&[u8]> =
        kept.filter_map(|member| ask.line.get(member.key.start..member.value.end)).collect();
    Some([b"{", parts.join(&b","[..]).as_slice(), b"}"].concat())
}

fn go_on(session: &Rc<Session>, ask: Ask, control: Control) {
    if session.keeps(&ask) {
        let (era, identity) = (ask.meta.era, ask.identity.clone());
        return session.catalogue(era, identity, Job::Ask(Box::new((ask, control))));
    }
    // An answer to a server's question goes to the process that asked.
    let fresh = session.chains.borrow_mut().hand_over(ask, control);
    if let Err(fresh) = fresh {
        session.spawn(call::run(Rc::clone(session), *fresh, None));
    }
}

/// The arguments of a request whose parameters are at this place of its line, if every server reads the same in it.
///
/// # Errors
/// Where they may not.
pub fn readable(line: &[u8], params: Range<usize>) -> Result<Value, Fault> {
    let fault = |at: String, told: String| Fault {
        at,
        told,
        rule: "what all readers of JSON read alike".to_owned(),
        allow: None,
    };
    for (span, names) in [(0..line.len(), ENVELOPE), (params.clone(), PARAMS)] {
        let members = object::members(line, span);
        for name in names {
            only(&members, name)
                .map_err(|why| fault(String::new(), format!("cannot be told apart: {why}")))?;
        }
    }
    let none = || Value::Object(serde_json::Map::new());
    let Some(params) = line.get(params).filter(|params| !params.is_empty()) else { return Ok(none()) };
    let read = strict::read(params);
    let arguments = |mut params: Value| params.get_mut("arguments").map(Value::take);
    // None, and `null`, are an empty object to every server.
    read.map(|params| arguments(params).filter(|found| !found.is_null()).unwrap_or_else(none)).map_err(
        |Unreadable { at, wrong }| match at.strip_prefix("/arguments") {
            Some(at) => fault(at.to_owned(), wrong.to_string()),
            None => fault(String::new(), format!("stand in parameters where `{at}` {wrong}")),
        },
    )
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
    let finished = Finished::refused(status, violations);
    call::record_refused(session, &call, policy, ask, &finished);
    session.forget(&ask.id);
    let told = text::unfit(faults);
    session.reply(match ask.method.as_str() {
        "tools/call" => reply::tool_error(&ask.id, ask.meta.era, &told, None),
        _ => reply::error(Some(&ask.id), INVALID_PARAMS, &told),
    });
}

fn violation(fault: &Fault) -> Violation {
    Violation {
        object: fault.at.clone(),
        allow: fault.allow.clone(),
        ..Violation::of_toolcell(Layer::Arguments, "call with such arguments", fault.rule.clone())
    }
}
