//! How long the process of a call lives: `state` and `idle` of a server, and `state` of a tool.
//!
//! In a session all requests of a client share one cell, so what would hold for one tool alone cannot hold there.
//!
//! Neighbours: `policy::config` reads the rest of the file. Never: lets a tool pass for narrower than the cell that it runs in.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeTable;

use super::super::print;
use super::super::toml_file::{TomlFile, Value};
use super::{DEFAULT_PROFILE, Server};

/// How long the cell of a session waits for the next request where nothing is said.
pub const IDLE: Duration = Duration::from_secs(30 * 60);
const IDLES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

/// How long a process lives, and with it what it keeps in mind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// One call.
    #[default]
    Call,
    /// The session of a client.
    Session,
}

impl State {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Session => "session",
        }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "call" => Ok(Self::Call),
            "session" => Ok(Self::Session),
            other => Err(format!("`{other}` is no value of `state`")),
        }
    }
}

pub(super) fn read(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<State> {
    let read = file.text(value, "`state`")?.parse();
    read.map_err(|wrong: String| {
        file.mistake(&value.span(), &wrong, Some("write \"call\" or \"session\""));
    })
    .ok()
}

pub(super) fn idle(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<Duration> {
    file.duration(value, "`idle`", &IDLES)
}

/// Finds what is said for one tool, or for one call, and cannot hold in a cell that many share.
pub(super) fn check(file: &mut TomlFile<'_>, name: &str, table: &DeTable<'_>, server: &Server) {
    let session = server.state_for(None) == State::Session;
    if let Some((_, value)) = table.get_key_value("idle").filter(|_| !session) {
        let hint = "write `state = \"session\"` as well, or take it out";
        file.mistake(
            &value.span(),
            "`idle` is about the cell of a session, and this server has none",
            Some(hint),
        );
    }
    if let Some((_, value)) = table.get_key_value("client-roots").filter(|_| session && server.heeded.roots) {
        let hint = "take it out, or write `state = \"call\"`";
        file.mistake(
            &value.span(),
            "the client's roots cannot narrow a cell that is there before they are known",
            Some(hint),
        );
    }
    let Some(tools) = table.get("tools").and_then(|value| value.get_ref().as_table()) else { return };
    for (key, value) in tools {
        let tool: &str = key.get_ref();
        let Some((known, table)) = server.tools.get(tool).zip(value.get_ref().as_table()) else { continue };
        if known.state == Some(State::Session) && !session {
            let hint = format!("write `state = \"session\"` in `[servers.{}]`", print::key(name));
            let message = format!("tool `{tool}` cannot share the cell of a session that its server has not");
            file.mistake(
                &table.get_key_value("state").map_or(key.span(), |(_, v)| v.span()),
                &message,
                Some(&hint),
            );
        }
        if server.state_for(Some(tool)) != State::Session {
            continue;
        }
        let own = known.profile.as_deref();
        let profile = server.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        let wrong =
            [("profile", own.is_some_and(|own| own != profile)), ("grants", !known.grants.is_empty())];
        for (what, _) in wrong.into_iter().filter(|(_, wrong)| *wrong) {
            let hint = format!(
                "write `state = \"call\"` in `[servers.{}.tools.{}]`, which gives its calls cells of their own",
                print::key(name),
                print::key(tool)
            );
            let message =
                format!("`{what}` cannot hold for tool `{tool}` alone: it runs in the cell of its session");
            file.mistake(
                &table.get_key_value(what).map_or(key.span(), |(_, v)| v.span()),
                &message,
                Some(&hint),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Config, parse};
    use super::*;
    use crate::policy::Source;

    fn read_config(text: &str) -> Result<Config, String> {
        let source = Source { name: "config".to_owned(), path: None, text: text.to_owned() };
        let profiles = ["default", "offline"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
        parse(&source, &profiles).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_tool_has_the_state_of_its_server_or_its_own() {
        let config = read_config(
            "[servers.a]\ncommand = [\"x\"]\nstate = \"session\"\nidle = \"5m\"\n\
             [servers.a.tools.one]\nstate = \"call\"\nprofile = \"offline\"\n\
             [servers.a.tools.two]\nprofile = \"default\"\n[servers.b]\ncommand = [\"x\"]\n",
        )
        .unwrap();
        let a = &config.servers["a"];
        assert_eq!((a.state_for(None), a.idle), (State::Session, Some(Duration::from_secs(300))));
        assert_eq!(a.state_for(Some("one")), State::Call);
        assert_eq!(a.state_for(Some("two")), State::Session);
        assert_eq!(config.servers["b"].state_for(Some("one")), State::Call);
    }

    #[test]
    fn what_holds_for_one_tool_or_call_cannot_hold_in_a_session() {
        let session = "[servers.a]\ncommand = [\"x\"]\nstate = \"session\"\n";
        for (text, told) in [
            ("state = \"always\"", "`always` is no value of `state`"),
            ("idle = \"5m\"", "this server has none"),
            ("[servers.a.tools.t]\nstate = \"session\"", "a session that its server has not"),
        ] {
            let text = format!("[servers.a]\ncommand = [\"x\"]\n{text}\n");
            assert!(read_config(&text).unwrap_err().contains(told), "{text}");
        }
        for (text, told) in [
            ("idle = \"1ms\"", "is out of range"),
            ("client-roots = \"narrow\"", "before they are known"),
            ("[servers.a.tools.t]\nprofile = \"offline\"", "`profile` cannot hold for tool `t` alone"),
            (
                "[servers.a.tools.t]\ngrants = [{ argument = \"/p\", access = \"read\", within = [\"/d\"] }]",
                "`grants` cannot hold",
            ),
            (
                "[secrets.s]\nfrom = { env = \"S\" }\nto = [\"a/t\"]\ninto = { env = \"S\" }",
                "is that of all tools of its server",
            ),
        ] {
            let text = format!("{session}{text}\n");
            let found = read_config(&text).unwrap_err();
            assert!(found.contains(told), "{text}: {found}");
        }
    }
}
