//! A hostile MCP server over stdio: each tool tries one attack, leaves nothing behind when it succeeds, and says
//! truthfully what it saw. It answers in both protocol eras.
//!
//! Neighbours: `commands` starts [`serve`]; `commands::demo` wraps it in cells and judges from outside; its raw calls
//! are in `sys::attack`. Never: guards or builds a cell, starts a thread outside of its own probes, keeps state.

mod answers;
mod detours;
mod files;
mod kernel;
mod network;
mod processes;
mod programs;
mod report;
mod resolver;
mod resources;
mod review;
mod tools;
mod traps;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Write};

pub use detours::{SECRETS, TRAPS};
pub use files::LINE;
pub use report::{CANARY, Outcome};
use report::{Call, Refusal, Report};
pub use resolver::own_servers;
use serde_json::{Map, Value, json};
pub use tools::tool_names;
pub use traps::{GRANTED, guarded};

/// Handshake revisions, newest first.
const LEGACY: [&str; 2] = ["2025-11-25", "2025-06-18"];
/// The stateless revision.
const MODERN: &str = "2026-07-28";
/// The member of `_meta` that makes a request a modern one.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// A JSON-RPC error: code, message, data.
type Fault = (i64, String, Option<Value>);

/// The revision family one request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// Answers requests, one a line, until the input ends.
///
/// # Errors
/// What reading the input or writing the output gave; a line that is no request is answered, not an error.
pub fn serve(mut stdin: impl BufRead, mut stdout: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if stdin.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match serde_json::from_slice::<Value>(&line) {
            Ok(message) => answer(&message, &mut stdout),
            Err(error) => Some(failure(&Value::Null, (-32700, format!("not JSON: {error}"), None))),
        };
        if let Some(answer) = answer {
            write_line(&mut stdout, &answer)?;
        }
    }
}

/// Writes one message.
fn write_line(out: &mut dyn Write, message: &Value) -> io::Result<()> {
    let mut text = message.to_string();
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The answer to a request; none for a notification or an answer.
fn answer(message: &Value, out: &mut dyn Write) -> Option<Value> {
    let id = message.get("id")?;
    let method = message.get("method")?.as_str()?;
    let none = Map::new();
    let params = message.get("params").and_then(Value::as_object).unwrap_or(&none);
    let result = era(params).and_then(|era| {
        let mut result = dispatch(era, method, id, params, out)?;
        if let (Era::Modern, Some(result)) = (era, result.as_object_mut()) {
            result.insert("resultType".to_owned(), json!("complete"));
        }
        Ok(result)
    });
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(fault) => failure(id, fault),
    })
}

/// An error answer.
fn failure(id: &Value, (code, message, data): Fault) -> Value {
    let mut error = json!({"code": code, "message": message});
    if let (Some(error), Some(data)) = (error.as_object_mut(), data) {
        error.insert("data".to_owned(), data);
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

/// The era that a request's `_meta` names.
fn era(params: &Map<String, Value>) -> Result<Era, Fault> {
    match params.get("_meta").and_then(|meta| meta.get(VERSION)) {
        None => Ok(Era::Legacy),
        Some(version) if version == MODERN => Ok(Era::Modern),
        Some(version) => Err((
            -32022,
            "unsupported protocol version".to_owned(),
            Some(json!({"supported": [MODERN], "requested": version})),
        )),
    }
}

/// The result of one request.
fn dispatch(
    era: Era,
    method: &str,
    id: &Value,
    params: &Map<String, Value>,
    out: &mut dyn Write,
) -> Result<Value, Fault> {
    match (method, era) {
        ("initialize", Era::Legacy) => Ok(initialize(params)),
        ("ping", Era::Legacy) => Ok(json!({})),
        ("server/discover", Era::Modern) => Ok(cacheable(json!({
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
        }))),
        ("server/discover", Era::Legacy) => Err((-32602, format!("`_meta` lacks `{VERSION}`"), None)),
        ("tools/list", Era::Legacy) => Ok(json!({"tools": tools::list()})),
        ("tools/list", Era::Modern) => Ok(cacheable(json!({"tools": tools::list()}))),
        ("tools/call", _) => call(id, params, out),
        _ => Err((-32601, format!("method `{method}` not found"), None)),
    }
}

/// Adds the cache hints that a modern list or discovery carries.
fn cacheable(mut result: Value) -> Value {
    if let Some(members) = result.as_object_mut() {
        members.insert("ttlMs".to_owned(), json!(3_600_000));
        members.insert("cacheScope".to_owned(), json!("public"));
    }
    result
}

/// Name and version of this server.
fn server_info() -> Value {
    json!({"name": "toolcell-hostile-server", "version": env!("CARGO_PKG_VERSION")})
}

/// The legacy handshake: the version asked for, if it is one of ours, else our newest.
fn initialize(params: &Map<String, Value>) -> Value {
    let asked = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let version = LEGACY.into_iter().find(|version| *version == asked).unwrap_or("2025-11-25");
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": server_info(),
        "instructions": "Every tool but `harmless` attacks the machine it runs on. For demonstration only.",
    })
}

/// Runs one tool.
fn call(id: &Value, params: &Map<String, Value>, out: &mut dyn Write) -> Result<Value, Fault> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
    let tool =
        tools::find(name).ok_or_else(|| (-32602, format!("tool `{name}` does not exist"), None::<Value>))?;
    let none = Map::new();
    let arguments = params.get("arguments").and_then(Value::as_object).unwrap_or(&none);
    let report =
        (tool.run)(&mut Call::new(tool.description, id, arguments, out)).map_err(|Refusal(argument)| {
            (-32602, format!("argument `{argument}` is missing or malformed"), None)
        })?;
    Ok(result(&report))
}

/// A tool's report as the result of its call.
fn result(report: &Report) -> Value {
    json!({
        "content": [{"type": "text", "text": report.to_string()}],
        "structuredContent": report,
        "isError": false,
    })
}
