//! The claimer's right to run and to settle.

use std::fmt;

use axum::response::Response;

use crate::attempt::running::Running;
use crate::response::degraded;

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
    /// The response of a handler that ran so. It is marked when the request has a key.
    pub(crate) fn mark(self, response: Response) -> Response {
        match self {
            Self::Unkeyed => response,
            Self::Degraded => degraded::unprotected(response),
        }
    }
}

impl Lease {
    /// Keeps the lease while the body extractor waits.
    pub(crate) fn keep(&mut self) {
        if let Self::Held(running) = self {
            running.keep();
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
