//! The state of an attempt whose handler may commit its response, and the steps of such a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::response::Response;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use tokio::time::{Instant, timeout};

use crate::attempt::commit_error::{CommitError, NotRecordable};
use crate::attempt::ending::Ending;
use crate::attempt::settlement::{Missing, Settlement};
use crate::request::fingerprint::Fingerprint;
use crate::response::collect::Patience;
use crate::response::recordable;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::service::backoff::jittered;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::settings::policy::Policy;
use crate::store::{CommitState, Holder, RecordStatement, StoreError};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::store::{RecordFailure, TransactionConnection, TransactionDatabase, sealed};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::trace::Event;

/// How long the body of a response is read. Meanwhile the transaction of the handler is open and holds its locks: in
/// SQLite, every other writer waits.
const BODY_PATIENCE: Duration = Duration::from_millis(250);

/// How long a commit whose reply was lost is looked for, from the first look that succeeds. The server may
/// still be working on it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(any(feature = "postgres", feature = "sqlite"))]
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A commit that waits for standbys and takes longer than this, and longer than a quarter of the store's timeout,
/// may have waited until somebody canceled the wait. `COMMIT` then succeeds although no standby has the record.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const QUICK_COMMIT: Duration = Duration::from_millis(250);

/// The part of an attempt that commits the response of its handler.
pub(crate) struct Commits {
    policy: &'static Policy,
    idem: Idempotency,
    holder: Holder,
    fingerprint: Fingerprint,
    state: AtomicU8,
    /// The length of the last record that was passed to a transaction.
    recorded_bytes: AtomicU64,
}

/// The attempt has not recorded its response itself. The engine settles it.
const OPEN: u8 = 0;
/// A transaction has the record, and its outcome is not known here. The engine looks for the record.
const PENDING: u8 = 1;
/// The record was committed. Nothing is left to settle.
const COMMITTED: u8 = 2;
/// The database refused the record because of another attempt. The engine asks which one when the handler
/// has returned.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const REFUSED: u8 = 3;
/// The engine settles the attempt. A task that the handler has spawned cannot commit any more.
const CLOSED: u8 = 4;

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
            recorded_bytes: AtomicU64::new(0),
        }
    }

    /// Returns the [`settlement`](Self::settlement), and refuses later commits when there is none. Called when the engine
    /// settles the attempt.
    pub(super) fn close(&self) -> Option<Settlement> {
        let _ = self
            .state
            .compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        self.settlement()
    }

    /// Returns how the attempt is settled when its handler may have recorded the response itself.
    pub(super) fn settlement(&self) -> Option<Settlement> {
        let missing = match self.state.load(Ordering::Acquire) {
            OPEN | CLOSED => return None,
            COMMITTED => return Some(Settlement::Committed(self.recorded_bytes())),
            PENDING => Missing::IsUnknown,
            _ => Missing::IsFree,
        };
        Some(Settlement::Confirm {
            found: Arc::default(),
            bytes: self.recorded_bytes(),
            missing,
        })
    }

    fn recorded_bytes(&self) -> u64 {
        self.recorded_bytes.load(Ordering::Relaxed)
    }

    /// Returns whether the record of this attempt is committed. `false` when the store does not know in time.
    pub(super) async fn has_recorded(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            COMMITTED => true,
            PENDING => matches!(self.look().await, Ok(CommitState::Mine)),
            _ => false,
        }
    }

    async fn look(&self) -> Result<CommitState, StoreError> {
        let look = self.idem.store().commit_state(self.holder);
        self.idem.in_time(look).await
    }

    /// Returns the statement that records the response, for a transaction that this crate does not see.
    pub(super) async fn prepare(
        &self,
        response: Response,
    ) -> Result<(RecordStatement, Response), CommitError> {
        must_be_open(self.state.load(Ordering::Acquire))?;
        let prepared = self.statement(response).await?;
        self.begin_pending()?;
        Ok(prepared)
    }

    /// Logs the error with the record of this attempt.
    pub(super) fn logged<T>(&self, result: Result<T, CommitError>) -> Result<T, CommitError> {
        result.inspect_err(|error| error.log(self.policy.endpoint, self.holder.id))
    }

    /// Notes that a transaction is about to get the record. Returns the earlier state.
    fn begin_pending(&self) -> Result<u8, CommitError> {
        let pending = |state| must_be_open(state).is_ok().then_some(PENDING);
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, pending)
            .map_err(|_| CommitError::AlreadyRecorded)
    }

    /// Sets the state after a transaction that was not committed, unless another transaction was committed meanwhile.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn end_pending(&self, state: u8) {
        let _ = self
            .state
            .compare_exchange(PENDING, state, Ordering::AcqRel, Ordering::Acquire);
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn set_committed(&self) {
        self.state.store(COMMITTED, Ordering::Release);
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
        let limit = settings.max_recorded_body;
        let patience = settings.response_timeout.min(BODY_PATIENCE);
        let patience = Patience {
            known: patience,
            unknown: patience,
        };
        let recording = settings.recording(self.policy);
        let (record, response) =
            recordable::record(response, self.fingerprint, limit, patience, recording).await;
        let bytes = record.as_bytes().len() as u64;
        self.recorded_bytes.store(bytes, Ordering::Relaxed);
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

/// Refuses a second record of an attempt, and a record after the end of the attempt.
fn must_be_open(state: u8) -> Result<(), CommitError> {
    if matches!(state, COMMITTED | CLOSED) {
        return Err(CommitError::AlreadyRecorded);
    }
    Ok(())
}

/// Commits without a record.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) async fn commit_alone<DB: TransactionDatabase>(
    transaction: sqlx::Transaction<'_, DB>,
) -> Result<(), CommitError> {
    let committed = if sealed::is_nested::<DB>(&transaction) {
        transaction.commit().await.map_err(RecordFailure::Failed)
    } else {
        DB::commit_alone(transaction).await
    };
    committed.map_err(|failure| {
        if let RecordFailure::Failed(error) = failure {
            return CommitError::Database(error);
        }
        // The reply may be lost although the transaction was committed.
        Event::default()
            .error("a handler could not commit, and the outcome of its commit is unknown");
        CommitError::OutcomeUnknown
    })
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Commits {
    pub(super) async fn commit<DB: TransactionDatabase>(
        &self,
        transaction: sqlx::Transaction<'_, DB>,
        response: Response,
    ) -> Result<Response, CommitError> {
        let is_nested = sealed::is_nested::<DB>(&transaction);
        let (statement, response) = match self.begin::<DB>(response).await {
            Ok(begun) => begun,
            Err(error) => {
                self.roll_back(transaction).await;
                return match error {
                    CommitError::NotRecordable(response) if !is_nested => {
                        Ok(response.into_response())
                    }
                    error => Err(error),
                };
            }
        };
        if is_nested {
            return self
                .release(transaction, &statement)
                .await
                .map(|()| response);
        }
        let earlier = match self.begin_pending() {
            Ok(earlier) => earlier,
            Err(error) => {
                self.roll_back(transaction).await;
                return Err(error);
            }
        };
        let asked_at = Instant::now();
        let limit = self.idem.settings().store_timeout;
        let committed = tokio::time::timeout(limit, DB::commit(transaction, &statement)).await;
        let is_slow = asked_at.elapsed() > QUICK_COMMIT.max(limit / 4);
        match committed {
            Ok(Ok(waits_for_standbys)) if waits_for_standbys && is_slow => self.find(None).await?,
            Ok(Ok(_)) => self.set_committed(),
            Ok(Err(failure)) => self.not_committed(failure, earlier).await?,
            // The server may still commit the transaction.
            Err(_) => self.find(Some(&StoreError::TimedOut)).await?,
        }
        Ok(response)
    }

    /// Records the response in a savepoint, and releases the savepoint.
    async fn release<DB: TransactionDatabase>(
        &self,
        mut transaction: sqlx::Transaction<'_, DB>,
        statement: &RecordStatement,
    ) -> Result<(), CommitError> {
        let limit = self.idem.settings().store_timeout;
        let recorded = timeout(limit, self.write::<DB>(&mut transaction, statement)).await;
        match recorded {
            Ok(Ok(())) => match timeout(limit, transaction.commit()).await {
                Ok(released) => released.map_err(CommitError::Database),
                Err(_) => Err(CommitError::OutcomeUnknown),
            },
            Ok(Err(error)) => {
                self.roll_back(transaction).await;
                Err(error)
            }
            // The outer transaction may still be committed with the record.
            Err(_) => Err(CommitError::OutcomeUnknown),
        }
    }

    /// Rolls back. Does not wait for long on a connection that has fallen silent: a transaction that is dropped is
    /// rolled back too, and the server rolls back the transaction of a broken connection.
    async fn roll_back<DB: TransactionDatabase>(&self, transaction: sqlx::Transaction<'_, DB>) {
        let limit = self.idem.settings().store_timeout;
        let _ = timeout(limit, transaction.rollback()).await;
    }

    pub(super) async fn record_in<C: TransactionConnection>(
        &self,
        connection: &mut C,
        response: Response,
    ) -> Result<Response, CommitError> {
        let (statement, response) = self.begin::<C::Database>(response).await?;
        let connection = connection.connection();
        self.write::<C::Database>(connection, &statement).await?;
        Ok(response)
    }

    /// Executes the statement that records the response.
    async fn write<DB: sealed::Database>(
        &self,
        connection: &mut DB::Connection,
        statement: &RecordStatement,
    ) -> Result<(), CommitError> {
        let earlier = self.begin_pending()?;
        match DB::record(connection, statement).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.not_recorded(failure, earlier)),
        }
    }

    /// Checks whether a transaction of this database can hold the record, and returns the statement.
    async fn begin<DB: sealed::Database>(
        &self,
        response: Response,
    ) -> Result<(RecordStatement, Response), CommitError> {
        must_be_open(self.state.load(Ordering::Acquire))?;
        match self.idem.store().transactions() {
            None => return Err(CommitError::Unsupported),
            Some(kind) if kind != DB::KIND => return Err(CommitError::OtherDatabase),
            Some(_) => {}
        }
        self.statement(response).await
    }

    /// Says why the record could not be written. Does not ask the store, because the handler still has its
    /// connection, which may be the last one that the server allows.
    fn not_recorded(&self, failure: RecordFailure, earlier: u8) -> CommitError {
        match failure {
            RecordFailure::NotHeld | RecordFailure::Duplicate => {
                self.refused(earlier);
                CommitError::Overtaken
            }
            RecordFailure::NotSeen => {
                self.refused(earlier);
                CommitError::OtherDatabase
            }
            RecordFailure::NoTable => {
                self.end_pending(earlier);
                CommitError::OtherDatabase
            }
            RecordFailure::NoTransaction => {
                self.end_pending(earlier);
                CommitError::NoTransaction
            }
            RecordFailure::Failed(error) => {
                self.end_pending(earlier);
                CommitError::Database(error)
            }
            RecordFailure::Unsure(_) => CommitError::OutcomeUnknown,
        }
    }

    /// Finds out why the transaction could not be committed. Returns `Ok` when it was committed after all.
    async fn not_committed(&self, failure: RecordFailure, earlier: u8) -> Result<(), CommitError> {
        let looks = match failure {
            RecordFailure::Unsure(error) => return self.find(Some(&error)).await,
            RecordFailure::NotHeld | RecordFailure::NotSeen | RecordFailure::Duplicate => true,
            RecordFailure::NoTransaction | RecordFailure::NoTable | RecordFailure::Failed(_) => {
                false
            }
        };
        let is_duplicate = matches!(failure, RecordFailure::Duplicate);
        let error = self.not_recorded(failure, earlier);
        if !looks {
            return Err(error);
        }
        Err(match self.look().await {
            Ok(CommitState::Held) if earlier == OPEN => {
                self.end_pending(OPEN);
                CommitError::OtherDatabase
            }
            // `record_in` has recorded in this transaction before.
            Ok(CommitState::Held) if is_duplicate => CommitError::AlreadyRecorded,
            Ok(CommitState::Held) => CommitError::OtherDatabase,
            Ok(CommitState::Mine) => {
                self.set_committed();
                CommitError::AlreadyRecorded
            }
            Ok(CommitState::Others | CommitState::Gone) => CommitError::Overtaken,
            // The engine asks again when the handler has returned.
            Err(error) => CommitError::Store(error),
        })
    }

    /// Notes that another attempt keeps the record out. An earlier transaction of this attempt may have its
    /// record and may still be committed.
    fn refused(&self, earlier: u8) {
        self.end_pending(if earlier == PENDING { PENDING } else { REFUSED });
    }

    /// Looks for a commit whose reply was lost or late, on a connection of the store. Never concludes from a
    /// missing record that the commit failed, because the server may still be working on the commit.
    async fn find(
        &self,
        error: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
    ) -> Result<(), CommitError> {
        if let Some(error) = error {
            Event {
                endpoint: Some(self.policy.endpoint),
                record: Some(&self.holder.id),
                error: Some(error),
                ..Event::default()
            }
            .warn("the reply to a commit was lost; looking for its record");
        }
        let begun = Instant::now();
        let give_up_at = deadline::after(begun, self.idem.settings().store_timeout);
        let mut missing_until = give_up_at;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.look().await {
                Ok(CommitState::Mine) => {
                    self.set_committed();
                    return Ok(());
                }
                Ok(CommitState::Others) => {
                    self.end_pending(REFUSED);
                    return Err(CommitError::Overtaken);
                }
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
