//! Shows points in time to an operator.

use std::time::SystemTime;

use tokio::time::Instant;

/// Converts the store's own times into times of day.
///
/// Deadlines are kept in `Instant`, which a change of the system's clock does not move. The time of day
/// is read once, so that the same moment is always shown as the same time.
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
    pub(super) fn time(&self, at: Instant) -> SystemTime {
        let since = at.saturating_duration_since(self.began);
        self.began_at.checked_add(since).unwrap_or(self.began_at)
    }
}
