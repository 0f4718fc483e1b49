//! Runs a plan whose program answers by its exit status alone.
//!
//! Neighbours: `doctor` tries rungs with it, `profile why` proves its answers. Never: shares this process's stdin, stdout
//! or stderr with the cell; the caller is a child made for the purpose, whose standard streams are lost.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::launch::LaunchError;
use crate::launch::spawn::{self, Prepared, Started, Stdio};
use crate::plan::Plan;
use crate::sys::{Errno, descriptor};
use crate::watch::passthrough::{self, Ends, Passed, Told};

/// Launches the plan and waits until its cell is gone.
///
/// # Errors
/// A step that failed, or what kept this process from launching it.
pub(super) fn run(plan: Plan, time: Duration) -> Result<Passed, LaunchError> {
    let broken = |errno| LaunchError::new("exec", "standard streams", errno);
    let nowhere = File::options().read(true).write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|error| broken(Errno::from(error)))?;
    for number in 0..=2 {
        descriptor::duplicate_to(nowhere.as_fd(), number, false).map_err(broken)?;
    }
    let (stdin, into) = descriptor::pipe().map_err(broken)?;
    let (out, stdout) = descriptor::pipe().map_err(broken)?;
    let (err, stderr) = descriptor::pipe().map_err(broken)?;
    let prepared = Prepared::new(plan)?;
    let started = spawn::spawn(&prepared, Stdio { stdin, stdout, stderr }, 0)?;
    let ends = Ends { stdin: into, stdout: out, stderr: err };
    let passed = passthrough::pass(&started, prepared.plan(), ends, time, 1 << 20, Told::default(), |_| {});
    let Started { cgroup, reserved, private, .. } = started;
    drop((reserved, private));
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    passed.map_err(broken)
}
