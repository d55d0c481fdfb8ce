//! Quantities with units, as people write them.

use std::time::Duration;

/// Units of time and how many nanoseconds they have, smallest first.
const TIMES: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Units of rate and how many bits per second they have, smallest first.
const RATES: [(&str, u64); 4] = [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
/// Units of size and how many bytes they have, smallest first.
const SIZES: [(&str, u64); 6] =
    [("B", 1), ("kB", 1_000), ("KiB", 1 << 10), ("MB", 1_000_000), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A duration such as `40ms`, `1.5s`, `250us` or `2min`.
pub fn duration(text: &str) -> Result<Duration, String> {
    quantity(text, &TIMES).map(Duration::from_nanos).ok_or_else(|| {
        format!("`{text}` is not a duration: a number and one of `us`, `ms`, `s`, `min` is expected, as in `40ms`")
    })
}

/// A duration as on command lines: as [`duration`] reads it, or a plain number of seconds.
pub fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.map_or_else(|| duration(text), Ok)
}

/// A rate such as `500kbit` or `10mbit` (per second; decimal units), in bits per second.
pub fn rate(text: &str) -> Result<u64, String> {
    quantity(text, &RATES).filter(|&rate| rate > 0).ok_or_else(|| {
        format!("`{text}` is not a rate: a number and one of `kbit`, `mbit`, `gbit` is expected, as in `10mbit`")
    })
}

/// A size such as `1200` or `64KiB`, in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let plain = text.trim().parse().ok();
    plain.or_else(|| quantity(text, &SIZES)).ok_or_else(|| {
        format!("`{text}` is not a size: a number of bytes or one with `kB`, `KiB`, `MB`, `MiB` is expected")
    })
}

/// The duration as [`duration`] reads it, exactly.
pub fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), &TIMES)
}

/// The rate as [`rate`] reads it, exactly.
pub fn show_rate(bits_per_second: u64) -> String {
    show(bits_per_second, &RATES)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = fits.unwrap_or(&units[0]);
    format!("{}{unit}", value / factor)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..split], text[split..].trim());
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && value < u64::MAX as f64).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(duration("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(duration("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(rate("10mbit"), Ok(10_000_000));
        assert_eq!(rate("0.5Mbit"), Ok(500_000));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1200"), Ok(1_200));
    }

    #[test]
    fn command_lines_may_give_plain_seconds() {
        assert_eq!(duration_or_seconds("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration_or_seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(duration_or_seconds("250ms"), Ok(Duration::from_millis(250)));
        for text in ["-1", "inf", "nan", "", "five"] {
            assert!(duration_or_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "40", "ms", "-1s", "4 weeks", "1..5s", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(rate("0mbit").is_err());
        assert!(size("many").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(nanos in any::<u64>(), kilobits in 1..10_000_000u64) {
            let time = Duration::from_nanos(nanos);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(rate(&show_rate(kilobits * 1000)), Ok(kilobits * 1000));
        }
    }
}
