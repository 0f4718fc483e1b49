//! What a probe is given and what it says afterwards.
//!
//! Neighbours: the probes of `hostile` fill in a [`Report`]; `hostile` sends it. Never: tries anything itself.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sys::Errno;
use crate::sys::attack::End;

/// What every planted secret begins with. A probe repeats what it read only from there on, so that a real
/// secret which it should happen to reach is counted and never told.
pub const CANARY: &str = "toolcell-canary-";

/// How an attempt ended, in the attacker's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was attacked, and the work is done.
    Done,
    /// Something refused, or ended, the attempt.
    Blocked,
    /// The attempt succeeded.
    Escaped,
}

/// A missing or malformed argument, by name.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) &'static str);

/// What a probe gives.
pub(super) type Probed = Result<Report, Refusal>;

/// One call as its probe sees it.
pub(super) struct Call<'a> {
    attempt: &'static str,
    /// The request's own id.
    pub(super) id: &'a Value,
    arguments: &'a Map<String, Value>,
    /// The server's standard output, for the probes that misuse it.
    pub(super) out: &'a mut dyn Write,
}

impl<'a> Call<'a> {
    /// A call of the tool that does what `attempt` says.
    pub(super) fn new(
        attempt: &'static str,
        id: &'a Value,
        arguments: &'a Map<String, Value>,
        out: &'a mut dyn Write,
    ) -> Self {
        Self { attempt, id, arguments, out }
    }

    /// A string argument.
    pub(super) fn text(&self, name: &'static str) -> Result<&'a str, Refusal> {
        self.arguments.get(name).and_then(Value::as_str).ok_or(Refusal(name))
    }

    /// A path argument.
    pub(super) fn path(&self, name: &'static str) -> Result<&'a Path, Refusal> {
        self.text(name).map(Path::new)
    }

    /// The directory argument, or the directory for temporary files, which is a cell's own wherever that lies.
    pub(super) fn directory(&self) -> PathBuf {
        self.path("directory").map_or_else(|_none| std::env::temp_dir(), Path::to_path_buf)
    }

    /// A process id argument.
    pub(super) fn pid(&self) -> Result<i32, Refusal> {
        let number = self.arguments.get("pid").and_then(Value::as_i64).ok_or(Refusal("pid"))?;
        i32::try_from(number).ok().filter(|pid| *pid > 1).ok_or(Refusal("pid"))
    }

    /// An integer argument, or its default.
    pub(super) fn number(&self, name: &'static str, default: u64) -> Result<u64, Refusal> {
        self.arguments.get(name).map_or(Ok(default), |value| value.as_u64().ok_or(Refusal(name)))
    }

    /// A boolean argument, false by default.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        self.arguments.get(name).map_or(Ok(false), |value| value.as_bool().ok_or(Refusal(name)))
    }

    /// A report about one operation that the kernel allowed or refused.
    pub(super) fn tried(
        &self,
        operation: &str,
        object: impl Into<String>,
        result: Result<String, Errno>,
    ) -> Report {
        let (outcome, errno, saw) = match result {
            Ok(saw) => (Outcome::Escaped, None, saw),
            Err(errno) => (Outcome::Blocked, Some(errno.name()), errno.to_string()),
        };
        Report {
            attempt: self.attempt,
            outcome,
            operation: operation.to_owned(),
            object: object.into(),
            errno,
            saw,
        }
    }

    /// A report about an operation that was tried in a child.
    pub(super) fn tried_in_child(
        &self,
        operation: &str,
        object: impl Into<String>,
        success: &str,
        result: Result<End, Errno>,
    ) -> Report {
        match result {
            Ok(End::Exit(0)) => self.tried(operation, object, Ok(success.to_owned())),
            Ok(End::Exit(errno)) => self.tried(operation, object, Err(Errno(errno))),
            Ok(End::Signal(signal)) => Report {
                attempt: self.attempt,
                outcome: Outcome::Blocked,
                operation: operation.to_owned(),
                object: object.into(),
                errno: Some(signal_name(signal)),
                saw: format!("killed by {}", signal_name(signal)),
            },
            Err(errno) => self.tried("fork", "", Err(errno)),
        }
    }

    /// A report of a probe that tried nothing.
    pub(super) fn done(&self, saw: impl Into<String>) -> Report {
        Report {
            attempt: self.attempt,
            outcome: Outcome::Done,
            operation: "answer".to_owned(),
            object: String::new(),
            errno: None,
            saw: saw.into(),
        }
    }
}

/// What a probe saw.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    attempt: &'static str,
    pub(super) outcome: Outcome,
    operation: String,
    object: String,
    errno: Option<String>,
    saw: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Done => return f.write_str(&self.saw),
            Outcome::Blocked => "blocked",
            Outcome::Escaped => "escaped",
        };
        write!(f, "{word}: {} {}: {}", self.operation, self.object, self.saw)
    }
}

/// The number in an I/O error; the standard library's own time-out has none of the kernel's.
pub(super) fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::TimedOut => Errno(libc::ETIMEDOUT),
        _ => Errno::from_io(error),
    }
}

/// What was read, fit to be told: a planted secret, or how much it was.
pub(super) fn reveal(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.split_once(CANARY) {
        Some((_, rest)) => {
            let rest = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            format!("{CANARY}{rest}")
        }
        None => format!("{} bytes", bytes.len()),
    }
}

/// The name of a signal that ends a probe's child.
fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSYS => "SIGSYS".to_owned(),
        libc::SIGKILL => "SIGKILL".to_owned(),
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGXFSZ => "SIGXFSZ".to_owned(),
        _ => format!("signal {signal}"),
    }
}
