//! When a tool is refused for what its cells were refused, and how it comes back.
//!
//! ```text
//!        over the budget              the time is over, and it is called
//! free ─────────────────► refused ──────────────────────────────────────► tried ──so many clean calls──► free
//!   ▲                                                                       │
//!   └──────────────── released by a person ◄──────────────── kept out ◄─────┘ a violation
//! ```
//!
//! Neighbours: `guard::process` records each [`Step`] before it lets anything run by it. Never: reads the clock.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Verdict;
use crate::policy::config::guard::Quarantine;

/// Where a tool stands. Times are microseconds after 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Place {
    /// It runs.
    Free {
        /// When it had a violation, as far back as it counts.
        violations: VecDeque<u64>,
    },
    /// It is refused.
    Refused {
        /// Since when.
        since: u64,
        /// Until when.
        until: u64,
        /// What for.
        because: String,
    },
    /// It runs under a tightened profile.
    Tried {
        /// Since when.
        since: u64,
        /// Calls without a violation so far.
        clean: u32,
    },
    /// It is refused until somebody releases it.
    KeptOut {
        /// Since when.
        since: u64,
        /// What for.
        because: String,
    },
}

impl Default for Place {
    fn default() -> Self {
        Self::Free { violations: VecDeque::new() }
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// From free to refused.
    Refused,
    /// From refused to tried.
    Tried,
    /// From tried to free.
    Restored,
    /// From tried to refused, without an end.
    KeptOut,
    /// To free, by a person.
    Released,
}

impl Step {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Tried => "tried",
            Self::Restored => "restored",
            Self::KeptOut => "kept-out",
            Self::Released => "released",
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Place {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Free { .. } => "free",
            Self::Refused { .. } => "refused",
            Self::Tried { .. } => "tried",
            Self::KeptOut { .. } => "kept-out",
        }
    }

    /// It is not free.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        !matches!(self, Self::Free { .. })
    }

    /// Since when it is not free.
    #[must_use]
    pub const fn since(&self) -> Option<u64> {
        match self {
            Self::Refused { since, .. } | Self::Tried { since, .. } | Self::KeptOut { since, .. } => {
                Some(*since)
            }
            Self::Free { .. } => None,
        }
    }

    /// Until when it is refused.
    #[must_use]
    pub const fn until(&self) -> Option<u64> {
        match self {
            Self::Refused { until, .. } => Some(*until),
            Self::Free { .. } | Self::Tried { .. } | Self::KeptOut { .. } => None,
        }
    }

    /// What it is refused for.
    #[must_use]
    pub fn because(&self) -> Option<&str> {
        match self {
            Self::Refused { because, .. } | Self::KeptOut { because, .. } => Some(because),
            Self::Free { .. } | Self::Tried { .. } => None,
        }
    }

    /// A call has ended with so many violations; `trial`: it ran with less, and was not only refused.
    pub fn ended(&mut self, rules: &Quarantine, counted: u64, trial: bool, now: u64) -> Option<Step> {
        let (next, step) = match self {
            Self::Free { violations } => {
                let most = usize::try_from(rules.violations).unwrap_or(usize::MAX);
                let oldest = now.saturating_sub(micros(rules.within));
                violations.retain(|time| *time >= oldest && *time <= now);
                // More than one too many changes nothing.
                let more = usize::try_from(counted).unwrap_or(usize::MAX).min(most + 1);
                violations.extend(std::iter::repeat_n(now, more));
                if violations.len() <= most {
                    return None;
                }
                let within = crate::policy::units::print_duration(rules.within);
                let because = format!("its cells had more than {most} violations within {within}");
                let until = now.saturating_add(micros(rules.refuse));
                (Self::Refused { since: now, until, because }, Step::Refused)
            }
            Self::Tried { .. } if trial && counted > 0 => {
                let because = "it was tried with less, and had a violation again".to_owned();
                (Self::KeptOut { since: now, because }, Step::KeptOut)
            }
            Self::Tried { clean, .. } if trial => {
                *clean += 1;
                if *clean < rules.clean {
                    return None;
                }
                (Self::default(), Step::Restored)
            }
            // What was started before, and ends now, is not held against it twice.
            Self::Refused { .. } | Self::Tried { .. } | Self::KeptOut { .. } => return None,
        };
        *self = next;
        Some(step)
    }

    /// May it be called now?
    pub fn asked(&mut self, now: u64) -> (Verdict, Option<Step>) {
        match self {
            Self::Free { .. } => (Verdict::Free, None),
            Self::Tried { .. } => (Verdict::Trial, None),
            Self::Refused { until, .. } if *until <= now => {
                *self = Self::Tried { since: now, clean: 0 };
                (Verdict::Trial, Some(Step::Tried))
            }
            Self::Refused { until, because, .. } => {
                (Verdict::Refused { why: because.clone(), until: Some(*until) }, None)
            }
            Self::KeptOut { because, .. } => (Verdict::Refused { why: because.clone(), until: None }, None),
        }
    }

    /// Lets it run again, with an empty budget. `None`: it was free.
    pub fn release(&mut self) -> Option<Step> {
        let held = self.is_held();
        *self = Self::default();
        held.then_some(Step::Released)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Quarantine {
        Quarantine {
            violations: 3,
            within: Duration::from_micros(100),
            refuse: Duration::from_micros(50),
            profile: None,
            clean: 2,
        }
    }

    #[test]
    fn over_its_budget_a_tool_is_refused_tried_and_restored() {
        let (rules, mut place) = (rules(), Place::default());
        assert_eq!(place.ended(&rules, 3, false, 1000), None);
        assert_eq!(place.asked(1000), (Verdict::Free, None));
        // The first three are too old by now.
        assert_eq!(place.ended(&rules, 3, false, 1101), None);
        assert_eq!(place.ended(&rules, 1, false, 1102), Some(Step::Refused));
        assert_eq!((place.since(), place.until()), (Some(1102), Some(1152)));
        let (Verdict::Refused { why, until }, None) = place.asked(1151) else { panic!() };
        assert_eq!((why.contains("more than 3"), until), (true, Some(1152)));
        // A call that was running already neither frees it nor keeps it out.
        assert_eq!(place.ended(&rules, 9, false, 1151), None);
        assert_eq!(place.asked(1152), (Verdict::Trial, Some(Step::Tried)));
        assert_eq!(place.ended(&rules, 9, false, 1153), None);
        assert_eq!((place.ended(&rules, 0, true, 1154), place.asked(1154)), (None, (Verdict::Trial, None)));
        assert_eq!(place.ended(&rules, 0, true, 1155), Some(Step::Restored));
        assert_eq!((&place, place.since()), (&Place::default(), None));
    }

    #[test]
    fn a_violation_while_it_is_tried_keeps_it_out_until_it_is_released() {
        let (rules, mut place) = (rules(), Place::default());
        assert_eq!(place.ended(&rules, u64::MAX, false, 0), Some(Step::Refused));
        assert_eq!(place.asked(50).1, Some(Step::Tried));
        assert_eq!(place.ended(&rules, 1, true, 51), Some(Step::KeptOut));
        assert!(matches!(place.asked(u64::MAX), (Verdict::Refused { until: None, .. }, None)));
        assert_eq!(place.release(), Some(Step::Released));
        assert_eq!((place.asked(52), place.release()), ((Verdict::Free, None), None));
    }

    proptest! {
        /// Whatever happens, no call runs freely between the step that refuses and the one that restores or releases.
        #[test]
        fn nothing_runs_freely_while_it_is_held(
            happened in proptest::collection::vec((0_u64..5, any::<bool>(), 0_u64..80, any::<bool>()), 0..60),
        ) {
            let (rules, mut place, mut held, mut now) = (rules(), Place::default(), false, 0);
            for (counted, trial, later, asks) in happened {
                now += later;
                if asks {
                    let (verdict, _step) = place.asked(now);
                    prop_assert_eq!(verdict == Verdict::Free, !held);
                } else {
                    match place.ended(&rules, counted, trial, now) {
                        Some(Step::Refused) => held = true,
                        Some(Step::Restored) => held = false,
                        Some(Step::KeptOut | Step::Tried | Step::Released) | None => {}
                    }
                }
                prop_assert_eq!(place.is_held(), held);
                let text = serde_json::to_string(&place).unwrap();
                prop_assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place.clone());
            }
        }
    }
}
