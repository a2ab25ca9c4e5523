//! The builder with which a service chooses its settings and its store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;

use crate::request::fingerprint::FingerprintDigest;
use crate::request::namespace::Namespace;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;
use crate::service::settings::{LONGEST, OnStoreError, Settings};
use crate::settings::dialect::Dialect;
use crate::store::{MemoryStore, Store};

impl Idempotency {
    /// Returns the default settings with a new [`MemoryStore`], for a service of one process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder().build()
    }

    /// Returns a builder for settings that differ from the defaults.
    pub fn builder() -> IdempotencyBuilder {
        IdempotencyBuilder::default()
    }
}

/// Builder for an [`Idempotency`].
///
/// A duration of more than 100 years is reduced to 100 years.
#[derive(Default)]
#[must_use]
pub struct IdempotencyBuilder {
    store: Option<Arc<dyn Store>>,
    settings: Settings,
}

impl IdempotencyBuilder {
    /// Sets the store for claims and records. The default is a new [`MemoryStore`].
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Separates the keys of several services or environments that share one store. Empty by
    /// default.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.settings.namespace = Namespace::new(namespace);
        self
    }

    /// Sets the wire format: header names, statuses and key rules. The default is
    /// [`Dialect::default`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }

    /// Sets how long a claim outlives its process. 30 seconds by default, and at least 3
    /// milliseconds.
    ///
    /// The lease is renewed after each third of its length while the handler runs, whether or not
    /// its request is polled. So the lease need not be as long as the run of the handler.
    ///
    /// A handler that blocks its thread cannot renew its lease. Past the lease, a retry may start a
    /// second run while the first still runs.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(3), LONGEST);
        self
    }

    /// Sets how long a request waits for one reply of the store. 5 seconds by default.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.settings.store_timeout = timeout.min(LONGEST);
        self
    }

    /// Sets how long the body of a request with a key may stall before the request is refused with
    /// 408. 30 seconds by default. The request holds no claim during that time.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.settings.body_timeout = timeout.min(LONGEST);
        self
    }

    /// Sets the longest response body that is recorded, in bytes. 1 MiB by default.
    ///
    /// A longer response reaches its client unchanged. A retry gets 409
    /// `idempotency_response_not_kept`.
    pub fn max_recorded_body(mut self, bytes: usize) -> Self {
        self.settings.max_recorded_body = bytes;
        self
    }

    /// Records and replays `Set-Cookie`. This header is left out by default.
    ///
    /// A replayed cookie can restore a session that has ended in the meantime.
    pub fn record_set_cookie(mut self) -> Self {
        self.settings.record_set_cookie = true;
        self
    }

    /// Sets the digest that distinguishes a retry from a reused key. The default is
    /// [`FingerprintDigest::Sha256`].
    pub fn fingerprint_digest(mut self, digest: FingerprintDigest) -> Self {
        self.settings.fingerprint_digest = digest;
        self
    }

    /// Sets how a request with a key is handled when the store fails to process its claim.
    pub fn on_store_error(mut self, choice: OnStoreError) -> Self {
        self.settings.on_store_error = choice;
        self
    }

    /// Chooses a label for each record, such as an invoice number, by which an operator recognizes the
    /// record in a listing. None by default.
    ///
    /// The function gets the request, whose body cannot be read here, and the key. It runs for each
    /// request with a key, also for a request that is replayed. The store keeps the label of the first request,
    /// at most 255 bytes of it. If the function panics, the record has no label.
    ///
    /// The store keeps the label in the clear, but it keeps neither the key nor the scope in the clear. Do not
    /// return the key unless operators may see keys.
    ///
    /// ```
    /// use idem_runtime::Idempotency;
    ///
    /// let idem = Idempotency::builder()
    ///     .label(|request, _key| {
    ///         let invoice = request.headers().get("x-invoice")?;
    ///         invoice.to_str().ok().map(str::to_owned)
    ///     })
    ///     .build();
    /// # let _ = idem;
    /// ```
    pub fn label<F>(mut self, label: F) -> Self
    where
        F: Fn(&Request, &str) -> Option<String> + Send + Sync + 'static,
    {
        self.settings.label = Some(Box::new(label));
        self
    }

    /// Renders problems in the format of the service.
    ///
    /// If a problem needs `Retry-After` or `WWW-Authenticate` and the rendered response does not
    /// have it, the header is added. If `render` panics, the client gets a plain 500.
    pub fn render_problem<F, R>(mut self, render: F) -> Self
    where
        F: Fn(&Problem) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.settings.render = Some(Box::new(move |problem| render(problem).into_response()));
        self
    }

    /// Builds the [`Idempotency`], which can be installed as a layer.
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
