//! Durations as people write them: `90s`, `30m`, `1h30m`.

use super::Text;
use core::time::Duration;

/// Units and their nanoseconds, the longest first.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A duration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) struct Lifetime(pub(in super::super) Duration);

impl Text for Lifetime {
    const EXPECTED: &'static str =
        "a duration such as \"90s\", \"30m\" or \"1h30m\" (units: ns us ms s m h d)";
    const PATTERN: Option<&'static str> = Some("^([0-9]+(ns|us|ms|s|m|h|d) ?)+$");

    fn from_text(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut total: u128 = 0;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (_, nanoseconds) = UNITS.iter().find(|(unit, _)| *unit == &rest[..end])?;
            total = total.checked_add(u128::from(number).checked_mul(*nanoseconds)?)?;
            rest = rest[end..].trim_start();
        }
        // The data plane counts nanoseconds in 64 bits.
        u64::try_from(total).ok().map(|nanoseconds| Self(Duration::from_nanos(nanoseconds)))
    }
}

/// A duration in the fewest units, as the configuration file takes it.
pub(in super::super) fn spell(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanoseconds) in UNITS {
        let count = rest / nanoseconds;
        rest %= nanoseconds;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_written() {
        let read = |text| Lifetime::from_text(text).map(|Lifetime(d)| d);
        assert_eq!(read("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(read("1h 30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(read("250ms"), Some(Duration::from_millis(250)));
        for wrong in [
            "",
            " ",
            "30",
            "m",
            "-1s",
            "1.5h",
            "30 min",
            "1y",
            "99999999999999999999s",
            "999999999d",
            "1s\u{e4}",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_spelled_duration_reads_back(nanoseconds: u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(Lifetime::from_text(&spell(duration)), Some(Lifetime(duration)));
        }
    }
}
