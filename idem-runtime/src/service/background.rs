//! The place where an attempt continues after its request was dropped.

use tokio::runtime::Handle;
use tracing::Span;

use crate::trace;

/// The runtime and the span of a request.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub(crate) runtime: Handle,
    pub(crate) span: Span,
}

impl Background {
    /// Returns `None` outside of a runtime.
    pub(crate) fn of_this_task() -> Option<Self> {
        Some(Self {
            runtime: Handle::try_current().ok()?,
            span: trace::current_span(),
        })
    }
}
