//! `toolcell serve` and HTTP by hand, so that what is sent can be wrong in every way. Never: checks anything by itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use toolcell::sys::process;

use super::super::session::world::{Book, Scratch, Setup, configure, toolcell};

/// No read waits longer, however busy the machine is.
const BOUND: Duration = Duration::from_secs(60);

/// With a tool of which an argument stands in a header, too.
pub(super) fn with_region() -> Setup {
    let schema = json!([{"name": "request", "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
    }}}]);
    Setup {
        config: "env = [\"SCHEMAS\"]".to_owned(),
        env: vec![("SCHEMAS", schema.to_string())],
        ..Setup::default()
    }
}

/// A running front.
pub(super) struct Served {
    child: Child,
    pub(super) address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Served {
    pub(super) fn start(setup: &Setup, scratch: &Scratch, options: &[&str]) -> Self {
        Self::of(setup, scratch, &[&["--http", "127.0.0.1:0"], options].concat())
            .unwrap_or_else(|(status, said)| panic!("{status}: {said}"))
    }

    /// The same with all options of the network, or how it ended and what it said.
    #[expect(clippy::zombie_processes, reason = "where it is not waited for, the test has failed")]
    pub(super) fn of(
        setup: &Setup,
        scratch: &Scratch,
        options: &[&str],
    ) -> Result<Self, (ExitStatus, String)> {
        crate::facts();
        configure(setup, scratch);
        let mut child = toolcell(setup, scratch, "serve")
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                return Err((child.wait().unwrap(), first));
            }
            if let Some(url) = line.strip_prefix("toolcell serves ") {
                let address = url.trim().split("//").nth(1).unwrap().strip_suffix("/mcp").unwrap();
                let said = Arc::new(Mutex::new(first));
                let heard = Arc::clone(&said);
                std::thread::spawn(move || {
                    for line in lines.lines().map_while(Result::ok) {
                        *heard.lock().unwrap() += &format!("{line}\n");
                    }
                });
                return Ok(Self { child, address: address.parse().unwrap(), said });
            }
            first += &line;
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes that it has started and that are there.
    pub(super) fn children(&self) -> Vec<libc::pid_t> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    pub(super) fn signal(&self, signal: libc::c_int) {
        let pidfd = process::pidfd_open(self.child.id().try_into().unwrap()).unwrap();
        process::pidfd_send_signal(pidfd.as_fd(), signal).unwrap();
    }

    /// How it ended, once it has.
    pub(super) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(super) fn stop(mut self, scratch: &Scratch) -> Book {
        self.signal(libc::SIGTERM);
        let status = self.ended();
        assert!(status.success(), "{status}: {}", self.said.lock().unwrap());
        Book::read(&scratch.0.join("audit.jsonl"))
    }

    pub(super) fn post(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        post(self.address, headers, body)
    }

    /// A modern request with all its headers.
    pub(super) fn modern(&self, id: &Value, method: &str, params: Value) -> Reply {
        self.modern_with(&[], id, method, params)
    }

    pub(super) fn modern_with(
        &self,
        more: &[(&str, &str)],
        id: &Value,
        method: &str,
        params: Value,
    ) -> Reply {
        let (headers, body) = modern(id, method, params);
        let all: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        self.post(&all, &body)
    }

    pub(super) fn call(&self, id: u64, tool: &str) -> Reply {
        self.modern(&json!(id), "tools/call", json!({"name": tool}))
    }

    /// A handshake; the session's id.
    pub(super) fn session(&self, more: &[(&str, &str)]) -> String {
        let reply = self.initialize(more);
        assert_eq!(reply.status, 200, "{reply:?}");
        let id = reply.header("mcp-session-id").unwrap().to_owned();
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let all = [more, &[("mcp-session-id", id.as_str())]].concat();
        assert_eq!(self.post(&all, note).status, 202);
        id
    }

    pub(super) fn initialize(&self, more: &[(&str, &str)]) -> Reply {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "tester", "version": "9"},
        });
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.post(more, &body.to_string())
    }

    pub(super) fn legacy(&self, session: &str, id: u64, tool: &str) -> Reply {
        self.post(&[("mcp-session-id", session)], &legacy_call(id, tool))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said.lock().map(|said| said.clone()).unwrap_or_default();
            drop(writeln!(std::io::stderr(), "the front said: {said}"));
        }
        // Its children end with their input.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(super) fn legacy_call(id: u64, tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}}).to_string()
}

/// Headers and body of a modern request.
pub(super) fn modern(id: &Value, method: &str, mut params: Value) -> (Vec<(&'static str, String)>, String) {
    let mut headers =
        vec![("mcp-protocol-version", "2026-07-28".to_owned()), ("mcp-method", method.to_owned())];
    if let Some(name) = params["name"].as_str().or_else(|| params["uri"].as_str()) {
        headers.push(("mcp-name", name.to_owned()));
    }
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    (headers, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())
}

/// A request as text: what is always there, in place of which `headers` may stand, an empty one for none.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let usual = [
        ("host", address.to_string()),
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    let named = |name: &str| headers.iter().any(|(known, _)| *known == name);
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in usual.iter().filter(|(name, _)| !named(name)) {
        text += &format!("{name}: {value}\r\n");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n" + body
}

pub(super) fn post(address: SocketAddr, headers: &[(&str, &str)], body: &str) -> Reply {
    exchange(address, &request(address, "POST", "/mcp", headers, body))
}

pub(super) fn get(address: SocketAddr, path: &str) -> Reply {
    exchange(address, &request(address, "GET", path, &[], ""))
}

pub(super) fn exchange(address: SocketAddr, text: &str) -> Reply {
    Stream::open(address, text).whole()
}

/// A response that is read piece by piece.
pub(super) struct Stream(BufReader<TcpStream>);

impl Stream {
    pub(super) fn open(address: SocketAddr, text: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(BOUND * crate::host::patience())).unwrap();
        // A server that has refused what came so far may have closed.
        let _sent = stream.write_all(text.as_bytes()).is_ok();
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    pub(super) fn head(&mut self) -> Reply {
        let status = self.line().expect("a response");
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line().as_deref().and_then(|line| line.split_once(": ")) {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Reply { status, headers, body: Vec::new() }
    }

    pub(super) fn whole(mut self) -> Reply {
        let mut reply = self.head();
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().unwrap(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk).unwrap();
                reply.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return reply;
                }
            }
        }
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        reply.body = vec![0; length];
        self.0.read_exact(&mut reply.body).unwrap();
        reply
    }

    /// The next event; nothing when there will be none.
    pub(super) fn event(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            // The last chunk.
            if line == "0" {
                return None;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The message, which is the last one of a stream of events.
    pub(super) fn json(&self) -> Value {
        if self.header("content-type") == Some("text/event-stream") {
            return self.events().pop().unwrap();
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The messages of a stream of events.
    pub(super) fn events(&self) -> Vec<Value> {
        let data = self.text().lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// Status and code of the error.
    pub(super) fn error(&self) -> (u16, i64) {
        (self.status, self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("{self:?}")))
    }
}
