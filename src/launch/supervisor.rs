//! Stand-in of the supervisor's side of the launcher: plain processes. Never: isolates anything.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::unix::pipe;

use crate::outcome::{Receipt, Usage, Violation};
use crate::plan::Plan;
use crate::plan::step::Step;

/// Starts cells.
#[derive(Debug, Clone, Default)]
pub struct Launcher {}

/// A launch that failed.
#[derive(Debug, Error)]
#[error("cannot start the payload")]
pub struct LaunchError {
    #[source]
    source: std::io::Error,
}

impl LaunchError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        None
    }
}

/// How the payload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exit status.
    Code(i32),
    /// Signal.
    Signal(i32),
    /// The launcher is gone.
    LauncherGone,
}

/// The end of a cell.
#[derive(Debug)]
pub struct Ended {
    /// Exit.
    pub exit: Exit,
    /// Usage.
    pub usage: Usage,
    /// Violations.
    pub violations: Vec<Violation>,
}

/// A running cell.
#[derive(Debug)]
pub struct Cell {
    /// Payload's stdin.
    pub stdin: Option<pipe::Sender>,
    /// Payload's stdout.
    pub stdout: Option<pipe::Receiver>,
    /// Payload's stderr.
    pub stderr: Option<pipe::Receiver>,
    /// Receipt.
    pub receipt: Receipt,
    child: Arc<Mutex<Child>>,
    started: Instant,
}

impl Launcher {
    /// Starts.
    ///
    /// # Errors
    /// When it does not.
    pub async fn launch(&self, plan: &Arc<Plan>) -> Result<Cell, LaunchError> {
        tokio::task::yield_now().await;
        let error = |source| LaunchError { source };
        let Some(Step::Exec { program, argv, env, cwd }) = plan.steps.last() else {
            return Err(error(std::io::ErrorKind::InvalidInput.into()));
        };
        let mut child = Command::new(program)
            .args(argv.get(1..).unwrap_or_default())
            .envs(env.iter().cloned())
            .current_dir(cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(error)?;
        let stdin = child.stdin.take().map(|pipe| pipe::Sender::from_owned_fd(OwnedFd::from(pipe)));
        let stdout = child.stdout.take().map(|pipe| pipe::Receiver::from_owned_fd(OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| pipe::Receiver::from_owned_fd(OwnedFd::from(pipe)));
        Ok(Cell {
            stdin: stdin.transpose().map_err(error)?,
            stdout: stdout.transpose().map_err(error)?,
            stderr: stderr.transpose().map_err(error)?,
            receipt: Receipt { floor: plan.floor, layers: BTreeMap::new() },
            child: Arc::new(Mutex::new(child)),
            started: Instant::now(),
        })
    }
}

impl Cell {
    /// Kills.
    pub fn kill(&self) {
        drop(self.child.lock().unwrap_or_else(PoisonError::into_inner).kill());
    }

    /// Waits.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let status = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
            if let Ok(Some(status)) = status {
                let exit = match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::LauncherGone,
                };
                let wall = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
                return Ended {
                    exit,
                    usage: Usage { wall_us: wall, ..Usage::default() },
                    violations: Vec::new(),
                };
            }
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.kill();
        drop(self.child.lock().unwrap_or_else(PoisonError::into_inner).wait());
    }
}
