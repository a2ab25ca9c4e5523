//! The PostgreSQL store: one row for each record, one transaction for each transition.
//!
//! A transition binds its values to one of the `statements.rs`, or calls `claim_function.rs`. It runs on
//! a connection of `connections.rs`, each of which is a `session.rs`. `row.rs` and `answer.rs` read the
//! result, and `failure.rs` sorts the errors. `builder.rs` connects: `setup.rs` creates the `table.rs`, and
//! `probe.rs` tries every statement. `sweeper.rs` removes expired rows.

mod answer;
mod builder;
mod claim_function;
mod connections;
mod failure;
mod probe;
mod row;
mod session;
mod setup;
mod sql;
mod statements;
mod sweeper;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout_at};

pub use self::builder::PostgresStoreBuilder;
use self::connections::Connections;
use self::failure::{Remedy, remedy, store_error};
use self::session::Session;
use self::sql::Query;
use self::statements::{Statements, whole_millis};
use self::table::Table;
use super::{Claim, Claimed, Entry, Holder, Record, Settled, Store, StoreError, StoreFuture};
use crate::request::record_id::RecordId;

/// How often a statement is sent while races or broken connections are in the way.
const TRIES: usize = 12;

/// A commit that took longer, and longer than a quarter of the store's timeout, may have been waiting for
/// a standby when the wait was canceled. The share of the timeout is for standbys that are always slow.
const QUICK_COMMIT: Duration = Duration::from_millis(250);

/// Stores claims and records in PostgreSQL (12 or later), in a table of its own.
///
/// A first request costs two round trips, one to claim and one to settle. A replay costs one, and only
/// reads. Every transition commits by itself: a claim is never part of a handler's transaction, where
/// its duplicates would wait for it. All time is the server's, by `clock_timestamp()`.
///
/// The feature `postgres` needs Rust 1.94, as sqlx 0.9 does.
///
/// ```no_run
/// # async fn connect(pool: sqlx::PgPool) -> Result<(), idem_runtime::store::StoreError> {
/// use idem_runtime::store::PostgresStore;
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
/// | when | what holds |
/// |---|---|
/// | any number of processes, one primary | the whole contract of [`Store`] |
/// | restart or crash of the server | everything that was acknowledged: where the session has `synchronous_commit = off`, every transition but a renewal turns it on for itself. With `fsync = off`, nothing |
/// | failover to an asynchronous replica | what the replica had. A claim that was acknowledged and not yet replicated is lost, and a retry runs again |
/// | failover to a synchronous standby | everything that was acknowledged, as long as nobody cancels a wait for the standby, see below |
/// | two primaries | nothing, see below |
/// | a replica, a read-only session | refused by [`connect`](PostgresStoreBuilder::connect), and an error later |
/// | a jump of the server's clock | leases and records end earlier or later by the jump |
/// | a lock on the row or the table held by somebody else | [`StoreError::TimedOut`] after [`timeout`](PostgresStoreBuilder::timeout) |
/// | every connection of the store is in use | [`StoreError::Unavailable`] after the same time |
/// | the server cannot be reached | [`StoreError`]: an uncertain claim is never `Fresh`. The next transition connects again |
///
/// # Connections
///
/// The store opens connections of its own, at most [`max_connections`], also when it was given a
/// [`pool`]. Their `application_name` is `axum-idem`, unless the address or the pool sets another. The
/// server cancels their statements after [`timeout`]. A connection whose statement timed out counts
/// until that statement has ended.
///
/// [`max_connections`]: PostgresStoreBuilder::max_connections
/// [`pool`]: PostgresStoreBuilder::pool
/// [`timeout`]: PostgresStoreBuilder::timeout
///
/// Behind `PgBouncer` or another pooler, in session or in transaction mode, the store detects the
/// pooler, and runs each transition in an explicit transaction without named prepared statements. A
/// transition then costs four round trips to the pooler. Connect directly where that counts.
///
/// # Synchronous standbys
///
/// With `synchronous_standby_names`, a transition returns when the standby has it. While the standby is
/// gone, transitions time out, and the store never cancels their wait. An operator must not cancel it
/// either: after `pg_cancel_backend` on a session that waits in `SyncRep`, the server reports the commit
/// as done although no standby has it. The store doubts a write that took longer than 250 ms and longer
/// than a quarter of [`timeout`], and sends it again, but it cannot detect a wait that was canceled
/// sooner. Bring the standby back, or change `synchronous_standby_names`, and do not promote a standby
/// that was gone meanwhile.
///
/// A standby far away needs a longer [`timeout`]: more than four times what a commit takes. Otherwise
/// the store doubts every write, and sends it again until the time is over.
///
/// A release or a removal that is sent again finds no row and writes nothing. The store then writes an
/// empty message into the log, with `pg_logical_emit_message`, because only the commit of a write waits for
/// the standby.
///
/// A record that was read is not checked in this way: a replay may return a record that no standby has,
/// after a restart of a primary whose standby is gone.
///
/// # Two primaries
///
/// A primary that was replaced and still runs wins claims for whoever still reaches it, as the new one
/// does: the key runs twice. The store cannot detect this. Whoever promotes a replica has to make sure
/// first that the old primary is stopped or cannot be reached (fencing), as Patroni does with a
/// watchdog. With synchronous standbys, the old primary acknowledges no claim once the promoted standby
/// has left it.
///
/// # Fences
///
/// The first fence at a record id is the server's time in microseconds since 1970, and each takeover
/// adds one. So a fence is above every earlier one at the same id even after its row was removed, as
/// long as the server's clock does not go back. For that, a claim that may win takes an advisory lock
/// of its transaction, whose number is the first eight bytes of the record id.
///
/// # Stored data
///
/// One row for each record id. Its bytes are versioned, and contain neither a key nor a token nor a
/// scope. The headers and the body of the response are in the clear. A row that this version cannot read
/// stays as it is, and its key gets 503. No transition sees an expired row, and a sweeper removes
/// expired rows in batches.
///
/// Durations are stored in whole milliseconds, rounded up, up to 100 years.
///
/// # Rights
///
/// A PL/pgSQL function claims: `idem_records_claim_v1`, named after the table. The first
/// [`connect`](PostgresStoreBuilder::connect) creates the table and the function, and needs the right to
/// create in the schema. Once both exist, a role needs `USAGE` on the schema, `SELECT`, `INSERT`,
/// `UPDATE` and `DELETE` on the table, and `EXECUTE` on the function and on `pg_logical_emit_message`,
/// which everybody has unless it was revoked. The error of a role that lacks a right contains the SQL that an owner has to run. Versions of
/// the library with different functions work on one table together.
///
/// The table must be logged and have its primary key, and no trigger, rule or row security policy may
/// skip a write: `connect` refuses it otherwise.
///
/// # Cancellation
///
/// A transition whose future is dropped may or may not take effect.
#[derive(Clone)]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "postgres")]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    connections: Arc<Connections>,
    statements: Statements,
    table: Table,
    timeout: Duration,
}

/// Whether a statement may have taken effect before the try that returned its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    First,
    Repeated,
}

impl Inner {
    /// Sends a statement until its result is certain, as long as what is in the way is transient.
    ///
    /// `read` gets the rows, and whether an earlier try may have taken effect. `None` sends the
    /// statement again.
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

    /// The same. A result that `wrote` nothing needs no confirmation, however long it took.
    async fn send_and_confirm<T>(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow], Tries) -> Result<Option<T>, StoreError>,
        wrote: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        let mut last = StoreError::Unavailable("the race for a record did not end".into());
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
                    let is_slow = asked_at.elapsed() > QUICK_COMMIT.max(self.timeout / 4);
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
    /// An operator can cancel that wait. The server then acknowledges a commit that no standby has, with
    /// a warning that sqlx does not pass on. So a commit that took long counts only when the
    /// statement, sent again, commits quickly: its commit is behind the first one in the log.
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

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn patience(&self) -> Duration {
        patience(self.timeout)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let bind = |query| statements::claiming(query, &claim);
        let read = |rows: &[PgRow], _| row::claimed(only(rows)?);
        // Every other result is a read.
        let wrote = |claimed: &Claimed| matches!(claimed, Claimed::Fresh { .. });
        let (deadline, claim) = (self.deadline(), &self.statements.claim);
        self.send_and_confirm(deadline, claim, bind, read, wrote)
            .await
    }

    /// A transition of a claim's holder that may be repeated without a trace.
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
        &self,
        holder: Holder,
        record: &Record,
        ttl: Duration,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let Statements {
            complete,
            is_complete,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let keep = |query| {
            let query = statements::held(query, holder, fence);
            query.bind(record.as_bytes().to_vec())
        };
        let keep_for = |query| keep(query).bind(whole_millis(ttl));
        let was_held = |rows: &[PgRow], _| Ok(Some(!rows.is_empty()));
        let done = self.send(deadline, complete, keep_for, was_held).await?
            // A holder whose first reply got lost sends the same record again. It is stored, and its
            // ttl runs on.
            || self.send(deadline, is_complete, keep, is_done).await?;
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
        // The claim is gone. Unless another attempt took it over, the try whose reply got lost released
        // it.
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

    /// Removes the row that it found, and only that row. When the reply is lost, the statement is sent
    /// again, and must not remove a claim that was made since.
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
        loop {
            let Some((owner, fence)) = self.send(deadline, identify, of_id, identity).await? else {
                return Ok(false);
            };
            let found = |query| of_id(query).bind(owner.clone()).bind(fence);
            let (done, tries) = self.send(deadline, forget, found, is_done_after).await?;
            if done {
                return Ok(true);
            }
            // The row is gone. Unless another attempt took it over, the try whose reply got lost
            // removed it.
            let of_fence = |query| of_id(query).bind(fence);
            if tries == Tries::Repeated
                && !self
                    .send(deadline, was_taken_over, of_fence, is_done)
                    .await?
            {
                return Ok(true);
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
        // The try whose reply got lost may have stored the record.
        let done = done
            || tries == Tries::Repeated && self.send(deadline, is_resolved, keep, is_done).await?;
        Ok(row::settled(done))
    }
}

/// How long a batch of the sweeper or a step of the set-up may take.
fn patience(timeout: Duration) -> Duration {
    timeout * 5
}

fn is_done(rows: &[PgRow], _: Tries) -> Result<Option<bool>, StoreError> {
    row::done(only(rows)?).map(Some)
}

/// The same, and whether an earlier try may have taken effect.
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
