//! One child process that speaks MCP over stdio: lines in, lines out, and its end.
//!
//! ```text
//! Start ──► Child { input, output, process }
//!             input dropped ──► the child's EOF ──► it leaves by itself ──► reaped
//!             process dropped, or too slow ──► SIGKILL ──► reaped
//! ```
//!
//! What such a child starts is its own affair: a killed supervisor's launcher ends every cell by itself.
//!
//! Neighbours: [`super::shared`] and [`super::session`] own children. Never: reads what a line says, starts a child
//! anew, or leaves one behind that is not reaped.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

use crate::mcp::frame::{Frame, Lines, Piece};
use crate::sys::{process, readiness};

/// How a child is started, as often as one is needed.
#[derive(Debug, Clone)]
pub struct Start {
    /// The program; `/proc/self/exe` is this one, whatever its file has become.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Variables beside those of this process.
    pub set: Vec<(OsString, OsString)>,
    /// Variables of this process that it does not get.
    pub removed: Vec<OsString>,
    /// The longest line of it that is held.
    pub longest: usize,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// Its stdin.
    pub input: Input,
    /// Its stdout.
    pub output: Output,
    /// Its life.
    pub process: Process,
}

impl Start {
    /// Starts one. It is in a process group of its own, so that a terminal's Ctrl-C reaches only who answers for it. Its
    /// stderr is this process's. Must be called inside the runtime.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn child(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .arg0("toolcell")
            .args(&self.arguments)
            .envs(self.set.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        for name in &self.removed {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let process = Process::of(child)?;
        let Some((stdin, stdout)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let input = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        Ok(Child { input: Input(input), output: Output(Lines::new(output, self.longest, u64::MAX)), process })
    }
}

/// A child's stdin. Dropped, it is the end of what the child is asked.
#[derive(Debug)]
pub struct Input(pipe::Sender);

impl Input {
    /// Writes one line, without its end. It waits for as long as the child does not read.
    ///
    /// # Errors
    /// When the child does not read any more.
    pub async fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line).await?;
        self.0.write_all(b"\n").await
    }
}

/// What a child said.
#[derive(Debug)]
pub enum Said {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line that is too long to hold. It is still to be read, by [`Output::long`].
    Long,
    /// It will say no more.
    End,
}

/// A child's stdout.
#[derive(Debug)]
pub struct Output(Lines<pipe::Receiver>);

impl Output {
    /// The next line. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Said {
        match self.0.next().await {
            Ok(Frame::Line(line)) => {
                let line = line.to_vec();
                self.0.shrink();
                Said::Line(line)
            }
            Ok(Frame::Long(_)) => Said::Long,
            // Half a line is of a child that was ended in the middle of it.
            Ok(Frame::Half(_) | Frame::OverBudget | Frame::End) | Err(_) => Said::End,
        }
    }

    /// Reads a long line to its end in pieces. `false`: it has none.
    pub async fn long(&mut self, mut piece: impl FnMut(&[u8])) -> bool {
        let mut buffer = Vec::new();
        loop {
            match self.0.piece(&mut buffer).await {
                Ok(Piece::More) => piece(&buffer),
                Ok(Piece::Last) => {
                    piece(&buffer);
                    return true;
                }
                Ok(Piece::Half | Piece::OverBudget) | Err(_) => return false,
            }
        }
    }
}

/// A child's life. Dropped, it is over.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    pidfd: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Process {
    fn of(mut child: std::process::Child) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let pidfd = process::pidfd_open(pid).and_then(readiness::readable);
        match pidfd {
            Ok(pidfd) => Ok(Self { child, pidfd, status: None }),
            Err(errno) => {
                // Nobody would hear of its end.
                child.kill()?;
                child.wait()?;
                Err(io::Error::from_raw_os_error(errno.0))
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the kernel does not tell of it.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        if self.status.is_none() {
            drop(self.pidfd.readable().await?);
            self.status = Some(self.child.wait()?);
        }
        self.status.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Waits for its end, which is made at `by`.
    ///
    /// # Errors
    /// As [`Process::ended`].
    pub async fn ended_by(&mut self, by: Instant) -> io::Result<ExitStatus> {
        tokio::select! {
            biased;
            ended = self.ended() => return ended,
            () = sleep_until(by) => {}
        }
        self.child.kill()?;
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // A process that is killed ends; that it cannot be killed any more means that it has.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Start {
        Start {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            set: vec![("GIVEN".into(), "value".into())],
            removed: vec!["CARGO_MANIFEST_DIR".into()],
            longest: 64,
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    async fn line(output: &mut Output) -> String {
        match output.next().await {
            Said::Line(line) => String::from_utf8(line).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_go_in_and_come_out_until_the_input_ends() {
        block_on(async {
            let mut child = shell("echo $GIVEN$CARGO_MANIFEST_DIR; exec cat").child().unwrap();
            assert_eq!(line(&mut child.output).await, "value");
            for text in ["one", "", "three"] {
                child.input.send(text.as_bytes()).await.unwrap();
                assert_eq!(line(&mut child.output).await, text);
            }
            drop(child.input);
            assert!(matches!(child.output.next().await, Said::End));
            assert!(child.process.ended().await.unwrap().success());
            assert!(child.process.ended().await.unwrap().success());
        });
    }

    #[test]
    fn a_line_that_is_too_long_is_read_in_pieces() {
        block_on(async {
            let mut child = shell("head -c 100000 /dev/zero | tr '\\0' x; echo; echo short").child().unwrap();
            assert!(matches!(child.output.next().await, Said::Long));
            let mut whole = Vec::new();
            assert!(child.output.long(|piece| whole.extend_from_slice(piece)).await);
            assert_eq!(whole, "x".repeat(100_000).as_bytes());
            assert_eq!(line(&mut child.output).await, "short");
        });
    }

    #[test]
    fn a_child_that_does_not_leave_is_killed_and_reaped() {
        block_on(async {
            let mut child = shell("trap '' TERM; echo up; exec sleep 1000").child().unwrap();
            assert_eq!(line(&mut child.output).await, "up");
            drop(child.input);
            let status = child.process.ended_by(Instant::now() + Duration::from_millis(20)).await.unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
            let child = shell("exec sleep 1000").child().unwrap();
            let pid = libc::pid_t::try_from(child.process.id()).unwrap();
            drop(child);
            assert!(!process::exists(pid));
        });
    }
}
