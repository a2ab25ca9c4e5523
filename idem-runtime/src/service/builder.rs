//! The builder with which a service chooses its settings and its store.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;

use crate::observe::{Observer, Observing};
use crate::request::fingerprint::FingerprintDigest;
use crate::request::id_secret::IdSecret;
use crate::request::namespace::Namespace;
use crate::response::problem::Problem;
use crate::response::recording;
use crate::service::idempotency::Idempotency;
use crate::service::permits;
use crate::service::settings::{LONGEST, OnStoreError, Settings};
use crate::settings::dialect::Dialect;
use crate::store::observed::Observed;
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
    observer: Option<(Observing, Observe)>,
}

/// Wraps the store of a service with an observer. Other services do not contain this code.
type Observe = fn(Arc<dyn Store>, Observing) -> Arc<dyn Store>;

impl IdempotencyBuilder {
    /// Sets the store for claims and records. The default is a new [`MemoryStore`].
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Separates the keys of several services or environments that share one store. Empty by
    /// default.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        let secret = self.settings.namespace.secret().cloned();
        self.settings.namespace = Namespace::new(namespace).with_secret(secret);
        self
    }

    /// Computes record ids, scope ids and fingerprints with a secret, so that nobody can check a guess of a key, a
    /// scope or a request against a dump of the store. No secret by default.
    ///
    /// Use at least 32 bytes from a random generator for cryptography, and the same secret in each process of the
    /// service. The ids and fingerprints are HMAC-SHA-256 of those without a secret.
    ///
    /// **A new secret makes every key new.** A retry of a request from before the change runs the handler again, so
    /// set the secret before the first record is stored, or when no record is needed any more. Keys that
    /// [`Attempt::derive_key`](crate::Attempt::derive_key) derives change as well. Programs that look records
    /// up by key, such as `idem find`, need the same secret. `idem` uses the bytes of its variable or file unchanged, so the
    /// simplest secret is text.
    ///
    /// # Panics
    ///
    /// When the secret is shorter than 16 bytes.
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::{Idempotency, Scope};
    ///
    /// # let secret = [7; 32];
    /// let idem = Idempotency::builder().id_secret(secret).build();
    /// let without = Idempotency::in_memory();
    /// let scope = Scope::new().value("user-7");
    /// assert_ne!(idem.record_id(&scope, "k"), without.record_id(&scope, "k"));
    /// ```
    pub fn id_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        let secret = IdSecret::new(secret.as_ref());
        assert!(
            secret.is_some(),
            "an id secret has at least {} bytes",
            IdSecret::MIN_LEN
        );
        let namespace = std::mem::replace(&mut self.settings.namespace, Namespace::new(""));
        self.settings.namespace = namespace.with_secret(secret);
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
    ///
    /// The engine sends a claim up to three times within this time. It does not send a claim again after
    /// [`StoreError::Busy`](crate::store::StoreError::Busy) or
    /// [`StoreError::Undecodable`](crate::store::StoreError::Undecodable).
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

    /// Sets how long a response body of unknown length is collected. 30 seconds by default.
    ///
    /// A response is recorded before its first byte leaves, so its body is collected first. A body that
    /// takes longer, such as an endless stream, is then passed on: the client gets the response from its
    /// beginning, and a retry gets 409 `idempotency_response_not_kept`. A body whose length is known, for
    /// example by `Content-Length`, may take as long as [`max_run`](Self::max_run).
    ///
    /// [`Attempt::commit`](crate::Attempt::commit), `record_in` and `prepare` read a body for 250 ms at most, because
    /// the transaction of the handler is open.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.response_timeout = timeout.min(LONGEST);
        self
    }

    /// Sets how long an attempt may run, from its claim until its handler has responded. 15 minutes by
    /// default.
    ///
    /// `max_run` in the attribute takes precedence. An attempt that runs longer is ended, whether or not
    /// its client is still connected:
    ///
    /// 1. the lease is no longer renewed, and [`Attempt::lost`](crate::Attempt::lost) completes;
    /// 2. the handler is dropped where it waits;
    /// 3. the outcome is unknown, and `on_unknown` of the endpoint decides about the next request;
    /// 4. a client that is still connected gets 504 `idempotency_run_timeout`.
    ///
    /// If the body extractor still runs at that time, the handler has not started, so the key is released instead. Requests
    /// without a key have no such limit. A handler that blocks its thread cannot be dropped. The lease of such a
    /// handler lapses, and a retry may start a second run while the first still runs.
    ///
    /// After the handler has responded, the layers between the `Idempotency` layer and the handler may run for the same time
    /// once more. A layer that takes longer, such as a commit that hangs, is dropped, and the outcome
    /// is unknown.
    pub fn max_run(mut self, limit: Duration) -> Self {
        self.settings.max_run = limit.min(LONGEST);
        self
    }

    /// Sets how many attempts may run at once, in requests and in the background. Unlimited by default.
    ///
    /// A concurrency limit in a layer does not count a handler whose client has disconnected, because the
    /// handler runs on in the background. `max_running` counts it. When as many attempts run, a request with a key
    /// gets 503 `idempotency_busy` with `Retry-After`, even if a record exists. With
    /// `in_flight = wait(…)`, a request that waits for the first request does not count.
    ///
    /// An attempt counts until its response is recorded or its key is released, or until the first try to do so has
    /// failed. An attempt that lost its lease counts until its handler ends. [`Idempotency::running`] returns the current
    /// number. A request that runs without protection because the store failed ([`OnStoreError::FailOpen`]) does not count.
    ///
    /// # Examples
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::Idempotency;
    ///
    /// let idem = Idempotency::builder().max_running(64).build();
    /// assert_eq!(idem.running(), 0);
    /// ```
    pub fn max_running(mut self, attempts: usize) -> Self {
        self.settings.max_running = permits::limit(attempts);
        self
    }

    /// Sets the longest body of a request with a key, in bytes. 2 MiB by default.
    ///
    /// The body of such a request is kept in memory until its handler reads it. So this limit also applies
    /// when axum's `DefaultBodyLimit` is disabled or higher. A longer body is refused with 413
    /// `idempotency_body_too_large`. With `fingerprint = none` the body is streamed to the handler, and only
    /// axum's limit counts.
    pub fn max_request_body(mut self, bytes: usize) -> Self {
        self.settings.max_request_body = bytes;
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
    /// The function gets the key and the request, whose body cannot be read here. It runs for each request with a key, even
    /// if the request gets a replay. The store keeps at most 255 bytes of the label of the first request. If the
    /// function panics, the record has no label.
    ///
    /// The store keeps the label in the clear, unlike the key and the scope. Do not return the key unless operators may see
    /// keys.
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
        self.settings.label = Some(Box::new(move |request, key| {
            catch_unwind(AssertUnwindSafe(|| label(request, key)))
        }));
        self
    }

    /// Changes each response before it is recorded, for example to remove a secret from its body. Nothing is changed
    /// by default.
    ///
    /// `redact` gets the endpoint, which is the path of the handler such as `desk::place_trade`, and a copy of the
    /// response. The result is recorded. The first client gets the whole response, and every retry gets the redacted response.
    /// The status that `redact` returns has no effect. With `record_body = none`, the body is empty. Headers that are
    /// never recorded, such as `Set-Cookie`, are removed after `redact`. A response of
    /// [`resolve`](Idempotency::resolve) is not redacted.
    ///
    /// If `redact` panics, the response is not recorded, and a retry gets 409 `idempotency_response_not_kept`.
    ///
    /// ```
    /// use idem_runtime::Idempotency;
    ///
    /// let idem = Idempotency::builder()
    ///     .redact(|endpoint, mut response| {
    ///         if endpoint.ends_with("::issue_key") {
    ///             *response.body_mut() = "the key was shown once".into();
    ///         }
    ///         response
    ///     })
    ///     .build();
    /// # let _ = idem;
    /// ```
    pub fn redact<F>(mut self, redact: F) -> Self
    where
        F: Fn(&str, http::Response<Bytes>) -> http::Response<Bytes> + Send + Sync + 'static,
    {
        self.settings.redact = Some(recording::redacting(redact));
        self
    }

    /// Reports decisions, ends of attempts, calls of the store and more to `observer`. Nothing is reported by
    /// default. A later call replaces the observer.
    ///
    /// [`Observer`] lists the reports. The feature `metrics` has an observer for the `metrics` facade:
    /// `metrics::Metrics`.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        let observing = Observing::new(Arc::new(observer));
        self.observer = Some((observing, |store, observing| {
            Arc::new(Observed::new(store, observing))
        }));
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
        self.settings.render = Some(Box::new(move |problem| {
            catch_unwind(AssertUnwindSafe(|| render(problem).into_response()))
        }));
        self
    }

    /// Builds the [`Idempotency`], which can be installed as a layer.
    #[must_use]
    pub fn build(mut self) -> Idempotency {
        let mut store = self
            .store
            .unwrap_or_else(|| Arc::new(MemoryStore::default()));
        if let Some((observing, observe)) = self.observer {
            store = observe(store, observing.clone());
            self.settings.observing = Some(observing);
        }
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
