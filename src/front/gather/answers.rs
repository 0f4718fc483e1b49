//! What a child says, and what of it goes to the client.
//!
//! Neighbours: [`super::requests`] has sent what this answers, [`super::merge`] makes one answer of several. Never: passes on an answer that another child was
//! asked for.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;

use super::merge::{self, Part};
use super::requests::failure;
use super::{Gather, MOST_PAGES, Open};
use crate::mcp::envelope::{self, INTERNAL_ERROR, Id, Kind, METHOD_NOT_FOUND, Message};
use crate::mcp::{label, object, reply};

/// Where a notification says to which `subscriptions/listen` it belongs.
const SUBSCRIPTION: &[&str] = &["_meta", "io.modelcontextprotocol/subscriptionId"];
/// What is said to a listener before every server has acknowledged it.
const MOST_HELD: usize = 1000;

fn with_newline(mut line: Vec<u8>) -> Vec<u8> {
    line.push(b'\n');
    line
}

impl Gather {
    /// Deals with one line of a child, without its newline.
    pub(super) async fn said(&mut self, server: usize, line: Vec<u8>) {
        let Ok(message) = envelope::parse(&line) else { return };
        match &message.kind {
            Kind::Answer { id, error } => self.answer(server, &line, &message, id, *error).await,
            Kind::Request { id, .. } => {
                let line = self.registered(server, &line, &message, id);
                self.output.line(with_newline(line)).await;
            }
            Kind::Notification { method } => self.note(server, line, &message, method).await,
        }
    }

    /// A child's request under an id, and with a progress token, of this process.
    fn registered(&mut self, server: usize, line: &[u8], message: &Message, id: &Id) -> Vec<u8> {
        self.next += 1;
        let number = self.next;
        self.asked.insert(number, (server, id.to_json().into_bytes()));
        let token = message.params.clone();
        let token = token.and_then(|params| object::lookup(line, params, &["_meta", "progressToken"]));
        let mut places = vec![message.id.clone()];
        if let Some(span) = token {
            self.tokens.insert(number, (server, line.get(span.clone()).unwrap_or_default().to_vec()));
            places.push(span);
        }
        // The later one first, so that the earlier one's place still holds.
        places.sort_by_key(|span| std::cmp::Reverse(span.start));
        let by = number.to_string();
        places.iter().fold(line.to_vec(), |line, span| object::replaced(&line, span, by.as_bytes()))
    }

    async fn note(&mut self, server: usize, line: Vec<u8>, message: &Message, method: &str) {
        let place = |path: &[&str]| object::lookup(&line, message.params.clone()?, path);
        let line = match method {
            "notifications/cancelled" => {
                let Some(span) = place(&["requestId"]) else { return };
                let own = line.get(span.clone()).and_then(Id::parse).map(|id| id.to_json().into_bytes());
                let known = |(_, (owner, raw)): &(&i64, &(usize, Vec<u8>))| {
                    *owner == server && Some(raw) == own.as_ref()
                };
                let Some(number) = self.asked.iter().find(known).map(|(number, _)| *number) else { return };
                self.asked.remove(&number);
                self.tokens.remove(&number);
                object::replaced(&line, &span, number.to_string().as_bytes())
            }
            "notifications/resources/list_changed" => {
                self.owners.known = false;
                line
            }
            _ => {
                let id = place(SUBSCRIPTION).and_then(|span| Id::parse(line.get(span)?));
                if let Some(id) = id {
                    return self.heard(server, id, line, method).await;
                }
                line
            }
        };
        self.output.line(with_newline(line)).await;
    }

    /// What a child says to who listens: nothing before all have acknowledged it, and that is said once.
    async fn heard(&mut self, server: usize, id: Id, line: Vec<u8>, method: &str) {
        let Some(Open::All(fan)) = self.open.get_mut(&id) else { return };
        if fan.unheard.is_empty() {
            return self.output.line(with_newline(line)).await;
        }
        if method == "notifications/subscriptions/acknowledged" {
            fan.unheard.remove(&server);
            let Ok(message) = envelope::parse(&line) else { return };
            let result = message.params.unwrap_or_default();
            fan.parts.push(Part { server, line, result });
        } else if fan.held.len() < MOST_HELD {
            fan.held.push(line);
        }
        self.acknowledge(&id).await;
    }

    /// Tells who listens that it is heard, when all have said so.
    async fn acknowledge(&mut self, id: &Id) {
        let Some(Open::All(fan)) = self.open.get_mut(id) else { return };
        if fan.method != "subscriptions/listen" || !fan.unheard.is_empty() || fan.parts.is_empty() {
            return;
        }
        // Where an HTTP process stands in front, it tells its clients' lines apart by this.
        let fronted = fan.parts.iter().any(|part| label::unlabelled(&part.line).is_some());
        let mut notifications = BTreeMap::new();
        for part in std::mem::take(&mut fan.parts) {
            let told = part.member("notifications").and_then(|raw| serde_json::from_slice(raw).ok());
            let Some(serde_json::Value::Object(told)) = told else { continue };
            for (name, value) in told {
                let known = notifications.entry(name).or_insert_with(|| value.clone());
                if let (serde_json::Value::Array(known), serde_json::Value::Array(more)) = (known, &value) {
                    let fresh: Vec<_> = more.iter().filter(|uri| !known.contains(uri)).cloned().collect();
                    known.extend(fresh);
                }
            }
        }
        let held = std::mem::take(&mut fan.held);
        let subscription = match id {
            Id::Number(number) => serde_json::json!(number),
            Id::Text(text) => serde_json::json!(text),
        };
        let told = serde_json::json!({
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": notifications, "_meta": {"io.modelcontextprotocol/subscriptionId": subscription}},
        });
        let told = told.to_string().into_bytes();
        let told = if fronted { label::labelled(&told, id) } else { told };
        self.output.line(with_newline(told)).await;
        for line in held {
            self.output.line(with_newline(line)).await;
        }
    }

    async fn answer(&mut self, server: usize, line: &[u8], message: &Message, id: &Id, error: bool) {
        match self.open.get_mut(id) {
            Some(Open::One { server: owner, .. }) if *owner == server => {
                self.open.remove(id);
                self.output.line(with_newline(line.to_vec())).await;
            }
            Some(Open::All(fan)) if fan.waiting.contains(&server) => {
                fan.unheard.remove(&server);
                let result = message.body.clone().unwrap_or_default();
                let further = object::member(line, result.clone(), "nextCursor").filter(|_| !error);
                if error {
                    fan.refused.get_or_insert_with(|| line.to_vec());
                } else if fan.method != "subscriptions/listen" {
                    fan.parts.push(Part { server, line: line.to_vec(), result });
                }
                let page = fan.pages.entry(server).or_insert(1);
                if let Some(cursor) = further.and_then(|span| line.get(span)).filter(|_| *page < MOST_PAGES) {
                    *page += 1;
                    let next = with_cursor(&fan.line, cursor);
                    return self.send(server, &next).await;
                }
                fan.waiting.remove(&server);
                let done = fan.waiting.is_empty();
                self.acknowledge(id).await;
                if done {
                    self.finish(id).await;
                }
            }
            // Whoever asked does not wait for it any more.
            _ => {}
        }
    }

    /// Answers a request that all children have answered.
    pub(super) async fn finish(&mut self, id: &Id) {
        if self.settle_version(id).await {
            return;
        }
        let Some(Open::All(mut fan)) = self.open.remove(id) else { return };
        // The children answer when they like; a list is to be the same each time.
        fan.parts.sort_by_key(|part| part.server);
        merge::own(&mut self.owners, &fan.method, &fan.parts);
        if Box::pin(self.learned(id)).await {
            return;
        }
        let everybody = fan.method == "server/discover";
        let line = match (fan.refused, fan.method.as_str()) {
            // One that does not speak the modern era can only be spoken to in the other one, which all may know.
            (Some(refused), _) if fan.parts.is_empty() || everybody => with_newline(refused),
            (None, "subscriptions/listen") => reply::empty(id),
            (None, _) if fan.parts.is_empty() => {
                reply::error(Some(id), INTERNAL_ERROR, "no server is left to answer")
            }
            (_, "initialize" | "server/discover") => {
                self.left_out(&fan.parts, &fan.method);
                merge::introduction(id, &fan.parts, &self.names, &self.options.version)
            }
            (_, "logging/setLevel") => reply::empty(id),
            (_, method) => merge::lists(id, method, &fan.parts, &self.names, &self.owners),
        };
        self.output.line(line).await;
    }

    /// Lets those that agreed on a newer version than others agree on the oldest. True: their answers are awaited.
    async fn settle_version(&mut self, id: &Id) -> bool {
        let Some(Open::All(fan)) = self.open.get_mut(id) else { return false };
        if fan.method != "initialize" {
            return false;
        }
        let version = |part: &Part| part.text("protocolVersion").unwrap_or_default();
        let Some(oldest) = fan.parts.iter().map(version).min() else { return false };
        let (same, newer): (Vec<Part>, Vec<Part>) =
            std::mem::take(&mut fan.parts).into_iter().partition(|part| version(part) == oldest);
        fan.parts = same;
        if newer.is_empty() || std::mem::replace(&mut fan.again, true) {
            return false;
        }
        fan.waiting = newer.iter().map(|part| part.server).collect();
        let place = object::lookup(&fan.line, 0..fan.line.len(), &["params", "protocolVersion"]);
        let Some(place) = place else { return false };
        let line =
            object::replaced(&fan.line, &place, serde_json::Value::from(oldest).to_string().as_bytes());
        for server in fan.waiting.clone() {
            self.send(server, &line).await;
        }
        true
    }

    /// Reports whom the client cannot be connected with.
    fn left_out(&mut self, parts: &[Part], method: &str) {
        if method != "initialize" {
            return;
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            member.left_out = !parts.iter().any(|part| part.server == at);
            if member.left_out && member.input.is_some() {
                let name = self.names.get(at).map_or("", String::as_str);
                (self.options.notice)(&format!(
                    "server `{name}` is left out: it has refused the handshake, or speaks no version of the protocol that the others speak"
                ));
            }
        }
    }

    /// A child is gone.
    pub(super) async fn ended(&mut self, server: usize, status: io::Result<ExitStatus>, expected: bool) {
        if let Some(member) = self.members.get_mut(server) {
            member.input = None;
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let told = format!(
            "server `{}` has ended ({how}); its own words are on toolcell's stderr",
            self.name(server)
        );
        if expected {
            (self.options.notice)(&format!("{told}; the others go on"));
        }
        let asked: Vec<i64> =
            self.asked.iter().filter(|(_, (owner, _))| *owner == server).map(|(n, _)| *n).collect();
        for number in asked {
            self.asked.remove(&number);
            self.tokens.remove(&number);
            self.output.line(reply::cancelled(&Id::Number(number), "the server has ended")).await;
        }
        let mut lost = Vec::new();
        let mut finished = Vec::new();
        let mut opens: Vec<_> = self.open.iter_mut().collect();
        opens.sort_by_key(|(id, _)| id.to_json());
        for (id, open) in opens {
            match open {
                Open::One { server: owner, method, era } if *owner == server => {
                    lost.push((id.clone(), failure(id, method, *era, &told)));
                }
                Open::One { .. } => {}
                Open::All(fan) => {
                    fan.unheard.remove(&server);
                    if fan.waiting.remove(&server) && fan.waiting.is_empty() {
                        fan.refused.get_or_insert_with(|| {
                            let mut line = reply::error(Some(id), METHOD_NOT_FOUND, &told);
                            line.pop();
                            line
                        });
                        finished.push(id.clone());
                    }
                }
            }
        }
        for (id, line) in lost {
            self.open.remove(&id);
            self.output.line(line).await;
        }
        for id in finished {
            self.finish(&id).await;
        }
    }
}

/// The request for a further page.
fn with_cursor(line: &[u8], cursor: &[u8]) -> Vec<u8> {
    let member = [b"\"cursor\":", cursor].concat();
    let Some(params) = object::member(line, 0..line.len(), "params") else {
        return match line.iter().position(|byte| *byte == b'{') {
            Some(brace) => {
                let member = [b"\"params\":{", member.as_slice(), b"},"].concat();
                object::replaced(line, &(brace + 1..brace + 1), &member)
            }
            None => line.to_vec(),
        };
    };
    let empty = object::members(line, params.clone()).is_empty();
    let member = if empty { member } else { [member.as_slice(), b","].concat() };
    object::replaced(line, &(params.start + 1..params.start + 1), &member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_page_is_asked_for_like_the_first() {
        for (first, next) in [
            (r#"{"id":1,"method":"m"}"#, r#"{"params":{"cursor":"c"},"id":1,"method":"m"}"#),
            (r#"{"id":1,"params":{},"method":"m"}"#, r#"{"id":1,"params":{"cursor":"c"},"method":"m"}"#),
            (r#"{"id":1,"params":{ "_meta":{}}}"#, r#"{"id":1,"params":{"cursor":"c", "_meta":{}}}"#),
        ] {
            assert_eq!(String::from_utf8(with_cursor(first.as_bytes(), b"\"c\"")).unwrap(), next);
        }
    }
}
