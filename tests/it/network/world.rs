//! A directory with a profile, programs in cells of `toolcell exec`, and hosts that they reach. Never: checks anything by itself.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{fs, thread};

use serde_json::Value;

use crate::session::world::Scratch;

/// The interpreter of the scripts.
pub(super) const PYTHON: [&str; 4] = ["/usr/bin/python3", "-S", "-E", "-c"];

/// What came of a cell.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) report: Value,
}

impl Executed {
    /// Operation, object and allowing line of each violation of the doors.
    pub(super) fn refused(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = self.report["violations"].as_array().unwrap().iter();
        all.filter(|violation| violation["layer"] == "network")
            .map(|found| (text(&found["operation"]), text(&found["object"]), text(&found["allow"])))
            .collect()
    }

    /// Was this refused, with this line to allow it?
    #[track_caller]
    pub(super) fn has_refused(&self, operation: &str, object: &str, allow: &str) {
        let wanted = (operation.to_owned(), object.to_owned(), allow.to_owned());
        assert!(self.refused().contains(&wanted), "{wanted:?} is not in {:#?}", self.refused());
    }

    /// Each connection: the door, bytes both ways, who closed it.
    pub(super) fn connections(&self) -> Vec<(String, u64, u64, String)> {
        let all = self.report["traffic"]["connections"].as_array().unwrap().iter();
        all.map(|one| {
            let [to, by] = ["to", "closed_by"].map(|key| one[key].as_str().unwrap().to_owned());
            let [up, down] = ["up", "down"].map(|key| one[key].as_u64().unwrap());
            (to, up, down, by)
        })
        .collect()
    }
}

/// One test's.
pub(super) struct World(pub(super) Scratch);

impl World {
    pub(super) fn new() -> Self {
        crate::facts();
        Self(Scratch::outside_of_scratch())
    }

    /// A profile on top of `default` with this in `[network]`.
    pub(super) fn profile(&self, network: &str) -> PathBuf {
        let path = self.0.0.join("test.toml");
        fs::write(&path, format!("extends = \"default\"\n[network]\n{network}\n")).unwrap();
        path
    }

    /// A command in a cell with this in `[network]` and these options.
    pub(super) fn exec(&self, network: &str, options: &[&str], command: &[&str]) -> Executed {
        let mut toolcell = self.command(network, options, command);
        self.finished(&toolcell.stdin(Stdio::null()).output().unwrap())
    }

    /// The same, not started yet.
    pub(super) fn command(&self, network: &str, options: &[&str], command: &[&str]) -> Command {
        let report = self.0.0.join("report");
        drop(fs::remove_file(&report));
        let mut toolcell = Command::new(crate::binary());
        toolcell.args(["exec", "--floor", crate::cell::floor(), "--profile"]).arg(self.profile(network));
        toolcell.arg("--report").arg(&report).args(options).arg("--").args(command).current_dir(&self.0.0);
        toolcell
    }

    /// What came of a command, with its report.
    pub(super) fn finished(&self, output: &Output) -> Executed {
        let report = self.0.0.join("report");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stderr = text(&output.stderr);
        let report = fs::read(&report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let code = output.status.code().unwrap();
        Executed { code, stdout: text(&output.stdout), stderr, report: report.unwrap_or(Value::Null) }
    }

    /// A script of Python; `import socket` is at its beginning.
    pub(super) fn python(&self, network: &str, script: &str) -> Executed {
        let script = format!("import errno, socket, sys\n{script}");
        self.exec(network, &[], &[&PYTHON[..], &[&script]].concat())
    }
}

/// A host that does this with each connection, each in a thread of its own.
pub(super) fn host(serve: fn(TcpStream)) -> u16 {
    host_at("127.0.0.1:0".parse().unwrap(), serve).unwrap().port()
}

/// The same at an address of its own.
pub(super) fn host_at(
    address: SocketAddr,
    serve: impl Fn(TcpStream) + Clone + Send + 'static,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    Ok(bound)
}

/// Says everything again.
pub(super) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _gone = stream.shutdown(Shutdown::Write).is_err();
}

/// Says how much it was told, when the other side has said all.
pub(super) fn counting(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _gone = stream.write_all(format!("{} bytes", all.len()).as_bytes()).is_err();
    }
}

/// Has this host IPv6, and so a cell?
pub(super) fn has_six() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|all| !all.is_empty())
}

/// A name of a loopback address that every libc knows, and that is not `localhost`.
pub(super) fn name_of_this_host() -> Option<String> {
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let mut names = lines.flat_map(|mut words| {
        let address = words.next().and_then(|word| word.parse::<std::net::IpAddr>().ok());
        let loopback = address.is_some_and(|address| address.is_loopback());
        words.filter(move |_| loopback).map(str::to_owned).collect::<Vec<_>>()
    });
    let found = names.find(|name| name != "localhost" && toolcell::policy::network::is_name(name));
    if found.is_none() {
        crate::cell::note("/etc/hosts has no name of a loopback address but localhost");
    }
    found
}
