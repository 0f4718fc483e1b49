//! Places in a cell that stay empty until its call: what the call's arguments grant is mounted there when the cell waits already.
//!
//! ```text
//! profile, nothing named ──with_places──► the plan of cells that wait: an empty directory in each place, Landlock's rule on it
//! profile, arguments ─────► the call's own plan ──between──► what is put in, if that is all in which the two plans differ
//! ```
//!
//! A plan that differs in anything else, or grants another access than the place has, is the plan of a cell of its own: no cell that waited
//! is ever wider than the one that its call would have had built for it.
//!
//! Landlock asks a mount's own directory and those above its mount point, not the mount point (landlock(7) says nothing of it; `is_access_to_paths_allowed` in
//! security/landlock/fs.c does). So the rule is on the directory above a place where nothing else lies in that, and else on the place, on which then nothing can be
//! mounted but within it.
//!
//! Neighbours: `commands::run` asks for both, `launch::attach` puts in. Never: looks anything up.

use std::path::{Path, PathBuf};

use super::Plan;
use super::step::{Access, Kind, LandlockRule, Step};
use crate::policy::path::is_within;

/// More places than tools speak of.
const MOST: usize = 16;

/// A directory of which a call sees what its arguments name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Free of symbolic links.
    pub path: PathBuf,
    /// What all that is put in allows.
    pub access: Access,
}

/// The plan with places that wait. `None` where it has something in them or around them already, or two of them would be one in
/// the other.
#[must_use]
pub fn with_places(mut plan: Plan, mut places: Vec<Place>) -> Option<Plan> {
    places.sort_by(|one, other| one.path.cmp(&other.path));
    places.dedup();
    let apart =
        places.windows(2).all(|pair| !matches!(pair, [one, next] if is_within(&next.path, &one.path)));
    if plan.floor.is_bare() || places.is_empty() || places.len() > MOST || !apart {
        return None;
    }
    let free = |place: &Place| plan.steps.iter().all(|step| leaves(step, &place.path));
    if !places.iter().all(free) {
        return None;
    }
    let anchors: Vec<LandlockRule> = places.iter().map(|place| anchor(&plan, &places, place)).collect();
    let pivot = plan.steps.iter().position(|step| *step == Step::PivotRoot)?;
    let rules = plan.steps.iter_mut().find_map(|step| match step {
        Step::Landlock { rules, .. } => Some(rules),
        _ => None,
    })?;
    rules.extend(anchors);
    let mut above: Vec<PathBuf> = Vec::new();
    for place in &places {
        let missing = |path: &&Path| {
            path.parent().is_some()
                && !above.iter().any(|made| made == path)
                && !plan
                    .steps
                    .iter()
                    .any(|step| matches!(step, Step::MakeDirectory { path: made, .. } if made == path))
        };
        let mut chain: Vec<PathBuf> = place.path.ancestors().filter(missing).map(Path::to_owned).collect();
        chain.reverse();
        above.extend(chain);
    }
    let mut added: Vec<Step> =
        above.into_iter().map(|path| Step::MakeDirectory { path, mode: 0o755 }).collect();
    added.push(Step::OpenPlaces { paths: places.into_iter().map(|place| place.path).collect() });
    plan.steps.splice(pivot..pivot, added);
    Some(plan)
}

/// The rule under which everything in a place is.
fn anchor(plan: &Plan, places: &[Place], place: &Place) -> LandlockRule {
    let alone = |above: &&Path| {
        above.parent().is_some()
            && places.iter().filter(|other| is_within(&other.path, above)).count() == 1
            && plan.steps.iter().all(|step| leaves(step, above))
    };
    let path = place.path.parent().filter(alone).unwrap_or(&place.path);
    LandlockRule { path: path.to_owned(), access: place.access, kind: Kind::Directory }
}

/// Has this step nothing to do with what is in a place, or with how one gets there?
fn leaves(step: &Step, place: &Path) -> bool {
    let apart = |path: &Path| !is_within(path, place) && !is_within(place, path);
    match step {
        Step::MakeDirectory { path, .. } => path == place || !is_within(path, place),
        Step::MakeFile { path, .. }
        | Step::RewriteFile { path, .. }
        | Step::MakeSymlink { path, .. }
        | Step::MakeSocket { path }
        | Step::Hide { path, .. }
        | Step::MountScratch { path, .. }
        | Step::Bind { target: path, .. }
        | Step::MountOverlay { target: path, .. } => apart(path),
        Step::MountProc => apart(Path::new("/proc")),
        Step::OpenPlaces { .. } => false,
        _ => true,
    }
}

/// What has to be put into a cell of `waiting` for it to be one of `own`, in order; `None` where that is not all.
#[must_use]
pub fn between(waiting: &Plan, own: &Plan) -> Option<Vec<Step>> {
    let paths = places(&waiting.steps)?;
    let inside = |path: &Path| paths.iter().any(|place| is_within(path, place));
    let mut put = Vec::new();
    let mut rest = own.steps.iter().filter(|step| {
        let inside = match step {
            // Those above a place are there already.
            Step::MakeDirectory { path, .. } if paths.iter().any(|place| is_within(place, path)) => {
                return false;
            }
            Step::MakeDirectory { path, .. } | Step::MakeFile { path, .. } | Step::Hide { path, .. } => {
                inside(path)
            }
            Step::Bind { target, .. } => inside(target),
            _ => false,
        };
        if inside {
            put.push((*step).clone());
        }
        !inside
    });
    let mut there = waiting.steps.iter().filter(|step| match step {
        Step::MakeDirectory { path, .. } => !paths.iter().any(|place| is_within(place, path)),
        step => !matches!(step, Step::OpenPlaces { .. }),
    });
    loop {
        let same = match (there.next(), rest.next()) {
            (None, None) => break,
            (
                Some(Step::Landlock { abi, rules, logged, ports }),
                Some(Step::Landlock { abi: own_abi, rules: own_rules, logged: own_logged, ports: own_ports }),
            ) => {
                (abi, logged, ports) == (own_abi, own_logged, own_ports)
                    && rules_agree(rules, own_rules, paths)
            }
            (there, rest) => there == rest,
        };
        if !same {
            return None;
        }
    }
    let is_directory = |step: &Step| !matches!(step, Step::MakeFile { path, .. } if paths.contains(path));
    (waiting.floor == own.floor && put.iter().all(is_directory)).then_some(put)
}

/// The places of a plan, if it has some.
fn places(steps: &[Step]) -> Option<&[PathBuf]> {
    steps.iter().find_map(|step| match step {
        Step::OpenPlaces { paths } => Some(paths.as_slice()),
        _ => None,
    })
}

/// The same rules beside the places, and none inside that allows another thing than what its place is under.
fn rules_agree(waiting: &[LandlockRule], own: &[LandlockRule], places: &[PathBuf]) -> bool {
    let of = |rule: &LandlockRule| {
        places.iter().find(|place| rule.path == **place || place.parent() == Some(rule.path.as_path()))
    };
    let (anchors, beside): (Vec<_>, Vec<_>) = waiting.iter().partition(|rule| of(rule).is_some());
    let (granted, own_beside): (Vec<_>, Vec<_>) =
        own.iter().partition(|rule| places.iter().any(|place| is_within(&rule.path, place)));
    let is_held = |rule: &&LandlockRule| {
        let above = |anchor: &&&LandlockRule| {
            of(anchor).is_some_and(|place| is_within(&rule.path, place)) && rule.path != anchor.path
        };
        anchors.iter().find(above).is_some_and(|anchor| anchor.access == rule.access)
    };
    beside == own_beside && granted.iter().all(is_held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Floor;

    fn plan(granted: &[(&str, Access)], more: Vec<Step>) -> Plan {
        let mut rules =
            vec![LandlockRule { path: "/usr".into(), access: Access::default(), kind: Kind::Directory }];
        let mut steps = vec![Step::MountRoot, Step::MakeDirectory { path: "/data".into(), mode: 0o755 }];
        for (path, access) in granted {
            let path = PathBuf::from(path);
            steps.push(Step::MakeFile { path: path.clone(), content: String::new(), mode: 0 });
            steps.push(Step::Bind {
                source: path.clone(),
                target: path.clone(),
                kind: Kind::File,
                access: *access,
                devices: false,
                owner: None,
            });
            rules.push(LandlockRule { path, access: *access, kind: Kind::File });
        }
        steps.push(Step::PivotRoot);
        steps.extend(more);
        steps.push(Step::Landlock { abi: 7, rules, logged: true, ports: None });
        Plan { floor: Floor::Full, steps }
    }

    const READ: Access = Access { write: false, execute: false, names: false };
    const WRITE: Access = Access { write: true, ..READ };

    fn waiting(access: Access) -> Plan {
        with_places(plan(&[], vec![]), vec![Place { path: "/data/in".into(), access }]).unwrap()
    }

    #[test]
    fn what_lies_in_a_place_is_put_in_and_nothing_else_may_differ() {
        let put = between(&waiting(READ), &plan(&[("/data/in/a", READ)], vec![])).unwrap();
        assert_eq!(put.iter().map(Step::name).collect::<Vec<_>>(), ["make-file", "bind"]);
        assert_eq!(between(&waiting(READ), &plan(&[], vec![])), Some(vec![]));
        let place = vec![Place { path: "/data/deep/in".into(), access: READ }];
        let alone = with_places(plan(&[], vec![]), place).unwrap();
        let whole = Step::Bind {
            source: "/data/deep/in".into(),
            target: "/data/deep/in".into(),
            kind: Kind::Directory,
            access: READ,
            devices: false,
            owner: None,
        };
        let mut own = plan(&[], vec![]);
        own.steps.insert(2, whole);
        let Some(Step::Landlock { rules, .. }) = own.steps.last_mut() else { panic!("no rules") };
        rules.push(LandlockRule { path: "/data/deep/in".into(), access: READ, kind: Kind::Directory });
        assert_eq!(between(&alone, &own).map(|put| put.len()), Some(1));
        let crowded = |granted: &[(&str, Access)]| {
            let plan = plan(&[&[("/data/beside", READ)], granted].concat(), vec![]);
            let place = Place { path: "/data/in".into(), access: READ };
            if granted.is_empty() { with_places(plan, vec![place]).unwrap() } else { plan }
        };
        assert!(between(&crowded(&[]), &crowded(&[("/data/in/a", READ)])).is_some());
        assert!(between(&alone, &plan(&[("/data/deep/in/a", READ)], vec![])).is_some());
        assert_eq!(between(&alone, &plan(&[("/data/deep/other", READ)], vec![])), None);
        for (waiting, own) in [
            // Another access than the place has, more or less.
            (waiting(READ), plan(&[("/data/in/a", WRITE)], vec![])),
            (waiting(WRITE), plan(&[("/data/in/a", READ)], vec![])),
            // The place itself, where something lies beside it.
            (crowded(&[]), crowded(&[("/data/in", READ)])),
            // A file where there is a directory.
            (alone, plan(&[("/data/deep/in", READ)], vec![])),
            // Beside it.
            (waiting(READ), plan(&[("/data/inside", READ)], vec![])),
            (waiting(READ), plan(&[], vec![Step::LoopbackUp])),
            (waiting(READ), Plan { floor: Floor::NoCgroup, ..plan(&[], vec![]) }),
            // No place at all.
            (plan(&[], vec![]), plan(&[], vec![])),
        ] {
            assert_eq!(between(&waiting, &own), None, "{own:?}");
        }
    }

    #[test]
    fn a_place_has_nothing_in_it_and_nothing_over_it() {
        let places = |paths: &[&str]| -> Vec<Place> {
            paths.iter().map(|path| Place { path: path.into(), access: READ }).collect()
        };
        let with =
            |granted: &[(&str, Access)], paths: &[&str]| with_places(plan(granted, vec![]), places(paths));
        let steps = with(&[], &["/data/in/deep", "/home"]).unwrap().steps;
        let names: Vec<_> = steps.iter().map(Step::name).collect();
        let made = ["mount-root", "make-directory", "make-directory", "make-directory", "make-directory"];
        assert_eq!(names, [&made[..], &["open-places", "pivot-root", "landlock"]].concat());
        assert!(with(&[], &[]).is_none() && with(&[], &["/"]).is_none());
        assert!(with(&[], &["/data", "/data/in"]).is_none());
        assert!(with(&[("/data/in/a", READ)], &["/data/in"]).is_none());
        assert!(with(&[("/data", READ)], &["/data/in"]).is_none());
        assert!(with(&[("/data/a", READ)], &["/data/in"]).is_some());
        assert!(
            with_places(Plan { floor: Floor::Landlock, ..plan(&[], vec![]) }, places(&["/data"])).is_none()
        );
    }
}
