//! What the service is on every database.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum_idem::store::Store;
use axum_idem::{CommitError, Idempotency};
use serde::{Deserialize, Serialize};

/// Short, so that the keys of a killed process are soon free.
pub(crate) const LEASE: Duration = Duration::from_millis(600);

pub(crate) fn idempotency(store: impl Store) -> Idempotency {
    let idem = Idempotency::builder().store(store).namespace("ledger");
    idem.lease(LEASE).build()
}

#[derive(Deserialize)]
pub(crate) struct Transfer {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) cents: i64,
}

impl Transfer {
    /// Refuses a transfer that would take money from the account that receives, and one that moves nothing.
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        if self.cents <= 0 || self.from == self.to {
            return Err(LedgerError::Invalid);
        }
        Ok(())
    }

    /// What changes in each account.
    pub(crate) fn entries(&self) -> [(i64, i64); 2] {
        [(self.from, -self.cents), (self.to, self.cents)]
    }
}

#[derive(Serialize)]
pub(crate) struct Booked {
    pub(crate) id: i64,
}

pub(crate) enum LedgerError {
    /// The transfer moves nothing, or in the wrong direction.
    Invalid,
    NoAccount,
    NoFunds,
    /// Also the error of any other statement, because its transaction is rolled back.
    Commit(CommitError),
}

/// Converts errors of sqlx and errors of a commit.
impl<E: Into<CommitError>> From<E> for LedgerError {
    fn from(error: E) -> Self {
        Self::Commit(error.into())
    }
}

impl IntoResponse for LedgerError {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
            Self::NoAccount => StatusCode::NOT_FOUND.into_response(),
            Self::NoFunds => StatusCode::PAYMENT_REQUIRED.into_response(),
            // Not recorded, so a retry runs again.
            Self::Commit(error) => error.into_response(),
        }
    }
}
