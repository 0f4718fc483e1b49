//! One connection: the greeting of a TLS client, and then bytes both ways until both sides are done.
//!
//! Neighbours: `keep` has both ends, `carry` passes the bytes of one way. Never: changes a byte, or reads on where nobody takes.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::carry::{Done, End, carry};
use super::gate::Gate;
use super::hello::{self, Hello, Seen};
use super::keep::Cell;
use crate::outcome::{ClosedBy, Violation};
use crate::policy::network::Sni;

/// How long a client may take for its greeting.
pub(super) const GREETING: Duration = Duration::from_secs(10);
/// Bytes of a name that stand in a record: a name of DNS has no more.
const NAME_MOST: usize = 255;

/// What a client's first words were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It asked for the door's name.
    Right,
    /// It hung up before it had said anything whole.
    GivenUp,
    /// Something else: why it is refused, and what would let it pass.
    Wrong(&'static str, Lets),
}

/// What would let a greeting pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lets {
    /// A door of this name, which was asked for.
    Door(String),
    /// This choice of `sni`.
    Choice(Sni),
}

/// Reads the greeting; what was read is in `first`, to be passed on.
pub(super) async fn greeting(
    stream: &mut TcpStream,
    (name, sni): (&str, Sni),
    first: &mut Vec<u8>,
    patience: Duration,
) -> Greeting {
    let other = |why| Greeting::Wrong(why, Lets::Choice(Sni::Any));
    let until = Instant::now() + patience;
    loop {
        let mut part = [0; 2048];
        let count = match timeout_at(until, stream.read(&mut part)).await {
            Err(_late) => return other("no greeting came in time"),
            Ok(Ok(0) | Err(_)) if first.is_empty() => return Greeting::GivenUp,
            Ok(Ok(0) | Err(_)) => return other("the greeting ended half-way"),
            Ok(Ok(count)) => count,
        };
        first.extend_from_slice(part.get(..count).unwrap_or_default());
        match hello::look(first) {
            Seen::Part => {}
            Seen::Other(why) => return other(why),
            Seen::Hello(hello) => return judge(&hello, name, sni),
        }
    }
}

fn judge(hello: &Hello, name: &str, sni: Sni) -> Greeting {
    const HIDDEN: &str = "the greeting hides the name that is meant (ECH)";
    let Some(asked) = &hello.name else {
        let why = if hello.encrypted { HIDDEN } else { "the greeting names no server" };
        return Greeting::Wrong(why, Lets::Choice(Sni::Any));
    };
    match (asked.eq_ignore_ascii_case(name.as_bytes()), hello.encrypted) {
        (true, true) if sni == Sni::Door => Greeting::Wrong(HIDDEN, Lets::Choice(Sni::Outer)),
        (true, _) => Greeting::Right,
        // A door of the name that is shown is not what was meant.
        (false, true) => Greeting::Wrong(
            "the greeting hides the name that is meant (ECH), and shows another than the door's",
            Lets::Choice(Sni::Any),
        ),
        (false, false) => {
            let start = asked.get(..NAME_MOST).unwrap_or(asked);
            let asked = String::from_utf8_lossy(start).into_owned();
            Greeting::Wrong("the greeting names another server than the door", Lets::Door(asked))
        }
    }
}

/// What came of a connection.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) closed_by: ClosedBy,
    pub(super) violation: Option<Violation>,
}

/// One of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the cell.
    Up,
    /// To the cell.
    Down,
}

/// Resolves at this moment, if there is one.
pub(super) async fn late(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Passes bytes on until both sides are done, one of them is gone, their time or the cell is over. `first` goes before all else.
pub(super) async fn pass(
    cell: &Cell,
    (gate, until): (&Gate, Option<Instant>),
    inner: impl Into<End>,
    outer: impl Into<End>,
    first: Vec<u8>,
) -> Passed {
    let (inner, outer) = (inner.into(), outer.into());
    for end in [&inner, &outer] {
        end.hurry();
    }
    let network = &cell.doors.network;
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let (ended, late) = (cell.ended(), late(until));
    let (closed_by, violation, in_order) = {
        let of_up = gate.meter(Way::Up, &sent, (&cell.up, network));
        let of_down = gate.meter(Way::Down, &received, (&cell.down, network));
        let up = carry(&inner, &outer, first, of_up);
        let down = carry(&outer, &inner, Vec::new(), of_down);
        tokio::pin!(up, down, ended, late);
        let mut closed_by = None;
        let (mut up_done, mut down_done) = (false, false);
        loop {
            let (done, source, sink) = tokio::select! {
                done = &mut up, if !up_done => { up_done = true; (done, ClosedBy::Cell, ClosedBy::Destination) }
                done = &mut down, if !down_done => { down_done = true; (done, ClosedBy::Destination, ClosedBy::Cell) }
                () = &mut ended => break (closed_by.unwrap_or(ClosedBy::End), None, false),
                () = &mut late => break (ClosedBy::Limit, Some(gate.late()), false),
            };
            match done {
                Done::Ended => {
                    let by = *closed_by.get_or_insert(source);
                    if up_done && down_done {
                        break (by, None, true);
                    }
                }
                Done::SourceGone => break (closed_by.unwrap_or(source), None, false),
                Done::SinkGone => break (closed_by.unwrap_or(sink), None, false),
                Done::Limit(of, limit) => {
                    let way = if source == ClosedBy::Cell { Way::Up } else { Way::Down };
                    break (ClosedBy::Limit, Some(gate.over(way, of, limit)), false);
                }
            }
        }
    };
    if !in_order {
        inner.reset();
        outer.reset();
    }
    Passed { up: sent.into_inner(), down: received.into_inner(), closed_by, violation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_is_waited_for_so_long_and_no_longer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let patience = Duration::from_millis(50);
        let began = Instant::now();
        for part in [&[][..], &[22, 3]] {
            silent.try_write(part).unwrap();
            let asked = greeting(&mut stream, ("a.example", Sni::Door), &mut Vec::new(), patience).await;
            assert_eq!(asked, Greeting::Wrong("no greeting came in time", Lets::Choice(Sni::Any)));
        }
        assert!(began.elapsed() >= 2 * patience && began.elapsed() < GREETING);
    }

    fn judged(name: Option<&str>, encrypted: bool, sni: Sni) -> Result<(), Lets> {
        let hello = Hello { name: name.map(|name| name.as_bytes().to_vec()), encrypted };
        match judge(&hello, "a.example", sni) {
            Greeting::Wrong(_, lets) => Err(lets),
            Greeting::Right | Greeting::GivenUp => Ok(()),
        }
    }

    #[test]
    fn the_greeting_must_name_the_door() {
        for sni in [Sni::Door, Sni::Outer] {
            assert_eq!(judged(Some("A.Example"), false, sni), Ok(()));
            for name in ["b.example", "a.example.", "a.example\0", "xa.example"] {
                assert_eq!(judged(Some(name), false, sni), Err(Lets::Door(name.to_owned())));
            }
            assert_eq!(judged(None, false, sni), Err(Lets::Choice(Sni::Any)));
        }
    }

    #[test]
    fn what_is_encrypted_passes_beside_the_name_of_the_door_where_the_policy_says_so() {
        assert_eq!(judged(Some("a.example"), true, Sni::Door), Err(Lets::Choice(Sni::Outer)));
        assert_eq!(judged(Some("A.Example"), true, Sni::Outer), Ok(()));
        for (name, sni) in
            [(Some("b.example"), Sni::Outer), (Some("b.example"), Sni::Door), (None, Sni::Outer)]
        {
            assert_eq!(judged(name, true, sni), Err(Lets::Choice(Sni::Any)), "{name:?} {sni:?}");
        }
    }
}
