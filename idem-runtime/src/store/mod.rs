//! The store trait, and the stores of this crate.
//!
//! [`Store`] is a trait whose required methods are atomic transitions on one record id. This module has
//! four stores: in memory, in an SQLite file, in Redis and in PostgreSQL. It also has [`NearCache`], a cache in front
//! of another store. The feature `seal` adds `Sealed`, which encrypts the responses in another store. All stores keep a
//! [`Record`] in the same frozen form. [`guide`] shows how to write another store.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod batch;
mod claim;
mod entry;
mod error;
mod finding;
mod future;
pub mod guide;
mod header_lines;
mod holder;
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

use std::sync::Arc;
use std::time::Duration;

pub use claim::{Changed, Claim, Claimed};
pub use entry::Entry;
pub use error::StoreError;
pub use finding::{Finding, Severity};
pub use future::StoreFuture;
pub use holder::{Holder, Owner, Settled};
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
pub use transaction::{Bind, CommitState, RecordStatement, TransactionKind};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use transaction::{RecordFailure, sealed};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use transaction::{TransactionConnection, TransactionDatabase};

use crate::observe::Observer;
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
