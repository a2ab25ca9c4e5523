//! The in-memory store.
//!
//! `shards.rs` has the sharded maps of claims and of finished records, and `queue.rs` has the order in
//! which records expire. `budget.rs` counts the bytes of both. `sync.rs` selects the lock types, so that
//! `schedules.rs` can test interleavings of threads.

mod budget;
mod claims;
mod clock;
mod diagnosis;
mod fill;
mod hasher;
mod listing;
mod queue;
mod records;
#[cfg(all(test, shuttle))]
mod schedules;
mod shards;
mod shares;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::hash_map;
use std::sync::Arc;
use std::time::Duration;

use self::budget::{Budget, NoRoom};
use self::claims::ClaimEntry;
use self::clock::{Clock, Moment};
use self::fill::Fill;
use self::queue::{Due, Place, Queue};
use self::records::{Records, Slot, StoredRecord};
use self::shards::{Shard, Shards};
use super::millis::bounded;
use super::observer::{MEMORY, StoreObserver};
use super::{
    Changed, Claim, Claimed, Entry, Finding, Holder, Page, Query, Record, Settled, Stats, Store,
    StoreFuture,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::settings::policy::OnUnknown;

/// How many times a claim of a scope that holds its share may purge expired records. Each time removes a few.
const MAX_PURGES: usize = 256;

/// Store that keeps claims and records in the memory of this process.
///
/// Claims and finished records are in sharded maps that never evict. They share one byte budget, which
/// the store checks *before* a new claim. When the budget is used up, the store either refuses new keys or evicts
/// the oldest records, as [`OnFull`] says.
///
/// The store serves one process, and its claims and records end with that process: after a restart, every key is new.
///
/// Clones share all state. The clock is [`tokio::time::Instant`], so a paused clock in tests also
/// controls leases and expiries.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::store::{MemoryStore, OnFull};
///
/// let store = MemoryStore::builder()
///     .max_bytes(64 << 20)
///     .on_full(OnFull::EvictOldest)
///     .build();
/// # let _ = store;
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: Shards,
    queue: Queue,
    budget: Budget,
    on_full: OnFull,
    clock: Clock,
    observer: StoreObserver,
    fill: Fill,
}

/// What a full [`MemoryStore`] does with a new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Refuses the key with 503. Every record is kept until it expires.
    #[default]
    Refuse,
    /// Evicts the oldest finished records. [`MemoryStore::evicted`] counts them, and the store logs
    /// a warning. A retry of an evicted record runs the handler again. Claims are never evicted.
    EvictOldest,
}

/// Settings of a [`MemoryStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryStoreBuilder {
    max_bytes: usize,
    max_share: f64,
    on_full: OnFull,
}

impl MemoryStoreBuilder {
    /// Limits the bytes of claims and records together, including the overhead of each entry.
    /// 256 MiB by default.
    ///
    /// Responses of claims that the store has already admitted may exceed the limit. A response
    /// that is larger than the whole limit is not stored; its key stays used.
    ///
    /// A full store scans at most once a second for claims whose retention has passed. So the bytes
    /// of such claims may stay in use for up to a second longer.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the part of [`max_bytes`](Self::max_bytes) that the claims and records of one scope may use, so that
    /// one caller cannot fill the store for everybody. 0.5 by default; 1 or more means no such limit.
    ///
    /// A new key beyond the share gets 503 `idempotency_share`, even with [`OnFull::EvictOldest`]. Recorded keys of the scope
    /// are still replayed. `scope = global` is exempt, because everybody shares it.
    ///
    /// With the defaults, a scope may hold 128 MiB. That is 127 responses of the largest recorded body
    /// (1 MiB), or about 210,000 responses of 300 bytes, within one `ttl`. Choose a smaller share when many callers need
    /// room at the same time: with 0.1, at least ten callers have to fill their shares before the store is full. Choose a
    /// larger share when there are few callers, or when one caller sends most of the requests.
    ///
    /// The share protects only as well as the scope. A caller who can choose any scope has any number of shares. An example
    /// is `scope = token`, when no extractor checks the `Authorization` header.
    pub fn max_share(mut self, part: f64) -> Self {
        self.max_share = part;
        self
    }

    /// Sets how a new key is handled when the limit is reached. [`OnFull::Refuse`] by default.
    pub fn on_full(mut self, choice: OnFull) -> Self {
        self.on_full = choice;
        self
    }

    /// Builds the store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore(Arc::new(Inner {
            shards: Shards::default(),
            queue: Queue::default(),
            budget: Budget::new(self.max_bytes, self.max_share),
            on_full: self.on_full,
            clock: Clock::default(),
            observer: StoreObserver::default(),
            fill: Fill::default(),
        }))
    }
}

impl Default for MemoryStoreBuilder {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_share: 0.5,
            on_full: OnFull::default(),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl MemoryStore {
    /// Starts a store with settings that differ from the defaults.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    /// Returns how many finished records the store has evicted to make room for new keys.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.0.budget.evicted()
    }
}

impl Inner {
    fn claim(&self, claim: &Claim) -> Claimed {
        loop {
            let mut shard = self.shards.of(&claim.id);
            // Every transition reads the clock under the lock. With an earlier reading, a lease
            // that had already lapsed could look alive after its holder abandoned it.
            let now = self.clock.now();
            let claimed = self.try_claim(&mut shard, claim, now);
            drop(shard);
            match claimed {
                Ok(claimed) => {
                    if matches!(claimed, Claimed::Fresh { .. }) {
                        self.purge(now);
                        self.fill.report(&self.observer, &self.budget, now);
                    }
                    return claimed;
                }
                Err(NoRoom::Store) if self.make_room(now) => {}
                Err(NoRoom::Store) => {
                    self.fill.report(&self.observer, &self.budget, now);
                    return Claimed::Full;
                }
                Err(NoRoom::Share) if self.make_share(claim.id.scope_id(), now) => {}
                Err(NoRoom::Share) => return Claimed::OverShare,
            }
        }
    }

    /// Claims the id.
    fn try_claim(&self, shard: &mut Shard, claim: &Claim, now: Moment) -> Result<Claimed, NoRoom> {
        let entry = |fence, attempt| ClaimEntry::new(claim, fence, attempt, now);
        let entry = match shard.claims.get_mut(&claim.id) {
            Some(held) if held.leased_until > now && held.owner == claim.owner => {
                return Ok(Claimed::Fresh {
                    fence: held.fence,
                    attempt: held.attempt,
                });
            }
            Some(held) if held.leased_until > now => {
                return Ok(Claimed::InFlight {
                    fingerprint: held.fingerprint,
                    lease_left: held.leased_until.since(now),
                    changed: claim.wait.then(|| Changed::new(held.changed())),
                });
            }
            Some(held) if held.retained_until() > now => {
                if held.fingerprint != claim.fingerprint || claim.on_unknown == OnUnknown::Hold {
                    return Ok(Claimed::Unknown {
                        fingerprint: held.fingerprint,
                    });
                }
                entry(held.fence + 1, held.attempt + 1).taking_over(held)
            }
            Some(held) => {
                let mut entry = entry(held.fence + 1, 1);
                entry.is_limited = held.is_limited;
                let (old, new) = (held.cost(&claim.id), entry.cost(&claim.id));
                self.budget.replace(old, new);
                entry
            }
            None => {
                if let Some(kept) = self.live_record(&mut shard.records, &claim.id, now) {
                    return Ok(Claimed::Recorded {
                        record: kept.record.clone(),
                        expires_in: kept.expires_at.since(now),
                    });
                }
                self.budget.take(ClaimEntry::cost_of(claim))?;
                entry(self.shards.next_fence(), 1)
            }
        };
        let (fence, attempt) = (entry.fence, entry.attempt);
        shard.claims.insert(claim.id, entry);
        Ok(Claimed::Fresh { fence, attempt })
    }

    /// Purges expired entries and then, with `OnFull::EvictOldest`, evicts the oldest records.
    /// Returns whether there is room for one more claim. Must be called without a shard lock.
    fn make_room(&self, now: Moment) -> bool {
        while !self.budget.has_room() && self.purge(now) {}
        if !self.budget.has_room() {
            self.forget_past(now);
        }
        if self.on_full == OnFull::EvictOldest {
            let mut evicted = 0;
            while !self.budget.has_room() {
                let Some(oldest) = self.queue.pop_oldest() else {
                    break;
                };
                if self.remove_queued(oldest) {
                    self.budget.count_eviction();
                    evicted += 1;
                }
            }
            if evicted > 0 {
                self.observer
                    .report(|observer| observer.evicted(MEMORY, evicted));
            }
        }
        self.budget.has_room()
    }

    /// Purges expired entries. Returns whether the scope may have one more claim. Must be called without a
    /// shard lock.
    fn make_share(&self, scope: ScopeId, now: Moment) -> bool {
        let has_share = || self.budget.has_share(scope);
        // The rest of a long backlog is left to later claims, so that one claim does not block its thread.
        let mut rounds = 0..MAX_PURGES;
        while !has_share() && rounds.next().is_some() && self.purge(now) {}
        if !has_share() {
            self.forget_past(now);
        }
        has_share()
    }

    /// Removes the claims whose retention has passed.
    fn forget_past(&self, now: Moment) {
        self.shards
            .forget_past(now, |cost| self.budget.subtract(cost));
    }

    /// Returns the record under an id. Removes the record if it has expired.
    fn live_record<'s>(
        &self,
        records: &'s mut Records,
        id: &RecordId,
        now: Moment,
    ) -> Option<&'s StoredRecord> {
        let slot = records.slot(id)?;
        if records.at(slot)?.expires_at <= now {
            self.remove_record(records, slot);
        }
        records.at(slot)
    }

    fn remove_record(&self, records: &mut Records, slot: Slot) {
        if let Some(removed) = records.remove(slot) {
            self.budget.subtract(removed.cost());
        }
    }

    /// Purges a few expired records, so that each claim pays for the record it adds. Returns
    /// whether there were any. Must be called without a shard lock.
    fn purge(&self, now: Moment) -> bool {
        let due = self.queue.pop_due(now);
        let any = !due.is_empty();
        for entry in due {
            self.remove_queued(entry);
        }
        any
    }

    /// Removes a few expired records, and the claims whose retention has passed. Returns how many records it
    /// removed.
    fn remove_expired(&self) -> u64 {
        let now = self.clock.now();
        self.forget_past(now);
        loop {
            let due = self.queue.pop_due(now);
            if due.is_empty() {
                return 0;
            }
            // A queue entry may belong to a record that was replaced.
            let removed = due.into_iter().filter(|entry| self.remove_queued(*entry));
            let removed = removed.count() as u64;
            if removed > 0 {
                return removed;
            }
        }
    }

    /// Removes the record that a queue entry refers to, unless the record is gone or was replaced.
    fn remove_queued(&self, due: Due) -> bool {
        // Without the lock, this could remove a new record that is being stored instead of the
        // expired record.
        let mut shard = self.shards.at(due.place.shard);
        let kept = shard.records.at(due.place.slot);
        let is_the_same = kept.is_some_and(|kept| {
            kept.expires_at == due.expires_at && kept.settled_at == due.settled_at
        });
        if is_the_same {
            self.remove_record(&mut shard.records, due.place.slot);
        }
        is_the_same
    }

    /// Removes and returns the holder's claim, if the holder still owns it. The caller frees its bytes.
    fn take(&self, shard: &mut Shard, holder: Holder, now: Moment) -> Option<ClaimEntry> {
        let hash_map::Entry::Occupied(held) = shard.claims.entry(holder.id) else {
            return None;
        };
        if !held.get().is_held_by(holder, now) {
            return None;
        }
        let held = held.remove();
        self.shards.retire(held.fence);
        Some(held)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        let Some(mut held) = self.take(&mut shard, holder, now) else {
            return Settled::Lost;
        };
        let waiting = held.take_waiting();
        self.insert(&mut shard, holder.id, record, held, ttl, now);
        drop(shard);
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
        Settled::Done
    }

    /// Stores the record of a claim. If the record alone exceeds the budget, stores a record without
    /// the response.
    fn insert(
        &self,
        shard: &mut Shard,
        id: RecordId,
        record: Record,
        held: ClaimEntry,
        ttl: Duration,
        now: Moment,
    ) {
        let ttl = bounded(ttl);
        let old = held.cost(&id);
        let mut stored = StoredRecord::new(
            id,
            record,
            ttl,
            now,
            held.created_at,
            held.origin,
            held.is_limited,
        );
        if !self.budget.can_ever_hold(stored.cost().bytes) {
            tracing::warn!(
                target: crate::trace::TARGET,
                record = %id.short(),
                bytes = stored.record.as_bytes().len(),
                "a response is larger than the whole memory store and is not stored"
            );
            stored.forget_response();
        }
        self.budget.replace(old, stored.cost());
        let expires_at = stored.expires_at;
        let place = Place {
            shard: Shards::number(&id),
            slot: shard.records.insert(stored),
        };
        self.queue.push(place, expires_at, ttl);
    }

    fn renew(&self, holder: Holder, lease: Duration) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        match shard.claims.get_mut(&holder.id) {
            Some(held) if held.is_held_by(holder, now) => {
                held.leased_until = now.after(bounded(lease));
                Settled::Done
            }
            _ => Settled::Lost,
        }
    }

    fn release(&self, holder: Holder) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let Some(held) = self.take(&mut shard, holder, self.clock.now()) else {
            return Settled::Lost;
        };
        self.budget.subtract(held.cost(&holder.id));
        drop(shard);
        held.wake();
        Settled::Done
    }

    fn abandon(&self, holder: Holder) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        match shard.claims.get_mut(&holder.id) {
            Some(held) if held.is_held_by(holder, now) => {
                held.leased_until = now;
                held.wake();
                Settled::Done
            }
            _ => Settled::Lost,
        }
    }

    fn look_up(&self, id: &RecordId) -> Option<Entry> {
        let shard = self.shards.of(id);
        let now = self.clock.now();
        match shard.claims.get(id) {
            Some(held) if held.leased_until > now => Some(Entry::InFlight {
                fingerprint: held.fingerprint,
                fence: held.fence,
                attempt: held.attempt,
                lease_left: held.leased_until.since(now),
                origin: held.origin.clone(),
                created_at: self.clock.time(held.created_at),
            }),
            Some(held) if held.retained_until() > now => Some(Entry::Unknown {
                fingerprint: held.fingerprint,
                fence: held.fence,
                attempt: held.attempt,
                retained_for: held.retained_until().since(now),
                origin: held.origin.clone(),
                created_at: self.clock.time(held.created_at),
            }),
            Some(_) => None,
            None => {
                let kept = shard.records.get(id).filter(|it| it.expires_at > now)?;
                Some(Entry::Recorded {
                    record: kept.record.clone(),
                    expires_in: kept.expires_at.since(now),
                    origin: kept.origin(),
                    created_at: self.clock.time(kept.created_at),
                    settled_at: self.clock.time(kept.settled_at),
                })
            }
        }
    }

    fn forget(&self, id: &RecordId) -> bool {
        let mut shard = self.shards.of(id);
        let is_live = shard.is_live(id, self.clock.now());
        if let Some(held) = shard.claims.remove(id) {
            self.budget.subtract(held.cost(id));
            self.shards.retire(held.fence);
            held.wake();
        }
        if let Some(slot) = shard.records.slot(id) {
            self.remove_record(&mut shard.records, slot);
        }
        is_live
    }

    fn resolve(&self, id: RecordId, fence: u64, record: Record, ttl: Duration) -> Settled {
        let mut shard = self.shards.of(&id);
        let now = self.clock.now();
        let holder = match shard.claims.get(&id) {
            Some(held)
                if held.fence == fence
                    && held.leased_until <= now
                    && held.retained_until() > now =>
            {
                Holder {
                    id,
                    owner: held.owner,
                    fence,
                }
            }
            _ => return Settled::Lost,
        };
        let Some(held) = self.take(&mut shard, holder, now) else {
            return Settled::Lost;
        };
        self.insert(&mut shard, id, record, held, ttl, now);
        Settled::Done
    }
}

impl Store for MemoryStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        StoreFuture::ready(Ok(self.0.claim(&claim)))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        StoreFuture::ready(Ok(self.0.renew(holder, lease)))
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        StoreFuture::ready(Ok(self.0.complete(holder, record, ttl)))
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        StoreFuture::ready(Ok(self.0.release(holder)))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        StoreFuture::ready(Ok(self.0.abandon(holder)))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        StoreFuture::ready(Ok(self.0.look_up(&id)))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        StoreFuture::ready(Ok(self.0.forget(&id)))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        StoreFuture::ready(Ok(self.0.resolve(id, fence, record, ttl)))
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        StoreFuture::ready(self.0.list(&query))
    }

    fn stats(&self) -> StoreFuture<Stats> {
        StoreFuture::ready(Ok(self.0.stats()))
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        StoreFuture::ready(Ok(self.0.forget_scope(scope)))
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        StoreFuture::ready(Ok(self.0.remove_expired()))
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        StoreFuture::ready(Ok(self.0.diagnose()))
    }

    fn name(&self) -> &'static str {
        MEMORY
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.observer.set(observer);
    }
}
