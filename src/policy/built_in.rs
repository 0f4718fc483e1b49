//! The profiles that are compiled in: their texts, and what comes of those that come to the same wherever they are used.
//!
//! To read a text with the place of every value takes longer than a fifth of all that `exec` works out for a cell, and what is
//! compiled in has no mistakes whose place somebody must be told. `profiles/built-in.postcard` is made of the texts by a test,
//! which fails when it is not what they say: `INSTA_UPDATE=always cargo nextest run policy::built_in`.
//!
//! Neighbours: `policy::files` finds them. Never: keeps what depends on a home, a workspace or a host.

use super::Policy;

/// Profiles that are compiled in.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("default", include_str!("../../profiles/default.toml")),
    ("strict", include_str!("../../profiles/strict.toml")),
    ("offline", include_str!("../../profiles/offline.toml")),
    ("workspace", include_str!("../../profiles/workspace.toml")),
    ("git-write", include_str!("../../profiles/git-write.toml")),
    ("node", include_str!("../../profiles/node.toml")),
    ("python", include_str!("../../profiles/python.toml")),
];

/// Names, and a [`Policy`] for each, as `postcard` writes them.
const RESOLVED: &[u8] = include_bytes!("../../profiles/built-in.postcard");

/// What comes of the built-in profile of this name, if that is the same everywhere.
pub(super) fn policy(name: &str) -> Option<Policy> {
    let all: Vec<(&str, &[u8])> = postcard::from_bytes(RESOLVED).ok()?;
    let (_, policy) = all.into_iter().find(|(known, _)| *known == name)?;
    postcard::from_bytes(policy).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::policy::Source;
    use crate::policy::profile::World;
    use crate::policy::resolve::resolve;
    use crate::policy::syscalls::SyscallName;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/built-in.postcard");

    /// What the texts say, by name.
    fn said(world: World<'_>) -> BTreeMap<&'static str, Option<Policy>> {
        let source =
            |name: &str, text: &str| Source { name: name.to_owned(), path: None, text: text.to_owned() };
        let sources = BUILT_IN.map(|(name, text)| (name.to_owned(), source(name, text))).into();
        let said = |(name, text)| {
            (name, resolve(&source(name, text), &sources, world, &|_| SyscallName::Known).ok())
        };
        BUILT_IN.map(said).into()
    }

    #[test]
    fn what_is_kept_is_what_the_texts_say_wherever_they_are_read() {
        let here = said(World { home: Some(Path::new("/home/u")), workspace: Path::new("/srv/p") });
        let there = said(World { home: None, workspace: Path::new("/") });
        let everywhere: Vec<_> = here
            .iter()
            .filter(|(name, policy)| there.get(*name) == Some(policy))
            .map(|(name, policy)| (*name, policy.as_ref().unwrap()))
            .collect();
        if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
            let all: Vec<(&str, Vec<u8>)> = everywhere
                .iter()
                .map(|(name, policy)| (*name, postcard::to_allocvec(policy).unwrap()))
                .collect();
            std::fs::write(FILE, postcard::to_allocvec(&all).unwrap()).unwrap();
            return;
        }
        for (name, said) in &here {
            let kept = policy(name);
            let expected = everywhere.iter().find(|(known, _)| known == name).map(|(_, policy)| *policy);
            assert_eq!(kept.as_ref(), expected, "{name}: refresh it as the head of this file says");
            if let Some(kept) = &kept {
                assert_eq!(Some(kept), said.as_ref(), "{name}");
            }
        }
        assert!(policy("default").is_some(), "the one that everybody uses");
        assert_eq!(policy("no such profile"), None);
    }
}
