//! Stand-in: plain processes in place of cells. Never: part of a release.

pub mod supervisor;
