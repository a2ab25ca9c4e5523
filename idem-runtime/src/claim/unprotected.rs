//! Why a request runs without a claim.

use axum::response::Response;

use crate::response::degraded;

/// Why a request runs without protection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unprotected {
    /// It has no key.
    Unkeyed,
    /// The store did not answer.
    Degraded,
}

impl Unprotected {
    /// The response of a handler that ran so. It is marked when the request has a key.
    pub(crate) fn mark(self, response: Response) -> Response {
        match self {
            Self::Unkeyed => response,
            Self::Degraded => degraded::unprotected(response),
        }
    }
}
