//! The settings that a service chose when it built its `Idempotency`.

use std::sync::Arc;
use std::thread::Result;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;

use crate::observe::Observing;
use crate::request::fingerprint::FingerprintDigest;
use crate::request::namespace::Namespace;
use crate::response::problem::Problem;
use crate::response::recording::{Recording, Redact};
use crate::service::permits::Limit;
use crate::settings::dialect::Dialect;
use crate::settings::policy::Policy;

/// 100 years, the longest time for which a store keeps an entry. An `Instant` that far in the
/// future does not overflow, unlike an `Instant` at `Duration::MAX`.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Chooses a label for a record, from the request and its key. Returns `Err` when the function of the service panics.
pub(crate) type Label = dyn Fn(&Request, &str) -> Result<Option<String>> + Send + Sync;

/// Renders a problem. Returns `Err` when the function of the service panics.
pub(super) type Render = dyn Fn(&Problem) -> Result<Response> + Send + Sync;

/// The settings of one service. [`IdempotencyBuilder`](crate::IdempotencyBuilder) documents each
/// setting.
pub(crate) struct Settings {
    pub(crate) namespace: Namespace,
    pub(crate) dialect: Dialect,
    pub(crate) lease: Duration,
    pub(crate) store_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) max_run: Duration,
    pub(crate) max_running: Option<Arc<dyn Limit>>,
    pub(crate) max_request_body: usize,
    pub(crate) max_recorded_body: usize,
    pub(crate) record_set_cookie: bool,
    pub(crate) fingerprint_digest: FingerprintDigest,
    pub(crate) on_store_error: OnStoreError,
    pub(crate) label: Option<Box<Label>>,
    pub(super) redact: Option<Box<Redact>>,
    pub(super) observing: Option<Observing>,
    pub(super) render: Option<Box<Render>>,
}

impl Settings {
    /// How the responses of an endpoint are recorded.
    pub(crate) fn recording(&self, policy: &Policy) -> Recording<'_> {
        Recording {
            endpoint: policy.endpoint,
            redact: self.redact.as_deref(),
            keeps_set_cookie: self.record_set_cookie,
            records_body: policy.records_body,
        }
    }

    /// Whether the service renders refusals itself.
    #[cfg(any(feature = "aide", feature = "utoipa"))]
    pub(crate) fn has_own_rendering(&self) -> bool {
        self.render.is_some()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: Namespace::new(""),
            dialect: Dialect::default(),
            lease: Duration::from_secs(30),
            store_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(30),
            max_run: Duration::from_secs(15 * 60),
            max_running: None,
            max_request_body: 2 << 20,
            max_recorded_body: 1 << 20,
            record_set_cookie: false,
            fingerprint_digest: FingerprintDigest::default(),
            on_store_error: OnStoreError::default(),
            label: None,
            redact: None,
            observing: None,
            render: None,
        }
    }
}

/// How a request with a key is handled when the store fails to process its claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreError {
    /// The request is refused with 503 and `Retry-After`, and its handler does not run.
    #[default]
    FailClosed,
    /// The handler runs without protection, so a retry may run the handler again. The response
    /// carries `Idempotency-Degraded: true`, and a WARN in the log names the record. A `transactional`
    /// endpoint never runs in this way. A request whose key has an entry that the store cannot decode is refused,
    /// because the entry shows that the key was used before. A request that waits for a first run
    /// (`in_flight = wait(…)`) is refused too when the store fails.
    FailOpen,
}
