//! What a command changed in directories whose writes are reviewed: shown as a diff, and done to the host if it may be.
//!
//! Neighbours: `exec` calls it after success; `launch::changes` looks and does. Never: judges a change.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use super::yes;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::launch::changes::{Contents, Review};
use crate::launch::{Kept, LaunchError};
use crate::outcome::{Change, Changes, Verdict, Violation};
use crate::plan::Plan;
use crate::sys::Errno;
use crate::text::diff;

/// Files up to this size are shown line by line.
const SHOWN_MOST: u64 = 256 * 1024;

/// What came of it.
pub(super) struct Reviewed {
    pub(super) changes: Option<Changes>,
    pub(super) violations: Vec<Violation>,
    /// Not all of it was done.
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, thiserror::Error)]
#[error("the command succeeded, and {} to the host", match verdict {
    Verdict::Partly => "only a part of what it changed was done",
    Verdict::Applied | Verdict::Refused => "nothing of what it changed was done",
})]
struct NotDone {
    verdict: Verdict,
    #[source]
    source: Option<LaunchError>,
}

fn not_done(verdict: Verdict, source: Option<LaunchError>) -> Failure {
    let hint = source.as_ref().and_then(LaunchError::hint);
    Failure::new(Ending::NotApplied, NotDone { verdict, source }).hint(hint)
}

/// Reviews what a command that has succeeded left in the memory of its cell. `asks`: a person has to agree.
pub(super) fn review(plan: &Plan, left: Option<(OwnedFd, Kept)>, asks: bool) -> Reviewed {
    let nothing = |error| Reviewed {
        changes: None,
        violations: vec![],
        failure: Some(not_done(Verdict::Refused, Some(error))),
    };
    let Some((memory, kept)) = left else {
        return nothing(LaunchError::new("review", "what the cell wrote", Errno(libc::EMFILE)));
    };
    let review = match Review::of(plan, memory.as_fd(), &kept) {
        Ok(review) => review,
        Err(error) => return nothing(error),
    };
    // Who does not read it does without.
    let _closed = io::stderr().write_all(shown(&review).as_bytes()).is_err();
    let told = review.told(Verdict::Refused);
    if asks
        && review.is_allowed()
        && !told.files.is_empty()
        && let Err(failure) = agreed()
    {
        return Reviewed { changes: Some(told), violations: vec![], failure: Some(failure) };
    }
    let (changes, failure) = match review.apply() {
        Ok(changes) if changes.verdict == Verdict::Applied => (changes, None),
        Ok(changes) => (changes, Some(not_done(Verdict::Refused, None))),
        Err((changes, error)) => {
            let failure = not_done(changes.verdict, Some(error));
            (changes, Some(failure))
        }
    };
    Reviewed { changes: Some(changes), violations: review.violations(), failure }
}

/// Asks the person at the terminal.
fn agreed() -> Result<(), Failure> {
    let no = |why: &str, hint: &str| {
        let told =
            format!("the command succeeded, and nothing of what it changed was done to the host: {why}");
        Failure::new(Ending::NotApplied, told).hint(Some(hint.to_owned()))
    };
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(no("nobody can be asked, as stdin is no terminal", "`--writes review` asks nobody"));
    }
    // It has been read from without waiting.
    let waits = crate::sys::descriptor::set_nonblocking(stdin.as_fd(), false);
    let answer = waits
        .map_err(|errno| io::Error::from_raw_os_error(errno.0))
        .and_then(|()| yes("do this to the host?"));
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(no("a person has not agreed", "run it again to be asked again")),
        Err(error) => Err(no(&error.to_string(), "`--writes review` asks nobody")),
    }
}

/// Each file with its lines, or with its size where it is no text.
fn shown(review: &Review<'_>) -> String {
    let mut text = String::new();
    for (change, contents) in review.contents(SHOWN_MOST) {
        let Change { kind, path, size } = change;
        let _infallible = writeln!(text, "{} {path} ({size} bytes)", kind.name());
        let Contents { before, after } = contents;
        let lines = |side: &Option<Vec<u8>>| {
            let side = side.as_deref().unwrap_or_default();
            std::str::from_utf8(side).ok().filter(|text| !text.contains('\0')).map(str::to_owned)
        };
        if before.is_none() && after.is_none() {
            continue;
        }
        if let (Some(old), Some(new)) = (lines(&before), lines(&after)) {
            let name = |side: &Option<Vec<u8>>| if side.is_some() { path.as_str() } else { "/dev/null" };
            let lines = diff::unified(&old, &new);
            if !lines.is_empty() {
                let _infallible = write!(text, "--- {}\n+++ {}\n{lines}", name(&before), name(&after));
            }
        }
    }
    text
}
