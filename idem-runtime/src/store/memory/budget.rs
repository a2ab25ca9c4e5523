//! Counts the bytes that the memory store uses, and knows their limit.

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// Counts the bytes that the memory store uses, and knows their limit.
///
/// The counters need no ordering, because each transition happens under its shard's lock.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    evicted: AtomicU64,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            evicted: AtomicU64::new(0),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.max
    }

    pub(super) fn can_ever_hold(&self, bytes: usize) -> bool {
        bytes <= self.max
    }

    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Counts an evicted record, and warns each time the count has doubled.
    pub(super) fn count_eviction(&self) {
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        if evicted.is_power_of_two() {
            tracing::warn!(
                target: crate::trace::TARGET,
                evicted,
                "the memory store is full and evicts its oldest records; a retry of an evicted one runs the handler again"
            );
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
