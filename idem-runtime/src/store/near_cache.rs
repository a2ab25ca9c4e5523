//! A cache in this process for the finished records of another store.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::millis::bounded;
use super::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, Page, Query, Record, RecordStatement,
    Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

/// Bytes that moka needs for an entry in addition to the record's own bytes.
const KEEP: usize = 300;

/// Caches the finished records of another store in this process. The first replay asks the backing
/// store, and later replays need no round trip.
///
/// A finished record never changes, so the only risk is that a cached copy lives too long. A cached
/// record never outlives the record in the backing store, because the clock of the backing store measured the remaining
/// time. [`max_age`](NearCacheBuilder::max_age), 10 seconds by default, limits how long *another*
/// process still replays a record that an operator has forgotten. A [`forget`](Store::forget) on
/// this cache takes effect in this process at once, and in every other process within that age.
///
/// Claims in flight and unknown outcomes are never cached: each request for them asks the backing
/// store. [`max_bytes`](NearCacheBuilder::max_bytes) limits the memory. A record that does not fit
/// is read from the backing store again.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::store::{MemoryStore, NearCache};
///
/// // In production, put the cache in front of a `RedisStore` or a `PostgresStore`.
/// let store = NearCache::builder().max_bytes(16 << 20).build(MemoryStore::default());
/// # let _ = store;
/// ```
///
/// # Cancellation
///
/// The cache is as safe as the backing store, because only results of the backing store fill the cache.
pub struct NearCache<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    cache: Cache<RecordId, CachedRecord>,
    max_age: Duration,
    /// The number of `forget`s that are running. Until they finish, nothing is replayed from the
    /// cache, because the backing store may already have removed the record.
    forgetting: AtomicUsize,
    /// The number of finished `forget`s. A result that was requested before the latest one is not
    /// cached.
    forgotten: Mutex<u64>,
}

#[derive(Clone)]
struct CachedRecord {
    record: Record,
    /// When the record expires in the backing store, or slightly earlier.
    expires_at: Instant,
    /// When the backing store must be asked again.
    fresh_until: Instant,
}

/// Settings of a [`NearCache`].
#[derive(Clone, Debug)]
#[must_use]
pub struct NearCacheBuilder {
    max_bytes: u64,
    max_age: Duration,
}

impl NearCacheBuilder {
    /// Limit for the bytes of the cached records, including the overhead of each entry. 64 MiB by
    /// default.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a record is replayed without asking the backing store. 10 seconds by default.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Builds the cache in front of `store`.
    #[must_use]
    pub fn build<S: Store>(self, store: S) -> NearCache<S> {
        let weigh = |_: &RecordId, kept: &CachedRecord| {
            u32::try_from(kept.record.as_bytes().len() + KEEP).unwrap_or(u32::MAX)
        };
        // moka panics beyond 1,000 years.
        let max_age = bounded(self.max_age);
        let cache = Cache::builder()
            .weigher(weigh)
            .max_capacity(self.max_bytes)
            // Only frees memory. The deadlines of each entry decide whether the entry is replayed.
            .time_to_live(max_age)
            .build();
        NearCache(Arc::new(Inner {
            store,
            cache,
            max_age,
            forgetting: AtomicUsize::new(0),
            forgotten: Mutex::default(),
        }))
    }
}

impl Default for NearCacheBuilder {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(10),
        }
    }
}

impl NearCache<()> {
    /// Starts a cache with settings that differ from the defaults.
    pub fn builder() -> NearCacheBuilder {
        NearCacheBuilder::default()
    }
}

impl<S: Store> NearCache<S> {
    /// Puts a cache with the default settings in front of `store`.
    #[must_use]
    pub fn new(store: S) -> Self {
        NearCacheBuilder::default().build(store)
    }

    /// The bytes that the cached records use, including the overhead of each entry.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.cache.run_pending_tasks();
        self.0.cache.weighted_size()
    }
}

impl<S> Inner<S> {
    fn get(&self, id: &RecordId) -> Option<CachedRecord> {
        if self.forgetting.load(Ordering::Acquire) > 0 {
            return None;
        }
        let now = Instant::now();
        self.cache
            .get(id)
            .filter(|kept| kept.expires_at.min(kept.fresh_until) > now)
    }

    /// Caches a record that had `expires_in` left at some time after the request was sent. Does
    /// nothing when the record may have been forgotten since then.
    fn keep(&self, id: RecordId, record: &Record, asked: Asked, expires_in: Duration) {
        let forgotten = self.forgotten();
        if *forgotten != asked.forgotten || self.forgetting.load(Ordering::Acquire) > 0 {
            return;
        }
        let kept = CachedRecord {
            record: record.clone(),
            expires_at: asked.at + bounded(expires_in),
            fresh_until: asked.at + self.max_age,
        };
        self.cache.insert(id, kept);
    }

    /// The state before the backing store is asked.
    fn ask(&self) -> Asked {
        Asked {
            at: Instant::now(),
            forgotten: *self.forgotten(),
        }
    }

    fn forgotten(&self) -> MutexGuard<'_, u64> {
        self.forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    forgotten: u64,
}

/// A running `forget`. Ends when the backing store has replied or the future is dropped.
struct Forgetting<S: Store> {
    inner: Arc<Inner<S>>,
    forgotten: Forgotten,
}

/// Which records a `forget` removes.
#[derive(Clone, Copy)]
enum Forgotten {
    Record(RecordId),
    Scope(ScopeId),
}

impl<S: Store> Forgetting<S> {
    fn begin(inner: Arc<Inner<S>>, forgotten: Forgotten) -> Self {
        let count = inner.forgotten();
        inner.forgetting.fetch_add(1, Ordering::AcqRel);
        drop(count);
        Self { inner, forgotten }
    }

    /// Removes from the backing store, and from the cache when that has ended.
    fn until<T: Send + 'static>(self, removed: StoreFuture<T>) -> StoreFuture<T> {
        match removed.try_now() {
            Ok(result) => StoreFuture::ready(result),
            Err(pending) => StoreFuture::new(async move {
                let _forgetting = self;
                pending.await
            }),
        }
    }
}

impl<S: Store> Drop for Forgetting<S> {
    fn drop(&mut self) {
        let cache = &self.inner.cache;
        match self.forgotten {
            Forgotten::Record(id) => cache.invalidate(&id),
            // Nothing is cached meanwhile.
            Forgotten::Scope(scope) => {
                let of_scope = cache.iter().filter(|(id, _)| id.scope_id() == scope);
                of_scope.for_each(|(id, _)| cache.invalidate(&*id));
            }
        }
        *self.inner.forgotten() += 1;
        self.inner.forgetting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<S: Store> Store for NearCache<S> {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        if let Some(kept) = self.0.get(&claim.id) {
            return StoreFuture::ready(Ok(Claimed::Recorded {
                record: kept.record,
                expires_in: kept.expires_at - Instant::now(),
            }));
        }
        let (inner, asked) = (self.0.clone(), self.0.ask());
        let (id, fingerprint) = (claim.id, claim.fingerprint);
        self.0.store.claim(claim).map(move |claimed| {
            if let Claimed::Recorded { record, expires_in } = &claimed
                && record.fingerprint() == fingerprint
            {
                inner.keep(id, record, asked, *expires_in);
            }
            claimed
        })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.0.store.renew(holder, lease)
    }

    /// Caches nothing, because after a repeated `complete` it is unknown when the `ttl` began.
    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.0.store.complete(holder, record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.0.store.release(holder)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.0.store.abandon(holder)
    }

    /// Asks the backing store, because an operator needs the current state.
    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.0.store.look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let forgetting = Forgetting::begin(self.0.clone(), Forgotten::Record(id));
        forgetting.until(self.0.store.forget(id))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.0.store.resolve(id, fence, record, ttl)
    }

    /// Asks the backing store, because an operator needs the current state.
    fn list(&self, query: Query) -> StoreFuture<Page> {
        self.0.store.list(query)
    }

    /// Asks the backing store, because an operator needs the current state.
    fn stats(&self) -> StoreFuture<Stats> {
        self.0.store.stats()
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let forgetting = Forgetting::begin(self.0.clone(), Forgotten::Scope(scope));
        forgetting.until(self.0.store.forget_scope(scope))
    }

    fn transactions(&self) -> Option<TransactionKind> {
        self.0.store.transactions()
    }

    /// Caches nothing, because the transaction may be rolled back.
    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        self.0.store.record_statement(holder, record, ttl)
    }

    /// Asks the backing store, which alone knows what was committed.
    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        self.0.store.commit_state(holder)
    }

    /// Removes nothing from the cache, which never returns an expired record.
    fn remove_expired(&self) -> StoreFuture<u64> {
        self.0.store.remove_expired()
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.0.store.diagnose()
    }

    /// The name of the backing store.
    fn name(&self) -> &'static str {
        self.0.store.name()
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.store.observe(observer);
    }
}

impl<S> Clone for NearCache<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: fmt::Debug> fmt::Debug for NearCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("store", &self.0.store)
            .field("max_age", &self.0.max_age)
            .finish_non_exhaustive()
    }
}
