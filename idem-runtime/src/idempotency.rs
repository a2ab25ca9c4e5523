//! The service's side: how one service speaks, where it stores, and what its operators can do.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use tokio_util::task::TaskTracker;

use crate::dialect::Dialect;
use crate::fingerprint::{Fingerprint, FingerprintDigest};
use crate::key;
use crate::orphans::Orphans;
use crate::policy::FingerprintMode;
use crate::problem::Problem;
use crate::record_id::RecordId;
use crate::scope::Scope;
use crate::store::{Entry, MemoryStore, Record, Settled, Store, StoreError, StoreFuture};
use crate::unwritten::Unwritten;

/// The settings of one service, its store, and what its operators can do.
///
/// Cheap to clone; clones share everything. It is a [`tower_layer::Layer`] that makes itself known
/// to the annotated handlers below it:
///
/// ```
/// use axum::{Router, routing::post};
/// use idem_runtime::Idempotency;
///
/// let router: Router = Router::new()
///     .route("/trades", post(|| async {}))
///     .layer(Idempotency::in_memory());
/// ```
///
/// Add the layer after the routes that it is to protect, since `Router::layer` does not apply to
/// routes that are added later. A request with a key that reaches an annotated handler without any
/// `Idempotency` is refused with 500 `idempotency_not_installed`, and the log says what to add. A
/// request without a key runs.
///
/// The layer has to see the key: middleware that sets the key header belongs above the layer. A key in
/// the default header that is set below it is refused in the same way. A handler cannot recognize a
/// key that is set below the layer in a header of the service's own choice
/// ([`Dialect::key_header`]); such a request runs unprotected.
#[derive(Clone)]
pub struct Idempotency {
    inner: Arc<Inner>,
    /// Whether the layer that put this one into a request's extensions found a key there, so that
    /// nobody has to look again.
    found_key: bool,
}

struct Inner {
    store: Arc<dyn Store>,
    namespace: Box<str>,
    dialect: Dialect,
    lease: Duration,
    store_timeout: Duration,
    body_timeout: Duration,
    max_recorded_body: usize,
    record_set_cookie: bool,
    fingerprint_digest: FingerprintDigest,
    on_store_error: OnStoreError,
    render: Option<Box<Render>>,
    attempts: TaskTracker,
    unwritten: Unwritten,
    orphans: Orphans,
}

type Render = dyn Fn(&Problem) -> Response + Send + Sync;

/// 100 years, as long as the stores keep anything. An `Instant` that far ahead does not overflow, as
/// one at `Duration::MAX` does.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What happens to a keyed request whose claim the store could not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreError {
    /// It is refused with 503 and `Retry-After`, and nothing runs.
    #[default]
    FailClosed,
    /// It runs without protection: a retry may run again. The answer says so with
    /// `Idempotency-Degraded: true`, and the log with a warning.
    FailOpen,
}

/// What can stand in `runtime = …`: an [`Idempotency`], or what refers to one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Idempotency`",
    label = "not an `Idempotency`",
    note = "`runtime` takes an `Idempotency`, such as a field of the service's state: `runtime = desk.idem`"
)]
pub trait AsIdempotency {
    /// The `Idempotency` itself.
    fn as_idempotency(&self) -> &Idempotency;
}

impl AsIdempotency for Idempotency {
    fn as_idempotency(&self) -> &Idempotency {
        self
    }
}

impl<R: AsIdempotency + ?Sized> AsIdempotency for &R {
    fn as_idempotency(&self) -> &Idempotency {
        (**self).as_idempotency()
    }
}

/// `runtime = IDEM` with a `static IDEM: LazyLock<Idempotency>`.
impl<R: AsIdempotency, F: FnOnce() -> R> AsIdempotency for LazyLock<R, F> {
    fn as_idempotency(&self) -> &Idempotency {
        (**self).as_idempotency()
    }
}

impl<R: AsIdempotency + ?Sized> AsIdempotency for Arc<R> {
    fn as_idempotency(&self) -> &Idempotency {
        (**self).as_idempotency()
    }
}

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

    /// The id of the record for `key` in `scope`, in this service's namespace.
    ///
    /// The key is given as its client means it, without quotes.
    ///
    /// ```
    /// use idem_runtime::{Idempotency, Scope};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let idem = Idempotency::in_memory();
    /// let id = idem.record_id(&Scope::new().value("user-7"), "8e03978e");
    /// assert!(idem.look_up(id).await?.is_none());
    /// # Ok::<(), idem_runtime::store::StoreError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn record_id(&self, scope: &Scope, key: &str) -> RecordId {
        RecordId::new(&self.inner.namespace, scope, key)
    }

    /// What the store holds under `id`. Changes nothing.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time or holds what it cannot read.
    pub async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        self.in_time(self.inner.store.look_up(id)).await
    }

    /// Removes what the store holds under `id`, and says whether there was anything.
    ///
    /// The next request with this key runs the handler. That is so for a claim in flight too: its
    /// handler runs on and is no longer recorded. A record that this process holds because the store could
    /// not take it in time is removed as well.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time.
    pub async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let unwritten = self.inner.unwritten.forget(&id);
        let was_stored = self.in_time(self.inner.store.forget(id)).await?;
        let was_unwritten = unwritten.confirm();
        Ok(was_stored || was_unwritten)
    }

    /// Settles a key whose outcome is unknown with the answer that its retries are to get, for
    /// `ttl` from now. Says whether it took effect: a key that is not unknown is left alone, and so is one
    /// whose record this process holds and has yet to write.
    ///
    /// Set-Cookie and hop-by-hop headers are left out, as from a handler's answer. To have the key
    /// run again instead, [`forget`](Self::forget) it.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time or holds what it cannot read.
    pub async fn resolve(
        &self,
        id: RecordId,
        answer: http::Response<bytes::Bytes>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let Some(Entry::Unknown {
            fingerprint, fence, ..
        }) = self.look_up(id).await?
        else {
            return Ok(false);
        };
        if self.inner.unwritten.find(&id).is_some() {
            // This process knows the outcome, and writes it as soon as it can.
            return Ok(false);
        }
        let headers =
            crate::answer::KeptHeaders::new(answer.headers(), self.inner.record_set_cookie);
        let record = Record::answer_with(
            fingerprint,
            answer.status(),
            || headers.iter(),
            answer.body(),
        )
        .unwrap_or_else(|| Record::not_kept(fingerprint, answer.status()));
        let settled = self
            .in_time(
                self.inner
                    .store
                    .resolve(id, fence, record, ttl.min(LONGEST)),
            )
            .await?;
        Ok(settled == Settled::Done)
    }

    /// Waits until no handler runs under a claim any more and everything is settled, or until `timeout`
    /// has passed. Returns how many attempts and background tasks are left.
    ///
    /// That includes records which the store could not take in time, and claims whose reply was lost:
    /// both are tried again while the store is away.
    ///
    /// A handler whose client has gone runs on in the background; axum's graceful shutdown does not
    /// wait for it. Call this behind it:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn main_(listener: tokio::net::TcpListener, router: axum::Router, idem: idem_runtime::Idempotency) {
    /// axum::serve(listener, router)
    ///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap() })
    ///     .await
    ///     .unwrap();
    /// idem.drain(Duration::from_secs(30)).await;
    /// # }
    /// ```
    ///
    /// What is left at the deadline is left to its lease: it is not released, since its work may be half
    /// done. When the process ends then, a record that is not in the store yet is lost. Cancel-safe.
    pub async fn drain(&self, timeout: Duration) -> usize {
        let attempts = &self.inner.attempts;
        attempts.close();
        if tokio::time::timeout(timeout.min(LONGEST), attempts.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                target: crate::TARGET,
                running = attempts.len(),
                "attempts still run or wait to be settled at the drain's deadline; their claims are left to their leases"
            );
        }
        attempts.len()
    }

    /// The answer of this service to a refused request.
    pub(crate) fn refuse(&self, problem: Problem) -> Response {
        let problem = problem.in_dialect(&self.inner.dialect);
        let Some(render) = &self.inner.render else {
            let mut response = problem.render();
            problem.complete(&mut response);
            return response;
        };
        match catch_unwind(AssertUnwindSafe(|| render(&problem))) {
            Ok(mut response) => {
                problem.complete(&mut response);
                response
            }
            Err(_) => Problem::render_failed().render(),
        }
    }

    /// A replay, or the refusal to make one where the answer was not kept.
    pub(crate) fn replay(&self, record: &Record) -> Response {
        if !record.is_kept() {
            return self.refuse(Problem::response_not_kept());
        }
        let mut response = Response::new(Body::from(record.body()));
        *response.status_mut() = record.status();
        let headers = response.headers_mut();
        record.append_headers(headers);
        crate::answer::mark_replay(headers, self.inner.dialect.replay_header_name());
        response
    }

    /// Awaits the store for no longer than the service allows.
    pub(crate) async fn in_time<T>(&self, answer: StoreFuture<T>) -> Result<T, StoreError> {
        within(self.inner.store_timeout, answer).await
    }

    /// The records that the store does not have yet.
    pub(crate) fn unwritten(&self) -> &Unwritten {
        &self.inner.unwritten
    }

    /// The claims that the store may have granted unheard.
    pub(crate) fn orphans(&self) -> &Orphans {
        &self.inner.orphans
    }

    pub(crate) fn dialect(&self) -> &Dialect {
        &self.inner.dialect
    }

    /// What a layer puts into the extensions of a request with these headers: nothing when there is
    /// neither a key nor the default key header, which a handler without settings takes for one.
    pub(crate) fn for_request(&self, headers: &HeaderMap) -> Option<Self> {
        let found_key = key::is_there(headers, self.inner.dialect.key_header_name());
        let is_of_interest = found_key
            || !self.inner.dialect.has_default_key_header()
                && key::is_there(headers, &Dialect::DEFAULT_KEY_HEADER);
        is_of_interest.then(|| Self {
            found_key,
            ..self.for_any_request()
        })
    }

    /// The same settings, of which nothing is known about a request.
    pub(crate) fn for_any_request(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            found_key: false,
        }
    }

    pub(crate) fn has_key(&self, headers: &HeaderMap) -> bool {
        self.found_key || key::is_there(headers, self.inner.dialect.key_header_name())
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        self.inner.store_timeout
    }

    pub(crate) fn lease(&self) -> Duration {
        self.inner.lease
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        self.inner.body_timeout
    }

    pub(crate) fn max_recorded_body(&self) -> usize {
        self.inner.max_recorded_body
    }

    pub(crate) fn fingerprint(
        &self,
        request: &Request,
        body: &[u8],
        mode: FingerprintMode,
    ) -> Fingerprint {
        Fingerprint::of(request, body, mode, self.inner.fingerprint_digest)
    }

    pub(crate) fn records_set_cookie(&self) -> bool {
        self.inner.record_set_cookie
    }

    pub(crate) fn fails_open(&self) -> bool {
        self.inner.on_store_error == OnStoreError::FailOpen
    }

    /// The handlers that run under a claim, for `drain`.
    pub(crate) fn attempts(&self) -> &TaskTracker {
        &self.inner.attempts
    }
}

/// Awaits the store for no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, answer: StoreFuture<T>) -> Result<T, StoreError> {
    match answer.try_now() {
        Ok(answer) => answer,
        Err(pending) => tokio::time::timeout(limit, pending)
            .await
            .unwrap_or(Err(StoreError::TimedOut)),
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("namespace", &self.inner.namespace)
            .field("dialect", &self.inner.dialect)
            .field("lease", &self.inner.lease)
            .field("on_store_error", &self.inner.on_store_error)
            .field("running", &self.inner.attempts.len())
            .finish_non_exhaustive()
    }
}

/// Settings of an [`Idempotency`].
///
/// A duration of more than 100 years means 100 years.
#[must_use]
pub struct IdempotencyBuilder {
    store: Option<Arc<dyn Store>>,
    namespace: Box<str>,
    dialect: Dialect,
    lease: Duration,
    store_timeout: Duration,
    body_timeout: Duration,
    max_recorded_body: usize,
    record_set_cookie: bool,
    fingerprint_digest: FingerprintDigest,
    on_store_error: OnStoreError,
    render: Option<Box<Render>>,
}

impl Default for IdempotencyBuilder {
    fn default() -> Self {
        Self {
            store: None,
            namespace: Box::default(),
            dialect: Dialect::default(),
            lease: Duration::from_secs(30),
            store_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            max_recorded_body: 1 << 20,
            record_set_cookie: false,
            fingerprint_digest: FingerprintDigest::default(),
            on_store_error: OnStoreError::default(),
            render: None,
        }
    }
}

impl IdempotencyBuilder {
    /// Where claims and records live. A [`MemoryStore`] of its own by default.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Keeps the keys of several services or environments apart in one store. Empty by default.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How the service speaks on the wire. [`Dialect::default`] by default.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// How long a claim outlives its process. 30 seconds by default, and at least 3 milliseconds.
    ///
    /// It is renewed at a third of this while the handler lives, whether or not its request is polled, so it
    /// need not cover the handler's run. A handler that blocks its thread cannot be seen to live: one that does so for longer
    /// than the lease may be run again beside itself.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(Duration::from_millis(3), LONGEST);
        self
    }

    /// How long one answer of the store is waited for. 5 seconds by default.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout.min(LONGEST);
        self
    }

    /// How long the body of a keyed request may stall before it is refused with 408. 30 seconds by
    /// default. No claim is held meanwhile.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout.min(LONGEST);
        self
    }

    /// The longest body of an answer that is kept, in bytes. 1 MiB by default.
    ///
    /// A longer one reaches its client unharmed; a retry is told that it was not kept (409
    /// `idempotency_response_not_kept`).
    pub fn max_recorded_body(mut self, bytes: usize) -> Self {
        self.max_recorded_body = bytes;
        self
    }

    /// Records and replays `Set-Cookie`, which is left out by default.
    ///
    /// A replayed cookie brings back a session that may have ended since.
    pub fn record_set_cookie(mut self) -> Self {
        self.record_set_cookie = true;
        self
    }

    /// Which digest tells a retry from a reused key. [`FingerprintDigest::Sha256`] by default.
    pub fn fingerprint_digest(mut self, digest: FingerprintDigest) -> Self {
        self.fingerprint_digest = digest;
        self
    }

    /// What happens to a keyed request whose claim the store could not answer.
    pub fn on_store_error(mut self, choice: OnStoreError) -> Self {
        self.on_store_error = choice;
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
        self.render = Some(Box::new(move |problem| render(problem).into_response()));
        self
    }

    /// The settings, ready to be installed as a layer.
    #[must_use]
    pub fn build(self) -> Idempotency {
        let inner = Arc::new(Inner {
            store: self
                .store
                .unwrap_or_else(|| Arc::new(MemoryStore::default())),
            namespace: self.namespace,
            dialect: self.dialect,
            lease: self.lease,
            store_timeout: self.store_timeout,
            body_timeout: self.body_timeout,
            max_recorded_body: self.max_recorded_body,
            record_set_cookie: self.record_set_cookie,
            fingerprint_digest: self.fingerprint_digest,
            on_store_error: self.on_store_error,
            render: self.render,
            attempts: TaskTracker::new(),
            unwritten: Unwritten::default(),
            orphans: Orphans::default(),
        });
        Idempotency {
            inner,
            found_key: false,
        }
    }
}

impl fmt::Debug for IdempotencyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyBuilder")
            .field("namespace", &self.namespace)
            .field("dialect", &self.dialect)
            .field("lease", &self.lease)
            .field("on_store_error", &self.on_store_error)
            .finish_non_exhaustive()
    }
}
