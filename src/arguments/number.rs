//! Numbers of JSON, compared and divided by their decimal digits, so that no rounding lets one through.
//!
//! Neighbours: `arguments::check` asks. Never: takes longer for a large exponent.

use std::cmp::Ordering;

use serde_json::Number;

/// `digits` × 10 to the `exponent`; no digits end in 0, and zero has exponent 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    /// The shortest decimal that reads as this number.
    pub(super) fn of(number: &Number) -> Self {
        if let Some(whole) = number.as_i64() {
            return Self::normal(i128::from(whole), 0);
        }
        if let Some(whole) = number.as_u64() {
            return Self::normal(i128::from(whole), 0);
        }
        let text = format!("{:e}", number.as_f64().unwrap_or_default());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // At most 17 digits, and an exponent of at most three.
        let digits = format!("{whole}{part}").parse().unwrap_or_default();
        let exponent: i32 = exponent.parse().unwrap_or_default();
        Self::normal(digits, exponent - i32::try_from(part.len()).unwrap_or_default())
    }

    fn normal(mut digits: i128, mut exponent: i32) -> Self {
        if digits == 0 {
            return Self { digits, exponent: 0 };
        }
        while digits % 10 == 0 {
            digits /= 10;
            exponent += 1;
        }
        Self { digits, exponent }
    }

    /// It has no part behind the point.
    pub(super) const fn is_whole(self) -> bool {
        self.exponent >= 0
    }

    /// How many digits stand before the point.
    fn magnitude(self) -> i32 {
        let places = self.digits.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1);
        i32::try_from(places).unwrap_or_default() + self.exponent
    }

    /// Is this a multiple of `other`, which is not 0?
    pub(super) fn is_multiple_of(self, other: Self) -> bool {
        let (ours, divisor) = (self.digits.unsigned_abs(), other.digits.unsigned_abs());
        if ours == 0 {
            return true;
        }
        let shift = self.exponent.abs_diff(other.exponent);
        if self.exponent >= other.exponent {
            let power = power_of_ten(shift, divisor);
            // Both are below 2^64, so the product fits.
            return ((ours % divisor) * power).is_multiple_of(divisor);
        }
        let grown = 10_u128.checked_pow(shift).and_then(|power| divisor.checked_mul(power));
        grown.is_some_and(|divisor| ours.is_multiple_of(divisor))
    }
}

/// 10 to the `exponent`, modulo `modulus`, which is below 2^64.
fn power_of_ten(exponent: u32, modulus: u128) -> u128 {
    (0..exponent).fold(1 % modulus, |power, _| power * 10 % modulus)
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.digits.signum().cmp(&other.digits.signum());
        if signs != Ordering::Equal || self.digits == 0 {
            return signs;
        }
        let size = self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // With as many digits before the point, the shorter one is short by its difference of exponents.
            let grown = |one: &Self, exponent: i32| {
                one.digits.unsigned_abs() * 10_u128.pow(one.exponent.abs_diff(exponent))
            };
            let exponent = self.exponent.min(other.exponent);
            grown(self, exponent).cmp(&grown(other, exponent))
        });
        if self.digits < 0 { size.reverse() } else { size }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        let Value::Number(number) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        Decimal::of(&number)
    }

    #[test]
    fn numbers_are_the_same_however_they_are_written() {
        for same in [["1", "1.0"], ["100", "1e2"], ["0", "-0.0"], ["-25e-1", "-2.5"]] {
            assert_eq!(decimal(same[0]), decimal(same[1]));
        }
        assert!(decimal("1e300").is_whole() && decimal("-7").is_whole() && !decimal("0.5").is_whole());
        // Both are the same 64-bit float.
        assert!(decimal("9007199254740993") > decimal("9007199254740992"));
    }

    #[test]
    fn multiples_are_exact() {
        for (number, divisor, is) in [
            ("0.0075", "0.0001", true),
            ("0.00751", "0.0001", false),
            ("4.5", "1.5", true),
            ("35", "1.5", false),
            ("1e308", "0.123456789", false),
            ("1e308", "0.5", true),
            ("12391239123", "1e-8", true),
            ("1e-300", "1e300", false),
            ("0", "1e-300", true),
            ("18446744073709551615", "5", true),
        ] {
            assert_eq!(decimal(number).is_multiple_of(decimal(divisor)), is, "{number} of {divisor}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_numbers(a: f64, b: f64, c: i64, d: i64) {
            prop_assume!(a.is_finite() && b.is_finite());
            let of = |f: f64| Decimal::of(&Number::from_f64(f).unwrap());
            prop_assert_eq!(of(a).partial_cmp(&of(b)), a.partial_cmp(&b));
            prop_assert_eq!(Decimal::of(&c.into()).cmp(&Decimal::of(&d.into())), c.cmp(&d));
            prop_assert_eq!(d != 0 && Decimal::of(&c.into()).is_multiple_of(Decimal::of(&d.into())), d != 0 && c.checked_rem(d) == Some(0));
        }
    }
}
