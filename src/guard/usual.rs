//! What a number usually is, from those before it: their median, and their median distance from it.
//!
//! Up to half of the values may be as wild as they like without moving either. Neighbours: `guard::rules` asks whether a
//! call is far off. Never: depends on the order of the values, or computes with fractions.

/// Hundredths of a standard deviation in a median distance, of values that are spread normally, times hundred.
const NORMAL: u64 = 14_826;
const WHOLE: u64 = 10_000;

/// The middle of values and how far they are from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usual {
    pub(super) median: u64,
    /// Never below a tenth of the median: values that are all but equal would make every other one unusual.
    pub(super) spread: u64,
}

/// The value that half of them are not above; of an even number the lower one.
fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

impl Usual {
    /// Of these values, if there are any.
    pub(super) fn of(values: impl Iterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<u64> = values.collect();
        let middle = median(&mut values)?;
        for value in &mut values {
            *value = value.abs_diff(middle);
        }
        let distance = u128::from(median(&mut values)?) * u128::from(NORMAL) / u128::from(WHOLE);
        let distance = u64::try_from(distance).unwrap_or(u64::MAX);
        Some(Self { median: middle, spread: distance.max(middle / 10).max(1) })
    }

    /// Whether a value is more than so many times further from the median than usual.
    pub(super) fn is_far(&self, value: u64, factor: u32) -> bool {
        value.abs_diff(self.median) > self.spread.saturating_mul(u64::from(factor))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values_have_the_median_and_distance_of_the_books() {
        // 1 1 2 2 4 6 9: the median is 2, the distances are 0 0 1 1 2 4 7, their median is 1.
        let usual = Usual::of([1, 1, 2, 2, 4, 6, 9].into_iter()).unwrap();
        assert_eq!(usual, Usual { median: 2, spread: 1 });
        let usual = Usual::of([100, 110, 120, 130, 140].into_iter()).unwrap();
        assert_eq!(usual, Usual { median: 120, spread: 14 });
        assert_eq!(Usual::of([1000; 9].into_iter()).unwrap(), Usual { median: 1000, spread: 100 });
        assert_eq!(Usual::of(std::iter::empty()), None);
        let usual = Usual { median: 120, spread: 14 };
        assert!(usual.is_far(261, 10) && !usual.is_far(260, 10) && usual.is_far(105, 1));
    }

    proptest! {
        /// What is said does not depend on the order, and half of the values cannot move it out of the others' range.
        #[test]
        fn less_than_half_of_the_values_decide_nothing(
            (usual, wild) in proptest::collection::vec(1_000_u64..2_000, 1..40).prop_flat_map(|usual| {
                let most = usual.len() - 1;
                (Just(usual), proptest::collection::vec(any::<u64>(), 0..=most))
            }),
            factor in 1_u32..1_000,
            value in any::<u64>(),
        ) {
            let mixed: Vec<u64> = wild.iter().chain(&usual).copied().collect();
            let found = Usual::of(mixed.iter().copied()).unwrap();
            prop_assert_eq!(Some(found), Usual::of(mixed.iter().rev().copied()));
            prop_assert!((1_000..2_000).contains(&found.median));
            // Of the usual values none is further off than the whole range, in which the distance lies too.
            prop_assert!(found.spread <= 1_000 * NORMAL / WHOLE);
            prop_assert!(!found.is_far(found.median, factor));
            // A stricter rule finds all that a laxer one finds, and what is further off is found when the nearer is.
            prop_assert!(!found.is_far(value, factor) || found.is_far(value, 1));
            if found.is_far(value, factor) && value > found.median {
                prop_assert!(found.is_far(value.saturating_add(1), factor));
            }
        }
    }
}
