//! The fast tests from outside the library, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test says by a panic what is wrong, and its helpers are outside of a test function"
)]

mod audit;
mod cell;
mod demo;
mod doctor;
mod golden;
mod help;
mod session;
mod tidy;
