//! The PostgreSQL store: one row for each record, one transaction for each transition.
//!
//! A transition sends one of the statements in `statements.rs`, or calls the function in
//! `claim_function.rs`. `transaction.rs` records a response inside the transaction of a handler, with the
//! function in `commit_function.rs`. Under load, `together.rs` sends the transitions of several callers in one of the
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
mod row;
mod session;
mod setup;
mod sql;
mod statements;
mod sweeper;
mod table;
mod together;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout_at};

use self::batches::Completion;
pub use self::builder::PostgresStoreBuilder;
use self::connections::Connections;
use self::failure::{Remedy, remedy, store_error};
use self::session::Session;
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

/// How often a statement is sent when it loses races or its connection breaks.
const TRIES: usize = 12;

/// Commits that take longer than this, and longer than a quarter of the store's timeout, may have
/// waited for a standby until somebody canceled the wait. The quarter is for standbys that are
/// always slow.
const QUICK_COMMIT: Duration = Duration::from_millis(250);

/// Longer records are stored alone, so that a batch stays small.
const LONGEST_RECORD: usize = 16 * 1024;

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
/// A caller waits for the statement to begin for at most 100 ms, or an eighth of the
/// [`timeout`](PostgresStoreBuilder::timeout) if that is shorter, and then sends its own transition. When the statement fails or
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
/// Claims use a PL/pgSQL function, `idem_records_claim_v4`, completions of several callers use
/// `idem_records_complete_v1`, and a handler's transaction uses `idem_records_commit_v2`. All are named after the table. The
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

/// Whether an earlier try may have taken effect before the try that returned the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    First,
    Repeated,
}

impl Inner {
    /// Sends a statement until its result is certain, as long as the errors are transient.
    ///
    /// `read` gets the rows, and whether an earlier try may have taken effect. When `read` returns
    /// `None`, the statement is sent again.
    async fn send<T>(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow], Tries) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.send_and_confirm(deadline, statement, bind, read, |_| true)
            .await
    }

    /// Like `send`. A result for which `wrote` is false needs no confirmation, however long it
    /// took.
    async fn send_and_confirm<T>(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow], Tries) -> Result<Option<T>, StoreError>,
        wrote: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        let mut last = StoreError::Unavailable(
            "gave up because other processes kept changing this record".into(),
        );
        let mut tries = Tries::First;
        for _ in 0..TRIES {
            let mut leased = self.connections.acquire(deadline).await?;
            let session = leased.session();
            let query = bind(sqlx::query(AssertSqlSafe(statement.clone())));
            let asked_at = Instant::now();
            let Ok(rows) = timeout_at(deadline, session.run(query)).await else {
                return Err(StoreError::TimedOut);
            };
            let error = match rows {
                Ok(rows) => {
                    let is_slow = self.is_slow(asked_at);
                    let result = read(&rows, tries);
                    let may_wait = is_slow && matches!(&result, Ok(Some(result)) if wrote(result));
                    let is_unsure = may_wait && self.waits_for_standbys(deadline, session).await?;
                    leased.keep();
                    if is_unsure {
                        tries = Tries::Repeated;
                        last = StoreError::TimedOut;
                        continue;
                    }
                    if let Some(result) = result? {
                        return Ok(result);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let remedy = remedy(&error);
            last = store_error(error, &self.table);
            match remedy {
                Remedy::Again => leased.keep(),
                Remedy::Elsewhere => {
                    tries = Tries::Repeated;
                    leased.close(&last);
                }
                Remedy::OtherServer => {
                    if !leased.leave(&last) {
                        return Err(last);
                    }
                }
                Remedy::Report => {
                    leased.keep();
                    return Err(last);
                }
            }
        }
        Err(last)
    }

    /// Whether commits wait for synchronous standbys.
    ///
    /// An operator can cancel that wait. The server then acknowledges a commit that no standby has,
    /// with a warning that sqlx does not pass on. So a slow commit only counts after the statement
    /// was sent again and its commit was quick: that commit follows the first commit in the log.
    async fn waits_for_standbys(
        &self,
        deadline: Instant,
        session: &mut Session,
    ) -> Result<bool, StoreError> {
        let look = "SELECT current_setting('synchronous_standby_names') <> ''";
        let look = session.run(sqlx::query(look));
        let Ok(rows) = timeout_at(deadline, look).await else {
            return Err(StoreError::TimedOut);
        };
        let rows = rows.map_err(|error| store_error(error, &self.table))?;
        row::done(only(&rows)?)
    }

    /// Whether a commit that began then may have waited for a standby, see [`QUICK_COMMIT`].
    fn is_slow(&self, asked_at: Instant) -> bool {
        asked_at.elapsed() > QUICK_COMMIT.max(self.timeout / 4)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn patience(&self) -> Duration {
        patience(self.timeout)
    }

    async fn claim(self: &Arc<Self>, claim: Claim) -> Result<Claimed, StoreError> {
        let deadline = self.deadline();
        if let Some(lane) = self.claims_like(&claim).lane() {
            let claimed = self.claim_alone(&claim, deadline).await;
            lane.leave().await;
            return claimed;
        }
        // Boxed because it is long. Unboxed, it would enlarge the future of every claim.
        Box::pin(self.claim_together(claim, deadline)).await
    }

    async fn claim_alone(&self, claim: &Claim, deadline: Instant) -> Result<Claimed, StoreError> {
        let bind = |query| statements::claiming(query, claim, &self.table);
        let read = |rows: &[PgRow], _| row::claimed(only(rows)?);
        // All other results only read.
        let wrote = |claimed: &Claimed| matches!(claimed, Claimed::Fresh { .. });
        let statement = &self.statements.claim;
        self.send_and_confirm(deadline, statement, bind, read, wrote)
            .await
    }

    /// A transition of a claim's holder that can be repeated without side effects.
    async fn settle(
        &self,
        statement: &Arc<str>,
        holder: Holder,
        bind: impl Fn(Query) -> Query,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let bind = |query: Query| bind(statements::held(query, holder, fence));
        let done = self.send(self.deadline(), statement, bind, is_done).await?;
        Ok(row::settled(done))
    }

    async fn complete(
        self: &Arc<Self>,
        holder: Holder,
        record: &Record,
        ttl: Duration,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let deadline = self.deadline();
        let lane = self.completions.lane();
        if lane.is_none() && record.as_bytes().len() <= LONGEST_RECORD {
            let completion = Completion {
                holder,
                fence,
                record: record.clone(),
                ttl: whole_millis(ttl),
            };
            let together = Box::pin(self.complete_together(completion, deadline));
            if together.await? {
                return Ok(Settled::Done);
            }
        }
        let Statements {
            complete,
            complete_later,
            is_complete,
            ..
        } = &self.statements;
        let keep = |query| {
            let query = statements::held(query, holder, fence);
            query.bind(record.as_bytes().to_vec())
        };
        let keep_for = |query| keep(query).bind(whole_millis(ttl));
        let was_held = |rows: &[PgRow], _| Ok(Some(!rows.is_empty()));
        let done = self.send(deadline, complete, keep_for, was_held).await?
            || self.send(deadline, complete_later, keep_for, is_done).await?
            // A holder whose first reply was lost sends the same record again. The record is
            // already stored, and its ttl continues.
            || self.send(deadline, is_complete, keep, is_done).await?;
        drop(lane);
        Ok(row::settled(done))
    }

    async fn release(&self, holder: Holder) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let Statements {
            release,
            was_taken_over,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let held = |query| statements::held(query, holder, fence);
        let (done, tries) = self.send(deadline, release, held, is_done_after).await?;
        if done || tries == Tries::First {
            return Ok(row::settled(done));
        }
        // The claim is gone. If no other attempt took it over, the try whose reply was lost has
        // released it.
        let of_fence = |query| statements::of_id(query, holder.id).bind(fence);
        let lost = self
            .send(deadline, was_taken_over, of_fence, is_done)
            .await?;
        Ok(row::settled(!lost))
    }

    async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let bind = |query| statements::of_id(query, id);
        let read = |rows: &[PgRow], _| rows.first().map(row::entry).transpose().map(Some);
        self.send(self.deadline(), &self.statements.look_up, bind, read)
            .await
    }

    /// Removes only the rows that it has read. If the statement is sent again after its reply was
    /// lost, it must not remove a newer claim.
    ///
    /// The removal of a claim waits for the transactions that have recorded under it. So the record of such a
    /// transaction is there afterwards, with the same fence or a lower one, and is removed too.
    async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let Statements {
            identify,
            forget,
            was_taken_over,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let of_id = |query| statements::of_id(query, id);
        let identity = |rows: &[PgRow], _| rows.first().map(row::identity).transpose().map(Some);
        let mut forgotten = None;
        loop {
            let Some((owner, fence)) = self.send(deadline, identify, of_id, identity).await? else {
                return Ok(forgotten.is_some());
            };
            if forgotten.is_some_and(|forgotten| forgotten < fence) {
                return Ok(true);
            }
            let found = |query| of_id(query).bind(owner.clone()).bind(fence);
            let (done, tries) = self.send(deadline, forget, found, is_done_after).await?;
            // The row is gone. If no other attempt took it over, the try whose reply was lost
            // removed it.
            let of_fence = |query| of_id(query).bind(fence);
            if done
                || tries == Tries::Repeated
                    && !self
                        .send(deadline, was_taken_over, of_fence, is_done)
                        .await?
            {
                forgotten = Some(fence);
            }
        }
    }

    async fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(fence) else {
            return Ok(Settled::Lost);
        };
        let Statements {
            resolve,
            is_resolved,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let keep = |query| {
            let query = statements::of_id(query, id).bind(fence);
            query.bind(record.as_bytes().to_vec())
        };
        let keep_for = |query| keep(query).bind(whole_millis(ttl));
        let (done, tries) = self
            .send(deadline, resolve, keep_for, is_done_after)
            .await?;
        // The try whose reply was lost may have stored the record.
        let done = done
            || tries == Tries::Repeated && self.send(deadline, is_resolved, keep, is_done).await?;
        Ok(row::settled(done))
    }
}

/// Time limit for a batch of the sweeper or a step of the set-up.
fn patience(timeout: Duration) -> Duration {
    timeout * 5
}

fn is_done(rows: &[PgRow], _: Tries) -> Result<Option<bool>, StoreError> {
    row::done(only(rows)?).map(Some)
}

/// Like [`is_done`], and also returns whether an earlier try may have taken effect.
fn is_done_after(rows: &[PgRow], tries: Tries) -> Result<Option<(bool, Tries)>, StoreError> {
    row::done(only(rows)?).map(|done| Some((done, tries)))
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
