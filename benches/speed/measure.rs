//! Takes turns, so that what else the machine does falls on all alike, and compares medians.
//!
//! Neighbours: every other file of this benchmark. Never: compares numbers of different runs.

use std::time::{Duration, Instant};

/// Anything may go wrong, and then there is no number.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Lets time go by.
#[expect(
    clippy::disallowed_methods,
    reason = "what the kernel, or a session, does between two turns sends no event to its client"
)]
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// The times of one contender.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Half were faster.
    pub(crate) fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    /// All but one of a hundred were faster, or as fast.
    pub(crate) fn slow(&self) -> Duration {
        self.0.get((self.0.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The fastest.
    pub(crate) fn least(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

/// One thing that is done and timed.
pub(crate) type Turn<'a> = &'a mut dyn FnMut() -> Result<Duration>;

/// Each does it once, then each again; the first tenth only warms up.
pub(crate) fn turns<const N: usize>(rounds: usize, contenders: [Turn<'_>; N]) -> Result<[Times; N]> {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    let mut contenders = contenders;
    for round in 0..rounds + rounds.div_ceil(10) {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let time = contender()?;
            if round >= rounds.div_ceil(10) {
                times.push(time);
            }
        }
    }
    Ok(times.map(Times::from))
}

/// Two contenders that did it side by side, round by round.
#[derive(Debug)]
pub(crate) struct Pairs {
    ours: Times,
    peer: Times,
    /// The median of what one round took as against the other's.
    ratio: f64,
}

/// Rounds of both, the first of them in turn, until there are as many as wanted or this time is over; a first one only warms up. For
/// what takes so long that the machine is another one from round to round, and not within one.
pub(crate) fn pairs(rounds: usize, at_most: Duration, [ours, peer]: [Turn<'_>; 2]) -> Result<Pairs> {
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    ours()?;
    peer()?;
    let start = Instant::now();
    while of_ours.len() < rounds && start.elapsed() < at_most {
        let pair = match of_ours.len() % 2 {
            0 => (ours()?, peer()?),
            _ => {
                let peer = peer()?;
                (ours()?, peer)
            }
        };
        of_ours.push(pair.0);
        of_peer.push(pair.1);
    }
    let mut ratios: Vec<f64> =
        of_ours.iter().zip(&of_peer).map(|(ours, peer)| ours.as_secs_f64() / peer.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().ok_or("no round was done")?;
    Ok(Pairs { ours: of_ours.into(), peer: of_peer.into(), ratio })
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) found: String,
    pub(crate) limit: String,
    /// `None`: for information.
    pub(crate) holds: Option<bool>,
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn both(times: &Times) -> String {
    format!("{} (least {})", milliseconds(times.median()), milliseconds(times.least()))
}

/// A ratio of medians; without a limit it is for information.
pub(crate) fn ratio(what: &str, ours: &Times, peer: &Times, limit: Option<f64>) -> Row {
    let ratio = ours.median().as_secs_f64() / peer.median().as_secs_f64();
    compared(what, ours, peer, ratio, limit)
}

/// A median of ratios.
pub(crate) fn ratio_of_pairs(what: &str, Pairs { ours, peer, ratio }: &Pairs, limit: f64) -> Row {
    compared(what, ours, peer, *ratio, Some(limit))
}

fn compared(what: &str, ours: &Times, peer: &Times, ratio: f64, limit: Option<f64>) -> Row {
    Row {
        what: what.to_owned(),
        ours: both(ours),
        peer: both(peer),
        found: format!("{ratio:.2} ×"),
        limit: limit.map_or_else(|| "–".to_owned(), |limit| format!("{limit:.2} ×")),
        holds: limit.map(|limit| ratio <= limit),
    }
}

/// A difference of medians.
pub(crate) fn difference(what: &str, ours: &Times, peer: &Times, limit: Duration) -> Row {
    let added = ours.median().as_secs_f64() - peer.median().as_secs_f64();
    Row {
        what: what.to_owned(),
        ours: both(ours),
        peer: both(peer),
        found: format!("{:+.2} ms", added * 1e3),
        limit: format!("+{}", milliseconds(limit)),
        holds: Some(added <= limit.as_secs_f64()),
    }
}

/// A difference of medians of what takes microseconds; without a limit it is for information.
pub(crate) fn difference_in_us(what: &str, ours: &Times, peer: &Times, limit: Option<Duration>) -> Row {
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let added = microseconds(ours.median()) - microseconds(peer.median());
    let both = |times: &Times| {
        format!("{:.1} µs (least {:.1})", microseconds(times.median()), microseconds(times.least()))
    };
    Row {
        what: what.to_owned(),
        ours: both(ours),
        peer: both(peer),
        found: format!("{added:+.1} µs"),
        limit: limit.map_or_else(|| "–".to_owned(), |limit| format!("+{:.0} µs", microseconds(limit))),
        holds: limit.map(|limit| added <= microseconds(limit)),
    }
}

/// A difference of the times that all but one of a hundred keep to.
pub(crate) fn difference_of_slow(what: &str, ours: &Times, peer: &Times, limit: Duration) -> Row {
    let added = ours.slow().as_secs_f64() - peer.slow().as_secs_f64();
    Row {
        what: what.to_owned(),
        ours: milliseconds(ours.slow()),
        peer: milliseconds(peer.slow()),
        found: format!("{:+.2} ms", added * 1e3),
        limit: format!("+{}", milliseconds(limit)),
        holds: Some(added <= limit.as_secs_f64()),
    }
}

/// An amount that may not be exceeded.
pub(crate) fn amount(what: &str, ours: u64, limit: u64, unit: &str) -> Row {
    Row {
        what: what.to_owned(),
        ours: format!("{ours} {unit}"),
        peer: "–".to_owned(),
        found: format!("{ours} {unit}"),
        limit: format!("{limit} {unit}"),
        holds: Some(ours <= limit),
    }
}
