//! Reports how full the store is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::budget::Budget;
use super::clock::Moment;
use crate::store::observer::{MEMORY, StoreObserver};

/// The time between two reports.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// When the store last reported how full it is.
#[derive(Debug, Default)]
pub(super) struct Fill(Mutex<Option<Moment>>);

impl Fill {
    /// Reports how full the store is, unless the last report was less than a second ago.
    pub(super) fn report(&self, observer: &StoreObserver, budget: &Budget, now: Moment) {
        if observer.is_set() && self.is_due(now) {
            let (bytes, max_bytes) = (budget.used() as u64, budget.max() as u64);
            observer.report(&|observer| observer.store_filled(MEMORY, bytes, max_bytes));
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        let mut reported_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // `now` may be older, because threads read the clock before they take this lock.
        if reported_at.is_some_and(|at| now.since(at) < BETWEEN_REPORTS) {
            return false;
        }
        *reported_at = Some(now);
        true
    }
}
