//! Records a response inside the transaction of a handler, on the handler's own connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Error, PgConnection, Postgres, Row, Transaction};
use sqlx_core::transaction::TransactionManager as _;

use super::commit_function::{NOT_HELD, NOT_SEEN};
use super::failure::code;
use super::{Inner, only, row, statements};
use crate::store::sealed::{self, Committed, Written};
use crate::store::{
    Bind, CommitState, Holder, Record, RecordFailure, RecordStatement, StoreError, TransactionKind,
};

impl Inner {
    /// The call of the function in `commit_function.rs`.
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
        let binds = vec![
            Bind::Bytes(Bytes::copy_from_slice(holder.id.as_bytes())),
            Bind::Bytes(Bytes::copy_from_slice(holder.owner.as_bytes())),
            Bind::Integer(fence),
            Bind::Bytes(record.as_bytes().clone()),
            Bind::Integer(statements::whole_millis(ttl)),
        ];
        let sql = self.statements.record.clone();
        Ok(RecordStatement::new(TransactionKind::Postgres, sql, binds))
    }

    pub(super) async fn commit_state(&self, holder: Holder) -> Result<CommitState, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(CommitState::Gone);
        };
        let bind = |query| statements::held(query, holder, fence);
        let read = |rows: &[PgRow], _| row::commit_state(only(rows)?).map(Some);
        let statement = &self.statements.commit_state;
        self.send(self.deadline(), statement, bind, read).await
    }
}

impl sealed::Connection for PgConnection {
    type Database = Postgres;

    fn connection(&mut self) -> &mut PgConnection {
        self
    }
}

impl sealed::Database for Postgres {
    const KIND: TransactionKind = TransactionKind::Postgres;

    fn record<'c>(connection: &'c mut PgConnection, statement: &'c RecordStatement) -> Written<'c> {
        Box::pin(async move {
            must_be_in_transaction(connection).await?;
            let done = query(statement, connection).execute(connection).await;
            done.map(drop).map_err(failed)
        })
    }

    /// The response is a parameter, so that it is not in the text of the statement: servers log the text of
    /// statements that fail. With a text, the statement and the commit could share a round trip.
    fn commit<'c>(
        mut transaction: Transaction<'c, Self>,
        statement: &'c RecordStatement,
    ) -> Committed<'c> {
        Box::pin(async move {
            let query = query(statement, &transaction);
            let row = query.fetch_one(&mut *transaction).await;
            let waits_for_standbys = row.and_then(|row| row.try_get(0)).map_err(failed)?;
            transaction.commit().await.map_err(not_committed)?;
            Ok(waits_for_standbys)
        })
    }

    fn commit_alone(transaction: Transaction<'_, Self>) -> Written<'_> {
        Box::pin(async move { transaction.commit().await.map_err(not_committed) })
    }
}

/// Outside of a transaction, the record would be committed alone. sqlx does not know about a transaction that a
/// `BEGIN` of the handler has opened, so the server decides: it accepts a savepoint only in a transaction.
async fn must_be_in_transaction(connection: &mut PgConnection) -> Result<(), RecordFailure> {
    if <Postgres as sqlx::Database>::TransactionManager::get_transaction_depth(connection) > 0 {
        return Ok(());
    }
    let savepoint = sqlx::raw_sql("SAVEPOINT axum_idem; RELEASE SAVEPOINT axum_idem");
    match savepoint.execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error).as_deref() == Some("25P01") => Err(RecordFailure::NoTransaction),
        Err(error) => Err(RecordFailure::Failed(error)),
    }
}

/// Behind a pooler, a service turns off the cache of statements, because another session knows none of them. A cache
/// that is off has none. In a cache that is still empty, only this call goes without.
fn query<'q>(
    statement: &'q RecordStatement,
    connection: &PgConnection,
) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    let query = sqlx::query(AssertSqlSafe(Arc::<str>::from(statement.sql())));
    let query = query.persistent(connection.cached_statements_size() > 0);
    statement
        .binds()
        .iter()
        .fold(query, |query, bind| match bind {
            Bind::Bytes(bytes) => query.bind(&bytes[..]),
            Bind::Integer(number) => query.bind(*number),
        })
}

/// Classifies an error before `COMMIT` was sent. The server rolls the transaction back.
fn failed(error: Error) -> RecordFailure {
    match code(&error).as_deref() {
        Some(NOT_HELD) => RecordFailure::NotHeld,
        Some(NOT_SEEN) => RecordFailure::NotSeen,
        // No such function, table or schema.
        Some("42883" | "42P01" | "3F000") => RecordFailure::NoTable,
        Some("23505") => RecordFailure::Duplicate,
        _ => RecordFailure::Failed(error),
    }
}

/// Classifies an error of `COMMIT`.
fn not_committed(error: Error) -> RecordFailure {
    let is_refused = match &error {
        // A deferred constraint or a serialization failure, for example. The other classes come from a
        // server that ends the session or the wait for a standby, perhaps behind the commit, and the code from a
        // proxy that does not know.
        Error::Database(_) => code(&error).is_some_and(|code| {
            let class = code.get(..2).unwrap_or_default();
            code != "40003" && !matches!(class, "08" | "57" | "58" | "XX")
        }),
        _ => false,
    };
    if is_refused {
        RecordFailure::Failed(error)
    } else {
        RecordFailure::Unsure(error)
    }
}
