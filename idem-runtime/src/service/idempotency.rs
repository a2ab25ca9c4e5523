//! The handle through which handlers reach the settings and the store of their service.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use tokio_util::task::TaskTracker;

use crate::observe::Observing;
use crate::request::fingerprint::Fingerprint;
use crate::request::headers;
use crate::request::record_id::RecordId;
use crate::response::problem::Problem;
use crate::response::receipt;
use crate::response::replay::replay;
use crate::service::orphans::Orphans;
use crate::service::permits::Permits;
use crate::service::settings::{OnStoreError, Settings};
use crate::service::slot::{Slot, SlotOf};
use crate::service::unwritten::Unwritten;
use crate::settings::dialect::Dialect;
use crate::settings::policy::FingerprintMode;
use crate::store::{Record, Store, StoreError, StoreFuture};

/// The settings and the store of one service, and the operations for its operators.
///
/// A clone is cheap and shares everything with the original. `Idempotency` is a
/// [`tower_layer::Layer`] that makes itself available to the annotated handlers below:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::{Router, routing::post};
/// use axum_idem::Idempotency;
///
/// let router: Router = Router::new()
///     .route("/trades", post(|| async {}))
///     .layer(Idempotency::in_memory());
/// ```
///
/// Add the layer after the routes that it must protect, because `Router::layer` does not apply to
/// routes that are added later. A request with a key in the default header may reach an annotated
/// handler without any `Idempotency`. Such a request is refused with 500
/// `idempotency_not_installed`, and the log names the call to add. A request without a key runs.
///
/// Install middleware that sets the key header above the layer. With the default key header, a key
/// that is set below the layer is refused in the same way. With another header
/// ([`Dialect::key_header`]), the handler finds a key that is set below the layer.
///
/// One case is not detected. A handler without any `Idempotency` knows only the default key header.
/// If a route is added after the layer, a key in another header is not recognized, and the request
/// runs unprotected.
#[derive(Clone)]
pub struct Idempotency {
    pub(super) inner: Arc<Inner>,
    /// Where the attempt of a request waits for the layers above its handler.
    slot: Option<SlotOf>,
}

pub(super) struct Inner {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Settings,
    /// The tasks that `drain` waits for.
    pub(super) attempts: TaskTracker,
    pub(super) unwritten: Arc<Unwritten>,
    orphans: Orphans,
    pub(super) permits: Permits,
}

/// A type that `runtime = …` accepts: an [`Idempotency`] or a pointer to one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `Idempotency`",
    label = "not an `Idempotency`",
    note = "pass the value that `Idempotency::builder().build()` returned, such as a field of the state: `runtime = desk.idem`"
)]
pub trait AsIdempotency {
    /// Returns the `Idempotency`.
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

/// Allows `runtime = IDEM` with a `static IDEM: LazyLock<Idempotency>`.
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
    pub(super) fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                permits: Permits::new(settings.max_running.clone()),
                settings,
                attempts: TaskTracker::new(),
                unwritten: Arc::default(),
                orphans: Orphans::default(),
            }),
            slot: None,
        }
    }

    /// Renders the refusal that a response carries, in the way of this service. Keeps the status, the headers and
    /// the extensions that the handler and its layers have given the response.
    pub(super) fn render(&self, mut response: Response) -> Response {
        match response.extensions_mut().remove::<Problem>() {
            Some(problem) => self.render_again(problem, response),
            None => response,
        }
    }

    #[cold]
    fn render_again(&self, problem: Problem, mut response: Response) -> Response {
        let rendered = self.refuse(problem.with_status(response.status()));
        let (parts, body) = rendered.into_parts();
        let headers = response.headers_mut();
        let describe_body = headers.keys().filter(|name| receipt::describes_body(name));
        for name in describe_body.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
        headers.extend(parts.headers);
        response.extensions_mut().extend(parts.extensions);
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response
    }

    /// Renders the response of this service to a refused request.
    pub(crate) fn refuse(&self, problem: Problem) -> Response {
        let problem = problem.in_dialect(&self.inner.settings.dialect);
        let Some(render) = &self.inner.settings.render else {
            let mut response = problem.render();
            problem.complete(&mut response);
            return response;
        };
        match render(&problem) {
            Ok(mut response) => {
                problem.complete(&mut response);
                response
            }
            Err(_) => Problem::render_failed().render(),
        }
    }

    /// Returns the replay of a record, or a problem that names the record if the response was not
    /// recorded.
    pub(crate) fn replay(&self, id: RecordId, record: &Record) -> Response {
        if !record.is_kept() {
            return self.refuse(Problem::response_not_kept().about(Some(id)));
        }
        replay(record, self.inner.settings.dialect.replay_header_name())
    }

    /// Awaits a reply of the store for at most `store_timeout`.
    pub(crate) fn in_time<T>(
        &self,
        pending: StoreFuture<T>,
    ) -> impl Future<Output = Result<T, StoreError>> + use<T> {
        within(self.inner.settings.store_timeout, pending)
    }

    /// Returns the records that the store does not have yet.
    pub(crate) fn unwritten(&self) -> &Arc<Unwritten> {
        &self.inner.unwritten
    }

    /// Returns the claims that the store may have granted although their replies were lost.
    pub(crate) fn orphans(&self) -> &Orphans {
        &self.inner.orphans
    }

    /// How many attempts may run at once.
    pub(crate) fn permits(&self) -> &Permits {
        &self.inner.permits
    }

    /// The observer of the service, if there is one.
    pub(crate) fn observing(&self) -> Option<&Observing> {
        self.inner.settings.observing.as_ref()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Returns the value that a layer inserts into the extensions of a request, and the slot if the
    /// layer made one for this request. Returns `None` only for a request without a key when the key
    /// header is the default header.
    ///
    /// A handler without settings searches only the default header for a key. So the handler needs
    /// the settings to recognize another key header, which middleware below the layer may set.
    pub(super) fn for_request<B>(&self, request: &Request<B>) -> Option<(Self, Option<Arc<Slot>>)> {
        let dialect = &self.inner.settings.dialect;
        let key = headers::find(request.headers(), dialect.key_header_name());
        if key.is_none() && dialect.has_default_key_header() {
            return None;
        }
        let mut settings = self.without_slot();
        let mut made: Option<Arc<Slot>> = None;
        if let Some(key) = key.filter(|_| !request.method().is_safe()) {
            // The slot of an outer layer takes precedence, because it waits for more layers.
            let slot = Self::slot_of(request).filter(|slot| slot.is_open());
            let slot = slot
                .cloned()
                .unwrap_or_else(|| made.insert(Arc::default()).clone());
            settings.slot = Some(SlotOf::new(slot, key));
        }
        Some((settings, made))
    }

    /// Returns the key header of the request, if the dialect adds the header to the response.
    pub(super) fn echoed<B>(&self, request: &Request<B>) -> Option<(HeaderName, HeaderValue)> {
        let dialect = &self.inner.settings.dialect;
        if !dialect.echoes_key() {
            return None;
        }
        let name = dialect.key_header_name();
        headers::find(request.headers(), name).map(|key| (name.clone(), key.clone()))
    }

    /// The slot in which the attempt of this request waits, if a layer made one for the request.
    pub(crate) fn slot_of<B>(request: &Request<B>) -> Option<&Arc<Slot>> {
        let idem = request.extensions().get::<Self>()?;
        let slot = idem.slot.as_ref()?;
        let name = idem.inner.settings.dialect.key_header_name();
        let key = headers::find(request.headers(), name)?;
        slot.is_of(key).then_some(&slot.slot)
    }

    /// The settings of a request, without its slot. A slot that its own attempt refers to would never
    /// be dropped.
    pub(crate) fn without_slot(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            slot: None,
        }
    }

    /// Returns whether a request needs a claim: it has a key in the header of the service, and a
    /// method that can change something (RFC 9110, section 9.2.1).
    pub(crate) fn concerns<B>(request: &Request<B>, idem: Option<&Self>) -> bool {
        let headers = request.headers();
        !request.method().is_safe()
            && idem.map_or_else(
                || headers::is_there(headers, &Dialect::DEFAULT_KEY_HEADER),
                // A layer has found the key already. When a layer below has removed the key, the claim
                // phase notices that.
                |idem| idem.slot.is_some() || idem.has_key(headers),
            )
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        headers::is_there(headers, self.inner.settings.dialect.key_header_name())
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn fingerprint(
        &self,
        request: &Request<axum::body::Body>,
        body: &[u8],
        mode: FingerprintMode,
    ) -> Fingerprint {
        let settings = self.settings();
        let counts = settings.dialect.counts_content_type();
        let content_type = counts.then(|| headers::find(request.headers(), &header::CONTENT_TYPE));
        let digest = settings.fingerprint_digest;
        let fingerprint =
            Fingerprint::with_content_type(request, content_type.flatten(), body, mode, digest);
        match settings.namespace.secret() {
            None => fingerprint,
            Some(secret) => fingerprint.keyed(secret),
        }
    }

    pub(crate) fn fails_open(&self) -> bool {
        self.settings().on_store_error == OnStoreError::FailOpen
    }

    /// Returns the tracker of the attempts that `drain` waits for.
    pub(crate) fn attempts(&self) -> &TaskTracker {
        &self.inner.attempts
    }
}

/// Awaits a reply of the store for at most `limit`.
pub(crate) async fn within<T>(limit: Duration, pending: StoreFuture<T>) -> Result<T, StoreError> {
    match pending.try_now() {
        Ok(result) => result,
        Err(pending) => tokio::time::timeout(limit, pending)
            .await
            .unwrap_or(Err(StoreError::TimedOut)),
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("namespace", &self.inner.settings.namespace)
            .field("dialect", &self.inner.settings.dialect)
            .field("lease", &self.inner.settings.lease)
            .field("on_store_error", &self.inner.settings.on_store_error)
            .field("running", &self.inner.permits.taken())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsafe_methods_with_a_key_need_a_claim() {
        let idem = Idempotency::builder()
            .dialect(Dialect::default().key_header("x-request-id"))
            .build();
        let concerns = |method: &str, header: &str, idem| {
            let request = Request::builder().method(method).header(header, "k");
            Idempotency::concerns(&request.body(()).expect("a request"), idem)
        };
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(concerns(method, "idempotency-key", None), "{method}");
            assert!(concerns(method, "x-request-id", Some(&idem)), "{method}");
            assert!(!concerns(method, "x-request-id", None), "{method}");
            assert!(
                !concerns(method, "idempotency-key", Some(&idem)),
                "{method}"
            );
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(!concerns(method, "idempotency-key", None), "{method}");
        }
    }
}
