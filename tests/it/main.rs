//! The fast tests from outside the library, in one binary.

#![expect(clippy::unwrap_used, reason = "in a test, a failed step is a failed test")]

mod audit;
mod demo;
mod doctor;
mod help;
