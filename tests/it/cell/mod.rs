//! Tests from inside real cells: each says what works and what its neighbour must not do, with a probe that reports
//! the kernel's own answer.
//!
//! Neighbours: `scene` has the directories and the ways to run a probe, `probe` compiles it, `runner` launches plans
//! that no profile leads to. Never: trusts a probe that was not seen to succeed where the layer is missing.

mod alone;
mod attacks;
mod between;
mod clock;
pub(crate) mod denials;
mod differential;
mod failures;
mod files;
mod git;
mod identity;
mod layers;
mod left;
mod limits;
mod outside;
mod paths;
mod probe;
mod refusals;
mod runner;
mod scene;
mod shape;
mod traps;
mod why;
mod writes;

pub(crate) use scene::{has_cgroup, needs_cgroup, needs_root, note};

/// The highest floor of this host.
pub(crate) fn floor() -> &'static str {
    scene::floor()[1]
}
