//! Computes the pauses between tries.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// Pauses that double from 50 milliseconds up to 2 seconds.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// Returns the next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST);
        jittered(pause)
    }
}

/// Returns a random duration between half of `pause` and all of it, so that tasks that fail
/// together do not retry together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) % 1024;
    let share = u32::try_from(random).unwrap_or_default();
    pause / 2 + pause * share / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random() {
        let pause = Duration::from_millis(500);
        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|it| (pause / 2..pause).contains(it)));
        let mut shares = pauses.clone();
        shares.sort();
        shares.dedup();
        // There are only 1024 possible pauses, so some may be equal.
        assert!(shares.len() > 50, "{shares:?}");
    }

    #[test]
    fn pauses_double_up_to_two_seconds() {
        let mut backoff = Backoff::new();
        for whole in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let whole = Duration::from_millis(whole);
            let pause = backoff.pause();
            assert!(
                (whole / 2..whole).contains(&pause),
                "{pause:?} of {whole:?}"
            );
        }
    }
}
