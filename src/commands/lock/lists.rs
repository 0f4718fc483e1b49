//! Asks a server in its cell what it lists, in both eras of the protocol: the client of a `toolcell run` that runs no call.
//!
//! Neighbours: `commands::lock` keeps what is found. Never: calls a tool, or believes more of an answer than what it lists.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::lock::{Definition, Item, Kind};
use crate::mcp::envelope::{self, Id, Kind as Message};
use crate::mcp::{object, reply};

/// Of one line, so much is read.
const LONGEST: u64 = 16 << 20;
/// Pages of a list, at most.
const MOST_PAGES: usize = 100;
/// A server whose lists change so often while they are read has none that could be locked.
const MOST_WALKS: usize = 5;
/// Lines that are no answer, at most, before one.
const MOST_OTHERS: usize = 10_000;

/// Why there are no lists.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("cannot start `toolcell run` for it")]
    Start(#[source] io::Error),
    #[error("the session with it broke off")]
    Broken(#[source] io::Error),
    #[error("it answers neither a handshake nor `server/discover`: {0}")]
    NoEra(String),
    #[error("it does not list its {0}: {1}")]
    Refused(&'static str, String),
    #[error("its list of {0} {1}")]
    Endless(&'static str, String),
    #[error("{0}")]
    Ambiguous(String),
}

impl ListError {
    /// What to do about it.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::Start(_) => {
                "toolcell starts itself again for this: its program must be where it was, and one more process allowed \
                 (`ulimit -u`)"
            }
            Self::Broken(_) => {
                "what is told above says why; `toolcell run` with the same options starts the same, and `toolcell audit \
                 show` tells how its processes ended"
            }
            Self::NoEra(_) => {
                "the command has to be a server that speaks MCP over stdin and stdout; `toolcell audit show` tells how \
                 its process ended"
            }
            Self::Refused(..) => {
                "the server offers this and does not list it: look at what it says about that, and whether the profile \
                 lacks something that it needs"
            }
            Self::Endless(..) | Self::Ambiguous(_) => {
                "clients would not agree about what this server says, so it cannot be locked before it is mended; an \
                 older or newer version of it may be"
            }
        }
    }
}

struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: i64,
    /// The server said that a list has changed.
    changed: bool,
}

/// An answer: its line, and where its result is; or what its error says.
type Answer = Result<(Vec<u8>, std::ops::Range<usize>), String>;

/// What a server lists when it is started like this.
pub(super) fn ask(arguments: &[OsString]) -> Result<BTreeMap<Kind, Vec<Item>>, ListError> {
    let program = std::env::current_exe().map_err(ListError::Start)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(ListError::Start)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let gone = || ListError::Start(io::Error::from(io::ErrorKind::BrokenPipe));
    let output = BufReader::new(output.ok_or_else(gone)?);
    let mut client = Client { child, input, output, next: 0, changed: false };
    let found = client.both_eras();
    client.end();
    found
}

impl Client {
    /// Closes its input, and waits until it has ended its cells.
    fn end(mut self) {
        self.input = None;
        let mut rest = [0; 4096];
        while self.output.read(&mut rest).is_ok_and(|count| count > 0) {}
        drop(self.child.wait());
    }

    fn both_eras(&mut self) -> Result<BTreeMap<Kind, Vec<Item>>, ListError> {
        let mut found = BTreeMap::new();
        // All of it, because some servers list more to clients that offer more.
        let offers = json!({"roots": {"listChanged": false}, "sampling": {}, "elicitation": {}});
        let info = json!({"name": "toolcell-lock", "version": env!("CARGO_PKG_VERSION")});
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": offers, "clientInfo": info});
        let legacy = self.request("initialize", hello)?;
        if let Ok((line, result)) = &legacy {
            self.send(&reply::initialized())?;
            self.lists(line, result, &json!({}), &mut found)?;
        }
        let meta = json!({"_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": info,
            "io.modelcontextprotocol/clientCapabilities": offers,
        }});
        let modern = self.request("server/discover", meta.clone())?;
        match (legacy, modern) {
            (_, Ok((line, result))) => self.lists(&line, &result, &meta, &mut found)?,
            (Err(why), Err(_)) => return Err(ListError::NoEra(why)),
            (Ok(_), Err(_)) => {}
        }
        found.retain(|_, items| !items.is_empty());
        Ok(found)
    }

    /// All that one era has, beginning with what its first answer says.
    fn lists(
        &mut self,
        line: &[u8],
        result: &std::ops::Range<usize>,
        params: &Value,
        found: &mut BTreeMap<Kind, Vec<Item>>,
    ) -> Result<(), ListError> {
        let instructions = Definition::instructions(line, result.clone())
            .map_err(|why| ListError::Ambiguous(format!("of what it says of itself, {why}")))?;
        if let Some(instructions) = instructions {
            add(found, Kind::Instructions, instructions);
        }
        let capabilities = object::member(line, result.clone(), "capabilities");
        for kind in Kind::ALL {
            let Some((method, member)) = kind.list() else { continue };
            let offers = match kind {
                Kind::Prompt => "prompts",
                Kind::Resource | Kind::Template => "resources",
                Kind::Tool | Kind::Instructions => "tools",
            };
            let offered = capabilities.clone().is_some_and(|all| object::member(line, all, offers).is_some());
            if !offered && kind != Kind::Tool {
                continue;
            }
            let mut walks = 0;
            let read = loop {
                self.changed = false;
                let read = match self.walk(kind, method, member, params)? {
                    Ok(read) => read,
                    Err(_) if !offered => Vec::new(),
                    // Who has resources does not have to list them, nor templates.
                    Err(_) if matches!(kind, Kind::Resource | Kind::Template) => Vec::new(),
                    Err(why) => return Err(ListError::Refused(kind.table(), why)),
                };
                if !self.changed {
                    break read;
                }
                walks += 1;
                if walks == MOST_WALKS {
                    return Err(ListError::Endless(kind.table(), "changes each time it is read".to_owned()));
                }
            };
            read.into_iter().for_each(|definition| add(found, kind, definition));
        }
        Ok(())
    }

    fn walk(
        &mut self,
        kind: Kind,
        method: &str,
        member: &str,
        params: &Value,
    ) -> Result<Result<Vec<Definition>, String>, ListError> {
        let mut read = Vec::new();
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            let mut params = params.clone();
            if let (Some(cursor), Some(members)) = (cursor.take(), params.as_object_mut()) {
                members.insert("cursor".to_owned(), Value::String(cursor));
            }
            let (line, result) = match self.request(method, params)? {
                Ok(answer) => answer,
                Err(why) => return Ok(Err(why)),
            };
            let list = object::member(&line, result.clone(), member).unwrap_or_default();
            for item in object::items(&line, list) {
                read.push(Definition::read(kind, &line, item).map_err(ListError::Ambiguous)?);
            }
            cursor = envelope::text_member(&line, result, "nextCursor");
            if cursor.is_none() {
                return Ok(Ok(read));
            }
        }
        Err(ListError::Endless(kind.table(), format!("has more than {MOST_PAGES} pages")))
    }

    fn send(&mut self, line: &[u8]) -> Result<(), ListError> {
        let input = self.input.as_mut().ok_or_else(|| ListError::Broken(io::ErrorKind::BrokenPipe.into()))?;
        input.write_all(line).and_then(|()| input.flush()).map_err(ListError::Broken)
    }

    /// Asks, and answers what is asked meanwhile. `toolcell run` has a limit for the time of each request.
    fn request(&mut self, method: &str, params: Value) -> Result<Answer, ListError> {
        self.next += 1;
        let id = Id::Number(self.next);
        self.send(&reply::request(&id, method, Some(params.to_string().as_bytes())))?;
        for _ in 0..MOST_OTHERS {
            let mut line = Vec::new();
            let read =
                (&mut self.output).take(LONGEST).read_until(b'\n', &mut line).map_err(ListError::Broken)?;
            if read == 0 || line.pop() != Some(b'\n') {
                return Err(ListError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            let Ok(message) = envelope::parse(&line) else { continue };
            match &message.kind {
                Message::Answer { id: of, error } if *of == id => {
                    let body = message.body.clone().unwrap_or_default();
                    return Ok(match error {
                        true => Err(envelope::text_member(&line, body, "message").unwrap_or_default()),
                        false => Ok((line, body)),
                    });
                }
                Message::Request { id, method } if method == "roots/list" => {
                    let answer = json!({"jsonrpc": "2.0", "id": serde_json::from_str::<Value>(&id.to_json()).unwrap_or_default(), "result": {"roots": []}});
                    self.send(format!("{answer}\n").as_bytes())?;
                }
                Message::Request { id, .. } => {
                    self.send(&reply::error(
                        Some(id),
                        envelope::METHOD_NOT_FOUND,
                        "nobody is here to be asked",
                    ))?;
                }
                Message::Notification { method } if method.ends_with("/list_changed") => self.changed = true,
                Message::Notification { .. } | Message::Answer { .. } => {}
            }
        }
        Err(ListError::Broken(io::Error::other("it writes without an end, and does not answer")))
    }
}

/// Of two equal ones, one.
fn add(found: &mut BTreeMap<Kind, Vec<Item>>, kind: Kind, definition: Definition) {
    let items = found.entry(kind).or_default();
    if !items.iter().any(|item| item.definition == definition) {
        items.push(Item { definition, ..Item::default() });
        items.sort_by(|one, other| {
            (&one.definition.name, one.definition.hash())
                .cmp(&(&other.definition.name, other.definition.hash()))
        });
    }
}
