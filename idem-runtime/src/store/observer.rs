//! The observer of the service that uses a store.

use std::sync::{Arc, OnceLock};

use crate::observe::{Observer, Observing};

/// The names of the stores in metrics.
pub(super) const MEMORY: &str = "memory";
#[cfg(feature = "postgres")]
pub(super) const POSTGRES: &str = "postgres";
#[cfg(feature = "redis")]
pub(super) const REDIS: &str = "redis";
#[cfg(feature = "sqlite")]
pub(super) const SQLITE: &str = "sqlite";

/// The observer of the first service with one that uses the store.
#[derive(Debug, Default)]
pub(super) struct StoreObserver(OnceLock<Observing>);

impl StoreObserver {
    pub(super) fn set(&self, observer: Arc<dyn Observer>) {
        // Another service that shares the store may have been first.
        let _ = self.0.set(Observing::new(observer));
    }

    pub(super) fn report(&self, report: &dyn Fn(&dyn Observer)) {
        if let Some(observing) = self.0.get() {
            observing.report(report);
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}
