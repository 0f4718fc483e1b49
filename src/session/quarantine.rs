//! What a client and the record are told of a call whose tool is kept out.
//!
//! Neighbours: [`super::call`] asks the guard before each call of a tool. Never: lets a call run.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::audit::rfc3339;
use crate::call::Call;
use crate::guard::Verdict;
use crate::outcome::{Layer, Violation};
use crate::text::quoted;

/// What a person types to let a tool run; `log` is where the log is, if not at its usual place.
fn release(server: &str, tool: &str, log: Option<&Path>) -> String {
    let audit = log.map(|log| format!(" --audit {}", quoted(&log.to_string_lossy()))).unwrap_or_default();
    // A name is no option.
    let names = if server.starts_with('-') || tool.starts_with('-') { "-- " } else { "" };
    format!("toolcell quarantine release{audit} {names}{} {}", quoted(server), quoted(tool))
}

/// Why a call is not run, in lines, and its violation. `None`: it may run.
pub(super) fn refusal(call: &Call, log: Option<&Path>, verdict: Verdict) -> Option<(String, Violation)> {
    let (server, tool) = (call.server.as_str(), call.target.as_deref().unwrap_or_default());
    let release = release(server, tool, log);
    let (kept, why, hint) = match verdict {
        Verdict::Free | Verdict::Trial => return None,
        Verdict::Refused { why, until: Some(until) } => {
            let until = rfc3339(UNIX_EPOCH + Duration::from_micros(until));
            let hint = format!("call it after that, or do without it; a person can let it run: {release}");
            (format!("kept out until {until}"), why, hint)
        }
        Verdict::Refused { why, until: None } => {
            let hint = format!("do without it; a person can let it run: {release}");
            ("kept out until it is released".to_owned(), why, hint)
        }
        Verdict::Unknown(why) => {
            let hint = "a person has to look at this first: toolcell quarantine list".to_owned();
            ("not run, because it is not known whether it is kept out".to_owned(), why, hint)
        }
    };
    let detail = format!("the tool `{tool}` of server `{server}` is {kept}\ncaused by: {why}\nhint: {hint}");
    let violation = Violation::of_toolcell(
        Layer::Quarantine,
        "call a tool that is kept out",
        format!("`[quarantine]`: {why}"),
    );
    Some((detail, violation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_learns_until_when_and_a_person_what_to_type() {
        let call = Call { server: "git".to_owned(), ..Call::example("push") };
        let told = |verdict| refusal(&call, None, verdict).map(|(told, _)| told);
        assert_eq!((told(Verdict::Free), told(Verdict::Trial)), (None, None));
        let refused = Verdict::Refused { why: "W".to_owned(), until: Some(1_000_000) };
        assert_eq!(
            told(refused).unwrap(),
            "the tool `push` of server `git` is kept out until 1970-01-01T00:00:01.000000Z\ncaused by: W\n\
             hint: call it after that, or do without it; a person can let it run: toolcell quarantine release git push"
        );
        let unknown = told(Verdict::Unknown("damaged".to_owned())).unwrap();
        assert!(unknown.contains("not known whether it is kept out\ncaused by: damaged\nhint: "));
        assert!(unknown.ends_with(": toolcell quarantine list"), "{unknown}");
    }

    #[test]
    fn a_shell_takes_what_a_person_is_to_type_whatever_the_names_are() {
        let log = Path::new("/v/my log");
        let typed = release("it's", "a; b", Some(log));
        assert_eq!(typed, r"toolcell quarantine release --audit '/v/my log' 'it'\''s' 'a; b'");
        assert_eq!(release("git", "-x", None), "toolcell quarantine release -- git -x");
        assert_eq!(release("git", "", None), "toolcell quarantine release git ''");
    }
}
