//! Compiles the probe, once for each state of its source.
//!
//! Neighbours: `probe.c`. Never: leaves a half-written program where another test could find it.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("probe.c");

/// The static program, at a place that every user can reach.
pub(super) fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("TOOLCELL_TEST_PROBE") {
        return PathBuf::from(path);
    }
    let sum = SOURCE.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let finished = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{sum:016x}"));
    if !finished.exists() {
        let own = finished.with_extension(std::process::id().to_string());
        let source = own.with_extension("c");
        std::fs::write(&source, SOURCE).unwrap();
        let compiled = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&own).arg(&source).status().unwrap();
        assert!(compiled.success(), "gcc cannot compile the probe");
        std::fs::remove_file(&source).unwrap();
        std::fs::rename(&own, &finished).unwrap();
    }
    finished
}
