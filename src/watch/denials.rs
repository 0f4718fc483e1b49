//! What Landlock refused to each cell, by the records that the kernel logs.
//!
//! ```text
//! a record ──► its domain ──► the init that entered it first ──► that init's cell
//! ```
//!
//! Init tries what Landlock must refuse before the payload starts (`launch::verify`), so that every domain of a cell shows, and
//! which it is does not rest on what a payload does. When nobody is left in a domain the kernel says how often it has
//! refused something: if all of that was seen, the record has all.
//!
//! Neighbours: `audited` reads one record; `listening` shares this among the cells of `run`, `passthrough` has it for the one of
//! `exec`. Never: grows with what a cell does, or takes another domain's refusal for a cell's.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::audited::{self, Denial, Record};
use super::notes::{Note, Notes};
use super::refusals::{blank, us};
use crate::outcome::{Coverage, Layer, Receipt, Violation};
use crate::plan::step::CANARY;
use crate::plan::why::{self, Operation};
use crate::policy::address::plain;
use crate::policy::network::{Destination, allow_line};
use crate::policy::{Floor, listen};
use crate::sys::descriptor::{self, Interest};
use crate::sys::{Errno, Result, audit};

/// How long a cell that has ended is waited for to be told of: the kernel says so when it has tidied up.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// The same where nothing was heard of the cell.
pub const UNHEARD: Duration = Duration::from_millis(20);
/// The longest record (`MAX_AUDIT_MESSAGE_LENGTH` is 8970).
const RECORD: usize = 16 * 1024;
/// Records that are taken in one go, so that others get their turn.
const BURST: usize = 64;
/// First denials of a domain that are kept in their order: those of init among them, which come first.
const FIRST: usize = 16;
/// Domains of others that are kept, in case that they turn out to be a cell's.
const STRANGERS: usize = 32;

/// What is known of one domain.
#[derive(Debug)]
struct Domain {
    number: u64,
    init: Option<libc::pid_t>,
    first: Vec<(Denial, Duration)>,
    later: Notes<Denial>,
    seen: u64,
    /// How often it has denied something, when it is over.
    denials: Option<u64>,
}

/// Every domain that has shown.
#[derive(Debug)]
pub struct Domains {
    began: Instant,
    cells: BTreeSet<libc::pid_t>,
    known: VecDeque<Domain>,
    buffer: Vec<u8>,
}

impl Default for Domains {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            cells: BTreeSet::new(),
            known: VecDeque::new(),
            buffer: vec![0; RECORD],
        }
    }
}

/// One cell's share.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Its init, by its process id here.
    pub init: libc::pid_t,
    /// How often Landlock has refused something to init.
    pub own: u32,
    /// What times count from.
    pub began: Instant,
}

impl Domains {
    /// A cell with this init is there, or will be.
    pub fn expect(&mut self, init: libc::pid_t) {
        self.cells.insert(init);
    }

    /// It is gone: its number may be another's soon.
    pub fn forget(&mut self, init: libc::pid_t) {
        self.cells.remove(&init);
        self.known.retain(|domain| domain.init != Some(init));
    }

    /// Takes the records that wait, up to a burst; whether more may wait.
    pub fn read(&mut self, socket: BorrowedFd<'_>) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..BURST {
            match audit::receive(socket, &mut buffer) {
                Ok(Some((kind, text))) => {
                    if let Some(record) = audited::parse(kind, text) {
                        self.note(record, Instant::now());
                    }
                }
                // Some were lost. What the kernel has counted tells whose, at the end.
                Err(Errno(libc::ENOBUFS)) => {}
                Ok(None) | Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        more
    }

    fn note(&mut self, record: Record, now: Instant) {
        match record {
            Record::Denied { domain, denial } => {
                let at = now.saturating_duration_since(self.began);
                let domain = self.domain(domain);
                domain.seen = domain.seen.saturating_add(1);
                if domain.first.len() < FIRST {
                    domain.first.push((denial, at));
                } else {
                    domain.later.add(denial, at);
                }
            }
            Record::Allocated { domain, pid } => self.domain(domain).init = Some(pid),
            Record::Deallocated { domain, denials } => self.domain(domain).denials = Some(denials),
        }
        let is_cell = |domain: &Domain| domain.init.is_some_and(|init| self.cells.contains(&init));
        if self.known.iter().filter(|domain| !is_cell(domain)).count() > STRANGERS
            && let Some(oldest) = self.known.iter().position(|domain| !is_cell(domain))
        {
            self.known.remove(oldest);
        }
    }

    fn domain(&mut self, number: u64) -> &mut Domain {
        let at = self.known.iter().position(|domain| domain.number == number).unwrap_or_else(|| {
            let (first, later) = (Vec::new(), Notes::new());
            self.known.push_back(Domain { number, init: None, first, later, seen: 0, denials: None });
            self.known.len() - 1
        });
        #[expect(
            clippy::indexing_slicing,
            reason = "the position of what was found, or of what was just put last"
        )]
        &mut self.known[at]
    }

    /// The domain that this init has entered; the last one, if its number was another's before.
    fn of(&self, init: libc::pid_t) -> Option<&Domain> {
        self.known.iter().rev().find(|domain| domain.init == Some(init))
    }

    /// How much longer a cell that has ended may be waited for at most; nothing when all was said of it.
    #[must_use]
    pub fn patience(&self, init: libc::pid_t) -> Option<Duration> {
        match self.of(init) {
            None => Some(UNHEARD),
            Some(Domain { denials: None, .. }) => Some(PATIENCE),
            Some(Domain { denials: Some(_), .. }) => None,
        }
    }

    /// What a cell's payload was refused, in the order in which each was first tried.
    #[must_use]
    pub fn violations(&self, cell: Cell) -> Vec<Violation> {
        let Some(domain) = self.of(cell.init) else { return Vec::new() };
        let notes = domain.notes(cell.own);
        let before = cell.began.saturating_duration_since(self.began);
        let mut found: Vec<Violation> = notes.noted.iter().map(|note| violation(note, before)).collect();
        if notes.others > 0 {
            let operation = "other denials".to_owned();
            found.push(Violation { operation, count: notes.others, ..of_landlock() });
        }
        found
    }

    /// What the receipt of a cell that has ended is to say.
    pub fn confess(&self, cell: Cell, receipt: &mut Receipt) {
        let Some(coverage) = receipt.coverage.get_mut(Layer::Landlock.name()) else { return };
        let (found, why) = match self.of(cell.init) {
            None => (Coverage::Blind, Some("nothing was logged of this cell".to_owned())),
            Some(domain) => domain.coverage(cell.own, receipt.floor),
        };
        *coverage = found;
        if let Some(why) = why {
            receipt.reasons.insert(Layer::Landlock.name().to_owned(), why);
        }
    }
}

impl Domain {
    /// Without those that init has brought about.
    fn notes(&self, own: u32) -> Notes<Denial> {
        let own = usize::try_from(own).unwrap_or(usize::MAX);
        let mut notes = Notes::new();
        for (denial, at) in self.first.iter().skip(own) {
            notes.add(denial.clone(), *at);
        }
        notes.join(&self.later);
        notes
    }

    fn coverage(&self, own: u32, floor: Floor) -> (Coverage, Option<String>) {
        let sampled = |why: String| (Coverage::Sampled, Some(why));
        match self.denials {
            None => sampled("the kernel did not say in time how often it has refused something".to_owned()),
            Some(denials) if denials != self.seen => {
                sampled(format!("{} of {denials} records were read", self.seen))
            }
            Some(_) if self.notes(own).others > 0 => sampled("there were too many to keep each".to_owned()),
            Some(_) if floor.is_bare() => {
                sampled("signals to what is outside are refused by a domain that is not logged".to_owned())
            }
            Some(_) => (Coverage::Complete, None),
        }
    }
}

fn of_landlock() -> Violation {
    Violation {
        layer: Layer::Landlock,
        rule: "Landlock: nothing that is granted allows it".to_owned(),
        ..blank()
    }
}

/// `before` is the time that a cell's times count from.
fn violation(note: &Note<Denial>, before: Duration) -> Violation {
    let Denial { rights, object, path } = &note.what;
    Violation {
        operation: rights.clone(),
        object: object.clone(),
        errno: errno(rights).map(Errno::name),
        allow: match rights.as_str() {
            "net.connect_tcp" => door(object),
            "net.bind_tcp" => listener(object),
            _ => operation(rights).filter(|_| *path).and_then(|way| allow(way, Path::new(object))),
        },
        count: note.count,
        first_us: us(note.first.saturating_sub(before)),
        last_us: us(note.last.saturating_sub(before)),
        ..of_landlock()
    }
}

/// The line that would grant it. Toolcell's own directory in a cell is nobody's.
fn allow(way: Operation, path: &Path) -> Option<String> {
    let own = Path::new(CANARY).parent().is_some_and(|own| path.starts_with(own));
    why::grant(way, path).ok().filter(|_| !own)
}

/// The line that would make a door there: of `ADDRESS port NUMBER`.
fn door(object: &str) -> Option<String> {
    let (address, port) = object.split_once(" port ")?;
    let at = SocketAddr::new(plain(address.parse().ok()?), port.parse().ok()?).to_string();
    at.parse::<Destination>().ok().map(|destination| allow_line(&destination.to_string()))
}

/// The line that would let a program listen there: of `port NUMBER`, behind an address or not.
fn listener(object: &str) -> Option<String> {
    let (_, port) = object.rsplit_once("port ")?;
    listen::allow_line(port.parse().ok()?)
}

/// What the kernel answers (landlock(7)). Moving to where other rights hold may be `EXDEV` or `EACCES`.
fn errno(rights: &str) -> Option<Errno> {
    match rights.split_once('.') {
        _ if rights == "fs.refer" => None,
        Some(("scope", _)) => Some(Errno(libc::EPERM)),
        Some(_) if rights != "fs.change_topology" => Some(Errno(libc::EACCES)),
        _ => Some(Errno(libc::EPERM)),
    }
}

/// What would have to be granted, if anything may be: with more than one right, the widest.
fn operation(rights: &str) -> Option<Operation> {
    let of = |right| match right {
        "fs.read_file" | "fs.read_dir" => Some(Operation::Read),
        "fs.execute" => Some(Operation::Exec),
        "fs.write_file" | "fs.truncate" | "fs.remove_dir" | "fs.remove_file" | "fs.make_dir"
        | "fs.make_reg" | "fs.make_sock" | "fs.make_fifo" | "fs.make_sym" | "fs.refer" => {
            Some(Operation::Write)
        }
        _ => None,
    };
    let all: Option<Vec<Operation>> = rights.split(',').map(of).collect();
    all?.into_iter().max_by_key(|way| match way {
        Operation::Read => 0,
        Operation::Exec => 1,
        Operation::Write => 2,
    })
}

/// The domains, and the socket that tells of them, for one cell at a time.
#[derive(Debug)]
pub struct Following {
    socket: OwnedFd,
    domains: Domains,
}

impl Following {
    /// From `sys::audit::follow`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, domains: Domains::default() }
    }

    /// The cell with this init is what is followed.
    pub fn expect(&mut self, init: libc::pid_t) {
        self.domains.expect(init);
    }

    /// Readable when records wait.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes some that wait.
    pub fn read(&mut self) {
        let _told_again = self.domains.read(self.socket.as_fd());
    }

    /// What was found of a cell that has ended, after its end was told, or was waited for long enough.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn conclude(&mut self, cell: Cell, receipt: &mut Receipt) -> Result<Vec<Violation>> {
        let began = Instant::now();
        self.read();
        while let Some(patience) = self.domains.patience(cell.init) {
            let left = patience.saturating_sub(began.elapsed());
            let mut interest = [Interest { fd: Some(self.socket()), events: libc::POLLIN, ready: 0 }];
            if left.is_zero() || !descriptor::poll(&mut interest, Some(left))? {
                break;
            }
            self.read();
        }
        self.domains.confess(cell, receipt);
        Ok(self.domains.violations(cell))
    }
}

#[cfg(test)]
mod tests;
