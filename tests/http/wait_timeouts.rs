//! `in_flight = wait("…")` below a timeout: which of the two ends the wait, what the client gets, and what
//! happens to the run.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use tokio::sync::Notify;
use tower_http::timeout::TimeoutLayer;

use crate::support::{Runs, Server};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn patient(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = global, in_flight = wait("50ms"))]
async fn impatient(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn fail_once(State(runs): State<Runs>) -> Result<String, StatusCode> {
    match runs.pass().await {
        1 => Err(StatusCode::SERVICE_UNAVAILABLE),
        run => Ok(run.to_string()),
    }
}

fn routes(runs: &Runs) -> Router {
    Router::new()
        .route("/patient", post(patient))
        .route("/impatient", post(impatient))
        .route("/fail-once", post(fail_once))
        .with_state(runs.clone())
}

/// The same service twice: below a timeout, and without one.
async fn start(timeout: Duration, is_above: bool) -> ([Server; 2], Runs, Idempotency) {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout);
    let timed = if is_above {
        routes(&runs).layer(idem.clone()).layer(timeout)
    } else {
        routes(&runs).layer(timeout).layer(idem.clone())
    };
    let plain = Server::start(routes(&runs).layer(idem.clone())).await;
    ([Server::start(timed).await, plain], runs, idem)
}

#[tokio::test]
async fn a_timeout_shorter_than_the_wait_ends_the_wait_and_not_the_run() {
    for is_above in [true, false] {
        let ([timed, plain], runs, _) = start(SHORT, is_above).await;
        let first = tokio::spawn(async move { plain.post("/patient", "k", "").await });
        runs.until_started(1).await;
        for _ in 0..2 {
            let duplicate = timed.post("/patient", "k", "").await;
            assert_eq!(duplicate.status, StatusCode::REQUEST_TIMEOUT);
            // The response of the timeout does not say when to retry.
            assert!(!duplicate.headers.contains_key("retry-after"));
        }
        runs.open(1);
        assert_eq!(first.await.expect("no panic").text(), "1");
        let retry = timed.post("/patient", "k", "").await;
        assert!(retry.status == 201 && retry.is_replay(), "{retry:?}");
        assert_eq!(runs.started(), 1);
    }
}

/// Otherwise the handler would run although no client waits for it.
#[tokio::test]
async fn a_duplicate_whose_wait_has_ended_does_not_run_later() {
    for is_above in [true, false] {
        let ([timed, plain], runs, idem) = start(SHORT, is_above).await;
        let first = tokio::spawn(async move { plain.post("/fail-once", "k", "").await });
        runs.until_started(1).await;
        let duplicate = timed.post("/fail-once", "k", "").await;
        assert_eq!(duplicate.status, StatusCode::REQUEST_TIMEOUT);
        // The first run releases the key, and a second run could pass the gate.
        runs.open(2);
        assert_eq!(first.await.expect("no panic").status, 503);
        assert_eq!(idem.drain(LONG).await, 0);
        assert_eq!(runs.started(), 1);
        let retry = plain.post("/fail-once", "k", "").await;
        assert!(!retry.is_replay() && retry.text() == "2", "{retry:?}");
    }
}

#[tokio::test]
async fn a_wait_shorter_than_the_timeout_ends_with_409_and_a_time_to_retry() {
    for is_above in [true, false] {
        let ([timed, plain], runs, _) = start(LONG, is_above).await;
        let first = tokio::spawn(async move { plain.post("/impatient", "k", "").await });
        runs.until_started(1).await;
        let duplicate = timed.post("/impatient", "k", "").await;
        assert_eq!(duplicate.code(), "idempotency_key_in_flight");
        assert_eq!(duplicate.headers["retry-after"], "1");
        runs.open(1);
        assert_eq!(first.await.expect("no panic").text(), "1");
        assert!(timed.post("/impatient", "k", "").await.is_replay());
        assert_eq!(runs.started(), 1);
    }
}

#[tokio::test]
async fn a_duplicate_gets_the_response_of_a_run_whose_client_got_the_timeout() {
    let ([timed, plain], runs, idem) = start(SHORT, true).await;
    let first = timed.post("/patient", "k", "").await;
    assert_eq!(first.status, StatusCode::REQUEST_TIMEOUT);
    let duplicate = tokio::spawn(async move { plain.post("/patient", "k", "").await });
    runs.open(1);
    let duplicate = duplicate.await.expect("no panic");
    assert!(
        duplicate.status == 201 && duplicate.is_replay(),
        "{duplicate:?}"
    );
    assert_eq!(idem.drain(LONG).await, 0);
    assert_eq!(runs.started(), 1);
}

/// A timeout that the test triggers, so that the test knows what it interrupts.
async fn until_notified(State(end): State<Arc<Notify>>, request: Request, next: Next) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        () = end.notified() => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[tokio::test]
async fn a_duplicate_that_runs_after_its_wait_continues_after_the_timeout() {
    let (runs, idem, end) = (
        Runs::default(),
        Idempotency::in_memory(),
        Arc::new(Notify::new()),
    );
    let plain = Server::start(routes(&runs).layer(idem.clone())).await;
    let timeout = from_fn_with_state(end.clone(), until_notified);
    let timed = Server::start(routes(&runs).layer(idem.clone()).layer(timeout)).await;

    let first = tokio::spawn(async move { plain.post("/fail-once", "k", "").await });
    runs.until_started(1).await;
    let duplicate = tokio::spawn(async move { timed.post("/fail-once", "k", "").await });
    runs.open(1);
    assert_eq!(first.await.expect("no panic").status, 503);
    // The duplicate has the key now.
    runs.until_started(2).await;
    end.notify_one();
    let duplicate = duplicate.await.expect("no panic");
    assert_eq!(duplicate.status, StatusCode::REQUEST_TIMEOUT);
    runs.open(1);
    assert_eq!(idem.drain(LONG).await, 0);
    let retry = plain.post("/fail-once", "k", "").await;
    assert!(retry.is_replay() && retry.text() == "2", "{retry:?}");
    assert_eq!(runs.started(), 2);
}
