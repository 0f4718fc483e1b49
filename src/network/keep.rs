//! The doors of one cell: what comes in is a connection to a door, a question to the resolver, or refused.
//!
//! ```text
//! accept ──no door──► refused                      resolve ──nowhere──► unreachable
//!    │ door ──port 443: greeting──other name──► refused  │ address ──barred──► refused
//!    └──────────────────────────────────────────────────►│ connect ──► relay ──► closed
//! ```
//!
//! A refused connection is reset: to the program it looks like a server that hung up.
//!
//! Neighbours: `porter` starts it, `resolver` answers questions, `relay` passes bytes. Never: serves more connections than the
//! policy says, holds more beside them than may wait, waits without a bound for who has not said what it wants, or outlives its
//! holder.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::accept::accept;
use super::credential::Put;
use super::ended::{self, Counts};
use super::gate::{Gate, Gates, WAITED, hung_up};
use super::guard::{Barred, is_granted, may_lead};
use super::inbound::{self, Inside};
use super::limit::Limit;
use super::relay::{self, Greeting, Lets};
use super::resolver::{self, Names};
use super::upstream::Trust;
use super::waits::while_there;
use super::{Event, MESSAGE_LIMIT, Told, refused};
use crate::outcome::{ClosedBy, Connection, Violation};
use crate::plan::doors::{Doors, Listens};
use crate::policy::address::{plain, special};
use crate::policy::http::Http;
use crate::policy::network::{Host, Sni, allow_line, is_name};
use crate::policy::print::quote;
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, socket};

/// How long a name may take to be resolved, and one address to be connected to.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Names of one cell that are resolved at once: each takes a thread.
const LOOKUPS: usize = 4;
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;
/// Sockets with a path of one cell that wait until there may be one connection more. The next one is hung up.
const MOST_SOCKETS: usize = 32;
/// Refusals of one cell that are told without a pause, and the pause: a cell pays for its flood, and others do not.
const AT_ONCE: u64 = 1024;
const PAUSE: Duration = Duration::from_millis(1);
/// The port at which TLS is spoken.
const HTTPS: u16 = 443;

/// One cell's.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) doors: Doors,
    channel: AsyncFd<OwnedFd>,
    pub(super) names: Mutex<Names>,
    slots: Arc<Semaphore>,
    /// Sockets with a path that wait until one more connection may be.
    waiting: Semaphore,
    pub(super) inside: Inside,
    pub(super) gates: Gates,
    pub(super) lookups: Arc<Semaphore>,
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    told: AtomicU64,
    over: watch::Sender<bool>,
    /// By the places of their doors in the policy.
    puts: watch::Sender<HashMap<usize, Arc<Put>>>,
    pub(super) trust: Arc<Trust>,
}

/// Where a connection is to go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    /// TLS ends at the door: its place among those of the policy.
    ended: Option<usize>,
    pub(super) gate: Arc<Gate>,
}

impl Target {
    /// As records have it.
    pub(super) fn to(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Below(_) | Host::Address(_) => None,
        }
    }
}

/// What came of the other end.
enum Opened {
    /// It is there; what the cell has said already.
    To(TcpStream, Vec<u8>),
    /// Nobody is.
    Unreachable,
    /// The cell has hung up meanwhile.
    GivenUp,
    /// The cell is over.
    Over,
    /// It took longer than a connection may last.
    Late,
    /// It may not be.
    Refused(Box<Violation>),
}

/// Keeps them until the holder says that the cell is over, and tells what is still open then.
pub(super) async fn keep(doors: Doors, channel: AsyncFd<OwnedFd>, trust: Arc<Trust>) {
    let cell = Arc::new(Cell::new(doors, channel, trust));
    // Each task of the cell has a copy; nothing is ever sent.
    let (at_work, mut all_gone) = mpsc::channel::<()>(1);
    while let Some((listens, listener)) = cell.receive().await {
        let (cell, at_work) = (Arc::clone(&cell), at_work.clone());
        tokio::spawn(async move {
            let ended = cell.ended();
            tokio::select! {
                _failed = listen(&cell, listens, listener, &at_work) => {}
                () = ended => {}
            }
        });
    }
    cell.over.send_replace(true);
    drop(at_work);
    let _nobody_left = all_gone.recv().await;
    cell.tell(&Event::Over).await;
}

async fn listen(
    cell: &Arc<Cell>,
    listens: Listens,
    socket: OwnedFd,
    at_work: &mpsc::Sender<()>,
) -> io::Result<()> {
    match listens {
        Listens::ResolverUdp => {
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true)?;
            resolver::answer_udp(cell, &UdpSocket::from_std(socket)?).await
        }
        Listens::Socket(nth) => {
            let began = Instant::now();
            let network = &cell.doors.network;
            let Some(door) = network.unix.get(usize::from(nth)) else { return Ok(()) };
            let gate = cell.gates.of_socket(network, door);
            let enter = async {
                let Some(place) = cell.admit(&gate).await else { return Ok(None) };
                Ok::<_, io::Error>(cell.slot_of_few().await?.map(|slot| (slot, place)))
            };
            let Some((socket, held)) = while_there(socket, enter).await? else {
                cell.left(door.path.clone(), began).await;
                return Ok(());
            };
            let Some(held) = held? else { return Ok(()) };
            let stream = std::os::unix::net::UnixStream::from(socket);
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            let (cell, at_work) = (Arc::clone(cell), at_work.clone());
            tokio::spawn(async move {
                cell.serve_socket(nth.into(), &gate, stream).await;
                drop((held, at_work));
            });
            Ok(())
        }
        Listens::Inside { six } => {
            cell.inside.add(six, socket);
            Ok(())
        }
        Listens::Outside(nth) => inbound::accept(cell, nth.into(), socket, at_work).await,
        Listens::Port(_) | Listens::ResolverTcp => {
            let socket = std::net::TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            accept(cell, &TcpListener::from_std(socket)?, at_work).await
        }
    }
}

impl Cell {
    pub(super) fn new(doors: Doors, channel: AsyncFd<OwnedFd>, trust: Arc<Trust>) -> Self {
        let connections = usize::try_from(doors.network.connections).unwrap_or(1);
        Self {
            doors,
            channel,
            names: Mutex::new(Names::default()),
            slots: Arc::new(Semaphore::new(connections)),
            waiting: Semaphore::new(MOST_SOCKETS),
            inside: Inside::default(),
            gates: Gates::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            told: AtomicU64::new(0),
            over: watch::Sender::new(false),
            puts: watch::Sender::default(),
            trust,
        }
    }

    /// The right to be one of the connections that there may be at once.
    pub(super) async fn slot(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        self.refuse(self.crowded(WAITED)).await;
        Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)
    }

    /// The same for a socket with a path, which waits here and not in the kernel; `None`, if too many do.
    async fn slot_of_few(&self) -> io::Result<Option<OwnedSemaphorePermit>> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(Some(slot));
        }
        let Ok(_one_of_few) = self.waiting.try_acquire() else {
            self.refuse(self.crowded(&hung_up(MOST_SOCKETS))).await;
            return Ok(None);
        };
        self.slot().await.map(Some)
    }

    fn crowded(&self, told: &str) -> Violation {
        Limit::Connections(self.doors.network.connections).crowded(told)
    }

    /// The next socket of the cell, with what comes before it taken in; `None` when the cell is over. One for which this process has no
    /// room is lost, and no other.
    async fn receive(&self) -> Option<(Listens, OwnedFd)> {
        loop {
            let mut buffer = Wiped::from(vec![0; MESSAGE_LIMIT]);
            let received = self.channel.async_io(Interest::READABLE, |channel| {
                socket::receive(channel.as_fd(), buffer.room(0)).map_err(io::Error::from)
            });
            let (count, descriptors) = match received.await {
                Err(error) if Errno::from_io(&error) == Errno(libc::EMSGSIZE) => continue,
                received => received.ok()??,
            };
            let (told, value) = postcard::take_from_bytes(buffer.get(..count)?).ok()?;
            match told {
                Told::Listens(listens) => return Some((listens, descriptors.into_iter().next()?)),
                Told::Credential(place) => {
                    let place = usize::try_from(place).ok()?;
                    let put = Arc::new(Put::new(self.doors.network.http.get(place)?, value)?);
                    self.puts.send_modify(|puts| drop(puts.insert(place, put)));
                }
            }
        }
    }

    /// What the door at this place puts in. It is told before the program starts, and may be on its way.
    pub(super) async fn put(&self, place: usize) -> Option<Arc<Put>> {
        let mut told = self.puts.subscribe();
        let there = told.wait_for(|puts| puts.contains_key(&place));
        let puts = timeout(PATIENCE, there).await.ok()?.ok()?;
        puts.get(&place).map(Arc::clone)
    }

    /// Resolves when the cell is over.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut over = self.over.subscribe();
        async move {
            let _gone_too = over.wait_for(|over| *over).await.is_err();
        }
    }

    /// A holder that is gone is told nothing.
    pub(super) async fn tell(&self, event: &Event) {
        let Ok(bytes) = serde_json::to_vec(event) else { return };
        let sent = self.channel.async_io(Interest::WRITABLE, |channel| {
            socket::send(channel.as_fd(), &bytes, &[]).map_err(io::Error::from)
        });
        let _gone = sent.await.is_err();
    }

    /// Tells of a refusal.
    pub(super) async fn refuse(&self, violation: Violation) {
        if self.told.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            sleep_until(Instant::now() + PAUSE).await;
        }
        self.tell(&Event::Refused(violation)).await;
    }

    /// One that has hung up before it was let in.
    pub(super) async fn left(&self, to: String, began: Instant) {
        let connection = Connection {
            to,
            from: None,
            address: None,
            up: 0,
            down: 0,
            duration_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            closed_by: ClosedBy::Cell,
        };
        self.tell(&Event::Closed(connection)).await;
    }

    pub(super) async fn serve_door(&self, mut stream: TcpStream, target: &Target) {
        let began = Instant::now();
        let (gate, until) = (&target.gate, target.gate.until(began));
        if let Some(http) = target.ended.and_then(|place| Some((place, self.doors.network.http.get(place)?)))
        {
            return self.serve_ended(target, http, stream, (began, until)).await;
        }
        let opened = tokio::select! {
            opened = self.open(target, &mut stream) => opened,
            () = self.ended() => Opened::Over,
            () = relay::late(until) => Opened::Late,
        };
        let mut connection = Connection {
            to: target.to(),
            from: None,
            address: None,
            up: 0,
            down: 0,
            duration_us: 0,
            closed_by: ClosedBy::Unreachable,
        };
        match opened {
            Opened::To(outer, first) => {
                connection.address = outer
                    .peer_addr()
                    .ok()
                    .map(|peer| SocketAddr::new(plain(peer.ip()), peer.port()).to_string());
                let passed = relay::pass(self, (gate, until), stream, outer, first).await;
                connection.up = passed.up;
                connection.down = passed.down;
                connection.closed_by = passed.closed_by;
                if let Some(violation) = passed.violation {
                    self.refuse(violation).await;
                }
            }
            Opened::Unreachable => reset(stream),
            Opened::GivenUp => connection.closed_by = ClosedBy::Cell,
            Opened::Over => connection.closed_by = ClosedBy::End,
            Opened::Late => {
                connection.closed_by = ClosedBy::Limit;
                self.refuse(gate.late()).await;
                reset(stream);
            }
            // Told first: whoever learns by the reset that it was refused finds it recorded.
            Opened::Refused(violation) => {
                self.refuse(*violation).await;
                return reset(stream);
            }
        }
        connection.duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tell(&Event::Closed(connection)).await;
    }

    /// One at whose door TLS ends.
    async fn serve_ended(
        &self,
        target: &Target,
        http: (usize, &Http),
        stream: TcpStream,
        (began, until): (Instant, Option<Instant>),
    ) {
        let counts = Counts::default();
        let closed_by = tokio::select! {
            closed_by = ended::serve(self, (&target.gate, until), (target, http), stream, &counts) => closed_by,
            () = self.ended() => ClosedBy::End,
        };
        let connection = Connection {
            to: target.to(),
            from: None,
            address: counts.address.get().map(ToString::to_string),
            up: counts.up.into_inner(),
            down: counts.down.into_inner(),
            duration_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            closed_by,
        };
        self.tell(&Event::Closed(connection)).await;
    }

    /// The door at this place.
    pub(super) fn target(&self, address: IpAddr, port: u16) -> Option<Target> {
        if let Some(door) = self.doors.door_at(address, port) {
            let http = self.doors.network.ends(&door);
            let ended = http.and_then(|http| self.doors.network.http.iter().position(|one| one == http));
            let gate = self.gates.of(&self.doors.network, &door.host, door.port);
            return Some(Target { host: door.host, port: door.port, ended, gate });
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.at(address)?.to_owned();
        self.doors.network.allows_name(&name, port)?;
        let host = Host::Name(name);
        let gate = self.gates.of(&self.doors.network, &host, port);
        Some(Target { host, port, ended: None, gate })
    }

    /// Where it leads, if it may.
    async fn open(&self, target: &Target, stream: &mut TcpStream) -> Opened {
        let mut first = Vec::new();
        let sni = self.doors.network.sni;
        if let Some(name) = target.name().filter(|_| target.port == HTTPS && sni != Sni::Any) {
            match relay::greeting(stream, (name, sni), &mut first, relay::GREETING).await {
                Greeting::Right => {}
                Greeting::GivenUp => return Opened::GivenUp,
                Greeting::Wrong(why, lets) => return Opened::Refused(Box::new(misnamed(name, why, &lets))),
            }
        }
        match self.connect(target).await {
            Ok(Some(outer)) => Opened::To(outer, first),
            Ok(None) => Opened::Unreachable,
            Err(violation) => Opened::Refused(violation),
        }
    }

    /// Resolves once, and connects to just what was looked at.
    pub(super) async fn connect(&self, target: &Target) -> Result<Option<TcpStream>, Box<Violation>> {
        let network = &self.doors.network;
        let port = target.port;
        let name = match &target.host {
            Host::Address(address) => return Ok(try_address(SocketAddr::new(*address, port), PATIENCE).await),
            Host::Name(name) | Host::Below(name) => name.as_str(),
        };
        let found = match network.hosts.get(name) {
            Some(pinned) => pinned.clone(),
            None => self.look_up(name, port).await,
        };
        let mut barred = None;
        let mut tried = 0;
        for address in found {
            match may_lead(network, name, address, port) {
                Err(why) => {
                    barred.get_or_insert((address, why));
                }
                Ok(()) if tried < MOST_ADDRESSES => {
                    tried += 1;
                    let Some(outer) = try_address(SocketAddr::new(address, port), PATIENCE).await else {
                        continue;
                    };
                    // An address of this host's own leads past every firewall to what listens here.
                    let own = outer.local_addr().is_ok_and(|local| plain(local.ip()) == plain(address));
                    if own && special(address).is_none() && !is_granted(network, name, address, port) {
                        reset(outer);
                        barred = Some((address, Barred::Special("this host's own")));
                        continue;
                    }
                    return Ok(Some(outer));
                }
                Ok(()) => {}
            }
        }
        match barred {
            Some((address, why)) if tried == 0 || why == Barred::Special("this host's own") => {
                Err(Box::new(led_astray(name, port, address, why)))
            }
            _ => Ok(None),
        }
    }

    async fn look_up(&self, name: &str, port: u16) -> Vec<IpAddr> {
        let Ok(_one_of_few) = self.lookups.acquire().await else { return Vec::new() };
        match timeout(PATIENCE, lookup_host((name, port))).await {
            Ok(Ok(found)) => found.map(|address| plain(address.ip())).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

async fn try_address(address: SocketAddr, patience: Duration) -> Option<TcpStream> {
    let stream = timeout(patience, TcpStream::connect(address)).await.ok()?.ok()?;
    Some(stream)
}

/// The other side is told at once, and nothing more is sent.
pub(super) fn reset(stream: TcpStream) {
    let _ends_in_order = stream.set_zero_linger().is_err();
    drop(stream);
}

fn misnamed(name: &str, why: &str, lets: &Lets) -> Violation {
    let rule = format!("`sni` in `[network]`: {why}");
    let choice = |sni: Sni| format!("[network]\nsni = {}", quote(sni.name()));
    let (object, allow) = match lets {
        Lets::Choice(sni) => (format!("{name}:{HTTPS}"), choice(*sni)),
        Lets::Door(asked) => {
            let door = allow_line(&format!("{asked}:{HTTPS}"));
            let allow = if is_name(asked) { door } else { choice(Sni::Any) };
            (format!("{name}:{HTTPS} for `{asked}`"), allow)
        }
    };
    Violation { allow: Some(allow), ..refused("connect", object, rule) }
}

fn led_astray(name: &str, port: u16, address: IpAddr, why: Barred) -> Violation {
    let object = format!("{name}:{port} at {address}");
    let (rule, allow) = match why {
        Barred::Denied => ("`deny` in `[network]`".to_owned(), None),
        Barred::Special(what) => {
            let pinned =
                format!("[network]\nhosts = {{ {} = {} }}", quote(name), quote(&address.to_string()));
            let rule =
                format!("`[network]`: a name leads to the open network only, and this address is {what}");
            (rule, Some(pinned).filter(|_| what != "cloud metadata"))
        }
    };
    Violation { allow, ..refused("connect", object, rule) }
}

/// For a channel that is closed: not an error of anybody.
pub(super) fn broken(error: &io::Error) -> bool {
    matches!(Errno::from_io(error), Errno(libc::EPIPE | libc::ECONNRESET))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::porter;
    use super::*;
    use crate::policy::network::Network;
    use crate::policy::unix_socket::UnixSocket;
    use crate::sys::readiness;

    /// As when this process has no room for the descriptor that came along.
    #[tokio::test]
    async fn a_message_that_is_lost_is_not_the_end_of_the_cell() {
        let (theirs, ours) = socket::pair().unwrap();
        let channel = readiness::ready(ours).unwrap();
        let unix = vec![UnixSocket::new("/run/a", "", "").unwrap()];
        let doors = Doors::of(&Network { unix, ..Network::default() }, false).unwrap();
        let cell = Cell::new(doors, channel, Arc::default());
        socket::send(theirs.as_fd(), &vec![0; MESSAGE_LIMIT + 1], &[]).unwrap();
        let (inner, _theirs) = socket::stream_pair().unwrap();
        porter::hand_over(&theirs, Listens::Socket(7), &inner).unwrap();
        let received = timeout(PATIENCE, cell.receive()).await.unwrap();
        assert!(matches!(received, Some((Listens::Socket(7), _))), "{received:?}");
        drop(theirs);
        assert!(timeout(PATIENCE, cell.receive()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_answer_of_nobody_is_waited_for_so_long_and_no_longer() {
        // One place in its queue, which is taken: what comes then the kernel does not answer.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket::listen(listener.as_fd(), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(100);
        let first = try_address(address, PATIENCE).await;
        assert!(first.is_some());
        let began = Instant::now();
        assert!(try_address(address, patience).await.is_none());
        assert!(began.elapsed() >= patience && began.elapsed() < PATIENCE);
    }
}
