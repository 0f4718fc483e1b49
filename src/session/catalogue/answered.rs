//! What becomes of an answer that belongs to no call: capabilities that cannot be kept go, lists and the handshake are taken down.
//!
//! Neighbours: [`super`] has the process that answered. Never: changes another byte.

use std::rc::Rc;

use tokio::time::Instant;

use super::{Catalogue, LIST};
use crate::mcp::envelope::{self, Kind, Message};
use crate::mcp::{annex, object};
use crate::policy::bounds::CODEX;
use crate::session::cache::Key;
use crate::session::rules::Offers;
use crate::session::{Agreed, Ask, Handshake, locked};

impl Catalogue {
    /// Takes down what an answer says. Gives it as the client may have it.
    pub(super) fn take_down(&mut self, ask: &Ask, line: Vec<u8>, message: Message) -> (Vec<u8>, Message) {
        let error = matches!(message.kind, Kind::Answer { error: true, .. });
        let (line, message) =
            if self.kept() { (line, message) } else { without_tasks(&ask.method, line, message) };
        let (line, message) = self.with_what_is_offered(&ask.method, line, message);
        let (line, message) = locked::checked(&self.session, self.era, &ask.method, line, message);
        let result = message.body.clone().unwrap_or_default();
        let further = !error && object::member(&line, result.clone(), "nextCursor").is_some();
        self.rest(further);
        match ask.method.as_str() {
            "initialize" => self.agree(ask, &line, &message, error),
            "logging/setLevel" if !error => {
                *self.session.level.borrow_mut() =
                    ask.params.clone().and_then(|span| ask.line.get(span)).map(<[u8]>::to_vec);
            }
            "resources/subscribe" | "resources/unsubscribe" if !error => self.watch(ask),
            _ if !error => {
                if ask.method == LIST {
                    let cursor =
                        ask.params.clone().and_then(|span| object::member(&ask.line, span, "cursor"));
                    // One that is no text is none that goes on with a walk.
                    let cursor =
                        cursor.map(|span| ask.line.get(span).and_then(object::text).unwrap_or_default());
                    self.session.schemas(self.era).take(&line, result.clone(), cursor.as_deref());
                }
                let key = Key::new(self.era, &ask.method, &ask.line, ask.params.as_ref());
                // What a process lists that goes on may be another list after the next call.
                if let Some(key) = key.filter(|_| !self.kept()) {
                    let mut cache = self.session.cache.borrow_mut();
                    cache.put(key, &line, message.id.clone(), result, Instant::now());
                }
            }
            _ => {}
        }
        (line, message)
    }

    /// Some clients say what their own sandbox allows only to a server that offers to listen.
    fn with_what_is_offered(&self, method: &str, line: Vec<u8>, message: Message) -> (Vec<u8>, Message) {
        if method != "initialize" || !self.session.options.profiles.heeded().offer {
            return (line, message);
        }
        let line = annex::offering(line, &message, CODEX);
        let message = envelope::parse(line.trim_ascii_end()).unwrap_or(message);
        (line, message)
    }

    /// Keeps what the client and the server agreed on, for every fresh process.
    fn agree(&self, ask: &Ask, line: &[u8], message: &Message, error: bool) {
        let version =
            message.body.clone().and_then(|body| envelope::text_member(line, body, "protocolVersion"));
        let agreed = match (ask.params.clone(), version) {
            (Some(params), Some(version)) if !error => {
                let offers = Offers::of(&ask.line, Some(&params));
                let info = object::member(&ask.line, params.clone(), "clientInfo");
                if let Some(name) = info.and_then(|info| envelope::client_name(&ask.line, info)) {
                    *self.session.client.borrow_mut() = name;
                }
                let params = ask.line.get(params).unwrap_or_default().to_vec();
                Agreed::Done(Rc::new(Handshake { params, version, offers }))
            }
            _ => Agreed::None,
        };
        self.session.agreed.send_replace(agreed);
    }

    /// Keeps in mind which resources the client watches.
    fn watch(&mut self, ask: &Ask) {
        let uri = ask.params.clone().and_then(|span| object::member(&ask.line, span, "uri"));
        let Some(uri) = uri.and_then(|span| object::text(ask.line.get(span)?)) else { return };
        if ask.method == "resources/unsubscribe" {
            self.watched.remove(&*uri);
        } else if self.watched.len() < MOST_WATCHED {
            self.watched.insert(uri.into_owned());
            self.watcher = Some(ask.clone());
        }
        if let Some(running) = &mut self.running {
            running.link.rules.watched = !self.watched.is_empty();
        }
    }
}

/// Resources that one client is remembered to watch.
const MOST_WATCHED: usize = 10_000;

/// Takes the capability out of a handshake's or discovery's answer that a process for each call cannot keep: tasks live longer
/// than their call. Every other byte stays.
fn without_tasks(method: &str, line: Vec<u8>, message: Message) -> (Vec<u8>, Message) {
    if !matches!(method, "initialize" | "server/discover") {
        return (line, message);
    }
    let mut line = line;
    line.pop();
    let result = |line: &[u8]| object::member(line, 0..line.len(), "result");
    for path in
        [&["capabilities", "tasks"][..], &["capabilities", "extensions", "io.modelcontextprotocol/tasks"]]
    {
        // A server that says `false` has told the truth already.
        let offered =
            result(&line).and_then(|span| object::lookup(&line, span, path)).and_then(|span| line.get(span));
        if offered.is_some_and(|value| value != b"false") {
            line = object::without(line, result, path);
        }
    }
    // The removal has moved the positions.
    let message = envelope::parse(&line).unwrap_or(message);
    line.push(b'\n');
    (line, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_are_taken_out() {
        let line = br#"{"result":{"capabilities":{"resources":{"subscribe":true,"listChanged":true},"tasks":{"x":1},"tools":{}},"x":1.0},"jsonrpc":"2.0","id":3}"#;
        let mut line = line.to_vec();
        let message = envelope::parse(&line).unwrap();
        line.push(b'\n');
        let (stripped, again) = without_tasks("initialize", line.clone(), message.clone());
        assert_eq!(
            String::from_utf8(stripped.clone()).unwrap(),
            "{\"result\":{\"capabilities\":{\"resources\":{\"subscribe\":true,\"listChanged\":true},\"tools\":{}},\"x\":1.0},\"jsonrpc\":\"2.0\",\"id\":3}\n"
        );
        assert_eq!(&stripped[again.id], b"3");
        assert_eq!(without_tasks("tools/list", line.clone(), message).0, line);
        let honest = br#"{"id":1,"jsonrpc":"2.0","result":{"capabilities":{"tasks":false}}}"#;
        let message = envelope::parse(honest).unwrap();
        let honest = [honest.as_slice(), b"\n"].concat();
        assert_eq!(without_tasks("initialize", honest.clone(), message).0, honest);
    }
}
