//! What the client says, and to which children it goes.
//!
//! Neighbours: [`super::answers`] deals with what comes back, [`super::names`] says whose a name is. Never: sends a request to two children that one
//! could answer.

use std::collections::{BTreeSet, HashMap};

use super::names::{Owner, SEPARATOR, split};
use super::{Fan, Gather, Open, merge, text_of};
use crate::mcp::envelope::{self, Era, INVALID_PARAMS, INVALID_REQUEST, Id, Kind, METHOD_NOT_FOUND, Message};
use crate::mcp::{object, reply};

/// Under these ids the lists of resources are read, when it has to be known whose one is.
const LEARN: [(&str, &str); 2] =
    [("dev.toolcell/resources", "resources/list"), ("dev.toolcell/templates", "resources/templates/list")];

impl Gather {
    /// Deals with one line of the client, without its newline.
    pub(super) async fn line(&mut self, line: &[u8]) {
        let message = match envelope::parse(line) {
            Ok(message) => message,
            Err(_) if line.is_empty() => return,
            Err(refusal) => {
                let told = reply::error(refusal.id.as_ref(), refusal.code, &refusal.detail);
                return self.output.line(told).await;
            }
        };
        match &message.kind {
            Kind::Answer { id, .. } => {
                let Id::Number(number) = id else { return };
                if let Some((server, raw)) = self.asked.remove(number) {
                    self.tokens.remove(number);
                    let line = object::replaced(line, &message.id, &raw);
                    self.send(server, &line).await;
                }
            }
            Kind::Notification { method } => self.notification(line, &message, method).await,
            Kind::Request { id, method } => Box::pin(self.request(line, &message, id, method)).await,
        }
    }

    async fn notification(&mut self, line: &[u8], message: &Message, method: &str) {
        let named = |name: &str| {
            let span = object::member(line, message.params.clone()?, name)?;
            Some((Id::parse(line.get(span.clone())?)?, span))
        };
        match method {
            "notifications/cancelled" => {
                let to = match named("requestId").and_then(|(id, _)| self.open.remove(&id)) {
                    Some(Open::One { server, .. }) => BTreeSet::from([server]),
                    Some(Open::All(fan)) => fan.waiting,
                    None => return,
                };
                for server in to {
                    self.send(server, line).await;
                }
            }
            "notifications/progress" => {
                let Some((Id::Number(token), span)) = named("progressToken") else { return };
                if let Some((server, raw)) = self.tokens.get(&token).cloned() {
                    let line = object::replaced(line, &span, &raw);
                    self.send(server, &line).await;
                }
            }
            _ => {
                for server in self.reachable(Era::Legacy) {
                    self.send(server, line).await;
                }
            }
        }
    }

    async fn request(&mut self, line: &[u8], message: &Message, id: &Id, method: &str) {
        if self.open.contains_key(id) || LEARN.iter().any(|(own, _)| *id == Id::Text((*own).to_owned())) {
            let detail = format!("the id {id} belongs to a request that is still open");
            return self.output.line(reply::error(None, INVALID_REQUEST, &detail)).await;
        }
        let mut era = envelope::meta(line, message.params.as_ref()).era;
        let param = |name: &str| message.params.clone().and_then(|params| object::member(line, params, name));
        match method {
            "ping" if era == Era::Legacy => self.output.line(reply::empty(id)).await,
            "initialize" | "server/discover" | "logging/setLevel" | "subscriptions/listen" => {
                match method {
                    "initialize" => {
                        era = Era::Legacy;
                        self.members.iter_mut().for_each(|member| member.left_out = false);
                    }
                    "server/discover" => era = Era::Modern,
                    _ => {}
                }
                self.ask_all(line, id, method, era).await;
            }
            _ if merge::list(method).is_some() => {
                if param("cursor").is_some() {
                    return self
                        .error(id, INVALID_PARAMS, "there is no further page: lists are given whole")
                        .await;
                }
                self.ask_all(line, id, method, era).await;
            }
            "tools/call" if param("task").is_some() => {
                let detail = "tasks are not offered by several servers as one: run their server alone";
                self.error(id, INVALID_PARAMS, detail).await;
            }
            "tools/call" | "prompts/get" => {
                self.by_name(line, id, (method, era), message.params.clone(), "name").await;
            }
            "completion/complete" => match param("ref") {
                Some(reference) if object::member(line, reference.clone(), "name").is_some() => {
                    self.by_name(line, id, (method, era), Some(reference), "name").await;
                }
                reference => {
                    let uri = envelope::target(line, reference.as_ref(), "uri").ok();
                    self.by_uri(line, id, (method, era), uri).await;
                }
            },
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                self.by_uri(line, id, (method, era), text_of(line, message, "uri")).await;
            }
            _ => {
                let detail = format!("`{method}` is not offered by several servers as one");
                self.error(id, METHOD_NOT_FOUND, &detail).await;
            }
        }
    }

    async fn ask_one(&mut self, server: usize, line: &[u8], id: &Id, (method, era): (&str, Era)) {
        if !self.reachable(era).contains(&server) {
            let detail = format!("server `{}` is not there; toolcell's stderr says why", self.name(server));
            return self.output.line(failure(id, method, era, &detail)).await;
        }
        self.open.insert(id.clone(), Open::One { server, method: method.to_owned(), era });
        self.send(server, line).await;
    }

    pub(super) async fn ask_all(&mut self, line: &[u8], id: &Id, method: &str, era: Era) {
        let waiting = self.reachable(era);
        let listens = method == "subscriptions/listen";
        let fan = Fan {
            method: method.to_owned(),
            line: line.to_vec(),
            unheard: if listens { waiting.clone() } else { BTreeSet::new() },
            waiting: waiting.clone(),
            parts: Vec::new(),
            pages: HashMap::new(),
            refused: None,
            again: false,
            held: Vec::new(),
        };
        self.open.insert(id.clone(), Open::All(fan));
        for server in &waiting {
            self.send(*server, line).await;
        }
        if waiting.is_empty() {
            self.finish(id).await;
        }
    }

    /// Sends a request to who has the tool or prompt that it names.
    async fn by_name(
        &mut self,
        line: &[u8],
        id: &Id,
        (method, era): (&str, Era),
        object: Option<std::ops::Range<usize>>,
        member: &str,
    ) {
        let name = match envelope::target(line, object.as_ref(), member) {
            Ok(name) => name,
            Err(detail) => return self.error(id, INVALID_PARAMS, &detail).await,
        };
        let Some((server, own)) = split(&self.names, &name) else {
            let begins: Vec<String> =
                self.names.iter().map(|server| format!("`{server}{SEPARATOR}`")).collect();
            let detail = format!("no server has `{name}`; names begin with {}", begins.join(" or "));
            return self.error(id, INVALID_PARAMS, &detail).await;
        };
        // The only one, as `target` has seen.
        let Some(span) = object.and_then(|object| object::member(line, object, member)) else { return };
        let line = object::replaced(line, &span, serde_json::Value::from(own).to_string().as_bytes());
        self.ask_one(server, &line, id, (method, era)).await;
    }

    /// Sends a request to who has the resource that it names, as soon as that is known.
    async fn by_uri(&mut self, line: &[u8], id: &Id, (method, era): (&str, Era), uri: Option<String>) {
        let Some(uri) = uri else {
            return self.error(id, INVALID_PARAMS, "`params` names no resource").await;
        };
        match self.owners.of(&uri) {
            Owner::One(server) => return self.ask_one(server, line, id, (method, era)).await,
            Owner::Several => {
                let detail = format!("more than one server has `{uri}`, so none is asked");
                return self.error(id, INVALID_PARAMS, &detail).await;
            }
            Owner::Nobody if self.owners.known => {
                // The one that the protocol has for a resource that is not there.
                return self
                    .error(id, -32002, &format!("no server lists `{uri}`, or a template for it"))
                    .await;
            }
            Owner::Nobody => {}
        }
        self.deferred.push(line.to_vec());
        if self.deferred.len() > 1 {
            return;
        }
        let meta = object::lookup(line, 0..line.len(), &["params", "_meta"]).and_then(|span| line.get(span));
        let params = meta.filter(|_| era == Era::Modern).map(|meta| [b"{\"_meta\":", meta, b"}"].concat());
        for (own, method) in LEARN {
            let own = Id::Text(own.to_owned());
            let mut line = reply::request(&own, method, params.as_deref());
            line.pop();
            Box::pin(self.ask_all(&line, &own, method, era)).await;
        }
    }

    /// Whether this is a list that was asked for here; when all are there, what has waited goes on.
    pub(super) async fn learned(&mut self, id: &Id) -> bool {
        if !LEARN.iter().any(|(own, _)| *id == Id::Text((*own).to_owned())) {
            return false;
        }
        if !LEARN.iter().any(|(own, _)| self.open.contains_key(&Id::Text((*own).to_owned()))) {
            self.owners.known = true;
            for line in std::mem::take(&mut self.deferred) {
                Box::pin(self.line(&line)).await;
            }
        }
        true
    }
}

/// The answer to a request that no server will answer.
pub(super) fn failure(id: &Id, method: &str, era: Era, detail: &str) -> Vec<u8> {
    if method == "tools/call" {
        return reply::tool_error(id, era, detail, None);
    }
    reply::error(Some(id), envelope::INTERNAL_ERROR, detail)
}
