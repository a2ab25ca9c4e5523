//! Computes deadlines that never overflow.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than the life of any process. Much longer spans overflow the clocks of some systems.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Returns `start` plus `span`. A span that the clock cannot represent ends in the far future.
pub(crate) fn after(start: Instant, span: Duration) -> Instant {
    start.checked_add(span).unwrap_or_else(|| start + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_overflows_ends_in_the_far_future() {
        let now = Instant::now();
        assert_eq!(
            after(now, Duration::from_secs(1)) - now,
            Duration::from_secs(1)
        );
        assert_eq!(after(now, Duration::MAX) - now, FAR);
    }
}
