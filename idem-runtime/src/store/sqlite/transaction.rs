//! Records a response inside the transaction of a handler, on the handler's own connection.
//!
//! SQLite has one writer at a time. So the trigger in `schema/sqlite.sql` sees the claim as it is, and nobody takes
//! over before the transaction ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnection, SqliteTransactionManager};
use sqlx::{AssertSqlSafe, Error, Sqlite, Transaction};
use sqlx_core::transaction::TransactionManager as _;

use super::Inner;
use super::clock::{micros, now};
use super::failure::{is_refused_commit, is_wrong_statement};
use super::transition::{Query, held};
use crate::store::sealed::{self, Committed, Written};
use crate::store::{
    Bind, CommitState, Holder, Record, RecordFailure, RecordStatement, StoreError, TransactionKind,
};

/// The errors of the trigger.
const NOT_ALONE: &str = "the connection has another file than the store, or has attached databases";
const NOT_SEEN: &str = "the claim of this attempt is not in this database, or was forgotten";
const NOT_HELD: &str = "another attempt has taken over";

impl Inner {
    /// The `ttl` begins now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] for a fence that this store has not given.
    pub(super) fn record_statement(
        &self,
        holder: Holder,
        record: &Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        let fence = i64::try_from(holder.fence).map_err(|_| StoreError::Unsupported)?;
        let now = now();
        let binds = vec![
            Bind::Bytes(Bytes::copy_from_slice(holder.id.as_bytes())),
            Bind::Bytes(Bytes::copy_from_slice(holder.owner.as_bytes())),
            Bind::Integer(fence),
            Bind::Bytes(record.as_bytes().clone()),
            Bind::Integer(now),
            Bind::Integer(now.saturating_add(micros(ttl))),
            Bind::Bytes(self.file.clone()),
            Bind::Integer(self.synchronous),
        ];
        let sql = self.statements.record.clone();
        Ok(RecordStatement::new(TransactionKind::Sqlite, sql, binds))
    }

    /// Reads on a connection of the store, without waiting for the writer.
    pub(super) async fn commit_state(&self, holder: Holder) -> Result<CommitState, StoreError> {
        let statements = &self.statements;
        let read = async |connection: &mut _, _| held(connection, statements, holder.id).await;
        match self.readers.read(read).await? {
            Some(held) => held.commit_state(&holder),
            None => Ok(CommitState::Gone),
        }
    }
}

impl sealed::Connection for SqliteConnection {
    type Database = Sqlite;

    fn connection(&mut self) -> &mut SqliteConnection {
        self
    }
}

impl sealed::Database for Sqlite {
    const KIND: TransactionKind = TransactionKind::Sqlite;

    fn record<'c>(
        connection: &'c mut SqliteConnection,
        statement: &'c RecordStatement,
    ) -> Written<'c> {
        Box::pin(async move {
            must_be_in_transaction(connection).await?;
            let done = query(statement).execute(connection).await;
            done.map(drop).map_err(failed)
        })
    }

    fn commit<'c>(
        mut transaction: Transaction<'c, Self>,
        statement: &'c RecordStatement,
    ) -> Committed<'c> {
        Box::pin(async move {
            if let Err(failure) = Self::record(&mut transaction, statement).await {
                // A broken connection is rolled back by SQLite.
                let _ = transaction.rollback().await;
                return Err(failure);
            }
            Self::commit_alone(transaction).await.map(|()| false)
        })
    }

    fn commit_alone(mut transaction: Transaction<'_, Self>) -> Written<'_> {
        Box::pin(async move {
            // Dropping a transaction that has been committed does nothing.
            let committed = SqliteTransactionManager::commit(&mut transaction).await;
            if committed.is_err() {
                roll_back(transaction).await;
            }
            committed.map_err(not_committed)
        })
    }
}

/// Outside of a transaction, the record would be committed alone. sqlx does not know about a transaction that a
/// `BEGIN` of the handler has opened, nor that SQLite has rolled back after an error such as a full disk. So SQLite
/// decides: it refuses a `BEGIN` inside of a transaction.
async fn must_be_in_transaction(connection: &mut SqliteConnection) -> Result<(), RecordFailure> {
    // Leave as many transactions open as sqlx counts: its later rollbacks need them.
    let begin = match SqliteTransactionManager::get_transaction_depth(connection) {
        0 => sqlx::raw_sql("BEGIN; ROLLBACK"),
        1 => sqlx::raw_sql("BEGIN"),
        depth => sqlx::raw_sql(AssertSqlSafe(begin_nested(depth))),
    };
    match begin.execute(connection).await {
        Ok(_) => Err(RecordFailure::NoTransaction),
        Err(error) if is_wrong_statement(&error) => Ok(()),
        Err(error) => Err(RecordFailure::Failed(error)),
    }
}

/// Begins a transaction and the savepoints in it, under the names that sqlx gives them.
fn begin_nested(depth: usize) -> String {
    (1..depth).fold("BEGIN".to_owned(), |begin, at| {
        format!("{begin}; SAVEPOINT _sqlx_savepoint_{at}")
    })
}

/// Rolls back after a failed `COMMIT`.
///
/// After some errors, such as a full disk, SQLite has rolled back already. A `ROLLBACK` would fail, and sqlx would
/// keep counting the transaction. The connection would return to the pool and could begin no other transaction. The
/// `BEGIN` opens a transaction for the rollback. Inside of a transaction, the `BEGIN` only fails.
async fn roll_back(mut transaction: Transaction<'_, Sqlite>) {
    let _ = sqlx::raw_sql("BEGIN").execute(&mut *transaction).await;
    let _ = transaction.rollback().await;
}

fn query(statement: &RecordStatement) -> Query {
    let query = sqlx::query(AssertSqlSafe(Arc::<str>::from(statement.sql())));
    statement
        .binds()
        .iter()
        .fold(query, |query, bind| match bind {
            Bind::Bytes(bytes) => query.bind(bytes.to_vec()),
            Bind::Integer(number) => query.bind(*number),
        })
}

/// Classifies an error before the `COMMIT`.
fn failed(error: Error) -> RecordFailure {
    let message = error.as_database_error().map(DatabaseError::message);
    match message {
        Some(NOT_HELD) => RecordFailure::NotHeld,
        Some(NOT_SEEN) => RecordFailure::NotSeen,
        Some(NOT_ALONE) => RecordFailure::NoTable,
        Some(message) if message.starts_with("no such table") => RecordFailure::NoTable,
        _ => RecordFailure::Failed(error),
    }
}

/// Classifies an error of `COMMIT`.
fn not_committed(error: Error) -> RecordFailure {
    if is_refused_commit(&error) {
        RecordFailure::Failed(error)
    } else {
        RecordFailure::Unsure(error)
    }
}
