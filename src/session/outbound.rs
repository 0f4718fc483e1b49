//! Requests that servers make to the client: ids and progress tokens are made unique and mapped back.
//!
//! Every fresh process counts its requests from 0 or 1, so two cells' ids are the same sooner or later.
//!
//! Neighbours: [`super::link`] opens entries for its cell, [`super::client`] answers them. Never: does I/O.

use std::collections::HashMap;
use std::ops::Range;

use tokio::sync::mpsc::UnboundedSender;

use crate::mcp::envelope::{Id, Message};
use crate::mcp::object;

/// What the client has for a cell.
#[derive(Debug)]
pub(super) enum Back {
    /// The answer to one of the cell's requests.
    Answer(Vec<u8>),
    /// A notification.
    Note(Vec<u8>),
}

#[derive(Debug)]
struct Entry {
    cell: u64,
    back: UnboundedSender<Back>,
    /// The cell's own id or token, as it wrote it.
    raw: Vec<u8>,
    own: Id,
    /// The token under which the client may report progress on this request.
    token: Option<Id>,
}

/// All requests that cells wait for.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    counter: i64,
    requests: HashMap<Id, Entry>,
    tokens: HashMap<Id, Entry>,
}

impl Outbound {
    /// A new id of the same type.
    fn fresh(&mut self, like: &Id) -> Id {
        self.counter += 1;
        match like {
            Id::Number(_) => Id::Number(self.counter),
            Id::Text(_) => Id::Text(format!("toolcell-{}", self.counter)),
        }
    }

    fn remove(&mut self, id: &Id) -> Option<Entry> {
        let entry = self.requests.remove(id)?;
        if let Some(token) = &entry.token {
            self.tokens.remove(token);
        }
        Some(entry)
    }

    /// Registers a request of a cell, and gives the line to send to the client.
    pub(super) fn open(
        &mut self,
        cell: u64,
        back: &UnboundedSender<Back>,
        line: &[u8],
        message: &Message,
        own: &Id,
    ) -> Vec<u8> {
        let entry = |span: &Range<usize>, own: Id, token| Entry {
            cell,
            back: back.clone(),
            raw: line.get(span.clone()).unwrap_or_default().to_vec(),
            own,
            token,
        };
        let mut edits = Vec::new();
        let id = self.fresh(own);
        edits.push((message.id.clone(), id.to_json()));
        let token = message
            .params
            .clone()
            .and_then(|params| object::lookup(line, params, &["_meta", "progressToken"]))
            .and_then(|span| Some((Id::parse(line.get(span.clone())?)?, span)));
        let token = token.map(|(own, span)| {
            let token = self.fresh(&own);
            edits.push((span.clone(), token.to_json()));
            self.tokens.insert(token.clone(), entry(&span, own, None));
            token
        });
        self.requests.insert(id, entry(&message.id, own.clone(), token));
        // The later edit first, so that the earlier one's position still holds.
        edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        let mut out = line.to_vec();
        for (span, by) in edits {
            out = object::replaced(&out, &span, by.as_bytes());
        }
        out.push(b'\n');
        out
    }

    /// Passes the client's answer on to the cell that waits for it, if one still does.
    pub(super) fn answer(&mut self, line: &[u8], message: &Message, id: &Id) {
        if let Some(entry) = self.remove(id) {
            let mut line = object::replaced(line, &message.id, &entry.raw);
            line.push(b'\n');
            // A cell that is gone needs no answer.
            drop(entry.back.send(Back::Answer(line)));
        }
    }

    /// Passes the client's progress on one of these requests on.
    pub(super) fn progress(&self, line: &[u8], message: &Message) {
        let Some(span) =
            message.params.clone().and_then(|params| object::member(line, params, "progressToken"))
        else {
            return;
        };
        let token = line.get(span.clone()).and_then(Id::parse);
        if let Some(entry) = token.and_then(|token| self.tokens.get(&token)) {
            let mut line = object::replaced(line, &span, &entry.raw);
            line.push(b'\n');
            drop(entry.back.send(Back::Note(line)));
        }
    }

    /// The cell gives up one of its requests: the line that tells the client so.
    pub(super) fn withdraw(&mut self, cell: u64, line: &[u8], message: &Message) -> Option<Vec<u8>> {
        let span = object::member(line, message.params.clone()?, "requestId")?;
        let own = Id::parse(line.get(span.clone())?)?;
        let id = self.requests.iter().find(|(_, entry)| entry.cell == cell && entry.own == own)?.0.clone();
        self.remove(&id);
        let mut line = object::replaced(line, &span, id.to_json().as_bytes());
        line.push(b'\n');
        Some(line)
    }

    /// Forgets a cell. Gives the requests that the client need not answer any more, oldest first.
    pub(super) fn close(&mut self, cell: u64) -> Vec<Id> {
        self.tokens.retain(|_, entry| entry.cell != cell);
        let mut open: Vec<Id> =
            self.requests.iter().filter(|(_, entry)| entry.cell == cell).map(|(id, _)| id.clone()).collect();
        open.sort_by_key(Id::to_json);
        for id in &open {
            self.requests.remove(id);
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::mcp::envelope::{Kind, parse};

    #[test]
    fn ids_and_tokens_are_mapped_there_and_back() {
        let mut outbound = Outbound::default();
        let (back, mut heard) = unbounded_channel();
        let line = br#"{"jsonrpc":"2.0","params":{"_meta":{"progressToken":"p"},"x":1.0},"method":"sampling/createMessage","id":0}"#;
        let message = parse(line).unwrap();
        let sent = outbound.open(5, &back, line, &message, &Id::Number(0));
        assert_eq!(
            String::from_utf8(sent).unwrap(),
            "{\"jsonrpc\":\"2.0\",\"params\":{\"_meta\":{\"progressToken\":\"toolcell-2\"},\"x\":1.0},\"method\":\"sampling/createMessage\",\"id\":1}\n"
        );
        let note = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"toolcell-2","progress":1}}"#;
        outbound.progress(note, &parse(note).unwrap());
        let Some(Back::Note(note)) = heard.blocking_recv() else { panic!("no note") };
        assert!(String::from_utf8(note).unwrap().contains(r#""progressToken":"p","#));
        let answer = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let message = parse(answer).unwrap();
        let Kind::Answer { id, .. } = &message.kind else { panic!("no answer") };
        outbound.answer(answer, &message, id);
        outbound.answer(answer, &message, id);
        let Some(Back::Answer(answer)) = heard.blocking_recv() else { panic!("no answer") };
        assert_eq!(answer, b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n");
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_closed_cell_leaves_nothing() {
        let mut outbound = Outbound::default();
        let (back, _heard) = unbounded_channel();
        let line = br#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#;
        let message = parse(line).unwrap();
        outbound.open(1, &back, line, &message, &Id::Text("a".into()));
        outbound.open(2, &back, line, &message, &Id::Text("a".into()));
        assert_eq!(outbound.close(1), [Id::Text("toolcell-1".into())]);
        assert!(outbound.close(1).is_empty());
        let gone = br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#;
        let gone_message = parse(gone).unwrap();
        let told = outbound.withdraw(2, gone, &gone_message).unwrap();
        assert!(String::from_utf8(told).unwrap().contains("\"requestId\":\"toolcell-2\""));
        assert_eq!(outbound.withdraw(2, gone, &gone_message), None);
    }
}
