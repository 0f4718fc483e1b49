//! Whole processes: `toolcell exec` with every layer against bubblewrap with namespaces and binds alone.
//!
//! Neighbours: `main` prints the rows. Never: counts what a shell adds; every program is started directly.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{self, Result, Row, turns};

/// Everything that bubblewrap is asked for: the namespaces and a root with /usr, and none of the other layers.
const BWRAP: [&str; 24] = [
    "--unshare-all",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--symlink",
    "usr/sbin",
    "/sbin",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "--",
    "/bin/true",
];

/// The kernel goes on to take down the namespaces of what has ended. The next one begins when that is over, so that it does not
/// pay for the one before it.
const BETWEEN: Duration = Duration::from_millis(3);

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let time = start.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{command:?}: {status}").into()) }
}

pub(crate) fn rows(toolcell: &Path, files: &Path, root: bool, rounds: usize) -> Result<Vec<Row>> {
    let after_a_rest = |command: &mut Command| {
        measure::rest(BETWEEN);
        run(command)
    };
    let mut ours = || after_a_rest(Command::new(toolcell).args(["exec", "--", "/bin/true"]));
    let mut bwrap = || after_a_rest(Command::new("bwrap").args(BWRAP));
    let [ours_times, bwrap_times] = turns(rounds, [&mut ours, &mut bwrap])?;
    let what = "toolcell exec -- /bin/true against bwrap";
    let mut rows = vec![measure::ratio(what, &ours_times, &bwrap_times, Some(0.75))];
    if root {
        let mut number = 0_u32;
        let mut runc = || {
            number += 1;
            let name = format!("toolcell-bench-{}-{number}", std::process::id());
            after_a_rest(Command::new("runc").arg("run").arg("--bundle").arg(files.join("bundle")).arg(name))
        };
        let [ours_times, runc_times] = turns(rounds.div_ceil(10), [&mut ours, &mut runc])?;
        rows.push(measure::ratio("the same against a container of runc", &ours_times, &runc_times, None));
    }
    Ok(rows)
}
