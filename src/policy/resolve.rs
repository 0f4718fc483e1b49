//! Follows `extends` and merges profiles into a [`Policy`].
//!
//! Neighbours: `policy::profile` reads each text, `policy::files` finds them. Never: opens a file.

use std::collections::BTreeMap;

use super::mistakes::{Mistake, Mistakes, closest};
use super::mode::beside_host;
use super::network::Network;
use super::profile::{Located, Profile, World, read};
use super::syscalls::SyscallName;
use super::{
    Audit, Environment, Filesystem, Floor, Limits, Observe, PathRule, Policy, Source, Syscalls, limits,
};

impl Policy {
    /// The policy of an empty profile: nothing is granted, limits are the default ones.
    #[must_use]
    pub fn nothing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            filesystem: Filesystem { scratch: limits::DEFAULT_SCRATCH, ..Filesystem::default() },
            limits: Limits::default(),
            syscalls: Syscalls::default(),
            environment: Environment::default(),
            audit: Audit::default(),
            floor: Floor::Full,
            observe: Observe::Calls,
            network: Network::default(),
        }
    }

    /// Every rule that grants something.
    pub fn grants(&self) -> impl Iterator<Item = &PathRule> {
        let Filesystem { read, write, execute, list, .. } = &self.filesystem;
        read.iter().chain(write).chain(execute).chain(list)
    }
}

impl Environment {
    /// Lets a variable through, in place of a value that was set for it.
    pub fn pass(&mut self, name: &str) {
        self.set.remove(name);
        if !self.pass.iter().any(|known| known == name) {
            self.pass.push(name.to_owned());
        }
    }

    /// Sets a variable, in place of letting it through.
    pub fn set(&mut self, name: &str, value: &str) {
        self.pass.retain(|known| known != name);
        self.set.insert(name.to_owned(), value.to_owned());
    }
}

/// Says that a `deny` makes a grant void, because the grant lies at or beneath the hidden path.
pub(super) fn made_void(deny: &PathRule, grant: &PathRule) -> Option<String> {
    grant.path.starts_with(&deny.path).then(|| {
        let (path, hidden) = (grant.path.display(), deny.path.display());
        format!(
            "`{path}` is granted by {} and hidden by `deny` of `{hidden}` by {}",
            grant.origin, deny.origin
        )
    })
}

/// Resolves the profile `source`; what it extends is looked up in `sources`.
///
/// # Errors
/// Every mistake of every text in the chain.
pub fn resolve(
    source: &Source,
    sources: &BTreeMap<String, Source>,
    world: World<'_>,
    known: &dyn Fn(&str) -> SyscallName,
) -> Result<Policy, Mistakes> {
    let mut mistakes = Vec::new();
    let mut chain: Vec<(&Source, Profile)> = Vec::new();
    let mut next = Some(source);
    while let Some(source) = next.take() {
        let (profile, found) = read(source, world, known);
        mistakes.extend(found);
        let extends = profile.extends.clone();
        chain.push((source, profile));
        if let Some(parent) = extends {
            match follow(&parent.value, &chain, sources) {
                Ok(parent) => next = Some(parent),
                Err((message, hint)) => {
                    mistakes.push(Mistake::new(parent.spot, &message, hint.as_deref()));
                }
            }
        }
    }
    let order: Vec<String> = chain.iter().map(|(source, _)| source.label()).collect();
    let mut merged = Merged::default();
    let mut policy = Policy::nothing(&source.name);
    let (mut ended, mut heard, mut of_doors) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (_, profile) in chain.into_iter().rev() {
        apply(&mut policy, &profile, &mut mistakes);
        of_doors.extend(profile.network.of_doors().cloned());
        heard.extend(profile.network.heard().map(|(listen, spot)| (listen.clone(), spot.clone())));
        ended.extend(profile.network.ended().map(|(http, spot)| (http.destination(), spot.clone())));
        merged.add(profile);
    }
    for Located { value: key, spot } in of_doors.into_iter().filter(|_| policy.network.mode.is_host()) {
        let (told, hint) = beside_host(&key);
        mistakes.push(Mistake::new(spot, &told, Some(&hint)));
    }
    for http in &policy.network.http {
        if let (Some((message, hint)), Some(spot)) =
            (http.unfit(&policy.network), ended.get(&http.destination()))
        {
            mistakes.push(Mistake::new(spot.clone(), &message, Some(&hint)));
        }
    }
    mistakes.extend(merged.void_grants(&source.label()));
    policy.filesystem.read = values(merged.read);
    policy.filesystem.write = values(merged.write);
    policy.filesystem.execute = values(merged.execute);
    policy.filesystem.deny = values(merged.deny);
    policy.show_names();
    if let Some((listen, message, hint)) = policy.network.unheard()
        && let Some((_, spot)) = heard.iter().find(|(known, _)| known == listen)
    {
        mistakes.push(Mistake::new(spot.clone(), &message, Some(&hint)));
    }
    mistakes.sort_by_key(|mistake| {
        let file = order.iter().position(|label| *label == mistake.spot.file);
        (file, mistake.spot.line, mistake.spot.column)
    });
    Mistakes::none_or(policy, mistakes)
}

type Rules = Vec<Located<PathRule>>;

/// The path rules of a chain, parents first.
#[derive(Default)]
struct Merged {
    read: Rules,
    write: Rules,
    execute: Rules,
    deny: Rules,
}

impl Merged {
    fn add(&mut self, profile: Profile) {
        merge(&mut self.read, profile.read);
        merge(&mut self.write, profile.write);
        merge(&mut self.execute, profile.execute);
        merge(&mut self.deny, profile.deny);
    }

    /// Grants that a `deny` makes void; the place is the one in the file `label` where there is one.
    fn void_grants(&self, label: &str) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for deny in &self.deny {
            for grant in self.read.iter().chain(&self.write).chain(&self.execute) {
                if let Some(message) = made_void(&deny.value, &grant.value) {
                    let spot = if grant.spot.file == label { &grant.spot } else { &deny.spot };
                    mistakes.push(Mistake::new(spot.clone(), &message, Some("remove one of the two")));
                }
            }
        }
        mistakes
    }
}

/// Adds rules to a list. Of two for the same path the first stays, and is required if either is.
fn merge(list: &mut Rules, more: Rules) {
    for rule in more {
        match list.iter_mut().find(|known| known.value.path == rule.value.path) {
            Some(known) => known.value.optional &= rule.value.optional,
            None => list.push(rule),
        }
    }
}

fn values(rules: Rules) -> Vec<PathRule> {
    rules.into_iter().map(|rule| rule.value).collect()
}

/// The source of a parent, or why it cannot be one.
fn follow<'s>(
    parent: &str,
    chain: &[(&Source, Profile)],
    sources: &'s BTreeMap<String, Source>,
) -> Result<&'s Source, (String, Option<String>)> {
    let names = chain.iter().map(|(source, _)| source.name.as_str());
    if let Some(first) = names.clone().position(|name| name == parent) {
        let circle: Vec<String> = names.skip(first).chain([parent]).map(|name| format!("`{name}`")).collect();
        return Err((format!("`extends` goes in a circle: {}", circle.join(" → ")), None));
    }
    sources.get(parent).ok_or_else(|| {
        let hint = closest(parent, sources.keys().map(String::as_str));
        (format!("no profile `{parent}`"), hint.map(|meant| format!("did you mean `{meant}`?")))
    })
}

/// Everything but the path rules.
fn apply(policy: &mut Policy, profile: &Profile, mistakes: &mut Vec<Mistake>) {
    let Profile { description, floor, observe, set, .. } = profile;
    if let Some(description) = description {
        policy.description.clone_from(description);
    }
    policy.floor = floor.unwrap_or(policy.floor);
    policy.observe = observe.unwrap_or(policy.observe);
    policy.filesystem.writes = profile.writes.unwrap_or(policy.filesystem.writes);
    policy.filesystem.scratch_execute |= profile.scratch_execute;
    for (limit, amount) in &profile.limits {
        if let Err(error) = policy.set_limit(*limit, amount.value) {
            mistakes.push(Mistake::new(amount.spot.clone(), &error.to_string(), None));
        }
    }
    extend(&mut policy.syscalls.allow, &profile.syscalls_allow);
    extend(&mut policy.syscalls.deny, &profile.syscalls_deny);
    profile.pass.iter().for_each(|name| policy.environment.pass(name));
    set.iter().for_each(|(name, value)| policy.environment.set(name, value));
    extend(&mut policy.audit.redact, &profile.redact);
    profile.network.apply(&mut policy.network);
}

fn extend(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::mistakes::Spot;

    /// A profile that may extend `parent`, or all its mistakes.
    pub(in crate::policy) fn read(text: &str, parent: &str) -> Result<Policy, String> {
        let source =
            |name: &str, text: &str| Source { name: name.to_owned(), path: None, text: text.to_owned() };
        let parents = BTreeMap::from([("parent".to_owned(), source("parent", parent))]);
        let world = World { home: Some(Path::new("/home/u")), workspace: Path::new("/w") };
        resolve(&source("p", text), &parents, world, &|_| SyscallName::Known)
            .map_err(|error| error.to_string())
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let rule = ("/[abc]", any::<bool>(), "[xy]").prop_map(|(path, optional, why)| {
            let rule = PathRule { path: path.into(), why, origin: String::new(), optional };
            let spot =
                Spot { file: String::new(), line: 1, column: 1, width: 1, excerpt: String::new(), indent: 0 };
            Located { value: rule, spot }
        });
        prop::collection::vec(rule, 0..4).prop_map(|all| together(Vec::new(), &all))
    }

    fn together(mut one: Rules, other: &Rules) -> Rules {
        merge(&mut one, other.clone());
        one
    }

    fn names(mut one: Vec<String>, other: &[String]) -> Vec<String> {
        extend(&mut one, other);
        one
    }

    proptest! {
        /// In whatever grouping the profiles of a chain are put together, the same comes of it, and a profile adds nothing to itself.
        #[test]
        fn merging_lists_is_associative_and_idempotent(
            (a, b, c) in (rules(), rules(), rules()),
            (x, y, z) in (prop::collection::btree_set("[abc]", 0..4), prop::collection::btree_set("[abc]", 0..4), prop::collection::btree_set("[abc]", 0..4)),
        ) {
            prop_assert_eq!(together(together(a.clone(), &b), &c), together(a.clone(), &together(b, &c)));
            prop_assert_eq!(together(a.clone(), &a), a);
            let [x, y, z] = [x, y, z].map(|set| set.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(names(names(x.clone(), &y), &z), names(x.clone(), &names(y, &z)));
            prop_assert_eq!(names(x.clone(), &x), x);
        }
    }
}
