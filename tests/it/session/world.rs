//! A client in front of `toolcell run`, whose server is `server.py` in real cells. Never: checks anything by itself.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;

/// No test takes longer, however busy the machine is.
const BOUND: Duration = Duration::from_secs(60);

/// How a session is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) jobs: usize,
    pub(crate) time: &'static str,
    pub(crate) output: &'static str,
    /// The lists of `[filesystem]` in its profile.
    pub(crate) filesystem: String,
    /// The lists of `[syscalls]`.
    pub(crate) syscalls: &'static str,
    pub(crate) observe: &'static str,
    pub(crate) options: Vec<String>,
    /// Another server than `server.py`, for the same interpreter.
    pub(crate) server: Option<PathBuf>,
    /// What stands in the configuration before the server.
    pub(crate) top: &'static str,
    /// What stands in the configuration behind the server, whose name is `fixture`.
    pub(crate) config: String,
    /// Whether the server's own schemas count. Else a call starts one process, and no other that lists the tools.
    pub(crate) validate: bool,
    /// The content of `tokens.toml`.
    pub(crate) tokens: String,
    /// The client's environment.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            jobs: 2,
            time: "20s",
            output: "64MiB",
            filesystem: String::new(),
            syscalls: "",
            observe: "calls",
            options: vec![],
            server: None,
            top: "",
            config: String::new(),
            validate: false,
            tokens: String::new(),
            env: vec![],
        }
    }
}

/// What the session recorded.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) started: Vec<Value>,
    pub(crate) finished: Vec<Value>,
    /// Alerts and steps of quarantine.
    pub(crate) guarded: Vec<Value>,
}

impl Book {
    pub(crate) fn read(file: &Path) -> Self {
        let mut book = Self::default();
        for line in fs::read_to_string(file).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            match record["event"].as_str().unwrap() {
                "started" => book.started.push(record),
                "finished" => book.finished.push(record),
                "alert" | "quarantine" => book.guarded.push(record),
                event => assert!(["checkpoint", "continued"].contains(&event), "{event}"),
            }
        }
        book
    }

    /// The last record of the call of a tool.
    pub(crate) fn end_of(&self, tool: &str) -> &Value {
        let found = self.finished.iter().rev().find(|record| record["call"]["target"] == tool);
        found.unwrap_or_else(|| panic!("no record of {tool}: {:?}", self.finished))
    }

    pub(crate) fn status_of(&self, tool: &str) -> &str {
        self.end_of(tool)["status"]["kind"].as_str().unwrap()
    }

    /// What the server of a call did against the rules of MCP.
    pub(crate) fn misdeeds(&self, tool: &str) -> Vec<&str> {
        let violations = self.end_of(tool)["violations"].as_array().unwrap();
        let protocol = violations.iter().filter(|violation| violation["layer"] == "protocol");
        protocol.map(|violation| violation["operation"].as_str().unwrap()).collect()
    }
}

/// A directory of the test's own, gone with it.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Where no cell has a directory of its own.
    pub(crate) fn outside_of_scratch() -> Self {
        let usual = std::env::temp_dir();
        Self::below(if usual.starts_with("/tmp") { Path::new("/var/tmp") } else { &usual })
    }

    fn below(directory: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("toolcell-session-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The client's side.
pub(crate) struct Client {
    input: Option<pipe::Sender>,
    output: BufReader<pipe::Receiver>,
    child: Option<Child>,
    hung_up: Option<Instant>,
    audit: PathBuf,
}

impl Client {
    /// One more process before the same configuration and log.
    pub(crate) fn start(setup: &Setup, scratch: &Scratch) -> Self {
        // The session's cells are to be where the tests look for them.
        crate::facts();
        configure(setup, scratch);
        let mut child = toolcell(setup, scratch, "run")
            .args(["--jobs", &setup.jobs.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch.0.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let input = OwnedFd::from(child.stdin.take().unwrap());
        let output = OwnedFd::from(child.stdout.take().unwrap());
        Self {
            input: Some(pipe::Sender::from_owned_fd(input).unwrap()),
            output: BufReader::new(pipe::Receiver::from_owned_fd(output).unwrap()),
            child: Some(child),
            hung_up: None,
            audit: scratch.0.join("audit.jsonl"),
        }
    }

    /// The audit log, which exists once the session has answered.
    pub(crate) fn audit(&self) -> File {
        File::open(&self.audit).unwrap()
    }

    /// Where it is.
    pub(crate) fn audit_path(&self) -> &Path {
        &self.audit
    }

    /// The supervisor's process id.
    pub(crate) fn supervisor(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What has been recorded so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.audit).unwrap()
    }

    pub(crate) async fn send(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
    }

    /// Ends the session's input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
        self.hung_up.get_or_insert_with(Instant::now);
    }

    /// Ends the supervisor, and nobody else, at once.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// How long the session has lived since its input ended, without a line being read.
    pub(crate) async fn exit(&mut self) -> Duration {
        let mut child = self.child.take().unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        self.hung_up.unwrap().elapsed()
    }

    /// The next line, or nothing at the end.
    pub(crate) async fn raw(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).await.unwrap();
        line.ends_with('\n').then_some(line)
    }

    pub(crate) async fn read(&mut self) -> Value {
        let line = self.raw().await.expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) async fn request(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        self.read().await
    }

    /// A legacy handshake, and the announcement that follows.
    pub(crate) async fn handshake(&mut self, capabilities: Value) -> Value {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": {"name": "tester", "version": "9"},
        });
        let answer = self.request(0, "initialize", params).await;
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        // The client's own handshake started this process, so its announcement passes.
        assert_eq!(self.read().await["method"], "notifications/tools/list_changed");
        answer
    }

    /// Sends a call of a tool in the modern way, without reading.
    pub(crate) async fn start_call(&mut self, id: u64, tool: &str, arguments: Value) {
        self.start_call_with(id, tool, arguments, json!({})).await;
    }

    /// The same with more parameters.
    pub(crate) async fn start_call_with(&mut self, id: u64, tool: &str, arguments: Value, mut params: Value) {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": "mine"});
        params["name"] = json!(tool);
        params["arguments"] = arguments;
        params["_meta"] = meta;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string())
            .await;
    }

    /// A modern call and the next line.
    pub(crate) async fn call(&mut self, id: u64, tool: &str) -> Value {
        self.start_call(id, tool, json!({})).await;
        self.read().await
    }

    /// A legacy call and the next line.
    pub(crate) async fn legacy(&mut self, id: u64, tool: &str) -> Value {
        self.request(id, "tools/call", json!({"name": tool})).await
    }
}

/// Writes what a session reads: profile, configuration, tokens.
pub(crate) fn configure(setup: &Setup, scratch: &Scratch) {
    let limits = format!("[limits]\ntime = \"{}\"\noutput = \"{}\"\n", setup.time, setup.output);
    let filesystem = format!("[filesystem]\n{}\n", setup.filesystem);
    fs::write(
        scratch.0.join("test.toml"),
        format!(
            "extends = \"default\"\nobserve = \"{}\"\n{filesystem}[syscalls]\n{}\n{limits}",
            setup.observe, setup.syscalls
        ),
    )
    .unwrap();
    let server = setup.server.clone().unwrap_or_else(|| crate::project().join("tests/it/session/server.py"));
    let command = ["/usr/bin/python3", "-S", "-E", server.to_str().unwrap()];
    let validate = if setup.validate { "on" } else { "off" };
    let (top, more) = (setup.top, &setup.config);
    fs::write(
        scratch.0.join("servers.toml"),
        format!("{top}[servers.fixture]\ncommand = {command:?}\nvalidate = \"{validate}\"\n{more}"),
    )
    .unwrap();
    let tokens = scratch.0.join("tokens.toml");
    fs::write(&tokens, &setup.tokens).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A command of toolcell's that starts servers of the configuration.
pub(crate) fn toolcell(setup: &Setup, scratch: &Scratch, name: &str) -> Command {
    let mut command = Command::new(crate::binary());
    // A call starts one process, and no other for the next.
    let serves = matches!(name, "run" | "serve") && !setup.options.iter().any(|option| option == "--spares");
    let alone: &[&str] = if serves { &["--spares", "0"] } else { &[] };
    let chosen = setup.options.iter().any(|option| option == "--floor");
    let floor: &[&str] = if chosen { &[] } else { &["--floor", crate::cell::floor()] };
    command
        .arg(name)
        .args([&PathBuf::from("--profile"), &scratch.0.join("test.toml")])
        .args([&PathBuf::from("--audit"), &scratch.0.join("audit.jsonl")])
        .args(floor)
        .args(alone)
        .args(&setup.options)
        .args([Path::new("--config"), &scratch.0.join("servers.toml")])
        .env("XDG_STATE_HOME", scratch.0.join("state"))
        .envs(setup.env.iter().map(|(name, value)| (name, value)));
    command
}

/// A command of toolcell's with these arguments, for the same configuration and with an empty input: exit status, stdout, stderr.
pub(crate) fn command(
    setup: &Setup,
    scratch: &Scratch,
    name: &str,
    arguments: &[&str],
) -> (i32, String, String) {
    crate::facts();
    configure(setup, scratch);
    let output = toolcell(setup, scratch, name).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The text of a tool's result.
pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

/// Runs a session with a client, and gives what was recorded. The client's end is the session's.
pub(crate) fn session<F: Future<Output = Client>>(setup: &Setup, client: impl FnOnce(Client) -> F) -> Book {
    session_in(&Scratch::new(), setup, client)
}

/// The same in a directory that may have been used before.
pub(crate) fn session_in<F: Future<Output = Client>>(
    scratch: &Scratch,
    setup: &Setup,
    client: impl FnOnce(Client) -> F,
) -> Book {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = async {
        let mut client = client(Client::start(setup, scratch)).await;
        client.hang_up();
        while client.raw().await.is_some() {}
        if client.child.is_some() {
            client.exit().await;
        }
    };
    let ran = runtime.block_on(async { tokio::time::timeout(BOUND * crate::host::patience(), run).await });
    let said = fs::read_to_string(scratch.0.join("stderr")).unwrap();
    ran.unwrap_or_else(|_elapsed| panic!("the session does not end: {said}"));
    Book::read(&scratch.0.join("audit.jsonl"))
}

/// Gains no privileges, and is not dumpable: the files of such a process belong to root.
pub(crate) fn assert_closed_up(pid: impl std::fmt::Display) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    let environment = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&environment), 0);
}
