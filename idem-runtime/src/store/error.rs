//! Why a transition failed.

use super::DecodeError;

/// Why a transition failed. The error never contains a key, a token or a response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine behind the store could not be reached, or refused the request.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store did not respond in time.
    #[error("the store did not respond in time")]
    TimedOut,
    /// Another connection held the lock of the database for too long. The store has already waited, so the engine does
    /// not send the claim again.
    #[error("another connection holds the lock of the database")]
    Busy,
    /// The engine behind the store is configured in a way that would break the rules of [`Store`](super::Store).
    #[error("the store is not usable as it is set up: {0}")]
    Unfit(Box<str>),
    /// The entry under the record id cannot be decoded. The store leaves the entry in place.
    #[error("the stored entry cannot be decoded")]
    Undecodable(#[source] DecodeError),
    /// The store does not offer this operation.
    #[error("the store does not support this operation")]
    Unsupported,
    /// The cursor of a query comes from another store or another version.
    #[error("the cursor of the query is not one of this store")]
    InvalidCursor,
}
