//! Counts the attempts that run at once, and limits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How many attempts of one service may run at once, in requests and in the background.
pub(crate) struct Permits {
    taken: Arc<AtomicUsize>,
    /// `None` when any number may run. Measured: a semaphore takes 100 instructions more than the counter.
    free: Option<Arc<Semaphore>>,
}

/// Counts as one running attempt until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    taken: Arc<AtomicUsize>,
    #[expect(dead_code, reason = "held for its drop")]
    limited: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permits {
    pub(crate) const UNLIMITED: usize = Semaphore::MAX_PERMITS;

    pub(crate) fn new(max: usize) -> Self {
        let is_limited = max < Self::UNLIMITED;
        Self {
            taken: Arc::default(),
            free: is_limited.then(|| Arc::new(Semaphore::new(max))),
        }
    }

    /// Returns `None` when the maximum number of attempts runs.
    pub(crate) fn take(&self) -> Option<Permit> {
        let limited = match &self.free {
            Some(free) => Some(free.clone().try_acquire_owned().ok()?),
            None => None,
        };
        Some(self.count(limited))
    }

    /// Waits for a permit until `deadline`.
    pub(crate) async fn take_until(&self, deadline: Instant) -> Option<Permit> {
        let limited = match &self.free {
            Some(free) => {
                let permit = timeout_at(deadline, free.clone().acquire_owned()).await;
                Some(permit.ok()?.ok()?)
            }
            None => None,
        };
        Some(self.count(limited))
    }

    fn count(&self, limited: Option<OwnedSemaphorePermit>) -> Permit {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Permit {
            taken: self.taken.clone(),
            limited,
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}
