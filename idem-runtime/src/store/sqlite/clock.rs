//! Times as the store keeps them: whole microseconds since 1970.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::store::millis::bounded;

/// The time of the machine. All processes that can share a file run on one machine.
pub(super) fn now() -> i64 {
    micros_since_1970(SystemTime::now())
}

pub(super) fn micros_since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    micros(since.unwrap_or_default())
}

/// The clock of reads on connections other than the writer's. It stops while a transaction runs.
///
/// A transaction decides by the time at its start, and a read sees the result only after the commit. With a
/// later time, a read in between could report a lease as lapsed that the transaction has renewed. Another
/// process has a clock of its own, so this protects only the reads of one process.
#[derive(Debug, Default)]
pub(super) struct ReadClock(Mutex<Option<i64>>);

/// A transaction runs until this is dropped.
pub(super) struct Stopped<'a>(&'a ReadClock);

impl ReadClock {
    pub(super) fn now(&self) -> i64 {
        let stopped_at = self.lock();
        let now = now();
        stopped_at.map_or(now, |at| at.min(now))
    }

    /// Stops the clock. Call this after the transaction has the lock of the file.
    pub(super) fn stop(&self) -> Stopped<'_> {
        // The lock comes first. Otherwise a read in between gets a later time than the reads after it.
        let mut stopped_at = self.lock();
        *stopped_at = Some(now());
        Stopped(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Whole microseconds, rounded up, from 1 to 100 years.
pub(super) fn micros(duration: Duration) -> i64 {
    let micros = bounded(duration).as_nanos().div_ceil(1000).max(1);
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// How long it is until `time`.
///
/// This reads the clock of the machine, not the clock of reads: with a clock that stands still, a
/// near cache would keep a record beyond its expiry.
pub(super) fn left(time: i64) -> Duration {
    let left = time.saturating_sub(now());
    Duration::from_micros(u64::try_from(left).unwrap_or_default())
}

pub(super) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_reads_stops_during_a_transaction() {
        let clock = ReadClock::default();
        let stopped = clock.stop();
        let at = clock.now();
        while now() == at {}
        assert_eq!(clock.now(), at);
        drop(stopped);
        assert!(clock.now() > at);
    }

    #[test]
    fn the_time_that_is_left_shrinks_during_a_transaction() {
        let clock = ReadClock::default();
        let stopped = clock.stop();
        let until = clock.now() + 60_000_000;
        let at_first = left(until);
        assert!(at_first <= Duration::from_secs(60));
        while left(until) == at_first {}
        drop(stopped);
        assert_eq!(left(now() - 2), Duration::ZERO);
    }

    #[test]
    fn no_duration_is_rounded_to_zero() {
        assert_eq!(micros(Duration::ZERO), 1);
        assert_eq!(micros(Duration::from_nanos(1001)), 2);
        assert_eq!(micros(Duration::MAX), 3_153_600_000_000_000);
    }
}
