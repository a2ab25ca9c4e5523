//! The claimer's right to run and to settle.

use std::fmt;
use std::task::Context;

use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::running::Running;

const DEGRADED: HeaderName = HeaderName::from_static("idempotency-degraded");

/// The claimer's right to run and to settle; or none, where a request runs without protection.
///
/// Dropped before it is settled, it gives the key back: nothing of the handler ran.
pub(crate) enum Lease {
    None(Unprotected),
    Held(Running),
}

/// Why a request runs without protection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unprotected {
    /// It has no key.
    Unkeyed,
    /// The store did not answer.
    Degraded,
}

impl Unprotected {
    /// The answer of a handler that ran so; it says so where the request has a key.
    pub(crate) fn mark(self, mut response: Response) -> Response {
        if matches!(self, Self::Degraded) {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(DEGRADED, value);
        }
        response
    }
}

impl Lease {
    /// Renews what is due while the body extractor works, and arranges to be polled again.
    pub(crate) fn keep(&mut self, cx: &mut Context<'_>) {
        if let Self::Held(running) = self {
            running.keep(cx);
        }
    }

    /// Settles the answer of the body extractor, which refused before the handler began.
    pub(crate) async fn reject(self, rejection: Response) -> Response {
        match self {
            Self::Held(running) => running.reject(rejection).await,
            Self::None(_) => rejection,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(why) => write!(f, "Lease({why:?})"),
            Self::Held(_) => f.write_str("Lease(held)"),
        }
    }
}
