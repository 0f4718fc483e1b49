//! The headers that say what a body says: what stands between client and server reads them, and must not be told something
//! else.
//!
//! | header | is | for |
//! |---|---|---|
//! | `MCP-Protocol-Version` | the version in `_meta` | every modern request |
//! | `Mcp-Method` | `method` | every modern request |
//! | `Mcp-Name` | `params.name` or `params.uri` | `tools/call`, `prompts/get`, `resources/read` |
//! | `Mcp-Param-…` | an argument that the tool's schema marks | `tools/call` |
//!
//! Neighbours: [`super::endpoint`] asks before a request goes anywhere. Never: changes a request.

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use serde_json::Value;

use super::base64::{Form, decode};
use super::wire::Incoming;
use crate::mcp::envelope::{META_PROTOCOL_VERSION, text_member};
use crate::mcp::object;

/// The version of a legacy or modern client.
pub(super) const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PARAM: &str = "mcp-param-";
/// The member of `_meta` that every modern request has beside its version.
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Versions with a handshake.
pub(super) const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A header says something else, or is missing (-32020).
    Header(String),
    /// The body lacks what every modern request has (-32602).
    Meta(String),
}

/// The only header of this name, as text.
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Wrong> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Wrong::Header(format!("the header `{name}` is there more than once")));
    }
    first.map(|value| text(value, name)).transpose()
}

fn text<'h>(value: &'h HeaderValue, name: &str) -> Result<&'h str, Wrong> {
    value.to_str().map(str::trim).map_err(|error| Wrong::Header(format!("the header `{name}`: {error}")))
}

/// A value that may be written in Base64.
fn decoded(value: &str, name: &str) -> Result<String, Wrong> {
    let Some(inner) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    let bytes = decode(inner.as_bytes(), Form::Standard).and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| Wrong::Header(format!("the header `{name}` is not the Base64 of a text")))
}

/// Is this a request of a modern client?
pub(super) fn is_modern(headers: &HeaderMap, incoming: &Incoming, method: &str) -> Result<bool, Wrong> {
    let in_body = incoming.meta_text(META_PROTOCOL_VERSION).is_some();
    let version = only(headers, VERSION)?;
    // A client that knows no version yet may send any header with this one.
    Ok(in_body || (method != "initialize" && version.is_some_and(|version| !LEGACY.contains(&version))))
}

/// Compares the headers of a modern request with its body.
pub(super) fn check(headers: &HeaderMap, incoming: &Incoming, method: &str) -> Result<(), Wrong> {
    let version = match incoming.meta_text(META_PROTOCOL_VERSION) {
        Some(Ok(version)) => version,
        Some(Err(())) => return Err(Wrong::Meta(format!("`{META_PROTOCOL_VERSION}` is not a string"))),
        None => return Err(Wrong::Meta(format!("`_meta` has no `{META_PROTOCOL_VERSION}`"))),
    };
    same(VERSION, &version, only(headers, VERSION)?)?;
    let capabilities = incoming.meta().and_then(|meta| object::member(&incoming.line, meta, CAPABILITIES));
    if !capabilities.is_some_and(|span| incoming.slice(span).starts_with(b"{")) {
        return Err(Wrong::Meta(format!("`_meta` has no `{CAPABILITIES}`, which is an object")));
    }
    same(METHOD, method, only(headers, METHOD)?)?;
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(()),
    };
    let params = incoming.message.params.clone();
    let Some(name) = params.and_then(|params| text_member(&incoming.line, params, member)) else {
        // What is wrong with the body the supervisor says.
        return Ok(());
    };
    let told = only(headers, NAME)?.map(|value| decoded(value, NAME)).transpose()?;
    same(NAME, &name, told.as_deref())
}

fn same(name: &str, body: &str, header: Option<&str>) -> Result<(), Wrong> {
    match header {
        Some(header) if header == body => Ok(()),
        Some(header) => {
            Err(Wrong::Header(format!("the header `{name}` is `{header}`, the body says `{body}`")))
        }
        None => Err(Wrong::Header(format!("the header `{name}` is missing; the body says `{body}`"))),
    }
}

/// The arguments of a tool that its schema wants in headers: the name of each header, and where the argument is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marked(Vec<(String, Vec<String>)>);

impl Marked {
    /// Of the `inputSchema` of a tool: along `properties` alone, as the protocol says.
    pub(super) fn of(schema: &Value) -> Self {
        let mut found = Vec::new();
        let mut open = vec![(schema, Vec::new())];
        while let Some((schema, path)) = open.pop() {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { continue };
            for (name, property) in properties {
                let path: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
                    found.push((header.to_ascii_lowercase(), path.clone()));
                }
                open.push((property, path));
            }
        }
        found.sort();
        Self(found)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares the headers of a call with its arguments.
    pub(super) fn check(&self, headers: &HeaderMap, arguments: &Value) -> Result<(), Wrong> {
        for (header, path) in &self.0 {
            let name = format!("{PARAM}{header}");
            let value = path.iter().try_fold(arguments, |value, step| value.get(step));
            let told = only(headers, &name)?.map(|told| decoded(told, &name)).transpose()?;
            match (value, told) {
                (None | Some(Value::Null), None) => {}
                (None | Some(Value::Null), Some(_)) => {
                    return Err(Wrong::Header(format!("the header `{name}` is there, its argument is not")));
                }
                (Some(_), None) => {
                    return Err(Wrong::Header(format!(
                        "the header `{name}` is missing, its argument is there"
                    )));
                }
                (Some(value), Some(told)) if says(value, &told) => {}
                (Some(_), Some(_)) => {
                    return Err(Wrong::Header(format!("the header `{name}` is not what its argument is")));
                }
            }
        }
        Ok(())
    }
}

fn says(value: &Value, told: &str) -> bool {
    match value {
        Value::String(text) => text == told,
        Value::Bool(known) => told == if *known { "true" } else { "false" },
        // `42.0` and `42` are one number.
        Value::Number(number) => {
            number.to_string() == told
                || serde_json::from_str::<serde_json::Number>(told).ok().and_then(|told| told.as_f64())
                    == number
                        .as_f64()
                        .filter(|_| number.as_f64().is_some_and(|n| n.abs() < 9_007_199_254_740_992.0))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;
    use serde_json::json;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn call(name: &str) -> Incoming {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", CAPABILITIES: {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}});
        Incoming::read(body.to_string().into_bytes()).unwrap()
    }

    #[test]
    fn each_header_says_what_the_body_says() {
        let good = [(VERSION, "2026-07-28"), (METHOD, "tools/call"), (NAME, "héé")];
        let base = [(VERSION, "2026-07-28"), (METHOD, "tools/call"), (NAME, "=?base64?aMOpw6k=?=")];
        assert_eq!(check(&headers(&base), &call("héé"), "tools/call"), Ok(()));
        // Header values that are no ASCII cannot be read.
        assert!(check(&headers(&good), &call("héé"), "tools/call").is_err());
        let plain = |version: &'static str, method: &'static str, name: &'static str| {
            check(&headers(&[(VERSION, version), (METHOD, method), (NAME, name)]), &call("a"), "tools/call")
        };
        assert_eq!(plain("2026-07-28", "tools/call", "a"), Ok(()));
        assert_eq!(plain("2026-07-28", "tools/call", " a "), Ok(()));
        for (version, method, name) in [
            ("2025-11-25", "tools/call", "a"),
            ("2026-07-28", "TOOLS/CALL", "a"),
            ("2026-07-28", "tools/call", "A"),
            ("2026-07-28", "tools/call", "=?base64?YQ?="),
            ("2026-07-28", "tools/call", "=?base64?!!?="),
        ] {
            assert!(
                matches!(plain(version, method, name), Err(Wrong::Header(_))),
                "{version} {method} {name}"
            );
        }
        for missing in 0..3 {
            let mut all = vec![(VERSION, "2026-07-28"), (METHOD, "tools/call"), (NAME, "a")];
            all.remove(missing);
            assert!(
                matches!(check(&headers(&all), &call("a"), "tools/call"), Err(Wrong::Header(_))),
                "{missing}"
            );
        }
        let mut twice = headers(&[(VERSION, "2026-07-28"), (METHOD, "tools/call"), (NAME, "a")]);
        twice.append(NAME, HeaderValue::from_static("a"));
        assert!(check(&twice, &call("a"), "tools/call").is_err());
    }

    #[test]
    fn marked_arguments_are_in_headers() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
            "sure": {"type": "boolean", "x-mcp-header": "Sure"},
            "other": {"items": {"x-mcp-header": "No"}},
        }});
        let marked = Marked::of(&schema);
        let check = |all: &[(&'static str, &str)], arguments: Value| marked.check(&headers(all), &arguments);
        let all = [("mcp-param-region", "us"), ("mcp-param-count", "42.0"), ("mcp-param-sure", "true")];
        assert_eq!(check(&all, json!({"region": "us", "deep": {"count": 42}, "sure": true})), Ok(()));
        assert_eq!(check(&[], json!({"region": null})), Ok(()));
        assert!(check(&[], json!({"region": "us"})).is_err());
        assert!(check(&[("mcp-param-region", "us")], json!({})).is_err());
        assert!(check(&[("mcp-param-region", "us")], json!({"region": "US"})).is_err());
        assert!(check(&[("mcp-param-region", "=?base64?SGVsbG8?=")], json!({"region": "Hello"})).is_err());
        assert_eq!(check(&[("mcp-param-region", "=?base64?SGVsbG8=?=")], json!({"region": "Hello"})), Ok(()));
        assert_eq!(
            check(&[("mcp-param-region", "=?base64?SGVsbG8=")], json!({"region": "=?base64?SGVsbG8="})),
            Ok(())
        );
        assert!(check(&[("mcp-param-count", "43")], json!({"deep": {"count": 42}})).is_err());
    }
}
