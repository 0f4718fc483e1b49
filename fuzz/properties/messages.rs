//! A line of JSON-RPC: it is taken and refused as `serde_json` would, however it is cut, and what is read from it by
//! position is what a reader of values finds there.
//!
//! The first byte of an input says where the line is cut. Never: asks more of a line than that two readers agree.

use serde_json::Value;
use serde_json::value::RawValue;
use toolcell::arguments::strict;
use toolcell::mcp::envelope::{self, Id, Kind, Message};
use toolcell::mcp::object;
use toolcell::mcp::scan::{Fault, Scanner};

fn scan(pieces: &[&[u8]]) -> Result<Scanner, Fault> {
    let mut scanner = Scanner::new();
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()?;
    Ok(scanner)
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

/// Reads one line in every way there is.
pub fn check(data: &[u8]) {
    let [cut, line @ ..] = data else { return };
    let cut = usize::from(*cut) % (line.len() + 1);
    let whole = scan(&[line]);
    let (start, end) = line.split_at(cut);
    match (&whole, scan(&[start, end])) {
        (Ok(one), Ok(two)) => {
            assert_eq!(
                (one.spans(), one.tool_error(), one.duplicate(), one.root()),
                (two.spans(), two.tool_error(), two.duplicate(), two.root())
            );
        }
        // Which of several faults is told depends on what was there to be looked at.
        (Err(_), Err(_)) => {}
        (one, two) => panic!("{one:?} in one piece, {two:?} in two"),
    }
    if whole.as_ref().err() != Some(&Fault::Depth) {
        assert_eq!(whole.is_ok(), is_json(line));
    }
    completed(start);
    match envelope::parse(line) {
        Ok(message) => {
            assert!(whole.is_ok());
            agrees(line, &message);
        }
        Err(refusal) => assert!(whole.is_ok() || refusal.code == envelope::PARSE_ERROR),
    }
}

/// What was taken so far can be made a whole text.
fn completed(start: &[u8]) {
    let mut scanner = Scanner::new();
    if scanner.feed(start).is_ok() {
        let mut whole = start.to_vec();
        scanner.complete(0, &mut whole);
        assert!(is_json(&whole), "{}", String::from_utf8_lossy(&whole));
    }
}

/// Whether an id is the value's. `-0` is the integer 0 to most readers, and a float to `serde_json`.
fn same(id: &Id, value: &Value) -> bool {
    match id {
        Id::Text(text) => value.as_str() == Some(text),
        Id::Number(0) => value.as_f64() == Some(0.0),
        Id::Number(number) => value.as_i64() == Some(*number),
    }
}

/// The envelope says what the value says. A value that `serde_json` cannot hold (too deep, a number too large, half a
/// surrogate pair) has nothing to say.
fn agrees(line: &[u8], message: &Message) {
    let Ok(Value::Object(value)) = serde_json::from_slice(line) else { return };
    let part = |span: &std::ops::Range<usize>| serde_json::from_slice::<Value>(&line[span.clone()]).unwrap();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match &message.kind {
        Kind::Request { id, method } => {
            assert!(same(id, &value["id"]), "{id:?}");
            assert_eq!(text("method"), Some(method.as_str()));
        }
        Kind::Notification { method } => {
            assert!(!value.contains_key("id"));
            assert_eq!(text("method"), Some(method.as_str()));
        }
        Kind::Answer { id, error } => {
            assert!(same(id, &value["id"]), "{id:?}");
            assert_eq!((value.contains_key("error"), value.contains_key("result")), (*error, !error));
        }
    }
    if let Kind::Request { id, .. } | Kind::Answer { id, .. } = &message.kind {
        assert_eq!(part(&message.id), value["id"]);
        assert_eq!(Id::parse(id.to_json().as_bytes()).as_ref(), Some(id));
    }
    assert_eq!(message.params.as_ref().map(part).as_ref(), value.get("params"));
    let body = value.get("result").or_else(|| value.get("error"));
    assert_eq!(message.body.as_ref().map(part).as_ref(), body);
    if let (Some(body), Kind::Answer { error: false, .. }) = (&message.body, &message.kind) {
        let flags = object::members(line, body.clone());
        if flags.iter().filter(|member| member.name == "isError").count() < 2 {
            assert_eq!(message.tool_error, value["result"].get("isError") == Some(&Value::Bool(true)));
        }
        members(line, body.clone());
    }
    if let Some(params) = &message.params {
        members(line, params.clone());
        names(line, params, &value["params"]);
        alike(line, params, &value["params"]);
        shortened(line, &value);
    }
}

/// Members found by position are those of the value.
fn members(line: &[u8], span: std::ops::Range<usize>) {
    let whole: Value = serde_json::from_slice(&line[span.clone()]).unwrap();
    let found = object::members(line, span);
    let Value::Object(whole) = whole else {
        assert_eq!(found, []);
        return;
    };
    // Of a name that is there twice, a reader of values has the last.
    let mut seen = serde_json::Map::new();
    for member in &found {
        let value: Value = serde_json::from_slice(&line[member.value.clone()]).unwrap();
        seen.insert(member.name.clone().into_owned(), value);
    }
    assert_eq!(seen, whole);
}

/// The name that chooses a profile is one on which every reader agrees.
fn names(line: &[u8], params: &std::ops::Range<usize>, value: &Value) {
    if let Ok(name) = envelope::target(line, Some(params), "name") {
        assert_eq!(value["name"].as_str(), Some(name.as_str()));
        let alike = value.as_object().unwrap().keys().filter(|key| key.to_lowercase() == "name").count();
        assert_eq!(alike, 1);
    }
    let meta = envelope::meta(line, Some(params));
    let modern = value["_meta"].get(envelope::META_PROTOCOL_VERSION).is_some();
    assert_eq!(meta.era == envelope::Era::Modern, modern);
    let token = &value["_meta"]["progressToken"];
    match &meta.progress {
        Some(id) => assert!(same(id, token), "{id:?}"),
        None => assert!(!token.is_string() && !token.is_i64(), "{token}"),
    }
}

/// What is read strictly is what any reader reads: nothing in it is there twice, and it holds no NUL.
fn alike(line: &[u8], params: &std::ops::Range<usize>, value: &Value) {
    let Ok(read) = strict::read(&line[params.clone()]) else { return };
    assert_eq!(&read, value);
    assert!(!twice(line, params.clone()), "{value}");
    assert!(!value.to_string().contains("\\u0000") || value.to_string().contains("\\\\u0000"), "{value}");
}

/// Is a name there twice in an object, at any depth?
fn twice(line: &[u8], span: std::ops::Range<usize>) -> bool {
    let members = object::members(line, span.clone());
    let mut names: Vec<_> = members.iter().map(|member| &member.name).collect();
    names.sort();
    names.windows(2).any(|pair| pair[0] == pair[1])
        || members.into_iter().any(|member| twice(line, member.value))
        || object::items(line, span).into_iter().any(|item| twice(line, item))
}

/// Taking a member out takes out that one and nothing else.
fn shortened(line: &[u8], before: &serde_json::Map<String, Value>) {
    let whole = |line: &[u8]| Some(0..line.len());
    let span = line.iter().position(|byte| *byte == b'{').unwrap();
    let shorter = object::without(line[span..].to_vec(), whole, &["params", "_meta"]);
    let after: Value = serde_json::from_slice(&shorter).unwrap();
    let mut expected = Value::Object(before.clone());
    if let Value::Object(params) = &mut expected["params"] {
        params.shift_remove("_meta");
    }
    assert_eq!(after, expected);
}
