//! Connections through doors against the same ones without anything between, and through the least that can be between: a program of C
//! that passes on; in turn with others' ways out of a network namespace: `pasta`, and an HTTP proxy to which `socat` leads, on each side of a
//! unix socket.
//!
//! Neighbours: `benches/doors.c` connects and times itself. Never: leaves the host.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use crate::measure::{self, Result, Row, Times, turns};

/// Bytes of one transfer, and what part of a direct connection's throughput there is to be.
const BYTES: u32 = 1 << 28;
const SLOWER: f64 = 1.25;
/// What part of that program's time a door may take.
const OF_LEAST: f64 = 1.1;
/// What a door may add to a round trip, and to a connection with its first words.
const TRIPS: u32 = 2000;
const ADDED_TO_TRIP: Duration = Duration::from_micros(30);
const CONNECTIONS: u32 = 200;
const ADDED_TO_CONNECTION: Duration = Duration::from_micros(100);
/// Connections at once, and the most that they may add to the process that keeps doors, in KiB.
const CROWD: u32 = 1000;
const GROWTH_KIB: u64 = 8 * 1024;

/// Answers each connection as it asks in its first 32 bytes.
fn serve(mut stream: TcpStream) -> Result<()> {
    let mut word = [0; 32];
    stream.set_nodelay(true)?;
    stream.read_exact(&mut word)?;
    let word = String::from_utf8_lossy(&word);
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    if let Some(count) = word.trim_end_matches('\0').strip_prefix("send ") {
        stream.read_exact(&mut byte)?;
        let mut left: usize = count.parse()?;
        let part = vec![b'x'; 1 << 18];
        while left > 0 {
            let now = part.get(..left.min(part.len())).unwrap_or_default();
            stream.write_all(now)?;
            left -= now.len();
        }
    }
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn host() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new().stack_size(1 << 19).spawn(move || drop(serve(stream))).map(drop).ok();
        }
    });
    Ok(port)
}

/// A command as a user with the device of tunnels, in a directory that nobody else sees.
const AS_NOBODY: &str = "mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
                         exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";

/// Ways from a program to the host.
struct Ways {
    toolcell: PathBuf,
    profile: PathBuf,
    client: String,
    socket: String,
    port: u16,
    at: u16,
    /// Where the program of C leads from.
    least: u16,
    by: Vec<Child>,
    configuration: PathBuf,
    root: bool,
}

impl Drop for Ways {
    fn drop(&mut self) {
        for by in &mut self.by {
            let _gone = by.kill().is_err() || by.wait().is_err();
        }
        for file in [Path::new(&self.socket), &self.profile, &self.configuration] {
            let _gone = fs::remove_file(file).is_err();
        }
    }
}

impl Ways {
    fn new(toolcell: &Path, files: &Path, root: bool) -> Result<Self> {
        let port = host()?;
        let own = |name: &str| std::env::temp_dir().join(format!("doors-{}-{name}", std::process::id()));
        let profile = own("profile.toml");
        let allowed = format!(
            "extends = \"default\"\n[network]\nallow = [\"127.0.0.1:{port}\"]\nconnections = 1024\n[limits]\nopen-files = 4096\n"
        );
        fs::write(&profile, allowed)?;
        let client = files.join("doors").to_str().ok_or("a name that is no text")?.to_owned();
        let socket = own("socket").to_str().ok_or("a name that is no text")?.to_owned();
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (at, least, proxy) = (free()?.port(), free()?.port(), free()?.port());
        let configuration = own("proxy.conf");
        fs::write(
            &configuration,
            format!("Listen 127.0.0.1\nPort {proxy}\nMaxClients 1024\nLogLevel Critical\n"),
        )?;
        let proxies = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(&configuration)
            .stdout(Stdio::null())
            .spawn()?;
        let to_proxy = Command::new("socat")
            .arg(format!("UNIX-LISTEN:{socket},fork,mode=600"))
            .arg(format!("PROXY:127.0.0.1:127.0.0.1:{port},proxyport={proxy},nodelay"))
            .stderr(Stdio::null())
            .spawn()?;
        let passes = Command::new(&client).args(["pass", &least.to_string(), &port.to_string()]).spawn()?;
        Ok(Self {
            toolcell: toolcell.to_owned(),
            profile,
            client,
            socket,
            port,
            at,
            least,
            by: vec![proxies, to_proxy, passes],
            configuration,
            root,
        })
    }

    fn direct(&self, what: &str, number: u32) -> Command {
        self.to(self.port, what, number)
    }

    fn least(&self, what: &str, number: u32) -> Command {
        self.to(self.least, what, number)
    }

    fn to(&self, port: u16, what: &str, number: u32) -> Command {
        let mut command = Command::new(&self.client);
        command.args([what, "127.0.0.1", &port.to_string(), &number.to_string()]);
        command
    }

    fn door(&self, what: &str, number: u32) -> Command {
        let mut command = Command::new(&self.toolcell);
        command.args(["exec", "--cpu", "2", "--profile"]).arg(&self.profile).arg("--").arg(&self.client);
        command.args([what, "127.0.0.1", &self.port.to_string(), &number.to_string()]);
        command
    }

    fn pasta(&self, what: &str, number: u32) -> Command {
        // It waits for ever where it cannot go on.
        let mut command = Command::new("timeout");
        command.arg("10");
        // Started by root it becomes a user who may not do what it needs, and who has its device only where that is for everybody.
        if self.root {
            command.args(["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh"]);
        }
        let port = self.port.to_string();
        command.args([
            "pasta",
            "--quiet",
            "--config-net",
            "--tcp-ports",
            "none",
            "--udp-ports",
            "none",
            "--udp-ns",
            "none",
        ]);
        command.args(["--tcp-ns", &port, "--", &self.client, what, "127.0.0.1", &port, &number.to_string()]);
        command
    }

    /// `socat` on each side of the socket, one in a network namespace with nothing in it, and behind the other the proxy.
    fn bridged(&self, what: &str, number: u32) -> Command {
        let mut command = Command::new("bwrap");
        command.args([
            "--dev-bind",
            "/",
            "/",
            "--unshare-net",
            "--unshare-pid",
            "--die-with-parent",
            "--",
            "sh",
            "-c",
        ]);
        command.arg("socat TCP-LISTEN:$2,fork,reuseaddr,bind=127.0.0.1,nodelay UNIX-CONNECT:$1 2>/dev/null & shift 2; exec \"$@\"");
        command.args(["sh", &self.socket, &self.at.to_string(), &self.client]);
        command.args([what, "127.0.0.1", &self.at.to_string(), &number.to_string()]);
        command
    }
}

/// The time that a program says it took, for each of so many.
fn told(mut command: Command, number: u32) -> Result<Duration> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let nanoseconds = text.trim().parse().map_err(|_number| {
        format!("{command:?} said `{}` and {}", text.trim(), String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(Duration::from_nanos(nanoseconds) / number)
}

/// A field of the process that keeps the doors of this one, in KiB.
fn porter(holder: u32, field: &str) -> Result<u64> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()
        };
        if value("Name") == Some("toolcell-doors") && value("PPid") == Some(&holder.to_string()) {
            return Ok(value(field).ok_or("no such field")?.parse()?);
        }
    }
    Err("nobody keeps the doors".into())
}

/// What the process that keeps doors holds while so many connections are open.
fn held(ways: &Ways, number: u32) -> Result<u64> {
    let mut child = ways.door("crowd", number).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let found = porter(child.id(), "VmHWM");
    child.stdin.take().ok_or("no stdin")?.write_all(b"\n")?;
    let status = child.wait()?;
    if line != "there\n" || !status.success() {
        return Err(format!("{number} connections at once: {line:?}, {status}").into());
    }
    found
}

/// A peer that this host does not have, or cannot start, is left out. Some of its versions stand still at times: such a run does not
/// count against it.
fn optional(works: bool, told: impl Fn() -> Result<Duration>) -> Result<Duration> {
    if works { told().or_else(|_still| told()).or_else(|_still| told()) } else { Ok(Duration::ZERO) }
}

pub(crate) fn rows(toolcell: &Path, files: &Path, root: bool, rounds: usize) -> Result<Vec<Row>> {
    let ways = Ways::new(toolcell, files, root)?;
    // Where its device is not the user's it neither goes on nor ends.
    let device = fs::metadata("/dev/net/tun").is_ok_and(|device| device.mode() & 0o006 == 0o006);
    let pasta_works = (root || device) && told(ways.pasta("trips", 1), 1).is_ok();
    if !pasta_works {
        eprintln!("`pasta` does not start here, and is left out");
    }
    let compare = |what: &str, number: u32, per: u32, rounds: usize| -> Result<[Times; 5]> {
        turns(
            rounds,
            [
                &mut || told(ways.direct(what, number), per),
                &mut || told(ways.door(what, number), per),
                &mut || told(ways.least(what, number), per),
                &mut || optional(pasta_works, || told(ways.pasta(what, number), per)),
                &mut || told(ways.bridged(what, number), per),
            ],
        )
    };
    let [direct, door, least, pasta, bridged] = compare("bytes", BYTES, 1, rounds.min(15))?;
    let mut rows = vec![
        measure::ratio("256 MiB through a door against a direct connection", &door, &direct, Some(SLOWER)),
        measure::ratio("256 MiB through a program of C that passes on", &least, &direct, None),
        measure::ratio("256 MiB through a door against that program", &door, &least, Some(OF_LEAST)),
        measure::ratio("256 MiB through pasta", &pasta, &direct, None),
        measure::ratio("256 MiB through an HTTP proxy behind socat", &bridged, &direct, None),
    ];
    for (what, number, limit) in
        [("trips", TRIPS, ADDED_TO_TRIP), ("connections", CONNECTIONS, ADDED_TO_CONNECTION)]
    {
        let [direct, door, least, pasta, bridged] = compare(what, number, number, rounds.min(25))?;
        let name = if what == "trips" { "a round trip" } else { "a connection and its first words" };
        rows.extend([
            measure::difference_in_us(&format!("{name} through a door"), &door, &direct, Some(limit)),
            measure::difference_in_us(&format!("{name} through a program of C"), &least, &direct, None),
            measure::difference_in_us(&format!("{name} through pasta"), &pasta, &direct, None),
            measure::difference_in_us(
                &format!("{name} through an HTTP proxy behind socat"),
                &bridged,
                &direct,
                None,
            ),
        ]);
    }
    let (few, many) = (held(&ways, 10)?, held(&ways, CROWD)?);
    let grown = many.saturating_sub(few);
    rows.push(measure::amount(
        "what 1,000 connections at once add to who keeps doors",
        grown,
        GROWTH_KIB,
        "KiB",
    ));
    rows.retain(|row| pasta_works || !row.what.ends_with("pasta"));
    Ok(rows)
}
