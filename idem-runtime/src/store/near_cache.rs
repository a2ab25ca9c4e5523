//! Caches the finished records of another store in this process.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::millis::bounded;
use super::{Claim, Claimed, Entry, Holder, Record, Settled, Store, StoreFuture};
use crate::request::record_id::RecordId;

/// What moka takes for an entry, beside the record's own bytes.
const KEEP: usize = 300;

/// Keeps the finished records of another store in this process: the first replay asks the store
/// behind, and those that follow cost no round trip.
///
/// A finished record never changes, so a copy of it can only be wrong by standing too long. It
/// never stands longer than in the store behind, by whose clock's measure it was taken; and
/// [`max_age`](NearCacheBuilder::max_age), 10 seconds by default, bounds how long *another* process
/// still replays a record that an operator has forgotten. [`forget`](Store::forget) here reaches
/// this process at once, and every other within that age.
///
/// Claims in flight and unknown outcomes are never cached: for them the store behind is asked each
/// time. Memory is bounded by [`max_bytes`](NearCacheBuilder::max_bytes); what does not fit is asked
/// for again.
///
/// ```
/// use idem_runtime::store::{MemoryStore, NearCache};
///
/// // In earnest, over a `RedisStore` or a `PostgresStore`.
/// let store = NearCache::builder().max_bytes(16 << 20).build(MemoryStore::default());
/// # let _ = store;
/// ```
///
/// # Cancellation
///
/// As safe as the store behind: the cache is filled only from its answers.
pub struct NearCache<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    cache: Cache<RecordId, CachedRecord>,
    max_age: Duration,
    /// How many `forget`s are under way. Meanwhile nothing is near: the store behind may have
    /// forgotten already.
    forgetting: AtomicUsize,
    /// How many have ended. What was asked for before is not kept behind it.
    forgotten: Mutex<u64>,
}

#[derive(Clone)]
struct CachedRecord {
    record: Record,
    /// In the store behind, or a little earlier.
    expires_at: Instant,
    /// When the store behind is asked again.
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
    /// How many bytes the records may take, their keep included. 64 MiB by default.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a record is replayed without asking the store behind. 10 seconds by default.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The cache in front of `store`.
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
            // Frees the memory; what is replayed is decided by the deadlines of each entry.
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
    /// Settings that differ from the defaults.
    pub fn builder() -> NearCacheBuilder {
        NearCacheBuilder::default()
    }
}

impl<S: Store> NearCache<S> {
    /// Keeps what `store` has finished near, with the default settings.
    #[must_use]
    pub fn new(store: S) -> Self {
        NearCacheBuilder::default().build(store)
    }

    /// How many bytes the cached records take, their keep included.
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

    /// Keeps a record that had `expires_in` to live at some time after it was asked for, unless it may
    /// have been forgotten since.
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

    /// The moment before the store behind is asked.
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

/// A `forget` that is under way, until the store behind has answered or nobody hears it any more.
struct Forgetting<S: Store> {
    inner: Arc<Inner<S>>,
    id: RecordId,
}

impl<S: Store> Forgetting<S> {
    fn begin(inner: Arc<Inner<S>>, id: RecordId) -> Self {
        let forgotten = inner.forgotten();
        inner.forgetting.fetch_add(1, Ordering::AcqRel);
        drop(forgotten);
        Self { inner, id }
    }
}

impl<S: Store> Drop for Forgetting<S> {
    fn drop(&mut self) {
        self.inner.cache.invalidate(&self.id);
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

    /// Caches nothing: a `complete` that is repeated tells not when its `ttl` began.
    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.0.store.complete(holder, record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.0.store.release(holder)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.0.store.abandon(holder)
    }

    /// Asks the store behind, for an operator wants the truth.
    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.0.store.look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let forgetting = Forgetting::begin(self.0.clone(), id);
        match self.0.store.forget(id).try_now() {
            Ok(answer) => StoreFuture::ready(answer),
            Err(pending) => StoreFuture::new(async move {
                let _forgetting = forgetting;
                pending.await
            }),
        }
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
