//! The reasons why a request runs without a claim.

use axum::response::Response;

use crate::response::degraded;

/// The reason why a request runs without protection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unprotected {
    /// The request has no key.
    Unkeyed,
    /// The store failed, and the service fails open.
    Degraded,
}

impl Unprotected {
    /// Marks the response of a handler that ran unprotected, if the request has a key.
    pub(crate) fn mark(self, response: Response) -> Response {
        match self {
            Self::Unkeyed => response,
            Self::Degraded => degraded::unprotected(response),
        }
    }
}
