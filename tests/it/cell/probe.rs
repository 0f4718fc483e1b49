//! Compiles the probe, once for each state of its source.
//!
//! Neighbours: `probe.c`. Never: leaves a half-written program where another test could find it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const SOURCE: &str = include_str!("probe.c");

/// The static program, at a place that every user can reach.
pub(super) fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM
        .get_or_init(|| std::env::var_os("TOOLCELL_TEST_PROBE").map_or_else(compiled, PathBuf::from))
        .clone()
}

fn compiled() -> PathBuf {
    let sum = SOURCE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let finished = directory.join(format!("probe-{sum:016x}"));
    if !finished.exists() {
        // Several processes may find it missing at once; each makes its own, and the last rename stays.
        let own = directory.join(format!("probe-{sum:016x}-{}", std::process::id()));
        let mut compiler = Command::new("gcc")
            .args(["-static", "-O1", "-x", "c", "-o"])
            .arg(&own)
            .arg("-")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        compiler.stdin.take().unwrap().write_all(SOURCE.as_bytes()).unwrap();
        assert!(compiler.wait().unwrap().success(), "gcc cannot compile the probe");
        std::fs::rename(&own, &finished).unwrap();
    }
    finished
}
