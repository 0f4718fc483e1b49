//! What a call's arguments must be: JSON that can be read in one way only, and a value that fits a JSON Schema.
//!
//! ```text
//! text ──► strict ──► value ──────────────┐
//!                                         ▼
//! schema ──► compile ──► rules ─────────► check ──► what is wrong, where, and what would be right
//! ```
//!
//! Neighbours: `session` checks each call's arguments before anything is started for it. Never: does I/O, changes an
//! argument, or lets one through because it could not be checked.

mod check;
mod compile;
mod document;
mod equal;
mod fault;
mod meaning;
mod number;
mod pattern;
pub mod percent;
mod place;
mod schema;
pub mod strict;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;

pub use check::{Found, Wider};
pub use compile::{Author, KEYWORDS, Mistake, compile};
pub use fault::Fault;
pub use meaning::{World, leads};
pub use schema::Schema;
