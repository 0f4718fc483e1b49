//! The attacks of a tool that writes to memory of its cell, in the order in which they are made: each leaves in the project what may
//! not come to the host, because it is reviewed (`writes = "review"`), because nobody agrees (`"ask"`), or because nothing may
//! (`"discard"`).
//!
//! Neighbours: `attacks` says what each part means, `list` has the others. Never: does anything itself.

use serde_json::{Value, json};

use super::list::{attack, project};
use super::{Attack, Sign, Wall};
use crate::commands::demo::stage::{PROJECT, Stage};

/// The class.
pub(super) const REVIEW: &str = "Changes under review";

/// The project, and the planted key to lead to.
fn project_and_key(stage: &Stage, _bare: bool) -> Value {
    json!({"directory": stage.path(PROJECT), "path": stage.path("home/.ssh/id_ed25519")})
}

/// Attacks that the review is to stop, where no wall in the cell has.
pub(super) const ATTACKS: &[Attack] = &[
    attack(REVIEW, "leave traps deeper down", "leave_deep_traps", project, Sign::TrapsAsMade, Wall::Review),
    attack(REVIEW, "leave a link", "leave_link", project_and_key, Sign::TrapsAsMade, Wall::Review),
    attack(REVIEW, "leave a named pipe", "leave_pipe", project, Sign::TrapsAsMade, Wall::Review),
    attack(REVIEW, "leave a device", "leave_device", project, Sign::TrapsAsMade, Wall::Review),
    attack(REVIEW, "leave a set-user-id bit", "leave_setuid", project, Sign::TrapsAsMade, Wall::Review),
    attack(
        REVIEW,
        "leave a deceiving name",
        "leave_deceiving_name",
        project,
        Sign::TrapsAsMade,
        Wall::Review,
    ),
    attack(REVIEW, "change a trap under review", "add_to_traps", project, Sign::TrapsAsMade, Wall::Review),
    attack(REVIEW, "make a trap under review", "add_to_traps", project, Sign::NoTraps, Wall::Review),
    attack(REVIEW, "write what nobody agrees to", "leave_file", project, Sign::TrapsAsMade, Wall::Agreed),
    attack(
        REVIEW,
        "ask for what nobody may allow",
        "leave_deep_traps",
        project,
        Sign::TrapsAsMade,
        Wall::Agreed,
    ),
    attack(REVIEW, "keep a file thrown away", "leave_file", project, Sign::TrapsAsMade, Wall::Discarded),
    attack(
        REVIEW,
        "keep a link thrown away",
        "leave_link",
        project_and_key,
        Sign::TrapsAsMade,
        Wall::Discarded,
    ),
    attack(REVIEW, "keep a pipe thrown away", "leave_pipe", project, Sign::TrapsAsMade, Wall::Discarded),
    attack(REVIEW, "keep traps thrown away", "leave_deep_traps", project, Sign::TrapsAsMade, Wall::Discarded),
    attack(REVIEW, "make a trap thrown away", "add_to_traps", project, Sign::NoTraps, Wall::Discarded),
];
