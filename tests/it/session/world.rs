//! A client in front of a session whose server is `server.py`. Never: checks anything by itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};
use toolcell::call::Call;
use toolcell::launch::supervisor::Launcher;
use toolcell::outcome::Status;
use toolcell::plan::Plan;
use toolcell::plan::step::Step;
use toolcell::policy::{Audit, Environment, Filesystem, Floor, Limits, Policy, Syscalls};
use toolcell::session::{Finished, Grant, Options, Profiles, Records, ServeError, serve};

/// What the session recorded.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) started: RefCell<Vec<Call>>,
    pub(crate) finished: RefCell<Vec<(Call, Finished)>>,
}

impl Book {
    /// The end of the call of a tool.
    pub(crate) fn end_of(&self, tool: &str) -> Finished {
        let finished = self.finished.borrow();
        let found = finished.iter().find(|(call, _)| call.target.as_deref() == Some(tool));
        found.unwrap_or_else(|| panic!("no record of {tool}: {finished:?}")).1.clone()
    }

    pub(crate) fn operations(&self, tool: &str) -> Vec<String> {
        self.end_of(tool).violations.into_iter().map(|violation| violation.operation).collect()
    }
}

struct Recorder {
    book: Rc<Book>,
    refuse: bool,
}

impl Records for Recorder {
    fn started(&self, call: &Call, policy: Option<&Policy>, params: Option<&RawValue>) -> io::Result<()> {
        assert_eq!(policy.is_some(), call.target.as_deref() != Some("forbidden"));
        assert_eq!(params.is_some(), call.method != "catalogue");
        self.book.started.borrow_mut().push(call.clone());
        if self.refuse && call.method != "catalogue" {
            return Err(io::Error::other("disk full"));
        }
        Ok(())
    }

    fn finished(&self, call: &Call, finished: &Finished) -> io::Result<()> {
        self.book.finished.borrow_mut().push((call.clone(), finished.clone()));
        Ok(())
    }
}

/// How a session is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) jobs: usize,
    pub(crate) time: Duration,
    pub(crate) output: u64,
    pub(crate) refuse_records: bool,
    pub(crate) env: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { jobs: 2, time: Duration::from_secs(20), output: 64 << 20, refuse_records: false, env: vec![] }
    }
}

struct Same(Grant);

impl Profiles for Same {
    fn grant(&self, _: &str, target: Option<&str>) -> Result<Grant, String> {
        if target == Some("forbidden") {
            return Err("no profile grants it\nhint: name one".to_owned());
        }
        Ok(self.0.clone())
    }
}

fn grant(setup: &Setup) -> Grant {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/session/server.py");
    let argv = ["python3", "-S", "-E"].map(str::to_owned).into_iter().chain([script.display().to_string()]);
    let exec = Step::Exec {
        program: "/usr/bin/python3".into(),
        argv: argv.collect(),
        env: setup.env.clone(),
        cwd: "/".into(),
    };
    let policy = Policy {
        name: "test".to_owned(),
        description: String::new(),
        filesystem: Filesystem { read: vec![], write: vec![], execute: vec![], deny: vec![], scratch: 0 },
        limits: Limits {
            memory: 1 << 29,
            cpu: 1000,
            tasks: 64,
            time: setup.time,
            output: setup.output,
            open_files: 64,
            file_size: 1 << 20,
        },
        syscalls: Syscalls::default(),
        environment: Environment { pass: vec![], set: BTreeMap::new() },
        audit: Audit::default(),
        floor: Floor::Landlock,
    };
    Grant { plan: Arc::new(Plan { floor: Floor::Landlock, steps: vec![exec] }), policy: Arc::new(policy) }
}

/// The client's side.
pub(crate) struct Client {
    input: Option<DuplexStream>,
    output: BufReader<DuplexStream>,
}

impl Client {
    pub(crate) async fn send(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
    }

    /// Ends the session's input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
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

    /// A legacy handshake.
    pub(crate) async fn handshake(&mut self, capabilities: Value) -> Value {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": {"name": "tester", "version": "9"},
        });
        let answer = self.request(0, "initialize", params).await;
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        answer
    }

    /// Sends a call of a tool in the modern way, without reading.
    pub(crate) async fn start(&mut self, id: u64, tool: &str, arguments: Value) {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": "mine"});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string())
            .await;
    }

    /// A modern call and the next line.
    pub(crate) async fn call(&mut self, id: u64, tool: &str) -> Value {
        self.start(id, tool, json!({})).await;
        self.read().await
    }

    /// A legacy call and the next line.
    pub(crate) async fn legacy(&mut self, id: u64, tool: &str) -> Value {
        self.request(id, "tools/call", json!({"name": tool})).await
    }
}

/// The text of a tool's result.
pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

pub(crate) fn is_limit(status: &Status) -> bool {
    matches!(status, Status::Limit { .. })
}

/// Runs a session with a client, and gives what was recorded. The client's end is the session's.
pub(crate) fn session<F: Future<Output = Client>>(
    setup: &Setup,
    client: impl FnOnce(Client) -> F,
) -> Rc<Book> {
    let (book, served) = session_result(setup, client);
    served.unwrap();
    book
}

pub(crate) fn session_result<F: Future<Output = Client>>(
    setup: &Setup,
    client: impl FnOnce(Client) -> F,
) -> (Rc<Book>, Result<(), ServeError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let book = Rc::new(Book::default());
    let served = runtime.block_on(async {
        let (input, session_input) = duplex(64 * 1024);
        let (session_output, output) = duplex(64 * 1024);
        let options = Options {
            server: "fixture".to_owned(),
            user: "uid 0".to_owned(),
            run: "run".to_owned(),
            jobs: setup.jobs,
            launcher: Launcher::default(),
            profiles: Box::new(Same(grant(setup))),
            records: Box::new(Recorder { book: Rc::clone(&book), refuse: setup.refuse_records }),
            notice: Box::new(|text| panic!("{text}")),
        };
        let client = client(Client { input: Some(input), output: BufReader::new(output) });
        let bound = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(serve(options, session_input, session_output), async {
                let mut client = client.await;
                client.hang_up();
                // The output stays open until the session is over, so that what is still sent is not an error.
                while client.raw().await.is_some() {}
            })
        });
        bound.await.expect("the session ends").0
    });
    (book, served)
}
