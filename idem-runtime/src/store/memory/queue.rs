//! The order in which finished records expire.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use super::clock::Moment;
use super::records::Slot;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// How many expired records one call removes.
const PURGED_AT_ONCE: usize = 4;

/// The order in which finished records expire. A record that was forgotten or replaced keeps its place
/// until it would have expired.
#[derive(Debug)]
pub(super) struct Queue {
    order: Mutex<Order>,
    /// The first expiry. Each claim asks whether a record has expired, and without this it would wait for the
    /// lock.
    first: AtomicU64,
}

/// There is one queue for each `ttl`, and in each queue the record that was finished first expires first.
#[derive(Debug, Default)]
struct Order {
    /// An empty queue is removed, so that a `ttl` that is no longer used costs nothing.
    by_ttl: BTreeMap<Duration, VecDeque<Entry>>,
    /// The expiry and the `ttl` of the first entry of each queue. Each claim asks for the earliest
    /// of them, and there may be many: an operator can choose another `ttl` for each record.
    fronts: BTreeSet<(Moment, Duration)>,
}

/// Where a record is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) shard: u8,
    pub(super) slot: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    expires_at: Moment,
    place: Place,
}

/// A record that leaves the queue. Its place may have another record by now, unless all of this is the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) expires_at: Moment,
    pub(super) settled_at: Moment,
    pub(super) place: Place,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            order: Mutex::default(),
            first: AtomicU64::new(Moment::NEVER.as_nanos()),
        }
    }
}

impl Queue {
    /// Adds a record that expires at the end of its `ttl`.
    pub(super) fn push(&self, place: Place, expires_at: Moment, ttl: Duration) {
        self.change(|order| order.push(ttl, Entry { expires_at, place }));
    }

    /// Removes a few expired entries and returns them.
    pub(super) fn pop_due(&self, now: Moment) -> Vec<Due> {
        if Moment::from_nanos(self.first.load(Ordering::Acquire)) > now {
            return Vec::new();
        }
        self.change(|order| {
            std::iter::from_fn(|| order.pop_due(now))
                .take(PURGED_AT_ONCE)
                .collect()
        })
    }

    /// Removes the entry of the record that was finished first, and returns the entry.
    pub(super) fn pop_oldest(&self) -> Option<Due> {
        self.change(Order::pop_oldest)
    }

    #[cfg(test)]
    pub(super) fn queues(&self) -> usize {
        self.change(|order| {
            assert_eq!(order.by_ttl.len(), order.fronts.len());
            order.by_ttl.len()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Order) -> T) -> T {
        let mut order: MutexGuard<'_, Order> =
            self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut order);
        let first = order.fronts.first().map_or(Moment::NEVER, |(at, _)| *at);
        // Under the lock, so that an older value never replaces a newer one.
        self.first.store(first.as_nanos(), Ordering::Release);
        result
    }
}

impl Order {
    fn push(&mut self, ttl: Duration, entry: Entry) {
        let queue = self.by_ttl.entry(ttl).or_default();
        if queue.is_empty() {
            self.fronts.insert((entry.expires_at, ttl));
        }
        queue.push_back(entry);
    }

    fn pop_due(&mut self, now: Moment) -> Option<Due> {
        let (_, ttl) = *self.fronts.first().filter(|(at, _)| *at <= now)?;
        self.pop(ttl)
    }

    fn pop_oldest(&mut self) -> Option<Due> {
        let finished = self.fronts.iter().map(|(at, ttl)| (at.before(*ttl), *ttl));
        let (_, ttl) = finished.min()?;
        self.pop(ttl)
    }

    fn pop(&mut self, ttl: Duration) -> Option<Due> {
        let queue = self.by_ttl.get_mut(&ttl)?;
        let Entry { expires_at, place } = queue.pop_front()?;
        self.fronts.remove(&(expires_at, ttl));
        if let Some(next) = queue.front() {
            self.fronts.insert((next.expires_at, ttl));
        } else {
            self.by_ttl.remove(&ttl);
        }
        Some(Due {
            expires_at,
            settled_at: expires_at.before(ttl),
            place,
        })
    }
}
