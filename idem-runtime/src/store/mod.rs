//! The store trait, and the stores of this crate.
//!
//! [`Store`] is a trait whose required methods are atomic transitions on one record id. This module has
//! four stores: in memory, in an SQLite file, in Redis and in PostgreSQL. It also has [`NearCache`], a cache in front
//! of another store. The feature `seal` adds `Sealed`, which encrypts the responses in another store. All stores keep a
//! [`Record`] in the same frozen form. [`guide`] shows how to write another store.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod batch;
mod finding;
mod future;
pub mod guide;
mod header_lines;
mod listing;
mod memory;
mod millis;
mod near_cache;
pub(crate) mod observed;
mod observer;
mod origin;
mod pointers;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "seal")]
mod seal;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod table_name;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use finding::{Finding, Severity};
pub use future::StoreFuture;
pub use listing::{
    Count, Cursor, Page, ParseCursorError, Precision, Query, State, StateKind, Stats, Summary,
};
pub use memory::{MemoryStore, MemoryStoreBuilder, OnFull};
pub use near_cache::{NearCache, NearCacheBuilder};
pub use origin::Origin;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresStoreBuilder};
pub use record::{DecodeError, Record};
#[cfg(feature = "redis")]
pub use redis::{RedisStore, RedisStoreBuilder};
#[cfg(feature = "seal")]
pub use seal::Sealed;
#[cfg(feature = "seal")]
pub use seal::keys::{Keys, SealingKey, SealingKeyError};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreBuilder};
use tokio::sync::Notify;
pub use transaction::{Bind, CommitState, RecordStatement, TransactionKind};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use transaction::{RecordFailure, sealed};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use transaction::{TransactionConnection, TransactionDatabase};

use crate::observe::Observer;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
pub use crate::settings::policy::OnUnknown;

/// Stores claims and records.
///
/// Every required method is one atomic transition on one record id. A store must keep these rules, because
/// the engine relies on each of them.
///
/// 1. Of any number of concurrent [`claim`](Store::claim)s of one record id, at most one gets
///    [`Claimed::Fresh`] until that claim is settled or its lease lapses.
/// 2. [`renew`](Store::renew), [`complete`](Store::complete), [`release`](Store::release) and
///    [`abandon`](Store::abandon) take effect only for the owner and fence that hold the claim. For
///    any other caller they change nothing and return [`Settled::Lost`].
/// 3. A lease lasts as long as the claim or its last renewal says, whatever the `ttl` is. A lease
///    lapses without any call.
/// 4. A record lives for its `ttl`, counted from `complete` by the store's own clock. Reading a
///    record does not extend its life. At the moment of expiry the record is gone.
/// 5. A full store returns [`Claimed::Full`], and a store that is unsure returns an error. A store
///    never returns `Fresh` when it is unsure. It never evicts a claim or a record silently.
/// 6. An entry that the store cannot decode is an error, never a miss. The store leaves the entry
///    in place.
/// 7. The fence grows with every attempt at one record id, even after the id was released,
///    forgotten or expired.
/// 8. When the owner that holds a claim repeats the claim, the result is `Fresh` again with the
///    same fence. A claimer whose first reply was lost learns in this way that it holds the claim.
///    Once the lease has lapsed, the owner is treated like any other claimer.
/// 9. A record comes back byte for byte as it was stored, and under no other id.
/// 10. An operator's [`look_up`](Store::look_up), [`forget`](Store::forget) and
///     [`resolve`](Store::resolve) report the current state and take effect at once. So do
///     [`list`](Store::list), [`stats`](Store::stats) and [`forget_scope`](Store::forget_scope), when the
///     store supports them.
///
/// The feature `testing` has a suite that checks a store against these rules. [`guide`] shows how
/// to write a store.
///
/// The returned futures own everything they need, because they outlive the call: the engine polls
/// them to completion even after the client has disconnected. A future that is dropped half way
/// leaves either the old state or the new state.
///
/// The trait is object-safe; an [`Idempotency`](crate::Idempotency) holds an `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// Decides who runs the handler.
    ///
    /// When there is no entry under the id, or only an expired entry, the claim is `Fresh`. A lapsed
    /// claim is taken over when its fingerprint is the same and `claim.on_unknown` is
    /// [`OnUnknown::Rerun`]. Otherwise the result is [`Claimed::Unknown`] until the retention of
    /// the lapsed claim has passed. A takeover uses the lease and the retention of the new claim,
    /// not those of the lapsed claim.
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed>;

    /// Extends the holder's lease to `lease` from now. This also renews a lapsed lease, as long as
    /// nobody took the claim over.
    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled>;

    /// Replaces the holder's claim with the record, for `ttl` from now. This also completes a
    /// lapsed claim, as long as nobody took the claim over.
    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled>;

    /// Removes the holder's claim. The next claim is `Fresh`, whatever its fingerprint is.
    fn release(&self, holder: Holder) -> StoreFuture<Settled>;

    /// Ends the holder's lease at once and leaves the outcome unknown.
    fn abandon(&self, holder: Holder) -> StoreFuture<Settled>;

    /// Returns the entry under the id, for an operator. Changes nothing.
    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>>;

    /// Removes any entry under the id, and returns whether there was an entry.
    fn forget(&self, id: RecordId) -> StoreFuture<bool>;

    /// Replaces a claim whose outcome is unknown with an operator's record.
    ///
    /// Takes effect only while the claim with this fence has lapsed and nobody has taken the claim
    /// over.
    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled>;

    /// Returns a page of the records that match `query`, for an operator. Changes nothing.
    ///
    /// A record that exists from the first page to the last page appears exactly once, in a state that it had while its
    /// page was read. An expired entry does not appear.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn list(&self, query: Query) -> StoreFuture<Page> {
        let _ = query;
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Returns the number of records in the store, and how full the store is, for an operator. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn stats(&self) -> StoreFuture<Stats> {
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Removes every entry of a scope, as [`forget`](Self::forget) does, and returns the number of entries.
    ///
    /// The time of a call depends on the number of entries. When the future is dropped half way, a part of the entries
    /// may be removed. An entry that a claim creates meanwhile may stay.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let _ = scope;
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Returns the kind of database in whose transactions a handler can record its response.
    ///
    /// `None` when the store does not override this method. Then
    /// [`Attempt::commit`](crate::Attempt::commit) is not supported.
    fn transactions(&self) -> Option<TransactionKind> {
        None
    }

    /// Returns the statement that records a response inside the transaction of the holder's handler.
    ///
    /// The commit of that transaction replaces [`complete`](Self::complete). Of all attempts at one record
    /// id, at most one can commit this statement until the record expires or is forgotten. A record that
    /// was committed in this way takes precedence over the claim.
    ///
    /// The transaction may also commit after another attempt was granted the claim. So these methods must wait for the end of
    /// such a transaction:
    ///
    /// - [`complete`](Self::complete) of an attempt whose number is above 1, and [`resolve`](Self::resolve). They have no
    ///   effect if the transaction was committed.
    /// - [`release`](Self::release).
    /// - [`forget`](Self::forget) and [`forget_scope`](Self::forget_scope). They also remove the record of the transaction.
    ///
    /// When one of the last three methods has removed the claim, the statement must fail, even in a transaction with an
    /// older snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        let _ = (holder, record, ttl);
        Err(StoreError::Unsupported)
    }

    /// Returns the outcome of the holder's transaction. Changes nothing, and waits until the outcome is as durable as a
    /// transition.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        let _ = holder;
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Removes a batch of expired entries, and returns how many entries it removed. Returns 0 when no expired
    /// entry is left, so call it until then.
    ///
    /// Expired entries have no effect on any other method, so this method only frees their space. A store whose engine
    /// removes expired entries itself returns 0 at once. When the future is dropped half way, the whole batch, a part of
    /// it or nothing is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method.
    fn remove_expired(&self) -> StoreFuture<u64> {
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Checks whether the engine behind the store is set up in a way that keeps the rules of this trait: its
    /// version, durability, eviction, rights and clock. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the store does not override this method, and any other error when the
    /// engine cannot be asked.
    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        StoreFuture::ready(Err(StoreError::Unsupported))
    }

    /// Returns the name of the store in metrics, such as `redis`; `other` by default. The name must not depend on
    /// requests, because each name is the value of a label.
    fn name(&self) -> &'static str {
        "other"
    }

    /// Receives the observer of a service, for events that only the store knows:
    /// [`evicted`](Observer::evicted), [`swept`](Observer::swept), [`store_filled`](Observer::store_filled) and
    /// [`connection_awaited`](Observer::connection_awaited). Does nothing by default.
    ///
    /// Called when a service with an observer is built. A store that several services share keeps the first
    /// observer, so that each event is reported once.
    fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = observer;
    }
}

/// Why a transition failed. The error never contains a key, a token or a response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine behind the store could not be reached, or refused the request.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store did not respond in time.
    #[error("the store did not respond in time")]
    TimedOut,
    /// Another connection held the lock of the database for too long. The store has already waited, so the engine does
    /// not send the claim again.
    #[error("another connection holds the lock of the database")]
    Busy,
    /// The engine behind the store is configured in a way that would break the rules of [`Store`].
    #[error("the store is not usable as it is set up: {0}")]
    Unfit(Box<str>),
    /// The entry under the record id cannot be decoded. The store leaves the entry in place.
    #[error("the stored entry cannot be decoded")]
    Undecodable(#[source] DecodeError),
    /// The store does not offer this operation.
    #[error("the store does not support this operation")]
    Unsupported,
    /// The cursor of a query comes from another store or another version.
    #[error("the cursor of the query is not one of this store")]
    InvalidCursor,
}

/// One attempt to get the right to run the handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The record that is claimed.
    pub id: RecordId,
    /// Distinguishes a retry of the first request from another request with the same key.
    pub fingerprint: Fingerprint,
    /// Who claims. No two attempts have the same owner.
    pub owner: Owner,
    /// How long the claim holds without a renewal.
    pub lease: Duration,
    /// How long a lapsed claim is remembered as unknown, counted from the end of its lease.
    pub retention: Duration,
    /// How a lapsed claim is handled.
    pub on_unknown: OnUnknown,
    /// Whether the caller wants to be woken when the claim that is in flight ends.
    pub wait: bool,
    /// Where the request comes from, for operators. The store keeps the origin of the first attempt.
    pub origin: Origin,
    /// Whether all callers share the scope. Such a scope has no limited share of the store: see
    /// [`MemoryStoreBuilder::max_share`].
    pub is_global: bool,
    /// Whether the handler's only effects are those of a transaction that records its response. The store
    /// need not wait until such a claim is durable: a crash that loses the claim loses the transaction too.
    pub is_transactional: bool,
}

impl Claim {
    /// Returns a claim by a new owner, with an unknown origin and a global scope. It takes over a lapsed
    /// claim and does not wait.
    #[must_use]
    pub fn new(
        id: RecordId,
        fingerprint: Fingerprint,
        lease: Duration,
        retention: Duration,
    ) -> Self {
        Self {
            id,
            fingerprint,
            owner: Owner::unique(),
            lease,
            retention,
            on_unknown: OnUnknown::Rerun,
            wait: false,
            origin: Origin::default(),
            is_global: true,
            is_transactional: false,
        }
    }
}

/// The result of a claim.
#[derive(Debug)]
#[non_exhaustive]
pub enum Claimed {
    /// The caller holds the claim and runs the handler.
    Fresh {
        /// Grows with every attempt at this record id.
        fence: u64,
        /// 1 for the first attempt, and one more for each takeover of a lapsed claim.
        attempt: u32,
    },
    /// Another owner holds the claim.
    InFlight {
        /// The fingerprint of the request that holds the claim.
        fingerprint: Fingerprint,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
        /// Wakes a caller that set `wait`. `None` when the store cannot wake callers.
        changed: Option<Changed>,
    },
    /// An earlier attempt was settled with this record.
    Recorded {
        /// The record to replay.
        record: Record,
        /// How much of the record's `ttl` is left, so that a cache never keeps the record longer.
        expires_in: Duration,
    },
    /// An earlier attempt ended without a response, and this caller must not run the handler again.
    Unknown {
        /// The fingerprint of the request that was interrupted.
        fingerprint: Fingerprint,
    },
    /// There is no room for another claim.
    Full,
    /// There is room, but the scope of the record holds its share of the store already.
    OverShare,
}

/// Identifies who holds a claim. `complete`, `renew`, `release` and `abandon` require a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The record that is claimed.
    pub id: RecordId,
    /// The attempt that made the claim.
    pub owner: Owner,
    /// The fence that the store gave the claim.
    pub fence: u64,
}

/// Whether a transition took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// The transition took effect.
    Done,
    /// The transition changed nothing, because the caller no longer holds the claim.
    Lost,
}

/// The entry under a record id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Entry {
    /// A claim whose lease holds.
    InFlight {
        /// The fingerprint of the request that holds the claim.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
    },
    /// A claim that lapsed without a response.
    Unknown {
        /// The fingerprint of the request that was interrupted.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the store will remember this claim.
        retained_for: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
    },
    /// A finished record.
    Recorded {
        /// The record to replay.
        record: Record,
        /// How long the record will be replayed.
        expires_in: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
        /// When the record was stored, by the clock of the store.
        settled_at: SystemTime,
    },
}

impl Entry {
    /// Where the first request came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::InFlight { origin, .. }
            | Self::Unknown { origin, .. }
            | Self::Recorded { origin, .. } => origin,
        }
    }

    /// When the first attempt claimed the record, by the clock of the store.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        match self {
            Self::InFlight { created_at, .. }
            | Self::Unknown { created_at, .. }
            | Self::Recorded { created_at, .. } => *created_at,
        }
    }

    /// Returns the entry as a listing shows it.
    #[must_use]
    pub fn summary(self, id: RecordId) -> Summary {
        let created_at = self.created_at();
        let (origin, state) = match self {
            Self::InFlight {
                fence,
                attempt,
                lease_left,
                origin,
                ..
            } => {
                let state = State::InFlight {
                    fence,
                    attempt,
                    lease_left,
                };
                (origin, state)
            }
            Self::Unknown {
                fence,
                attempt,
                retained_for,
                origin,
                ..
            } => {
                let state = State::Unknown {
                    fence,
                    attempt,
                    retained_for,
                };
                (origin, state)
            }
            Self::Recorded {
                record,
                expires_in,
                origin,
                settled_at,
                ..
            } => (origin, State::recorded(&record, settled_at, expires_in)),
        };
        Summary::new(id, origin, created_at, state)
    }
}

/// Identifies one attempt, uniquely across all processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 16]);

impl Owner {
    /// A new owner, different from every other owner in this or another process.
    ///
    /// # Panics
    ///
    /// When the operating system cannot provide random bytes at the first call.
    #[must_use]
    pub fn unique() -> Self {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let mut bytes = [0; 16];
        let process = PROCESS.get_or_init(|| getrandom::u64().expect("the system has no entropy"));
        bytes[..8].copy_from_slice(&process.to_le_bytes());
        bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// An owner from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Wakes callers that wait for a claim to end.
///
/// A store returns a `Changed` with [`Claimed::InFlight`]. The store creates it under the same lock
/// under which it read the claim, so that the caller cannot miss the end of the claim.
#[derive(Debug)]
pub struct Changed(tokio::sync::futures::OwnedNotified);

impl Changed {
    /// A waiter for the next `notify_waiters` on `notify`.
    #[must_use]
    pub fn new(notify: Arc<Notify>) -> Self {
        Self(notify.notified_owned())
    }

    /// Completes when the claim has ended. Cancel-safe.
    pub async fn wait(self) {
        self.0.await;
    }
}
