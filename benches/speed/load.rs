//! Many calls: how many a second, how long each waits when others come, and whether the last is as fast as the first.
//!
//! Neighbours: `relay` holds the sessions, `floor` the C program; `scripts/plot` draws the series. Never: measures one contender while
//! another runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::floor::Floor;
use crate::leaks::family;
use crate::measure::{self, Result, Row, Times};
use crate::relay::{Session, run};

/// Calls that are under way at once, as many as the machine has processors.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Calls with some of them under way at once: what each took, and all of them.
fn flood(
    session: &mut Session,
    tool: (&str, &str),
    calls: usize,
    at_once: usize,
) -> Result<(Times, Duration)> {
    let mut begun = HashMap::new();
    let mut times = Vec::with_capacity(calls);
    let start = Instant::now();
    let mut sent = 0;
    while times.len() < calls {
        while sent < calls && begun.len() < at_once {
            let now = Instant::now();
            begun.insert(session.begin(tool)?, now);
            sent += 1;
        }
        let id = session.answered()?;
        times.push(begun.remove(&id).ok_or("an answer to nobody")?.elapsed());
    }
    Ok((Times::from(times), start.elapsed()))
}

/// The same many things done by threads side by side.
fn side_by_side(threads: usize, each: impl Fn() -> Result<()> + Sync) -> Result<Duration> {
    let start = Instant::now();
    thread::scope(|scope| {
        let all: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| each().map_err(|error| error.to_string()))).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_panicked| "a thread panicked".to_owned())?)
    })?;
    Ok(start.elapsed())
}

/// Calls a second of both, as the share that ours is.
fn rate(what: &str, calls: usize, (ours, peer): (Duration, Duration), limit: f64) -> Row {
    let [of_ours, of_peer] =
        [ours, peer].map(|time| f64::from(u32::try_from(calls).unwrap_or(u32::MAX)) / time.as_secs_f64());
    let share = of_ours / of_peer;
    Row {
        what: what.to_owned(),
        ours: format!("{of_ours:.0}/s"),
        peer: format!("{of_peer:.0}/s"),
        found: format!("{share:.2} ×"),
        limit: format!("at least {limit:.2} ×"),
        holds: Some(share >= limit),
    }
}

/// The middle one of five.
fn middle(mut turn: impl FnMut() -> Result<(Duration, Duration)>) -> Result<(Duration, Duration)> {
    let mut pairs = (0..5).map(|_| turn()).collect::<Result<Vec<_>>>()?;
    pairs.sort_by(|(a, b), (c, d)| {
        (a.as_secs_f64() / b.as_secs_f64()).total_cmp(&(c.as_secs_f64() / d.as_secs_f64()))
    });
    pairs.get(2).copied().ok_or_else(|| "no round was done".into())
}

pub(crate) fn rows(toolcell: &Path, files: &Path, root: bool) -> Result<Vec<Row>> {
    let mut rows = vec![native(toolcell, files)?, node(toolcell, files)?];
    let all = thousands(toolcell, files)?;
    let (Some((first, held)), Some((last, still_held))) = (all.first(), all.last()) else {
        return Err("no calls were made".into());
    };
    rows.push(measure::ratio(
        "the last thousand of ten thousand calls against the first",
        last,
        first,
        Some(1.1),
    ));
    rows.push(measure::amount(
        "what the supervisor has grown by then",
        still_held.saturating_sub(*held),
        1024,
        "KiB",
    ));
    if root {
        // Its own memory can be looked at by root alone.
        rows.push(memory(toolcell, files)?);
    }
    Ok(rows)
}

fn native(toolcell: &Path, files: &Path) -> Result<Row> {
    const CALLS: usize = 400;
    let at_once = processors();
    let mut ours = run(toolcell);
    let mut session = Session::start(ours.arg("--").arg(files.join("server")))?;
    flood(&mut session, ("small", "{}"), CALLS, at_once)?;
    let mut floors = (0..at_once).map(|_| Floor::of(files)).collect::<Result<Vec<_>>>()?;
    let times = middle(|| {
        let (_, ours) = flood(&mut session, ("small", "{}"), CALLS, at_once)?;
        let start = Instant::now();
        thread::scope(|scope| {
            let turns = |floor: &mut Floor| {
                (0..CALLS / at_once)
                    .try_for_each(|_| floor.turn().map(drop))
                    .map_err(|error| error.to_string())
            };
            let all: Vec<_> = floors.iter_mut().map(|floor| scope.spawn(move || turns(floor))).collect();
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_panicked| "a thread panicked".to_owned())?)
        })?;
        Ok((ours, start.elapsed()))
    })?;
    session.end()?;
    Ok(rate("fresh calls a second, native server, against launches in C", CALLS, times, 0.8))
}

fn node(toolcell: &Path, files: &Path) -> Result<Row> {
    const CALLS: usize = 40;
    let at_once = processors();
    let server = files.join("node/node_modules/.bin/mcp-server-filesystem");
    let tool = ("list_allowed_directories", "{}");
    let mut ours = run(toolcell);
    let mut session = Session::start(
        ours.arg("--read").arg(files.join("node")).arg("--").arg(&server).arg(files.join("node")),
    )?;
    flood(&mut session, tool, CALLS, at_once)?;
    let bare = || -> Result<()> {
        for _ in 0..CALLS / at_once {
            let mut fresh = Session::start(Command::new(&server).arg(files.join("node")))?;
            fresh.call_with(tool.0, tool.1)?;
            fresh.kill()?;
        }
        Ok(())
    };
    let times = middle(|| Ok((flood(&mut session, tool, CALLS, at_once)?.1, side_by_side(at_once, bare)?)))?;
    session.end()?;
    Ok(rate("fresh calls a second, server of node, against start, call, kill", CALLS, times, 0.95))
}

/// What a waiting cell holds beside its server: its init.
fn memory(toolcell: &Path, files: &Path) -> Result<Row> {
    let mut ours = run(toolcell);
    let mut session = Session::start(ours.arg("--").arg(files.join("server")))?;
    session.call("small")?;
    crate::spares::ready(&session)?;
    let private = |pid: u32| -> Option<u64> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let field = |line: &str| {
            line.starts_with("Private_")
                .then(|| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .flatten()
        };
        (name.trim() == "toolcell-init").then(|| text.lines().filter_map(field).sum())
    };
    let held = family(session.pid()).into_iter().filter_map(private).max().ok_or("no cell waits")?;
    session.end()?;
    Ok(measure::amount("a started server that waits, beside the server itself", held, 512, "KiB"))
}

/// Series that are drawn, as lines of comma-separated values.
pub(crate) fn series(toolcell: &Path, files: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    fs::write(into.join("at-once.csv"), at_once(toolcell, files)?)?;
    fs::write(into.join("tools.csv"), tools(toolcell, files)?)?;
    Ok(fs::write(into.join("in-a-row.csv"), in_a_row(toolcell, files)?)?)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn at_once(toolcell: &Path, files: &Path) -> Result<String> {
    let server = files.join("server");
    let mut text = "contender,at once,median ms,99th of 100 ms,calls per second\n".to_owned();
    for at_once in [1, 2, 4, 8, 16, 32, 64] {
        for contender in ["with started servers", "without", "unprotected"] {
            let mut command = if contender == "unprotected" { Command::new(&server) } else { run(toolcell) };
            if contender != "unprotected" {
                let jobs = at_once.max(processors()).to_string();
                let spares = if contender == "without" { "0" } else { jobs.as_str() };
                command.args(["--jobs", &jobs, "--spares", spares, "--"]).arg(&server);
            }
            let mut session = Session::start(&mut command)?;
            flood(&mut session, ("small", "{}"), at_once.max(100), at_once)?;
            let calls = 400;
            let (times, whole) = flood(&mut session, ("small", "{}"), calls, at_once)?;
            session.end()?;
            let rate = f64::from(u32::try_from(calls)?) / whole.as_secs_f64();
            let (median, slow) = (milliseconds(times.median()), milliseconds(times.slow()));
            writeln!(text, "{contender},{at_once},{median:.3},{slow:.3},{rate:.0}")?;
        }
    }
    Ok(text)
}

fn tools(toolcell: &Path, files: &Path) -> Result<String> {
    let mut text = "tools,start ms,call ms\n".to_owned();
    let place = std::env::temp_dir().join(format!("toolcell-bench-{}-tools", std::process::id()));
    fs::create_dir_all(&place)?;
    for count in [1, 10, 100, 1000] {
        let mut config = format!("[servers.s]\ncommand = [\"{}\"]\n", files.join("server").display());
        for number in 0..count {
            writeln!(config, "[servers.s.tools.tool{number}]\nprofile = \"strict\"\nvalidate = \"off\"")?;
        }
        writeln!(config, "[servers.s.tools.small]\nvalidate = \"off\"")?;
        let file = place.join("servers.toml");
        fs::write(&file, config)?;
        let start = Instant::now();
        let mut session =
            Session::start(run(toolcell).args(["--spares", "0", "--config"]).arg(&file).arg("s"))?;
        let started = start.elapsed();
        let times = (0..100).map(|_| {
            let start = Instant::now();
            session.call("small").map(|_length| start.elapsed())
        });
        let times = Times::from(times.collect::<Result<Vec<_>>>()?);
        session.end()?;
        writeln!(text, "{count},{:.2},{:.3}", milliseconds(started), milliseconds(times.median()))?;
    }
    fs::remove_dir_all(&place)?;
    Ok(text)
}

/// Ten thousand calls in a row: what each of a thousand took, and the supervisor's resident memory in KiB behind them.
fn thousands(toolcell: &Path, files: &Path) -> Result<Vec<(Times, u64)>> {
    let mut session = Session::start(run(toolcell).arg("--").arg(files.join("server")))?;
    let mut all = Vec::new();
    for _thousand in 0..10 {
        let (times, _) = flood(&mut session, ("small", "{}"), 1000, 1)?;
        all.push((times, crate::relay::memory(session.pid(), "VmRSS")?));
    }
    session.end()?;
    Ok(all)
}

fn in_a_row(toolcell: &Path, files: &Path) -> Result<String> {
    let mut text = "calls,median ms,99th of 100 ms,supervisor KiB\n".to_owned();
    for (thousand, (times, held)) in (1..).zip(thousands(toolcell, files)?) {
        let (median, slow) = (milliseconds(times.median()), milliseconds(times.slow()));
        writeln!(text, "{},{median:.3},{slow:.3},{held}", thousand * 1000)?;
    }
    Ok(text)
}
