//! Tells an alert to a file, the host's log and a program.
//!
//! The program gets the alert on stdin, a short time, and nothing of the session: its output goes nowhere. It runs beside
//! everything else, one at a time; the others are done when [`Hooks::tell`] returns.
//!
//! Neighbours: `guard::process` waits for it. Never: starts a shell; tells that a hook worked which did not.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Instant, SystemTime};

use super::alerts::Pending;
use super::event::micros;
use crate::audit::{Alert, Hook, open_private, rfc3339, to_line};
use crate::policy::config::guard::Alerts;
use crate::policy::units::print_duration;
use crate::sys::{descriptor, process};
use crate::text::escape;

/// Alerts that may wait for the program.
const WAITING: usize = 64;
/// Where the host's log listens.
const LOG_SOCKET: &str = "/dev/log";
/// Facility `authpriv`, severity `warning` (syslog(3)).
const PRIORITY: u8 = 10 << 3 | 4;
/// What the program gets of the environment.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];

/// An alert with what its hooks have come to.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) alert: Alert,
    pub(super) hooks: Vec<Hook>,
    attempted: u64,
}

impl Told {
    fn add(&mut self, hook: &str, done: Result<(), String>) {
        let now = SystemTime::now();
        self.hooks.push(Hook {
            hook: hook.to_owned(),
            finished: rfc3339(now),
            after_us: micros(now).saturating_sub(self.attempted),
            failed: done.err(),
        });
    }
}

#[derive(Debug)]
struct Running {
    told: Told,
    child: Child,
    pidfd: OwnedFd,
    deadline: Instant,
}

/// Who is told.
#[derive(Debug)]
pub(super) struct Hooks {
    alerts: Option<Alerts>,
    owner: u32,
    log_socket: PathBuf,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    waiting: VecDeque<Told>,
    running: Option<Running>,
}

impl Hooks {
    /// `owner` is whose file the one for alerts has to be.
    pub(super) fn new(alerts: Option<Alerts>, owner: u32) -> Self {
        let environment = ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        Self {
            alerts,
            owner,
            log_socket: LOG_SOCKET.into(),
            environment: environment.collect(),
            waiting: VecDeque::new(),
            running: None,
        }
    }

    /// Tells an alert. Gives it back if nothing is left to be done.
    pub(super) fn tell(&mut self, Pending { alert, attempted }: Pending) -> Vec<Told> {
        let mut told = Told { alert, hooks: Vec::new(), attempted };
        let Some(alerts) = &self.alerts else { return vec![told] };
        if let Some(path) = &alerts.file {
            told.add("file", append(path, self.owner, &told.alert));
        }
        if alerts.syslog {
            told.add("syslog", log(&self.log_socket, &told.alert));
        }
        if alerts.command.is_none() {
            return vec![told];
        }
        if self.waiting.len() >= WAITING {
            told.add("command", Err(format!("{WAITING} alerts wait for it already")));
            return vec![told];
        }
        self.waiting.push_back(told);
        self.next()
    }

    /// Starts the program for the next alert, if it is not running. Gives back those for which it could not be started.
    fn next(&mut self) -> Vec<Told> {
        let mut failed = Vec::new();
        let Some(alerts) = &self.alerts else { return failed };
        let Some(command) = &alerts.command else { return failed };
        while self.running.is_none()
            && let Some(mut told) = self.waiting.pop_front()
        {
            match start(command, &self.environment, &told.alert) {
                Ok((child, pidfd)) => {
                    let deadline = Instant::now() + alerts.patience;
                    self.running = Some(Running { told, child, pidfd, deadline });
                }
                Err(error) => {
                    told.add("command", Err(error.to_string()));
                    failed.push(told);
                }
            }
        }
        failed
    }

    /// Readable when the program has ended.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.pidfd.as_fd())
    }

    /// When the program is killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.deadline)
    }

    /// Looks after the program, and starts it for the next alert. Gives back those that are done.
    pub(super) fn look(&mut self, now: Instant) -> Vec<Told> {
        let Some(mut running) = self.running.take() else { return Vec::new() };
        let outcome = match running.child.try_wait() {
            Ok(Some(status)) => of_exit(status),
            Err(error) => Err(error.to_string()),
            Ok(None) if now < running.deadline => {
                self.running = Some(running);
                return Vec::new();
            }
            Ok(None) => {
                end(&mut running.child);
                let patience =
                    self.alerts.as_ref().map_or_else(String::new, |it| print_duration(it.patience));
                Err(format!("it took longer than {patience}, and was killed"))
            }
        };
        running.told.add("command", outcome);
        let mut done = vec![running.told];
        done.extend(self.next());
        done
    }

    /// Gives up what still waits, because there is no time left.
    pub(super) fn give_up(&mut self) -> Vec<Told> {
        let mut done = Vec::new();
        if let Some(mut running) = self.running.take() {
            end(&mut running.child);
            running.told.add("command", Err("the session was over, and it was killed".to_owned()));
            done.push(running.told);
        }
        for mut told in std::mem::take(&mut self.waiting) {
            told.add("command", Err("the session was over before its turn".to_owned()));
            done.push(told);
        }
        done
    }
}

fn append(path: &Path, owner: u32, alert: &Alert) -> Result<(), String> {
    let told = || -> Result<(), Box<dyn std::error::Error>> {
        let line = to_line(alert)?;
        Ok(open_private(path, owner, true)?.write_all(&line)?)
    };
    told().map_err(|error| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

/// One datagram, as syslog(3) sends it; what nobody takes at once is lost, and said to be.
fn log(socket: &Path, alert: &Alert) -> Result<(), String> {
    let Alert { rule, server, tool, what, count, .. } = alert;
    let [server, tool, what] = [server, tool, what].map(|text| escape(text));
    let text = format!(
        "<{PRIORITY}>toolcell[{}]: {} {server}/{tool} x{count}: {what}",
        std::process::id(),
        rule.name()
    );
    let send = || -> io::Result<()> {
        let datagram = UnixDatagram::unbound()?;
        datagram.set_nonblocking(true)?;
        datagram.send_to(text.as_bytes(), socket).map(drop)
    };
    send().map_err(|error| format!("`{}`: {error}", socket.display()))
}

fn start(
    command: &[String],
    environment: &[(&'static str, std::ffi::OsString)],
    alert: &Alert,
) -> io::Result<(Child, OwnedFd)> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    // A file, so that a program that does not read it is not waited for.
    let mut input = File::from(descriptor::anonymous_file().map_err(io::Error::from)?);
    input.write_all(&to_line(alert)?)?;
    input.rewind()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that what it starts is killed with it.
        .process_group(0)
        .spawn()?;
    match process::pidfd_open(child.id().cast_signed()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(errno) => {
            end(&mut child);
            Err(errno.into())
        }
    }
}

/// Kills the program and what it has started, and waits for it.
fn end(child: &mut Child) {
    let _gone = process::kill(-child.id().cast_signed()).is_err();
    let _gone = child.kill().is_err();
    let _reaped = child.wait().is_ok();
}

fn of_exit(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

#[cfg(test)]
mod tests;
