//! Delivers reports to the observer of a service.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Observer;

/// The observer of a service.
#[derive(Clone)]
pub(crate) struct Observing(Arc<dyn Observer>);

impl Observing {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self(observer)
    }

    /// The observer itself, for a store.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        self.0.clone()
    }

    /// Delivers a report. A panic of the observer must not change the outcome of a request.
    ///
    /// Not generic, so that it is compiled once for all reports.
    pub(crate) fn report(&self, report: &dyn Fn(&dyn Observer)) {
        if catch_unwind(AssertUnwindSafe(|| report(&*self.0))).is_err() {
            has_panicked();
        }
    }
}

#[cold]
fn has_panicked() {
    tracing::error!(
        target: super::TARGET,
        "the observer panicked; its report is lost"
    );
}

impl fmt::Debug for Observing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observing")
    }
}
