//! Times as the store keeps them: whole microseconds since 1970.

use std::time::{Duration, SystemTime};

use crate::store::millis::bounded;

/// The time of the machine. All processes that can share a file run on one machine.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    micros(since.unwrap_or_default())
}

/// Whole microseconds, rounded up, from 1 to 100 years.
pub(super) fn micros(duration: Duration) -> i64 {
    let micros = bounded(duration).as_nanos().div_ceil(1000).max(1);
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// How long it is from `now` until `time`.
pub(super) fn left(time: i64, now: i64) -> Duration {
    let left = time.saturating_sub(now);
    Duration::from_micros(u64::try_from(left).unwrap_or_default())
}

pub(super) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_rounded_to_zero() {
        assert_eq!(micros(Duration::ZERO), 1);
        assert_eq!(micros(Duration::from_nanos(1001)), 2);
        assert_eq!(micros(Duration::MAX), 3_153_600_000_000_000);
        assert_eq!(left(5, 7), Duration::ZERO);
        assert_eq!(left(7, 5), Duration::from_micros(2));
    }
}
