//! Whose tool, prompt or resource it is: the names that several servers have when they are offered as one.
//!
//! A tool or prompt `NAME` of server `SERVER` is called `SERVER__NAME`. A URI is what it is: the server that lists it has it, or the one whose template
//! begins like it.
//!
//! Neighbours: [`super`] sends requests where these say. Never: guesses between two servers.

use std::collections::HashMap;

/// Between a server's name and its tool's.
pub(super) const SEPARATOR: &str = "__";

/// The name under which a server's tool or prompt is offered.
pub(super) fn prefixed(server: &str, name: &str) -> String {
    format!("{server}{SEPARATOR}{name}")
}

/// Whose tool or prompt is offered under a name, and what its server calls it.
pub(super) fn split<'n>(servers: &[String], name: &'n str) -> Option<(usize, &'n str)> {
    servers.iter().enumerate().find_map(|(at, server)| {
        let own = name.strip_prefix(server.as_str())?.strip_prefix(SEPARATOR)?;
        (!own.is_empty()).then_some((at, own))
    })
}

/// Two servers one of whose tools could have the name of one of the other's.
#[must_use]
pub fn clash(servers: &[String]) -> Option<(&str, &str)> {
    let begins =
        |one: &str, other: &str| format!("{other}{SEPARATOR}").starts_with(&format!("{one}{SEPARATOR}"));
    servers.iter().enumerate().find_map(|(at, one)| {
        let others = servers.iter().enumerate().filter(|(other, _)| *other != at);
        let clashing = others.map(|(_, other)| other).find(|other| begins(one, other));
        clashing.map(|other| (one.as_str(), other.as_str()))
    })
}

/// Who has which resources, as far as the servers have listed them.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// `None`: more than one server lists it.
    uris: HashMap<String, Option<usize>>,
    /// What a template's URIs begin with.
    templates: Vec<(String, usize)>,
    pub(super) known: bool,
}

/// Whose a resource is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    One(usize),
    Several,
    Nobody,
}

impl Owners {
    pub(super) fn list(&mut self, uri: &str, server: usize) {
        let owner = self.uris.entry(uri.to_owned()).or_insert(Some(server));
        *owner = owner.filter(|known| *known == server);
    }

    pub(super) fn template(&mut self, template: &str, server: usize) {
        let literal = template.split('{').next().unwrap_or_default();
        if !self.templates.iter().any(|(known, owner)| (known.as_str(), *owner) == (literal, server)) {
            self.templates.push((literal.to_owned(), server));
        }
    }

    /// Does more than one server list it?
    pub(super) fn clashes(&self, uri: &str) -> bool {
        self.uris.get(uri) == Some(&None)
    }

    pub(super) fn of(&self, uri: &str) -> Owner {
        match self.uris.get(uri) {
            Some(Some(server)) => return Owner::One(*server),
            Some(None) => return Owner::Several,
            None => {}
        }
        let fitting = || self.templates.iter().filter(|(literal, _)| uri.starts_with(literal.as_str()));
        let Some(longest) = fitting().map(|(literal, _)| literal.len()).max() else { return Owner::Nobody };
        let mut best = fitting().filter(|(literal, _)| literal.len() == longest).map(|(_, server)| *server);
        match (best.next(), best.next()) {
            (Some(server), None) => Owner::One(server),
            _ => Owner::Several,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn servers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_belongs_to_one_server_or_to_none() {
        let servers = servers(&["git", "files"]);
        assert_eq!(split(&servers, "git__log"), Some((0, "log")));
        assert_eq!(split(&servers, "files__a__b"), Some((1, "a__b")));
        for name in ["log", "git_log", "git__", "gitt__log", "__log", ""] {
            assert_eq!(split(&servers, name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn servers_that_do_not_clash_share_no_name(
            names in prop::collection::vec("[a_]{1,4}", 1..4),
            tool in "[a_]{1,4}",
        ) {
            let mut servers = names;
            servers.sort();
            servers.dedup();
            if clash(&servers).is_none() {
                for (at, server) in servers.iter().enumerate() {
                    let name = prefixed(server, &tool);
                    prop_assert_eq!(split(&servers, &name), Some((at, tool.as_str())));
                }
            }
        }
    }

    #[test]
    fn a_uri_belongs_to_who_lists_it_or_to_the_closest_template() {
        let mut owners = Owners::default();
        owners.list("x:/a", 0);
        owners.list("x:/a", 0);
        owners.list("x:/b", 0);
        owners.list("x:/b", 1);
        owners.template("x:/{path}", 0);
        owners.template("x:/deep/{path}", 1);
        owners.template("y:/{path}", 0);
        owners.template("y:/{other}", 1);
        for (uri, owner) in [
            ("x:/a", Owner::One(0)),
            ("x:/b", Owner::Several),
            ("x:/c", Owner::One(0)),
            ("x:/deep/c", Owner::One(1)),
            ("y:/c", Owner::Several),
            ("z:/c", Owner::Nobody),
        ] {
            assert_eq!(owners.of(uri), owner, "{uri}");
        }
        assert!(owners.clashes("x:/b") && !owners.clashes("x:/a"));
    }
}
