//! How a service chooses its settings and its store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;

use crate::request::fingerprint::FingerprintDigest;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;
use crate::service::settings::{LONGEST, OnStoreError, Settings};
use crate::settings::dialect::Dialect;
use crate::store::{MemoryStore, Store};

impl Idempotency {
    /// The defaults, with a [`MemoryStore`] of their own: for one process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder().build()
    }

    /// Settings that differ from the defaults.
    pub fn builder() -> IdempotencyBuilder {
        IdempotencyBuilder::default()
    }
}

/// Settings of an [`Idempotency`].
///
/// A duration of more than 100 years means 100 years.
#[derive(Default)]
#[must_use]
pub struct IdempotencyBuilder {
    store: Option<Arc<dyn Store>>,
    settings: Settings,
}

impl IdempotencyBuilder {
    /// Where claims and records live. A [`MemoryStore`] of its own by default.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Keeps the keys of several services or environments apart in one store. Empty by default.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.settings.namespace = namespace.into();
        self
    }

    /// How the service speaks on the wire. [`Dialect::default`] by default.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }

    /// How long a claim outlives its process. 30 seconds by default, and at least 3 milliseconds.
    ///
    /// It is renewed at a third of this while the handler lives, whether or not its request is polled, so it
    /// need not cover the handler's run. A handler that blocks its thread cannot be seen to live: one that does so for longer
    /// than the lease may be run again beside itself.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(3), LONGEST);
        self
    }

    /// How long one answer of the store is waited for. 5 seconds by default.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.settings.store_timeout = timeout.min(LONGEST);
        self
    }

    /// How long the body of a keyed request may stall before it is refused with 408. 30 seconds by
    /// default. No claim is held meanwhile.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.settings.body_timeout = timeout.min(LONGEST);
        self
    }

    /// The longest body of an answer that is kept, in bytes. 1 MiB by default.
    ///
    /// A longer one reaches its client unharmed; a retry is told that it was not kept (409
    /// `idempotency_response_not_kept`).
    pub fn max_recorded_body(mut self, bytes: usize) -> Self {
        self.settings.max_recorded_body = bytes;
        self
    }

    /// Records and replays `Set-Cookie`, which is left out by default.
    ///
    /// A replayed cookie brings back a session that may have ended since.
    pub fn record_set_cookie(mut self) -> Self {
        self.settings.record_set_cookie = true;
        self
    }

    /// Which digest tells a retry from a reused key. [`FingerprintDigest::Sha256`] by default.
    pub fn fingerprint_digest(mut self, digest: FingerprintDigest) -> Self {
        self.settings.fingerprint_digest = digest;
        self
    }

    /// What happens to a keyed request whose claim the store could not answer.
    pub fn on_store_error(mut self, choice: OnStoreError) -> Self {
        self.settings.on_store_error = choice;
        self
    }

    /// Renders refusals in the service's own form.
    ///
    /// `Retry-After` and `WWW-Authenticate` are added where the rendering leaves them out. If it
    /// panics, the client gets a plain 500.
    pub fn render_problem<F, R>(mut self, render: F) -> Self
    where
        F: Fn(&Problem) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.settings.render = Some(Box::new(move |problem| render(problem).into_response()));
        self
    }

    /// The settings, ready to be installed as a layer.
    #[must_use]
    pub fn build(self) -> Idempotency {
        let store = self
            .store
            .unwrap_or_else(|| Arc::new(MemoryStore::default()));
        Idempotency::new(store, self.settings)
    }
}

impl fmt::Debug for IdempotencyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyBuilder")
            .field("namespace", &self.settings.namespace)
            .field("dialect", &self.settings.dialect)
            .field("lease", &self.settings.lease)
            .field("on_store_error", &self.settings.on_store_error)
            .finish_non_exhaustive()
    }
}
