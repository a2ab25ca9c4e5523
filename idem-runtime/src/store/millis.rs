//! Durations as the stores use them: at most 100 years, and whole milliseconds outside this
//! process.

use std::time::Duration;

/// 100 years. Longer durations overflow the arithmetic of some engines.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The duration, limited to 100 years so that it can be added to any time.
pub(super) fn bounded(duration: Duration) -> Duration {
    duration.min(LONGEST)
}

/// Whole milliseconds, rounded up, from 1 to 100 years.
#[cfg(any(feature = "redis", feature = "postgres"))]
pub(super) fn millis(duration: Duration) -> i64 {
    let millis = bounded(duration).as_nanos().div_ceil(1_000_000).max(1);
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A duration from milliseconds that an engine returned.
#[cfg(feature = "postgres")]
pub(super) fn from_millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_durations_become_100_years() {
        assert_eq!(bounded(Duration::MAX), LONGEST);
        assert_eq!(bounded(LONGEST), LONGEST);
        let shorter = LONGEST.saturating_sub(Duration::from_nanos(1));
        assert_eq!(bounded(shorter), shorter);
    }

    #[cfg(any(feature = "redis", feature = "postgres"))]
    #[test]
    fn no_duration_is_rounded_to_zero() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_micros(1500)), 2);
        assert_eq!(millis(Duration::from_secs(1)), 1000);
        assert_eq!(millis(Duration::MAX), 3_153_600_000_000);
    }
}
