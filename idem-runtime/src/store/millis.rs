//! Durations as the stores keep them: whole milliseconds within reason.
#![cfg(any(feature = "redis", feature = "postgres"))]

use std::time::Duration;

/// 100 years. Beyond it the arithmetic of one engine or another gives up.
const LONGEST: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Whole milliseconds, rounded up, from 1 to 100 years.
pub(super) fn millis(duration: Duration) -> i64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    let millis = u64::try_from(millis).unwrap_or(LONGEST).clamp(1, LONGEST);
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A duration from milliseconds that an engine gave.
pub(super) fn from_millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_rounded_to_nothing() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_micros(1500)), 2);
        assert_eq!(millis(Duration::from_secs(1)), 1000);
        assert_eq!(millis(Duration::MAX), 3_153_600_000_000);
    }
}
