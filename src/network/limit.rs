//! Limits of doors as violations tell of them: how much one is, and the line of a profile that would double it.
//!
//! Neighbours: `gate`, `keep` and `inbound` tell of what is over one. Never: counts anything.

use std::time::Duration;

use super::refused;
use crate::outcome::Violation;
use crate::policy::door::{CONNECTIONS, DoorLimits, RATE, TIME};
use crate::policy::listen::MOST_INSIDE;

/// Whose limit one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Cell,
    Door,
}

/// A limit that something is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Connections at once.
    Connections(u32),
    /// The same to ports of a cell.
    Inside(u32),
    /// New ones in a second.
    Rate(u32),
    /// How long one lasts.
    Time(Duration),
    /// Bytes from the cell.
    Up(u64),
    /// Bytes to it.
    Down(u64),
}

impl Limit {
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Connections(_) | Self::Inside(_) => "connections",
            Self::Rate(_) => "rate",
            Self::Time(_) => "time",
            Self::Up(_) => "up",
            Self::Down(_) => "down",
        }
    }

    /// How much it is, as records have it.
    pub(super) fn value(self) -> Option<u64> {
        match self {
            Self::Connections(count) | Self::Inside(count) | Self::Rate(count) => Some(count.into()),
            Self::Time(time) => u64::try_from(time.as_micros()).ok(),
            Self::Up(bytes) | Self::Down(bytes) => Some(bytes),
        }
    }

    /// Twice as much, up to the most that there can be; `None`, if it is that.
    pub(super) fn doubled(self) -> Option<DoorLimits> {
        fn more<T: PartialOrd>(limit: T, twice: T, most: T) -> Option<T> {
            let more = if twice < most { twice } else { most };
            Some(more).filter(|more| *more > limit)
        }
        let count = |count: u32, most| more(count, count.saturating_mul(2), most);
        let bytes = |bytes: u64| more(bytes, bytes.saturating_mul(2), u64::MAX);
        let none = DoorLimits::default();
        Some(match self {
            Self::Connections(now) => {
                DoorLimits { connections: Some(count(now, *CONNECTIONS.end())?), ..none }
            }
            Self::Inside(now) => DoorLimits { connections: Some(count(now, MOST_INSIDE)?), ..none },
            Self::Rate(now) => DoorLimits { rate: Some(count(now, *RATE.end())?), ..none },
            Self::Time(now) => {
                DoorLimits { time: Some(more(now, now.saturating_mul(2), *TIME.end())?), ..none }
            }
            Self::Up(now) => DoorLimits { up: Some(bytes(now)?), ..none },
            Self::Down(now) => DoorLimits { down: Some(bytes(now)?), ..none },
        })
    }

    /// What is over it where the section says it.
    pub(super) fn of_section(self, operation: &str, object: String) -> Violation {
        let line = |more: DoorLimits| format!("[network]\n{}", more.lines());
        let rule = match self {
            Self::Inside(MOST_INSIDE) => {
                format!("the doors: at most {MOST_INSIDE} connections at once lead to ports of a cell")
            }
            _ => format!("`{}` in `[network]`", self.key()),
        };
        Violation { value: self.value(), allow: self.doubled().map(line), ..refused(operation, object, rule) }
    }

    /// One connection more than a cell may have, and what became of it.
    pub(super) fn crowded(self, told: &str) -> Violation {
        let violation = self.of_section("connect", String::new());
        Violation { rule: format!("{}: {told}", violation.rule), ..violation }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::WAITED;
    use super::*;

    /// Of connections to ports of a cell there are 32, whatever a profile says.
    #[test]
    fn a_line_that_would_not_help_is_not_told() {
        let line = |limit: Limit| limit.crowded(WAITED).allow;
        assert_eq!(line(Limit::Inside(9)).as_deref(), Some("[network]\nconnections = 18"));
        assert_eq!(line(Limit::Inside(20)).as_deref(), Some("[network]\nconnections = 32"));
        assert_eq!(line(Limit::Connections(600)).as_deref(), Some("[network]\nconnections = 1024"));
        assert_eq!((line(Limit::Inside(32)), line(Limit::Connections(1024))), (None, None));
        let told = Limit::Inside(32).crowded(WAITED);
        let rule = "the doors: at most 32 connections at once lead to ports of a cell: the next one waited";
        assert_eq!((told.rule.as_str(), told.value), (rule, Some(32)));
    }
}
