//! A service that makes payments in a database of its own.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum_idem::store::{Entry, TransactionDatabase};
use axum_idem::{CommitError, Idempotency, RecordId, Scope};
use sqlx::{Database, Pool, Transaction};

use crate::support::{Runs, Server};

/// Long enough that no lease ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) struct Bank<DB: Database> {
    pub(crate) pool: Pool<DB>,
    /// Holds the runs that wait.
    pub(crate) runs: Runs,
    /// The results of the commits.
    results: Arc<Mutex<Vec<String>>>,
    /// What `is_first` was called with.
    seen: Arc<Mutex<BTreeSet<String>>>,
    pub(crate) isolation: &'static str,
}

impl<DB: Database> Clone for Bank<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            runs: self.runs.clone(),
            results: self.results.clone(),
            seen: self.seen.clone(),
            isolation: self.isolation,
        }
    }
}

/// A database in which the bank makes its payments.
pub(crate) trait Payments: TransactionDatabase {
    /// Begins a transaction that may write.
    fn begin(
        bank: &Bank<Self>,
    ) -> impl Future<Output = sqlx::Result<Transaction<'static, Self>>> + Send;

    /// The effect.
    fn pay(
        connection: &mut Self::Connection,
        run: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Breaks a constraint that is checked at the commit.
    fn break_constraint(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    fn payments(bank: &Bank<Self>) -> impl Future<Output = Vec<String>> + Send;
}

impl<DB: Database> Bank<DB> {
    pub(crate) fn new(pool: Pool<DB>) -> Self {
        Self {
            pool,
            runs: Runs::default(),
            results: Arc::default(),
            seen: Arc::default(),
            isolation: "READ COMMITTED",
        }
    }

    /// Notes the result of a commit.
    pub(crate) fn note<T>(&self, result: Result<T, CommitError>) -> Result<T, CommitError> {
        let noted = match &result {
            Ok(_) => "Ok".to_owned(),
            Err(error) => {
                let text = format!("{error:?}");
                text.split(['(', ' ']).next().unwrap_or_default().to_owned()
            }
        };
        self.results.lock().expect("no panic").push(noted);
        result
    }

    /// Whether the method was not called with this text before.
    pub(crate) fn is_first(&self, text: &str) -> bool {
        self.seen.lock().expect("no panic").insert(text.to_owned())
    }

    pub(crate) fn results(&self) -> Vec<String> {
        self.results.lock().expect("no panic").clone()
    }

    /// The results that were noted since the last call.
    pub(crate) fn take_results(&self) -> Vec<String> {
        std::mem::take(&mut *self.results.lock().expect("no panic"))
    }
}

impl<DB: Payments> Bank<DB> {
    pub(crate) async fn begin(&self) -> sqlx::Result<Transaction<'static, DB>> {
        DB::begin(self).await
    }

    pub(crate) async fn pay(connection: &mut DB::Connection, run: &str) -> sqlx::Result<()> {
        DB::pay(connection, run).await
    }

    pub(crate) async fn payments(&self) -> Vec<String> {
        DB::payments(self).await
    }
}

pub(crate) type Paid = Result<Response, BankError>;

/// The error of the service.
#[derive(Debug)]
pub(crate) enum BankError {
    Database(sqlx::Error),
    Commit(CommitError),
}

impl From<sqlx::Error> for BankError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<CommitError> for BankError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

impl IntoResponse for BankError {
    fn into_response(self) -> Response {
        match self {
            Self::Database(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
            Self::Commit(error) => error.into_response(),
        }
    }
}

/// The service in front of a store, on a socket.
pub(crate) struct Service<DB: Database> {
    pub(crate) server: Server,
    pub(crate) bank: Bank<DB>,
    pub(crate) idem: Idempotency,
}

impl<DB: Database> Service<DB> {
    pub(crate) fn id(&self, key: &str) -> RecordId {
        let scope = Scope::new().token("Bearer alice");
        self.idem.record_id(&scope, key)
    }

    pub(crate) async fn entry(&self, key: &str) -> Option<Entry> {
        let entry = self.idem.look_up(self.id(key)).await;
        entry.expect("the store replies")
    }
}

/// Polls a future at most so often.
pub(crate) async fn after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
