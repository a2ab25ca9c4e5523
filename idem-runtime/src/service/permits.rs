//! Counts the attempts that run at once, and limits them.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// How many attempts of one service may run at once, in requests and in the background.
pub(crate) struct Permits {
    taken: Arc<AtomicUsize>,
    /// `None` when any number may run. Measured: a semaphore takes 100 instructions more than the counter.
    limit: Option<Arc<dyn Limit>>,
}

/// Counts as one running attempt until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    taken: Arc<AtomicUsize>,
    limit: Option<Arc<dyn Limit>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(limit) = &self.limit {
            limit.release();
        }
    }
}

impl Permits {
    pub(crate) fn new(limit: Option<Arc<dyn Limit>>) -> Self {
        Self {
            taken: Arc::default(),
            limit,
        }
    }

    /// Returns `None` when the maximum number of attempts runs.
    pub(crate) fn take(&self) -> Option<Permit> {
        let is_free = self.limit.as_ref().is_none_or(|limit| limit.take());
        is_free.then(|| self.count())
    }

    /// Waits for a permit until `deadline`.
    pub(crate) async fn take_until(&self, deadline: Instant) -> Option<Permit> {
        if let Some(limit) = &self.limit
            && !limit.take_until(deadline).await
        {
            return None;
        }
        Some(self.count())
    }

    fn count(&self) -> Permit {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Permit {
            taken: self.taken.clone(),
            limit: self.limit.clone(),
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The limit of a service. A trait, so that only a service with a limit contains the code of the semaphore.
pub(crate) trait Limit: Debug + Send + Sync {
    /// Takes a permit, and returns whether one was free.
    fn take(&self) -> bool;

    /// Waits for a permit until `deadline`.
    fn take_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    fn release(&self);
}

/// Returns `None` when the number is larger than a semaphore allows, which means no limit.
pub(super) fn limit(attempts: usize) -> Option<Arc<dyn Limit>> {
    if attempts < Semaphore::MAX_PERMITS {
        Some(Arc::new(Semaphore::new(attempts)))
    } else {
        None
    }
}

/// A [`Permit`] releases its permit when it is dropped, so the guard of the semaphore is forgotten.
impl Limit for Semaphore {
    fn take(&self) -> bool {
        self.try_acquire().map(SemaphorePermit::forget).is_ok()
    }

    fn take_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let acquired = timeout_at(deadline, self.acquire()).await;
            acquired.is_ok_and(|permit| permit.map(SemaphorePermit::forget).is_ok())
        })
    }

    fn release(&self) {
        self.add_permits(1);
    }
}
