//! The tries of one operation, from its start to its deadline.

#![cfg(any(feature = "reqwest-middleware", feature = "tower"))]

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Policy;

/// Counts the tries of one operation and the time that is left.
#[derive(Debug)]
pub(crate) struct Schedule<'a> {
    policy: &'a Policy,
    started: Instant,
    pub(crate) tries: u32,
}

impl<'a> Schedule<'a> {
    pub(crate) fn start(policy: &'a Policy) -> Self {
        Self {
            policy,
            started: Instant::now(),
            tries: 0,
        }
    }

    /// Returns the time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.policy.deadline.saturating_sub(self.started.elapsed())
    }

    /// Counts a try, and returns how long it may take.
    pub(crate) fn next_try(&mut self) -> Duration {
        self.tries = self.tries.saturating_add(1);
        self.policy.try_timeout.min(self.left())
    }

    /// Waits before the next try. Returns `false`, without waiting, when the deadline would pass.
    pub(crate) async fn wait(&self, asked_for: Option<Duration>) -> bool {
        let wait = self
            .jittered()
            .saturating_add(asked_for.unwrap_or_default());
        if wait >= self.left() {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    fn jittered(&self) -> Duration {
        let limit = self.policy.wait_limit(self.tries);
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(fastrand::u64(0..=nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_a_random_time_below_its_limit() {
        let policy = Policy::default();
        let mut schedule = Schedule::start(&policy);
        for limit in [500, 1_000, 2_000] {
            schedule.next_try();
            let limit = Duration::from_millis(limit);
            let waits: Vec<_> = (0..2_000).map(|_| schedule.jittered()).collect();
            assert!(waits.iter().all(|wait| *wait <= limit));
            assert!(waits.iter().any(|wait| *wait > limit * 9 / 10));
            assert!(waits.iter().any(|wait| *wait < limit / 10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_durations_do_not_overflow() {
        let policy = Policy::default()
            .deadline(Duration::MAX)
            .try_timeout(Duration::MAX)
            .waits(Duration::MAX, Duration::MAX);
        let mut schedule = Schedule::start(&policy);
        let limit = schedule.next_try();
        let done = tokio::time::timeout(limit, async { 1 }).await;
        assert_eq!(done, Ok(1));
        assert!(!schedule.wait(Some(Duration::MAX)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_past_the_deadline_does_not_begin() {
        let policy = Policy::default().deadline(Duration::from_secs(60));
        let mut schedule = Schedule::start(&policy);
        assert_eq!(schedule.next_try(), Duration::from_secs(30));
        assert!(!schedule.wait(Some(Duration::from_secs(60))).await);
        assert_eq!(schedule.started.elapsed(), Duration::ZERO);
        assert!(schedule.wait(Some(Duration::from_secs(43))).await);
        assert!(schedule.started.elapsed() >= Duration::from_secs(43));
        assert!(schedule.next_try() <= Duration::from_secs(17));
    }
}
