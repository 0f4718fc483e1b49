//! The limits by name: their defaults, bounds, and amounts as text.
//!
//! Neighbours: `policy::profile` and `policy::add` set limits with it, messages about a limit that was hit are
//! made with it. Never: enforces one.
//!
//! An amount is a plain number in the unit of `outcome::Violation`: bytes, tasks, thousandths of a CPU,
//! microseconds, descriptors.

use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

use super::units::{
    UnitError, parse_count, parse_cpu, parse_duration, parse_size, print_cpu, print_duration, print_size,
};
use super::{Limits, Policy};
use crate::outcome::Limit;

/// Every limit, in the order of the reference.
pub const ALL: [Limit; 8] = [
    Limit::Memory,
    Limit::Cpu,
    Limit::Tasks,
    Limit::Time,
    Limit::Output,
    Limit::OpenFiles,
    Limit::FileSize,
    Limit::Scratch,
];

/// The scratch size of a profile that names none.
pub const DEFAULT_SCRATCH: u64 = 64 << 20;

/// More than any machine has, and small enough that sums of amounts do not overflow.
const MOST_BYTES: u64 = 1 << 50;

/// Times that people write, in seconds.
const USUAL_SECONDS: [u64; 20] = [
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800, 604_800,
    2_592_000,
];

impl Default for Limits {
    /// What real servers need, with room: a node or Python server takes 60 to 90 MB and up to 20 threads.
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            cpu: 1000,
            tasks: 64,
            time: Duration::from_secs(60),
            output: 64 << 20,
            open_files: 1024,
            file_size: 256 << 20,
        }
    }
}

/// An amount outside of what can be enforced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{}` must be {bound} {}", .limit.name(), print(*.limit, *.amount))]
pub struct OutOfBounds {
    /// Which limit.
    pub limit: Limit,
    /// "at least" or "at most".
    pub bound: &'static str,
    /// The bound itself.
    pub amount: u64,
}

/// What a limit may be set to.
#[must_use]
pub const fn bounds(limit: Limit) -> RangeInclusive<u64> {
    match limit {
        Limit::Memory => 1 << 20..=MOST_BYTES,
        // The kernel's smallest quota is 1 ms in a period of 100 ms.
        Limit::Cpu => 10..=1_024_000,
        // One is init, one the payload.
        Limit::Tasks => 2..=4_194_304,
        Limit::Time => 1_000..=30 * 86_400_000_000,
        Limit::Output => 1..=MOST_BYTES,
        // The three pipes, what the dynamic loader opens, and what init has open while it confines itself.
        Limit::OpenFiles => 16..=1_048_576,
        Limit::FileSize | Limit::Scratch => 0..=MOST_BYTES,
    }
}

/// Checks an amount against the limit's bounds.
///
/// # Errors
/// Names the bound that is crossed.
pub fn check(limit: Limit, amount: u64) -> Result<(), OutOfBounds> {
    let bounds = bounds(limit);
    if amount < *bounds.start() {
        return Err(OutOfBounds { limit, bound: "at least", amount: *bounds.start() });
    }
    if amount > *bounds.end() {
        return Err(OutOfBounds { limit, bound: "at most", amount: *bounds.end() });
    }
    Ok(())
}

/// Reads an amount in the unit that the limit has; bounds are not checked.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(limit: Limit, text: &str) -> Result<u64, UnitError> {
    match limit {
        Limit::Memory | Limit::Output | Limit::FileSize | Limit::Scratch => parse_size(text),
        Limit::Cpu => parse_cpu(text).map(u64::from),
        Limit::Tasks | Limit::OpenFiles => parse_count(text).map(u64::from),
        Limit::Time => {
            let duration = parse_duration(text)?;
            u64::try_from(duration.as_micros()).ok().ok_or_else(|| UnitError::TooLarge(text.to_owned()))
        }
    }
}

/// Prints an amount as people write it, e.g. for a message about a limit that was hit.
#[must_use]
pub fn print(limit: Limit, amount: u64) -> String {
    match limit {
        Limit::Memory | Limit::Output | Limit::FileSize | Limit::Scratch => print_size(amount),
        Limit::Cpu => print_cpu(u32::try_from(amount).unwrap_or(u32::MAX)),
        Limit::Tasks | Limit::OpenFiles => amount.to_string(),
        Limit::Time => print_duration(Duration::from_micros(amount)),
    }
}

/// An example of what can be written for a limit.
#[must_use]
pub const fn example(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory | Limit::Output | Limit::FileSize | Limit::Scratch => "a size such as \"512MiB\"",
        Limit::Cpu => "a number of CPUs such as 0.5",
        Limit::Tasks | Limit::OpenFiles => "a whole number such as 64",
        Limit::Time => "a time such as \"30s\"",
    }
}

/// The limit as it stands in TOML, e.g. `memory = "1GiB"`.
#[must_use]
pub fn to_toml(limit: Limit, amount: u64) -> String {
    let text = print(limit, amount);
    match limit {
        Limit::Cpu | Limit::Tasks | Limit::OpenFiles => format!("{} = {text}", limit.name()),
        Limit::Memory | Limit::Output | Limit::FileSize | Limit::Scratch | Limit::Time => {
            format!("{} = \"{text}\"", limit.name())
        }
    }
}

/// The lines of TOML that would allow what a call needed: the next usual amount above the limit and the peak.
#[must_use]
pub fn toml_line_that_raises(limit: Limit, policy: &Policy, peak: Option<u64>) -> String {
    let needed = policy.limit(limit).max(peak.unwrap_or(0)).min(*bounds(limit).end());
    let doubled = |first: u64| {
        std::iter::successors(Some(first), |step| step.checked_mul(2)).find(|step| *step > needed)
    };
    let next = match limit {
        Limit::Memory | Limit::Output | Limit::FileSize | Limit::Scratch => doubled(1 << 20),
        Limit::Cpu => doubled(125),
        Limit::Tasks | Limit::OpenFiles => doubled(8),
        Limit::Time => USUAL_SECONDS.iter().map(|seconds| seconds * 1_000_000).find(|step| *step > needed),
    };
    let next = next.unwrap_or(needed).min(*bounds(limit).end());
    format!("[{}]\n{}", limit.section(), to_toml(limit, next))
}

impl Policy {
    /// The amount a limit is set to.
    #[must_use]
    pub fn limit(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Memory => self.limits.memory,
            Limit::Cpu => u64::from(self.limits.cpu),
            Limit::Tasks => u64::from(self.limits.tasks),
            Limit::Time => u64::try_from(self.limits.time.as_micros()).unwrap_or(u64::MAX),
            Limit::Output => self.limits.output,
            Limit::OpenFiles => u64::from(self.limits.open_files),
            Limit::FileSize => self.limits.file_size,
            Limit::Scratch => self.filesystem.scratch,
        }
    }

    /// Sets a limit to an amount that [`check`] accepts.
    ///
    /// # Errors
    /// Names the bound that is crossed; nothing is changed then.
    pub fn set_limit(&mut self, limit: Limit, amount: u64) -> Result<(), OutOfBounds> {
        check(limit, amount)?;
        let count = u32::try_from(amount).unwrap_or(u32::MAX);
        match limit {
            Limit::Memory => self.limits.memory = amount,
            Limit::Cpu => self.limits.cpu = count,
            Limit::Tasks => self.limits.tasks = count,
            Limit::Time => self.limits.time = Duration::from_micros(amount),
            Limit::Output => self.limits.output = amount,
            Limit::OpenFiles => self.limits.open_files = count,
            Limit::FileSize => self.limits.file_size = amount,
            Limit::Scratch => self.filesystem.scratch = amount,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_line_that_raises_a_limit_is_the_next_usual_amount() {
        let policy = Policy::nothing("p");
        let line = |limit, peak| toml_line_that_raises(limit, &policy, peak);
        assert_eq!(line(Limit::Memory, Some(512 << 20)), "[limits]\nmemory = \"1GiB\"");
        assert_eq!(line(Limit::Memory, Some(3 << 30)), "[limits]\nmemory = \"4GiB\"");
        assert_eq!(line(Limit::Cpu, None), "[limits]\ncpu = 2");
        assert_eq!(line(Limit::Tasks, Some(64)), "[limits]\ntasks = 128");
        assert_eq!(line(Limit::Time, Some(60_000_400)), "[limits]\ntime = \"2m\"");
        assert_eq!(line(Limit::Time, Some(30 * 60_000_000)), "[limits]\ntime = \"1h\"");
        assert_eq!(line(Limit::Scratch, None), "[filesystem]\nscratch = \"128MiB\"");
        assert_eq!(line(Limit::OpenFiles, None), "[limits]\nopen-files = 2048");
    }

    #[test]
    fn the_defaults_are_within_bounds() {
        let mut policy = Policy::nothing("p");
        for limit in ALL {
            policy.set_limit(limit, policy.limit(limit)).unwrap();
        }
        assert_eq!(policy, Policy::nothing("p"));
        let error = policy.set_limit(Limit::Tasks, 1).unwrap_err();
        assert_eq!(error.to_string(), "`tasks` must be at least 2");
    }

    proptest! {
        #[test]
        fn a_raised_limit_is_higher_and_allowed(which in 0_usize..8, peak: Option<u64>) {
            let limit = ALL[which];
            let policy = Policy::nothing("p");
            let line = toml_line_that_raises(limit, &policy, peak);
            let amount = line.rsplit(" = ").next().unwrap().trim_matches('"');
            let amount = parse(limit, amount).unwrap();
            prop_assert!(check(limit, amount).is_ok());
            prop_assert!(amount > policy.limit(limit));
        }
    }
}
