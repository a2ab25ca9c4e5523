//! Tests a failing store. No handler runs unprotected without a mark, and no client loses its response.

mod claims;
mod late_calls;
mod operators;
mod overtaken;
mod renewals;
mod settling;
mod takeovers;
mod unasked;
mod waiting;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore, Store};
use axum_idem::testing::{FaultStore, Operation};
use axum_idem::{Idempotency, OnStoreError, Scope, idempotent};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Answer, PATIENCE, Runs, Server};

/// Longer than any test waits for a key.
const LONG: Duration = Duration::from_secs(3600);
/// Long enough for a store call on a busy machine, and short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

/// Returns its body.
#[idempotent(scope = global)]
async fn echo(State(runs): State<Runs>, body: String) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{body} {}", runs.count()))
}

#[idempotent(scope = global, on_unknown = hold)]
async fn held(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

#[idempotent(scope = global)]
async fn fail(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, runs.count().to_string())
}

#[idempotent(scope = global, on_unknown = hold)]
async fn held_fail(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, runs.count().to_string())
}

#[idempotent(scope = global)]
async fn panics(State(runs): State<Runs>) -> String {
    let run = runs.count();
    assert!(run > 1, "the first run panics");
    run.to_string()
}

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn wait(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

struct Setup {
    server: Server,
    runs: Runs,
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
}

async fn start_with(choice: OnStoreError, lease: Duration) -> Setup {
    start_waiting(choice, lease, Duration::from_millis(200)).await
}

/// Starts a service with this store timeout.
async fn start_waiting(choice: OnStoreError, lease: Duration, timeout: Duration) -> Setup {
    let runs = Runs::default();
    let store = FaultStore::new(MemoryStore::default());
    let idem = Idempotency::builder()
        .store(store.clone())
        .store_timeout(timeout)
        .lease(lease)
        .on_store_error(choice)
        .build();
    let router = Router::new()
        .route("/count", post(count))
        .route("/echo", post(echo))
        .route("/held", post(held))
        .route("/slow", post(slow))
        .route("/fail", post(fail))
        .route("/held-fail", post(held_fail))
        .route("/panics", post(panics))
        .route("/wait", post(wait))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    Setup {
        server,
        runs,
        store,
        idem,
    }
}

async fn start() -> Setup {
    start_with(OnStoreError::FailClosed, LONG).await
}

impl Setup {
    /// Returns the entry of the store behind the injected faults.
    async fn stored(&self) -> Option<Entry> {
        let id = self.idem.record_id(&Scope::new(), "k");
        let stored = self.store.behind().look_up(id).await;
        stored.expect("the memory store does not fail")
    }

    async fn until_stored(&self, what: &str, is_it: impl Fn(Option<&Entry>) -> bool) {
        let until = async {
            while !is_it(self.stored().await.as_ref()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, until).await;
        assert!(waited.is_ok(), "timed out while waiting: {what}");
    }

    fn claims(&self) -> usize {
        self.store.calls(Operation::Claim)
    }

    /// Retries until the key is no longer in flight.
    async fn retry(&self, path: &str) -> Answer {
        for _ in 0..6_000 {
            let answer = self.server.post(path, "k", "").await;
            if answer.status != 409 || answer.code() != "idempotency_key_in_flight" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the key is still in flight");
    }
}
