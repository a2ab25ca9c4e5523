//! The PostgreSQL store: one row for each record, one transaction for each transition.
//!
//! A transition in `transitions.rs` sends one of the statements in `statements.rs`, or calls the function in
//! `claim_function.rs`. `retries.rs` repeats a statement until its result is certain. `transaction.rs` records a
//! response inside the transaction of a handler, with the function in `commit_function.rs`. Under load,
//! `together.rs` sends the transitions of several callers in one of the
//! statements in `batches.rs`. The transition runs on one of the connections in `connections.rs`; a
//! connection is a `session.rs`. `row.rs` and `reply.rs` read the result, and `failure.rs`
//! classifies errors. `builder.rs` connects: `setup.rs` creates the table described in `table.rs`,
//! and `probe.rs` tries every statement. `sweeper.rs` removes expired rows.

mod batches;
mod builder;
mod claim_function;
mod commit_function;
mod complete_function;
mod connections;
mod diagnosis;
mod failure;
mod listing;
mod listings;
mod probe;
mod reply;
mod retries;
mod row;
mod session;
mod setup;
mod sql;
mod statements;
mod sweeper;
mod table;
mod together;
mod transaction;
mod transitions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use tokio::time::Instant;

use self::batches::Completion;
pub use self::builder::PostgresStoreBuilder;
use self::connections::Connections;
use self::sql::Query;
use self::statements::{Statements, whole_millis};
use self::table::Table;
use super::batch::Batcher;
use super::observer::POSTGRES;
use super::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, Page, Query as ListQuery, Record,
    RecordStatement, Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

/// Stores claims and records in a table in PostgreSQL (12 or later).
///
/// A first request costs two round trips: one to claim, and one to settle the claim. A replay costs
/// one round trip, and only reads. Every transition is a transaction of its own. A claim is never
/// part of a handler's transaction, because duplicates would then wait for that transaction. All
/// times come from the server's clock.
///
/// Under load, callers share transactions: see [Load](#load).
///
/// The feature `postgres` needs Rust 1.94, because sqlx 0.9 does.
///
/// ```no_run
/// # extern crate idem_runtime as axum_idem;
/// # async fn connect(pool: sqlx::PgPool) -> Result<(), axum_idem::store::StoreError> {
/// use axum_idem::store::PostgresStore;
///
/// let store = PostgresStore::connect("postgres://desk@127.0.0.1/trades").await?;
///
/// let in_its_own_schema = PostgresStore::builder()
///     .pool(pool)
///     .schema("idem")
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Guarantees
///
/// | situation | guarantee |
/// |---|---|
/// | any number of processes, one primary | all rules of [`Store`] |
/// | restart or crash of the server | every acknowledged transition is kept. In a session with `synchronous_commit = off`, every transition except a renewal turns it on for its own transaction. With `fsync = off`, there is no guarantee |
/// | failover to an asynchronous replica | every transition that the replica had is kept. A claim that was acknowledged but not yet replicated is lost, and a retry runs the handler again |
/// | failover to a synchronous standby | every acknowledged transition is kept, as long as nobody cancels a wait for the standby, see below |
/// | two primaries | no guarantee, see below |
/// | a replica, a read-only session | [`connect`](PostgresStoreBuilder::connect) refuses it. If the server becomes a replica later, transitions fail |
/// | a jump of the server's clock | leases and records end earlier or later by the length of the jump |
/// | another session holds a lock on the row or the table | [`StoreError::TimedOut`] after [`timeout`](PostgresStoreBuilder::timeout) |
/// | every connection of the store is in use | [`StoreError::Unavailable`] after the same time |
/// | the server cannot be reached | [`StoreError`]: an uncertain claim is never `Fresh`. The next transition connects again |
///
/// # Connections
///
/// The store opens its own connections, at most [`max_connections`], even when it was given a
/// [`pool`]. Their `application_name` is `axum-idem`, unless the address or the pool sets another
/// name. The server cancels their statements after [`timeout`]. A connection whose statement timed
/// out counts as used until the server has ended that statement.
///
/// [`max_connections`]: PostgresStoreBuilder::max_connections
/// [`pool`]: PostgresStoreBuilder::pool
/// [`timeout`]: PostgresStoreBuilder::timeout
///
/// The store detects `PgBouncer` or another pooler, in session mode and in transaction mode. Behind
/// a pooler, the store runs each transition in an explicit transaction, without named prepared
/// statements. Each transition then costs four round trips to the pooler. Connect directly if
/// that is too slow.
///
/// # Synchronous standbys
///
/// With `synchronous_standby_names`, a transition returns when the standby has its data. While the
/// standby is gone, transitions time out, and the store never cancels their wait.
///
/// An operator must not cancel the wait either. After `pg_cancel_backend` on a session that waits
/// in `SyncRep`, the server reports the commit as done although no standby has it. The store
/// therefore repeats a write that took longer than 250 ms and longer than a quarter of [`timeout`].
/// It cannot detect a wait that was canceled sooner. Bring the standby back, or change
/// `synchronous_standby_names`. Do not promote a standby that was gone in the meantime.
///
/// Only the commit of a write waits for the standby, and a repeated release or removal finds no row and writes nothing.
/// So the store then writes an empty message to the log of the server, with `pg_logical_emit_message`.
///
/// A distant standby needs a longer [`timeout`]: more than four times the duration of a commit.
/// Otherwise the store repeats every write until the timeout.
///
/// The store does not check reads in this way. When a primary restarts while its standby is gone, a
/// replay may return a record that no standby has.
///
/// # Load
///
/// With at least four [`max_connections`](PostgresStoreBuilder::max_connections), two claims can run at the same time, each in
/// its own statement; with fewer connections, only one. The same holds for completions. A caller that arrives meanwhile
/// waits until one of them has ended. Then one statement runs the transitions of up to 32 waiting callers, which share its
/// round trip and its commit. The claims of such a statement look for their records first, so that a replay does not wait for
/// the disk. The claims of `transactional` endpoints need not be on the disk. They have statements of their own, which do not
/// look first.
///
/// A caller waits for a statement to begin for at most 100 ms, or an eighth of the
/// [`timeout`](PostgresStoreBuilder::timeout) if that is shorter, and then sends its own transition. A claim may wait twice:
/// for the statement that looks for its record, and for the statement that claims. When the statement fails or
/// waits for a lock for 50 ms, each of the callers sends its own transition. When the reply to the statement is lost, the claims
/// fail with [`StoreError::Unavailable`], and the engine repeats them. A record of more than 16 KiB is stored by a statement of
/// its own.
///
/// # Two primaries
///
/// A primary that was replaced but still runs grants claims to every process that still reaches it.
/// The new primary grants the same claims, so the handler runs twice for one key. The store cannot
/// detect this. Before you promote a replica, make sure that the old primary is stopped or cannot
/// be reached (fencing), as Patroni does with a watchdog. With synchronous standbys, the old
/// primary acknowledges no claim once the promoted standby has disconnected from it.
///
/// # Fences
///
/// The first fence of a record id is the server's time in microseconds since 1970, and each
/// takeover adds one. So a fence is higher than every earlier fence of the same id, even after the
/// row was removed, as long as the server's clock does not go back. For this purpose, a claim that
/// may win takes an advisory lock for its transaction. The number of the lock is the last eight
/// bytes of the record id. Callers who share a transaction hold up to 32 such locks.
///
/// # Stored data
///
/// There is one row for each record id, and a second row when a handler's transaction, a later attempt or
/// [`resolve`](Store::resolve) has recorded the response. The key of the second row is the record id and one byte. The
/// unique index on this key lets only one of these writers record a response. The bytes in a row are versioned, and contain no key, no
/// token and no scope. The headers and the body of the response, the endpoint and the label are not
/// encrypted. A row that this version cannot read stays unchanged, and requests with its key get 503.
/// Transitions ignore expired rows, and a sweeper removes them in batches.
///
/// | column | meaning |
/// |---|---|
/// | `id` | the record id; the first 16 bytes are the scope id. A record row has a 33rd byte |
/// | `created_at`, `endpoint`, `trace_id`, `label` | of the first attempt |
/// | `settled_at`, `record` | of the response; `NULL` for a claim. The value `settled` in `record` marks a claim that a second row has settled |
/// | `leased_until` | a claim whose lease has lapsed has an unknown outcome |
/// | `expires_at` | for a claim, the end of its retention |
/// | `fence`, `attempt`, `owner`, `retention_ms` | of the last attempt |
/// | `fingerprint` | of the first request |
/// | `version` | of the row |
///
/// In a database whose encoding is not UTF-8, characters of a label outside ASCII become question marks.
///
/// # Listing
///
/// [`list`](Store::list) returns records in the order of their ids. A page reads at most 1,000 rows. Pages of
/// unknown outcomes and of claims in flight use an index of claims, pages of one scope use the primary key, and
/// short ids have an index of their own. A filter by endpoint or age has no index, so such a page reads 1,000
/// rows and may be empty. [`stats`](Store::stats) counts up to 10,000 claims and records. Beyond that, the number of
/// records is the estimate of the last `ANALYZE`.
///
/// [`forget_scope`](Store::forget_scope) removes 1,000 rows with each statement, and fewer when a statement exceeds the
/// timeout. When the reply to a statement is lost, the returned number does not include the rows of this statement.
///
/// The table can be partitioned by a hash of `id`, but not by expiry. The primary key decides which claim wins,
/// and PostgreSQL has no unique index across partitions unless the index contains the partition's column.
///
/// Durations are stored in whole milliseconds, rounded up, up to 100 years.
///
/// # Rights
///
/// Claims use a PL/pgSQL function, `idem_records_claim_v5`, completions of several callers use
/// `idem_records_complete_v1`, and a handler's transaction uses `idem_records_commit_v3`. All are named after the table. The
/// first [`connect`](PostgresStoreBuilder::connect) creates the table, its indexes and the functions, and needs the right to
/// create objects in the schema. With
/// [`migrate(false)`](PostgresStoreBuilder::migrate), `connect` creates nothing. Put the SQL of
/// [`schema_sql`](PostgresStoreBuilder::schema_sql) into the service's own migrations. Once
/// all objects exist, a role needs `USAGE` on the schema, `SELECT`, `INSERT`, `UPDATE` and `DELETE` on
/// the table, and `EXECUTE` on the functions and on `pg_logical_emit_message`. Every role has `EXECUTE`
/// unless it was revoked. The role of a handler's transaction needs `SELECT`, `INSERT` and `UPDATE` on the table.
/// When a role lacks a right, the error contains the SQL that an owner has to run. Versions of this library that
/// use different functions can share one table.
///
/// The table must be logged and must have its primary key. No trigger, rule or row security policy
/// may skip a write. Otherwise `connect` refuses the table.
///
/// # Cancellation
///
/// When the future of a transition is dropped, the transition may or may not take effect.
#[derive(Clone)]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "postgres")]
pub struct PostgresStore(Arc<Inner>);

/// Claims that wait for others to share a transaction.
type Claims = Batcher<Claim, Result<Claimed, StoreError>>;

struct Inner {
    connections: Arc<Connections>,
    statements: Statements,
    table: Table,
    timeout: Duration,
    replays: Arc<Batcher<RecordId, Result<Claimed, StoreError>>>,
    claims: Arc<Claims>,
    /// Claims whose commits do not wait for the disk.
    quick_claims: Arc<Claims>,
    completions: Arc<Batcher<Completion, ()>>,
}

impl Inner {
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn patience(&self) -> Duration {
        patience(self.timeout)
    }
}

/// Time limit for a batch of the sweeper or a step of the set-up.
fn patience(timeout: Duration) -> Duration {
    timeout * 5
}

fn only(rows: &[PgRow]) -> Result<&PgRow, StoreError> {
    rows.first()
        .ok_or_else(|| StoreError::Unavailable("a statement returned no row".into()))
}

impl Store for PostgresStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.claim(claim).await })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let bind = |query: Query| query.bind(whole_millis(lease));
            inner.settle(&inner.statements.renew, holder, bind).await
        })
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.complete(holder, &record, ttl).await })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.release(holder).await })
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let bind = |query| query;
            inner.settle(&inner.statements.abandon, holder, bind).await
        })
    }

    fn list(&self, query: ListQuery) -> StoreFuture<Page> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.list(query).await })
    }

    fn stats(&self) -> StoreFuture<Stats> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.stats().await })
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.forget_scope(scope).await })
    }

    fn transactions(&self) -> Option<TransactionKind> {
        Some(TransactionKind::Postgres)
    }

    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        self.0.record_statement(holder, &record, ttl)
    }

    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.commit_state(holder).await })
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.remove_expired().await })
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.diagnose().await })
    }

    fn name(&self) -> &'static str {
        POSTGRES
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.connections.observer.set(observer);
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.look_up(id).await })
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.forget(id).await })
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.resolve(id, fence, record, ttl).await })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.0.table)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}
