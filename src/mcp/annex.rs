//! Adds to a result what its cell was refused, and what it changed: members of `_meta`, and for a failed call a text; and to a
//! handshake a capability that toolcell has itself.
//!
//! Neighbours: [`super::object`] finds the places; `session` says what stands there. Never: touches another byte of the
//! line, or a line that is no result.

use super::envelope::{Kind, Message};
use super::object;

/// Members of a result's `_meta`. One of these names that the server wrote itself is taken out.
pub const VIOLATIONS: &str = "dev.toolcell/violations";
/// The other.
pub const CHANGES: &str = "dev.toolcell/changes";

/// The member that says what could be done about a failure.
pub const HINT: &str = "dev.toolcell/hint";

/// What stands in `_meta`, as JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Annex<'a> {
    /// What the cell was refused.
    pub violations: Option<&'a [u8]>,
    /// What it changed.
    pub changes: Option<&'a [u8]>,
}

/// The line of an answer with an annex in `_meta`, and with `text` behind the other content if the result has `isError: true`
/// and there are violations. Without an annex only what the server wrote in toolcell's name goes.
#[must_use]
pub fn annexed(line: Vec<u8>, message: &Message, annex: Annex<'_>, text: &str) -> Vec<u8> {
    let (Kind::Answer { error: false, .. }, Some(body)) = (&message.kind, &message.body) else { return line };
    if line.get(body.start) != Some(&b'{') {
        return line;
    }
    // What changes lies inside the result, so its start stays, and its members are found up to its brace.
    let result = |line: &[u8]| body.start..line.len();
    let metas = |line: &[u8]| {
        let members = object::members(line, result(line)).into_iter();
        members.filter(|member| member.name == "_meta").map(|member| member.value).collect::<Vec<_>>()
    };
    // A result that has several may be read by its first as well as by its last.
    let mut line = (0..metas(&line).len()).fold(line, |line, nth| {
        let of = |line: &[u8]| metas(line).into_iter().nth(nth);
        [VIOLATIONS, CHANGES, HINT].into_iter().fold(line, |line, own| object::without(line, of, &[own]))
    });
    let all = [(VIOLATIONS, annex.violations), (CHANGES, annex.changes)];
    let members = all
        .into_iter()
        .filter_map(|(name, value)| Some([format!("\"{name}\":").as_bytes(), value?].concat()));
    let member = members.collect::<Vec<_>>().join(&b',');
    if member.is_empty() {
        return line;
    }
    if message.tool_error
        && annex.violations.is_some()
        && let Some(content) = object::member(&line, result(&line), "content")
        && line.get(content.start) == Some(&b'[')
    {
        let item = serde_json::json!({"type": "text", "text": text}).to_string();
        let empty =
            line.get(content.start + 1..content.end - 1).is_none_or(|inside| inside.trim_ascii().is_empty());
        let item = if empty { item } else { format!(",{item}") };
        line = object::replaced(&line, &(content.end - 1..content.end - 1), item.as_bytes());
    }
    with_meta(line, body.start, &member)
}

/// The line of a failed call's result with a hint in `_meta`, if there is one.
#[must_use]
pub fn hinted(line: Vec<u8>, message: &Message, hint: Option<&str>) -> Vec<u8> {
    match (hint, &message.body) {
        (Some(hint), Some(body)) if message.tool_error && line.get(body.start) == Some(&b'{') => {
            let member = format!("\"{HINT}\":{}", serde_json::Value::from(hint));
            with_meta(line, body.start, member.as_bytes())
        }
        _ => line,
    }
}

/// The line with a member in the `_meta` of the result that opens at this brace.
fn with_meta(line: Vec<u8>, brace: usize, member: &[u8]) -> Vec<u8> {
    match object::member(&line, brace..line.len(), "_meta") {
        None => object::inserted(&line, brace, &[b"\"_meta\":{", member, b"}"].concat()),
        Some(meta) if line.get(meta.start) == Some(&b'{') => object::inserted(&line, meta.start, member),
        // Nothing has a place in what is no object.
        Some(_) => line,
    }
}

/// The line of a handshake's answer whose server offers this experimental capability, too. Nothing is changed where it does already, or
/// where its capabilities are no objects.
#[must_use]
pub fn offering(line: Vec<u8>, message: &Message, capability: &str) -> Vec<u8> {
    let (Kind::Answer { error: false, .. }, Some(body)) = (&message.kind, message.body.clone()) else {
        return line;
    };
    let Some(capabilities) = object::member(&line, body, "capabilities") else { return line };
    let own = format!("{}:{{}}", serde_json::Value::from(capability));
    let (brace, member) = match object::member(&line, capabilities.clone(), "experimental") {
        None => (capabilities.start, format!("\"experimental\":{{{own}}}")),
        Some(known) if object::member(&line, known.clone(), capability).is_some() => return line,
        Some(known) => (known.start, own),
    };
    match line.get(brace) {
        Some(b'{') => object::inserted(&line, brace, member.as_bytes()),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::envelope::parse;

    #[test]
    fn a_hint_stands_in_a_failed_result_alone() {
        let of = |result: &str, hint| {
            let line = format!("{{\"jsonrpc\":\"2.0\",{result},\"id\":1}}");
            let message = parse(line.as_bytes()).unwrap();
            String::from_utf8(hinted(line.into_bytes(), &message, hint)).unwrap()
        };
        let failed = r#""result":{"isError":true,"content":[]}"#;
        let hinted = of(failed, Some("do \"x\""));
        assert!(
            hinted.contains(r#""result":{"_meta":{"dev.toolcell/hint":"do \"x\""},"isError":true"#),
            "{hinted}"
        );
        for result in [failed, r#""result":{"content":[]}"#, r#""error":{"code":1,"message":"m"}"#] {
            let hint = (result != failed).then_some("x");
            assert!(!of(result, hint).contains("hint"), "{result}");
        }
    }

    fn of(result: &str, violations: Option<&str>) -> String {
        let line = format!("{{\"jsonrpc\":\"2.0\",{result} ,\"id\":1}}");
        let message = parse(line.as_bytes()).unwrap();
        let annex = Annex { violations: violations.map(str::as_bytes), changes: None };
        let line = annexed(line.into_bytes(), &message, annex, "no \"x\"");
        let text = String::from_utf8(line).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap().kind, message.kind, "{text}");
        text.strip_prefix("{\"jsonrpc\":\"2.0\",").unwrap().strip_suffix(" ,\"id\":1}").unwrap().to_owned()
    }

    #[test]
    fn the_rest_of_the_line_stays_as_it_was() {
        let v = "\"dev.toolcell/violations\":[7]";
        for (before, after) in [
            (r#""result":{}"#, format!(r#""result":{{"_meta":{{{v}}}}}"#)),
            (r#""result": { "a" : 1.0 }"#, format!(r#""result": {{"_meta":{{{v}}}, "a" : 1.0 }}"#)),
            (
                r#""result":{"_meta":{ },"b":"\u0041"}"#,
                format!(r#""result":{{"_meta":{{{v} }},"b":"\u0041"}}"#),
            ),
            (
                r#""result":{"b":[],"\u005fmeta":{"x":1}}"#,
                format!(r#""result":{{"b":[],"\u005fmeta":{{{v},"x":1}}}}"#),
            ),
            (
                r#""result":{"content":[],"isError":false}"#,
                format!(r#""result":{{"_meta":{{{v}}},"content":[],"isError":false}}"#),
            ),
            (r#""result":{"_meta":null}"#, r#""result":{"_meta":null}"#.to_owned()),
            (r#""result":[{}]"#, r#""result":[{}]"#.to_owned()),
            (r#""error":{"code":1,"message":""}"#, r#""error":{"code":1,"message":""}"#.to_owned()),
        ] {
            assert_eq!(of(before, Some("[7]")), after);
            assert_eq!(of(before, None), before);
        }
    }

    #[test]
    fn what_was_changed_stands_beside_what_was_refused() {
        let line = r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"dev.toolcell/changes":0,"a":1}}}"#;
        let message = parse(line.as_bytes()).unwrap();
        let of = |annex| String::from_utf8(annexed(line.as_bytes().to_vec(), &message, annex, "")).unwrap();
        let changes = Some(&b"{}"[..]);
        assert!(of(Annex::default()).ends_with(r#""_meta":{"a":1}}}"#));
        assert!(
            of(Annex { changes, violations: None })
                .ends_with(r#""_meta":{"dev.toolcell/changes":{},"a":1}}}"#)
        );
        let both = of(Annex { changes, violations: Some(b"[7]") });
        assert!(
            both.contains(r#"{"dev.toolcell/violations":[7],"dev.toolcell/changes":{},"a":1}"#),
            "{both}"
        );
    }

    #[test]
    fn no_member_of_a_name_that_stands_twice_keeps_the_servers_word() {
        let before = r#""result":{"_meta":{"dev.toolcell/violations":[1],"x":2},"_meta":{"dev.toolcell/violations":3}}"#;
        assert_eq!(of(before, None), r#""result":{"_meta":{"x":2},"_meta":{}}"#);
    }

    #[test]
    fn a_failed_call_gets_a_text_behind_its_own() {
        let v = "\"_meta\":{\"dev.toolcell/violations\":[7]}";
        let item = r#"{"type":"text","text":"no \"x\""}"#;
        for (before, after) in [
            (r#"{"isError":true,"content":[ ]}"#, format!(r#"{{{v},"isError":true,"content":[ {item}]}}"#)),
            (
                r#"{"content":[{}],"isError":true}"#,
                format!(r#"{{{v},"content":[{{}},{item}],"isError":true}}"#),
            ),
            (r#"{"content":"","isError":true}"#, format!(r#"{{{v},"content":"","isError":true}}"#)),
        ] {
            assert_eq!(of(&format!("\"result\":{before}"), Some("[7]")), format!("\"result\":{after}"));
        }
    }

    #[test]
    fn a_capability_is_offered_once_and_nothing_else_changes() {
        let of = |capabilities: &str| {
            let line = format!(
                "{{\"id\":1,\"jsonrpc\":\"2.0\",\"result\":{{\"capabilities\":{capabilities},\"x\":1.0}}}}"
            );
            let message = parse(line.as_bytes()).unwrap();
            String::from_utf8(offering(line.into_bytes(), &message, "a/b")).unwrap()
        };
        for (before, after) in [
            ("{}", r#"{"experimental":{"a/b":{}}}"#),
            (r#"{"tools":{}}"#, r#"{"experimental":{"a/b":{}},"tools":{}}"#),
            (r#"{"experimental":{ }}"#, r#"{"experimental":{"a/b":{} }}"#),
            (r#"{"experimental":{"c":1}}"#, r#"{"experimental":{"a/b":{},"c":1}}"#),
            (r#"{"experimental":{"a/b":{"d":1}}}"#, r#"{"experimental":{"a/b":{"d":1}}}"#),
            (r#"{"experimental":7}"#, r#"{"experimental":7}"#),
            ("[]", "[]"),
        ] {
            assert_eq!(of(before), of("null").replace("null", after), "{before}");
        }
    }

    #[test]
    fn a_server_does_not_speak_in_toolcells_name() {
        let forged =
            r#""result":{"_meta":{"a":1,"dev.toolcell\/violations":[],"dev.toolcell/violations":1},"b":2}"#;
        assert_eq!(of(forged, None), r#""result":{"_meta":{"a":1},"b":2}"#);
        assert_eq!(
            of(forged, Some("[7]")),
            r#""result":{"_meta":{"dev.toolcell/violations":[7],"a":1},"b":2}"#
        );
    }
}
