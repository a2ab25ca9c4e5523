//! The lease of a request, or the reason why the request has none.

use std::fmt;
use std::task::Context;

use axum::response::Response;

use crate::attempt::running::Running;
use crate::claim::unprotected::Unprotected;

/// The lease of a request that won its claim, or the reason why the request has none.
///
/// If it is dropped before the handler starts, it gives the claim back.
pub(crate) enum Protection {
    None(Unprotected),
    Leased(Running),
}

impl Protection {
    /// Renews the lease while the body extractor waits. Wakes the task of `cx` when the attempt reaches
    /// its limit.
    pub(crate) fn keep(&mut self, cx: &Context<'_>) {
        if let Self::Leased(running) = self {
            running.keep(cx);
        }
    }

    /// Settles the attempt after the body extractor has rejected the request. The handler does not
    /// run.
    pub(crate) async fn reject(self, rejection: Response) -> Response {
        match self {
            Self::Leased(running) => running.reject(rejection).await,
            Self::None(_) => rejection,
        }
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(why) => write!(f, "Protection({why:?})"),
            Self::Leased(_) => f.write_str("Protection(leased)"),
        }
    }
}
