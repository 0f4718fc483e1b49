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

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::carry::{Bound, Meter};
use super::refused;
use super::relay::Way;
use crate::outcome::Violation;
use crate::policy::door::{Bounded, CONNECTIONS, DoorLimits, RATE, TIME};
use crate::policy::listen::Listen;
use crate::policy::network::{Host, Network};
use crate::policy::units::{print_duration, print_size};
use crate::policy::unix_socket::UnixSocket;

/// Connections that wait for one door: each is a descriptor here. The next one is hung up.
pub(super) const MOST_WAIT: usize = 32;
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

/// Whose limit one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Cell,
    Door,
}

/// One door's.
#[derive(Debug)]
pub(super) struct Gate {
    item: Item,
    time: Option<Duration>,
    rate: Option<u32>,
    places: Option<Arc<Semaphore>>,
    waiting: Arc<Semaphore>,
    /// The same at all doors of the cell.
    of_cell: Arc<Semaphore>,
    /// When as many as can be new in a second could be so at once again.
    rested: Mutex<Instant>,
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

/// What one waits for that is not let in at once.
#[derive(Debug)]
pub(super) struct Turn {
    at: Instant,
    places: Option<Arc<Semaphore>>,
}

impl Turn {
    /// Until it is let in.
    pub(super) async fn come(self) -> Place {
        sleep_until(self.at).await;
        match self.places {
            Some(places) => places.acquire_owned().await.ok(),
            None => None,
        }
    }
}

impl Gate {
    fn new(network: &Network, item: Item, of_cell: Arc<Semaphore>) -> Self {
        let own = item.limits();
        let places = own.connections.and_then(|most| usize::try_from(most).ok());
        Self {
            time: own.time.or(network.time),
            rate: own.rate.or(network.rate),
            places: places.map(|most| Arc::new(Semaphore::new(most))),
            waiting: Arc::new(Semaphore::new(MOST_WAIT)),
            of_cell,
            rested: Mutex::new(Instant::now()),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            item,
        }
    }

    /// Lets one in, has it wait as one of few, or neither. It stays one of them until that is dropped: who has a place here may
    /// have to wait for one of the cell's.
    pub(super) fn enter(&self, now: Instant) -> Entry {
        let mut rested = self.rested.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, then) = self.next_turn(*rested, now);
        let entry = match self.room(at <= now) {
            Ok(place) => Entry::In(place),
            Err(limit) => match self.few() {
                Ok(one_of_few) => Entry::Waits(self.turn(at), one_of_few, self.crowded(limit, WAITED)),
                // It takes no turn.
                Err(full) => return Entry::Full(self.crowded(limit, &full)),
            },
        };
        *rested = then;
        entry
    }

    /// The same for one behind which the others wait in the kernel: it is let in, or has its turn.
    pub(super) fn enter_in_line(&self, now: Instant) -> Result<Place, (Turn, Box<Violation>)> {
        let mut rested = self.rested.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, then) = self.next_turn(*rested, now);
        *rested = then;
        self.room(at <= now).map_err(|limit| (self.turn(at), self.crowded(limit, WAITED)))
    }

    /// A place, or the limit that is in the way.
    fn room(&self, is_due: bool) -> Result<Place, &'static str> {
        match &self.places {
            _ if !is_due => Err("rate"),
            None => Ok(None),
            Some(places) => Arc::clone(places).try_acquire_owned().map(Some).map_err(|_none| "connections"),
        }
    }

    /// The right to wait, or why there is none.
    fn few(&self) -> Result<Few, String> {
        let one = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
        let of_door = one(&self.waiting).map_err(|_full| hung_up(MOST_WAIT))?;
        let of_cell = one(&self.of_cell)
            .map_err(|_full| hung_up(format_args!("at all doors together {MOST_OF_CELL}")))?;
        Ok([of_door, of_cell])
    }

    fn turn(&self, at: Instant) -> Turn {
        Turn { at, places: self.places.clone() }
    }

    /// When the next one may come, and when the door is rested then. A door that is rested lets in as many at once as in a second.
    fn next_turn(&self, rested: Instant, now: Instant) -> (Instant, Instant) {
        let Some(rate) = self.rate else { return (now, rested) };
        let then = rested.max(now) + SECOND / rate;
        (then.checked_sub(SECOND).unwrap_or(now), then)
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
        let key = if way == Way::Up { "up" } else { "down" };
        let most = limit.saturating_mul(2);
        let (object, rule, allow) = match of {
            Of::Cell => {
                let allow = format!("[network]\n{key} = \"{}\"", print_size(most));
                (String::new(), format!("`{key}` in `[network]`"), Some(allow))
            }
            Of::Door => {
                let line = self.item.line(match way {
                    Way::Up => DoorLimits { up: Some(most), ..DoorLimits::default() },
                    Way::Down => DoorLimits { down: Some(most), ..DoorLimits::default() },
                });
                (self.item.door(), self.rule(key, true), Some(line))
            }
        };
        Violation { value: Some(limit), allow, ..refused("transfer", object, rule) }
    }

    /// A connection that lasted too long.
    pub(super) fn late(&self) -> Violation {
        let limit = self.time.unwrap_or_default();
        let own = self.item.limits().time.is_some();
        let more = Some(limit.saturating_mul(2).min(*TIME.end())).filter(|more| *more > limit);
        let allow = more.map(|time| match own {
            true => self.item.line(DoorLimits { time: Some(time), ..DoorLimits::default() }),
            false => format!("[network]\ntime = \"{}\"", print_duration(time)),
        });
        let value = u64::try_from(limit.as_micros()).ok();
        Violation { value, allow, ..refused("stay connected", self.item.door(), self.rule("time", own)) }
    }

    /// One that may not come yet.
    fn crowded(&self, key: &'static str, told: &str) -> Box<Violation> {
        let limits = self.item.limits();
        let (limit, own, most) = match key {
            "rate" => (self.rate, limits.rate.is_some(), *RATE.end()),
            _ => (limits.connections, true, *CONNECTIONS.end()),
        };
        let limit = limit.unwrap_or_default();
        let more = Some(limit.saturating_mul(2).min(most)).filter(|more| *more > limit);
        let allow = more.map(|more| match (key, own) {
            ("rate", true) => self.item.line(DoorLimits { rate: Some(more), ..DoorLimits::default() }),
            ("rate", false) => format!("[network]\nrate = {more}"),
            _ => self.item.line(DoorLimits { connections: Some(more), ..DoorLimits::default() }),
        });
        let rule = format!("{}: {told}", self.rule(key, own));
        let violation = refused("connect", self.item.door(), rule);
        Box::new(Violation { value: Some(limit.into()), allow, ..violation })
    }

    fn rule(&self, key: &str, own: bool) -> String {
        match own {
            true => format!("`{key}` of `{}` in `[network]`", self.item.door()),
            false => format!("`{key}` in `[network]`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::Allowed;

    fn gate(limits: DoorLimits, network: &Network) -> Gate {
        let to = "a.example:443".parse().unwrap();
        Gate::new(network, Item::Allow(Bounded { to, limits }), Arc::new(Semaphore::new(MOST_OF_CELL)))
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
        for nth in 1..=MOST_WAIT {
            let (turn, one_of_few, told) = waits(gate.enter(now));
            assert_eq!(turn.at, now + SECOND / 4 * u32::try_from(nth).unwrap());
            assert_eq!(told.allow.as_deref(), Some("[network]\nrate = 8"));
            held.push(one_of_few);
        }
        let Entry::Full(told) = gate.enter(now) else { panic!("{gate:?}") };
        assert_eq!((told.object.as_str(), told.value), ("a.example:443", Some(4)));
        drop(held);
        // Who was hung up has taken no turn; and a door has never rested for more than a second's.
        let later = now + SECOND * 100;
        for _ in 0..4 {
            assert!(matches!(gate.enter(later), Entry::In(None)));
        }
        assert!(matches!(gate.enter(later), Entry::Waits(..)));
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
        for nth in 2..2 * MOST_WAIT {
            let (turn, told) = gate.enter_in_line(began).unwrap_err();
            assert_eq!(turn.at, began + SECOND / 10_000 * u32::try_from(nth).unwrap());
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
        assert_eq!(section.crowded("rate", "").allow, None);
        let own = DoorLimits { time: Some(2 * SECOND), up: Some(1), ..DoorLimits::default() };
        let own = gate(own, &network);
        let line = |limit: &str| Some(format!("[network]\nallow = [{{ to = \"a.example:443\", {limit} }}]"));
        assert_eq!((own.late().allow, own.late().value), (line("time = \"4s\""), Some(2_000_000)));
        assert_eq!(own.over(Way::Up, Of::Door, 1).allow, line("up = \"2B\""));
        assert_eq!(own.over(Way::Up, Of::Cell, 1).allow.as_deref(), Some("[network]\nup = \"2B\""));
    }
}
