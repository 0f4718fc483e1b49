//! What the session asks of the server itself: its list of tools, page by page.
//!
//! Neighbours: [`super`] has the process and takes the pages in. Never: answers a client.

use tokio::sync::oneshot;

use super::{Catalogue, LIST};
use crate::mcp::envelope::{self, Era, Id, Kind, Message};
use crate::mcp::reply;
use crate::session::{Ask, Control, Session};

/// The list is read in so many pages at most,
const MOST_PAGES: usize = 100;
/// under this id. One of these requests is open at a time, so that it is taken for no other's.
const LEARN_ID: &str = "dev.toolcell/tools";

/// A walk over the list of tools that the session needs itself.
#[derive(Debug)]
pub(in crate::session) struct Learn {
    /// The `_meta` of its requests, as JSON.
    pub(in crate::session) meta: Option<Vec<u8>>,
    /// Told when the list has been seen whole, or why it cannot be.
    pub(in crate::session) done: oneshot::Sender<Result<(), String>>,
    /// Pages so far.
    pub(in crate::session) pages: usize,
}

impl Learn {
    /// The request for a page.
    fn ask(&self, session: &Session, era: Era, cursor: Option<&str>) -> Option<(Ask, Control)> {
        let mut params = Vec::new();
        if let Some(cursor) = cursor {
            params.push(format!("\"cursor\":{}", serde_json::Value::from(cursor)).into_bytes());
        }
        if let Some(meta) = &self.meta {
            params.push([b"\"_meta\":", meta.as_slice()].concat());
        }
        let params = [b"{", params.join(&b","[..]).as_slice(), b"}"].concat();
        let id = Id::Text(LEARN_ID.to_owned());
        let line = reply::request(&id, LIST, Some(&params));
        let message = envelope::parse(line.trim_ascii_end()).ok()?;
        let meta = envelope::Meta { era, progress: None, client: None, trace: None };
        let params = message.params;
        let ask = Ask { id, line, method: LIST.to_owned(), target: None, params, meta, identity: None };
        Some((ask, Control { cancel: None, gone: session.gone.subscribe() }))
    }
}

impl Catalogue {
    /// Begins a walk, unless the list is known by now.
    pub(super) async fn learn(&mut self, learn: Learn) {
        if self.session.schemas(self.era).is_complete() {
            // Who waited may have left.
            return drop(learn.done.send(Ok(())));
        }
        if let Some((ask, control)) = learn.ask(&self.session, self.era, None) {
            self.begin(ask, control, Some(learn)).await;
        }
    }

    /// A page of what the session has asked for itself.
    pub(super) async fn learned(&mut self, learn: Learn, line: &[u8], message: &Message) {
        let body = message.body.clone().unwrap_or_default();
        if matches!(message.kind, Kind::Answer { error: true, .. }) {
            let said = envelope::text_member(line, body, "message").unwrap_or_default();
            return drop(learn.done.send(Err(format!("the server refuses to list its tools: {said}"))));
        }
        let Some(cursor) = envelope::text_member(line, body, "nextCursor") else {
            self.session.schemas(self.era).complete();
            return drop(learn.done.send(Ok(())));
        };
        let learn = Learn { pages: learn.pages + 1, ..learn };
        if learn.pages >= MOST_PAGES {
            let told = format!("the server's list of tools has more than {MOST_PAGES} pages");
            return drop(learn.done.send(Err(told)));
        }
        if let Some((ask, control)) = learn.ask(&self.session, self.era, Some(&cursor)) {
            self.begin(ask, control, Some(learn)).await;
        }
    }
}
