//! The claims and the finished records of the memory store, in shards. Each shard has one lock.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::PoisonError;
use std::time::Duration;

use super::budget::Cost;
use super::claims::ClaimEntry;
use super::clock::Moment;
use super::records::Records;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::request::digest_hasher::DigestHasher;
use crate::request::record_id::RecordId;

const SHARDS: u8 = 64;

/// The shortest time between two scans of all claims by a full store. A scan of one million claims
/// took 24 ms. A store that scanned at each refusal would keep a processor busy with 40 refusals a
/// second.
const BETWEEN_WALKS: Duration = Duration::from_secs(1);

type Map<T> = HashMap<RecordId, T, BuildHasherDefault<DigestHasher>>;

/// The entries of some ids. An id has either a claim or a record.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Claims that are in flight or lapsed.
    pub(super) claims: Map<ClaimEntry>,
    pub(super) records: Records,
}

impl Shard {
    /// Whether there is an entry that has not expired.
    pub(super) fn is_live(&self, id: &RecordId, now: Moment) -> bool {
        match self.claims.get(id) {
            Some(held) => held.leased_until.max(held.retained_until()) > now,
            None => self.records.get(id).is_some_and(|it| it.expires_at > now),
        }
    }
}

/// All entries by record id. Every transition on an id happens under the lock of its shard, so it is
/// atomic. Nothing is evicted.
#[derive(Debug)]
pub(super) struct Shards {
    all: Vec<Mutex<Shard>>,
    /// The highest fence that has left the map.
    retired: AtomicU64,
    /// When a thread last scanned all claims.
    walked_at: Mutex<Option<Moment>>,
}

impl Default for Shards {
    fn default() -> Self {
        let mut all = Vec::with_capacity(SHARDS.into());
        for _ in 0..SHARDS {
            all.push(Mutex::default());
        }
        Self {
            all,
            retired: AtomicU64::new(0),
            walked_at: Mutex::default(),
        }
    }
}

impl Shards {
    /// Locks the shard of an id.
    pub(super) fn of(&self, id: &RecordId) -> MutexGuard<'_, Shard> {
        self.at(Self::number(id))
    }

    /// Locks the shard with this number.
    pub(super) fn at(&self, number: u8) -> MutexGuard<'_, Shard> {
        lock(&self.all[usize::from(number)])
    }

    /// The number of the shard of an id. The maps take their hash from other bytes of the digest.
    pub(super) fn number(id: &RecordId) -> u8 {
        id.as_bytes()[31] % SHARDS
    }

    /// The fence for a new claim on an id without a claim. It is higher than the fence of every
    /// earlier claim on that id.
    pub(super) fn next_fence(&self) -> u64 {
        self.retired.load(Ordering::Acquire) + 1
    }

    /// Records that a claim with this fence leaves its shard. Called under the lock of the shard.
    pub(super) fn retire(&self, fence: u64) {
        self.retired.fetch_max(fence, Ordering::AcqRel);
    }

    /// Removes the claims whose retention has passed, and calls `free` for the cost of each. Does nothing
    /// when the last scan was less than a second ago.
    pub(super) fn forget_past(&self, now: Moment, free: impl Fn(Cost)) {
        if !self.may_walk(now) {
            return;
        }
        for shard in &self.all {
            lock(shard).claims.retain(|id, held| {
                let is_remembered = held.retained_until() > now;
                if !is_remembered {
                    self.retire(held.fence);
                    free(held.cost(id));
                }
                is_remembered
            });
        }
    }

    /// Calls `look` for each shard, under its lock.
    pub(super) fn for_each(&self, look: &mut dyn FnMut(&Shard)) {
        for shard in &self.all {
            look(&lock(shard));
        }
    }

    fn may_walk(&self, now: Moment) -> bool {
        let mut walked_at = self
            .walked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // `now` may be older than `walked_at`, because threads read the clock before they take this
        // lock.
        if walked_at.is_some_and(|at| now.since(at) < BETWEEN_WALKS) {
            return false;
        }
        *walked_at = Some(now);
        true
    }

    #[cfg(test)]
    pub(super) fn claims(&self) -> usize {
        let mut claims = 0;
        self.for_each(&mut |shard| claims += shard.claims.len());
        claims
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Ignoring the poison is safe: nothing panics between two changes of a shard.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
