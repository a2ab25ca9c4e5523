//! The order in which finished records expire.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::sync::{Mutex, MutexGuard};
use crate::request::record_id::RecordId;

/// How many expired records one call removes.
const PURGED_AT_ONCE: usize = 4;

/// The order in which finished records expire. A record that was forgotten or replaced keeps its place
/// until it would have expired.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Order>);

/// There is one queue for each `ttl`, and in each queue the record that was finished first expires first.
#[derive(Debug, Default)]
struct Order {
    /// An empty queue is removed, so that a `ttl` that is no longer used costs nothing.
    by_ttl: BTreeMap<Duration, VecDeque<Entry>>,
    /// The expiry and the `ttl` of the first entry of each queue. Each claim asks for the earliest
    /// of them, and there may be many: an operator can choose another `ttl` for each record.
    fronts: BTreeSet<(Instant, Duration)>,
}

/// When a record expires, and its id.
type Entry = (Instant, RecordId);

impl Queue {
    /// Adds a record that expires at the end of its `ttl`.
    pub(super) fn push(&self, id: RecordId, expires_at: Instant, ttl: Duration) {
        self.order().push(ttl, (expires_at, id));
    }

    /// Removes a few expired entries and returns them.
    pub(super) fn pop_due(&self, now: Instant) -> Vec<Entry> {
        let mut order = self.order();
        std::iter::from_fn(|| order.pop_due(now))
            .take(PURGED_AT_ONCE)
            .collect()
    }

    /// Removes the entry of the record that was finished first, and returns the entry.
    pub(super) fn pop_oldest(&self) -> Option<Entry> {
        self.order().pop_oldest()
    }

    #[cfg(test)]
    pub(super) fn queues(&self) -> usize {
        let order = self.order();
        assert_eq!(order.by_ttl.len(), order.fronts.len());
        order.by_ttl.len()
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    fn push(&mut self, ttl: Duration, entry: Entry) {
        let queue = self.by_ttl.entry(ttl).or_default();
        if queue.is_empty() {
            self.fronts.insert((entry.0, ttl));
        }
        queue.push_back(entry);
    }

    fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        let (_, ttl) = *self.fronts.first().filter(|(at, _)| *at <= now)?;
        self.pop(ttl)
    }

    fn pop_oldest(&mut self) -> Option<Entry> {
        let finished = self.fronts.iter().map(|(at, ttl)| (*at - *ttl, *ttl));
        let (_, ttl) = finished.min()?;
        self.pop(ttl)
    }

    fn pop(&mut self, ttl: Duration) -> Option<Entry> {
        let queue = self.by_ttl.get_mut(&ttl)?;
        let entry = queue.pop_front()?;
        self.fronts.remove(&(entry.0, ttl));
        if let Some((next, _)) = queue.front() {
            self.fronts.insert((*next, ttl));
        } else {
            self.by_ttl.remove(&ttl);
        }
        Some(entry)
    }
}
