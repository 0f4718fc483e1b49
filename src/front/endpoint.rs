//! One HTTP request, from its head to its response.
//!
//! ```text
//! path ──► Host, Origin (403) ──► who? (401) ──► method (405) ──► Content-Type (415), Accept (406) ──► body (413, 408)
//!      ──► message (400) ──► modern: headers (400) ──► the shared child
//!                        └─► legacy: session (400, 404) ──► its child
//! ```
//!
//! Neighbours: [`super::server`] reads heads, [`super::answer`] is sent. Never: starts anything for who has not shown who
//! it is, where that is asked.

use std::fs::File;
use std::io::Read as _;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming as HttpBody;
use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Answer, Events, Source};
use super::auth::{Auth, Unknown};
use super::hosts::Hosts;
use super::marks::Marks;
use super::mirror::{self, Wrong};
use super::queue::Event;
use super::session::{NoSession, Sessions};
use super::shared::{Shared, Unavailable};
use super::taken::{accepts, is_json, read};
use super::wire::Incoming;
use crate::access::{Now, word};
use crate::mcp::envelope::{
    self, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Id, Kind, METHOD_NOT_FOUND,
};
use crate::mcp::object;

/// Where messages go.
pub const PATH: &str = "/mcp";
/// Where it is asked whether there is somebody to answer.
const HEALTH: &str = "/healthz";
/// Where clients learn who issues tokens for this server (RFC 9728).
const METADATA: &str = "/.well-known/oauth-protected-resource";
/// The session of a legacy client.
pub(super) const SESSION: &str = "mcp-session-id";

/// An answer that takes longer than this begins as a stream, so that nothing between gives up.
const SOON: Duration = Duration::from_secs(10);
/// How long a child has to answer when it is asked whether it does.
const HEALTHY: Duration = Duration::from_secs(5);
/// For so long the answer to that counts.
const HEALTH_KEPT: Duration = Duration::from_secs(1);

/// -32020 of the protocol: a header does not say what the body says.
const HEADER_MISMATCH: i32 = -32020;
/// Codes of our own; the numbers are HTTP's for the same.
const UNAUTHENTICATED: i32 = 401;
const FORBIDDEN: i32 = 403;
const LIMITED: i32 = 429;

/// Methods of the legacy era, which a modern request cannot use.
const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// What answers requests.
pub(super) struct Front {
    pub(super) hosts: Hosts,
    pub(super) auth: Option<Auth>,
    /// With what children know the front's word.
    pub(super) key: Vec<u8>,
    pub(super) shared: Rc<Shared>,
    pub(super) sessions: Rc<Sessions>,
    pub(super) random: File,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) health: Mutex<Option<(Instant, bool)>>,
    pub(super) marks: Marks,
}

pub(super) type Stop<T> = Result<T, Box<Answer>>;

impl Front {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<HttpBody>) -> Answer {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let answer = match self.route(request).await {
            Ok(answer) => answer,
            Err(answer) => *answer,
        };
        match origin
            .as_ref()
            .and_then(|origin| origin.to_str().ok())
            .filter(|origin| self.hosts.allows(origin))
        {
            None => answer,
            Some(origin) => {
                let answer = answer::with(answer, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                let answer = answer::with(answer, header::VARY, "origin");
                answer::with(answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, SESSION)
            }
        }
    }

    async fn route(&self, request: Request<HttpBody>) -> Stop<Answer> {
        let path = request.uri().path();
        if path == HEALTH {
            return Ok(self.health(request.method()).await);
        }
        let metadata = self.auth.as_ref().and_then(|auth| auth.jwt.as_ref());
        let metadata = metadata.filter(|jwt| path == METADATA || path == jwt.metadata_path());
        if path != PATH && metadata.is_none() {
            return Err(stop(
                StatusCode::NOT_FOUND,
                None,
                INVALID_REQUEST,
                "there is nothing at this path; messages go to `/mcp`",
            ));
        }
        self.for_us(&request)?;
        if request.method() == Method::OPTIONS {
            return Ok(preflight());
        }
        if let Some(jwt) = metadata {
            return Ok(match *request.method() {
                Method::GET | Method::HEAD => answer::json(StatusCode::OK, jwt.metadata()),
                _ => not_allowed("GET"),
            });
        }
        let identity = self.identity(request.headers()).await?;
        let identity = identity.as_deref();
        match *request.method() {
            Method::POST => self.post(request, identity).await,
            Method::GET => self.listen(request.headers(), identity),
            Method::DELETE => self.delete(request.headers(), identity),
            _ => Ok(not_allowed("POST, GET, DELETE")),
        }
    }

    /// Refuses what is meant for another host, and what a page of another origin sends.
    fn for_us(&self, request: &Request<HttpBody>) -> Stop<()> {
        let refused = |status, message: &str| Err(stop(status, None, FORBIDDEN, message));
        let headers = request.headers();
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let (Some(host), None) = (host, hosts.next()) else {
            return Err(stop(
                StatusCode::BAD_REQUEST,
                None,
                INVALID_REQUEST,
                "there is not one header `host`",
            ));
        };
        let named = request.uri().authority().is_none_or(|authority| self.hosts.is_ours(authority.as_str()));
        if !self.hosts.is_ours(host) || !named {
            return refused(
                StatusCode::FORBIDDEN,
                "the header `host` names another host; see `--allow-host`",
            );
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if origin.to_str().is_ok_and(|origin| self.hosts.may_send(origin, host)) => {
                Ok(())
            }
            _ => refused(
                StatusCode::FORBIDDEN,
                "pages of this origin may not send requests; see `--allow-origin`",
            ),
        }
    }

    async fn identity(&self, headers: &HeaderMap) -> Stop<Option<String>> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let (status, error, message) = match auth.identify(headers, Now::of_clocks()).await {
            Ok(identity) => return Ok(Some(identity)),
            Err(Unknown::Nothing) => (
                StatusCode::UNAUTHORIZED,
                None,
                "a token is needed, in the header `authorization`".to_owned(),
            ),
            Err(Unknown::Malformed(why)) => {
                (StatusCode::BAD_REQUEST, Some("invalid_request"), why.to_owned())
            }
            Err(Unknown::Refused(why)) => (StatusCode::UNAUTHORIZED, Some("invalid_token"), why),
        };
        let metadata = auth.jwt.as_ref().map(|jwt| format!("resource_metadata=\"{}\"", jwt.metadata_url()));
        let error = error.map(|error| format!("error=\"{error}\""));
        let parts: Vec<String> = error.into_iter().chain(metadata).collect();
        let challenge = format!("Bearer {}", parts.join(", "));
        let code = if status == StatusCode::UNAUTHORIZED { UNAUTHENTICATED } else { INVALID_REQUEST };
        let answer = answer::error(status, None, code, &message);
        Err(Box::new(answer::with(answer, header::WWW_AUTHENTICATE, challenge.trim_end())))
    }

    async fn health(&self, method: &Method) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return not_allowed("GET");
        }
        let mut known = self.health.lock().await;
        let now = Instant::now();
        let kept = known.filter(|(at, _)| now - *at < HEALTH_KEPT).map(|(_, answers)| answers);
        let answers = match kept {
            Some(answers) => answers,
            None => {
                let answers = self.shared.answers(now + HEALTHY).await;
                *known = Some((Instant::now(), answers));
                answers
            }
        };
        answer::status(if answers { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    fn listen(&self, headers: &HeaderMap, identity: Option<&str>) -> Stop<Answer> {
        let Some(id) = session_id(headers)? else { return Ok(not_allowed("POST")) };
        if !accepts(headers, "text/event-stream") {
            return Err(not_acceptable("`text/event-stream`"));
        }
        let Some(session) = self.sessions.find(id, identity) else { return Err(no_session()) };
        match session.listen() {
            Some(held) => {
                let events = Events::new(Source::Session(held), None, None).until(self.closing.clone());
                Ok(answer::events(events))
            }
            None => Err(stop(
                StatusCode::CONFLICT,
                None,
                INVALID_REQUEST,
                "a stream of it is open already, and there is one at most; close that first",
            )),
        }
    }

    fn delete(&self, headers: &HeaderMap, identity: Option<&str>) -> Stop<Answer> {
        let Some(id) = session_id(headers)? else { return Ok(not_allowed("POST")) };
        let Some(session) = self.sessions.find(id, identity) else { return Err(no_session()) };
        self.sessions.end(&session);
        Ok(answer::status(StatusCode::NO_CONTENT))
    }

    async fn post(&self, request: Request<HttpBody>, identity: Option<&str>) -> Stop<Answer> {
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        if !is_json(headers) {
            let told = "the header `content-type` is not `application/json`";
            return Err(stop(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, INVALID_REQUEST, told));
        }
        if !accepts(headers, "application/json") || !accepts(headers, "text/event-stream") {
            return Err(not_acceptable("`application/json` and `text/event-stream`"));
        }
        let incoming = Incoming::read(read(body).await?).map_err(|refusal| {
            stop(StatusCode::BAD_REQUEST, refusal.id.as_ref(), refusal.code, &refusal.detail)
        })?;
        let id = match &incoming.message.kind {
            Kind::Request { id, .. } => Some(id.clone()),
            Kind::Notification { .. } | Kind::Answer { .. } => None,
        };
        if incoming.has_proof() {
            let told = "who sends a request is shown by the header `authorization`, and not in `_meta`";
            return Err(stop(StatusCode::BAD_REQUEST, id.as_ref(), INVALID_REQUEST, told));
        }
        let method = match &incoming.message.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => method.clone(),
            Kind::Answer { .. } => String::new(),
        };
        let modern =
            mirror::is_modern(headers, &incoming, &method).map_err(|wrong| bad(id.as_ref(), wrong))?;
        match (id, modern) {
            (Some(id), true) => self.modern(headers, incoming, id, &method, identity).await,
            // None is of use to a server that keeps nothing; to cancel, a client closes the stream.
            (None, true) if !method.is_empty() => Ok(answer::status(StatusCode::ACCEPTED)),
            (id, _) => self.legacy(headers, incoming, id, &method, identity).await,
        }
    }

    fn with_word(&self, incoming: Incoming, id: &Id, identity: Option<&str>) -> Stop<Incoming> {
        let Some(word) = identity.and_then(|identity| word(&self.key, identity)) else { return Ok(incoming) };
        let told = "`params` or `_meta` is not an object";
        let line = incoming.with_word(&word);
        let line = line.ok_or_else(|| stop(StatusCode::BAD_REQUEST, Some(id), INVALID_PARAMS, told))?;
        Incoming::read(line)
            .map_err(|refusal| stop(StatusCode::BAD_REQUEST, Some(id), refusal.code, &refusal.detail))
    }

    async fn modern(
        &self,
        headers: &HeaderMap,
        incoming: Incoming,
        id: Id,
        method: &str,
        identity: Option<&str>,
    ) -> Stop<Answer> {
        mirror::check(headers, &incoming, method).map_err(|wrong| bad(Some(&id), wrong))?;
        if REMOVED.contains(&method) {
            let told = format!("`{method}` is of earlier versions of the protocol");
            return Err(stop(StatusCode::NOT_FOUND, Some(&id), METHOD_NOT_FOUND, &told));
        }
        match method {
            "tools/call" => {
                self.marked(headers, &incoming, identity).await.map_err(|wrong| bad(Some(&id), wrong))?
            }
            "tools/list" => self.marks.forget(identity),
            _ => {}
        }
        let incoming = self.with_word(incoming, &id, identity)?;
        match self.shared.ask(&incoming).await {
            Ok(pending) => {
                // It has no answer to wait for while the front closes.
                let until = (method == "subscriptions/listen").then(|| self.closing.clone());
                Ok(respond(Source::Shared(pending), id, Asked::Modern, until).await)
            }
            Err(unavailable) => Err(unavailable_now(&unavailable, &id)),
        }
    }

    /// Compares the headers of a call with those of its arguments that its tool wants there.
    async fn marked(
        &self,
        headers: &HeaderMap,
        incoming: &Incoming,
        identity: Option<&str>,
    ) -> Result<(), Wrong> {
        let params = incoming.message.params.clone();
        let tool = params.clone().and_then(|params| envelope::text_member(&incoming.line, params, "name"));
        let Some(tool) = tool else { return Ok(()) };
        let word = identity.and_then(|identity| word(&self.key, identity));
        let marked = self.marks.of(&tool, (&self.shared, word.as_deref()), incoming, identity).await;
        let Some(marked) = marked else { return Ok(()) };
        let arguments = params.and_then(|params| object::member(&incoming.line, params, "arguments"));
        let arguments = arguments.and_then(|span| serde_json::from_slice(incoming.slice(span)).ok());
        marked.check(headers, &arguments.unwrap_or_default())
    }

    async fn legacy(
        &self,
        headers: &HeaderMap,
        incoming: Incoming,
        id: Option<Id>,
        method: &str,
        identity: Option<&str>,
    ) -> Stop<Answer> {
        let known = session_id(headers)?;
        let begins = id.is_some() && method == "initialize";
        let session = match (known, begins) {
            (Some(known), false) => self.sessions.find(known, identity).ok_or_else(no_session)?,
            (None, true) => self.begin(identity).map_err(|no| no_new_session(&no, id.as_ref()))?,
            (Some(_), true) => {
                let told = "a session begins with a request that has no session yet";
                return Err(stop(StatusCode::BAD_REQUEST, id.as_ref(), INVALID_REQUEST, told));
            }
            (None, false) => {
                let told = "the header `mcp-session-id` is missing, and no modern version is named";
                return Err(stop(StatusCode::BAD_REQUEST, id.as_ref(), INVALID_REQUEST, told));
            }
        };
        let Some(id) = id else {
            let cancelled = cancelled(&incoming, method);
            let told = session.tell(incoming.line).await;
            // Nothing more is said for it.
            cancelled.inspect(|id| session.forget(id));
            return match told {
                true => Ok(answer::status(StatusCode::ACCEPTED)),
                false => Err(no_session()),
            };
        };
        let progress = incoming.meta().and_then(|meta| {
            let span = object::member(&incoming.line, meta, "progressToken")?;
            Id::parse(incoming.slice(span))
        });
        let incoming = self.with_word(incoming, &id, identity)?;
        let held = session.ask(incoming.line, id.clone(), progress).await.map_err(|()| {
            let told = format!("the id {id} belongs to a request that is still open");
            stop(StatusCode::BAD_REQUEST, None, INVALID_REQUEST, &told)
        })?;
        let Some(held) = held else { return Err(no_session()) };
        let kind = if begins { Asked::Handshake } else { Asked::InSession };
        let answer = respond(Source::Session(held), id, kind, None).await;
        if !begins {
            return Ok(answer);
        }
        if answer.extensions().get::<Failed>().is_some() {
            self.sessions.end(&session);
            return Ok(answer);
        }
        Ok(answer::with(answer, HeaderName::from_static(SESSION), &session.id))
    }

    fn begin(&self, identity: Option<&str>) -> Result<Rc<super::session::Session>, NoSession> {
        let mut id = [0; 32];
        (&self.random).read_exact(&mut id).map_err(NoSession::Failed)?;
        self.sessions.begin(identity, &id)
    }
}

/// The request that a notification cancels.
fn cancelled(incoming: &Incoming, method: &str) -> Option<Id> {
    let params = incoming.message.params.clone().filter(|_| method == "notifications/cancelled")?;
    let span = object::member(&incoming.line, params, "requestId")?;
    Id::parse(incoming.slice(span))
}

/// Marks an answer that is an error.
#[derive(Debug, Clone, Copy)]
struct Failed;

/// What a response answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Modern,
    Handshake,
    InSession,
}

/// Waits for the first that is said, which decides what the response is.
async fn respond(mut source: Source, id: Id, asked: Asked, until: Option<watch::Receiver<bool>>) -> Answer {
    let modern = asked == Asked::Modern;
    let stream = |source, first, id| {
        let events = Events::new(source, first, Some(id));
        answer::events(match until {
            Some(until) => events.until(until),
            None => events,
        })
    };
    let first = match timeout_at(Instant::now() + SOON, source.next()).await {
        Err(_elapsed) => return stream(source, None, id),
        Ok(first) => first,
    };
    match first {
        // As servers of both eras give it, so that what is behind a server that gives nothing else finds the same here.
        Some(Event::Answer(line, None)) if asked != Asked::Handshake => {
            stream(source, Some(Event::Answer(line, None)), id)
        }
        Some(Event::Answer(line, code)) => {
            let mut answer = answer::json(status_of(code, modern), line.bytes);
            if code.is_some() {
                answer.extensions_mut().insert(Failed);
            }
            answer
        }
        Some(Event::Note(line)) => stream(source, Some(Event::Note(line)), id),
        Some(Event::Lost) if !modern => {
            let mut answer = answer::json(StatusCode::OK, answer::lost(&id));
            answer.extensions_mut().insert(Failed);
            answer
        }
        // A session's request that was cancelled has no answer; clients take a stream without one for that.
        None if !modern => answer::events(Events::ended()),
        Some(Event::Lost) | None => answer::json(StatusCode::SERVICE_UNAVAILABLE, answer::lost(&id)),
    }
}

/// The status of an answer: what the protocol names for its code, and for the refusals of our own.
fn status_of(code: Option<i64>, modern: bool) -> StatusCode {
    let Some(code) = code.and_then(|code| i32::try_from(code).ok()) else { return StatusCode::OK };
    match code {
        UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        FORBIDDEN => StatusCode::FORBIDDEN,
        LIMITED => StatusCode::TOO_MANY_REQUESTS,
        METHOD_NOT_FOUND if modern => StatusCode::NOT_FOUND,
        envelope::PARSE_ERROR | INVALID_REQUEST | INVALID_PARAMS | -32022..=HEADER_MISMATCH if modern => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

fn session_id(headers: &HeaderMap) -> Stop<Option<&str>> {
    mirror::only(headers, SESSION).map_err(|wrong| bad(None, wrong))
}

pub(super) fn stop(status: StatusCode, id: Option<&Id>, code: i32, message: &str) -> Box<Answer> {
    Box::new(answer::error(status, id, code, message))
}

fn bad(id: Option<&Id>, wrong: Wrong) -> Box<Answer> {
    let (code, message) = match wrong {
        Wrong::Header(message) => (HEADER_MISMATCH, message),
        Wrong::Meta(message) => (INVALID_PARAMS, message),
    };
    stop(StatusCode::BAD_REQUEST, id, code, &message)
}

fn no_session() -> Box<Answer> {
    stop(
        StatusCode::NOT_FOUND,
        None,
        INVALID_REQUEST,
        "there is no such session; begin one with `initialize`",
    )
}

fn no_new_session(no: &NoSession, id: Option<&Id>) -> Box<Answer> {
    let told = match no {
        NoSession::Full => "there are as many sessions as may be; see `--sessions`".to_owned(),
        NoSession::Closing => "toolcell is closing".to_owned(),
        NoSession::Failed(error) => format!("cannot start a process for a session: {error}"),
    };
    let answer = answer::error(StatusCode::SERVICE_UNAVAILABLE, id, INTERNAL_ERROR, &told);
    Box::new(answer::with(answer, header::RETRY_AFTER, "5"))
}

fn unavailable_now(unavailable: &Unavailable, id: &Id) -> Box<Answer> {
    let (told, wait) = match unavailable {
        Unavailable::Closing => ("toolcell is closing, or the process behind it is", 1),
        Unavailable::Failed(wait) => ("the process that answers requests does not start", wait.as_secs() + 1),
    };
    let answer = answer::error(StatusCode::SERVICE_UNAVAILABLE, Some(id), INTERNAL_ERROR, told);
    Box::new(answer::with(answer, header::RETRY_AFTER, &wait.to_string()))
}

fn not_acceptable(what: &str) -> Box<Answer> {
    let told = format!("the header `accept` does not list {what}");
    stop(StatusCode::NOT_ACCEPTABLE, None, INVALID_REQUEST, &told)
}

fn not_allowed(methods: &str) -> Answer {
    let told = format!("what can be done here: {methods}");
    let answer = answer::error(StatusCode::METHOD_NOT_ALLOWED, None, INVALID_REQUEST, &told);
    answer::with(answer, header::ALLOW, methods)
}

/// What a browser asks before it lets a page of an allowed origin send a request.
fn preflight() -> Answer {
    let answer = answer::status(StatusCode::NO_CONTENT);
    let answer = answer::with(answer, header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, DELETE");
    let named =
        "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name";
    answer::with(answer, header::ACCESS_CONTROL_ALLOW_HEADERS, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_statuses() {
        let of = |code| status_of(Some(code), true).as_u16();
        assert_eq!(
            [401, 403, 429, -32601, -32602, -32020, -32021, -32022, -32023, -32603, 7].map(of),
            [401, 403, 429, 404, 400, 400, 400, 400, 200, 200, 200]
        );
        assert_eq!(status_of(Some(-32601), false), StatusCode::OK);
        assert_eq!(status_of(None, true), StatusCode::OK);
    }
}
