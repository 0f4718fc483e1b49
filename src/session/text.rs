//! What a client and the model read when a call was stopped or its server failed.
//!
//! Neighbours: [`super::call`] and [`super::catalogue`] send these texts. Never: does I/O, or lets through a character
//! of a server's that a terminal would act on.

use super::process::Remains;
use super::tally::{Misdeed, Tally};
use crate::arguments::Fault;
use crate::host::probe;
use crate::launch::changes::Reviewed;
use crate::outcome::{Limit, Verdict, Violation};
use crate::policy::Policy;
use crate::policy::limits::{print, toml_line_that_raises};
use crate::sys::process::Exit;
use crate::text::chain;

/// Refusals that a text has room for.
const MOST_TOLD: usize = 8;

fn rule(limit: Limit, policy: &Policy) -> String {
    format!("`{}.{}` of profile `{}`", limit.section(), limit.name(), policy.name)
}

/// A call that a limit has stopped.
pub(super) fn stopped(
    limit: Limit,
    found: &[Violation],
    policy: &Policy,
    tally: &Tally,
    stderr: &[String],
) -> String {
    let violation = found.iter().find(|violation| violation.limit == Some(limit));
    let limited_to = violation.and_then(|violation| violation.value).unwrap_or_else(|| policy.limit(limit));
    let mut text = format!(
        "toolcell stopped this call: it reached the {} limit of {}",
        limit.name(),
        print(limit, limited_to)
    );
    let peak = violation.and_then(|violation| violation.peak);
    if let Some(peak) = peak.filter(|_| limit != Limit::Time) {
        write_to(&mut text, format_args!(" (peak {})", print(limit, peak)));
    }
    let rule = violation.map_or_else(|| rule(limit, policy), |violation| violation.rule.clone());
    write_to(&mut text, format_args!(", set by {rule}"));
    misdeeds(&mut text, tally);
    let allow = violation.and_then(|violation| violation.allow.clone());
    let allow = allow.unwrap_or_else(|| toml_line_that_raises(limit, policy, peak));
    write_to(&mut text, format_args!("\nTo raise it:\n{allow}"));
    refusals(&mut text, found);
    last_lines(&mut text, stderr);
    clean(&text)
}

/// A server that ended, or closed its output, without an answer.
pub(super) fn died(remains: &Remains, tally: &Tally) -> String {
    let mut text = match (remains.by_itself, remains.ended.exit) {
        (_, None) => "the process that starts cells is gone".to_owned(),
        (true, Some(Exit::Code(code))) => format!("the server exited with status {code} without an answer"),
        (true, Some(Exit::Signal(signal))) => {
            format!("the server was ended by signal {signal} without an answer")
        }
        (false, _) => "the server closed its output without an answer, and was stopped".to_owned(),
    };
    if let Some(error) = &remains.ended.failed {
        text = format!("the server could not be run: {}", chain(error));
        if let Some(hint) = probe::hint(error) {
            write_to(&mut text, format_args!("\nhint: {hint}"));
        }
    }
    misdeeds(&mut text, tally);
    for violation in remains.ended.violations.iter().filter(|violation| violation.limit.is_some()) {
        write_to(&mut text, format_args!("\nIt ran into {}", violation.rule));
        if let Some(allow) = &violation.allow {
            write_to(&mut text, format_args!("; to change that:\n{allow}"));
        }
    }
    refusals(&mut text, &remains.ended.violations);
    last_lines(&mut text, &remains.stderr);
    clean(&text)
}

/// A server that broke the protocol in a way that ended the call.
pub(super) fn broken(detail: &str, tally: &Tally, stderr: &[String]) -> String {
    let mut text = format!("the server broke the protocol: {detail}");
    misdeeds(&mut text, tally);
    last_lines(&mut text, stderr);
    clean(&text)
}

/// What a tool that failed was refused.
pub(super) fn refused(found: &[Violation]) -> String {
    let mut text = "toolcell refused some of what this tool tried:".to_owned();
    refusals(&mut text, found);
    clean(&text)
}

/// A call whose arguments are not what they must be, and so was not run.
pub(super) fn unfit(faults: &[Fault]) -> String {
    let mut text = "toolcell did not run this call, because of its arguments:".to_owned();
    for fault in faults {
        write_to(&mut text, format_args!("\n{fault}"));
        if let Some(allow) = &fault.allow {
            write_to(&mut text, format_args!("\nto allow it:\n{allow}"));
        }
    }
    clean(&text)
}

/// A result that is not what it must be, and so was not passed on.
pub(super) fn unfit_result(faults: &[Fault]) -> String {
    let mut text =
        "toolcell did not pass on what this tool answered; the tool may have done its work:".to_owned();
    for fault in faults {
        match fault.at.as_str() {
            "" => write_to(&mut text, format_args!("\nthe result {} ({})", fault.told, fault.rule)),
            _ => write_to(&mut text, format_args!("\n{fault}")),
        }
    }
    if let Some(allow) = faults.iter().find_map(|fault| fault.allow.as_ref()) {
        write_to(&mut text, format_args!("\nto let it through:\n{allow}"));
    }
    clean(&text)
}

/// A call whose tool succeeded, and whose changes were not done to the host.
pub(super) fn not_done(reviewed: &Reviewed) -> String {
    let partly = reviewed.changes.as_ref().is_some_and(|changes| changes.verdict == Verdict::Partly);
    let what = if partly { "only a part" } else { "nothing" };
    let mut text = format!("this tool succeeded, but {what} of what it changed was done to the host:");
    if let Some(error) = &reviewed.error {
        write_to(&mut text, format_args!("\n{}", chain(error)));
        if let Some(hint) = probe::hint(error) {
            write_to(&mut text, format_args!("\nhint: {hint}"));
        }
    }
    refusals(&mut text, &reviewed.violations);
    clean(&text)
}

/// One line each, and the TOML that would allow it.
fn refusals(text: &mut String, found: &[Violation]) {
    let refused = || found.iter().filter(|violation| violation.limit.is_none());
    for violation in refused().take(MOST_TOLD) {
        write_to(text, format_args!("\n{}; ", violation.sentence()));
        match &violation.allow {
            Some(allow) => write_to(text, format_args!("to allow it:\n{allow}")),
            None => text.push_str("nothing should allow it"),
        }
    }
    let more = refused().count().saturating_sub(MOST_TOLD);
    if more > 0 {
        write_to(text, format_args!("\n{more} more are in the record"));
    }
}

fn misdeeds(text: &mut String, tally: &Tally) {
    for (misdeed, violation) in tally.misdeeds() {
        write_to(text, format_args!("\nThe server {} ({} times)", misdeed.told(), violation.count));
        // What a server said in somebody else's name is for the record, not for the model.
        let own_words = matches!(misdeed, Misdeed::NotAMessage | Misdeed::HalfLine | Misdeed::LongLine);
        if own_words && !violation.object.is_empty() {
            write_to(text, format_args!(", first: `{}`", violation.object));
        }
    }
}

fn last_lines(text: &mut String, stderr: &[String]) {
    if !stderr.is_empty() {
        text.push_str("\nThe last lines of its stderr:");
        for line in stderr {
            write_to(text, format_args!("\n  {line}"));
        }
    }
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A string takes all that is written to it.
    text.push_str(&arguments.to_string());
}

/// Escapes what a terminal, or a reader from right to left, would act on.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let hidden = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if (character.is_control() && character != '\n' && character != '\t') || hidden {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::tally::Misdeed;
    use crate::session::tests::policy;

    #[test]
    fn a_limit_is_named_with_its_value_its_peak_and_the_line_that_raises_it() {
        let policy = policy(Duration::from_secs(30), 1 << 20);
        let found = [crate::watch::usage::stopped(&policy, Limit::Output, (1 << 20) + 77)];
        let text = stopped(Limit::Output, &found, &policy, &Tally::default(), &["oh\u{1b}[31m".to_owned()]);
        assert_eq!(
            text,
            "toolcell stopped this call: it reached the output limit of 1MiB (peak 1048653B), set by `limits.output` \
             of profile `test`\nTo raise it:\n[limits]\noutput = \"2MiB\"\nThe last lines of its stderr:\n  oh\\u{1b}[31m"
        );
        let mut tally = Tally::default();
        tally.add(Misdeed::WrongId, b"{\"id\":9}");
        tally.add(Misdeed::WrongId, b"{\"id\":8}");
        let text = stopped(Limit::Time, &[], &policy, &tally, &[]);
        assert_eq!(
            text,
            "toolcell stopped this call: it reached the time limit of 30s, set by `limits.time` of profile `test`\n\
             The server answered requests that were not made (2 times)\n\
             To raise it:\n[limits]\ntime = \"1m\""
        );
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_passes() {
        assert_eq!(clean("a\u{202e}b\u{7}\n\u{2028}é"), "a\\u{202e}b\\u{7}\n\\u{2028}é");
    }
}
