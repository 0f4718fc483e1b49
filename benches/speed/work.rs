//! Work in a cell against the same work outside, each timed by the program that does it.
//!
//! Neighbours: `benches/work.c` is one of the programs. Never: counts the start of a cell, or of an interpreter.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::measure::{self, Result, Row, pairs};

/// What computing may take in a cell, and system calls.
const COMPUTING: f64 = 1.02;
const CALLING: f64 = 1.10;
/// For so long each is repeated at most.
const AT_MOST: Duration = Duration::from_secs(30);

/// Some hundred milliseconds of it; prints nanoseconds.
const PYTHON: &str = "import time
start = time.perf_counter_ns()
total = 0
for number in range(4_000_000):
    total += number * number % 7
print(time.perf_counter_ns() - start)";
const NODE: &str = "const start = process.hrtime.bigint()
let total = 0
for (let number = 0; number < 5_000_000; number++) total = (total + number * number) % 7
console.log(String(process.hrtime.bigint() - start))";

/// Sums so much of nothing, the start of `sha256sum` not counted.
const SHA256SUM: &str = "import subprocess, sys, time
sum = subprocess.Popen(['sha256sum'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
nothing = bytes(1 << 20)
sum.stdin.write(nothing)
start = time.perf_counter_ns()
for _ in range(int(sys.argv[1])):
    sum.stdin.write(nothing)
sum.stdin.close()
sum.wait()
print(time.perf_counter_ns() - start)";
/// A few hundred milliseconds of it, in MiB.
const SUMMED: &str = "128";

/// A few hundred milliseconds of these.
const CALLS: &str = "2000000";

/// The time that a program says it took.
fn told(command: &mut Command) -> Result<Duration> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let nanoseconds = text.trim().parse().map_err(|_number| {
        format!("{command:?} said `{}` and {}", text.trim(), String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(Duration::from_nanos(nanoseconds))
}

pub(crate) fn rows(toolcell: &Path, files: &Path, rounds: usize) -> Result<Vec<Row>> {
    let work = files.join("work");
    let work = work.to_str().ok_or("a name that is no text")?;
    let computing: [(&str, &[&str]); 3] = [
        ("a loop of Python in a cell against outside", &["python3", "-S", "-E", "-c", PYTHON]),
        ("a loop of Node", &["node", "-e", NODE]),
        ("sha256sum", &["python3", "-S", "-E", "-c", SHA256SUM, SUMMED]),
    ];
    let calling: [(&str, &[&str]); 2] =
        [("getppid", &[work, "getppid", CALLS]), ("a read of one byte", &[work, "read", CALLS])];
    let mut rows = Vec::new();
    let mut compare = |what: String, command: &[&str], more: &[&str], limit| -> Result<()> {
        let (program, arguments) = command.split_first().ok_or("no program")?;
        let mut ours =
            || told(Command::new(toolcell).args(["exec", "--cpu", "2", "--"]).arg(program).args(arguments));
        let mut outside = || told(Command::new(program).args(arguments).args(more));
        let times = pairs(rounds.min(25), AT_MOST, [&mut ours, &mut outside])?;
        rows.push(measure::ratio_of_pairs(&what, &times, limit));
        Ok(())
    };
    computing.iter().try_for_each(|(what, command)| compare((*what).to_owned(), command, &[], COMPUTING))?;
    for (what, command) in calling {
        compare(format!("{what} in a cell against outside"), command, &[], CALLING)?;
        compare(format!("{what} against below a filter that allows all"), command, &["filtered"], CALLING)?;
    }
    Ok(rows)
}
