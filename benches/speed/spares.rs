//! A call that finds its server started, against the same call to a bare server that runs already, and to one that has had none.
//!
//! Neighbours: `relay` holds the sessions; `scripts/bench` puts the filesystem server of npm below `node/`. Never: counts the time in
//! which the next server is started as the call's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::leaks::family;
use crate::measure::{self, Result, Row, Times, turns};
use crate::relay::{Session, run};
use crate::whole;

/// What it may add for one whose own work is next to nothing.
const NATIVE: Duration = Duration::from_millis(1);
/// What it may add to the first call of a server of Node, which compiles then what the call needs: at the median, and for all but one of a
/// hundred.
const NODE: (Duration, Duration) = (Duration::from_micros(1500), Duration::from_millis(5));
/// What a call may cost beside the bare start of the program, where the client names `npx` and no server is started before it.
const NPX: Duration = Duration::from_millis(5);
/// The package of the filesystem server, as `scripts/fixtures` has it.
const PACKAGE: &str = "@modelcontextprotocol/server-filesystem@2026.8.31";
/// The share of a container's time.
const CONTAINER: f64 = 0.05;
/// How long a bare server rests before its first call, as a started one does.
const CALM: Duration = Duration::from_millis(200);
/// How long a started server may take to be stopped, which is when it waits for a call.
const READY: Duration = Duration::from_secs(20);

/// Returns when a started server waits.
pub(crate) fn ready(session: &Session) -> Result<()> {
    let end = Instant::now() + READY;
    let stopped = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    while !family(session.pid()).into_iter().any(stopped) {
        if Instant::now() > end {
            return Err("no started server waits".into());
        }
        measure::rest(Duration::from_millis(2));
    }
    Ok(())
}

/// Times of the call behind `run`, at the bare server, and as the first call of one.
fn compare(
    (mut ours, mut bare): (Command, Command),
    (tool, arguments): (&str, &str),
    rounds: usize,
) -> Result<[Times; 3]> {
    let (mut ours, mut running) = (Session::start(&mut ours)?, Session::start(&mut bare)?);
    // The first call has nobody before it who would have had a server started.
    ours.call_with(tool, arguments)?;
    let mut celled = || {
        ready(&ours)?;
        let start = Instant::now();
        ours.call_with(tool, arguments)?;
        Ok(start.elapsed())
    };
    let mut alone = || {
        let start = Instant::now();
        running.call_with(tool, arguments)?;
        Ok(start.elapsed())
    };
    let mut first = || {
        let mut fresh = Session::start(&mut bare)?;
        measure::rest(CALM);
        let start = Instant::now();
        fresh.call_with(tool, arguments)?;
        let time = start.elapsed();
        fresh.end()?;
        Ok(time)
    };
    let times = turns(rounds, [&mut celled, &mut alone, &mut first])?;
    ours.end()?;
    running.end()?;
    Ok(times)
}

/// What starts a container of this name, with the server in it.
type Engine<'a> = &'a dyn Fn(&str) -> Command;

/// By its specification alone, as those start one that have all else.
fn runc(files: &Path, name: &str) -> Command {
    let mut command = Command::new("runc");
    command.args(["run", "--bundle"]).arg(files.join("container")).arg(name);
    command
}

/// With no image to unpack, no network to make and no log to keep: the least of it.
fn podman(files: &Path, name: &str) -> Command {
    let place = files.join("podman");
    let mut command = Command::new("podman");
    for (option, directory) in [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        command.arg(option).arg(place.join(directory));
    }
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    command.args(["--storage-driver", "vfs", "run", "--rm", "--interactive", "--name", name]);
    command.args(["--network", "none", "--log-driver", "none"]);
    command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--rootfs"]);
    command.arg(files.join("container/rootfs")).arg("/server");
    command
}

/// The same call to the same server in a container that is started for it.
fn container(
    toolcell: &Path,
    files: &Path,
    (what, engine): (&str, Engine<'_>),
    rounds: usize,
) -> Result<Row> {
    let mut ours = Session::start(run(toolcell).arg("--").arg(files.join("server")))?;
    ours.call("small")?;
    let mut number = 0_u32;
    let mut celled = || {
        // A container changes the host's mounts, after which cells are built anew.
        ours.call("small")?;
        ready(&ours)?;
        let start = Instant::now();
        ours.call("small")?;
        Ok(start.elapsed())
    };
    let mut contained = || {
        number += 1;
        let name = format!("toolcell-bench-{}-call-{number}", std::process::id());
        let start = Instant::now();
        let mut fresh = Session::start(&mut engine(&name))?;
        fresh.call("small")?;
        let time = start.elapsed();
        fresh.end()?;
        Ok(time)
    };
    let [celled, contained] = turns(rounds.div_ceil(10), [&mut celled, &mut contained])?;
    ours.end()?;
    let what = format!("the same against a container of {what} a call");
    Ok(measure::ratio(&what, &celled, &contained, Some(CONTAINER)))
}

pub(crate) fn rows(toolcell: &Path, files: &Path, root: bool, rounds: usize) -> Result<Vec<Row>> {
    let native = files.join("server");
    let mut ours = run(toolcell);
    ours.arg("--").arg(&native);
    let [fresh, warm, _] = compare((ours, Command::new(&native)), ("small", "{}"), rounds)?;
    let mut rows = vec![measure::difference(
        "a call with its server started against a running one",
        &fresh,
        &warm,
        NATIVE,
    )];

    if root {
        let engines: [(&str, Engine<'_>); 2] =
            [("runc", &|name| runc(files, name)), ("podman", &|name| podman(files, name))];
        for engine in engines {
            rows.push(container(toolcell, files, engine, rounds)?);
        }
    }

    // One that a server of Node can read, and nobody else's.
    let folder = std::env::temp_dir().join(format!("toolcell-bench-{}-files", std::process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("file");
    fs::write(&file, "what is read\n")?;
    let server = files.join("node/node_modules/.bin/mcp-server-filesystem");
    let mut ours = run(toolcell);
    ours.arg("--read").arg(&folder).arg("--").arg(&server).arg(&folder);
    let mut bare = Command::new(&server);
    bare.arg(&folder);
    let arguments = format!(r#"{{"path":"{}"}}"#, file.display());
    let measured = compare((ours, bare), ("read_text_file", &arguments), rounds);
    let [fresh, warm, first] = measured?;
    rows.push(through_npx(toolcell, (&server, &folder), rounds)?);
    rows.push(measure::difference("the same for the filesystem server of npm", &fresh, &warm, NODE.0));
    rows.push(measure::difference_of_slow("that, all but one of a hundred", &fresh, &warm, NODE.1));
    rows.push(measure::difference("that server against its first call, bare", &fresh, &first, NODE.0));
    rows.push(measure::difference_of_slow("that, all but one of a hundred, too", &fresh, &first, NODE.1));
    fs::remove_dir_all(&folder)?;
    Ok(rows)
}

/// A call whose server is named by `npx` and started for it, against start, handshake and call of the program itself.
fn through_npx(toolcell: &Path, (server, folder): (&Path, &Path), rounds: usize) -> Result<Row> {
    let data = folder.join("data");
    let mut install = Command::new(toolcell);
    install.args(["install", &format!("npm:{PACKAGE}")]).env("XDG_DATA_HOME", &data);
    whole::run(&mut install)?;
    let place = folder.join("place");
    fs::create_dir(&place)?;
    fs::write(place.join("file"), "what is read\n")?;
    let arguments = format!(r#"{{"path":"{}"}}"#, place.join("file").display());
    let mut ours = run(toolcell);
    // As many processors as the bare one has.
    ours.args(["--spares", "0", "--cpu", "2"])
        .arg("--read")
        .arg(&place)
        .args(["--", "npx", "-y", PACKAGE])
        .arg(&place);
    let mut ours = Session::start(ours.env("XDG_DATA_HOME", &data))?;
    let mut bare = Command::new(server);
    bare.arg(&place);
    let mut celled = || {
        measure::rest(CALM);
        let start = Instant::now();
        ours.call_with("read_text_file", &arguments)?;
        Ok(start.elapsed())
    };
    let mut alone = || {
        measure::rest(CALM);
        let start = Instant::now();
        let mut fresh = Session::start(&mut bare)?;
        fresh.call_with("read_text_file", &arguments)?;
        let time = start.elapsed();
        fresh.end()?;
        Ok(time)
    };
    let [celled, alone] = turns(rounds, [&mut celled, &mut alone])?;
    ours.end()?;
    // Its directories are read-only.
    whole::run(Command::new(toolcell).args(["store", "gc", "--unused", "0s"]).env("XDG_DATA_HOME", &data))?;
    Ok(measure::difference("a call through npx, no server started before it", &celled, &alone, NPX))
}
