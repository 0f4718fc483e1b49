//! What a call's arguments must be: JSON that can be read in one way only.
//!
//! Neighbours: `session` checks each call's arguments before anything is started for it. Never: does I/O, changes an
//! argument, or lets one through because it could not be checked.

mod fault;
mod place;
pub mod strict;

pub use fault::Fault;
