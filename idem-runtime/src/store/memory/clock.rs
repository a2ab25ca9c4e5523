//! Points in time, in half of the bytes of an `Instant`, and as an operator sees them.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A point in time: the nanoseconds since the store was built. A process that runs for centuries overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// Later than every other moment.
    pub(super) const NEVER: Self = Self(u64::MAX);

    pub(super) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    pub(super) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// The time from `earlier` until this moment.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(span: Duration) -> u64 {
    let seconds = span.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(span.subsec_nanos().into())
}

/// Reads the time, and converts moments into times of day.
///
/// A change of the system's clock does not move a moment. The time of day is read once, so that the same
/// moment is always shown as the same time.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    began_at: SystemTime,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            began_at: SystemTime::now(),
        }
    }
}

impl Clock {
    pub(super) fn now(&self) -> Moment {
        Moment(nanos(self.began.elapsed()))
    }

    pub(super) fn time(&self, at: Moment) -> SystemTime {
        let since = Duration::from_nanos(at.0);
        self.began_at.checked_add(since).unwrap_or(self.began_at)
    }
}
