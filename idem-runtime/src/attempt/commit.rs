//! Records the response of a handler in the handler's own transaction.

use axum::response::{IntoResponse, Response};

use crate::attempt::commit_error::CommitError;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::attempt::commits::commit_alone;
use crate::attempt::handle::Attempt;
use crate::store::{Bind, RecordStatement};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::store::{TransactionConnection, TransactionDatabase};

/// The statement that records a response in a transaction of any driver: [`Attempt::prepare`].
#[derive(Debug)]
#[must_use = "execute the statement in the transaction before you commit the transaction"]
pub struct Prepared {
    statement: Option<RecordStatement>,
    response: Response,
}

impl Prepared {
    /// The SQL, with `$1`, `$2` and so on in place of [`binds`](Self::binds), or `?1`, `?2` for SQLite.
    #[must_use]
    pub fn sql(&self) -> &str {
        self.statement
            .as_ref()
            .map_or("SELECT 1", RecordStatement::sql)
    }

    /// The parameters, in their order. Empty for a request without a key.
    #[must_use]
    pub fn binds(&self) -> &[Bind] {
        self.statement.as_ref().map_or(&[], RecordStatement::binds)
    }

    /// Returns the response. Return it from the handler after the commit.
    #[must_use]
    pub fn into_response(self) -> Response {
        self.response
    }
}

impl IntoResponse for Prepared {
    fn into_response(self) -> Response {
        self.response
    }
}

impl Attempt {
    /// Returns the statement that records `response`, for a driver that this crate does not know.
    ///
    /// Execute it as the last statement of the handler's transaction. Do not commit when the statement
    /// fails. Pass the [`binds`](Prepared::binds) as parameters: the log of the database may contain the text of a
    /// statement. When the handler has returned, the engine looks for the record. Without a record the outcome of
    /// the attempt is unknown, even if the transaction was rolled back.
    ///
    /// Without a key, the statement does nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::Unsupported`] for a store that cannot take part in a transaction,
    /// [`CommitError::NotRecordable`] for a response that the endpoint does not record, and
    /// [`CommitError::AlreadyRecorded`] after a commit or the end of this attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the transaction.
    pub fn prepare(
        &self,
        response: impl IntoResponse,
    ) -> impl Future<Output = Result<Prepared, CommitError>> + Send {
        let (attempt, response) = (self.clone(), response.into_response());
        async move {
            let Some(commits) = attempt.commits()? else {
                return Ok(Prepared {
                    statement: None,
                    response,
                });
            };
            let prepared = commits.prepare(response).await;
            let (statement, response) = commits.logged(prepared)?;
            Ok(Prepared {
                statement: Some(statement),
                response,
            })
        }
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Attempt {
    /// Records `response` in the transaction, commits, and returns the response. It replaces
    /// `tx.commit().await?`.
    ///
    /// The effects of the transaction and the record of the response are committed together or not at all.
    /// So the effects happen exactly once for a key, also when the process or the server crashes at any
    /// moment. The record is durable when the future completes, and the handler should return this response.
    /// If the handler returns another response or panics after the commit, retries still get the record.
    ///
    /// Without a key, the transaction is committed as by `tx.commit()`, and nothing is recorded. When the handler has
    /// ignored the error of an earlier statement, PostgreSQL rolls back instead, and sqlx reports no error.
    ///
    /// When the endpoint does not record the response, because of its status or because of
    /// [`DoNotRecord`](crate::DoNotRecord), the transaction is rolled back and the key is released. After
    /// [`OutcomeUnknown`](crate::OutcomeUnknown) or a status in `unknown`, the transaction is rolled back and the key is
    /// unknown. A response that is too long to be recorded, or whose body is not complete within 250 ms, such as a stream,
    /// is committed as "not kept". The transaction is open while the body is read.
    ///
    /// The commit or the rollback waits for the reply of the database for the
    /// [`store_timeout`](crate::IdempotencyBuilder::store_timeout) at most. After a commit without a reply, the engine looks
    /// for the record on another connection, for the same time at most. Without a key, only the driver limits the wait.
    ///
    /// In SQLite, begin the transaction with `pool.begin_with("BEGIN IMMEDIATE")`. The section "Exactly once" of
    /// `SqliteStore` says which connections are refused.
    ///
    /// If `tx` is a savepoint, the response is recorded in it and the savepoint is released. The outcome is known when the
    /// outer transaction has been committed: see [`record_in`](Self::record_in).
    ///
    /// # Errors
    ///
    /// Every variant of [`CommitError`] except [`CommitError::OutcomeUnknown`] means that this transaction was
    /// not committed. [`CommitError::AlreadyRecorded`] means that an earlier transaction was, or that the handler has
    /// returned before.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the transaction may or may not be committed. The engine looks for the
    /// record after the handler has ended.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # extern crate idem_runtime as axum_idem;
    /// use axum::extract::State;
    /// use axum::http::StatusCode;
    /// use axum::response::Response;
    /// use axum_idem::{Attempt, CommitError};
    /// # #[cfg(feature = "postgres")]
    /// use sqlx::PgPool;
    ///
    /// # #[cfg(feature = "postgres")]
    /// async fn pay(State(pool): State<PgPool>, attempt: Attempt) -> Result<Response, CommitError> {
    ///     let mut tx = pool.begin().await?;
    ///     sqlx::query("INSERT INTO payments (amount) VALUES (700)")
    ///         .execute(&mut *tx)
    ///         .await?;
    ///     attempt.commit(tx, (StatusCode::CREATED, "paid")).await
    /// }
    /// # #[cfg(feature = "postgres")]
    /// # let _ = pay;
    /// ```
    pub fn commit<DB: TransactionDatabase>(
        &self,
        transaction: sqlx::Transaction<'_, DB>,
        response: impl IntoResponse,
    ) -> impl Future<Output = Result<Response, CommitError>> + Send {
        let (attempt, response) = (self.clone(), response.into_response());
        async move {
            match attempt.commits()? {
                Some(commits) => commits.logged(commits.commit(transaction, response).await),
                None => commit_alone(transaction).await.map(|()| response),
            }
        }
    }

    /// Records `response` in the transaction of a connection, and returns the response. The handler commits
    /// the transaction.
    ///
    /// Use this method in a handler that does not own its transaction: for a transaction of an extractor, a closure that is
    /// run again after a serialization failure, or a savepoint. Call it with `&mut *tx`, as the last statement before the
    /// commit, and roll back when it fails. After a rollback, it may be called again.
    ///
    /// When the handler has returned, the engine looks for the record. With a record, nothing is left to
    /// settle. Without a record the outcome is unknown, even if the transaction was rolled back. A commit
    /// that follows later, for example in a layer, still counts.
    ///
    /// Without a key, nothing is recorded.
    ///
    /// # Errors
    ///
    /// The errors of [`commit`](Self::commit), [`CommitError::NoTransaction`] for a connection without an open
    /// transaction, and [`CommitError::NotRecordable`] for a response that the endpoint does not record. After
    /// an error, the transaction must not be committed.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the connection must not be used further.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # extern crate idem_runtime as axum_idem;
    /// use axum::response::Response;
    /// use axum_idem::{Attempt, CommitError};
    ///
    /// # #[cfg(feature = "postgres")]
    /// async fn pay(tx: &mut sqlx::PgTransaction<'_>, attempt: Attempt) -> Result<Response, CommitError> {
    ///     // …
    ///     attempt.record_in(&mut **tx, "paid").await
    /// }
    /// # #[cfg(feature = "postgres")]
    /// # let _ = pay;
    /// ```
    pub fn record_in<C: TransactionConnection>(
        &self,
        connection: &mut C,
        response: impl IntoResponse,
    ) -> impl Future<Output = Result<Response, CommitError>> + Send {
        let (attempt, response) = (self.clone(), response.into_response());
        async move {
            match attempt.commits()? {
                Some(commits) => commits.logged(commits.record_in(connection, response).await),
                None => Ok(response),
            }
        }
    }
}
