//! What a client declares and a process for each call could not keep to, taken out of its requests.
//!
//! A server that reads that its client knows tasks may answer a call with the handle of one, and its process ends with that answer.
//! One that does not read it answers with the result.
//!
//! Neighbours: [`super::client`] asks for every request that does not go to the cell of a session; [`super::catalogue`] does the
//! same to what servers offer. Never: changes another byte.

use crate::mcp::envelope::{self, Message};
use crate::mcp::object;

/// The client's tasks in a legacy handshake,
const LEGACY: &[&str] = &["params", "capabilities", "tasks"];
/// and in every modern request.
const MODERN: &[&str] = &[
    "params",
    "_meta",
    "io.modelcontextprotocol/clientCapabilities",
    "extensions",
    "io.modelcontextprotocol/tasks",
];

/// The request without the client's tasks, if it declares any.
pub(super) fn without_tasks(line: &[u8], method: &str) -> Option<(Vec<u8>, Message)> {
    let path = if method == "initialize" { LEGACY } else { MODERN };
    object::lookup(line, 0..line.len(), path)?;
    let line = object::without(line.to_vec(), |line| Some(0..line.len()), path);
    // Nothing but a member was taken out, so it is still a message.
    let message = envelope::parse(&line).ok()?;
    Some((line, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(line: &str, method: &str) -> Option<String> {
        let (line, message) = without_tasks(line.as_bytes(), method)?;
        assert_eq!(&line[message.id], b"7");
        Some(String::from_utf8(line).unwrap())
    }

    #[test]
    fn tasks_of_the_client_are_taken_out_and_nothing_else() {
        let modern = |extensions: &str| {
            let meta = format!(
                r#"{{"io.modelcontextprotocol/clientCapabilities":{{"extensions":{{{extensions}}}}},"x":1.0}}"#
            );
            format!(r#"{{"jsonrpc":"2.0","params":{{"_meta":{meta}}}, "method":"tools/call","id":7}}"#)
        };
        let tasks = r#""io.modelcontextprotocol/tasks":{}"#;
        assert_eq!(without(&modern(tasks), "tools/call"), Some(modern("")));
        let both = format!(r#"{tasks},"a/b":{{}}"#);
        assert_eq!(without(&modern(&both), "tools/call"), Some(modern(r#""a/b":{}"#)));
        assert_eq!(without(&modern(""), "tools/call"), None);
        let legacy = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"capabilities":{"roots":{},"tasks":{"list":{}}}}}"#;
        let expected =
            r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"capabilities":{"roots":{}}}}"#;
        assert_eq!(without(legacy, "initialize").as_deref(), Some(expected));
        // Of another method it is a member like any other.
        assert_eq!(without(legacy, "tools/call"), None);
    }
}
