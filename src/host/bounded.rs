//! A policy within what a client says: its roots, or the policy that it sends along with a call.
//!
//! The result is never wider than the policy: each rule stays, becomes one for reading, is taken apart into what the client allows
//! of it, or goes. What the client forbids in a directory that stays is hidden there, or can be read only.
//!
//! Neighbours: `policy::bounds` reads what the client says, `host::narrow` goes on with what is left, `commands::run` asks for each
//! call. Never: says more of a path than the policy shows.

use std::path::{Path, PathBuf};

use super::narrow::reach;
use super::runtime::Files;
use super::view::View;
use crate::plan::step::Access;
use crate::policy::bounds::{Bounds, Level};
use crate::policy::mode::Mode;
use crate::policy::{Filesystem, PathRule, Policy};

/// A list of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Read,
    Write,
    Execute,
    Names,
}

impl List {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Execute, Self::Names];

    const fn of(self, filesystem: &Filesystem) -> &Vec<PathRule> {
        match self {
            Self::Read => &filesystem.read,
            Self::Write => &filesystem.write,
            Self::Execute => &filesystem.execute,
            Self::Names => &filesystem.list,
        }
    }

    const fn of_mut(self, filesystem: &mut Filesystem) -> &mut Vec<PathRule> {
        match self {
            Self::Read => &mut filesystem.read,
            Self::Write => &mut filesystem.write,
            Self::Execute => &mut filesystem.execute,
            Self::Names => &mut filesystem.list,
        }
    }

    /// What a client has to allow for it.
    const fn needs(self) -> Level {
        match self {
            Self::Write => Level::Write,
            Self::Read | Self::Execute | Self::Names => Level::Read,
        }
    }

    /// The list for what a client allows less of, or the policy does.
    const fn at(self, level: Level, access: Access) -> Option<Self> {
        match self {
            _ if matches!(level, Level::None) => None,
            Self::Write if matches!(level, Level::Write) && access.write => Some(Self::Write),
            Self::Execute if access.execute => Some(Self::Execute),
            Self::Names => Some(Self::Names),
            Self::Read | Self::Write | Self::Execute if access.names => Some(Self::Names),
            Self::Read | Self::Write | Self::Execute => Some(Self::Read),
        }
    }
}

/// A policy within bounds; `whole` is how the policy is seen without them.
#[must_use]
pub fn bounded(files: &Files, policy: &Policy, whole: &View, bounds: &Bounds) -> Policy {
    let mut left = policy.clone();
    if bounds.offline {
        left.network.mode = Mode::Cell;
        left.network.allow.clear();
        left.network.unix.clear();
        left.network.listen.clear();
    }
    if bounds.rules().is_empty() && bounds.otherwise == Level::Write {
        return left;
    }
    // What is not there yet is where it would come to be.
    let absent =
        |path: &Path| files.nearest(path).map_or_else(|| path.to_owned(), |(above, rest)| above.join(rest));
    let real = |path: &Path| files.resolve(path).map_or_else(|_| absent(path), |found| found.real);
    let bounds = bounds.led(real);
    let mut hidden = Vec::new();
    for list in List::ALL {
        list.of_mut(&mut left.filesystem).clear();
    }
    for list in List::ALL {
        for rule in list.of(&policy.filesystem) {
            let parts = Parts { files, whole, bounds: &bounds, list, rule, real: &real(&rule.path) };
            for (list, rule) in parts.granted() {
                let rules = list.of_mut(&mut left.filesystem);
                if !rules.iter().any(|known| known.path == rule.path) {
                    rules.push(rule);
                }
            }
            hidden.extend(parts.hidden());
        }
    }
    // A grant in what is hidden would be a mistake of the profile.
    let seen = |rule: &PathRule| {
        let place = real(&rule.path);
        !hidden.iter().any(|(_, hidden)| place.starts_with(hidden))
    };
    for list in List::ALL {
        list.of_mut(&mut left.filesystem).retain(seen);
    }
    for (rule, _) in hidden {
        if !left.filesystem.deny.iter().any(|known| known.path == rule.path) {
            left.filesystem.deny.push(rule);
        }
    }
    left
}

/// What becomes of one rule.
struct Parts<'a> {
    files: &'a Files,
    whole: &'a View,
    /// With paths as they lead.
    bounds: &'a Bounds,
    list: List,
    rule: &'a PathRule,
    real: &'a Path,
}

impl Parts<'_> {
    /// The paths in the rule's tree of which the client says more.
    fn inner(&self) -> impl Iterator<Item = (&Path, Level)> {
        let inner = self.bounds.rules().iter().map(|(path, _)| path.as_path());
        inner
            .filter(|path| *path != self.real && path.starts_with(self.real))
            .map(|path| (path, self.bounds.level(path)))
    }

    /// What of a client's level counts for the rule.
    fn level(&self, path: &Path) -> Level {
        self.bounds.level(path).min(self.list.needs())
    }

    /// Where a place on the host is in the cell.
    fn target(&self, place: &Path) -> PathBuf {
        place.strip_prefix(self.real).map_or_else(|_| place.to_owned(), |rest| self.rule.path.join(rest))
    }

    fn rule_for(&self, place: &Path) -> PathRule {
        let why = format!("{} ({})", self.rule.origin, self.bounds.by);
        PathRule {
            path: self.target(place),
            why,
            origin: self.bounds.by.to_owned(),
            optional: self.list != List::Write,
        }
    }

    fn granted(&self) -> Vec<(List, PathRule)> {
        let mut granted = Vec::new();
        let own = self.level(self.real);
        if own == self.list.needs() {
            granted.push((self.list, self.rule.clone()));
        } else if own == Level::Read {
            granted.push((List::Read, self.rule.clone()));
        }
        for (place, _) in self.inner() {
            let above = place.parent().map_or(Level::None, |above| self.level(above));
            let (here, exists) = (self.level(place), self.files.resolve(place).is_ok());
            let access = reach(self.whole, place).filter(|_| exists && here != above);
            if let Some(list) = access.and_then(|access| self.list.at(here, access)) {
                granted.push((list, self.rule_for(place)));
            }
        }
        granted
    }

    /// What cannot be seen, or does not exist and must not come to.
    fn hidden(&self) -> Vec<(PathRule, PathBuf)> {
        let narrower = |place: &Path, here: Level| {
            let above = place.parent().map_or(Level::None, |above| self.level(above));
            let missing = self.files.resolve(place).is_err();
            above > here.min(self.list.needs()) && (here == Level::None || missing)
        };
        self.inner()
            .filter(|(place, here)| narrower(place, *here))
            .map(|(place, _)| (self.rule_for(place), place.to_owned()))
            .collect()
    }
}

#[cfg(test)]
#[path = "bounded/tests.rs"]
mod tests;
