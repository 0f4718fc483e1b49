//! Notices an error that looks as if the server had lost what an earlier call told it, and says what would keep it.
//!
//! Neighbours: [`super::call`] shows it failures of servers whose calls have fresh processes. Never: changes whether a call failed.

use super::{Ask, Session};
use crate::mcp::envelope::{Kind, Message};
use crate::policy::config::state::State;
use crate::policy::print::key;

/// So much of an answer is looked at.
const LOOKED_AT: usize = 4096;
/// What servers say that know nothing any more, in lower case.
const SAID: &[&str] = &[
    "session not found",
    "session does not exist",
    "session has expired",
    "session expired",
    "unknown session",
    "invalid session",
    "no such session",
    "no active session",
    "unknown resource",
    "resource not found",
    "not logged in",
    "no active transaction",
];

/// The phrase of an answer that tells of something lost.
fn phrase(line: &[u8], message: &Message) -> Option<&'static str> {
    let failed = message.tool_error || matches!(message.kind, Kind::Answer { error: true, .. });
    let body = message.body.clone().filter(|_| failed)?;
    let said = line.get(body)?;
    let said = String::from_utf8_lossy(said.get(..LOOKED_AT).unwrap_or(said)).to_lowercase();
    SAID.iter().find(|phrase| said.contains(**phrase)).copied()
}

/// What to tell of an answer, if it looks so. The operator is told once.
pub(super) fn hint(session: &Session, ask: &Ask, line: &[u8], message: &Message) -> Option<String> {
    let phrase = phrase(line, message)?;
    let tool = ask.target.as_deref().filter(|_| ask.method == "tools/call");
    if session.options.profiles.state(tool) != State::Call {
        return None;
    }
    let hint = format!(
        "the server says `{phrase}`: each call has a fresh process, which knows nothing of the calls before it; `state = \"session\"` in `[servers.{}]`, \
         or `--state session`, keeps one process for the client's session",
        key(&session.options.server)
    );
    if !session.forgotten.replace(true) {
        (session.options.notice)(&hint);
    }
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::envelope::parse;

    #[test]
    fn only_a_failure_that_speaks_of_something_lost_counts() {
        let of = |body: &str| {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,{body}}}"#);
            phrase(line.as_bytes(), &parse(line.as_bytes()).unwrap())
        };
        let text = r#"[{"type":"text","text":"Error: Session Not Found (x)"}]"#;
        assert_eq!(
            of(&format!(r#""result":{{"isError":true,"content":{text}}}"#)),
            Some("session not found")
        );
        assert_eq!(of(&format!(r#""result":{{"content":{text}}}"#)), None);
        assert_eq!(
            of(r#""error":{"code":-32002,"message":"Unknown resource: x:/a"}"#),
            Some("unknown resource")
        );
        assert_eq!(of(r#""error":{"code":-32602,"message":"unknown tool"}"#), None);
    }
}
