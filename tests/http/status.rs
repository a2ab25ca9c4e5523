//! Tests an endpoint that tells a caller what is known about its key.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_idem::{Dialect, Idempotency, KeyStatus, Scope, idempotent};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Answer, Runs, Server, request};

#[idempotent(scope = token)]
async fn slow(State((runs, _)): State<(Runs, Idempotency)>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = token, on_unknown = hold)]
async fn panics() -> StatusCode {
    panic!("the outcome is unknown")
}

#[idempotent(scope = token)]
async fn long() -> (StatusCode, String) {
    (StatusCode::ACCEPTED, "too long".repeat(1 << 10))
}

async fn status(
    State((_, idem)): State<(Runs, Idempotency)>,
    Path((token, key)): Path<(String, String)>,
) -> Response {
    let scope = Scope::new().token(format!("Bearer {token}"));
    idem.status(&scope, &key).await.into_response()
}

async fn start() -> (Server, Runs, Idempotency) {
    let runs = Runs::default();
    let idem = Idempotency::builder().max_recorded_body(1 << 10).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/panics", post(panics))
        .route("/long", post(long))
        .route("/status/{token}/{key}", get(status))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state((runs.clone(), idem.clone()));
    (Server::start(router).await, runs, idem)
}

async fn ask(server: Server, path: &str) -> Answer {
    let answer = server.send(request(Method::GET, path, [], "")).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    answer
}

#[tokio::test]
async fn a_caller_learns_the_state_of_its_key_without_a_retry() {
    let (server, runs, idem) = start().await;
    let nothing = ask(server, "/status/alice/k").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert_eq!(nothing.text(), r#"{"state":"nothing"}"#);

    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    let in_flight = ask(server, "/status/alice/k").await;
    assert_eq!(in_flight.status, StatusCode::OK);
    assert_eq!(in_flight.headers["retry-after"], "1");
    assert_eq!(in_flight.text(), r#"{"state":"in_flight","attempt":1}"#);

    runs.open(1);
    first.await.expect("no panic");
    let recorded = ask(server, "/status/alice/k").await;
    assert_eq!(recorded.status, StatusCode::OK);
    assert!(!recorded.headers.contains_key("retry-after"));
    let text = r#"{"state":"recorded","status":201,"kept":true}"#;
    assert_eq!(recorded.text(), text);
    let of_another = ask(server, "/status/bob/k").await;
    assert_eq!(of_another.status, StatusCode::NOT_FOUND);
    assert_eq!(runs.started(), 1);

    server.post("/panics", "p", "").await;
    let unknown = ask(server, "/status/alice/p").await;
    assert_eq!(unknown.text(), r#"{"state":"unknown","attempt":1}"#);

    server.post("/long", "l", "").await;
    let scope = Scope::new().token("Bearer alice");
    let status = idem.status(&scope, "l").await.expect("the store works");
    let not_kept = KeyStatus::Recorded {
        status: StatusCode::ACCEPTED,
        kept: false,
    };
    assert_eq!(status, not_kept);
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_failing_store_is_a_problem_in_the_dialect_of_the_service() {
    use axum_idem::store::MemoryStore;
    use axum_idem::testing::{Fault, FaultStore, Operation};

    let store = FaultStore::new(MemoryStore::default());
    let idem = Idempotency::builder()
        .store(store.clone())
        .dialect(Dialect::default().documentation("https://example.com/retries"))
        .build();
    store.script(Operation::LookUp, [Fault::ErrBefore, Fault::Undecodable]);
    for _ in 0..2 {
        let problem = idem.status(&Scope::new(), "k").await;
        let problem = problem.expect_err("the store fails");
        assert_eq!(problem.code(), "idempotency_store_unavailable");
        assert_eq!(
            problem.type_uri(),
            "https://example.com/retries#idempotency_store_unavailable"
        );
        assert_eq!(
            problem.record_id(),
            Some(idem.record_id(&Scope::new(), "k"))
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
    }
}

/// The store does not have the record yet, but this process replays it.
#[cfg(feature = "testing")]
#[tokio::test]
async fn a_record_that_waits_for_the_store_is_recorded() {
    use axum_idem::store::MemoryStore;
    use axum_idem::testing::{Fault, FaultStore, Operation};

    let store = FaultStore::new(MemoryStore::default());
    let runs = Runs::default();
    let idem = Idempotency::builder().store(store.clone()).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .layer(idem.clone())
        .with_state((runs.clone(), idem.clone()));
    let server = Server::start(router).await;
    store.script(Operation::Complete, [Fault::ErrBefore; 20]);
    runs.open(1);
    let first = server.post("/slow", "k", "").await;
    assert!(first.is_unrecorded());
    let scope = Scope::new().token("Bearer alice");
    let status = idem.status(&scope, "k").await.expect("this process knows");
    let recorded = KeyStatus::Recorded {
        status: StatusCode::CREATED,
        kept: true,
    };
    assert_eq!(status, recorded);
}
