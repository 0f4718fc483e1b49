//! Gives the linker the order of the functions that a start of a cell executes, in a release build.
//!
//! Neighbours: `scripts/link-order` makes `link/start.ld`. Never: reads or makes anything else.

use std::env::{var, var_os};

fn main() {
    println!("cargo::rerun-if-changed=link/start.ld");
    let directory = var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    if var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-T{}/link/start.ld", directory.display());
    }
}
