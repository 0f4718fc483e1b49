//! How old a secret is, and whether it may still be used.
//!
//! Neighbours: `source` reads the date of its file. Never: reads a clock: `now` is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::config::secrets::Secret;

/// How far ahead of the clock a date may lie: a day without a time is meant in whatever zone its writer lives.
const AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a secret may be used, and whether it should be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It may.
    Fresh,
    /// It may, but not for long.
    Due,
    /// It is too old, and refused.
    Overdue,
    /// It cannot be read, or is not what it should be.
    Unreadable,
}

impl State {
    /// The name in records and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Overdue => "overdue",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why there is no age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead;

/// How old a secret is by its date, in whole seconds after 1970; a date that is ahead of the clock by less than a day is
/// now.
///
/// # Errors
/// It is further ahead: then it tells nothing, and would never come due.
pub fn age(made: u64, now: Duration) -> Result<Duration, Ahead> {
    let made = Duration::from_secs(made);
    if made > now + AHEAD {
        return Err(Ahead);
    }
    Ok(now.saturating_sub(made))
}

/// From which age on there is a warning: what is configured, else four fifths of the age at which it is refused.
#[must_use]
pub fn warn_age(secret: &Secret) -> Option<Duration> {
    secret.warn_age.or_else(|| secret.max_age.map(|most| most / 5 * 4))
}

/// The state of a secret of this age. One of which nothing tells the age may be of any, and is refused where that matters.
#[must_use]
pub fn of(secret: &Secret, age: Option<Duration>) -> State {
    match (age, secret.max_age) {
        (Some(age), Some(most)) if age > most => State::Overdue,
        (Some(age), Some(_)) if warn_age(secret).is_some_and(|warn| age > warn) => State::Due,
        (None, Some(_)) => State::Overdue,
        (Some(_), Some(_)) | (_, None) => State::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::config::secrets::{From, Place};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn secret(max_age: Option<u32>, warn_age: Option<u32>) -> Secret {
        Secret {
            from: From::Env("A".to_owned()),
            to: vec![],
            into: Place::Env("A".to_owned()),
            format: None,
            max_age: max_age.map(|days| DAY * days),
            warn_age: warn_age.map(|days| DAY * days),
            rotated: None,
        }
    }

    #[test]
    fn a_secret_is_fresh_then_due_then_overdue() {
        let second = Duration::from_secs(1);
        for (max, warn, age, state) in [
            (Some(10), None, DAY * 8, State::Fresh),
            (Some(10), None, DAY * 8 + second, State::Due),
            (Some(10), None, DAY * 10, State::Due),
            (Some(10), None, DAY * 10 + second, State::Overdue),
            (Some(10), Some(2), DAY * 2, State::Fresh),
            (Some(10), Some(2), DAY * 3, State::Due),
            (None, None, DAY * 4000, State::Fresh),
        ] {
            assert_eq!(of(&secret(max, warn), Some(age)), state, "{max:?} {warn:?} {age:?}");
        }
        assert_eq!(of(&secret(Some(1), None), None), State::Overdue);
        assert_eq!(of(&secret(None, None), None), State::Fresh);
    }

    #[test]
    fn a_date_that_is_far_ahead_tells_no_age() {
        let now = DAY * 100;
        let made = |days: u64| 24 * 60 * 60 * days;
        assert_eq!(age(made(98), now), Ok(DAY * 2));
        assert_eq!(age(made(101), now), Ok(Duration::ZERO));
        assert_eq!(age(made(101) + 1, now), Err(Ahead));
    }
}
