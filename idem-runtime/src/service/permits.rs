//! Counts the attempts that run at once, and limits them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How many attempts of one service may run at once, in requests and in the background.
pub(crate) struct Permits {
    free: Arc<Semaphore>,
    max: usize,
}

/// Counts as one running attempt until it is dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

impl Permits {
    pub(crate) const UNLIMITED: usize = Semaphore::MAX_PERMITS;

    pub(crate) fn new(max: usize) -> Self {
        let max = max.min(Self::UNLIMITED);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Returns `None` when as many attempts run as may.
    pub(crate) fn take(&self) -> Option<Permit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Waits for a permit until `deadline`.
    pub(crate) async fn take_until(&self, deadline: Instant) -> Option<Permit> {
        let permit = timeout_at(deadline, self.free.clone().acquire_owned()).await;
        permit.ok()?.ok()
    }

    pub(crate) fn taken(&self) -> usize {
        self.max - self.free.available_permits()
    }
}
