//! Takes out of a list what its reader may not call.
//!
//! This hides and holds nothing back: a call of what is not listed is refused all the same.
//!
//! Neighbours: `access::gate` says what may stay; `session` gives each list of a server through here. Never: touches
//! another byte.

use std::ops::Range;

use crate::mcp::envelope::only;
use crate::mcp::object;
use crate::policy::pattern::{Item, Kind};

/// The list in the result of a method: its member, of what, and by which member an element is called.
fn list(method: &str) -> Option<(&'static str, Kind, &'static str)> {
    Some(match method {
        "tools/list" => ("tools", Kind::Tool, "name"),
        "prompts/list" => ("prompts", Kind::Prompt, "name"),
        "resources/list" => ("resources", Kind::Resource, "uri"),
        "resources/templates/list" => ("resourceTemplates", Kind::Resource, "uriTemplate"),
        _ => return None,
    })
}

/// The line of an answer with those elements only that may be called. It is for nobody else, and says so.
pub(super) fn filtered(line: Vec<u8>, method: &str, may: impl Fn(&Item) -> bool) -> Vec<u8> {
    let Some((member, kind, name)) = list(method) else { return line };
    let result = |line: &[u8]| object::member(line, 0..line.len(), "result");
    let Some(span) = result(&line) else { return line };
    let mut line = object::with_items(line, span, member, |line, item| {
        called(line, &item, kind, name).is_some_and(|item| may(&item))
    });
    let members = result(&line).map(|span| object::members(&line, span)).unwrap_or_default();
    let public: Vec<Range<usize>> = members
        .into_iter()
        .filter(|found| found.name == "cacheScope" && line.get(found.value.clone()) == Some(b"\"public\""))
        .map(|found| found.value)
        .collect();
    // From the end, so that the places before stay where they are.
    for span in public.iter().rev() {
        line = object::replaced(&line, span, b"\"private\"");
    }
    line
}

/// What an element of the list is called; nothing if readers could differ in that.
fn called(line: &[u8], item: &Range<usize>, kind: Kind, name: &str) -> Option<Item> {
    let members = object::members(line, item.clone());
    let found = only(&members, name).ok().flatten()?;
    let name = object::text(line.get(found.value.clone())?)?.into_owned();
    Some(Item { kind, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(method: &str, result: &str) -> String {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"result\":{result} ,\"id\":1}}\n");
        let line = filtered(line.into_bytes(), method, |item| item.name.starts_with('a'));
        let text = String::from_utf8(line).unwrap();
        text.strip_prefix("{\"jsonrpc\":\"2.0\",\"result\":")
            .unwrap()
            .strip_suffix(" ,\"id\":1}\n")
            .unwrap()
            .to_owned()
    }

    #[test]
    fn only_what_may_be_called_stays() {
        for (method, before, after) in [
            (
                "tools/list",
                r#"{"tools":[{"name":"a","x":1.0},{"name":"b"}]}"#,
                r#"{"tools":[{"name":"a","x":1.0}]}"#,
            ),
            (
                "tools/list",
                r#"{"tools":[ {"name":"b"} , {"x":"]","n\u0061me":"\u0061"},{"name":"a2"} ],"nextCursor":"c"}"#,
                r#"{"tools":[{"x":"]","n\u0061me":"\u0061"},{"name":"a2"}],"nextCursor":"c"}"#,
            ),
            ("tools/list", r#"{"tools":[{"name":"b"}]}"#, r#"{"tools":[]}"#),
            ("tools/list", r#"{"tools":[ {"name":"a"} ] }"#, r#"{"tools":[ {"name":"a"} ] }"#),
            // Which of the two would a client take?
            ("tools/list", r#"{"tools":[{"name":"a","name":"b"},7,"a",{"name":7},{}]}"#, r#"{"tools":[]}"#),
            (
                "tools/list",
                r#"{"tools":[{"name":"b"}],"tools":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"tools":[],"tools":[{"name":"a"}]}"#,
            ),
            (
                "tools/list",
                r#"{"tools":[{"name":"a","Name":"b"},{"NAME":"a"},{"name":"a"}]}"#,
                r#"{"tools":[{"name":"a"}]}"#,
            ),
            (
                "tools/list",
                r#"{"Tools":[{"name":"b"}],"tools":[{"name":"a"}]}"#,
                r#"{"Tools":[],"tools":[{"name":"a"}]}"#,
            ),
            ("tools/list", r#"{"tools":{"name":"b"}}"#, r#"{"tools":{"name":"b"}}"#),
            (
                "tools/list",
                r#"{"cacheScope":"public","tools":[{"name":"b"}],"ttlMs":5}"#,
                r#"{"cacheScope":"private","tools":[],"ttlMs":5}"#,
            ),
            (
                "tools/list",
                r#"{"cacheScope":"public","cacheScope":"public","cacheScope":"public","tools":[{"name":"b"}],"cacheScope":"public"}"#,
                r#"{"cacheScope":"private","cacheScope":"private","cacheScope":"private","tools":[],"cacheScope":"private"}"#,
            ),
            ("prompts/list", r#"{"prompts":[{"name":"b"}],"tools":[1]}"#, r#"{"prompts":[],"tools":[1]}"#),
            (
                "resources/list",
                r#"{"resources":[{"uri":"a:x","name":"b"},{"uri":"b"}]}"#,
                r#"{"resources":[{"uri":"a:x","name":"b"}]}"#,
            ),
            (
                "resources/templates/list",
                r#"{"resourceTemplates":[{"uriTemplate":"a:{x}"},{"uriTemplate":"b"}]}"#,
                r#"{"resourceTemplates":[{"uriTemplate":"a:{x}"}]}"#,
            ),
            ("tools/call", r#"{"tools":[{"name":"b"}]}"#, r#"{"tools":[{"name":"b"}]}"#),
        ] {
            assert_eq!(shown(method, before), after);
        }
        let error = b"{\"error\":{\"tools\":[{\"name\":\"b\"}]}}\n".to_vec();
        assert_eq!(filtered(error.clone(), "tools/list", |_| false), error);
    }
}
