//! The canaries of a demonstration: a home, a workspace, listeners, a process, each there to show that it was touched.
//!
//! Neighbours: `attacks` aims at them, `judge` looks at them. Never: uses anything of the real user.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{self, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use serde_json::json;

use super::Error;
use super::attacks::Sign;
use super::limit::Limit;
use crate::hostile::{self, CANARY, GRANTED, SECRETS, TRAPS, guarded};
use crate::policy::traps;
use crate::sys::observe::SharedObjects;
use crate::sys::{Errno, descriptor, process};

/// The environment variable with the planted key.
pub(super) const KEY: &str = "DEMO_API_KEY";

/// The hook that an attacker plants, under the demonstration's directory.
pub(super) const HOOK: &str = "home/.git/hooks/pre-commit";
/// A link in the workspace to the key, which lies there before any attack.
pub(super) const LINK: &str = "workspace/planted";
/// A directory that is granted like the workspace, but for the names in it that the host trusts.
pub(super) const PROJECT: &str = "project";
/// A key beside the workspace, in a directory whose name begins like it.
pub(super) const SIBLING: &str = "workspace-of-others/key";
/// Where a directory is made of which a call is to have what it names: not in the directory for temporary files, which is the
/// cell's own scratch directory for most users, and into which nothing is put.
const ASIDE: &str = "/var/tmp";
/// What calls name there, and what none does.
const GIVEN: &str = "given";
const UNNAMED: &str = "of-another-call";
/// The argument that names it.
pub(super) const ARGUMENT: &str = "named";
/// The subcommand that is the hostile server.
pub(super) const HOSTILE: &str = "hostile-server";
/// What files hold that no secret is in.
const ORDINARY: &str = "# an ordinary file\n";
/// The times of every file of the home.
const MADE: SystemTime = SystemTime::UNIX_EPOCH;
/// The least number of a descriptor that is left open for attackers to find.
const LEFT_OPEN: i32 = 100;
/// A group that is for use within one site.
const MULTICAST: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);
/// How much may come on standard error before it is a flood.
const FLOOD: u64 = 1 << 16;

/// What a tool may write to in the workspace beside the workspace itself: the names that would be protected otherwise, for which
/// no cell is built ahead while they do not exist, and none at all on the lowest rung.
pub(super) fn left_to_the_tool(workspace: &Path) -> impl Iterator<Item = PathBuf> {
    traps::in_grant(workspace, None).into_iter().map(|protected| protected.rule.path)
}

/// Beside the workspace, where the configuration is.
const CONFIGURATION: &str = "servers.toml";

/// A configuration of the hostile server in which the calls of every tool have what they name in a directory.
fn configuration(program: &Path, named: &Path) -> String {
    let command = json!([program, HOSTILE]);
    let grant = format!("{{ argument = \"/{ARGUMENT}\", access = \"read\", within = {} }}", json!([named]));
    let tools =
        hostile::tool_names().map(|tool| format!("[servers.hostile.tools.{tool}]\ngrants = [{grant}]\n"));
    format!("[servers.hostile]\ncommand = {command}\n{}", tools.collect::<String>())
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
    /// Of which a call is to have what it names.
    named: Directory,
    program: PathBuf,
    /// How long a call may take.
    pub(super) limit: Limit,
    token: String,
    tcp: TcpListener,
    /// None where the host has no IPv6.
    tcp6: Option<TcpListener>,
    udp: UdpSocket,
    /// A member of [`MULTICAST`] on the loopback interface, where the host lets one be.
    multicast: Option<UdpSocket>,
    /// An open file with a secret, which every process that is started inherits.
    _left_open: OwnedFd,
    /// None where the host has none of one kind.
    _shared: Option<SharedObjects>,
    path_socket: UnixListener,
    abstract_socket: UnixListener,
    marker: Option<Marker>,
    /// The project as it was made.
    project: BTreeMap<PathBuf, Entry>,
    /// How much had come on standard error before the attack that is being made.
    said: u64,
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
        let secret = format!("{CANARY}{token}\n");
        prepare(root, make_home(&root.join("home"), &secret))?;
        let workspace = root.join("workspace");
        prepare(&workspace, DirBuilder::new().mode(0o755).create(&workspace))?;
        let project = root.join(PROJECT);
        let project = prepare(&project, make_project(&project).and_then(|()| manifest(&project)))?;
        prepare(LINK, symlink(root.join("home/.ssh/id_ed25519"), root.join(LINK)))?;
        prepare(SIBLING, make_file(&root.join(SIBLING), &secret))?;
        let aside = Path::new(ASIDE).join(format!("toolcell-demo-{token}"));
        let made = DirBuilder::new().mode(0o755).create(&aside);
        let named = Directory(made.map_or_else(|_| root.join("named"), |()| aside));
        prepare(UNNAMED, make_file(&named.0.join(UNNAMED), &secret))?;
        prepare(GIVEN, make_file(&named.0.join(GIVEN), ORDINARY))?;
        let configuration = configuration(program, &named.0);
        prepare(CONFIGURATION, fs::write(root.join(CONFIGURATION), configuration))?;
        prepare("stderr", make_file(&root.join("stderr"), &secret))?;
        for path in left_to_the_tool(&workspace) {
            prepare(&path, File::create(&path))?;
        }
        let left_open = prepare("a descriptor", leave_open(&root.join(SIBLING)))?;
        let audit = root.join("audit.jsonl");
        prepare(&audit, OpenOptions::new().write(true).create_new(true).mode(0o600).open(&audit))?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let tcp = prepare("127.0.0.1", TcpListener::bind(loopback))?;
        prepare("127.0.0.1", tcp.set_nonblocking(true))?;
        let tcp6 = TcpListener::bind("[::1]:0").and_then(|tcp| tcp.set_nonblocking(true).map(|()| tcp)).ok();
        let udp = prepare("127.0.0.1", UdpSocket::bind(loopback))?;
        prepare("127.0.0.1", udp.set_nonblocking(true))?;
        let multicast = UdpSocket::bind("0.0.0.0:0").and_then(|udp| {
            udp.join_multicast_v4(&MULTICAST, &Ipv4Addr::LOCALHOST)?;
            udp.set_nonblocking(true).map(|()| udp)
        });
        let socket = root.join("agent.sock");
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
        let queue = CString::new(format!("toolcell-demo-{token}")).unwrap_or_default();
        let mut stage = Self {
            named,
            _left_open: left_open,
            _shared: SharedObjects::new(key(&token), queue).ok(),
            multicast: multicast.ok(),
            directory,
            program,
            limit: Limit::default(),
            token,
            tcp,
            tcp6,
            udp,
            path_socket,
            abstract_socket,
            marker,
            project,
            said: 0,
        };
        stage.ready(Sign::Word)?;
        Ok(stage)
    }

    /// Before each attack: sees to it that the marker process lives, that what the host trusts is there, or not, and how
    /// much was said until now.
    pub(super) fn ready(&mut self, sign: Sign) -> Result<(), Error> {
        let project = self.path(PROJECT);
        prepare(
            &project,
            match sign {
                Sign::NoTraps => remove_traps(&project),
                _ => self.traps_are_as_made().map(drop),
            },
        )?;
        let words = self.words();
        self.said = prepare(&words, fs::metadata(&words))?.len();
        if self.marker_lives() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.arg(HOSTILE).env_clear().env(KEY, self.secret());
        command.arg0(self.secret()).current_dir(self.path("home"));
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

    /// The directory of which a call is to have what it names, where its tool has that.
    pub(super) fn named(&self) -> &Path {
        &self.named.0
    }

    /// What calls name there.
    pub(super) fn given(&self) -> PathBuf {
        self.named.0.join(GIVEN)
    }

    /// What no call names there.
    pub(super) fn unnamed(&self) -> PathBuf {
        self.named.0.join(UNNAMED)
    }

    /// The configuration by which each call has what it names.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path(CONFIGURATION)
    }

    /// Where the standard error of what is attacked from goes.
    pub(super) fn words(&self) -> PathBuf {
        self.path("stderr")
    }

    /// Is the home directory as it was made? It is again after the question.
    pub(super) fn is_as_made(&self) -> io::Result<bool> {
        let (home, secret) = (self.path("home"), format!("{}\n", self.secret()));
        let found = manifest(&home)?;
        fs::remove_dir_all(&home)?;
        make_home(&home, &secret)?;
        Ok(found == manifest(&home)?)
    }

    /// Is the project as it was made? It is again after the question.
    pub(super) fn traps_are_as_made(&self) -> io::Result<bool> {
        let project = self.path(PROJECT);
        let as_made = manifest(&project)? == self.project;
        // Another directory by this name would be another grant, for which no cell waits.
        if !as_made {
            fs::remove_dir_all(&project)?;
            make_project(&project)?;
        }
        Ok(as_made)
    }

    /// Is anything in the project that the host trusts?
    pub(super) fn has_traps(&self) -> bool {
        let project = self.path(PROJECT);
        GRANTED.iter().any(|name| fs::symlink_metadata(project.join(guarded(name))).is_ok())
    }

    /// What attackers made in the workspace and in the home, the hook of which nobody takes away.
    pub(super) fn planted(&self) -> io::Result<Vec<String>> {
        let mut planted = Vec::new();
        for entry in fs::read_dir(self.path("workspace"))? {
            planted.push(entry?.path());
        }
        planted.push(self.path(HOOK));
        let own: Vec<PathBuf> = left_to_the_tool(&self.path("workspace")).collect();
        planted.retain(|path| {
            let empty = || fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0);
            let as_made = *path == self.path(LINK) || (own.contains(path) && empty());
            !as_made && fs::symlink_metadata(path).is_ok()
        });
        Ok(planted.into_iter().map(|path| path.display().to_string()).collect())
    }

    /// Is there anything in the audit log, or in what was said on standard error, that begins a line or moves a cursor by
    /// an attacker's word?
    pub(super) fn log_is_forged(&self) -> io::Result<bool> {
        let forged = format!("\n{{\"forged\":\"{}", self.secret());
        let mut found = false;
        for path in [self.audit(), self.words()] {
            let text = fs::read(path)?;
            let text = String::from_utf8_lossy(&text);
            found |= text.contains(&forged) || text.contains('\x1b') || text.contains('\u{2028}');
        }
        Ok(found)
    }

    /// Has the audit log what [`hostile`] adds to a file?
    pub(super) fn log_was_added_to(&self) -> io::Result<bool> {
        let text = fs::read(self.audit())?;
        Ok(text.windows(hostile::LINE.len()).any(|window| window == hostile::LINE))
    }

    /// Did more come on standard error in this attack than a person reads?
    pub(super) fn was_flooded(&self) -> io::Result<bool> {
        Ok(fs::metadata(self.words())?.len().saturating_sub(self.said) > FLOOD)
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

    /// The same port at another address that means the loopback interface.
    pub(super) fn tcp_as(&self, address: &str) -> String {
        format!("{address}:{}", self.tcp.local_addr().map_or(1, |address| address.port()))
    }

    /// The address of the IPv6 listener; one where nobody listens, if there is none.
    pub(super) fn tcp6(&self) -> String {
        let address = self.tcp6.as_ref().and_then(|tcp| tcp.local_addr().ok());
        address.map_or_else(|| "[::1]:1".to_owned(), |address| address.to_string())
    }

    /// The group's address and the port of its member.
    pub(super) fn multicast(&self) -> String {
        let address = self.multicast.as_ref().and_then(|udp| udp.local_addr().ok());
        format!("{MULTICAST}:{}", address.map_or(1, |address| address.port()))
    }

    /// The key of the shared memory segment.
    pub(super) fn key(&self) -> i32 {
        key(&self.token)
    }

    /// The name of the message queue.
    pub(super) fn queue(&self) -> String {
        abstract_name(&self.token)
    }

    /// The address of the UDP socket.
    pub(super) fn udp(&self) -> String {
        self.udp.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    /// Where the host asks for names: the first name server of resolv.conf(5), or what a host without one asks.
    pub(super) fn resolver() -> String {
        let server = hostile::own_servers().into_iter().next();
        server.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 53))).to_string()
    }

    /// Did anybody connect, or send something, since the last look?
    pub(super) fn was_called(&self) -> bool {
        let calls = [
            self.tcp.accept().is_ok(),
            self.tcp6.as_ref().is_some_and(|tcp| tcp.accept().is_ok()),
            self.udp.recv(&mut [0; 64]).is_ok(),
            self.multicast.as_ref().is_some_and(|udp| udp.recv(&mut [0; 64]).is_ok()),
            self.path_socket.accept().is_ok(),
            self.abstract_socket.accept().is_ok(),
        ];
        calls.contains(&true)
    }
}

/// Makes the canary home: keys that are secret, and half of what a host trusts; the other half is not there.
fn make_home(home: &Path, secret: &str) -> io::Result<()> {
    let traps = TRAPS.iter().step_by(2).map(|name| (name, ORDINARY));
    for (name, content) in SECRETS.iter().map(|name| (name, secret)).chain(traps) {
        make_file(&home.join(name), content)?;
    }
    fs::create_dir_all(home.join(".git/hooks"))
}

/// Makes the project: a repository and all the rest that a host trusts, so that no place has to be kept for a name.
fn make_project(project: &Path) -> io::Result<()> {
    for name in GRANTED {
        make_file(&project.join(name), if *name == ".git/commondir" { ".\n" } else { ORDINARY })?;
    }
    make_file(&project.join(".git/HEAD"), "ref: refs/heads/main\n")?;
    fs::create_dir_all(project.join(".git/objects"))?;
    fs::create_dir_all(project.join(".git/refs/heads"))
}

/// Takes away what a host trusts, and leaves the repository one.
fn remove_traps(project: &Path) -> io::Result<()> {
    for name in GRANTED {
        let trap = project.join(guarded(name));
        match fs::symlink_metadata(&trap) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&trap)?,
            Ok(_) => fs::remove_file(&trap)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a file that everybody can read, and the directories above it.
fn make_file(path: &Path, content: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))?;
    File::options().write(true).open(path)?.set_modified(MADE)
}

/// Mode, owner, and of a file the time of change and content.
type Entry = (u32, u32, Option<i64>, Vec<u8>);

/// What every entry below a directory is, by its path.
fn manifest(directory: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let (mut time, mut content) = (None, Vec::new());
            if metadata.is_dir() {
                open.push(path.clone());
            } else if metadata.is_file() {
                (time, content) = (Some(metadata.mtime()), fs::read(&path)?);
            }
            found.insert(path, (metadata.mode(), metadata.uid(), time, content));
        }
    }
    Ok(found)
}

/// Opens a file so that processes inherit it.
fn leave_open(path: &Path) -> io::Result<OwnedFd> {
    let kernel = |errno: Errno| io::Error::from_raw_os_error(errno.0);
    let copy = descriptor::duplicate_above(File::open(path)?.as_fd(), LEFT_OPEN).map_err(kernel)?;
    descriptor::duplicate_to(copy.as_fd(), copy.as_raw_fd(), false).map_err(kernel)?;
    Ok(copy)
}

/// A key for shared memory that is as good as nobody else's, and not the one that means a private segment.
fn key(token: &str) -> i32 {
    let number = token.get(..7).and_then(|digits| i32::from_str_radix(digits, 16).ok());
    number.unwrap_or(0) | 1
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_project_has_every_name_that_is_protected_in_a_grant() {
        let (project, git) = (Path::new("/p"), Path::new("/p").join(traps::GIT));
        let protected = traps::in_grant(project, None).into_iter().chain(traps::in_repository(&git));
        let protected: BTreeSet<PathBuf> =
            protected.map(|protected| protected.rule.path).filter(|path| *path != git).collect();
        let made: BTreeSet<PathBuf> = GRANTED.iter().map(|name| project.join(guarded(name))).collect();
        assert_eq!(made, protected);
    }
}
