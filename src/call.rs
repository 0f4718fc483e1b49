//! The neutral value that stages share about one call: who asks which server for what.
//!
//! Neighbours: made by `mcp` or `commands::exec`, read by `session` and `audit`. Never: holds a handle or does work.

use serde::{Deserialize, Serialize};

/// One request that gets a cell of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Unique in the audit log: supervisor start time, process id and a counter.
    pub id: String,
    /// The server's name in the configuration, or its program's file name.
    pub server: String,
    /// The JSON-RPC method, or `exec`.
    pub method: String,
    /// The tool, prompt or resource that is asked for, if the method names one.
    pub target: Option<String>,
    /// The name of the profile the call runs under.
    pub profile: String,
    /// Who asked: the client's `name/version` from its handshake, and the user id of the supervisor.
    pub who: String,
    /// The identity that the request showed, where that is asked.
    #[serde(default)]
    pub identity: Option<String>,
    /// The trace that the request is part of, if it says so.
    #[serde(default)]
    pub trace: Option<Trace>,
}

impl Call {
    /// The tool that is called, if it is one.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        self.target.as_deref().filter(|_| self.method == "tools/call")
    }

    /// A call of a tool that tests have something to do with.
    #[cfg(test)]
    pub(crate) fn example(tool: &str) -> Self {
        Self {
            id: "1".to_owned(),
            server: "s".to_owned(),
            method: "tools/call".to_owned(),
            target: Some(tool.to_owned()),
            profile: String::new(),
            who: String::new(),
            identity: None,
            trace: None,
        }
    }
}

/// The W3C trace context of a request (Trace Context, level 1), in the form in which it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// `traceparent`
    pub parent: String,
    /// `tracestate`
    pub state: Option<String>,
}

/// Bytes of `tracestate` that are kept; a longer one is left out.
const STATE_MOST: usize = 512;

impl Trace {
    /// A context that is what it has to be: version, trace, parent and flags in small hexadecimal digits, neither of the ids
    /// zero. Later versions may have more behind the flags.
    #[must_use]
    pub fn new(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = parent.split('-');
        let mut part = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length)?;
            part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
        };
        let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        let known = parent.len() == 55 || (version != "00" && parent.len() <= STATE_MOST);
        if version == "ff" || zero(trace) || zero(span) || !known || !is_visible(parent) {
            return None;
        }
        let state = state.filter(|state| !state.is_empty() && state.len() <= STATE_MOST && is_visible(state));
        Some(Self { parent: parent.to_owned(), state: state.map(str::to_owned) })
    }

    /// The trace's id, the parent's, and the flags.
    #[must_use]
    pub fn parts(&self) -> (&str, &str, u8) {
        let part = |range| self.parent.get(range).unwrap_or_default();
        (part(3..35), part(36..52), u8::from_str_radix(part(53..55), 16).unwrap_or(0))
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_taken_apart() {
        let trace = Trace::new(PARENT, Some("rojo=00f067aa0ba902b7")).unwrap();
        assert_eq!(trace.parts(), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1));
        assert_eq!(trace.state.as_deref(), Some("rojo=00f067aa0ba902b7"));
        let later = format!("cc{}-what-the-future-will-be-like", &PARENT[2..]);
        assert_eq!(Trace::new(&later, None).unwrap().parts().2, 1);
        for state in ["", "a\nb", &"x".repeat(513)] {
            assert_eq!(Trace::new(PARENT, Some(state)).unwrap().state, None);
        }
    }

    #[test]
    fn what_is_no_context_is_none() {
        let wrong = [
            "",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.to_uppercase(),
            &PARENT.replace("00-", "ff-"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            &PARENT.replace('-', "_"),
            &PARENT.replace("31-01", "3\u{e9}-01"),
            &format!("cc{}-\n", &PARENT[2..]),
        ];
        for parent in wrong {
            assert_eq!(Trace::new(parent, None), None, "{parent}");
        }
    }
}
