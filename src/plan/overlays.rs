//! The steps that keep what a cell writes away from the host, until it is reviewed or for good.
//!
//! Neighbours: `plan::build` puts them among the binds; `plan::review` judges what came of it. Never: looks anything up.

use std::path::{Path, PathBuf};

use super::build::Request;
use super::step::{Access, BENEATH, CHANGES, Step};
use crate::host::view::Seen;
use crate::policy::{Policy, limits};

/// Before the first overlay. What is written has as much room as the scratch directory has, and where there is none, as much
/// as that has by default.
pub(super) fn begin(policy: &Policy) -> [Step; 3] {
    let size = match policy.filesystem.scratch {
        0 => limits::DEFAULT_SCRATCH,
        size => size,
    };
    let place = |path: &str| Step::MakeDirectory { path: PathBuf::from(path), mode: 0 };
    [place(CHANGES), place(BENEATH), Step::MountChanges { size, inodes: (size / 4096).clamp(64, 1 << 20) }]
}

/// One directory.
pub(super) fn step(
    request: &Request<'_>,
    target: &Path,
    source: &Path,
    access: Access,
    owner: Option<(u32, u32)>,
) -> Step {
    let view = request.view;
    let below = |seen: &Seen| seen.source.strip_prefix(source).ok().map(Path::to_owned);
    let vacant = view.vacant.iter().map(|(stand_in, _)| stand_in);
    // What is narrower within is a mount in the cell, and must not be less on the way back.
    let narrower = view.granted.iter().filter(|seen| !seen.access.write);
    let kept = view.protected.iter().chain(vacant).chain(narrower).filter_map(below);
    let kept = kept.filter(|path| !path.as_os_str().is_empty()).collect();
    let absent = view.absent.iter().filter_map(|rule| rule.path.strip_prefix(target).ok());
    let denied = view.hidden.iter().filter_map(below).chain(absent.map(Path::to_owned)).collect();
    let rules = request.policy.filesystem.write.iter();
    let left = rules.filter_map(|rule| rule.path.strip_prefix(target).ok());
    let left = left.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect();
    Step::MountOverlay {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
        owner,
        kept,
        denied,
        left,
    }
}

/// After the last, if there is any.
pub(super) fn end(policy: &Policy, steps: &[Step]) -> Option<Step> {
    let any = steps.iter().any(|step| matches!(step, Step::MountChanges { .. }));
    any.then_some(Step::DetachChanges { review: policy.filesystem.writes.is_reviewed() })
}
