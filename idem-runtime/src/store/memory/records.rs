//! Finished records. They live in moka, but this module decides when to remove them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::PoisonError;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::budget::Cost;
use super::claims::ClaimEntry;
use super::hasher::DigestHasher;
use super::sync::{Mutex, MutexGuard, may_switch};
use crate::request::record_id::RecordId;
use crate::store::millis::bounded;
use crate::store::{Origin, Record};

/// Bytes that moka and the queue need for an entry in addition to the record's own bytes.
const KEEP: usize = 500;

/// How many expired records one call removes.
const PURGED_AT_ONCE: usize = 4;

/// The bytes that a record counts.
pub(super) fn weight(record: &Record, origin: &Origin) -> usize {
    record.as_bytes().len() + origin.heap_bytes() + KEEP
}

/// Finished records by their id.
///
/// The moka cache has neither a capacity nor an expiry. With a capacity, a full moka under its
/// default policy drops new entries at once, and under its other policy it drops the least recently
/// read entries. Its expiry uses a clock of its own. So entries leave the cache only through the
/// queue.
#[derive(Debug)]
pub(super) struct Records {
    cache: Cache<RecordId, StoredRecord, BuildHasherDefault<DigestHasher>>,
    queue: Mutex<Queue>,
}

#[derive(Clone, Debug)]
pub(super) struct StoredRecord {
    pub(super) record: Record,
    pub(super) expires_at: Instant,
    pub(super) settled_at: Instant,
    pub(super) created_at: Instant,
    pub(super) origin: Origin,
    /// Whether the scope pays for the record out of its share.
    pub(super) is_limited: bool,
}

impl StoredRecord {
    /// The record of a claim, for `ttl` from now.
    pub(super) fn new(record: Record, held: ClaimEntry, ttl: Duration, now: Instant) -> Self {
        Self {
            record,
            expires_at: now + bounded(ttl),
            settled_at: now,
            created_at: held.created_at,
            origin: held.origin,
            is_limited: held.is_limited,
        }
    }

    pub(super) fn cost(&self, id: &RecordId) -> Cost {
        Cost {
            bytes: weight(&self.record, &self.origin),
            scope: self.is_limited.then(|| id.scope_id()),
        }
    }
}

/// The records in the order in which they expire. There is one queue for each `ttl`, and in each
/// queue the record that was finished first expires first.
#[derive(Debug, Default)]
struct Queue {
    /// An empty queue is removed, so that a `ttl` that is no longer used costs nothing.
    by_ttl: BTreeMap<Duration, VecDeque<Entry>>,
    /// The expiry and the `ttl` of the first entry of each queue. Each claim asks for the earliest
    /// of them, and there may be many: an operator can choose another `ttl` for each record.
    fronts: BTreeSet<(Instant, Duration)>,
}

/// When a record expires, and its id.
type Entry = (Instant, RecordId);

impl Default for Records {
    fn default() -> Self {
        Self {
            cache: Cache::builder().build_with_hasher(BuildHasherDefault::default()),
            queue: Mutex::default(),
        }
    }
}

impl Records {
    pub(super) fn get(&self, id: &RecordId) -> Option<StoredRecord> {
        let kept = self.cache.get(id);
        may_switch();
        kept
    }

    pub(super) fn insert(&self, id: RecordId, record: StoredRecord) {
        let expires_at = record.expires_at;
        let ttl = expires_at - record.settled_at;
        self.cache.insert(id, record);
        self.queue().push(ttl, (expires_at, id));
    }

    /// Calls `look` for each record, also when it has expired. A record that is there all the while is
    /// looked at exactly once. Locks nothing.
    pub(super) fn for_each(&self, mut look: impl FnMut(&RecordId, StoredRecord)) {
        self.cache.iter().for_each(|(id, kept)| look(&id, kept));
    }

    /// Removes a record and returns it.
    pub(super) fn remove(&self, id: &RecordId) -> Option<StoredRecord> {
        self.cache.remove(id)
    }

    /// Removes a few expired entries from the queue and returns them.
    pub(super) fn pop_due(&self, now: Instant) -> Vec<Entry> {
        let mut queue = self.queue();
        std::iter::from_fn(|| queue.pop_due(now))
            .take(PURGED_AT_ONCE)
            .collect()
    }

    /// Removes the entry of the record that was finished first from the queue, and returns the
    /// entry.
    pub(super) fn pop_oldest(&self) -> Option<Entry> {
        self.queue().pop_oldest()
    }

    #[cfg(test)]
    pub(super) fn queues(&self) -> usize {
        let queue = self.queue();
        assert_eq!(queue.by_ttl.len(), queue.fronts.len());
        queue.by_ttl.len()
    }

    #[cfg(test)]
    pub(super) fn run_pending_tasks(&self) {
        self.cache.run_pending_tasks();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
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
