//! `toolcell run` in front of a server: what it adds to an answer, how fast a large result comes, what it weighs.
//!
//! Neighbours: `benches/server.c` is the server, `leaks` speaks through [`Session`] too. Never: reads what is in a result.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{self, Result, Row, Times, turns};

/// What `run` may add to a server's own start and answer.
const ADDED: Duration = Duration::from_millis(1);
/// How long a session rests before a call, so that the call finds what a session prepares between calls.
const REST: Duration = Duration::from_millis(30);
/// A session that long without a word gives back what it does not need to wait.
const QUIET: Duration = Duration::from_secs(3);
/// The most that an idle supervisor may hold, in KiB.
const IDLE_KIB: u64 = 8 * 1024;
/// The most that a large result may add to it: buffers, and not the result.
const GROWTH_KIB: u64 = 4 * 1024;
const LARGE: usize = 64 << 20;
/// Messages of 1 KiB that a call sends before it answers.
const MANY: usize = 10_000;

/// A conversation with a server, bare or behind `run`.
pub(crate) struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    next: u64,
}

impl Session {
    /// Starts it and shakes hands.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or("no stdout")?);
        let mut session = Self { child, stdin, stdout: BufReader::with_capacity(1 << 20, stdout), next: 0 };
        session.ask(
            "initialize",
            r#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}"#,
        )?;
        session.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
        Ok(session)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the session has ended")?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    fn send(&mut self, method: &str, params: &str) -> Result<u64> {
        self.next += 1;
        let id = self.next;
        self.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#))?;
        Ok(id)
    }

    /// Sends a request and reads its answer, which is the next line with an `id`.
    fn ask(&mut self, method: &str, params: &str) -> Result<usize> {
        self.send(method, params)?;
        loop {
            let (head, length) = self.line()?;
            if head.contains("\"isError\":true") || head.contains("\"error\":") {
                return Err(head.into());
            }
            if head.contains("\"id\":") {
                return Ok(length);
            }
        }
    }

    /// The beginning of a line, and its length; the rest is thrown away as it comes.
    fn line(&mut self) -> Result<(String, usize)> {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let part = self.stdout.fill_buf()?;
            if part.is_empty() {
                return Err("the server ended".into());
            }
            let end = memchr::memchr(b'\n', part);
            let count = end.map_or(part.len(), |end| end + 1);
            head.extend(part.iter().take(count).take(4096_usize.saturating_sub(head.len())));
            self.stdout.consume(count);
            length += count;
            if end.is_some() {
                return Ok((String::from_utf8_lossy(&head).into_owned(), length));
            }
        }
    }

    /// Calls a tool; the length of the answer.
    pub(crate) fn call(&mut self, tool: &str) -> Result<usize> {
        self.call_with(tool, "{}")
    }

    /// The same with arguments.
    pub(crate) fn call_with(&mut self, tool: &str, arguments: &str) -> Result<usize> {
        self.ask("tools/call", &format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#))
    }

    /// Sends a call and does not wait.
    pub(crate) fn begin(&mut self, (tool, arguments): (&str, &str)) -> Result<u64> {
        self.send("tools/call", &format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#))
    }

    /// The next call that is answered, and not by an error.
    pub(crate) fn answered(&mut self) -> Result<u64> {
        loop {
            let (head, _length) = self.line()?;
            if head.contains("\"isError\":true") || head.contains("\"error\":") {
                return Err(head.into());
            }
            if let Some((_, rest)) = head.split_once("\"id\":") {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                return Ok(rest.get(..end).unwrap_or_default().parse()?);
            }
        }
    }

    /// Ends it as one ends what does not listen.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.end()
    }

    /// Hangs up and waits.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stdin = None;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        let _gone = self.child.wait().is_err();
    }
}

/// `run` in front of the server, with a profile that lets the large result through.
pub(crate) fn behind(toolcell: &Path, files: &Path) -> Command {
    let mut command = run(toolcell);
    command.arg("--spares=0").arg("--profile").arg(files.join("large-output.toml"));
    command.arg("--").arg(files.join("server"));
    command
}

/// `run`, to be told its options and server.
pub(crate) fn run(toolcell: &Path) -> Command {
    let mut command = Command::new(toolcell);
    command.arg("run").arg("--audit").arg(audit_log());
    command
}

/// Each user's own, because a log is its owner's alone.
fn audit_log() -> PathBuf {
    std::env::temp_dir().join(format!("toolcell-bench-{}.log", std::process::id()))
}

/// A field of `/proc/PID/status`, in KiB.
pub(crate) fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.and_then(|line| line.split_whitespace().next()).ok_or("no such field")?.parse()?)
}

/// Reads to the end and throws away.
fn drain(mut from: impl Read) -> Result<usize> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count,
        }
    }
}

/// What `run` adds to an answer.
pub(crate) fn answers(toolcell: &Path, files: &Path, rounds: usize) -> Result<Row> {
    let mut session = Session::start(&mut behind(toolcell, files))?;
    let mut ours = || {
        measure::rest(REST);
        let start = Instant::now();
        session.call("small")?;
        Ok(start.elapsed())
    };
    let mut bare = || {
        let start = Instant::now();
        let mut session = Session::start(&mut Command::new(files.join("server")))?;
        session.call("small")?;
        let time = start.elapsed();
        session.end()?;
        Ok(time)
    };
    let [ours, bare] = turns(rounds, [&mut ours, &mut bare])?;
    session.end()?;
    Ok(measure::difference("one call through run against the server's start and answer", &ours, &bare, ADDED))
}

/// How fast a large result comes, and what the supervisor holds meanwhile.
pub(crate) fn large(toolcell: &Path, files: &Path) -> Result<Vec<Row>> {
    let mut session = Session::start(&mut behind(toolcell, files))?;
    session.call("small")?;
    measure::rest(REST);
    let held = memory(session.pid(), "VmRSS")?;
    let file = std::env::temp_dir().join(format!("toolcell-bench-{}", std::process::id()));
    fs::write(&file, vec![b'x'; LARGE])?;
    let mut ours = || {
        let start = Instant::now();
        if session.call("large")? < LARGE {
            return Err("the large result is short".into());
        }
        Ok(start.elapsed())
    };
    let mut cat = || {
        let start = Instant::now();
        let mut cat = Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn()?;
        drain(cat.stdout.take().ok_or("no stdout")?)?;
        cat.wait()?;
        Ok(start.elapsed())
    };
    let measured = turns(10, [&mut ours, &mut cat]);
    let [ours, cat]: [Times; 2] = measured?;
    fs::remove_file(&file)?;
    let many_row = many(&mut session, files)?;
    let peak = memory(session.pid(), "VmHWM")?;
    measure::rest(QUIET);
    let idle = memory(session.pid(), "VmRSS")?;
    session.end()?;
    Ok(vec![
        measure::ratio("a result of 64 MiB through run against cat", &ours, &cat, Some(1.25)),
        many_row,
        measure::amount("supervisor, idle", idle, IDLE_KIB, "KiB"),
        measure::amount("what results of 64 MiB add to it", peak.saturating_sub(held), GROWTH_KIB, "KiB"),
    ])
}

/// How fast small messages come, from the first to the last, against the same server behind `cat`.
fn many(session: &mut Session, files: &Path) -> Result<Row> {
    let mut behind_cat = Command::new("sh");
    behind_cat.args(["-c", "\"$0\" | cat"]).arg(files.join("server"));
    let mut behind_cat = Session::start(&mut behind_cat)?;
    let measured = turns(10, [&mut || come(session), &mut || come(&mut behind_cat)]);
    behind_cat.end()?;
    let [ours, cat] = measured?;
    Ok(measure::ratio("10,000 messages of 1 KiB through run against cat", &ours, &cat, Some(1.25)))
}

fn come(session: &mut Session) -> Result<Duration> {
    session.send("tools/call", r#"{"name":"many","arguments":{},"_meta":{"progressToken":7}}"#)?;
    let (mut first, mut count) = (None, 0);
    loop {
        let (head, _length) = session.line()?;
        let start = *first.get_or_insert_with(Instant::now);
        match head.contains("notifications/progress") {
            true => count += 1,
            false if count == MANY => return Ok(start.elapsed()),
            false => return Err(format!("{count} messages came, then: {head}").into()),
        }
    }
}

/// Removes the log of all sessions, if there were some.
pub(crate) fn clean() -> Result<()> {
    if !audit_log().exists() {
        return Ok(());
    }
    fs::remove_file(toolcell::audit::beside(&audit_log()))?;
    Ok(fs::remove_file(audit_log())?)
}
