//! Which arguments of which tools have to stand in headers too, by what the server lists.
//!
//! A client has read the list, perhaps from another instance than this one, so this one may have to read it itself: once for
//! each identity in [`KEPT`], before its first call.
//!
//! Neighbours: [`super::mirror`] compares; [`super::endpoint`] asks. Never: refuses a call because there is no list.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::mirror::Marked;
use super::queue::Event;
use super::shared::Shared;
use super::wire::Incoming;
use crate::access::FRONT_MEMBER;
use crate::mcp::envelope::META_PROTOCOL_VERSION;
use crate::mcp::object;

/// For so long a list counts.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Pages of a list.
const PAGES: usize = 64;
/// How long a walk may take.
const WALK: Duration = Duration::from_secs(30);

type Tools = Rc<HashMap<String, Marked>>;

/// What is known of tools, by identity: each may see others.
#[derive(Debug, Default)]
pub(super) struct Marks(RefCell<HashMap<Option<String>, (Instant, Tools)>>);

#[derive(Deserialize)]
struct Page {
    result: Listed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    tools: Vec<Tool>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool {
    name: String,
    #[serde(default)]
    input_schema: Value,
}

impl Marks {
    /// The marked arguments of a tool, for the call `incoming`, which says which version its client speaks.
    pub(super) async fn of(
        &self,
        tool: &str,
        (shared, word): (&Shared, Option<&str>),
        incoming: &Incoming,
        identity: Option<&str>,
    ) -> Option<Marked> {
        let identity = identity.map(str::to_owned);
        let now = Instant::now();
        let known = self
            .0
            .borrow()
            .get(&identity)
            .filter(|(at, _)| now - *at < KEPT)
            .map(|(_, tools)| Rc::clone(tools));
        let tools = match known {
            Some(tools) => tools,
            None => {
                let walked = timeout_at(now + WALK, walk(shared, word, incoming)).await.ok().flatten();
                let tools = Rc::new(walked.unwrap_or_default());
                self.0.borrow_mut().insert(identity, (now, Rc::clone(&tools)));
                tools
            }
        };
        tools.get(tool).cloned()
    }

    /// The client has asked for the list, so it may be another one now.
    pub(super) fn forget(&self, identity: Option<&str>) {
        self.0.borrow_mut().remove(&identity.map(str::to_owned));
    }
}

async fn walk(shared: &Shared, word: Option<&str>, incoming: &Incoming) -> Option<HashMap<String, Marked>> {
    let raw = |name: &str| {
        let span = object::member(&incoming.line, incoming.meta()?, name)?;
        serde_json::from_slice::<Value>(incoming.slice(span)).ok()
    };
    let mut meta = serde_json::Map::new();
    for name in [
        META_PROTOCOL_VERSION,
        "io.modelcontextprotocol/clientCapabilities",
        "io.modelcontextprotocol/clientInfo",
    ] {
        meta.extend(raw(name).map(|value| (name.to_owned(), value)));
    }
    meta.extend(word.map(|word| (FRONT_MEMBER.to_owned(), Value::from(word))));
    let mut found = HashMap::new();
    let mut cursor = None;
    for _page in 0..PAGES {
        let mut params = serde_json::json!({"_meta": meta});
        if let (Some(cursor), Some(params)) = (cursor.take(), params.as_object_mut()) {
            params.insert("cursor".to_owned(), Value::String(cursor));
        }
        let line = serde_json::json!({"jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": params});
        let request = Incoming::read(line.to_string().into_bytes()).ok()?;
        let mut pending = shared.ask(&request).await.ok()?;
        let answer = loop {
            match pending.events.recv().await? {
                Event::Note(_) => {}
                Event::Answer(line, None) => break line,
                Event::Answer(_, Some(_)) | Event::Lost => return None,
            }
        };
        let page: Page = serde_json::from_slice(&answer.bytes).ok()?;
        for tool in page.result.tools {
            let marked = Marked::of(&tool.input_schema);
            if !marked.is_empty() {
                found.insert(tool.name, marked);
            }
        }
        cursor = page.result.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Some(found)
}
