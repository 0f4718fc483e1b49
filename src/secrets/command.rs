//! Runs a program that prints a secret: fixed arguments, no input, a deadline, bounded output.
//!
//! Neighbours: [`super::source`] asks. Never: uses a shell, shows what the program printed.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::redact::Forms;
use super::units::is_base64;
use super::{LONGEST, Trouble};
use crate::sys::descriptor::{self, Interest};
use crate::sys::process;
use crate::sys::wiped::Wiped;
use crate::text::escape;

/// Of stderr, so many bytes and lines stand in an error.
const TAIL_BYTES: usize = 2048;
const TAIL_LINES: usize = 3;

/// What the program printed.
///
/// # Errors
/// It did not start, failed, took too long or printed too much; or nobody waits any more.
pub(super) fn run(
    argv: &[String],
    timeout: Duration,
    gone: Option<BorrowedFd<'_>>,
) -> Result<Wiped, Trouble> {
    let (program, arguments) = argv.split_first().ok_or_else(|| Trouble::new("no program is named"))?;
    let failed = |error: &io::Error| {
        let trouble = Trouble::new(format!("cannot run `{program}`")).because(error.to_string());
        match error.kind() {
            io::ErrorKind::NotFound => trouble.hint(format!("install `{program}`, or name it by its path")),
            io::ErrorKind::PermissionDenied => trouble.hint(format!(
                "install `{program}`, or name it by its path: it may not be started, or a directory of `PATH` not be searched"
            )),
            _ => trouble,
        }
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that all of it can be ended.
    let child = command.process_group(0).spawn().map_err(|error| failed(&error))?;
    let mut running = Running(child);
    let (mut printed, mut said) = (Wiped::default(), Said::default());
    let ended = running.drive(timeout, gone, &mut printed, &mut said).map_err(|error| failed(&error))?;
    let told = |trouble: Trouble| match last_lines(&said, &printed) {
        lines if lines.is_empty() => trouble,
        lines => trouble.because(format!("it said: {lines}")),
    };
    match ended {
        End::Exited(true) => Ok(printed),
        End::Exited(false) => {
            let status = running.0.wait().map_err(|error| failed(&error))?;
            Err(told(Trouble::new(format!("`{program}` failed: {status}"))))
        }
        End::Late => {
            let limit = crate::policy::units::print_duration(timeout);
            let trouble = Trouble::new(format!("`{program}` took longer than {limit}"));
            Err(told(trouble).hint(
                "`timeout` in `from` says how long it may take; nobody is there to answer a question of it",
            ))
        }
        End::Long => Err(Trouble::new(format!("`{program}` printed more than {LONGEST} bytes"))
            .hint("let it print the secret alone, and nothing around it")),
        End::Gone => Err(Trouble::new("nobody waits for it any more")),
    }
}

enum End {
    Exited(bool),
    Late,
    Long,
    Gone,
}

/// The end of what it wrote to stderr.
#[derive(Default)]
struct Said {
    bytes: Wiped,
    /// There was more before.
    cut: bool,
}

impl Said {
    fn shorten(&mut self) {
        let more = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.cut |= more > 0;
        self.bytes.drop_first(more);
    }

    /// Without what the cut may have left of a secret, which is not known for one any more: the rest of a line, and lines
    /// that can be the rest of base64.
    fn whole_lines(&self) -> &[u8] {
        let after =
            |text: &[u8]| text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        let mut text = &*self.bytes;
        let mut cut = self.cut;
        while cut {
            text = text.get(after(text)..).unwrap_or_default();
            let line = text.get(..after(text)).unwrap_or_default().trim_ascii();
            cut = !text.is_empty() && line.iter().all(|byte| is_base64(*byte) || *byte == b'=');
        }
        text
    }
}

/// Dropping it ends the program and what it has started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.0.id()) {
            // Fails when all of the group are gone.
            let _gone = process::kill(-pid).is_err();
        }
        let _reaped = self.0.wait().is_ok();
    }
}

impl Running {
    fn drive(
        &mut self,
        timeout: Duration,
        gone: Option<BorrowedFd<'_>>,
        printed: &mut Wiped,
        said: &mut Said,
    ) -> io::Result<End> {
        let deadline = Instant::now() + timeout;
        let pidfd = libc::pid_t::try_from(self.0.id()).map_err(io::Error::other)?;
        let pidfd = process::pidfd_open(pidfd).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        let (mut stdout, mut stderr) = (self.0.stdout.take(), self.0.stderr.take());
        for end in [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten()
        {
            descriptor::set_nonblocking(end, true).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Late);
            }
            let interest = |fd, events| Interest { fd, events, ready: 0 };
            let mut interests = [
                interest(stdout.as_ref().map(AsFd::as_fd), libc::POLLIN),
                interest(stderr.as_ref().map(AsFd::as_fd), libc::POLLIN),
                interest(Some(pidfd.as_fd()), libc::POLLIN),
                // An error is told without being asked for.
                interest(gone, 0),
            ];
            descriptor::poll(&mut interests, Some(left))
                .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
            let [out, err, exited, left] = interests.map(|interest| interest.ready != 0);
            if left {
                return Ok(End::Gone);
            }
            if out || exited {
                drain(&mut stdout, printed, LONGEST)?;
            }
            if err || exited {
                drain(&mut stderr, &mut said.bytes, usize::MAX)?;
                said.shorten();
            }
            if printed.len() > LONGEST + 2 {
                return Ok(End::Long);
            }
            if exited {
                // All that it wrote was in the pipes by then; what it has started may hold them open for ever.
                return self.0.wait().map(|status| End::Exited(status.success()));
            }
        }
    }
}

/// Takes what is there; at the end the pipe is closed.
fn drain(pipe: &mut Option<impl Read>, into: &mut Wiped, most: usize) -> io::Result<()> {
    let Some(from) = pipe else { return Ok(()) };
    let most = most.saturating_add(2).min(into.len().saturating_add(64 * 1024));
    match into.fill(from, most) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // Else it has stopped because that was enough for once.
            if into.len() <= most {
                *pipe = None;
            }
            Ok(())
        }
    }
}

/// The last lines of stderr, without what stood on stdout.
fn last_lines(said: &Said, printed: &[u8]) -> String {
    let said = said.whole_lines();
    let printed = printed.trim_ascii();
    let masked = match printed.len() {
        0..super::SHORTEST => said.to_vec(),
        _ => Forms::new([("secret", printed)]).once(said).unwrap_or_else(|| said.to_vec()),
    };
    let text = String::from_utf8_lossy(&masked);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    last.iter().map(|line| escape(line.trim())).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a program that prints a secret and fails, after it wrote this to stderr.
    fn told(stderr: &str) -> String {
        let script = format!("printf '%s\\n' 's3cr3t-Value-42!'; {stderr}; exit 1");
        let argv = ["sh".to_owned(), "-c".to_owned(), script];
        run(&argv, Duration::from_secs(20), None).unwrap_err().sentence()
    }

    #[test]
    fn a_secret_across_the_cut_leaves_nothing() {
        // So many bytes of the first line are kept.
        let behind = |kept: usize| TAIL_BYTES - "the end\n".len() - kept;
        let line = |fill: usize| format!("s3cr3t-Value-42!%0{fill}d\\nthe end\\n");
        for kept in [1, 4, 8, 12, 15] {
            let told = told(&format!("printf '{}' 0 >&2", line(behind(kept) - 1)));
            assert_eq!(told, "`sh` failed: exit status: 1: it said: the end", "{kept}");
        }
        assert_eq!(
            told(&format!("printf 's3cr3t-Value-42!%0{}d' 0 >&2", TAIL_BYTES - 8)),
            "`sh` failed: exit status: 1"
        );
        // The same in base64, and the end of it in a line of its own.
        let wrapped =
            format!("printf 'czNjcjN0LVZhbHVl%0{}d\\nLTQyIQ==\\nbecause of this\\n' 0 >&2", behind(0) - 19);
        assert_eq!(told(&wrapped), "`sh` failed: exit status: 1: it said: because of this");
        // What is not cut is told from its beginning.
        assert_eq!(
            told("echo s3cr3t-Value-42! >&2"),
            "`sh` failed: exit status: 1: it said: [redacted:secret]"
        );
    }
}
