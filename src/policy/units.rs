//! Units as people write them: sizes, CPU, durations, counts. Reading and printing are exact inverses.
//!
//! Neighbours: `policy::profile` and the command line read with it, messages and `profile show` print with it.
//! Never: rounds. What is not a whole number of the smallest unit is an error.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Nothing is there.
    #[error("an amount is missing")]
    Empty,
    /// It starts with a minus sign.
    #[error("`{0}` is negative")]
    Negative(String),
    /// It does not start with digits, or is `nan` or `inf`.
    #[error("`{0}` is not a number")]
    NotANumber(String),
    /// A number that needs a unit stands alone.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// The letters after the number are no unit of this kind.
    #[error("`{unit}` is not a unit of {kind}")]
    UnknownUnit {
        /// The letters.
        unit: String,
        /// "size", "CPU", "time" or "count".
        kind: &'static str,
        /// What to write instead.
        instead: String,
    },
    /// A fraction of the smallest unit.
    #[error("`{text}` is not a whole number of {smallest}")]
    Fraction {
        /// What was written.
        text: String,
        /// The smallest unit, in the plural.
        smallest: &'static str,
    },
    /// More than the value can hold.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl UnitError {
    /// What to write instead, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownUnit { instead, .. } => Some(instead.clone()),
            Self::NoUnit(text) => Some(format!("write `{text}s` for seconds, or `ms`, `m`, `h`, `d`")),
            Self::Empty
            | Self::Negative(_)
            | Self::NotANumber(_)
            | Self::Fraction { .. }
            | Self::TooLarge(_) => None,
        }
    }
}

/// Units of size, the ones that `print_size` uses; the larger first.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of time in milliseconds, the larger first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A decimal number before it is multiplied: `1.25` is 125 with two decimals.
struct Decimal {
    digits: u128,
    decimals: u32,
}

impl Decimal {
    /// The number times `unit`, if that is whole and fits.
    fn times(&self, unit: u64, text: &str, smallest: &'static str) -> Result<u64, UnitError> {
        let too_large = || UnitError::TooLarge(text.to_owned());
        let scale = 10_u128.checked_pow(self.decimals).ok_or_else(too_large)?;
        let product = self.digits.checked_mul(u128::from(unit)).ok_or_else(too_large)?;
        match (product.checked_div(scale), product.checked_rem(scale)) {
            (Some(whole), Some(0)) => u64::try_from(whole).ok().ok_or_else(too_large),
            (Some(_) | None, Some(_) | None) => Err(UnitError::Fraction { text: text.to_owned(), smallest }),
        }
    }
}

/// Splits a text into its number and the unit after it.
fn split(text: &str) -> Result<(Decimal, &str), UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    if text.starts_with('-') {
        return Err(UnitError::Negative(text.to_owned()));
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits_only(whole) || !fraction.is_none_or(digits_only) {
        return Err(UnitError::NotANumber(text.to_owned()));
    }
    let fraction = fraction.unwrap_or("").trim_end_matches('0');
    let too_large = || UnitError::TooLarge(text.to_owned());
    let digits = format!("{whole}{fraction}").parse::<u128>().ok().ok_or_else(too_large)?;
    let decimals = u32::try_from(fraction.len()).ok().ok_or_else(too_large)?;
    Ok((Decimal { digits, decimals }, unit.trim_start()))
}

/// Reads a size in bytes: `512MiB`, `64KiB`, `1GB`, `1.5GiB`, `4096`.
///
/// # Errors
/// Says what is wrong with the text; `512M` is refused because it means two different sizes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let unit = if unit == "KB" { "kB" } else { unit };
    if unit.is_empty() {
        return number.times(1, text, "bytes");
    }
    match SIZES.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => number.times(*bytes, text, "bytes"),
        None => Err(UnitError::UnknownUnit { unit: unit.to_owned(), kind: "size", instead: size_hint(unit) }),
    }
}

fn size_hint(unit: &str) -> String {
    let meant = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    match (meant, unit.chars().next().map(|c| c.to_ascii_uppercase())) {
        (Some((name, _)), _) => format!("write `{name}`"),
        (None, Some('K')) => "write `KiB` (1024 bytes) or `kB` (1000 bytes)".to_owned(),
        (None, Some(letter @ ('M' | 'G' | 'T'))) => {
            format!("write `{letter}iB` (powers of 1024) or `{letter}B` (powers of 1000)")
        }
        (None, Some(_) | None) => {
            "units of size are `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`".to_owned()
        }
    }
}

/// Reads CPUs as thousandths of one: `0.5` is 500, `2` is 2000.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_cpu(text: &str) -> Result<u32, UnitError> {
    let (number, unit) = split(text)?;
    if !unit.is_empty() {
        let instead = "write the number of CPUs, e.g. `0.5` or `2`".to_owned();
        return Err(UnitError::UnknownUnit { unit: unit.to_owned(), kind: "CPU", instead });
    }
    let value = number.times(1000, text, "thousandths of a CPU")?;
    u32::try_from(value).ok().ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Reads a duration to the millisecond: `500ms`, `30s`, `1.5m`, `1h`, `1d`.
///
/// # Errors
/// Says what is wrong with the text; a bare number has no unit and is refused.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Err(UnitError::NoUnit(text.trim().to_owned()));
    }
    match TIMES.iter().find(|(name, _)| *name == unit) {
        Some((_, ms)) => number.times(*ms, text, "milliseconds").map(Duration::from_millis),
        None => {
            let known = [("d", "day"), ("h", "hour"), ("m", "min"), ("s", "sec"), ("ms", "milli")];
            let lower = unit.to_ascii_lowercase();
            let meant = known.iter().find(|(short, long)| *short == lower || lower.starts_with(long));
            let instead = meant.map_or_else(
                || "units of time are `ms`, `s`, `m`, `h`, `d`".to_owned(),
                |(short, _)| format!("write `{short}`"),
            );
            Err(UnitError::UnknownUnit { unit: unit.to_owned(), kind: "time", instead })
        }
    }
}

/// Reads a count: `64`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_count(text: &str) -> Result<u32, UnitError> {
    let (number, unit) = split(text)?;
    if !unit.is_empty() {
        let instead = "write a whole number, e.g. `64`".to_owned();
        return Err(UnitError::UnknownUnit { unit: unit.to_owned(), kind: "count", instead });
    }
    let value = number.times(1, text, "things counted")?;
    u32::try_from(value).ok().ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Prints a size in the shortest exact form.
#[must_use]
pub fn print_size(bytes: u64) -> String {
    SIZES
        .iter()
        .filter(|(name, unit)| *name != "B" && bytes != 0 && bytes.is_multiple_of(*unit))
        .map(|(name, unit)| format!("{}{name}", bytes / unit))
        .min_by_key(String::len)
        .unwrap_or_else(|| format!("{bytes}B"))
}

/// Prints thousandths of a CPU as CPUs.
#[must_use]
pub fn print_cpu(thousandths: u32) -> String {
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
}

/// Prints a duration in the largest unit that is exact; below a millisecond it is cut off.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    TIMES
        .iter()
        .find(|(_, unit)| ms != 0 && ms.is_multiple_of(u128::from(*unit)))
        .map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / u128::from(*unit)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("64KiB", 65_536),
            ("1GB", 1_000_000_000),
            ("1 GB", 1_000_000_000),
            ("1kB", 1000),
            ("1KB", 1000),
            ("1.5GiB", 3 << 29),
            ("4096", 4096),
            ("4096B", 4096),
            ("0", 0),
            ("1.0", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_said_to_be_none() {
        let size = |text: &str| {
            let error = parse_size(text).unwrap_err();
            error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}: {hint}"))
        };
        assert_eq!(size(""), "an amount is missing");
        assert_eq!(size("-1MiB"), "`-1MiB` is negative");
        assert_eq!(size("nan"), "`nan` is not a number");
        assert_eq!(size("1.2.3"), "`1.2.3` is not a number");
        assert_eq!(size(".5GiB"), "`.5GiB` is not a number");
        assert_eq!(size("+1"), "`+1` is not a number");
        assert_eq!(size("0.3KiB"), "`0.3KiB` is not a whole number of bytes");
        assert_eq!(size("18446744073709551616"), "`18446744073709551616` is too large");
        assert_eq!(size("99999999999TiB"), "`99999999999TiB` is too large");
        assert_eq!(
            size("512M"),
            "`M` is not a unit of size: write `MiB` (powers of 1024) or `MB` (powers of 1000)"
        );
        assert_eq!(size("512mib"), "`mib` is not a unit of size: write `MiB`");
        let duration = |text: &str| parse_duration(text).unwrap_err();
        assert_eq!(duration("30").hint().unwrap(), "write `30s` for seconds, or `ms`, `m`, `h`, `d`");
        assert_eq!(duration("30 seconds").hint().unwrap(), "write `s`");
        assert_eq!(duration("0.1ms").to_string(), "`0.1ms` is not a whole number of milliseconds");
        assert_eq!(parse_cpu("NaN").unwrap_err().to_string(), "`NaN` is not a number");
        assert_eq!(parse_cpu("50%").unwrap_err().to_string(), "`%` is not a unit of CPU");
        assert_eq!(
            parse_cpu("0.0001").unwrap_err().to_string(),
            "`0.0001` is not a whole number of thousandths of a CPU"
        );
        assert_eq!(parse_count("4294967296").unwrap_err().to_string(), "`4294967296` is too large");
    }

    #[test]
    fn printing_is_short() {
        assert_eq!(print_size(512 << 20), "512MiB");
        assert_eq!(print_size(512_000_000), "512MB");
        assert_eq!(print_size(4097), "4097B");
        assert_eq!(print_size(0), "0B");
        assert_eq!(print_cpu(500), "0.5");
        assert_eq!(print_cpu(2000), "2");
        assert_eq!(print_cpu(1250), "1.25");
        assert_eq!(print_duration(Duration::from_secs(90)), "90s");
        assert_eq!(print_duration(Duration::from_secs(120)), "2m");
        assert_eq!(print_duration(Duration::from_millis(0)), "0ms");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(n: u64, small: u32) {
            prop_assert_eq!(parse_size(&print_size(n)), Ok(n));
            prop_assert_eq!(parse_cpu(&print_cpu(small)), Ok(small));
            prop_assert_eq!(parse_count(&small.to_string()), Ok(small));
            let duration = Duration::from_millis(n);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_is_too_strange_to_refuse(text in any::<String>()) {
            let results = (parse_size(&text), parse_cpu(&text), parse_duration(&text), parse_count(&text));
            prop_assert!(results.0.is_ok() || results.0.is_err_and(|e| !e.to_string().is_empty()));
        }
    }
}
