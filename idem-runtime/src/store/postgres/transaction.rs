//! Records a response inside the transaction of a handler, on the handler's own connection.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgArguments, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection as _, Error, PgConnection, Postgres, Transaction};
use sqlx_core::transaction::TransactionManager as _;

use super::commit_function::{NAME, NOT_HELD, NOT_SEEN};
use super::failure::code;
use super::{Inner, only, row, statements};
use crate::request::hex;
use crate::store::sealed::{self, Written};
use crate::store::{
    Bind, CommitState, Holder, Record, RecordFailure, RecordStatement, StoreError, TransactionKind,
};

/// Records of more bytes are sent as parameters, in a round trip of their own.
const LONGEST_LITERAL: usize = 32 << 10;

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
        let read = |rows: &[sqlx::postgres::PgRow], _| row::commit_state(only(rows)?).map(Some);
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
            let done = query(statement).execute(connection).await;
            done.map(drop).map_err(failed)
        })
    }

    /// Sends the statement and the commit together, so that they take one round trip.
    ///
    /// `AND CHAIN` begins another transaction, which is empty and which sqlx rolls back. Without it, that
    /// rollback would have no transaction and the server would log a warning.
    fn commit<'c>(
        mut transaction: Transaction<'c, Self>,
        statement: &'c RecordStatement,
    ) -> Written<'c> {
        Box::pin(async move {
            if let Some(call) = literal(statement) {
                let both = AssertSqlSafe(format!("{call}; COMMIT AND CHAIN"));
                let done = sqlx::raw_sql(both).execute(&mut *transaction).await;
                roll_back(&mut transaction).await;
                return done.map(drop).map_err(not_recorded_or_committed);
            }
            let done = query(statement).execute(&mut *transaction).await;
            done.map_err(failed)?;
            transaction.commit().await.map_err(not_committed)
        })
    }

    fn failed_commit(error: Error) -> RecordFailure {
        not_committed(error)
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

/// Sends the rollback of the transaction that the server has open, without waiting for the reply.
///
/// Dropping `transaction` sends the rollback with the next statement on the connection. Until then, a
/// connection that the handler keeps would be idle in a transaction. The next statement, or the pool, reads the
/// reply.
async fn roll_back(connection: &mut PgConnection) {
    <Postgres as sqlx::Database>::TransactionManager::start_rollback(connection);
    let mut ping = pin!(connection.ping());
    poll_fn(|cx| {
        // The first poll writes. A failure does not matter: the server ends the transaction of a lost connection.
        let _ = ping.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

/// The statement with its parameters written out, as several statements in one message need it. `None` for a
/// long record, whose digits would take twice its bytes.
fn literal(statement: &RecordStatement) -> Option<String> {
    // The last parentheses, because the name of a schema may contain any character.
    let (function, _) = statement.sql().rsplit_once("($1, ")?;
    let mut call = format!("{function}(");
    for (at, bind) in statement.binds().iter().enumerate() {
        call.push_str(if at > 0 { ", " } else { "" });
        match bind {
            Bind::Bytes(bytes) if bytes.len() > LONGEST_LITERAL => return None,
            Bind::Bytes(bytes) => {
                // With `E`, the setting `standard_conforming_strings` does not matter.
                call.push_str("E'\\\\x");
                hex::write(&mut call, bytes).ok()?;
                call.push_str("'::bytea");
            }
            Bind::Integer(number) => write!(call, "{number}::bigint").ok()?,
        }
    }
    call.push(')');
    Some(call)
}

fn query(statement: &RecordStatement) -> sqlx::query::Query<'_, Postgres, PgArguments> {
    let query = sqlx::query(AssertSqlSafe(Arc::<str>::from(statement.sql())));
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

/// Where the server was when it reported the error: the functions that were running.
fn place(error: &Error) -> Option<&str> {
    error
        .as_database_error()?
        .try_downcast_ref::<PgDatabaseError>()?
        .r#where()
}

/// Classifies an error of the statement and the commit, when both were sent together.
fn not_recorded_or_committed(error: Error) -> RecordFailure {
    match (place(&error), code(&error).as_deref()) {
        // Inside of the function, `COMMIT` was not reached. A timeout there is no doubt about the commit.
        (Some(place), _) if place.contains(NAME) => failed(error),
        // The server did not find the function. A trigger of the service that runs at the commit reports the
        // same codes, but from inside of its own function.
        (None, Some("42883" | "42P01" | "3F000")) => RecordFailure::NoTable,
        _ => not_committed(error),
    }
}

/// Classifies an error of `COMMIT`.
fn not_committed(error: Error) -> RecordFailure {
    let is_refused = match &error {
        // A deferred constraint or a serialization failure, for example. The other classes come from a
        // server that ends the session or the wait for a standby, perhaps behind the commit.
        Error::Database(_) => code(&error).is_some_and(|code| {
            let class = code.get(..2).unwrap_or_default();
            !matches!(class, "08" | "57" | "58" | "XX")
        }),
        _ => false,
    };
    if is_refused {
        RecordFailure::Failed(error)
    } else {
        RecordFailure::Unsure(error)
    }
}
