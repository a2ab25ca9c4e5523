//! The claimer's right to run and to settle.

use std::{fmt, mem};

use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::running::Running;

const DEGRADED: HeaderName = HeaderName::from_static("idempotency-degraded");

/// The claimer's right to run and to settle; or none, where a request runs without protection.
///
/// Dropped before it is settled, it gives the key back: nothing of the handler ran.
pub(crate) enum Lease {
    Unprotected,
    /// Without protection although the request has a key, since the store did not answer.
    Degraded,
    Held(Running),
}

impl Lease {
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::Unprotected)
    }

    /// The answer of a handler that ran without protection; it says so where the request has a key.
    pub(crate) fn mark(&self, mut response: Response) -> Response {
        if matches!(self, Self::Degraded) {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(DEGRADED, value);
        }
        response
    }

    /// Settles the answer of the body extractor, which refused before the handler began.
    pub(crate) async fn reject(self, rejection: Response) -> Response {
        match self {
            Self::Held(running) => running.reject(rejection).await,
            Self::Unprotected | Self::Degraded => rejection,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unprotected => "Lease(unprotected)",
            Self::Degraded => "Lease(degraded)",
            Self::Held(_) => "Lease(held)",
        })
    }
}
