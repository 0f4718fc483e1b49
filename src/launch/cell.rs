//! A running cell on the supervisor's side: its pipes, what its init says, its end.
//!
//! Neighbours: `launch::supervisor` makes it, `session` talks through it. Never: outlives its processes without ending them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::handover::Handover;
use super::spawn::Started;
use super::traces::{Traces, clear};
use super::{Kept, LaunchError, REPORT_LIMIT, Report};
use crate::outcome::{Built, Reached, Receipt, Traffic, Usage, Violation};
use crate::policy::Policy;
use crate::sys::process::{self, Exit};
use crate::sys::{Errno, Result, socket};
use crate::watch::attendant::Attendant;
use crate::watch::listening::Listened;
use crate::watch::traffic::Attended;
use crate::watch::usage;

/// How the launcher saw a cell end: exit of init and CPU time; nothing when the launcher itself is gone.
pub(super) type End = Option<(Exit, u64)>;

/// A running cell. Dropping it kills it.
#[derive(Debug)]
pub struct Cell {
    /// The payload's stdin.
    pub stdin: Option<pipe::Sender>,
    /// The payload's stdout.
    pub stdout: Option<pipe::Receiver>,
    /// The payload's stderr.
    pub stderr: Option<pipe::Receiver>,
    /// What was enforced.
    pub receipt: Receipt,
    pub(super) number: u64,
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) channel: AsyncFd<OwnedFd>,
    pub(super) traces: Traces,
    pub(super) scratch: Option<OwnedFd>,
    /// Its mount namespace and its private root, writable, until something is put into them.
    pub(super) places: Option<(OwnedFd, OwnedFd)>,
    /// What it writes to overlays, and what these lie over, if that is to be reviewed.
    pub(super) written: Option<Written>,
    pub(super) attendant: Attendant,
    pub(super) denials: Listened,
    pub(super) doors: Option<Attended>,
    pub(super) listening: Vec<Reached>,
    pub(super) policy: Arc<Policy>,
    pub(super) ended: Option<oneshot::Receiver<End>>,
    pub(super) end: End,
    /// Every process of the cell is gone.
    pub(super) dead: bool,
    pub(super) began: Instant,
    /// When init is killed, if it has been asked to end.
    pub(super) kill_at: Option<Instant>,
}

/// What a cell wrote to overlays.
#[derive(Debug)]
pub struct Written {
    pub(super) memory: OwnedFd,
    pub(super) kept: Kept,
}

/// All about a cell that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How the payload ended; `None` when it was killed before it could be told.
    pub exit: Option<Exit>,
    /// Exec failed: the payload never ran.
    pub failed: Option<LaunchError>,
    /// What it used; bytes are the caller's to fill in.
    pub usage: Usage,
    /// Limits that the kernel saw hit.
    pub violations: Vec<Violation>,
    /// When its last process was gone.
    pub gone: Instant,
    /// What it wrote to overlays, if that is to be reviewed.
    pub written: Option<Written>,
}

pub(super) fn error_of(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.0)
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.dead {
            return;
        }
        self.signal(libc::SIGKILL);
        let traces = std::mem::take(&mut self.traces);
        let pidfd = self.pidfd.get_ref().try_clone();
        if let (Ok(runtime), Ok(pidfd)) = (tokio::runtime::Handle::try_current(), pidfd) {
            runtime.spawn(clear(pidfd, traces));
        }
    }
}

impl Cell {
    /// Ends every process of the cell, through init or, when that takes too long, with it. Nothing happens to a cell
    /// that has ended.
    pub fn kill(&mut self) {
        self.kill_at.get_or_insert_with(|| Instant::now() + Started::PATIENCE);
        self.signal(libc::SIGTERM);
    }

    /// Its server was started before; what it uses counts from here on.
    pub fn begin(&mut self) {
        self.began = Instant::now();
        self.receipt.cell = Built::Spare;
    }

    /// It has got what this policy grants, beyond the one that it was built for.
    pub fn is_of(&mut self, policy: &Arc<Policy>) {
        self.policy = Arc::clone(policy);
    }

    /// Stops every process of the cell but init, which tells them all at once. None of them can keep from it.
    pub fn pause(&self) {
        self.signal(process::PAUSE);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.signal(process::RESUME);
    }

    /// What it holds now, in bytes; `None` where no cgroup counts that.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        self.traces.cgroup.as_ref()?.memory()
    }

    /// Where this host reaches its ports.
    #[must_use]
    pub fn listening(&self) -> &[Reached] {
        &self.listening
    }

    /// What it is bound by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the filter, the private root and Landlock have refused so far, as far as it was told.
    #[must_use]
    pub fn refusals(&self) -> Vec<Violation> {
        let mut found = self.attendant.refusals().violations(&self.policy);
        found.extend(self.denials.violations());
        found.extend(self.doors.iter().flat_map(Attended::violations));
        found
    }

    /// What of that is noted here alone, for the record of a call; none of it is told again. With it, how much of each layer's stands
    /// there.
    pub fn take_refusals(&self, receipt: &mut Receipt) -> Vec<Violation> {
        self.attendant.refusals().take_noted(&self.policy, receipt)
    }

    /// Gives its doors what they put in. A request that came before waits for it.
    ///
    /// # Errors
    /// The kernel's errno, also when the process that keeps the doors is gone.
    pub fn give(&self, secrets: &Handover) -> Result<()> {
        let mut each = secrets.doors().iter();
        each.try_for_each(|(place, value)| {
            self.doors.as_ref().ok_or(Errno(libc::EPROTO))?.give(*place, value)
        })
    }

    /// Lets the payload of a cell that waits start.
    pub(super) fn go_on(&mut self, secrets: &Handover) -> Result<()> {
        self.attendant.refusals().begin();
        self.denials.begin();
        self.doors.iter().for_each(Attended::begin);
        // Before the program starts, so that it finds its doors ready.
        self.give(secrets)?;
        secrets.send(self.channel.get_ref().as_fd())
    }

    pub(super) fn signal(&self, signal: libc::c_int) {
        let _gone = process::pidfd_send_signal(self.pidfd.get_ref().as_fd(), signal).is_err();
    }

    /// The next message of init, with the descriptor it carries; `None` when init is gone.
    pub(super) async fn report(&self) -> Result<Option<(Report, Option<OwnedFd>)>> {
        let mut buffer = vec![0; REPORT_LIMIT];
        let received = self.channel.async_io(Interest::READABLE, |channel| {
            socket::receive(channel.as_fd(), &mut buffer).map_err(error_of)
        });
        match received.await {
            Ok(None) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(None),
            Err(error) => Err(Errno::from_io(&error)),
            Ok(Some((count, descriptors))) => {
                let report = serde_json::from_slice(buffer.get(..count).unwrap_or_default());
                Ok(Some((report.map_err(|_foreign| Errno(libc::EPROTO))?, descriptors.into_iter().next())))
            }
        }
    }

    /// Resolves when init, hence every process of the cell, is dead. Given up at any point, it can be begun again.
    pub(super) async fn gone(&mut self) {
        if let Some(ended) = self.ended.as_mut() {
            let answer = match self.kill_at {
                None => ended.await,
                Some(at) => match timeout_at(at, &mut *ended).await {
                    Ok(answer) => answer,
                    Err(_late) => {
                        let pidfd = self.pidfd.get_ref().as_fd();
                        let _gone = process::pidfd_send_signal(pidfd, libc::SIGKILL).is_err();
                        ended.await
                    }
                },
            };
            // A receiver must not be asked again once it has answered.
            self.ended = None;
            self.end = answer.unwrap_or_default();
            self.dead = self.end.is_some();
        }
        if !self.dead {
            // The launcher died: its children got SIGKILL from the kernel.
            self.signal(libc::SIGKILL);
            let _ended = self.pidfd.readable().await.is_ok();
            self.dead = true;
        }
    }

    /// Resolves when every process of the cell is dead and its cgroup is gone. A wait that was given up may be begun
    /// again.
    pub async fn ended(&mut self) -> Ended {
        self.gone().await;
        let gone = Instant::now();
        let end = self.end;
        let mut failed = None;
        let mut exit = None;
        // Whatever init said is in the socket by now.
        while let Ok(Some((report, _))) = self.report().await {
            match report {
                Report::Exited { exit: status, .. } => exit = Some(status),
                Report::Failed(error) => failed = Some(error),
                Report::Ready { .. }
                | Report::Listener
                | Report::Changes(_)
                | Report::Door(_)
                | Report::Namespace
                | Report::Places => {}
            }
        }
        let mut traces = std::mem::take(&mut self.traces);
        let scratch = self.scratch.take();
        let ended = usage::Ended {
            cgroup: traces.cgroup.as_ref(),
            scratch: scratch.as_ref().map(AsFd::as_fd),
            cpu_us: end.map(|(_, cpu_us)| cpu_us),
            exit,
        };
        let (mut usage, mut violations) = usage::collect(&ended, &self.policy);
        self.attendant.refusals().confess(&mut self.receipt);
        violations.extend(self.attendant.refusals().violations(&self.policy));
        if let Some(doors) = &mut self.doors {
            doors.conclude(&mut self.receipt).await;
            violations.extend(doors.violations());
        }
        usage.wall_us =
            u64::try_from(gone.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        if end.is_some() {
            traces.reserved.clear();
            traces.private = None;
        }
        drop(traces);
        Ended {
            exit: exit.or(end.map(|(exit, _)| exit)),
            failed,
            usage,
            violations,
            gone,
            written: self.written.take(),
        }
    }

    /// What went through the doors since it was last asked, if there are any.
    #[must_use]
    pub fn traffic(&self) -> Option<Traffic> {
        self.doors.as_ref().map(Attended::take_traffic)
    }

    /// What Landlock refused to a cell that has ended, as far as that is told within a short time.
    pub async fn denied(&mut self) -> Vec<Violation> {
        self.denials.conclude(&mut self.receipt).await
    }
}
