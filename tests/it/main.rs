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
mod evidence;
mod fuzzed;
mod golden;
mod help;
mod hints;
mod host;
mod network;
mod readme;
mod secrets;
mod selftest;
mod serve;
mod session;
mod tidy;
mod token;

/// The project's files: where the tests were built, or the copy that another user or machine can reach.
fn project() -> std::path::PathBuf {
    std::env::var_os("TOOLCELL_TEST_PROJECT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
}

/// Copies a program that is to be executed. Another process does it: a child of another test may have what this one writes
/// to open until its exec, and so keep it from being executed (`ETXTBSY`).
pub(crate) fn copy_program(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").args([from, to]).status().unwrap().success());
}

/// The binary: where the tests were built, or the copy that an ordinary user can reach.
fn binary() -> std::path::PathBuf {
    std::env::var_os("TOOLCELL_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_toolcell").into(), Into::into)
}

/// The facts of the process of the tests, gathered once: on cgroup v2 that may move it, and what it starts later with it.
fn facts() -> &'static toolcell::host::Facts {
    static FACTS: std::sync::OnceLock<toolcell::host::Facts> = std::sync::OnceLock::new();
    FACTS.get_or_init(toolcell::host::Facts::gather)
}
