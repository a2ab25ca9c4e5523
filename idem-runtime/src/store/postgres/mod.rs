//! The PostgreSQL store: one row for each record, one transaction for each transition.

mod answer;
mod builder;
mod claiming;
mod connections;
mod failure;
mod row;
mod setup;
mod statements;
mod sweeper;
mod table;

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, PgPool, Postgres};

pub use self::builder::PostgresStoreBuilder;
use self::connections::Connections;
use self::failure::{Cure, cure, store_error};
use self::statements::Statements;
use self::table::Table;
use super::millis::millis;
use super::{Claim, Claimed, Entry, Holder, Record, Settled, Store, StoreError, StoreFuture};
use crate::policy::OnUnknown;
use crate::record_id::RecordId;

/// How often a statement is sent that another's race or a broken connection stood in the way of.
const TRIES: usize = 12;

/// Keeps claims and records in PostgreSQL (12 or later), in a table of its own.
///
/// A first request costs two round trips, one to claim and one to settle; a replay costs one, and
/// only reads. Every transition is committed by itself: a claim is never part of a handler's
/// transaction, where it would make its duplicates wait. Time is the server's alone, by
/// `clock_timestamp()`.
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
/// # What holds
///
/// | when | what holds |
/// |---|---|
/// | any number of processes, one primary | the whole contract of [`Store`] |
/// | restart or crash of the server | everything that was acknowledged: where the session has `synchronous_commit = off`, every transition but a renewal turns it on for itself. With `fsync = off`, nothing |
/// | failover to an asynchronous replica | what the replica had. A claim that was acknowledged and not yet replicated is lost, and a retry runs again; with `synchronous_standby_names` nothing is lost |
/// | a replica, a read-only session | refused at the start, and an error later |
/// | a jump of the server's clock | leases and records end earlier or later by the jump |
/// | a lock on the row or the table held by somebody else | [`StoreError::TimedOut`] after [`timeout`](PostgresStoreBuilder::timeout) |
/// | the pool is exhausted | the same |
/// | the server cannot be reached | [`StoreError`]: never `Fresh` out of doubt. The next transition connects again |
///
/// # Fences
///
/// The first fence at a record id is the server's time in microseconds since 1970, and each takeover
/// adds one. So a fence is above every earlier one at the same id even after its row was removed, as
/// long as the server's clock does not go back. For that, a claim that may win takes a transaction's
/// advisory lock, whose number is the first eight bytes of the record id.
///
/// # What is stored
///
/// One row for each record id; its bytes are versioned, and hold neither a key nor a token nor a
/// scope; the answer's headers and body are in the clear. A row that this version cannot read is left
/// alone, and its key gets 503. Expired rows are gone for every transition at once, and are removed
/// in batches by a sweeper.
///
/// Durations are kept in whole milliseconds, rounded up, and end at 100 years.
///
/// # Rights
///
/// Beside the table stands a PL/pgSQL function, which claims: `idem_records_claim_v1`, after the
/// table's name. Who connects first creates both, and needs the right to create in the schema. A role
/// for which both stand needs `USAGE` on the schema, `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the
/// table, and `EXECUTE` on the function, which everybody has unless it was revoked. Versions of the
/// library with different functions work on one table together.
///
/// # Cancellation
///
/// A transition that is dropped half way was either run by the server or not.
#[derive(Clone)]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "postgres")]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    connections: Connections,
    statements: Statements,
    table: Table,
    timeout: Duration,
}

type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

impl PostgresStore {
    /// Connects to a server, such as `postgres://user:password@host/database`.
    ///
    /// # Errors
    ///
    /// As [`PostgresStoreBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder().url(url).connect().await
    }

    /// Keeps records by way of the service's own pool, as
    /// [`PostgresStoreBuilder::pool`] says.
    ///
    /// # Errors
    ///
    /// As [`PostgresStoreBuilder::connect`].
    pub async fn from_pool(pool: PgPool) -> Result<Self, StoreError> {
        Self::builder().pool(pool).connect().await
    }

    /// Settings that differ from the defaults.
    pub fn builder() -> PostgresStoreBuilder {
        PostgresStoreBuilder::new()
    }

    /// Removes the rows that have expired, 1,000 to a statement, and says how many there were. Rows
    /// that a transition is at work on are left for later. A claim counts as expired when its
    /// lease and its retention have passed.
    ///
    /// Safe to be called by many at once, and to be dropped half way.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.0.sweep().await
    }
}

impl Inner {
    /// Sends a statement until it has its answer, as long as what stands in the way passes.
    ///
    /// `read` gives `None` to have the statement sent again.
    async fn run<T>(
        &self,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow]) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.in_time(pin!(self.send(statement, bind, read))).await
    }

    /// Takes a transition where it lies, for it is long and would be copied.
    async fn in_time<T>(
        &self,
        transition: Pin<&mut impl Future<Output = Result<T, StoreError>>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, transition)
            .await
            .unwrap_or(Err(StoreError::TimedOut))
    }

    async fn send<T>(
        &self,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow]) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut connection = self.connections.acquire().await.map_err(store_error)?;
            let query = bind(sqlx::query(AssertSqlSafe(statement.clone())));
            // All rows, for only behind the last of them the commit is acknowledged.
            match query.fetch_all(&mut *connection).await {
                Ok(rows) => {
                    connection.give_back();
                    if let Some(answer) = read(&rows)? {
                        return Ok(answer);
                    }
                }
                Err(error) => {
                    match cure(&error) {
                        Cure::Tell => return Err(store_error(error)),
                        Cure::Again => connection.give_back(),
                        Cure::Elsewhere => connection.close(),
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.map_or_else(
            || StoreError::Unavailable("the race for a record did not end".into()),
            store_error,
        ))
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let rerun = claim.on_unknown == OnUnknown::Rerun;
        let (number, _) = claim.id.as_bytes().split_first_chunk().expect("32 bytes");
        let number = i64::from_be_bytes(*number);
        let bind = |query: Query| {
            query
                .bind(claim.id.as_bytes().to_vec())
                .bind(claim.fingerprint.as_bytes().to_vec())
                .bind(claim.owner.as_bytes().to_vec())
                .bind(millis(claim.lease))
                .bind(millis(claim.retention))
                .bind(rerun)
                .bind(number)
        };
        let read = |rows: &[PgRow]| row::claimed(only(rows)?, claim.owner);
        self.run(&self.statements.claim, bind, read).await
    }

    /// A transition of a claim's holder.
    async fn settle(
        &self,
        statement: &Arc<str>,
        holder: Holder,
        bind: impl Fn(Query) -> Query,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let bind = |query: Query| bind(held(query, holder, fence));
        let read = |rows: &[PgRow]| row::settled(only(rows)?).map(Some);
        self.run(statement, bind, read).await
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
        let holding = |query| held(query, holder, fence).bind(record.as_bytes().to_vec());
        let was_held = |rows: &[PgRow]| Ok(Some(!rows.is_empty()));
        let settled = |rows: &[PgRow]| row::settled(only(rows)?).map(Some);
        let transition = pin!(async {
            let holding_for = |query| holding(query).bind(millis(ttl));
            if self.send(complete, holding_for, was_held).await? {
                return Ok(Settled::Done);
            }
            // The same record again is what a holder sends whose first answer got lost: it stands,
            // and its time runs on.
            self.send(is_complete, holding, settled).await
        });
        self.in_time(transition).await
    }

    async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let bind = |query: Query| query.bind(id.as_bytes().to_vec());
        let read = |rows: &[PgRow]| rows.first().map(row::entry).transpose().map(Some);
        self.run(&self.statements.look_up, bind, read).await
    }

    async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let bind = |query: Query| query.bind(id.as_bytes().to_vec());
        let read = |rows: &[PgRow]| row::done(only(rows)?).map(Some);
        self.run(&self.statements.forget, bind, read).await
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
        let bind = |query: Query| {
            query
                .bind(id.as_bytes().to_vec())
                .bind(fence)
                .bind(record.as_bytes().to_vec())
                .bind(millis(ttl))
        };
        let read = |rows: &[PgRow]| row::settled(only(rows)?).map(Some);
        self.run(&self.statements.resolve, bind, read).await
    }
}

/// `$1` to `$3` of what a holder sends.
fn held(query: Query, holder: Holder, fence: i64) -> Query {
    query
        .bind(holder.id.as_bytes().to_vec())
        .bind(holder.owner.as_bytes().to_vec())
        .bind(fence)
}

fn only(rows: &[PgRow]) -> Result<&PgRow, StoreError> {
    rows.first()
        .ok_or_else(|| StoreError::Unavailable("a statement gave no row".into()))
}

impl Store for PostgresStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.claim(claim).await })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let bind = |query: Query| query.bind(millis(lease));
            inner.settle(&inner.statements.renew, holder, bind).await
        })
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.complete(holder, &record, ttl).await })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let bind = |query| query;
            inner.settle(&inner.statements.release, holder, bind).await
        })
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
