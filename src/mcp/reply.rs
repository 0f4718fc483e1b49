//! Lines that toolcell writes itself: errors, results of stopped calls, its own part of a handshake.
//!
//! Neighbours: [`crate::session`] sends them. Never: changes a line of either side; that is [`super::object`]'s part.

use serde_json::{Value, json};

use super::annex::VIOLATIONS;
use super::envelope::{Era, Id};

/// An id that no client has asked with, for a line that has to be finished but must not be believed.
///
/// TypeScript's and Python's clients report a response with an unknown id and go on; a line that is not JSON
/// at all ends the connection of others.
pub const VOID_ID: &str = "dev.toolcell/void";

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn id_value(id: Option<&Id>) -> Value {
    match id {
        None => Value::Null,
        Some(Id::Number(number)) => json!(number),
        Some(Id::Text(text)) => json!(text),
    }
}

/// A JSON-RPC error; without an id when the request has none that can be read.
#[must_use]
pub fn error(id: Option<&Id>, code: i32, message: &str) -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "id": id_value(id), "error": {"code": code, "message": message}}))
}

/// The result of a tool call that the model should read as a failure, with what its cell was refused in `_meta`.
#[must_use]
pub fn tool_error(id: &Id, era: Era, text: &str, violations: Option<Value>) -> Vec<u8> {
    let mut result = json!({"content": [{"type": "text", "text": text}], "isError": true});
    if let Some(result) = result.as_object_mut() {
        if era == Era::Modern {
            result.insert("resultType".to_owned(), json!("complete"));
        }
        if let Some(violations) = violations {
            result.insert("_meta".to_owned(), json!({VIOLATIONS: violations}));
        }
    }
    line(&json!({"jsonrpc": "2.0", "id": id_value(Some(id)), "result": result}))
}

/// An empty result.
#[must_use]
pub fn empty(id: &Id) -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "id": id_value(Some(id)), "result": {}}))
}

/// A request with parameters that are already JSON.
#[must_use]
pub fn request(id: &Id, method: &str, params: Option<&[u8]>) -> Vec<u8> {
    let mut out =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":{}", id.to_json(), json!(method)).into_bytes();
    if let Some(params) = params {
        out.extend_from_slice(b",\"params\":");
        out.extend_from_slice(params);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// The notification that ends a legacy handshake.
#[must_use]
pub fn initialized() -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
}

/// Tells the side that was asked that nobody waits for the answer any more.
#[must_use]
pub fn cancelled(id: &Id, reason: &str) -> Vec<u8> {
    line(&json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": id_value(Some(id)), "reason": reason},
    }))
}

/// The end of an answer that was cut off inside its result: an id that nobody waits for.
///
/// When the real id stood before the result and has already been sent, this one is the second;
/// readers take the last of two, and those that are stricter refuse the line.
#[must_use]
pub fn void_end() -> Vec<u8> {
    format!(",\"jsonrpc\":\"2.0\",\"id\":\"{VOID_ID}\"}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn lines() {
        let id = Id::Text("a\"b".into());
        assert_eq!(
            text(error(None, -32700, "no")),
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"no\"}}\n"
        );
        assert_eq!(text(empty(&id)), "{\"jsonrpc\":\"2.0\",\"id\":\"a\\\"b\",\"result\":{}}\n");
        assert_eq!(
            text(request(&Id::Number(1), "initialize", Some(b"{\"x\":1.0}"))),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"x\":1.0}}\n"
        );
        assert!(text(tool_error(&id, Era::Modern, "t", None)).contains("\"resultType\":\"complete\""));
        let legacy = text(tool_error(&id, Era::Legacy, "t", Some(json!([7]))));
        assert!(
            !legacy.contains("resultType") && legacy.contains("\"_meta\":{\"dev.toolcell/violations\":[7]}")
        );
    }
}
