//! The machine's clock jumps while cells run: no call ends for it, none is kept, and the record is there.
//!
//! Only in a virtual machine of the test's own (`integration/vm/lanes.py`). Never: leaves the clock as it put it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::scene::{Scene, floor};

const DAY: i64 = 86400;

/// Puts the clock back, less what has passed.
struct Clock {
    began: SystemTime,
    at: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { began: SystemTime::now(), at: Instant::now() }
    }

    /// To so many seconds from what would be right.
    fn jump(&self, seconds: i64) {
        let right = self.began.duration_since(UNIX_EPOCH).unwrap() + self.at.elapsed();
        let at = format!("@{}", right.as_secs().cast_signed() + seconds);
        let set = Command::new("date").args(["-s", &at]).stdout(Stdio::null()).status().unwrap();
        assert!(set.success(), "this machine's clock cannot be set");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.jump(0);
    }
}

#[test]
#[ignore = "sets the machine's clock"]
fn a_clock_that_jumps_ends_no_call_and_keeps_none() {
    let clock = Clock::new();
    let scene = Scene::new();
    let start = |name: &str, time: &str, script: &str| {
        let mut command = scene.command("exec");
        command.args(floor()).args(["--timeout", time, "--report", &scene.path(name)]);
        command.args(["--", "/bin/sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let ended = |name: &str| -> (String, u64) {
        let report: Value = serde_json::from_slice(&fs::read(scene.path(name)).unwrap()).unwrap();
        let kind = report["status"]["kind"].as_str().unwrap().to_owned();
        (kind, report["duration_us"].as_u64().unwrap())
    };
    for jumps in [[DAY, -DAY], [-DAY, DAY]] {
        // One that has time goes on after each jump.
        let mut child = start("long", "30m", "while read line; do echo $line; done");
        let mut into = child.stdin.take().unwrap();
        let mut from = BufReader::new(child.stdout.take().unwrap()).lines();
        for jump in [0, jumps[0], jumps[1], 0] {
            clock.jump(jump);
            writeln!(into, "{jump}").unwrap();
            assert_eq!(from.next().unwrap().unwrap(), jump.to_string());
        }
        drop(into);
        assert!(child.wait().unwrap().success());
        let (kind, duration) = ended("long");
        assert!(kind == "completed" && duration < 1_800_000_000, "{kind} {duration}");
        // One that has not is ended all the same.
        let mut child = start("short", "2s", "echo ready; sleep 100000");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        clock.jump(jumps[0]);
        assert_eq!(child.wait().unwrap().code(), Some(124));
        let (kind, duration) = ended("short");
        assert!(kind == "limit" && (2_000_000..1_800_000_000).contains(&duration), "{kind} {duration}");
        clock.jump(0);
    }
}
