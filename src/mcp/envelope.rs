//! Parses the envelope of one JSON-RPC message: kind, id, method, and where the rest lies.
//!
//! Neighbours: [`super::scan`] validates, [`super::object`] finds members of `params`; both sides of the session use it.
//! Never: reads what a message is about, or accepts a message that two readers could understand differently.

use std::fmt;
use std::ops::Range;

use super::object::{self, Member};
use super::scan::Scanner;
use crate::call::Trace;

/// The member of `_meta` that marks a message of a modern client.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The member of `_meta` in which a modern client names itself.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";

/// A request id or progress token: two that read the same are the same, however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A string.
    Text(String),
}

impl Id {
    /// Reads a JSON value. `None`: neither a string nor an integer that every reader can hold.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        if raw.first() == Some(&b'"') {
            return object::text(raw).map(|text| Self::Text(text.into_owned()));
        }
        std::str::from_utf8(raw).ok()?.parse().ok().map(Self::Number)
    }

    /// The id as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request {
        /// Its id.
        id: Id,
        /// The method's name.
        method: String,
    },
    /// Wants none.
    Notification {
        /// The method's name.
        method: String,
    },
    /// A result, or an error when `error` is set.
    Answer {
        /// The id of the request.
        id: Id,
        /// It is a JSON-RPC error.
        error: bool,
    },
}

/// One message. Spans are positions in its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Where the id stands; empty in a notification.
    pub id: Range<usize>,
    /// Where the parameters stand.
    pub params: Option<Range<usize>>,
    /// Where the result or error stands.
    pub body: Option<Range<usize>>,
    /// `result.isError` is `true`.
    pub tool_error: bool,
}

/// Why a line is no message, as JSON-RPC classes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// -32700 or -32600.
    pub code: i32,
    /// The id, if the line has a usable one.
    pub id: Option<Id>,
    /// What is wrong.
    pub detail: String,
}

/// JSON that cannot be read.
pub const PARSE_ERROR: i32 = -32700;
/// JSON that is no request.
pub const INVALID_REQUEST: i32 = -32600;
/// A method that is not offered.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Parameters that the protocol does not allow.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault on this side.
pub const INTERNAL_ERROR: i32 = -32603;

/// Reads the envelope of one line.
///
/// # Errors
/// What is wrong with it, and the JSON-RPC code for that.
pub fn parse(line: &[u8]) -> Result<Message, Refusal> {
    let mut scanner = Scanner::new();
    if let Err(fault) = scanner.feed(line).and_then(|()| scanner.finish()) {
        return Err(Refusal { code: PARSE_ERROR, id: None, detail: fault.to_string() });
    }
    read(&scanner, |span| line.get(span).unwrap_or_default())
}

/// Reads the envelope that a scanner has seen. `slice` gives the bytes at a span of `jsonrpc`, `id` or `method`.
///
/// # Errors
/// What is wrong with it, and the JSON-RPC code for that.
pub fn read<'a>(scanner: &Scanner, slice: impl Fn(Range<usize>) -> &'a [u8]) -> Result<Message, Refusal> {
    let spans = scanner.spans();
    let raw_id = spans.id.clone();
    let id = raw_id.clone().and_then(|span| Id::parse(slice(span)));
    let invalid = |detail: &str| Refusal { code: INVALID_REQUEST, id: None, detail: detail.to_owned() };
    match scanner.root() {
        Some(b'{') => {}
        Some(b'[') => return Err(invalid("a batch, which MCP over stdio does not have")),
        _ => return Err(invalid("not a JSON object")),
    }
    if scanner.duplicate() {
        return Err(invalid("a member of the envelope is there twice"));
    }
    let invalid = |detail: &str| Refusal { id: id.clone(), ..invalid(detail) };
    let version = spans.jsonrpc.clone().and_then(|span| object::text(slice(span)));
    if version.as_deref() != Some("2.0") {
        return Err(invalid("`jsonrpc` is not `\"2.0\"`"));
    }
    if raw_id.is_some() && id.is_none() {
        return Err(invalid("`id` is neither a string nor an integer"));
    }
    let method = match spans.method.clone() {
        None => None,
        Some(span) => match object::text(slice(span)) {
            Some(method) => Some(method.into_owned()),
            None => return Err(invalid("`method` is not a string")),
        },
    };
    let kind = match (method, id.clone(), &spans.result, &spans.error) {
        (Some(method), Some(id), None, None) => Kind::Request { id, method },
        (Some(method), None, None, None) => Kind::Notification { method },
        (None, Some(id), Some(_), None) => Kind::Answer { id, error: false },
        (None, Some(id), None, Some(_)) => Kind::Answer { id, error: true },
        (None, None, None, Some(_)) => return Err(invalid("an error that names no request")),
        _ => return Err(invalid("neither a request nor an answer")),
    };
    Ok(Message {
        kind,
        id: raw_id.unwrap_or_default(),
        params: spans.params.clone(),
        body: spans.result.clone().or_else(|| spans.error.clone()),
        tool_error: scanner.tool_error(),
    })
}

/// Which kind of protocol a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// Revisions up to 2025-11-25: a handshake, then a session.
    Legacy,
    /// From 2026-07-28 on: every request stands alone.
    Modern,
}

/// What `_meta` of a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Modern if it names its protocol version.
    pub era: Era,
    /// The token under which progress is reported.
    pub progress: Option<Id>,
    /// The client's `name/version`, if it names itself.
    pub client: Option<String>,
    /// The trace that it is part of.
    pub trace: Option<Box<Trace>>,
}

/// Reads `params._meta`.
#[must_use]
pub fn meta(line: &[u8], params: Option<&Range<usize>>) -> Meta {
    let meta = params.and_then(|params| object::member(line, params.clone(), "_meta"));
    let get = |name: &str| meta.clone().and_then(|meta| object::member(line, meta, name));
    let text = |name: &str| get(name).and_then(|span| object::text(line.get(span)?));
    Meta {
        era: if get(META_PROTOCOL_VERSION).is_some() { Era::Modern } else { Era::Legacy },
        progress: get("progressToken").and_then(|span| Id::parse(line.get(span)?)),
        client: get(META_CLIENT_INFO).and_then(|span| client_name(line, span)),
        trace: text("traceparent")
            .and_then(|parent| Trace::new(&parent, text("tracestate").as_deref()).map(Box::new)),
    }
}

/// `name/version` of an implementation object.
#[must_use]
pub fn client_name(line: &[u8], info: Range<usize>) -> Option<String> {
    let name = text_member(line, info.clone(), "name")?;
    Some(match text_member(line, info, "version") {
        Some(version) => format!("{name}/{version}"),
        None => name,
    })
}

/// The text of a member that is a string.
#[must_use]
pub fn text_member(line: &[u8], span: Range<usize>, name: &str) -> Option<String> {
    let value = object::member(line, span, name)?;
    object::text(line.get(value)?).map(std::borrow::Cow::into_owned)
}

/// The value of a string member that decides what a request may do.
///
/// A name that is there twice, or again in other letters, is refused: some servers take the first,
/// some the last, and some compare without case, so the profile could be chosen by another name than the tool.
///
/// # Errors
/// What is wrong with the parameters.
pub fn target(line: &[u8], params: Option<&Range<usize>>, name: &str) -> Result<String, String> {
    let all = params.map(|params| object::members(line, params.clone())).unwrap_or_default();
    let mut alike = all.iter().filter(|member| alike(&member.name, name));
    let found = alike.next().filter(|member| member.name == name);
    if alike.next().is_some() {
        return Err(format!("`params.{name}` is there more than once"));
    }
    found
        .and_then(|member| object::text(line.get(member.value.clone())?))
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| format!("`params.{name}` is not a string"))
}

/// The only member of this name.
///
/// # Errors
/// It is there twice, or in other letters, and a server that compares without case may take either.
pub fn only<'m, 'l>(members: &'m [Member<'l>], name: &str) -> Result<Option<&'m Member<'l>>, String> {
    let mut alike = members.iter().filter(|member| alike(&member.name, name));
    match (alike.next(), alike.next()) {
        (None, _) => Ok(None),
        (Some(member), None) if member.name == name => Ok(Some(member)),
        (Some(_), None) => Err(format!("`{name}` is written in other letters")),
        (Some(_), Some(_)) => Err(format!("`{name}` is there more than once")),
    }
}

/// Could a reader that compares without case take one name for the other?
#[must_use]
pub fn alike(one: &str, other: &str) -> bool {
    // Nearly all names are ASCII, and each call's are compared with each that decides.
    if one.is_ascii() && other.is_ascii() {
        return one.eq_ignore_ascii_case(other);
    }
    folded(one) == folded(other)
}

/// Letters that any reader's comparison without case could take for each other.
#[must_use]
pub fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> (i32, Option<Id>) {
        let refusal = parse(line.as_bytes()).unwrap_err();
        (refusal.code, refusal.id)
    }

    #[test]
    fn kinds() {
        let line = br#"{"id":"a","jsonrpc":"2.0","params":{"x":1},"method":"tools/call"}"#;
        let message = parse(line).unwrap();
        assert_eq!(message.kind, Kind::Request { id: Id::Text("a".into()), method: "tools/call".into() });
        assert_eq!(&line[message.params.unwrap()], br#"{"x":1}"#);
        assert_eq!(&line[message.id], b"\"a\"");
        let note = parse(br#"{"jsonrpc":"2.0","method":"x"}"#).unwrap();
        assert_eq!(note.kind, Kind::Notification { method: "x".into() });
        let answer = parse(br#"{"jsonrpc":"2.0","id":-4,"result":{"isError":true}}"#).unwrap();
        assert_eq!(answer.kind, Kind::Answer { id: Id::Number(-4), error: false });
        assert!(answer.tool_error);
    }

    #[test]
    fn codes() {
        assert_eq!(refused("{"), (PARSE_ERROR, None));
        assert_eq!(refused(""), (PARSE_ERROR, None));
        assert_eq!(refused("[]"), (INVALID_REQUEST, None));
        assert_eq!(refused("7"), (INVALID_REQUEST, None));
        let seven = Some(Id::Number(7));
        assert_eq!(refused(r#"{"id":7,"method":"x"}"#), (INVALID_REQUEST, seven.clone()));
        assert_eq!(refused(r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#), (INVALID_REQUEST, seven.clone()));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":7,"method":3}"#), (INVALID_REQUEST, seven.clone()));
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":7,"method":"x","result":1}"#),
            (INVALID_REQUEST, seven.clone())
        );
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":7,"result":1,"error":{}}"#), (INVALID_REQUEST, seven));
        for id in ["null", "1.5", "1e2", "{}", "99999999999999999999", r#""\ud800""#] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            assert_eq!(refused(&line), (INVALID_REQUEST, None), "{id}");
        }
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#), (INVALID_REQUEST, None));
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":1,"method":"x","m\u0065thod":"y"}"#),
            (INVALID_REQUEST, None)
        );
    }

    #[test]
    fn a_target_that_readers_could_take_differently_is_refused() {
        let read = |params: &str| target(params.as_bytes(), Some(&(0..params.len())), "name");
        assert_eq!(read(r#"{"name":"a"}"#), Ok("a".to_owned()));
        assert_eq!(read(r#"{"n\u0061me":"a\u0062"}"#), Ok("ab".to_owned()));
        assert!(read(r#"{"name":"a","name":"b"}"#).is_err());
        assert!(read(r#"{"name":"a","Name":"b"}"#).is_err());
        assert!(read(r#"{"Name":"b"}"#).is_err());
        assert!(read(r#"{"name":7}"#).is_err());
        assert!(target(b"", None, "name").is_err());
    }

    #[test]
    fn meta_is_read() {
        let params = br#"{"_meta":{"progressToken":"t","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}}"#;
        let meta = meta(params, Some(&(0..params.len())));
        let expected = Meta {
            era: Era::Modern,
            progress: Some(Id::Text("t".into())),
            client: Some("c/1".into()),
            trace: None,
        };
        assert_eq!(meta, expected);
    }
}
