//! What a call changed in directories whose writes are reviewed: done to the host when its last process is gone, and before its
//! result goes on.
//!
//! ```text
//! answered ──► reaped ──► reviewed ──done──► the result, with what was changed in `_meta`
//!                            └──refused──► a result that says so, in place of the tool's
//! ```
//!
//! Neighbours: [`super::call`] asks, the launcher looks and does. Never: lets a result pass that tells of changes which were not
//! made.

use super::secrets::Mask;
use super::{Grant, Session};
use crate::launch::LaunchError;
use crate::launch::cell::Written;
use crate::launch::changes::Reviewed;
use crate::outcome::Change;
use crate::policy::{Policy, Writes};
use crate::sys::Errno;

/// Do the changes of this policy's calls wait for their end?
pub(super) const fn are_reviewed(policy: &Policy) -> bool {
    matches!(policy.filesystem.writes, Writes::Review)
}

/// Has the changes of a call that has succeeded reviewed. No secret stands in what is told of them.
pub(super) async fn review(
    session: &Session,
    grant: &Grant,
    written: Option<Written>,
    mask: Option<&Mask>,
) -> Reviewed {
    let mut reviewed = match written {
        Some(written) => session.options.launcher.review(&grant.plan, written).await,
        None => Reviewed::failed(LaunchError::new("review", "what the cell wrote", Errno(libc::EMFILE))),
    };
    if let Some(mask) = mask {
        let files = reviewed.changes.iter_mut().flat_map(|changes| &mut changes.files);
        files.for_each(|Change { path, .. }| mask.text(path, "result"));
        mask.violations(&mut reviewed.violations, true);
    }
    reviewed
}
