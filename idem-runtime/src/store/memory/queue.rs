//! The order in which finished records expire.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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
///
/// Not a `BTreeMap` and a `BTreeSet`. Measured: their code takes 92 KB more in a debug build.
#[derive(Debug, Default)]
struct Order {
    /// In the order of the `ttl`. An empty queue is removed, so that a `ttl` that is no longer used costs
    /// nothing.
    by_ttl: Vec<(Duration, VecDeque<Entry>)>,
    /// The expiry and the `ttl` of the first entry of each queue. Each claim asks for the earliest
    /// of them, and there may be many: an operator can choose another `ttl` for each record.
    fronts: BinaryHeap<Reverse<(Moment, Duration)>>,
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
            let mut due = Vec::new();
            while due.len() < PURGED_AT_ONCE
                && let Some(entry) = order.pop_due(now)
            {
                due.push(entry);
            }
            due
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
        let first = order.earliest().map_or(Moment::NEVER, |(at, _)| at);
        // Under the lock, so that an older value never replaces a newer one.
        self.first.store(first.as_nanos(), Ordering::Release);
        result
    }
}

impl Order {
    fn push(&mut self, ttl: Duration, entry: Entry) {
        let at = self.find(ttl).unwrap_or_else(|at| {
            self.by_ttl.insert(at, (ttl, VecDeque::new()));
            at
        });
        let (_, queue) = &mut self.by_ttl[at];
        if queue.is_empty() {
            self.fronts.push(Reverse((entry.expires_at, ttl)));
        }
        queue.push_back(entry);
    }

    fn earliest(&self) -> Option<(Moment, Duration)> {
        self.fronts.peek().map(|Reverse(front)| *front)
    }

    fn pop_due(&mut self, now: Moment) -> Option<Due> {
        let (_, ttl) = self.earliest().filter(|(at, _)| *at <= now)?;
        self.fronts.pop();
        self.pop(ttl)
    }

    fn pop_oldest(&mut self) -> Option<Due> {
        let mut oldest = None;
        for Reverse((at, ttl)) in &self.fronts {
            let front = (at.before(*ttl), *ttl);
            if oldest.is_none_or(|oldest| front < oldest) {
                oldest = Some(front);
            }
        }
        let (_, ttl) = oldest?;
        self.fronts.retain(|Reverse((_, other))| *other != ttl);
        self.pop(ttl)
    }

    /// Removes the first entry of a queue that is no longer in `fronts`.
    fn pop(&mut self, ttl: Duration) -> Option<Due> {
        let at = self.find(ttl).ok()?;
        let (_, queue) = &mut self.by_ttl[at];
        let Entry { expires_at, place } = queue.pop_front()?;
        if let Some(next) = queue.front() {
            self.fronts.push(Reverse((next.expires_at, ttl)));
        } else {
            self.by_ttl.remove(at);
        }
        Some(Due {
            expires_at,
            settled_at: expires_at.before(ttl),
            place,
        })
    }

    /// The place of a queue in `by_ttl`, or where it would be.
    fn find(&self, ttl: Duration) -> Result<usize, usize> {
        self.by_ttl.binary_search_by_key(&ttl, |(ttl, _)| *ttl)
    }
}
