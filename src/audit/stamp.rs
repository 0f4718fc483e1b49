//! Points in time as text, and the ids of calls made from them.
//!
//! Neighbours: `audit::record` stamps records; `mcp` and `commands::exec` take ids. Never: reads the clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time in UTC, split up.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micro: i64,
}

/// The time in UTC with microseconds, by RFC 3339: `2026-11-22T14:05:09.000123Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let Civil { year, month, day, hour, minute, second, micro } = civil(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
}

/// Makes ids of calls: the supervisor's start, its process id and a counter, so that ids from all supervisors
/// that write to one log differ, and sort by start.
#[derive(Debug)]
pub struct CallIds {
    prefix: String,
    next: AtomicU64,
}

impl CallIds {
    /// Ids for a supervisor that started then, with this process id.
    #[must_use]
    pub fn new(start: SystemTime, pid: u32) -> Self {
        let Civil { year, month, day, hour, minute, second, micro } = civil(start);
        let prefix = format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{micro:06}-{pid}");
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// What all these ids begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// An id that was not given out before.
    pub fn next(&self) -> String {
        format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Days to a date by Howard Hinnant's `civil_from_days`: years begin in March, so that a leap day is the last.
fn civil(time: SystemTime) -> Civil {
    let whole = |micros: u128| i64::try_from(micros).unwrap_or(i64::MAX);
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after.as_micros()),
        Err(error) => -whole(error.duration().as_micros()),
    };
    let seconds = micros.div_euclid(1_000_000);
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);

    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        hour: second_of_day / 3_600,
        minute: second_of_day / 60 % 60,
        second: second_of_day % 60,
        micro: micros.rem_euclid(1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, micros: u64) -> String {
        rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
    }

    #[test]
    fn known_times_are_right() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_399, 999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(at(1_795_356_309, 123), "2026-11-22T14:05:09.000123Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_micros(1)), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn every_day_of_400_years_follows_the_one_before() {
        let mut before = at(0, 0);
        for day in 1..146_097 {
            let now = at(day * 86_400, 0);
            assert!(now > before, "{before} then {now}");
            before = now;
        }
        assert_eq!(before, "2369-12-31T00:00:00.000000Z");
    }

    #[test]
    fn ids_are_unique_also_across_threads() {
        let ids = CallIds::new(UNIX_EPOCH + Duration::from_secs(1_795_356_309), 77);
        let all: BTreeSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..500).map(|_| ids.next()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.len(), 2000);
        assert!(all.contains("20261122T140509.000000-77-1"));
    }
}
