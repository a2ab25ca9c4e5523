//! Why a handler could not commit its transaction together with its response.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use axum::response::{IntoResponse, Response};

use crate::attempt::settlement::Settlement;
use crate::request::record_id::RecordId;
use crate::response::do_not_record::DoNotRecord;
use crate::response::problem::Problem;
use crate::store::StoreError;
use crate::trace::Event;

const NOT_COMMITTED: &str = "a handler could not commit its response";

/// Why [`Attempt::commit`](crate::Attempt::commit), `record_in` or `prepare` did not return a response.
///
/// Return the error from the handler, by itself or inside an error of the service. The response is then a
/// [problem](crate::Problem) that is never recorded:
///
/// | variant | committed | status | code |
/// |---|---|---|---|
/// | `Overtaken` | no | 409 with `Retry-After` | `idempotency_overtaken` |
/// | `OutcomeUnknown` | unknown | 503 with `Retry-After` | `idempotency_outcome_unknown` |
/// | `OtherDatabase`, `NotOwn`, `NoTransaction`, `Unsupported` | no | 500 | `idempotency_not_transactional` |
/// | `AlreadyRecorded` | only the first transaction | 500 | `idempotency_commit_failed` |
/// | `NotRecordable` | no | that of the response | – |
/// | `Store` | no | 503 with `Retry-After` | `idempotency_store_unavailable` |
/// | `Database` | no | 500, or 503 with `Retry-After` when a retry can succeed | `idempotency_commit_failed` |
///
/// # Examples
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::response::{IntoResponse, Response};
/// use axum_idem::CommitError;
///
/// enum PayError {
///     NoFunds,
///     Commit(CommitError),
/// }
///
/// impl From<CommitError> for PayError {
///     fn from(error: CommitError) -> Self {
///         Self::Commit(error)
///     }
/// }
///
/// impl IntoResponse for PayError {
///     fn into_response(self) -> Response {
///         match self {
///             Self::NoFunds => http::StatusCode::PAYMENT_REQUIRED.into_response(),
///             Self::Commit(error) => error.into_response(),
///         }
///     }
/// }
/// # let _ = PayError::NoFunds;
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another attempt has taken over or has already recorded its response, or an operator has forgotten
    /// the key. The transaction was rolled back, or must be rolled back after `record_in`.
    #[error("another attempt has taken over; this transaction must not be committed")]
    Overtaken,
    /// The outcome of a `COMMIT` is not known, or the database did not reply in time to the savepoint with the record.
    /// A retry gets the response if the commit took effect. Otherwise the key is unknown and follows the endpoint's
    /// `on_unknown`.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown,
    /// The transaction does not see the claim of this attempt: it is in another database, its snapshot is older than the
    /// claim, or an operator forgot the key during `record_in`. A SQLite connection with attached files gets this error
    /// too. The transaction was rolled back, or must be rolled back after `record_in`.
    #[error(
        "the transaction is not alone in the database of the store, or does not see the claim of its attempt; \
         begin the transaction in the handler, in that database, without attached files"
    )]
    OtherDatabase,
    /// The connection that was passed to `record_in` has no open transaction, or SQLite has rolled the transaction
    /// back after an earlier error such as a full disk. Nothing was recorded.
    #[error(
        "the connection has no open transaction; begin one, and pass `&mut *tx` to `record_in`"
    )]
    NoTransaction,
    /// The store cannot take part in a transaction of a handler. Nothing was committed.
    #[error(
        "this store cannot record a response in a transaction; use `PostgresStore` or `SqliteStore`"
    )]
    Unsupported,
    /// The [`Attempt`](crate::Attempt) belongs to the request of an outer handler, which has passed its request on
    /// without a key, or it was extracted again inside a handler. Nothing was committed.
    #[error(
        "this attempt belongs to the request of another handler; forward requests with a key of their own, or \
         without the extensions of the outer request"
    )]
    NotOwn,
    /// The attempt has already recorded a response, or its handler has returned. This transaction was rolled back, or must
    /// be rolled back after `record_in`.
    #[error(
        "this attempt has already recorded its response or has ended; commit once, before the handler returns"
    )]
    AlreadyRecorded,
    /// The endpoint does not record this response, so the effects of the transaction must not be kept
    /// either. Roll the transaction back and return this error, which contains the response.
    #[error("the endpoint does not record a response like this")]
    NotRecordable(NotRecordable),
    /// The transaction was rolled back, and the store failed when it was asked for the reason.
    #[error("the transaction was rolled back, and the store could not be asked why")]
    Store(#[source] StoreError),
    /// The database reported an error, such as a serialization failure, and the transaction was rolled back.
    /// The handler may run its transaction again. `?` also converts the errors of other statements into this variant.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    #[error("the transaction could not be committed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The response that an endpoint does not record.
pub struct NotRecordable(Box<Mutex<Response>>);

impl NotRecordable {
    pub(super) fn new(response: Response) -> Self {
        Self(Box::new(Mutex::new(response)))
    }

    /// Returns the response.
    #[must_use]
    pub fn into_response(self) -> Response {
        let response = self.0.into_inner();
        response.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for NotRecordable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotRecordable")
    }
}

impl CommitError {
    /// Logs why the response of an attempt was not committed.
    pub(super) fn log(&self, endpoint: &'static str, id: RecordId) {
        if self.is_logged_with_its_record()
            && !matches!(self, Self::Overtaken | Self::NotRecordable(_))
        {
            Event {
                endpoint: Some(endpoint),
                record: Some(&id),
                error: Some(self),
                ..Event::default()
            }
            .error(NOT_COMMITTED);
        }
    }

    /// Whether only an attempt returns this error, and logs it. An error of the database may come from any statement,
    /// and a handler may run its transaction again.
    fn is_logged_with_its_record(&self) -> bool {
        match self {
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            Self::Database(_) => false,
            Self::NotOwn => false,
            _ => true,
        }
    }

    fn problem(&self) -> Problem {
        match self {
            Self::Overtaken => Problem::overtaken(),
            Self::OutcomeUnknown => Problem::commit_unknown(),
            Self::OtherDatabase | Self::NoTransaction | Self::NotOwn | Self::Unsupported => {
                Problem::not_transactional()
            }
            Self::AlreadyRecorded => Problem::already_recorded(),
            Self::NotRecordable(_) => Problem::commit_failed(false),
            Self::Store(_) => Problem::store_unavailable(),
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            Self::Database(error) => Problem::commit_failed(is_transient(error)),
        }
    }
}

impl IntoResponse for CommitError {
    fn into_response(self) -> Response {
        if let Self::NotRecordable(response) = self {
            return response.into_response();
        }
        if !self.is_logged_with_its_record() {
            Event {
                error: Some(&self),
                ..Event::default()
            }
            .error(NOT_COMMITTED);
        }
        (DoNotRecord, self.problem()).into_response()
    }
}

/// Names the record in the response of a handler that could not commit. The layer above renders the response again.
pub(super) fn name_record(response: &mut Response, id: RecordId, settlement: Option<&Settlement>) {
    let extensions = response.extensions_mut();
    if extensions.get::<DoNotRecord>().is_some()
        && let Some(problem) = extensions.get_mut::<Problem>()
    {
        problem.of_attempt(id, matches!(settlement, Some(Settlement::Committed(_))));
    }
}

/// Whether a new transaction can succeed: after a serialization failure, a deadlock, a lock timeout, or the
/// loss of the connection.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            let class = code.get(..2).unwrap_or_default();
            // SQLite has numbers of up to four digits, with the primary code in the lowest byte. It is busy, locked or full.
            let of_sqlite = code.parse().ok().filter(|_: &u32| code.len() < 5);
            matches!(&*code, "40001" | "40P01" | "55P03")
                || matches!(class, "08" | "53" | "57") && of_sqlite.is_none()
                || of_sqlite.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 13))
        }),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
