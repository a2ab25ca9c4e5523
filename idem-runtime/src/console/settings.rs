//! The settings of a console.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;

use super::access::Access;
use crate::service::idempotency::Idempotency;

/// A console with settings that differ from the defaults.
#[derive(Clone)]
#[must_use]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "console")]
pub struct Console {
    pub(super) idem: Idempotency,
    pub(super) access: Arc<dyn Fn(&Parts) -> Access + Send + Sync>,
    pub(super) redact: Option<Arc<Redact>>,
}

type Redact = dyn Fn(&str, Bytes) -> Bytes + Send + Sync;

impl Console {
    /// A console for the store of `idem`. `access` decides about each request, as in [`router`](super::router).
    pub fn new<F>(idem: Idempotency, access: F) -> Self
    where
        F: Fn(&Parts) -> Access + Send + Sync + 'static,
    {
        Self {
            idem,
            access: Arc::new(access),
            redact: None,
        }
    }

    /// Changes the body of a response before an operator sees it, for example to remove personal data. The function
    /// gets the endpoint and the body. The stored record does not change.
    pub fn redact<F>(mut self, redact: F) -> Self
    where
        F: Fn(&str, Bytes) -> Bytes + Send + Sync + 'static,
    {
        self.redact = Some(Arc::new(redact));
        self
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("idem", &self.idem)
            .finish_non_exhaustive()
    }
}
