//! The in-memory store.
//!
//! `transitions.rs` has the transitions of the store, and `room.rs` removes what has expired. `shards.rs` has
//! the sharded maps of claims and of finished records, and `queue.rs` has the order in which records expire.
//! `budget.rs` counts the bytes of both. `sync.rs` selects the lock types, so that `schedules.rs` can test
//! interleavings of threads.

mod budget;
mod builder;
mod claims;
mod clock;
mod diagnosis;
mod fill;
mod listing;
mod queue;
mod records;
mod room;
#[cfg(all(test, shuttle))]
mod schedules;
mod shards;
mod shares;
mod sync;
#[cfg(test)]
mod tests;
mod transitions;

use std::sync::Arc;
use std::time::Duration;

use self::budget::Budget;
pub use self::builder::{MemoryStoreBuilder, OnFull};
use self::clock::Clock;
use self::fill::Fill;
use self::queue::Queue;
use self::shards::Shards;
use super::observer::{MEMORY, StoreObserver};
use super::{
    Claim, Claimed, Entry, Finding, Holder, Page, Query, Record, Settled, Stats, Store, StoreFuture,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

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
