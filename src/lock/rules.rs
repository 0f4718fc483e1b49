//! What is suspicious in what a server says of itself and its tools: characters that nobody sees, and orders to a model.
//!
//! Each rule is deterministic and linear in the text; docs/lock.md lists them. That nothing is flagged proves nothing.
//!
//! Neighbours: `commands::lock` shows the flags and keeps those that were accepted. Never: decides that a call is refused.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::definition::{Definition, Kind};
use super::words::{Hidden, hidden, visible, without_hidden};

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// By what it is accepted.
    pub id: &'static str,
    /// What it finds, in the words of docs/lock.md.
    pub finds: &'static str,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Hidden(Hidden),
    Escape,
    /// In the name of something.
    Name,
    /// In lower case, blanks made one.
    Words(&'static str),
    /// Made by who knows all servers.
    Outside,
}

/// The rule for a tool that another server of the same file has as well.
pub(super) const SHADOWED: &str = "shadowed";

/// All rules, in the order in which they are told.
pub const RULES: &[Rule] = &[
    Rule {
        id: "control",
        finds: "control characters (C0 but for tab and newline, DEL, C1)",
        test: Test::Hidden(Hidden::Control),
    },
    Rule { id: "escape", finds: "escape sequences of a terminal (ESC, CSI, OSC, DCS)", test: Test::Escape },
    Rule {
        id: "bidirectional",
        finds: "characters that turn the direction of text",
        test: Test::Hidden(Hidden::Bidirectional),
    },
    Rule {
        id: "zero-width",
        finds: "characters without width, fillers, invisible separators; not the joiners inside of an emoji or of an Arabic or Indic word",
        test: Test::Hidden(Hidden::ZeroWidth),
    },
    Rule {
        id: "tag",
        finds: "Unicode's invisible copy of ASCII, U+E0000 to U+E007F; not the flag of a region",
        test: Test::Hidden(Hidden::Tag),
    },
    Rule {
        id: "variation",
        finds: "variation selectors behind what has no variation",
        test: Test::Hidden(Hidden::Variation),
    },
    Rule { id: "private-use", finds: "characters for private use", test: Test::Hidden(Hidden::Private) },
    Rule {
        id: "name",
        finds: "a name of a tool or prompt with other characters than letters, digits and `_-./` of ASCII",
        test: Test::Name,
    },
    Rule {
        id: SHADOWED,
        finds: "a tool that another server of the file has under the same name",
        test: Test::Outside,
    },
    Rule {
        id: "tagged",
        finds: "markup that sets orders apart: `<IMPORTANT>`, `<system>`, `[INST]`, `<|im_start|>`",
        test: Test::Words(
            r"<\s*/?\s*(important|critical|urgent|system|systems?[-_ ]prompt|instructions?|secret|hidden|admin|assistant|developer)\s*/?>|\[/?inst\]|<</?sys>>|<\|[a-z_]{2,24}\|>|\[(system|important|hidden|instructions?)\]",
        ),
    },
    Rule {
        id: "override",
        finds: "an order to forget or ignore other instructions",
        test: Test::Words(
            r"\b(ignor|disregard|forget|overrid|bypass|supersed)(e|es|ing|ting|s)?\s+(\w+\s+){0,5}?(instruction|prompt|rule|direction|guideline|message|context|polic|restriction|safety)",
        ),
    },
    Rule {
        id: "secrecy",
        finds: "an order to keep something from the user",
        test: Test::Words(
            r"\b(do not|don'?t|never|must not|mustn'?t|should not|shouldn'?t|without|avoid)\s+(\w+\s+){0,3}?(tell|inform|mention|reveal|disclos|notify|notif|alert|show|let|warn|ask)\w*\s+(\w+\s+){0,5}?(users?|humans?|operators?|person|anyone|anybody)\b|\b(hide|conceal|keep)\s+(this|it|that|these)\s+(\w+\s+){0,2}?from\s+(the\s+)?(users?|humans?|operators?)\b",
        ),
    },
    Rule {
        id: "system-prompt",
        finds: "a mention of the system prompt or of messages of the developer",
        test: Test::Words(
            r"\b(system|developer)[- ](prompt|message|instruction)s?\b|\byour (initial|original|hidden) (prompt|instructions)\b",
        ),
    },
    Rule {
        id: "before-use",
        finds: "an order to do something else before or when a tool is used",
        test: Test::Words(
            r"\b(before|prior to|whenever|when|every time|each time|after|in order to)\s+(you\s+)?(\w+\s+){0,2}?(us(e|es|ing)|call(s|ing)?|invok(e|es|ing)|run(s|ning)?|execut(e|es|ing))\s+(this|the|any|all|other|another)\s+(\w+\s+){0,2}?(tools?|functions?)\b[^.]{0,120}?\b(read|open|cat|send|include|append|fetch|upload|execute|run|call|pass|provide|copy|you must|you should first|first)\b",
        ),
    },
    Rule {
        id: "secret-file",
        finds: "a file that holds credentials or settings of clients: `~/.ssh`, `id_rsa`, `mcp.json`, …",
        test: Test::Words(
            r"~/\.ssh|\bid_(rsa|ed25519|ecdsa|dsa)\b|\bauthorized_keys\b|\.aws/credentials|/etc/(passwd|shadow)\b|\bmcp\.json\b|\bclaude_desktop_config\b|\.cursor/|\.netrc\b|\.npmrc\b|\.pypirc\b|\.git-credentials\b|\.kube/config\b|\.docker/config\b|/proc/self/environ",
        ),
    },
    Rule {
        id: "steering",
        finds: "an order to prefer this tool, or not to use others",
        test: Test::Words(
            r"\b(always|only|must)\s+(\w+\s+){0,2}?(use|call|invoke|prefer)\s+this\s+(tool|function)\s+(\w+\s+){0,4}?(instead|first|before|for (all|every|any))|\b(do not|don'?t|never)\s+(use|call|invoke)\s+(any\s+)?other\s+(\w+\s+){0,2}?(tools?|functions?|servers?)\b|\binstead of\s+(any|all)\s+other\s+(\w+\s+){0,2}?(tools?|functions?)\b|\bthis tool (replaces|supersedes|overrides)\b",
        ),
    },
    Rule {
        id: "conversation",
        finds: "an order to hand on the conversation or the model's context",
        test: Test::Words(
            r"\b(send|post|upload|forward|transmit|append|include|pass|provide|copy|put|summari[sz]e)\w*\s+(\w+\s+){0,6}?((full|entire|whole|complete|previous|chat|conversation|message)\s+)+(conversation|history|messages?|chat|context window|transcript)\b",
        ),
    },
    Rule {
        id: "comment",
        finds: "a comment of HTML, which is not shown where the text is rendered",
        test: Test::Words(r"<!--"),
    },
    Rule {
        id: "encoded",
        finds: "200 characters or more without a blank that look like base64",
        test: Test::Words(r"[a-z0-9+/_-]{200,}={0,2}"),
    },
];

static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let compiled = |rule: &Rule| match rule.test {
        Test::Words(pattern) => RegexBuilder::new(pattern).unicode(false).size_limit(4 << 20).build().ok(),
        Test::Hidden(_) | Test::Escape | Test::Name | Test::Outside => None,
    };
    RULES.iter().map(compiled).collect()
});

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flag {
    /// Of which rule.
    pub rule: &'static str,
    /// In which member: `description`, `inputSchema/properties/path/description`.
    pub place: String,
    /// What was found, escaped.
    pub excerpt: String,
}

/// Everything that is suspicious in a definition; of each rule and place once.
#[must_use]
pub fn flags(kind: Kind, definition: &Definition) -> Vec<Flag> {
    let mut found = Vec::new();
    if kind == Kind::Tool || kind == Kind::Prompt {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        if let Some(odd) = definition.name.chars().find(|c| !plain(*c)) {
            let excerpt = format!("`{}` in `{}`", visible(&odd.to_string()), visible(&definition.name));
            found.push(Flag { rule: "name", place: "name".to_owned(), excerpt });
        }
    }
    look(&definition.name, "name", &mut found);
    for (member, text) in &definition.texts {
        look(member, "a member's name", &mut found);
        look(text, member, &mut found);
    }
    for (member, json) in &definition.json {
        look(member, "a member's name", &mut found);
        match serde_json::from_str::<Value>(json) {
            Ok(value) => walk(&value, member, &mut found),
            Err(_not_held) => look(json, member, &mut found),
        }
    }
    found.sort();
    found.dedup_by(|one, other| one.rule == other.rule && one.place == other.place);
    found
}

/// The flag of a tool that another server has as well.
#[must_use]
pub fn shadowed(other: &str) -> Flag {
    Flag {
        rule: SHADOWED,
        place: "name".to_owned(),
        excerpt: format!("server `{}` has it too", visible(other)),
    }
}

/// Each text in JSON that is nested as deep as the reader lets it be.
fn walk(value: &Value, place: &str, found: &mut Vec<Flag>) {
    match value {
        Value::String(text) => look(text, place, found),
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                walk(item, &format!("{place}/{number}"), found);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                look(name, &format!("the names in {place}"), found);
                // Where a picture lies, or the picture itself.
                if place != "icons" || name != "src" {
                    walk(value, &format!("{place}/{}", visible(name)), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn look(text: &str, place: &str, found: &mut Vec<Flag>) {
    let mut add = |rule: &'static str, excerpt: String| {
        found.push(Flag { rule, place: place.to_owned(), excerpt });
    };
    let plain = text.bytes().all(|byte| byte == b'\t' || byte == b'\n' || (b' '..0x7f).contains(&byte));
    let there = if plain { Vec::new() } else { hidden(text) };
    // A model may read over what it does not know, and in any case.
    let read = without_hidden(text).to_lowercase();
    let read: String = read.split_whitespace().collect::<Vec<_>>().join(" ");
    for (rule, pattern) in RULES.iter().zip(PATTERNS.iter()) {
        match (&rule.test, pattern) {
            (Test::Hidden(kind), _) => {
                let of_kind: Vec<_> = there.iter().filter(|(_, _, is)| is == kind).collect();
                if let Some((at, first, _)) = of_kind.first() {
                    let around: String = text.chars().skip(at.saturating_sub(12)).take(32).collect();
                    let code = format!("U+{:04X}", u32::from(*first));
                    add(rule.id, format!("{} times, first {code} in `{}`", of_kind.len(), visible(&around)));
                }
            }
            (Test::Escape, _) => {
                if let Some(at) =
                    text.find("\u{1b}[").or_else(|| text.find(['\u{1b}', '\u{9b}', '\u{9d}', '\u{90}']))
                {
                    let start: String = text.get(at..).unwrap_or_default().chars().take(24).collect();
                    add(rule.id, format!("`{}`", visible(&start)));
                }
            }
            (Test::Words(_), Some(pattern)) => {
                if let Some(matched) = pattern.find(read.as_bytes()) {
                    let matched = String::from_utf8_lossy(matched.as_bytes());
                    let start: String = matched.chars().take(160).collect();
                    add(rule.id, format!("`{}`", visible(&start)));
                }
            }
            (Test::Words(_) | Test::Name | Test::Outside, _) => {}
        }
    }
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
