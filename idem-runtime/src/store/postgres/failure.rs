//! Which errors pass, and which are told.

use sqlx::Error;

use crate::store::StoreError;

/// What to do about an error, by its `SQLSTATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// The same statement again; it has had no effect, or its effect recognises its owner.
    Again,
    /// The same on another connection: this one is broken, or leads to a server that takes no
    /// writes.
    Elsewhere,
    /// None here.
    Tell,
}

pub(super) fn cure(error: &Error) -> Cure {
    match error {
        Error::Io(_) | Error::WorkerCrashed => Cure::Elsewhere,
        Error::Database(error) => match error.code().as_deref() {
            // Serialization failure, deadlock; and the race that a unique index can lose.
            Some("40001" | "40P01" | "23505") => Cure::Again,
            // Read-only transaction; the server is going down, or has not come up.
            Some("25006" | "57P01" | "57P02" | "57P03") => Cure::Elsewhere,
            _ => Cure::Tell,
        },
        _ => Cure::Tell,
    }
}

/// No error is ever taken for an answer.
pub(super) fn store_error(error: Error) -> StoreError {
    match error {
        Error::PoolTimedOut => StoreError::TimedOut,
        error => StoreError::Unavailable(Box::new(error)),
    }
}
