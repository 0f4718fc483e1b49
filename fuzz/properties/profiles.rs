//! A profile and a configuration: any text is a policy that can be printed and read again, or a list of mistakes that
//! a terminal can show. A line of three hyphens begins a second profile, `other`, for the first to extend.
//!
//! Never: opens a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use toolcell::plan::seccomp;
use toolcell::policy::files::BUILT_IN;
use toolcell::policy::mistakes::Mistakes;
use toolcell::policy::print::to_toml;
use toolcell::policy::profile::World;
use toolcell::policy::resolve::resolve;
use toolcell::policy::{Policy, Source, check, config, limits, path};

fn world() -> World<'static> {
    World { home: Some(Path::new("/home/u")), workspace: Path::new("/srv/p") }
}

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        path: Some(format!("/etc/cells/{name}.toml").into()),
        text: text.to_owned(),
    }
}

static BUILT: LazyLock<BTreeMap<String, Source>> = LazyLock::new(|| {
    let named = |name: &str, text: &str| {
        (name.to_owned(), Source { name: name.to_owned(), path: None, text: text.to_owned() })
    };
    BUILT_IN.iter().map(|(name, text)| named(name, text)).collect()
});

fn policy(mine: &str, other: &str) -> Result<Policy, Mistakes> {
    let mut sources = BUILT.clone();
    sources.insert("other".to_owned(), source("other", other));
    resolve(&source("mine", mine), &sources, world(), &seccomp::named)
}

/// Reads a text as a profile and as a configuration.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mine, other) = text.split_once("\n---\n").unwrap_or((&text, ""));
    match policy(mine, other) {
        Ok(policy) => holds(policy),
        Err(mistakes) => shown(&mistakes),
    }
    let profiles: BTreeSet<String> = BUILT.keys().cloned().collect();
    match config::parse(&source("config", &text), &profiles) {
        Ok(config) => {
            for server in config.servers.values() {
                assert!(server.command.first().is_some_and(|program| !program.is_empty()));
                assert!(server.profiles().iter().all(|profile| profiles.contains(*profile)));
            }
        }
        Err(mistakes) => shown(&mistakes),
    }
}

/// A policy is within its bounds, and its print is the same policy.
fn holds(policy: Policy) {
    let system = &policy.filesystem;
    for rule in policy.grants().chain(&system.deny) {
        assert_eq!(path::normal(rule.path.to_str().unwrap()), Ok(rule.path.clone()));
    }
    for rule in policy.grants() {
        assert_eq!(path::grantable(&rule.path), Ok(()));
    }
    for limit in limits::ALL {
        limits::check(limit, policy.limit(limit)).unwrap();
    }
    seccomp::compile(&policy.syscalls, !policy.network.unix.is_empty()).unwrap();
    for warning in check::warnings(&policy) {
        assert!(!warning.is_empty());
    }
    let text = to_toml(&policy);
    let again = self::policy(&text, "").unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    assert_eq!(without_places(again), without_places(policy), "{text}");
}

/// Where a rule was read from is a comment in what is printed.
fn without_places(mut policy: Policy) -> Policy {
    let system = &mut policy.filesystem;
    for list in [&mut system.read, &mut system.write, &mut system.execute, &mut system.deny] {
        list.iter_mut().for_each(|rule| rule.origin.clear());
    }
    policy
}

/// There is a mistake, and nothing in it that a terminal takes for a command.
fn shown(mistakes: &Mistakes) {
    assert!(!mistakes.as_slice().is_empty());
    for mistake in mistakes.as_slice() {
        let spot = &mistake.spot;
        assert!(spot.line > 0 && spot.column > 0 && spot.width > 0, "{spot:?}");
        assert!(spot.indent <= spot.excerpt.chars().count().max(spot.column), "{spot:?}");
    }
    let text = mistakes.to_string();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}
