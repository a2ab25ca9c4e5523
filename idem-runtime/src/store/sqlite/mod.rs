//! The SQLite store: one row for each record id, in one file.
//!
//! A transition in `transition.rs` reads its row, decides by `row.rs`, and writes the row. `writer.rs` runs all
//! waiting transitions in one transaction. `reserve.rs` keeps room for them on the disk, and `room.rs` below `max_bytes`. `group.rs` writes the usual ones
//! among them together. `readers.rs` reads beside it, and `looks.rs` reads for several claims together.
//! `transaction.rs` records a response in the transaction of a handler. `instance.rs` finds out which stores of the
//! file have ended. `builder.rs` opens the file: `setup.rs` checks it and creates the tables in `table.rs`.
//! `failure.rs` classifies errors.

mod builder;
mod clock;
mod diagnosis;
mod failure;
mod group;
mod instance;
mod listing;
mod looks;
mod readers;
mod reserve;
mod room;
mod row;
mod setup;
mod table;
mod transaction;
mod transition;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::builder::SqliteStoreBuilder;
use self::instance::{Dead, Instance};
use self::readers::Readers;
use self::row::{Held, Look, Met, entry, meet};
use self::table::Statements;
use self::transition::{BATCH, Failed, Outcome, Transition, query};
use self::writer::Writer;
use super::batch::Batcher;
use super::observer::{SQLITE, StoreObserver};
use super::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, Page, Query, Record, RecordStatement,
    Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

/// Stores claims and records in an SQLite file. Needs no server, and the records survive a restart.
///
/// Any number of processes on one machine can share the file. A first request costs two commits: one to
/// claim, and one to settle the claim. All transitions that wait share one commit. A replay only
/// reads, and never waits for a writer.
///
/// The feature `sqlite` needs Rust 1.94, because sqlx 0.9 does, and a C compiler, which builds SQLite.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let trades_db = folder.path().join("trades.db");
/// use axum_idem::Idempotency;
/// use axum_idem::store::SqliteStore;
///
/// let store = SqliteStore::open(trades_db).await?;
/// let idem = Idempotency::builder().store(store).build();
/// # drop(idem);
/// # Ok(())
/// # }
/// ```
///
/// # Guarantees
///
/// | situation | guarantee |
/// |---|---|
/// | any number of processes on one machine | all rules of [`Store`] |
/// | a process ends, is killed or restarts | every acknowledged transition is kept. The claims of a dead process end when the next claim meets one of them, or when a store opens the file |
/// | the machine loses power | every acknowledged transition is kept with `synchronous = FULL`, the default, if the disk keeps what it has acknowledged |
/// | a network file system, or a file that two machines share | no guarantee: SQLite's locks and shared memory work on one machine only |
/// | a jump of the machine's clock | leases and records end earlier or later by the length of the jump |
/// | another connection holds the write lock | [`StoreError::Busy`] after [`busy_timeout`]. Replays do not wait |
/// | no room on the disk | a claim gets [`Claimed::Full`], and its handler does not run. Responses of running handlers use a reserve of 4 MiB. See also [`max_bytes`] |
/// | the file is moved, removed or replaced while a process has it open | no guarantee |
///
/// [`busy_timeout`]: SqliteStoreBuilder::busy_timeout
/// [`max_bytes`]: SqliteStoreBuilder::max_bytes
///
/// # One writer
///
/// SQLite has one writer at a time, for the whole file. The store writes from one thread of its own, and puts
/// all waiting transitions into one `BEGIN IMMEDIATE` transaction. So callers share the wait for
/// the disk, and no thread of the async runtime ever waits.
///
/// When the store uses the database of the service, a transaction of a handler keeps the writer waiting. New
/// claims get an error after [`busy_timeout`], so keep such transactions shorter. Begin them with
/// `pool.begin_with("BEGIN IMMEDIATE")`: a transaction that begins with a read fails at once with `SQLITE_BUSY`
/// when it writes after another connection has written.
///
/// The lease of the handler is renewed meanwhile, without a write to the database. The store sets the
/// modification time of its instance file, which extends the leases of all its claims.
///
/// # Exactly once
///
/// When the store uses the database of the service, [`Attempt::commit`](crate::Attempt::commit) commits the response
/// together with the writes of the handler. SQLite has one writer, so the transaction sees the claim as it is: an
/// attempt that was overtaken is rolled back.
///
/// ```no_run
/// # extern crate idem_runtime as axum_idem;
/// use axum::extract::State;
/// use axum::http::StatusCode;
/// use axum::response::Response;
/// use axum_idem::{Attempt, CommitError};
/// use sqlx::SqlitePool;
///
/// async fn pay(State(pool): State<SqlitePool>, attempt: Attempt) -> Result<Response, CommitError> {
///     let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
///     sqlx::query("INSERT INTO payments (amount) VALUES (700)")
///         .execute(&mut *tx)
///         .await?;
///     attempt.commit(tx, (StatusCode::CREATED, "paid")).await
/// }
/// # let _ = pay;
/// ```
///
/// The commit is refused in three cases, in which a crash could keep the record without the effect, or the effect without
/// the record:
///
/// - The connection has another file open than the store, also a copy or a hard link. A symbolic link is fine.
/// - The connection has attached files, because SQLite commits each file by itself.
/// - `PRAGMA synchronous` of the connection is lower than that of the store. The response would be sent before it is
///   on the disk.
///
/// # Claims of dead processes
///
/// While a store is open, it locks an instance file beside the database. The name of the file ends with a random
/// number, which the claims of the store contain. The operating system releases the lock when the process dies.
/// When a claim of another store is in flight, a retry tries to lock the file of that store. When this succeeds, the
/// other store can settle no claim, so the leases of all its claims end at once. Their outcome is unknown: a retry
/// runs again, or gets 409 under `on_unknown = hold`.
///
/// A system that the dead handler called may still be working. Give that system a key from
/// [`Attempt::derive_key`](crate::Attempt::derive_key).
///
/// In these cases, claims hold until their leases end, 30 seconds after the last renewal unless
/// [`lease`](crate::IdempotencyBuilder::lease) says otherwise:
///
/// - The process lives but is stopped, or hangs.
/// - The store was dropped in a process that still runs. A thread that the handler started may still run.
/// - The process has forked, and its child lives.
/// - The instance file is missing, for example because the database is a copy. Do not copy instance files.
/// - The file system cannot lock files. The store logs a warning when it opens the database.
///
/// The store does not compare process ids, so containers on one machine can share the file on a local file system.
///
/// # Fences
///
/// The fence of a claim is the time in microseconds since 1970, or one more than the highest fence so far when
/// that is higher. The file keeps the highest fence, so a fence grows even when the clock goes back.
///
/// # Stored data
///
/// The table `idem_records` has one row for each record id, and `idem_records_meta` the version of the tables and
/// the highest fence. The view `idem_records_commit_v1` has a trigger that records a response in a transaction of a
/// handler. The rows contain no key, no token and no scope. The headers and the body of the
/// response, the endpoint and the label are not encrypted. A row that this version cannot read stays unchanged, and
/// requests with its key get 503. Transitions ignore expired rows, and the writer removes them in batches.
/// The file does not shrink, because SQLite uses the pages of removed rows again. Durations are stored in whole
/// microseconds, rounded up, up to 100 years.
///
/// Beside the file there are `-wal` and `-shm` files. Copy all three together, or make a backup with
/// `VACUUM INTO`. SQLite copies the log into the file after about 1,000 pages. The commit that does so takes
/// longer.
///
/// The file that ends with `-reserve` holds 4 MiB of the disk. The store empties that file when the disk is full
/// and a response must be stored, and fills it again before it admits the next claim.
///
/// An instance file is empty. Its name consists of the names of the database and the table, `instance`, and a number. A store
/// removes its file when it is closed, and the files of dead processes when it opens the database.
///
/// # Several processes
///
/// While one process commits, a read of another process may report a lease as lapsed that the commit renews. A
/// claim is not affected: only the writer grants claims, and it holds the lock of the file. But a retry under
/// `on_unknown = hold` may get 409 `idempotency_outcome_unknown` once, although the handler still runs.
///
/// # Listing
///
/// [`list`](Store::list) returns records in the order of their ids. A page reads at most 1,000 rows. Unknown outcomes,
/// claims in flight and short ids have an index. A filter by endpoint or age has no index, so such a page may be empty.
/// [`stats`](Store::stats) counts up to 10,000 of each state. Both report a lease that was renewed without a write
/// as lapsed. [`look_up`](Store::look_up) reports it correctly.
///
/// # Cancellation
///
/// When the future of a transition is dropped, the transition may or may not take effect.
#[derive(Clone)]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "sqlite")]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// The path, as SQLite names it.
    file: Bytes,
    /// The number of the level of `PRAGMA synchronous`.
    synchronous: i64,
    writer: Writer,
    readers: Readers,
    /// The claims that read their rows.
    looks: Arc<Batcher<RecordId, Look>>,
    statements: Arc<Statements>,
    instance: Arc<Instance>,
    max_bytes: Option<u64>,
    observer: Arc<StoreObserver>,
}

impl SqliteStore {
    /// Opens a file, and creates the file when it is missing. The folder must exist.
    ///
    /// # Errors
    ///
    /// As [`SqliteStoreBuilder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder().path(path).open().await
    }

    /// Starts a store with settings that differ from the defaults.
    pub fn builder() -> SqliteStoreBuilder {
        SqliteStoreBuilder::new()
    }

    /// Removes expired rows, 1,000 in each transaction, and returns their number. A claim has expired when
    /// its lease and its retention have passed. The row of an expired claim whose store may still be open stays
    /// for another day.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let (removed, _) = self.0.remove(&Transition::Sweep).await?;
        Ok(removed)
    }

    /// Runs a transition in the writer.
    fn run<T: 'static>(
        &self,
        transition: Transition,
        read: impl FnOnce(Outcome) -> T + Send + 'static,
    ) -> StoreFuture<T> {
        let writer = self.0.writer.clone();
        StoreFuture::new(async move { writer.run(transition).await.map(read) })
    }
}

impl Inner {
    /// Replays and refusals only read, and do not wait for the writer. Only a claim that may win goes to the writer.
    async fn claim(self: &Arc<Self>, claim: Claim) -> Result<Claimed, StoreError> {
        let (held, now) = self.held(claim.id).await?;
        let held = match held {
            Some(held) => Some(self.extended(held, now).await),
            None => None,
        };
        // While a transaction runs, the clock of reads stands still. Only the writer knows whether that
        // transaction has renewed a lease that has lapsed since.
        let is_unsure = |held: &Held| held.ends_between(now, clock::now());
        let met = if held.as_ref().is_some_and(is_unsure) {
            Met::Nothing
        } else {
            meet(held, &claim, now)?
        };
        match met {
            Met::Claimed(claimed) => return Ok(claimed),
            Met::InFlight(claimed, number) => {
                if number == self.instance.number() || !self.end_claims_if_dead(number).await {
                    return Ok(claimed);
                }
            }
            Met::Lapsed(held) if !held.may_rerun(&claim) => return Ok(held.unknown()),
            Met::Nothing | Met::Lapsed(_) => {}
        }
        let outcome = self.writer.run(Transition::Claim(Box::new(claim))).await?;
        Ok(outcome.claimed())
    }

    /// Extends a lapsed lease as its store has done.
    async fn extended(&self, held: Held, now: i64) -> Held {
        if !held.may_be_extended(now) {
            return held;
        }
        let (instance, copy) = (self.instance.clone(), held.clone());
        let extended = self
            .writer
            .run_blocking(move || copy.extended(&instance, now));
        extended.await.unwrap_or(held)
    }

    /// Ends the claims of an instance that has ended. Returns whether they have ended.
    async fn end_claims_if_dead(&self, number: i64) -> bool {
        let instance = self.instance.clone();
        let dead = self
            .writer
            .run_blocking(move || instance.dead(number))
            .await;
        match dead.flatten() {
            Some(dead) => self.end_claims(dead).await,
            None => false,
        }
    }

    /// Ends the claims of all instances that have ended, such as this process before its restart.
    async fn end_claims_of_all_dead(&self) {
        let instance = self.instance.clone();
        let dead = self.writer.run_blocking(move || instance.all_dead()).await;
        for dead in dead.unwrap_or_default() {
            self.end_claims(dead).await;
        }
    }

    /// On a failure, the next caller that meets a claim of the instance tries again.
    async fn end_claims(&self, dead: Dead) -> bool {
        let ended = self.writer.run(Transition::EndLeases(dead.number)).await;
        if let Err(error) = &ended {
            tracing::warn!(
                target: crate::trace::TARGET,
                error = error as &dyn std::error::Error,
                "the claims of a process that has died could not be ended"
            );
            return false;
        }
        self.writer
            .run_blocking(move || dead.remove())
            .await
            .is_some()
    }

    async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        loop {
            let read = async |connection: &mut _, now| -> Result<_, Failed> {
                let look = query(&self.statements.look_up).bind(id.as_bytes().to_vec());
                Ok((look.fetch_optional(connection).await?, now))
            };
            let (row, now) = self.readers.read(read).await?;
            let Some(row) = row else {
                return Ok(None);
            };
            let held = self.extended(Held::read(&row)?, now).await;
            // A transaction that runs may have renewed the lease. It ends soon.
            if !held.ends_between(now, clock::now()) {
                return entry(&row, held, now);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn list(&self, wanted: Query) -> Result<Page, StoreError> {
        let read = async |connection: &mut _, now| {
            listing::list(connection, &self.statements, &wanted, now).await
        };
        Ok(self.readers.read(read).await?)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let read = async |connection: &mut _, now| {
            listing::stats(connection, &self.statements, self.max_bytes, now).await
        };
        Ok(self.readers.read(read).await?)
    }

    /// Repeats a transition until it removes less than a batch.
    async fn remove(&self, transition: &Transition) -> Result<(u64, u64), StoreError> {
        let mut total = (0, 0);
        loop {
            let (rows, live) = self.writer.run(transition.clone()).await?.removed();
            total = (total.0 + rows, total.1 + live);
            if rows < u64::from(BATCH) {
                return Ok(total);
            }
        }
    }
}

impl Store for SqliteStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.claim(claim).await })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.run(Transition::Renew(holder, lease), Outcome::settled)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.run(Transition::Complete(holder, record, ttl), Outcome::settled)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.run(Transition::Release(holder), Outcome::settled)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.run(Transition::Abandon(holder), Outcome::settled)
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.look_up(id).await })
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.run(Transition::Forget(id), Outcome::took_effect)
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let resolve = Transition::Resolve(id, fence, record, ttl);
        self.run(resolve, Outcome::settled)
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.list(query).await })
    }

    fn stats(&self) -> StoreFuture<Stats> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.stats().await })
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let (_, live) = inner.remove(&Transition::ForgetScope(scope)).await?;
            Ok(live)
        })
    }

    fn transactions(&self) -> Option<TransactionKind> {
        Some(TransactionKind::Sqlite)
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
        self.run(Transition::Sweep, |outcome| outcome.removed().0)
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.diagnose().await })
    }

    fn name(&self) -> &'static str {
        SQLITE
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.observer.set(observer);
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.0.path)
            .field("table", &self.0.statements.table)
            .finish_non_exhaustive()
    }
}
