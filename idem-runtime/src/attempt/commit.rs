//! Records the response of a handler in the handler's own transaction.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::time::Duration;

use axum::response::{IntoResponse, Response};
#[cfg(feature = "postgres")]
use tokio::time::Instant;

use crate::attempt::commit_error::{CommitError, NotRecordable};
use crate::attempt::ending::Ending;
use crate::attempt::handle::Attempt;
use crate::attempt::settlement::Settlement;
use crate::request::fingerprint::Fingerprint;
use crate::response::collect::Patience;
use crate::response::recordable;
#[cfg(feature = "postgres")]
use crate::service::backoff::jittered;
#[cfg(feature = "postgres")]
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::settings::policy::Policy;
#[cfg(feature = "postgres")]
use crate::store::{
    CommitState, RecordFailure, TransactionConnection, TransactionDatabase, sealed,
};
use crate::store::{Bind, Holder, RecordStatement, StoreError};

/// How long a commit whose reply was lost is looked for, from the first look that succeeds. The server may
/// still be working on it.
#[cfg(feature = "postgres")]
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(feature = "postgres")]
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The part of an attempt that commits the response of its handler.
pub(crate) struct Commits {
    policy: &'static Policy,
    idem: Idempotency,
    holder: Holder,
    fingerprint: Fingerprint,
    state: AtomicU8,
}

/// The attempt has not recorded its response itself. The engine settles it.
const OPEN: u8 = 0;
/// A transaction has the record, and its outcome is not known here. The engine looks for the record.
const PENDING: u8 = 1;
/// The record was committed. Nothing is left to settle.
const COMMITTED: u8 = 2;
/// Another attempt has recorded its response.
const OVERTAKEN: u8 = 3;

/// The statement that records a response in a transaction of any driver: [`Attempt::prepare`].
#[derive(Debug)]
#[must_use = "execute the statement in the transaction before you commit the transaction"]
pub struct Prepared {
    statement: Option<RecordStatement>,
    response: Response,
}

impl Prepared {
    /// The SQL, with `$1`, `$2` and so on in place of [`binds`](Self::binds).
    #[must_use]
    pub fn sql(&self) -> &str {
        self.statement.as_ref().map_or("SELECT 1", RecordStatement::sql)
    }

    /// The parameters, in their order. Empty for a request without a key.
    #[must_use]
    pub fn binds(&self) -> &[Bind] {
        self.statement.as_ref().map_or(&[], RecordStatement::binds)
    }

    /// Returns the response, to be returned from the handler after the commit.
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
    /// Execute the statement as the last one of the handler's transaction. Do not commit when the statement
    /// fails. When the handler has returned, the engine looks for the record. Without a record the outcome of
    /// the attempt is unknown, even if the transaction was rolled back.
    ///
    /// Without a key, the statement does nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::Unsupported`] for a store that cannot take part in a transaction, and
    /// [`CommitError::NotRecordable`] for a response that the endpoint does not record.
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
            let Some(commits) = attempt.commits() else {
                return Ok(Prepared {
                    statement: None,
                    response,
                });
            };
            let (statement, response) = commits.statement(response).await?;
            commits.set(PENDING);
            Ok(Prepared {
                statement: Some(statement),
                response,
            })
        }
    }
}

#[cfg(feature = "postgres")]
impl Attempt {
    /// Records `response` in the transaction, commits, and returns the response. It replaces
    /// `tx.commit().await?`.
    ///
    /// The effects of the transaction and the record of the response are committed together or not at all.
    /// So the effects happen exactly once for a key, also when the process or the server crashes at any
    /// moment. The record is durable when the future completes, and the handler should return this response.
    /// If the handler returns another response or panics after the commit, retries still get the record.
    ///
    /// Without a key, the transaction is committed and nothing is recorded. When the endpoint does not record
    /// the response, because of its status or because of [`DoNotRecord`](crate::DoNotRecord), the transaction
    /// is rolled back and the key is released. A response that is too long to be recorded, or a stream, is
    /// committed as "not kept".
    ///
    /// A transaction that is a savepoint is recorded and released. The outcome is known when the outer
    /// transaction has been committed: see [`record_in`](Self::record_in).
    ///
    /// # Errors
    ///
    /// Every variant of [`CommitError`] except [`CommitError::OutcomeUnknown`] means that nothing was
    /// committed.
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
    /// use sqlx::PgPool;
    ///
    /// async fn pay(State(pool): State<PgPool>, attempt: Attempt) -> Result<Response, CommitError> {
    ///     let mut tx = pool.begin().await.map_err(CommitError::Database)?;
    ///     sqlx::query("INSERT INTO payments (amount) VALUES (700)")
    ///         .execute(&mut *tx)
    ///         .await
    ///         .map_err(CommitError::Database)?;
    ///     attempt.commit(tx, (StatusCode::CREATED, "paid")).await
    /// }
    /// # let _ = pay;
    /// ```
    pub fn commit<'t, DB: TransactionDatabase>(
        &self,
        transaction: sqlx::Transaction<'t, DB>,
        response: impl IntoResponse,
    ) -> impl Future<Output = Result<Response, CommitError>> + Send {
        let (attempt, response) = (self.clone(), response.into_response());
        async move {
            match attempt.commits() {
                Some(commits) => commits.commit(transaction, response).await,
                None => match transaction.commit().await {
                    Ok(()) => Ok(response),
                    Err(error) => Err(CommitError::Database(error)),
                },
            }
        }
    }

    /// Records `response` in the transaction of a connection, and returns the response. The handler commits
    /// the transaction.
    ///
    /// For handlers that cannot give their transaction away: a transaction of an extractor, a closure that is
    /// run again after a serialization failure, a savepoint. Call it with `&mut *tx`, as the last statement
    /// before the commit, and roll back when it fails. It may be called again after a rollback.
    ///
    /// When the handler has returned, the engine looks for the record. With a record, nothing is left to
    /// settle. Without a record the outcome is unknown, even if the transaction was rolled back. A commit
    /// that follows later, for example in a layer, still counts.
    ///
    /// Without a key, nothing is recorded.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and [`CommitError::NotRecordable`] for a response that the endpoint does
    /// not record. After an error the transaction must not be committed.
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
    /// async fn pay(tx: &mut sqlx::PgTransaction<'_>, attempt: Attempt) -> Result<Response, CommitError> {
    ///     // …
    ///     attempt.record_in(&mut **tx, "paid").await
    /// }
    /// # let _ = pay;
    /// ```
    pub fn record_in<C: TransactionConnection>(
        &self,
        connection: &mut C,
        response: impl IntoResponse,
    ) -> impl Future<Output = Result<Response, CommitError>> + Send {
        let (attempt, response) = (self.clone(), response.into_response());
        async move {
            match attempt.commits() {
                Some(commits) => commits.record_in(connection, response).await,
                None => Ok(response),
            }
        }
    }
}

impl Attempt {
    /// Returns how the attempt is settled when its handler may have recorded the response itself.
    pub(super) fn settled_by_handler(&self) -> Option<Settlement> {
        match self.commits()?.state.load(Ordering::Acquire) {
            OPEN => None,
            PENDING => Some(Settlement::Confirm(Arc::default())),
            COMMITTED => Some(Settlement::Committed),
            _ => Some(Settlement::Yield),
        }
    }
}

impl Commits {
    pub(crate) fn new(
        policy: &'static Policy,
        idem: Idempotency,
        holder: Holder,
        fingerprint: Fingerprint,
    ) -> Self {
        Self {
            policy,
            idem,
            holder,
            fingerprint,
            state: AtomicU8::new(OPEN),
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }

    /// Reads the response, and returns the statement that records it and the response to send.
    async fn statement(
        &self,
        response: Response,
    ) -> Result<(RecordStatement, Response), CommitError> {
        if !Ending::is_recorded(self.policy, &response) {
            return Err(CommitError::NotRecordable(NotRecordable::new(response)));
        }
        let settings = self.idem.settings();
        let (limit, cookies) = (settings.max_recorded_body, settings.record_set_cookie);
        let patience = Patience {
            known: settings.response_timeout,
            unknown: settings.response_timeout,
        };
        let (record, response) =
            recordable::record(response, self.fingerprint, limit, patience, cookies).await;
        let statement = self
            .idem
            .store()
            .record_statement(self.holder, record, self.policy.ttl);
        match statement {
            Ok(statement) => Ok((statement, response)),
            Err(StoreError::Unsupported) => Err(CommitError::Unsupported),
            Err(error) => Err(CommitError::Store(error)),
        }
    }
}

#[cfg(feature = "postgres")]
impl Commits {
    async fn commit<DB: TransactionDatabase>(
        &self,
        mut transaction: sqlx::Transaction<'_, DB>,
        response: Response,
    ) -> Result<Response, CommitError> {
        if sealed::is_nested::<DB>(&transaction) {
            let recorded = self.record::<DB>(&mut transaction, response).await;
            return match recorded {
                Ok(response) => match transaction.commit().await {
                    Ok(()) => Ok(response),
                    Err(error) => Err(CommitError::Database(error)),
                },
                Err(error) => {
                    // A savepoint on a broken connection needs no rollback.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            };
        }
        let (statement, response) = match self.begin::<DB>(response).await {
            Ok(begun) => begun,
            Err(error) => {
                // A broken connection is rolled back by the server.
                let _ = transaction.rollback().await;
                return match error {
                    CommitError::NotRecordable(response) => Ok(response.into_response()),
                    error => Err(error),
                };
            }
        };
        let earlier = self.state.swap(PENDING, Ordering::AcqRel);
        match DB::commit(transaction, &statement).await {
            Ok(()) => self.set(COMMITTED),
            Err(failure) => self.failed(failure, earlier).await?,
        }
        Ok(response)
    }

    async fn record_in<C: TransactionConnection>(
        &self,
        connection: &mut C,
        response: Response,
    ) -> Result<Response, CommitError> {
        self.record::<C::Database>(connection.connection(), response)
            .await
    }

    async fn record<DB: sealed::Database>(
        &self,
        connection: &mut DB::Connection,
        response: Response,
    ) -> Result<Response, CommitError> {
        let (statement, response) = self.begin::<DB>(response).await?;
        let earlier = self.state.swap(PENDING, Ordering::AcqRel);
        if let Err(failure) = DB::record(connection, &statement).await {
            self.failed(failure, earlier).await?;
        }
        Ok(response)
    }

    /// Checks whether a transaction of this database can hold the record, and returns the statement.
    async fn begin<DB: sealed::Database>(
        &self,
        response: Response,
    ) -> Result<(RecordStatement, Response), CommitError> {
        if self.state.load(Ordering::Acquire) == COMMITTED {
            return Err(CommitError::AlreadyRecorded);
        }
        match self.idem.store().transactions() {
            None => return Err(CommitError::Unsupported),
            Some(kind) if kind != DB::KIND => return Err(CommitError::OtherDatabase),
            Some(_) => {}
        }
        self.statement(response).await
    }

    /// Finds out why the record could not be written. Returns `Ok` when the record was committed after all.
    async fn failed(&self, failure: RecordFailure, earlier: u8) -> Result<(), CommitError> {
        if !matches!(failure, RecordFailure::Unsure(_)) {
            self.set(earlier);
        }
        let error = match failure {
            RecordFailure::NoTable => CommitError::OtherDatabase,
            RecordFailure::Failed(error) => CommitError::Database(error),
            RecordFailure::NotHeld => match self.look().await {
                Ok(CommitState::Held) => CommitError::OtherDatabase,
                Ok(CommitState::Mine) => CommitError::AlreadyRecorded,
                Ok(_) => self.overtaken(),
                Err(error) => CommitError::Store(error),
            },
            RecordFailure::Duplicate => match self.look().await {
                Ok(CommitState::Mine) => CommitError::AlreadyRecorded,
                _ => self.overtaken(),
            },
            RecordFailure::Unsure(error) => return self.find(&error).await,
        };
        Err(error)
    }

    async fn look(&self) -> Result<CommitState, StoreError> {
        let look = self.idem.store().commit_state(self.holder);
        self.idem.in_time(look).await
    }

    fn overtaken(&self) -> CommitError {
        self.set(OVERTAKEN);
        CommitError::Overtaken
    }

    /// Looks for a commit whose reply was lost, on a connection of the store. Never concludes from a missing
    /// record that the commit failed, because the server may still be working on the commit.
    async fn find(&self, error: &sqlx::Error) -> Result<(), CommitError> {
        tracing::warn!(
            target: crate::trace::TARGET,
            endpoint = self.policy.endpoint,
            record = %self.holder.id.short(),
            error = error as &dyn std::error::Error,
            "the reply to a commit was lost; looking for its record"
        );
        let begun = Instant::now();
        let give_up_at = deadline::after(begun, self.idem.settings().store_timeout);
        let mut missing_until = give_up_at;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.look().await {
                Ok(CommitState::Mine) => {
                    self.set(COMMITTED);
                    return Ok(());
                }
                Ok(CommitState::Others) => return Err(self.overtaken()),
                Ok(CommitState::Held | CommitState::Gone) => {
                    missing_until = missing_until.min(deadline::after(Instant::now(), PATIENCE));
                }
                Err(_) => {}
            }
            let next = deadline::after(Instant::now(), jittered(pause));
            if next >= missing_until {
                return Err(CommitError::OutcomeUnknown);
            }
            tokio::time::sleep_until(next).await;
            pause *= 2;
        }
    }
}
