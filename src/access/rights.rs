//! What roles together allow: a deny wins, and what nobody allows is not allowed.
//!
//! Neighbours: `policy::config::access` has the roles, `access::gate` asks. Never: knows who asks.

use crate::policy::config::access::Role;
use crate::policy::pattern::{Item, Kind, Pattern};

/// Two roles as one. In whatever order and grouping roles are merged, the same comes of it.
#[must_use]
pub fn merged(mut one: Role, other: &Role) -> Role {
    one.allow.extend(other.allow.iter().cloned());
    one.deny.extend(other.deny.iter().cloned());
    one
}

/// What a role says of one item of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied(Pattern),
    NotAllowed,
    /// A URI that could be another one, written differently.
    Ambiguous,
}

pub(super) fn verdict(role: &Role, server: &str, item: &Item) -> Verdict {
    if item.kind == Kind::Resource && !is_plain(&item.name) {
        return Verdict::Ambiguous;
    }
    if let Some(pattern) = role.deny.iter().find(|pattern| pattern.covers(server, item)) {
        return Verdict::Denied(pattern.clone());
    }
    if role.allow.iter().any(|pattern| pattern.covers(server, item)) {
        return Verdict::Allowed;
    }
    Verdict::NotAllowed
}

/// Has a URI the form that normalising gives it (RFC 3986, 6.2.2)? A server that normalises would else read another
/// resource than the one that was compared.
fn is_plain(uri: &str) -> bool {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let steps = rest.split(['/', '\\', '?', '#']);
    let escaped = |after: &str| {
        let digits = after.get(..2).filter(|digits| !digits.bytes().any(|digit| digit.is_ascii_lowercase()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // What need not be escaped, what divides a path, and what is no escape.
        byte.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\%".contains(&byte) || byte < b' ')
    };
    let capital = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
    !capital(scheme)
        && !capital(authority)
        // A server of files takes other forms for the same file.
        && (scheme != "file" || rest.starts_with("///"))
        && !path.contains("//")
        && !uri.contains('\\')
        && !steps.into_iter().any(|step| matches!(step, "." | ".."))
        && !rest.split('%').skip(1).any(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role(allow: &[&str], deny: &[&str]) -> Role {
        let read = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Role { allow: read(allow), deny: read(deny) }
    }

    fn item(kind: Kind, name: &str) -> Item {
        Item { kind, name: name.to_owned() }
    }

    #[test]
    fn a_deny_wins_and_nothing_is_allowed_by_itself() {
        let role = role(&["git/*", "git/git_push"], &["*/git_push"]);
        assert_eq!(verdict(&role, "git", &item(Kind::Tool, "git_log")), Verdict::Allowed);
        let push = verdict(&role, "git", &item(Kind::Tool, "git_push"));
        assert_eq!(push, Verdict::Denied(Pattern::parse("*/git_push").unwrap()));
        assert_eq!(verdict(&role, "files", &item(Kind::Tool, "git_log")), Verdict::NotAllowed);
        assert_eq!(verdict(&role, "git", &item(Kind::Prompt, "git_log")), Verdict::NotAllowed);
        assert_eq!(verdict(&Role::default(), "git", &item(Kind::Tool, "")), Verdict::NotAllowed);
    }

    #[test]
    fn a_resource_under_another_spelling_is_not_allowed() {
        let role = role(&["fs/resource:*"], &["fs/resource:file:///srv/secret*"]);
        let read = |uri: &str| verdict(&role, "fs", &item(Kind::Resource, uri));
        for uri in [
            "file:///srv/a",
            "file:///srv/a%20b",
            "memo://x/..y",
            "https://int.example/x?y=//z",
            "file:///srv/%C3%A4",
            "file:///srv/{path}",
            "a:b?c=d#e",
            "",
        ] {
            assert_eq!(read(uri), Verdict::Allowed, "{uri}");
        }
        for uri in [
            "file:///srv/./secret",
            "file:///srv/x/../secret",
            "file:///srv/..",
            "file:///srv/%73ecret",
            "file:///srv/%2e%2E/secret",
            "file:///srv%2fsecret",
            "file:///srv/%",
            "file:///srv/%zz",
            "file:///srv/a%00",
            "file:///srv/%2573ecret",
            "FILE:///srv/secret",
            "file:///srv//secret",
            "file://localhost/srv/secret",
            "file:/srv/secret",
            "file:srv/secret",
            "file:///srv/%c3%a4",
            "https://INT.example/x",
            "file:\\\\srv\\secret",
        ] {
            assert_eq!(read(uri), Verdict::Ambiguous, "{uri}");
        }
        assert!(matches!(read("file:///srv/secrets"), Verdict::Denied(_)));
    }

    fn roles() -> impl Strategy<Value = Role> {
        let entry =
            "(a|b|\\*)/(prompt:|resource:)?[xy*]{1,3}".prop_map(|text| Pattern::parse(&text).unwrap());
        let entries = prop::collection::btree_set(entry, 0..4);
        (entries.clone(), entries).prop_map(|(allow, deny)| Role { allow, deny })
    }

    fn items() -> impl Strategy<Value = Item> {
        let kinds = prop::sample::select(vec![Kind::Tool, Kind::Prompt, Kind::Resource]);
        (kinds, "[xy]{0,4}").prop_map(|(kind, name)| Item { kind, name })
    }

    proptest! {
        #[test]
        fn adding_a_deny_never_allows_more(role in roles(), other in roles(), server in "[ab]", item in items()) {
            let mut more = role.clone();
            more.deny.extend(other.deny);
            let allowed = |role: &Role| verdict(role, &server, &item) == Verdict::Allowed;
            prop_assert!(!allowed(&more) || allowed(&role));
        }

        #[test]
        fn merging_is_associative_commutative_and_idempotent(a in roles(), b in roles(), c in roles()) {
            let left = merged(merged(a.clone(), &b), &c);
            prop_assert_eq!(&left, &merged(a.clone(), &merged(b.clone(), &c)));
            prop_assert_eq!(merged(a.clone(), &b), merged(b, &a));
            prop_assert_eq!(merged(a.clone(), &a), a);
        }

        #[test]
        fn what_roles_allow_together_one_of_them_allows(a in roles(), b in roles(), server in "[ab]", item in items()) {
            let allowed = |role: &Role| verdict(role, &server, &item) == Verdict::Allowed;
            prop_assert!(!allowed(&merged(a.clone(), &b)) || allowed(&a) || allowed(&b));
        }
    }
}
