//! A connection to a door at which TLS ends: each request is judged, sent on with the door's credential, and its answer passed back.
//!
//! ```text
//! head ──odd──► 400  host, method, path ──not allowed──► 403  credential ──none──► 503  connect, TLS ──fails──► 502
//!   ▲      │ read               │ allowed                          │ put in                  │ proved
//!   │      └────────────────────┴──────────────────────────────────┴─────────────────────────┴──► sent ──► answered ─┐
//!   └──────────────────────────────── the next one, judged like the first ◄───────────────────────────────────────────┘
//! ```
//!
//! Neighbours: `head` reads, `upstream` has the other side, `keep` counts. Never: passes on a byte of a request that was not judged, nor
//! one about its framing; keeps waiting who says nothing.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
    TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::carry::{Excess, Meter};
use super::credential::Put;
use super::gate::Gate;
use super::head::{self, Body, Fault, Framing, Head, Piece, Seen};
use super::keep::{Cell, Target, reset};
use super::limit::Of;
use super::refused;
use super::relay::{Way, late};
use super::upstream::{NoUpstream, Upload, Upstream, next, upload};
use crate::outcome::{ClosedBy, Violation};
use crate::policy::address::plain;
use crate::policy::http::Http;

/// How long a connection may wait for its next request,
const IDLE: Duration = Duration::from_secs(60);
/// a head take from its first byte on,
const HEAD: Duration = Duration::from_secs(10);
/// and who sends a body, or takes an answer, do nothing.
const STALL: Duration = Duration::from_secs(30);
/// How long a part of an answer is kept back that a secret could go on behind.
const SETTLED: Duration = Duration::from_millis(20);
/// What is read at once.
const ROOM: usize = 16 * 1024;
/// What is still taken of who is told no, so that the answer arrives.
const MOST_LEFT: usize = 256 * 1024;
const LEAVE: Duration = Duration::from_secs(1);
/// Bytes of a path that stand in a record.
const TOLD: usize = 200;

/// What of a connection is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    /// Where it led first.
    pub(super) address: OnceLock<SocketAddr>,
}

/// Why there is no next request.
#[derive(Debug)]
enum Stop {
    /// The cell has hung up.
    Gone,
    /// All was said.
    Done(ClosedBy),
    /// Nothing came, or was taken, in time.
    Late,
    /// What came cannot be read.
    Odd(Fault),
    /// More than the policy lets through.
    Limit(Way, Of, u64),
    /// It lasted as long as it may.
    TimeUp,
    /// The host has hung up within its answer.
    Outside,
}

/// Serves one connection, and says who ended it.
pub(super) async fn serve(
    cell: &Cell,
    (gate, until): (&Gate, Option<Instant>),
    (target, (place, http)): (&Target, (usize, &Http)),
    stream: TcpStream,
    counts: &Counts,
) -> ClosedBy {
    let _only_slower = stream.set_nodelay(true).is_err();
    let (reads, writes) = stream.into_split();
    let [up, down] = [(Way::Up, &counts.up, &cell.up), (Way::Down, &counts.down, &cell.down)]
        .map(|(way, moved, all)| gate.meter(way, moved, (all, &cell.doors.network)));
    let mut inlet = Inlet { meter: up, half: reads, came: Vec::new(), room: vec![0; ROOM] };
    let mut outlet = Outlet { meter: down, half: writes, begun: false };
    let door = Door { cell, http, place, target, counts };
    let stop = tokio::select! {
        stop = door.converse(&mut inlet, &mut outlet) => stop,
        () = late(until) => Stop::TimeUp,
    };
    let (closed_by, limit) = match &stop {
        Stop::Gone => (ClosedBy::Cell, None),
        Stop::Done(by) => (*by, None),
        Stop::Late | Stop::Odd(_) => (ClosedBy::Door, None),
        Stop::Limit(way, of, most) => (ClosedBy::Limit, Some(gate.over(*way, *of, *most))),
        Stop::TimeUp => (ClosedBy::Limit, Some(gate.late())),
        Stop::Outside => (ClosedBy::Destination, None),
    };
    if let Some(violation) = limit {
        cell.refuse(violation).await;
    }
    match stop {
        Stop::Done(_) => outlet.take_leave(inlet).await,
        _ => {
            if let Ok(stream) = inlet.half.reunite(outlet.half) {
                reset(stream);
            }
        }
    }
    closed_by
}

struct Door<'c> {
    cell: &'c Cell,
    http: &'c Http,
    place: usize,
    target: &'c Target,
    counts: &'c Counts,
}

impl Door<'_> {
    async fn converse(&self, inlet: &mut Inlet<'_>, outlet: &mut Outlet<'_>) -> Stop {
        let mut upstream = None;
        loop {
            let asked = match inlet.head().await {
                Ok(head) => self.request(&head, inlet, outlet, &mut upstream).await,
                Err(stop) => Err(stop),
            };
            match asked {
                Ok(()) => {}
                Err(Stop::Odd(fault)) => {
                    let told =
                        format!("a request to `{}` cannot be read: {}", self.http.address(), fault.why);
                    let rule = format!("{}: {}", self.rule(), fault.why);
                    let object = self.http.destination().to_string();
                    self.cell.refuse(refused("request", object, rule)).await;
                    // Within an answer there is no other.
                    if outlet.begun {
                        return Stop::Odd(fault);
                    }
                    let said = outlet.say(fault.status, &told, true).await;
                    return said.err().unwrap_or(Stop::Done(ClosedBy::Door));
                }
                Err(stop) => return stop,
            }
        }
    }

    fn rule(&self) -> String {
        format!("`tls = \"end\"` in `{}`", self.http.section())
    }

    /// One request, from its head to the end of its answer; `Ok`, if another one may follow.
    async fn request(
        &self,
        head: &Head,
        inlet: &mut Inlet<'_>,
        outlet: &mut Outlet<'_>,
        upstream: &mut Option<Upstream>,
    ) -> Result<(), Stop> {
        outlet.begun = false;
        let body = head.method != "HEAD";
        if let Err((violation, told)) = self.may(head) {
            self.cell.refuse(*violation).await;
            outlet.say(403, &told, body).await?;
            return Err(Stop::Done(ClosedBy::Door));
        }
        let put = match self.http.credential.is_some() {
            false => None,
            true => match self.cell.put(self.place).await {
                Some(put) => Some(put),
                None => {
                    let rule = format!("{}: the credential did not come", self.rule());
                    self.cell.refuse(refused("request", self.http.destination().to_string(), rule)).await;
                    outlet
                        .say(503, "the door has no credential for this cell: start toolcell again", body)
                        .await?;
                    return Err(Stop::Done(ClosedBy::Door));
                }
            },
        };
        if head.expects && head.body != Framing::Length(0) {
            outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut fresh = false;
        loop {
            if !upstream.as_ref().is_some_and(Upstream::is_open) {
                fresh = true;
                match self.open().await {
                    Ok(opened) => *upstream = Some(opened),
                    Err((closed_by, told)) => {
                        outlet.say(502, &told, body).await?;
                        return Err(Stop::Done(closed_by));
                    }
                }
            }
            let Some(there) = upstream.as_mut() else { return Err(Stop::Outside) };
            match self.exchange(head, put.as_deref(), inlet, outlet, there).await {
                Ok(()) => return Ok(()),
                // One that was kept may have been closed at the same moment. What changes nothing is asked once more.
                Err(Stop::Outside) if !fresh && !outlet.begun && is_safe(head) => *upstream = None,
                Err(Stop::Outside) if !outlet.begun => {
                    let told = format!("`{}` hung up without an answer", self.http.destination());
                    outlet.say(502, &told, body).await?;
                    return Err(Stop::Done(ClosedBy::Destination));
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// May it be asked? Else what is recorded, and what the program is told.
    fn may(&self, head: &Head) -> Result<(), (Box<Violation>, String)> {
        let http = self.http;
        let path: String = head.path.chars().take(TOLD).collect();
        let asked = format!("{} {}", head.method, path);
        let object = format!("{} {}{path}", head.method, http.destination());
        if !head::names(&head.host, &http.host, http.listen) {
            let rule = format!("{}: `Host` names another host than the door", self.rule());
            let told = format!("`{asked}` names another host than `{}`, to which this door leads", http.host);
            return Err((Box::new(refused("request", object, rule)), told));
        }
        let Err(missing) = http.allows(&head.method, &head.path) else { return Ok(()) };
        let key = match missing {
            crate::policy::http::Unallowed::Method => "methods",
            crate::policy::http::Unallowed::Path => "paths",
        };
        let allow = http.allow_line(&head.method, &head.path, missing).filter(|line| line.len() <= 4 * TOLD);
        let mut told = format!("`{asked}` is not allowed at `{}`: it is not in `{key}`", http.address());
        if let Some(allow) = &allow {
            told.push_str(&format!("\nallowed by:\n{allow}"));
        }
        let rule = format!("`{key}` in `{}`", http.section());
        Err((Box::new(Violation { allow, ..refused("request", object, rule) }), told))
    }

    /// Connects, and has it proved who answers. Else who ended it, and what the program is told.
    async fn open(&self) -> Result<Upstream, (ClosedBy, String)> {
        let destination = self.http.destination();
        let Some(trusted) = self.cell.trust.of(&self.http.roots) else {
            return Err((
                ClosedBy::Door,
                "the door has no certificates of authorities: the profile can name a file of them by `roots`"
                    .to_owned(),
            ));
        };
        let stream = match self.cell.connect(self.target).await {
            Ok(Some(stream)) => stream,
            Ok(None) => {
                let told = format!("`{destination}` is not to be found, or nobody answers there");
                return Err((ClosedBy::Unreachable, told));
            }
            Err(violation) => {
                let told = format!("`{destination}` may not be reached: {}", violation.rule);
                self.cell.refuse(*violation).await;
                return Err((ClosedBy::Door, told));
            }
        };
        if let Ok(peer) = stream.peer_addr() {
            self.counts.address.get_or_init(|| SocketAddr::new(plain(peer.ip()), peer.port()));
        }
        match Upstream::open(stream, &self.http.host, trusted).await {
            Ok(upstream) => Ok(upstream),
            Err(NoUpstream::Broken(why)) => Err((
                ClosedBy::Destination,
                format!("there is no TLS with `{destination}`: {}", readable(&why)),
            )),
            Err(NoUpstream::Unproved(why)) => {
                let why = readable(&why);
                let rule = format!("{}: {why}", self.rule());
                self.cell.refuse(refused("connect", destination.to_string(), rule)).await;
                Err((
                    ClosedBy::Door,
                    format!(
                        "who answers is not proved to be `{destination}`: {why}; authorities of its own the profile can name by `roots`"
                    ),
                ))
            }
        }
    }

    async fn exchange(
        &self,
        head: &Head,
        put: Option<&Put>,
        inlet: &mut Inlet<'_>,
        outlet: &mut Outlet<'_>,
        upstream: &mut Upstream,
    ) -> Result<(), Stop> {
        let (pieces, body) = upload(head.body);
        let request = self.written(head, put, body)?;
        let sent = AtomicBool::new(false);
        let sends = inlet.send(head.body, pieces, &sent);
        let method = request.method().clone();
        let answer = async {
            let response = upstream.send(request).await.map_err(|_gone| Stop::Outside)?;
            // What is still to be sent when the answer comes is not waited for afterwards.
            let close = head.close || !sent.load(Ordering::Relaxed);
            outlet.answer(response, put, &method, close).await?;
            if close { Err(Stop::Done(ClosedBy::Cell)) } else { Ok(()) }
        };
        tokio::select! {
            biased;
            answered = answer => answered,
            stop = sends => Err(stop),
        }
    }

    /// The request as the host gets it: nothing about the connection is the cell's.
    fn written(&self, head: &Head, put: Option<&Put>, body: Upload) -> Result<Request<Upload>, Stop> {
        const UNWRITABLE: Stop = Stop::Odd(Fault { status: 400, why: "it cannot be written anew" });
        let mut headers = HeaderMap::new();
        let host = match self.http.port {
            443 => self.http.host.clone(),
            port => format!("{}:{port}", self.http.host),
        };
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_never| UNWRITABLE)?);
        for (name, value) in &head.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_never| UNWRITABLE)?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_never| UNWRITABLE)?);
        }
        if let Some(put) = put {
            // In a compressed answer it would not be found.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            // In parts of one it would be found in none.
            headers.remove(RANGE);
            headers.remove(IF_RANGE);
            headers.insert(put.header.clone(), put.value.clone());
        }
        // Said by itself, because of a method that seldom has a body its length would be left out, and the body with it.
        match head.body {
            Framing::Chunked => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
            Framing::Length(0) if matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") => {
                drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(0)));
            }
            Framing::Length(_) => {}
        }
        let target = match &head.query {
            Some(query) => format!("{}?{query}", head.path),
            None => head.path.clone(),
        };
        let request = Request::builder().method(head.method.as_str()).uri(target).body(body);
        let mut request = request.map_err(|_never| UNWRITABLE)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Nothing is changed by asking twice.
fn is_safe(head: &Head) -> bool {
    head.body == Framing::Length(0) && matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS")
}

/// Another side's words as a program in a cell may read them.
fn readable(text: &str) -> String {
    let plain = |letter: char| if letter.is_ascii() && !letter.is_ascii_control() { letter } else { '?' };
    text.chars().take(TOLD).map(plain).collect()
}

/// What comes from the cell.
struct Inlet<'c> {
    meter: Meter<'c>,
    half: OwnedReadHalf,
    came: Vec<u8>,
    room: Vec<u8>,
}

impl Inlet<'_> {
    async fn more(&mut self, until: Instant) -> Result<(), Stop> {
        timeout_at(until, self.read()).await.unwrap_or(Err(Stop::Late))
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let count = match self.half.read(&mut self.room).await {
            Ok(0) | Err(_) => return Err(Stop::Gone),
            Ok(count) => count,
        };
        self.meter.lets(count).map_err(|Excess(of, limit)| Stop::Limit(Way::Up, of, limit))?;
        self.meter.add(count);
        self.came.extend_from_slice(self.room.get(..count).unwrap_or_default());
        Ok(())
    }

    async fn head(&mut self) -> Result<Head, Stop> {
        let mut began = None;
        let waits = Instant::now() + IDLE;
        let mut looked = 0;
        loop {
            match head::look_on(&self.came, looked) {
                Seen::Part => looked = self.came.len(),
                Seen::Odd(fault) => return Err(Stop::Odd(fault)),
                Seen::Whole(length) => {
                    let head: Vec<u8> = self.came.drain(..length).collect();
                    return head::judge(&head).map_err(Stop::Odd);
                }
            }
            if !self.came.is_empty() {
                began.get_or_insert_with(Instant::now);
            }
            self.more(began.map_or(waits, |began| began + HEAD)).await?;
        }
    }

    /// Takes a body and hands it on; then waits until the cell hangs up. Never resolves in another way than by an end.
    async fn send(
        &mut self,
        framing: Framing,
        pieces: mpsc::Sender<Option<Bytes>>,
        sent: &AtomicBool,
    ) -> Stop {
        let mut body = Body::new(framing);
        loop {
            let piece = match body.take(&mut self.came) {
                Ok(Piece::Data(data)) => Some(Bytes::from(data)),
                Ok(Piece::End) => None,
                Ok(Piece::More) => match self.more(Instant::now() + STALL).await {
                    Ok(()) => continue,
                    Err(stop) => return stop,
                },
                Err(fault) => return Stop::Odd(fault),
            };
            let end = piece.is_none();
            // Nobody wants more of it: the answer is on its way.
            if pieces.send(piece).await.is_err() && !end {
                return std::future::pending().await;
            }
            if end {
                break;
            }
        }
        sent.store(true, Ordering::Relaxed);
        // What comes meanwhile is the next request's, of which so much is kept.
        while self.came.len() < head::MOST {
            if let Err(stop) = self.read().await {
                return stop;
            }
        }
        std::future::pending().await
    }
}

/// What goes to the cell.
struct Outlet<'c> {
    meter: Meter<'c>,
    half: OwnedWriteHalf,
    /// An answer has begun.
    begun: bool,
}

impl Outlet<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        for part in bytes.chunks(ROOM) {
            self.meter.lets(part.len()).map_err(|Excess(of, limit)| Stop::Limit(Way::Down, of, limit))?;
            match timeout(STALL, self.half.write_all(part)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Stop::Gone),
                Err(_late) => return Err(Stop::Late),
            }
            self.meter.add(part.len());
        }
        Ok(())
    }

    /// An answer of the door's own, behind which the connection ends.
    async fn say(&mut self, status: u16, told: &str, body: bool) -> Result<(), Stop> {
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let text = format!("toolcell: {told}\n");
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            reason.unwrap_or_default(),
            text.len()
        );
        let text = if body { text.as_str() } else { "" };
        self.write([head.as_bytes(), text.as_bytes()].concat().as_slice()).await
    }

    /// An answer of the host's.
    async fn answer(
        &mut self,
        response: Response<Incoming>,
        put: Option<&Put>,
        method: &Method,
        close: bool,
    ) -> Result<(), Stop> {
        let (parts, mut body) = response.into_parts();
        let status = parts.status;
        if status.is_informational() {
            return Err(Stop::Outside);
        }
        let bodiless =
            *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // With its secret taken out it is not as long as was told.
        let length = body.size_hint().exact().filter(|_| put.is_none());
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
        for (name, value) in &parts.headers {
            if !is_passed(name.as_str(), bodiless) {
                continue;
            }
            let masked = put.and_then(|put| put.masked(value.as_bytes()));
            let value = masked.as_deref().unwrap_or(value.as_bytes());
            [name.as_str().as_bytes(), b": ", value, b"\r\n"]
                .iter()
                .for_each(|part| head.extend_from_slice(part));
        }
        match length {
            _ if bodiless => {}
            Some(length) => head.extend(format!("content-length: {length}\r\n").bytes()),
            None => head.extend(b"transfer-encoding: chunked\r\n"),
        }
        head.extend(if close { b"connection: close\r\n\r\n".as_slice() } else { b"\r\n" });
        self.begun = true;
        self.write(&head).await?;
        if bodiless {
            return Ok(());
        }
        let mut mask = put.map(Put::mask);
        let (mut out, mut hits, mut settled) = (Vec::new(), Vec::new(), true);
        loop {
            let piece = match &mut mask {
                Some(mask) if !settled => match timeout(SETTLED, next(&mut body)).await {
                    Ok(piece) => piece,
                    Err(_nothing_yet) => {
                        mask.settle(&mut out, &mut hits);
                        settled = true;
                        self.piece(&out, length.is_none()).await?;
                        out.clear();
                        hits.clear();
                        continue;
                    }
                },
                _ => next(&mut body).await,
            };
            let end = piece.is_none();
            let data = piece.transpose().map_err(|_cut| Stop::Outside)?.unwrap_or_default();
            match &mut mask {
                None => self.piece(&data, length.is_none()).await?,
                Some(mask) => {
                    mask.push(&data, end, &mut out, &mut hits);
                    settled = false;
                    self.piece(&out, true).await?;
                    out.clear();
                    hits.clear();
                }
            }
            if end {
                return if length.is_none() { self.write(b"0\r\n\r\n").await } else { Ok(()) };
            }
        }
    }

    async fn piece(&mut self, data: &[u8], chunked: bool) -> Result<(), Stop> {
        match (data.is_empty(), chunked) {
            (true, _) => Ok(()),
            (false, false) => self.write(data).await,
            (false, true) => {
                let size = format!("{:x}\r\n", data.len());
                self.write([size.as_bytes(), data, b"\r\n"].concat().as_slice()).await
            }
        }
    }

    /// Says that nothing more comes, and lets the other side hear it: bytes that nobody takes would have the answer thrown away.
    async fn take_leave(mut self, mut inlet: Inlet<'_>) {
        let _gone_already = self.half.shutdown().await.is_err();
        let until = Instant::now() + LEAVE;
        let mut left = MOST_LEFT;
        while let Ok(Ok(count @ 1..)) = timeout_at(until, inlet.half.read(&mut inlet.room)).await {
            match left.checked_sub(count) {
                Some(less) => left = less,
                None => return,
            }
        }
    }
}

/// Is this header of an answer passed on? Those about the connection are the door's own.
fn is_passed(name: &str, bodiless: bool) -> bool {
    match name {
        "content-length" => bodiless,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding"
        | "upgrade" | "alt-svc" => false,
        _ => true,
    }
}
