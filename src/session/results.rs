//! Checks what a tool answers with against the `outputSchema` that its server lists.
//!
//! A result that is to be checked is held whole, up to [`MOST_CHECKED`]; of what is longer nobody can say whether it fits.
//! What tells of an error (`isError`, or an error of JSON-RPC) need not fit, as the protocol has it.
//!
//! Neighbours: [`super::call`] asks before an answer goes on, [`super::schemas`] knows what the server lists,
//! [`super::arguments`] has refused before the call what never can be checked. Never: changes a result.

use std::rc::Rc;

use super::schemas::Known;
use super::{Ask, Session};
use crate::arguments::strict::{self, Unreadable};
use crate::arguments::{Fault, Found, Schema};
use crate::mcp::envelope::{Kind, Message, only};
use crate::mcp::object;
use crate::outcome::{Layer, Violation};
use crate::policy::config::Results;
use crate::policy::print::key;

/// The longest result that is held and checked. As a value it takes some ten times as much.
pub(super) const MOST_CHECKED: usize = 1024 * 1024;
/// The member that is checked.
const CONTENT: &str = "structuredContent";

/// What the result of one call must be.
#[derive(Debug)]
pub(super) struct Check {
    schema: Result<Rc<Schema>, String>,
    refuses: bool,
    /// The TOML that lets through what does not fit.
    allow: String,
}

impl Check {
    /// What is known when the call is run: a list that changes meanwhile changes nothing. `None` where nobody looks, or the
    /// server promises nothing.
    pub(super) fn of(session: &Session, ask: &Ask) -> Option<Self> {
        let tool = ask.target.as_deref().filter(|_| ask.method == "tools/call")?;
        let refuses = match session.options.profiles.results(tool) {
            Results::Off => return None,
            Results::Warn => false,
            Results::Refuse => true,
        };
        let known = session.schemas(ask.meta.era).of_result(tool);
        let schema = match known {
            Known::Free => return None,
            Known::Schema(schema) => Ok(schema),
            Known::Unusable(why) => Err(why),
            // A call that is to be refused waits for the list; it was changed since.
            Known::Unknown | Known::Unlisted if refuses => {
                Err("the server changes its list of tools".to_owned())
            }
            Known::Unknown | Known::Unlisted => return None,
        };
        Some(Self { schema, refuses, allow: allow(session, tool) })
    }

    /// Is a result held back that does not fit?
    pub(super) const fn refuses(&self) -> bool {
        self.refuses
    }

    /// Is there a reason to hold a result?
    pub(super) const fn holds(&self) -> bool {
        self.refuses || self.schema.is_ok()
    }

    /// What is wrong with an answer.
    pub(super) fn faults(&self, line: &[u8], message: &Message) -> Vec<Fault> {
        let (Kind::Answer { error: false, .. }, Some(body)) = (&message.kind, &message.body) else {
            return Vec::new();
        };
        let members = object::members(line, body.clone());
        let apart = |why: String| vec![self.fault(String::new(), format!("cannot be told apart: {why}"))];
        // What only one of two readers takes for an error has to fit.
        match only(&members, "isError") {
            Ok(Some(flag)) if line.get(flag.value.clone()) == Some(b"true") => return Vec::new(),
            Ok(_) => {}
            Err(why) => return apart(why),
        }
        let content = match only(&members, CONTENT) {
            Ok(content) => content.and_then(|member| line.get(member.value.clone())),
            Err(why) => return apart(why),
        };
        let schema = match &self.schema {
            Ok(schema) => schema,
            Err(why) => return vec![self.unchecked(&format!("of the tool's `outputSchema`, {why}"))],
        };
        let Some(content) = content else {
            return vec![self.fault(String::new(), format!("must have the member `{CONTENT}`"))];
        };
        match strict::read(content) {
            Err(Unreadable { at, wrong }) => vec![self.fault(format!("/{CONTENT}{at}"), wrong.to_string())],
            Ok(content) => {
                let found = schema.check(&content).err().unwrap_or_default();
                found.into_iter().map(|found| self.found(found)).collect()
            }
        }
    }

    /// What is wrong with a result that is too long to be held.
    pub(super) fn too_long(&self) -> Fault {
        self.unchecked(&format!("it has more than {MOST_CHECKED} bytes"))
    }

    fn unchecked(&self, why: &str) -> Fault {
        self.fault(String::new(), format!("cannot be checked: {why}"))
    }

    fn found(&self, found: Found) -> Fault {
        let rule = format!("`{}` of the tool's own `outputSchema`", found.keyword);
        Fault { rule, ..self.fault(format!("/{CONTENT}{}", found.at), found.told) }
    }

    fn fault(&self, at: String, told: String) -> Fault {
        let allow = self.refuses.then(|| self.allow.clone());
        Fault { at, told, rule: "the tool's own `outputSchema`".to_owned(), allow }
    }

    /// What the record says of it.
    pub(super) fn violation(&self, fault: &Fault) -> Violation {
        let operation =
            if self.refuses { "answer with such a result" } else { "answer with such a result, passed on" };
        Violation {
            object: fault.at.clone(),
            allow: fault.allow.clone(),
            ..Violation::of_toolcell(Layer::Arguments, operation, fault.rule.clone())
        }
    }
}

/// The TOML by which what does not fit, or cannot be checked, goes on.
pub(super) fn allow(session: &Session, tool: &str) -> String {
    format!("[servers.{}.tools.{}]\nvalidate-output = \"warn\"", key(&session.options.server), key(tool))
}
