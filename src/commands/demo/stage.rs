//! The canaries of a demonstration: a home, a workspace, listeners, a process, each there to show that it was touched.
//!
//! Neighbours: `attacks` aims at them, `judge` looks at them. Never: uses anything of the real user.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{self, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Error;
use crate::hostile::CANARY;
use crate::policy::traps;
use crate::sys::process;

/// The environment variable with the planted key.
pub(super) const KEY: &str = "DEMO_API_KEY";

/// The hook that an attacker plants, under the demonstration's directory.
pub(super) const HOOK: &str = "home/.git/hooks/pre-commit";
/// The shell's start file in the canary home.
const SHELL_RC: &str = "home/.bashrc";
/// What it holds.
const SHELL_RC_TEXT: &str = "# an ordinary shell start file\n";

/// What a tool may write to in the workspace beside the workspace itself: the names that would be protected otherwise, for which
/// no cell is built ahead while they do not exist, and none at all on the lowest rung.
pub(super) fn left_to_the_tool(workspace: &Path) -> impl Iterator<Item = PathBuf> {
    traps::in_grant(workspace, None).into_iter().map(|protected| protected.rule.path)
}

/// A directory that is removed with everything in it.
#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// The process that attackers are led to: a hostile server that nobody asks to do anything.
#[derive(Debug)]
struct Marker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Marker {
    /// Takes over a process with pipes.
    fn new(mut child: Child) -> Self {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout }
    }

    /// Asks for a sign of life.
    fn answers(&mut self) -> io::Result<bool> {
        let (Some(stdin), Some(stdout)) = (&mut self.stdin, &mut self.stdout) else { return Ok(false) };
        stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\n")?;
        let mut line = String::new();
        Ok(stdout.read_line(&mut line)? > 0)
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// All canaries.
#[derive(Debug)]
pub(super) struct Stage {
    directory: Directory,
    program: PathBuf,
    token: String,
    tcp: TcpListener,
    udp: UdpSocket,
    path_socket: UnixListener,
    abstract_socket: UnixListener,
    marker: Option<Marker>,
}

/// Words for what could not be made.
fn prepare<T>(what: impl AsRef<Path>, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|cause| Error::Prepare { what: what.as_ref().display().to_string(), cause })
}

impl Stage {
    /// Sets everything up. All of it can be read by every user: what keeps a tool out must be its cell.
    pub(super) fn new(program: &Path) -> Result<Self, Error> {
        let token = prepare("/dev/urandom", random_token())?;
        let path = std::env::temp_dir().join(format!("toolcell-demo-{token}"));
        prepare(&path, DirBuilder::new().mode(0o755).create(&path))?;
        let directory = Directory(path);
        let root = directory.0.as_path();
        for name in ["home", "home/.ssh", "home/.git", "home/.git/hooks", "workspace"] {
            let path = root.join(name);
            prepare(&path, DirBuilder::new().mode(0o755).create(&path))?;
        }
        for (name, content) in
            [("home/.ssh/id_ed25519", format!("{CANARY}{token}\n")), (SHELL_RC, SHELL_RC_TEXT.to_owned())]
        {
            let path = root.join(name);
            prepare(&path, fs::write(&path, content))?;
            prepare(&path, fs::set_permissions(&path, Permissions::from_mode(0o644)))?;
        }
        for path in left_to_the_tool(&root.join("workspace")) {
            prepare(&path, File::create(&path))?;
        }
        let audit = root.join("audit.jsonl");
        prepare(&audit, OpenOptions::new().write(true).create_new(true).mode(0o600).open(&audit))?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let tcp = prepare("127.0.0.1", TcpListener::bind(loopback))?;
        prepare("127.0.0.1", tcp.set_nonblocking(true))?;
        let udp = prepare("127.0.0.1", UdpSocket::bind(loopback))?;
        prepare("127.0.0.1", udp.set_nonblocking(true))?;
        let socket = root.join("home/agent.sock");
        let path_socket = prepare(&socket, UnixListener::bind(&socket))?;
        prepare(&socket, path_socket.set_nonblocking(true))?;
        prepare(&socket, fs::set_permissions(&socket, Permissions::from_mode(0o777)))?;
        let name = abstract_name(&token);
        let abstract_socket = net::SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let abstract_socket = prepare(name, abstract_socket)?;
        prepare(
            "subreaper",
            process::become_subreaper().map_err(|errno| io::Error::from_raw_os_error(errno.0)),
        )?;
        let program = program.to_path_buf();
        let marker = None;
        let mut stage = Self { directory, program, token, tcp, udp, path_socket, abstract_socket, marker };
        stage.ready()?;
        Ok(stage)
    }

    /// Sees to it that the marker process lives.
    pub(super) fn ready(&mut self) -> Result<(), Error> {
        if self.marker_lives() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.arg("hostile-server").env_clear().env(KEY, self.secret());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.end();
        self.marker = Some(Marker::new(prepare(&self.program, command.spawn())?));
        if self.marker_lives() {
            Ok(())
        } else {
            prepare(&self.program, Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    /// Does the marker process answer? A signal that it was sent before has its effect before the answer.
    pub(super) fn marker_lives(&mut self) -> bool {
        self.marker.as_mut().is_some_and(|marker| marker.answers().unwrap_or(false))
    }

    /// The marker's process id.
    pub(super) fn marker(&self) -> Option<u32> {
        self.marker.as_ref().map(|marker| marker.child.id())
    }

    /// Ends the marker process, which reads to the end of its input.
    pub(super) fn end(&mut self) {
        drop(self.marker.take());
    }

    /// What makes this demonstration's names its own.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The content of the planted key.
    pub(super) fn secret(&self) -> String {
        format!("{CANARY}{}", self.token)
    }

    /// The name a daemon gives itself: what the kernel keeps of it fits in 15 bytes.
    pub(super) fn daemon(&self) -> String {
        format!("tc{}", self.token.get(..12).unwrap_or_default())
    }

    /// The id of the call whose answer is forged.
    pub(super) fn victim(&self) -> String {
        format!("victim-{}", self.token)
    }

    /// A path under the demonstration's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// Where the audit log is.
    pub(super) fn audit(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    /// Is the home directory as it was made? It is again after the question.
    pub(super) fn is_as_made(&self) -> io::Result<bool> {
        let (rc, hook) = (self.path(SHELL_RC), self.path(HOOK));
        let planted = fs::symlink_metadata(&hook).is_ok();
        let changed = fs::read(&rc)? != SHELL_RC_TEXT.as_bytes();
        if planted {
            fs::remove_file(hook)?;
        }
        if changed {
            fs::write(rc, SHELL_RC_TEXT)?;
        }
        Ok(!planted && !changed)
    }

    /// Is there a set-user-id file in the workspace? It is removed with the question.
    pub(super) fn has_setuid(&self) -> io::Result<bool> {
        let mut found = false;
        for entry in fs::read_dir(self.path("workspace"))? {
            let entry = entry?;
            if entry.metadata()?.permissions().mode() & 0o6000 != 0 {
                fs::remove_file(entry.path())?;
                found = true;
            }
        }
        Ok(found)
    }

    /// The name of the abstract socket.
    pub(super) fn abstract_name(&self) -> String {
        abstract_name(&self.token)
    }

    /// The address of the TCP listener.
    pub(super) fn tcp(&self) -> String {
        self.tcp.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    /// The address of the UDP socket.
    pub(super) fn udp(&self) -> String {
        self.udp.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    /// Did anybody connect, or send something, since the last look?
    pub(super) fn was_called(&self) -> bool {
        let calls = [
            self.tcp.accept().is_ok(),
            self.udp.recv(&mut [0; 64]).is_ok(),
            self.path_socket.accept().is_ok(),
            self.abstract_socket.accept().is_ok(),
        ];
        calls.contains(&true)
    }
}

/// The name of the abstract socket.
fn abstract_name(token: &str) -> String {
    format!("toolcell-demo-{token}")
}

/// Sixteen characters that nobody else has.
fn random_token() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
