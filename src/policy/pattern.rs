//! What a role allows or denies: tools, prompts and resources of servers, by name or with `*`.
//!
//! ```text
//! SERVER/NAME            a tool
//! SERVER/prompt:NAME     a prompt
//! SERVER/resource:URI    a resource, or a template as it is written
//! ```
//!
//! Neighbours: `policy::config` reads them, `access` asks them. Never: takes one kind for another: `git/*` is every tool
//! of `git`, and no prompt.

use std::fmt;

/// What can be asked of a server by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `tools/call`
    Tool,
    /// `prompts/get`, and completion of a prompt's arguments.
    Prompt,
    /// `resources/read`, and completion of a template's variables.
    Resource,
}

impl Kind {
    /// The word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
        }
    }

    /// What stands before a name of this kind in a pattern.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Tool => "",
            Self::Prompt => "prompt:",
            Self::Resource => "resource:",
        }
    }
}

/// One thing that is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Of which kind.
    pub kind: Kind,
    /// The tool's or prompt's name, or the resource's URI.
    pub name: String,
}

/// The longest pattern.
const LONGEST: usize = 1024;

/// One entry of `allow` or `deny`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    server: String,
    kind: Kind,
    name: String,
}

impl Pattern {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let wrong = |what: &str| format!("`{text}` {what}");
        let (server, name) = text
            .split_once('/')
            .ok_or((wrong("names no server"), "write `SERVER/TOOL`, for every server `*/TOOL`"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*');
        if server.is_empty() || !server.bytes().all(plain) {
            let hint =
                "servers' names are made of letters, digits, `-`, `_` and `.`; `*` stands for any text";
            return Err((wrong("begins with no server's name"), hint));
        }
        let with = |kind: Kind| name.strip_prefix(kind.prefix()).map(|rest| (kind, rest));
        let (kind, name) = with(Kind::Prompt).or_else(|| with(Kind::Resource)).unwrap_or((Kind::Tool, name));
        if name.is_empty() || text.len() > LONGEST || name.chars().any(char::is_control) {
            return Err((
                wrong("names nothing of the server"),
                "for every tool of a server, write `SERVER/*`",
            ));
        }
        Ok(Self { server: server.to_owned(), kind, name: name.to_owned() })
    }

    /// The entry for one item of a server and no other, if there is one: a name with `*` in it has none.
    #[must_use]
    pub fn exactly(server: &str, item: &Item) -> Option<Self> {
        let text = format!("{server}/{}{}", item.kind.prefix(), item.name);
        Self::parse(&text).ok().filter(|pattern| pattern.kind == item.kind && !item.name.contains('*'))
    }

    /// The server's name, if no `*` is in it.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        Some(self.server.as_str()).filter(|name| !name.contains('*'))
    }

    /// Does the entry speak of this item of this server?
    #[must_use]
    pub fn covers(&self, server: &str, item: &Item) -> bool {
        self.kind == item.kind && matches(&self.server, server) && matches(&self.name, &item.name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.server, self.kind.prefix(), self.name)
    }
}

/// Does the text match, where `*` stands for any text, also none? Linear in the length of the text for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        // The first place is the best one: what follows has the most room behind it.
        match text.split_once(piece) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(pattern: &str, server: &str, kind: Kind, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().covers(server, &Item { kind, name: name.to_owned() })
    }

    #[test]
    fn a_pattern_is_of_one_kind_and_of_the_servers_it_names() {
        for (pattern, server, kind, name, expected) in [
            ("git/git_log", "git", Kind::Tool, "git_log", true),
            ("git/git_log", "git", Kind::Tool, "git_log2", false),
            ("git/git_log", "git", Kind::Tool, "Git_log", false),
            ("git/git_log", "git2", Kind::Tool, "git_log", false),
            ("git/git_log", "git", Kind::Prompt, "git_log", false),
            ("git/*", "git", Kind::Tool, "anything/with/slashes", true),
            ("git/*", "git", Kind::Resource, "file:///a", false),
            ("*/read_*", "files", Kind::Tool, "read_", true),
            ("g*t/a*b*c", "git", Kind::Tool, "axxbxxcbc", true),
            ("g*t/a*b*c", "git", Kind::Tool, "axxcxxb", false),
            ("git/*ab", "git", Kind::Tool, "aab", true),
            ("git/ab*ab", "git", Kind::Tool, "ab", false),
            ("git/prompt:*", "git", Kind::Prompt, "x", true),
            ("git/prompt:*", "git", Kind::Tool, "prompt:x", false),
            ("git/resource:file:///srv/*", "git", Kind::Resource, "file:///srv/a/b", true),
            ("git/resource:file:///srv/*", "git", Kind::Resource, "file:///srvx", false),
        ] {
            assert_eq!(covers(pattern, server, kind, name), expected, "{pattern} {server} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said_to_be_none() {
        for text in ["", "git_log", "/git_log", "git/", "git/prompt:", "g t/x", "git/a\nb"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        let of = |name: &str| Pattern::exactly("git", &Item { kind: Kind::Tool, name: name.to_owned() });
        assert_eq!(of("a").unwrap().to_string(), "git/a");
        // A line for these would allow something else.
        assert!(of("a*").is_none() && of("prompt:a").is_none() && of("").is_none());
    }

    /// What `*` means, by definition.
    fn defined(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|from| defined(rest, &text[from..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(t, after)| t == byte && defined(rest, after))
            }
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            prop_assert_eq!(matches(&pattern, &text), defined(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn the_exact_entry_covers_its_item_alone(name in "[ab*:/]{1,5}|(prompt|resource):a", other in "[ab:/]{1,5}") {
            for kind in [Kind::Tool, Kind::Prompt, Kind::Resource] {
                let item = Item { kind, name: name.clone() };
                if let Some(pattern) = Pattern::exactly("git", &item) {
                    prop_assert!(pattern.covers("git", &item));
                    let other = Item { kind, name: other.clone() };
                    prop_assert_eq!(pattern.covers("git", &other), item == other);
                    prop_assert_eq!(Pattern::parse(&pattern.to_string()).unwrap(), pattern);
                }
            }
        }
    }
}
