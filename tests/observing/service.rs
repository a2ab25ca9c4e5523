//! A service whose requests end in every way, and an observer that notes each report.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::observe::{AttemptEnd, Decided, Observer, Place, StoreCall, Waited};
use axum_idem::store::MemoryStore;
use axum_idem::testing::FaultStore;
use axum_idem::{Idempotency, IdempotencyBuilder, OutcomeUnknown, idempotent};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{self, Runs};

/// The body says how the request ends.
#[idempotent(scope = token)]
async fn pay(State(runs): State<Runs>, body: String) -> Response {
    let run = runs.count().to_string();
    match &*body {
        "panic" => panic!("the handler panics"),
        "unknown" => (OutcomeUnknown, run).into_response(),
        "busy" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => (StatusCode::CREATED, run).into_response(),
    }
}

#[idempotent(scope = global, on_unknown = hold)]
async fn hold(State(runs): State<Runs>) -> impl IntoResponse {
    (OutcomeUnknown, runs.count().to_string())
}

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn wait(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) idem: Idempotency,
    pub(crate) store: FaultStore<MemoryStore>,
    pub(crate) runs: Runs,
}

impl Service {
    pub(crate) fn new(settings: impl FnOnce(IdempotencyBuilder) -> IdempotencyBuilder) -> Self {
        Self::with_store(MemoryStore::default(), settings)
    }

    pub(crate) fn with_store(
        store: MemoryStore,
        settings: impl FnOnce(IdempotencyBuilder) -> IdempotencyBuilder,
    ) -> Self {
        let store = FaultStore::new(store);
        let runs = Runs::default();
        let idem = settings(Idempotency::builder().store(store.clone())).build();
        let router = Router::new()
            .route("/pay", post(pay))
            .route("/hold", post(hold))
            .route("/wait", post(wait))
            .layer(CatchPanicLayer::new())
            .layer(idem.clone())
            .with_state(runs.clone());
        Self {
            router,
            idem,
            store,
            runs,
        }
    }

    /// Sends a request in this task, because a recorder or a subscriber of a test is local to its thread.
    pub(crate) async fn send(&self, path: &str, key: &str, body: &str) -> Response {
        let request = support::post(path, key, body).map(Body::new);
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible")
    }
}

/// Notes each report in one line.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, line: String) {
        self.0.lock().expect("no panic").push(line);
    }

    /// The reports since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    /// How many reports so far begin with this text.
    pub(crate) fn count(&self, start: &str) -> usize {
        let notes = self.0.lock().expect("no panic");
        notes.iter().filter(|line| line.starts_with(start)).count()
    }
}

/// The name of the handler, without its path.
fn short(endpoint: &str) -> &str {
    endpoint.rsplit("::").next().unwrap_or_default()
}

impl Observer for Notes {
    fn decided(&self, decided: &Decided) {
        let bytes = if decided.replayed_bytes.is_some_and(|bytes| bytes > 0) {
            " bytes"
        } else {
            ""
        };
        let endpoint = short(decided.endpoint);
        self.note(format!("decided {endpoint} {}{bytes}", decided.outcome));
    }

    fn waited(&self, waited: &Waited) {
        assert!(waited.waited > Duration::ZERO);
        let endpoint = short(waited.endpoint);
        self.note(format!("waited {endpoint} {}", waited.outcome));
    }

    fn attempt_started(&self, endpoint: &'static str) {
        self.note(format!("started {}", short(endpoint)));
    }

    fn attempt_detached(&self, endpoint: &'static str) {
        self.note(format!("detached {}", short(endpoint)));
    }

    fn attempt_stopped(&self, endpoint: &'static str, place: Place) {
        self.note(format!("stopped {} {}", short(endpoint), place.as_str()));
    }

    fn attempt_ended(&self, end: &AttemptEnd) {
        let bytes = if end.recorded_bytes.is_some_and(|bytes| bytes > 0) {
            " bytes"
        } else {
            ""
        };
        let endpoint = short(end.endpoint);
        self.note(format!("ended {endpoint} {}{bytes}", end.outcome));
    }

    fn unrecorded(&self, endpoint: &'static str) {
        self.note(format!("unrecorded {}", short(endpoint)));
    }

    fn store_called(&self, call: &StoreCall) {
        let (operation, result) = (call.operation.as_str(), call.result.as_str());
        self.note(format!("store {} {operation} {result}", call.store));
    }

    fn store_filled(&self, store: &'static str, bytes: u64, max_bytes: u64) {
        assert!(bytes > 0 && max_bytes > 0);
        self.note(format!("filled {store}"));
    }

    fn evicted(&self, store: &'static str, records: u64) {
        self.note(format!("evicted {store} {records}"));
    }
}
