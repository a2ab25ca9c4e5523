//! The settings of a memory store.

use std::sync::Arc;

use super::budget::Budget;
use super::clock::Clock;
use super::fill::Fill;
use super::queue::Queue;
use super::shards::Shards;
use super::{Inner, MemoryStore};
use crate::store::observer::StoreObserver;

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
