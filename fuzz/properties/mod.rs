//! What must hold for any bytes, one file for each kind of text that a stranger can send: `check` takes the bytes, and
//! panics when something does not hold.
//!
//! Neighbours: `fuzz/targets` feeds them from a fuzzer, `tests/it/fuzzed.rs` from the corpora and a generator.
//! Never: touches the host, or holds what it checks against the code that it checks.

pub mod audited;
pub mod doors;
pub mod filters;
pub mod frames;
pub mod locks;
pub mod messages;
pub mod narrowing;
pub mod profiles;
pub mod protocol;
pub mod roles;
pub mod secrets;
pub mod signatures;
