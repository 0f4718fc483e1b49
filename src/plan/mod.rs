//! The ordered list of plain steps that builds one cell. Two equal inputs give the same plan, byte for byte.
//!
//! Neighbours: takes a [`crate::policy::Policy`] and [`crate::host`] facts, gives a [`Plan`] to `launch` and `explain`.
//! Never: reads clock, files, environment or kernel.

pub mod step;

use serde::{Deserialize, Serialize};
use step::Step;

use crate::policy::Floor;

/// What the launcher runs for one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The rung that these steps amount to.
    pub floor: Floor,
    /// In order.
    pub steps: Vec<Step>,
}
