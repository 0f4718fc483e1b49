//! One answer out of those of several servers.
//!
//! What stands in lists goes on as it was written, but for names. What is about a server as a whole is put together.
//!
//! Neighbours: [`super`] collects the answers. Never: does I/O.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::names::{Owners, prefixed};
use crate::mcp::envelope::Id;
use crate::mcp::object;

/// An answer of one server: who, the line, and where its result stands.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) server: usize,
    pub(super) line: Vec<u8>,
    pub(super) result: Range<usize>,
}

impl Part {
    pub(super) fn member(&self, name: &str) -> Option<&[u8]> {
        self.line.get(object::member(&self.line, self.result.clone(), name)?)
    }

    fn value(&self) -> Value {
        self.line
            .get(self.result.clone())
            .and_then(|raw| serde_json::from_slice(raw).ok())
            .unwrap_or_default()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        object::text(self.member(name)?).map(std::borrow::Cow::into_owned)
    }
}

/// Where a list stands, and by what its items are called.
pub(super) fn list(method: &str) -> Option<(&'static str, &'static str)> {
    Some(match method {
        "tools/list" => ("tools", "name"),
        "prompts/list" => ("prompts", "name"),
        "resources/list" => ("resources", "uri"),
        "resources/templates/list" => ("resourceTemplates", "uriTemplate"),
        _ => return None,
    })
}

/// The items of a page, each as a line of its own, and what it is called.
fn items<'p>(part: &'p Part, (member, name): (&str, &str)) -> Vec<(&'p [u8], Range<usize>, String)> {
    let Some(span) = object::member(&part.line, part.result.clone(), member) else { return Vec::new() };
    let items = object::items(&part.line, span).into_iter();
    items
        .filter_map(|item| {
            let place = object::member(&part.line, item.clone(), name)?;
            let called = object::text(part.line.get(place.clone())?)?.into_owned();
            Some((part.line.get(item.clone())?, place.start - item.start..place.end - item.start, called))
        })
        .collect()
}

/// Takes down who has which resources.
pub(super) fn own(owners: &mut Owners, method: &str, parts: &[Part]) {
    let Some(place) = list(method) else { return };
    for part in parts {
        for (_, _, called) in items(part, place) {
            match method {
                "resources/list" => owners.list(&called, part.server),
                "resources/templates/list" => owners.template(&called, part.server),
                _ => return,
            }
        }
    }
}

/// The whole list, in one page. A resource that more than one server lists is left out.
pub(super) fn lists(id: &Id, method: &str, parts: &[Part], servers: &[String], owners: &Owners) -> Vec<u8> {
    let Some(place) = list(method) else { return Vec::new() };
    let mut written: Vec<Vec<u8>> = Vec::new();
    for part in parts {
        let Some(server) = servers.get(part.server) else { continue };
        for (item, at, called) in items(part, place) {
            match place.1 {
                "name" => {
                    let name = Value::from(prefixed(server, &called)).to_string();
                    written.push(object::replaced(item, &at, name.as_bytes()));
                }
                _ if owners.clashes(&called) => {}
                _ => written.push(item.to_vec()),
            }
        }
    }
    let mut line =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"{}\":[", id.to_json(), place.0).into_bytes();
    line.extend(written.join(&b","[..]));
    line.extend_from_slice(b"]");
    if parts.iter().any(|part| part.member("resultType").is_some()) {
        line.extend_from_slice(b",\"resultType\":\"complete\"");
    }
    let number = |raw: &[u8]| std::str::from_utf8(raw).ok()?.parse::<u64>().ok();
    if let Some(ttl) = parts.iter().filter_map(|part| number(part.member("ttlMs")?)).min() {
        line.extend_from_slice(format!(",\"ttlMs\":{ttl}").as_bytes());
    }
    let scopes: Vec<&[u8]> = parts.iter().filter_map(|part| part.member("cacheScope")).collect();
    if !scopes.is_empty() {
        let public = scopes.iter().all(|scope| *scope == b"\"public\"");
        line.extend_from_slice(if public {
            b",\"cacheScope\":\"public\""
        } else {
            b",\"cacheScope\":\"private\""
        });
    }
    line.extend_from_slice(b"}}\n");
    line
}

/// Capabilities that outlive a request of one server, and so have no place among several.
const NOT_OFFERED: &[&str] = &["tasks"];

/// Puts `more` into `into`: what one server can, all can together. Flags are or'ed.
fn unite(into: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, value) in more {
        match (into.get_mut(name), value) {
            (Some(Value::Object(known)), Value::Object(value)) => unite(known, value),
            (Some(Value::Bool(known)), Value::Bool(value)) => *known |= value,
            (Some(_), _) => {}
            (None, _) => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

/// The answer to a handshake or to a question what the server is.
pub(super) fn introduction(id: &Id, parts: &[Part], servers: &[String], version: &str) -> Vec<u8> {
    let mut result = Map::new();
    let mut capabilities = Map::new();
    let mut said = Vec::new();
    for part in parts {
        let Value::Object(value) = part.value() else { continue };
        if let Some(Value::Object(more)) = value.get("capabilities") {
            unite(&mut capabilities, more);
        }
        if let (Some(Value::String(text)), Some(server)) =
            (value.get("instructions"), servers.get(part.server))
        {
            said.push(format!("## {server}\n{text}"));
        }
        for name in ["protocolVersion", "resultType", "cacheScope"] {
            if let Some(value) = value.get(name) {
                result.entry(name).or_insert_with(|| value.clone());
            }
        }
        if let Some(Value::Array(versions)) = value.get("supportedVersions") {
            match result.get_mut("supportedVersions") {
                Some(Value::Array(known)) => known.retain(|version| versions.contains(version)),
                _ => drop(result.insert("supportedVersions".to_owned(), versions.clone().into())),
            }
        }
        if let Some(ttl) = value.get("ttlMs").and_then(Value::as_u64) {
            let least = result.get("ttlMs").and_then(Value::as_u64).map_or(ttl, |known| known.min(ttl));
            result.insert("ttlMs".to_owned(), least.into());
        }
    }
    for name in NOT_OFFERED {
        capabilities.remove(*name);
    }
    if let Some(Value::Object(extensions)) = capabilities.get_mut("extensions") {
        extensions.remove("io.modelcontextprotocol/tasks");
    }
    result.insert("capabilities".to_owned(), capabilities.into());
    result.insert("serverInfo".to_owned(), json!({ "name": "toolcell", "version": version }));
    if !said.is_empty() {
        result.insert("instructions".to_owned(), said.join("\n\n").into());
    }
    let mut line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", id.to_json()).into_bytes();
    line.extend(Value::from(result).to_string().into_bytes());
    line.extend_from_slice(b"}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::envelope::parse;

    fn parts(results: &[&str]) -> Vec<Part> {
        let part = |(server, result): (usize, &&str)| {
            let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}").into_bytes();
            let result = parse(&line).unwrap().body.unwrap();
            Part { server, line, result }
        };
        results.iter().enumerate().map(part).collect()
    }

    fn servers() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    #[test]
    fn a_list_has_every_servers_items_and_no_other_byte_changes() {
        let parts = parts(&[
            r#"{"tools":[{"x":1.0,"name":"t\u0061"},{"name":7}],"ttlMs":5,"cacheScope":"public","resultType":"complete"}"#,
            r#"{"tools":[ {"name":"t"} ],"ttlMs":3,"cacheScope":"private"}"#,
        ]);
        let line = lists(&Id::Text("i".to_owned()), "tools/list", &parts, &servers(), &Owners::default());
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"jsonrpc\":\"2.0\",\"id\":\"i\",\"result\":{\"tools\":[{\"x\":1.0,\"name\":\"a__ta\"},{\"name\":\"b__t\"}],\
             \"resultType\":\"complete\",\"ttlMs\":3,\"cacheScope\":\"private\"}}\n"
        );
    }

    #[test]
    fn a_resource_of_two_servers_is_nobodys() {
        let parts =
            parts(&[r#"{"resources":[{"uri":"x:/a"},{"uri":"x:/b"}]}"#, r#"{"resources":[{"uri":"x:/b"}]}"#]);
        let mut owners = Owners::default();
        own(&mut owners, "resources/list", &parts);
        let line = lists(&Id::Number(1), "resources/list", &parts, &servers(), &owners);
        assert!(String::from_utf8(line).unwrap().contains(r#""resources":[{"uri":"x:/a"}]"#));
    }

    #[test]
    fn what_one_can_all_can_together_but_for_tasks() {
        let parts = parts(&[
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":false},"tasks":{}},"instructions":"first"}"#,
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"logging":{}},"instructions":"second"}"#,
        ]);
        let line = introduction(&Id::Number(1), &parts, &servers(), "1.2");
        let answer: Value = serde_json::from_slice(&line).unwrap();
        let result = &answer["result"];
        assert_eq!(result["capabilities"], json!({"tools": {"listChanged": true}, "logging": {}}));
        assert_eq!(result["serverInfo"], json!({"name": "toolcell", "version": "1.2"}));
        assert_eq!(result["instructions"], "## a\nfirst\n\n## b\nsecond");
        assert_eq!(result["protocolVersion"], "2025-06-18");
    }
}
