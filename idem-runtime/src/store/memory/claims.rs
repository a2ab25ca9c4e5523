//! Claims that are in flight or lapsed: a sharded map that evicts nothing.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::Cost;
use super::hasher::DigestHasher;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::millis::bounded;
use crate::store::{Claim, Holder, Origin, Owner};

/// The bytes that a claim counts: its entry in a map that is half empty.
pub(super) const WEIGHT: usize = 2 * (size_of::<RecordId>() + size_of::<ClaimEntry>());

const SHARDS: usize = 64;

/// The shortest time between two scans of all claims by a full store. A scan of one million claims
/// took 24 ms. A store that scanned at each refusal would keep a processor busy with 40 refusals a
/// second.
const BETWEEN_WALKS: Duration = Duration::from_secs(1);

pub(super) type Shard = HashMap<RecordId, ClaimEntry, BuildHasherDefault<DigestHasher>>;

/// Claims by record id. Every transition on an id happens under the lock of its shard, so it is
/// atomic.
#[derive(Debug)]
pub(super) struct Claims {
    shards: Box<[Mutex<Shard>]>,
    /// The highest fence that has left the map.
    retired: AtomicU64,
    /// When a thread last scanned all claims.
    walked_at: Mutex<Option<Instant>>,
}

/// One claim.
#[derive(Debug)]
pub(super) struct ClaimEntry {
    pub(super) owner: Owner,
    pub(super) fence: u64,
    pub(super) attempt: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) leased_until: Instant,
    retention: Duration,
    changed: Option<Arc<Notify>>,
    pub(super) created_at: Instant,
    pub(super) origin: Origin,
    /// Whether the scope pays for the entry out of its share.
    pub(super) is_limited: bool,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            retired: AtomicU64::new(0),
            walked_at: Mutex::default(),
        }
    }
}

impl Claims {
    pub(super) fn shard(&self, id: &RecordId) -> MutexGuard<'_, Shard> {
        // The map below takes its hash from other bytes of the digest.
        let shard = usize::from(id.as_bytes()[31]) % SHARDS;
        // Ignoring the poison is safe: nothing panics between two changes of a shard.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The fence for a new claim on an id that is not in the map. It is higher than the fence of
    /// every earlier claim on that id.
    pub(super) fn next_fence(&self) -> u64 {
        self.retired.load(Ordering::Acquire) + 1
    }

    /// Records that a claim with this fence leaves the map. Called under the lock of its shard.
    pub(super) fn retire(&self, fence: u64) {
        self.retired.fetch_max(fence, Ordering::AcqRel);
    }

    /// Removes the claims whose retention has passed, and calls `free` for the cost of each. Does nothing
    /// when the last scan was less than a second ago.
    pub(super) fn forget_past(&self, now: Instant, free: impl Fn(Cost)) {
        if !self.may_walk(now) {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|id, held| {
                let is_remembered = held.retained_until() > now;
                if !is_remembered {
                    self.retire(held.fence);
                    free(held.cost(id));
                }
                is_remembered
            });
        }
    }

    /// Calls `look` for each claim, also when its retention has passed. Locks one shard at a time.
    pub(super) fn for_each(&self, mut look: impl FnMut(&RecordId, &ClaimEntry)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter().for_each(|(id, held)| look(id, held));
        }
    }

    fn may_walk(&self, now: Instant) -> bool {
        let mut walked_at = self
            .walked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // `now` may be older than `walked_at`, because threads read the clock before they take this
        // lock.
        if walked_at.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_WALKS) {
            return false;
        }
        *walked_at = Some(now);
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| shard.lock().expect("no panic").len();
        self.shards.iter().map(len).sum()
    }
}

impl ClaimEntry {
    pub(super) fn new(claim: &Claim, fence: u64, attempt: u32, now: Instant) -> Self {
        Self {
            owner: claim.owner,
            fence,
            attempt,
            fingerprint: claim.fingerprint,
            leased_until: now + bounded(claim.lease),
            retention: bounded(claim.retention),
            changed: None,
            created_at: now,
            origin: claim.origin.clone(),
            is_limited: !claim.is_global,
        }
    }

    /// The same claim as a takeover of `held`, whose origin stays.
    pub(super) fn taking_over(mut self, held: &mut Self) -> Self {
        self.created_at = held.created_at;
        self.origin = std::mem::take(&mut held.origin);
        self.is_limited = held.is_limited;
        self
    }

    pub(super) fn cost(&self, id: &RecordId) -> Cost {
        Cost {
            bytes: WEIGHT + self.origin.heap_bytes(),
            scope: self.is_limited.then(|| id.scope_id()),
        }
    }

    /// Whether the holder owns this claim. A claim past its retention has no holder, even while it
    /// is in the map.
    pub(super) fn is_held_by(&self, holder: Holder, now: Instant) -> bool {
        self.owner == holder.owner && self.fence == holder.fence && self.retained_until() > now
    }

    /// When the store may forget the claim: the end of its lease, and then the retention.
    pub(super) fn retained_until(&self) -> Instant {
        self.leased_until + self.retention
    }

    /// The handle that wakes callers that wait for this claim to end.
    pub(super) fn changed(&mut self) -> Arc<Notify> {
        self.changed.get_or_insert_default().clone()
    }

    /// Those who wait for this claim to end.
    pub(super) fn take_waiting(&mut self) -> Option<Arc<Notify>> {
        self.changed.take()
    }

    pub(super) fn wake(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_waiters();
        }
    }
}
