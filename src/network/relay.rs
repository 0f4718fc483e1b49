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
    /// Something else: why it is refused, and the name that was asked for.
    Wrong(&'static str, Option<String>),
}

/// Reads the greeting; what was read is in `first`, to be passed on.
pub(super) async fn greeting(
    stream: &mut TcpStream,
    name: &str,
    first: &mut Vec<u8>,
    patience: Duration,
) -> Greeting {
    let until = Instant::now() + patience;
    loop {
        let mut part = [0; 2048];
        let count = match timeout_at(until, stream.read(&mut part)).await {
            Err(_late) => return Greeting::Wrong("no greeting came in time", None),
            Ok(Ok(0) | Err(_)) if first.is_empty() => return Greeting::GivenUp,
            Ok(Ok(0) | Err(_)) => return Greeting::Wrong("the greeting ended half-way", None),
            Ok(Ok(count)) => count,
        };
        first.extend_from_slice(part.get(..count).unwrap_or_default());
        match hello::look(first) {
            Seen::Part => {}
            Seen::Other(why) => return Greeting::Wrong(why, None),
            Seen::Hello(hello) => return judge(&hello, name),
        }
    }
}

fn judge(hello: &Hello, name: &str) -> Greeting {
    let asked = hello.name.as_ref().map(|asked| {
        let start = asked.get(..NAME_MOST).unwrap_or(asked);
        String::from_utf8_lossy(start).into_owned()
    });
    match &hello.name {
        _ if hello.encrypted => Greeting::Wrong("the greeting hides the name that is meant (ECH)", None),
        None => Greeting::Wrong("the greeting names no server", None),
        Some(asked) if asked.eq_ignore_ascii_case(name.as_bytes()) => Greeting::Right,
        Some(_) => Greeting::Wrong("the greeting names another server than the door", asked),
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
            let asked = greeting(&mut stream, "a.example", &mut Vec::new(), patience).await;
            assert_eq!(asked, Greeting::Wrong("no greeting came in time", None));
        }
        assert!(began.elapsed() >= 2 * patience && began.elapsed() < GREETING);
    }

    #[test]
    fn the_greeting_must_name_the_door() {
        let hello = |name: Option<&str>, encrypted| Hello {
            name: name.map(|name| name.as_bytes().to_vec()),
            encrypted,
        };
        assert_eq!(judge(&hello(Some("A.Example"), false), "a.example"), Greeting::Right);
        for name in [Some("b.example"), Some("a.example."), Some("a.example\0"), Some("xa.example"), None] {
            assert!(matches!(judge(&hello(name, false), "a.example"), Greeting::Wrong(..)), "{name:?}");
        }
        assert!(matches!(judge(&hello(Some("a.example"), true), "a.example"), Greeting::Wrong(..)));
    }
}
