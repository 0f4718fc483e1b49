//! The share of one door: how many connections it has at once and how many new ones in a second, how long one lasts, and how much
//! goes through it.
//!
//! ```text
//! accepted ──its turn, by `rate`──► its place, by `connections`──► a place of the cell's ──► served, until `time`
//!     │ not yet            │
//!     └──── waits here ◄───┘ ──too many wait──► hung up
//! ```
//!
//! Who waits for one door is in nobody else's way: it is taken from the kernel's queue, which doors share. How many wait is bounded for
//! a door, and for all doors of a cell.
//!
//! Neighbours: `keep` and those beside it ask before they serve, `carry` counts. Never: accepts, or ends a connection.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turns, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::carry::{Bound, Meter};
use super::limit::{Limit, Of};
use super::refused;
use super::relay::Way;
use crate::outcome::Violation;
use crate::policy::door::{Bounded, DoorLimits};
use crate::policy::listen::Listen;
use crate::policy::network::{Host, Network};
use crate::policy::unix_socket::UnixSocket;

/// Connections that wait for one door: each is a descriptor here. The next one is hung up.
const MOST_WAIT: usize = 32;
/// The same for all doors of a cell together, of which there can be many, and one process keeps those of all cells.
const MOST_OF_CELL: usize = 128;
/// What became of one of them.
pub(super) const WAITED: &str = "the next one waited";
const SECOND: Duration = Duration::from_secs(1);

/// What became of the one after the last that could wait.
pub(super) fn hung_up(waited: impl Display) -> String {
    format!("{waited} waited, and the next one was hung up")
}

/// The doors of one cell that something has come to.
#[derive(Debug)]
pub(super) struct Gates {
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    waiting: Arc<Semaphore>,
}

impl Default for Gates {
    fn default() -> Self {
        Self { gates: Mutex::default(), waiting: Arc::new(Semaphore::new(MOST_OF_CELL)) }
    }
}

impl Gates {
    /// That of a host and port; names that have a door in common have its limits in common.
    pub(super) fn of(&self, network: &Network, host: &Host, port: u16) -> Arc<Gate> {
        let to = network.door_of(host, port);
        let item = || match network.bounds_of(host, port) {
            Some(bounded) => Item::Allow(bounded.clone()),
            None => Item::Allow(Bounded { to: to.clone(), limits: DoorLimits::default() }),
        };
        self.known(network, to.to_string(), item)
    }

    /// That of a socket with a path.
    pub(super) fn of_socket(&self, network: &Network, socket: &UnixSocket) -> Arc<Gate> {
        self.known(network, socket.path.clone(), || Item::Socket(socket.clone()))
    }

    /// That of a port of the cell, at one of the places where it is reached.
    pub(super) fn of_port(&self, network: &Network, listen: &Listen) -> Arc<Gate> {
        self.known(network, format!("{}={}", listen.port, listen.at), || Item::Listen(listen.clone()))
    }

    fn known(&self, network: &Network, key: String, item: impl FnOnce() -> Item) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Gate::new(network, item(), Arc::clone(&self.waiting)));
        Arc::clone(gates.entry(key).or_insert_with(new))
    }
}

/// What of a profile a door is, with its limits.
#[derive(Debug)]
enum Item {
    Allow(Bounded),
    Socket(UnixSocket),
    Listen(Listen),
}

impl Item {
    fn limits(&self) -> &DoorLimits {
        match self {
            Self::Allow(bounded) => &bounded.limits,
            Self::Socket(socket) => &socket.limits,
            Self::Listen(listen) => &listen.limits,
        }
    }

    /// The door, as records call it.
    fn door(&self) -> String {
        match self {
            Self::Allow(bounded) => bounded.to.to_string(),
            Self::Socket(socket) => socket.path.clone(),
            Self::Listen(listen) => format!("port {}", listen.port),
        }
    }

    /// The line of a profile that gives the door these limits.
    fn line(&self, limits: DoorLimits) -> String {
        let (key, item) = match self {
            Self::Allow(Bounded { to, .. }) => ("allow", Bounded { to: to.clone(), limits }.toml()),
            Self::Socket(socket) => ("allow-unix", UnixSocket { limits, ..socket.clone() }.toml()),
            Self::Listen(listen) => ("listen", Listen { limits, ..listen.clone() }.toml()),
        };
        format!("[network]\n{key} = [{item}]")
    }
}

/// One door's.
#[derive(Debug)]
pub(super) struct Gate {
    item: Item,
    time: Option<Duration>,
    rate: Option<u32>,
    places: Option<(Limit, Arc<Semaphore>)>,
    waiting: Arc<Semaphore>,
    /// The same at all doors of the cell.
    of_cell: Arc<Semaphore>,
    /// When as many as can be new in a second could be so at once again. Whoever's turn is next holds it.
    rested: Turns<Instant>,
    up: AtomicU64,
    down: AtomicU64,
}

/// The right to be one of a door's connections.
pub(super) type Place = Option<OwnedSemaphorePermit>;

/// The right to be one of those that wait: at the door, and in the cell.
pub(super) type Few = [OwnedSemaphorePermit; 2];

/// What becomes of one that was accepted.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is let in.
    In(Place),
    /// It waits for its turn, as one of few, by what was refused to it.
    Waits(Turn, Few, Box<Violation>),
    /// Too many do.
    Full(Box<Violation>),
}

/// What one waits for that is not let in at once. Who stops waiting before has taken none.
#[derive(Debug)]
pub(super) struct Turn(Arc<Gate>);

impl Turn {
    /// Until it is let in.
    pub(super) async fn come(self) -> Place {
        let Self(gate) = self;
        if let Some(rate) = gate.rate {
            let mut rested = gate.rested.lock().await;
            let (at, then) = next_turn(rate, *rested, Instant::now());
            sleep_until(at).await;
            *rested = then;
        }
        match &gate.places {
            Some((_, places)) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        }
    }
}

/// When the next one may come, and when the door is rested then. A door that is rested lets in as many at once as in a second.
fn next_turn(rate: u32, rested: Instant, now: Instant) -> (Instant, Instant) {
    let then = rested.max(now) + SECOND / rate;
    (then.checked_sub(SECOND).unwrap_or(now), then)
}

impl Gate {
    fn new(network: &Network, item: Item, of_cell: Arc<Semaphore>) -> Self {
        let own = item.limits();
        let places = own.connections.and_then(|most| {
            let limit = match &item {
                Item::Listen(_) => Limit::Inside(most),
                Item::Allow(_) | Item::Socket(_) => Limit::Connections(most),
            };
            Some((limit, Arc::new(Semaphore::new(usize::try_from(most).ok()?))))
        });
        Self {
            time: own.time.or(network.time),
            rate: own.rate.or(network.rate),
            places,
            waiting: Arc::new(Semaphore::new(MOST_WAIT)),
            of_cell,
            rested: Turns::new(Instant::now()),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            item,
        }
    }

    /// Lets one in, has it wait as one of few, or neither. It stays one of them until that is dropped: who has a place here may
    /// have to wait for one of the cell's.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Entry {
        match self.room(now) {
            Ok(place) => Entry::In(place),
            Err(limit) => match self.few() {
                Ok(one_of_few) => {
                    Entry::Waits(Turn(Arc::clone(self)), one_of_few, self.crowded(limit, WAITED))
                }
                Err(full) => Entry::Full(self.crowded(limit, &full)),
            },
        }
    }

    /// The same for one behind which the others wait in the kernel: it is let in, or has its turn.
    pub(super) fn enter_in_line(self: &Arc<Self>, now: Instant) -> Result<Place, (Turn, Box<Violation>)> {
        self.room(now).map_err(|limit| (Turn(Arc::clone(self)), self.crowded(limit, WAITED)))
    }

    /// A place now, or the limit that is in the way.
    fn room(&self, now: Instant) -> Result<Place, Limit> {
        let Some(rate) = self.rate else { return self.place() };
        let mut rested = self.rested.try_lock().map_err(|_before| Limit::Rate(rate))?;
        let (at, then) = next_turn(rate, *rested, now);
        if at > now {
            return Err(Limit::Rate(rate));
        }
        let place = self.place()?;
        *rested = then;
        Ok(place)
    }

    fn place(&self) -> Result<Place, Limit> {
        let Some((limit, places)) = &self.places else { return Ok(None) };
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_none| *limit)
    }

    /// The right to wait, or why there is none.
    fn few(&self) -> Result<Few, String> {
        let one = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
        let of_door = one(&self.waiting).map_err(|_full| hung_up(MOST_WAIT))?;
        let of_cell = one(&self.of_cell)
            .map_err(|_full| hung_up(format_args!("at all doors together {MOST_OF_CELL}")))?;
        Ok([of_door, of_cell])
    }

    /// When one that begins now is over.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.time?)
    }

    /// What is counted of one way of a connection: so much of it, of the door, and of the cell.
    pub(super) fn meter<'c>(
        &'c self,
        way: Way,
        moved: &'c AtomicU64,
        (cell, network): (&'c AtomicU64, &Network),
    ) -> Meter<'c> {
        let own = self.item.limits();
        let (door, most, all) = match way {
            Way::Up => (&self.up, own.up, network.up),
            Way::Down => (&self.down, own.down, network.down),
        };
        Meter {
            moved,
            bounds: [
                Bound { of: Of::Door, all: door, limit: most },
                Bound { of: Of::Cell, all: cell, limit: all },
            ],
        }
    }

    /// More bytes than may go through the door, or through all of the cell's.
    pub(super) fn over(&self, way: Way, of: Of, limit: u64) -> Violation {
        let limit = match way {
            Way::Up => Limit::Up(limit),
            Way::Down => Limit::Down(limit),
        };
        match of {
            Of::Cell => limit.of_section("transfer", String::new()),
            Of::Door => self.of_item("transfer", limit),
        }
    }

    /// A connection that lasted too long.
    pub(super) fn late(&self) -> Violation {
        let limit = Limit::Time(self.time.unwrap_or_default());
        match self.item.limits().time {
            Some(_) => self.of_item("stay connected", limit),
            None => limit.of_section("stay connected", self.item.door()),
        }
    }

    /// One that may not come yet, and what became of it.
    fn crowded(&self, limit: Limit, told: &str) -> Box<Violation> {
        let violation = match limit {
            Limit::Rate(_) if self.item.limits().rate.is_none() => {
                limit.of_section("connect", self.item.door())
            }
            _ => self.of_item("connect", limit),
        };
        Box::new(Violation { rule: format!("{}: {told}", violation.rule), ..violation })
    }

    /// What is over a limit of the door's own.
    fn of_item(&self, operation: &str, limit: Limit) -> Violation {
        let door = self.item.door();
        let rule = format!("`{}` of `{door}` in `[network]`", limit.key());
        let allow = limit.doubled().map(|more| self.item.line(more));
        Violation { value: limit.value(), allow, ..refused(operation, door, rule) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::policy::door::RATE;
    use crate::policy::listen::At;
    use crate::policy::network::Allowed;

    fn gate(limits: DoorLimits, network: &Network) -> Arc<Gate> {
        let to = "a.example:443".parse().unwrap();
        let of_cell = Arc::new(Semaphore::new(MOST_OF_CELL));
        Arc::new(Gate::new(network, Item::Allow(Bounded { to, limits }), of_cell))
    }

    fn waits(entry: Entry) -> (Turn, Few, Violation) {
        match entry {
            Entry::Waits(turn, one_of_few, violation) => (turn, one_of_few, *violation),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn as_many_as_in_a_second_come_at_once_and_then_one_after_the_other() {
        let gate = gate(DoorLimits::default(), &Network { rate: Some(4), ..Network::default() });
        let now = Instant::now();
        for _ in 0..4 {
            assert!(matches!(gate.enter(now), Entry::In(None)));
        }
        let mut held = Vec::new();
        for _ in 0..MOST_WAIT {
            let (turn, one_of_few, told) = waits(gate.enter(now));
            assert_eq!(told.allow.as_deref(), Some("[network]\nrate = 8"));
            held.push((turn, one_of_few));
        }
        let Entry::Full(told) = gate.enter(now) else { panic!("{gate:?}") };
        assert_eq!((told.object.as_str(), told.value), ("a.example:443", Some(4)));
        for (nth, (turn, _one_of_few)) in (1..).zip(held.drain(..3)) {
            turn.come().await;
            assert!(now.elapsed() >= SECOND / 4 * nth, "{:?}", now.elapsed());
        }
        drop(held);
        // A door has never rested for more than a second's.
        let later = now + SECOND * 100;
        for _ in 0..4 {
            assert!(matches!(gate.enter(later), Entry::In(None)));
        }
        assert!(matches!(gate.enter(later), Entry::Waits(..)));
    }

    /// Else whoever connects and hangs up, again and again, would have the next one wait for all of them.
    #[tokio::test]
    async fn who_stops_waiting_has_taken_no_turn() {
        let gate = gate(DoorLimits { rate: Some(1), ..DoorLimits::default() }, &Network::default());
        let now = Instant::now();
        assert!(matches!(gate.enter(now), Entry::In(None)));
        let rested = *gate.rested.try_lock().unwrap();
        let (first, ..) = waits(gate.enter(now));
        let (second, ..) = waits(gate.enter(now));
        let mut first = Box::pin(first.come());
        let mut second = Box::pin(second.come());
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        // Also when the door is rested: somebody is before.
        assert!(matches!(gate.enter(now + 2 * SECOND), Entry::Waits(..)));
        drop(first);
        assert!(poll(&mut second).is_pending());
        drop(second);
        assert_eq!(*gate.rested.try_lock().unwrap(), rested);
        assert!(matches!(gate.enter(now + 2 * SECOND), Entry::In(None)));
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_are_as_many_in_a_second() {
        let now = Instant::now();
        let mut rested = now - 100 * SECOND;
        for nth in 0..20 {
            let (at, then) = next_turn(4, rested, now);
            let due = (now + SECOND / 4 * (nth + 1)).checked_sub(SECOND).unwrap();
            assert_eq!((at, then), (due, due + SECOND), "{nth}");
            assert_eq!(at <= now, nth < 4, "{nth}");
            rested = then;
        }
    }

    #[tokio::test]
    async fn a_place_is_waited_for_and_comes_back() {
        let limits = DoorLimits { connections: Some(1), rate: Some(10_000), ..DoorLimits::default() };
        let gate = gate(limits, &Network::default());
        let Entry::In(place) = gate.enter(Instant::now()) else { panic!("{gate:?}") };
        let (turn, _one_of_few, told) = waits(gate.enter(Instant::now()));
        assert_eq!(told.rule, "`connections` of `a.example:443` in `[network]`: the next one waited");
        let line = "[network]\nallow = [{ to = \"a.example:443\", connections = 2 }]";
        assert_eq!(told.allow.as_deref(), Some(line));
        drop(place);
        assert!(turn.come().await.is_some());
    }

    /// Each is a descriptor, for which the cell may have no place for as long as it likes.
    #[tokio::test]
    async fn who_has_had_its_turn_still_waits() {
        let gate = gate(DoorLimits { rate: Some(10_000), ..DoorLimits::default() }, &Network::default());
        let began = Instant::now();
        while matches!(gate.enter(began), Entry::In(None)) {}
        let mut held = Vec::new();
        while let Entry::Waits(turn, one_of_few, _told) = gate.enter(began) {
            held.push((turn.come().await, one_of_few));
            assert!(held.len() <= MOST_WAIT);
        }
        assert_eq!(held.len(), MOST_WAIT);
        held.pop();
        assert!(matches!(gate.enter(began), Entry::Waits(..)));
    }

    /// Whatever of a section makes them wait, and at however many doors.
    #[tokio::test]
    async fn in_a_cell_so_many_wait_at_all_doors() {
        let network = Network { rate: Some(1), ..Network::default() };
        let gates = Gates::default();
        let enter = |nth: usize| {
            gates.of(&network, &Host::Name(format!("n{nth}.example")), 443).enter(Instant::now())
        };
        let mut held = Vec::new();
        for nth in 0..MOST_OF_CELL {
            assert!(matches!(enter(nth), Entry::In(None)));
            held.push(waits(enter(nth)).1);
        }
        assert!(matches!(enter(MOST_OF_CELL), Entry::In(None)), "it does not wait");
        let Entry::Full(told) = enter(MOST_OF_CELL) else { panic!("{gates:?}") };
        let rule = "`rate` in `[network]`: at all doors together 128 waited, and the next one was hung up";
        assert_eq!((told.rule.as_str(), told.object.as_str()), (rule, "n128.example:443"));
        held.pop();
        assert!(matches!(enter(MOST_OF_CELL), Entry::Waits(..)));
    }

    /// Into a cell one comes after the other, and who is behind waits in the kernel.
    #[tokio::test]
    async fn in_a_line_nobody_is_hung_up() {
        let limits = DoorLimits { rate: Some(10_000), ..DoorLimits::default() };
        let gate = gate(limits, &Network::default());
        let began = Instant::now();
        while gate.enter_in_line(began).is_ok() {}
        for nth in 1..2 * MOST_WAIT {
            let (turn, told) = gate.enter_in_line(began).unwrap_err();
            turn.come().await;
            assert!(began.elapsed() >= SECOND / 10_000 * u32::try_from(nth).unwrap());
            assert!(told.rule.ends_with(WAITED), "{told:?}");
        }
        assert_eq!(gate.waiting.available_permits(), MOST_WAIT);
    }

    /// Also where arguments name them one by one, and nothing of the pattern is left in `allow`.
    #[tokio::test]
    async fn names_of_a_pattern_with_limits_are_one_door_and_others_are_not() {
        let names = ["a.b.example", "c.b.example", "own.b.example", "a.example"];
        let allow = names.map(|name| Allowed {
            destination: format!("{name}:443").parse().unwrap(),
            origin: String::new(),
        });
        let mut network = Network { allow: allow.into(), named: true, ..Network::default() };
        let limits = DoorLimits { connections: Some(1), ..DoorLimits::default() };
        for to in ["*.b.example:443", "own.b.example:443"] {
            network.bound(&Bounded { to: to.parse().unwrap(), limits: limits.clone() });
        }
        let gates = Gates::default();
        let [a, c, own, other] = names.map(|name| gates.of(&network, &Host::Name(name.to_owned()), 443));
        assert!(Arc::ptr_eq(&a, &c));
        assert!(!Arc::ptr_eq(&a, &own) && !Arc::ptr_eq(&a, &other) && !Arc::ptr_eq(&own, &other));
        assert!(own.places.is_some() && other.places.is_none());
    }

    #[test]
    fn the_line_is_where_the_limit_was_said_and_there_is_none_above_the_most() {
        let network = Network { time: Some(SECOND), rate: Some(*RATE.end()), ..Network::default() };
        let section = gate(DoorLimits::default(), &network);
        assert_eq!(section.late().allow.as_deref(), Some("[network]\ntime = \"2s\""));
        assert_eq!(section.crowded(Limit::Rate(*RATE.end()), "").allow, None);
        let own = DoorLimits { time: Some(2 * SECOND), up: Some(1), ..DoorLimits::default() };
        let own = gate(own, &network);
        let line = |limit: &str| Some(format!("[network]\nallow = [{{ to = \"a.example:443\", {limit} }}]"));
        assert_eq!((own.late().allow, own.late().value), (line("time = \"4s\""), Some(2_000_000)));
        assert_eq!(own.over(Way::Up, Of::Door, 1).allow, line("up = \"2B\""));
        assert_eq!(own.over(Way::Up, Of::Cell, 1).allow.as_deref(), Some("[network]\nup = \"2B\""));
        assert_eq!(
            (own.over(Way::Down, Of::Cell, 0).allow, own.over(Way::Up, Of::Door, 0).allow),
            (None, None)
        );
    }

    #[test]
    fn a_port_of_a_cell_has_no_more_connections_than_all_of_them() {
        let limits = DoorLimits { connections: Some(20), ..DoorLimits::default() };
        let listen = Listen { limits, ..Listen::new(8080, At::Any, "").unwrap() };
        let gate = Gates::default().of_port(&Network::default(), &listen);
        let mut held = Vec::new();
        let told = loop {
            match gate.enter_in_line(Instant::now()) {
                Ok(place) => held.push(place),
                Err((_turn, told)) => break told,
            }
        };
        let allow = "[network]\nlisten = [{ port = 8080, connections = 32 }]";
        assert_eq!((held.len(), told.allow.as_deref()), (20, Some(allow)));
    }
}
